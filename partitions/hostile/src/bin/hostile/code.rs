//! Instructions made at run time: how else to execute each of some ten thousand?

use core::arch::asm;

use bulkhead_rt::exception::{Fault, catch};
use bulkhead_rt::{cpu, memory};

/// Executes one instruction with `x0` in X0; returns X0 afterwards, or the exception that it caused.
///
/// # Safety
/// The instruction changes no register but X0 and the flags, no memory that Rust owns, and goes on with the
/// next one.
pub unsafe fn execute(instruction: u32, x0: u64) -> Result<u64, Fault> {
    const RET: u32 = 0xd65f_03c0;
    let place = memory::RAM_END - 4096 * (1 + cpu::id() as u64);
    memory::write(place, u64::from(RET) << 32 | u64::from(instruction));
    catch(|| {
        let mut result = x0;
        // SAFETY: the place holds the instruction and a return; the caller vouches for the instruction. The
        // new code is made visible to instruction fetches first (Arm ARM DDI 0487, B2.4.4).
        unsafe {
            asm!(
                "dc cvau, {place}",
                "dsb ish",
                "ic ivau, {place}",
                "dsb ish",
                "isb",
                "blr {place}",
                place = in(reg) place,
                inout("x0") result,
                clobber_abi("C"),
            );
        }
        result
    })
}

/// A system register or system instruction by its encoding.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Encoding {
    /// 1: system instruction, 2: debug and trace register, 3: other register.
    pub op0: u32,
    /// 0–7.
    pub op1: u32,
    /// 0–15.
    pub crn: u32,
    /// 0–15.
    pub crm: u32,
    /// 0–7.
    pub op2: u32,
}

impl Encoding {
    /// Every encoding with these values of op0.
    pub fn all(op0: core::ops::RangeInclusive<u32>) -> impl Iterator<Item = Self> {
        let first = op0.start() << 14;
        let last = op0.end() << 14 | 0x3fff;
        (first..=last).map(|bits| Self {
            op0: bits >> 14,
            op1: bits >> 11 & 7,
            crn: bits >> 7 & 15,
            crm: bits >> 3 & 15,
            op2: bits & 7,
        })
    }

    const fn bits(self) -> u32 {
        self.op0 << 19 | self.op1 << 16 | self.crn << 12 | self.crm << 8 | self.op2 << 5
    }

    /// `MRS X0, register` (or `SYSL`).
    pub const fn read(self) -> u32 {
        0xd520_0000 | self.bits()
    }

    /// `MSR register, X0` (or `SYS`).
    pub const fn write(self) -> u32 {
        0xd500_0000 | self.bits()
    }
}
