//! Accesses to emulated devices that leave the hypervisor without a syndrome (Arm ARM DDI 0487, D19.2.37, ISV):
//! pairs, write-back, exclusives, vectors, cache maintenance. A value or an abort will do; silence will not.

use core::arch::asm;

use bulkhead_rt::console::{UARTFR, pl011};
use bulkhead_rt::exception::catch;
use bulkhead_rt::gic::{self, gicd, offset, uart_intid};
use bulkhead_rt::{Verdict, ensure};

use crate::attack;
use crate::outside::NOWHERE;

/// Runs the attacks.
pub fn run() {
    attack("no-syndrome", || {
        let priority = gicd() + offset::IPRIORITYR + u64::from(uart_intid() / 32 * 32);
        let private = if gic::is_v2() {
            [gicd() + offset::ITARGETSR, gic::cpu_interface()]
        } else {
            [gic::redistributor(0), gic::redistributor(0) + offset::SGI_FRAME + offset::IPRIORITYR]
        };
        let console = [pl011() + 0x24, pl011() + (UARTFR & !7)];
        for place in [gicd(), priority, NOWHERE].into_iter().chain(private).chain(console) {
            each_kind(place)?;
        }
        Ok(())
    });
}

/// Tries one instruction with the place in X9; X10 to X13, V0 and V1 are free.
macro_rules! attempt {
    ($place:expr, $instruction:literal) => {{
        let result = catch(|| {
            // SAFETY: the place is a device or nothing, so no memory is changed; the registers are declared,
            // but for vector registers, which this program does not use.
            unsafe {
                asm!(
                    ".arch_extension fp",
                    ".arch_extension simd",
                    $instruction,
                    ".arch_extension nosimd",
                    ".arch_extension nofp",
                    inout("x9") $place => _,
                    inout("x10") 0_u64 => _,
                    inout("x11") 0_u64 => _,
                    out("x12") _,
                    options(nostack),
                );
            }
        });
        if let Err(fault) = result {
            ensure!(fault.is_data_abort(), concat!($instruction, " at {:#x}: {:x?}"), $place, fault);
        }
    }};
}

fn each_kind(place: u64) -> Verdict {
    // SAFETY: only lets this program use vector registers.
    unsafe { asm!("mrs x9, cpacr_el1", "orr x9, x9, #0x300000", "msr cpacr_el1, x9", "isb", out("x9") _) };
    attempt!(place, "ldp w10, w11, [x9]");
    attempt!(place, "ldp x10, x11, [x9]");
    attempt!(place, "stp w10, w11, [x9]");
    attempt!(place, "stp x10, x11, [x9]");
    attempt!(place, "ldpsw x10, x11, [x9]");
    attempt!(place, "ldr w10, [x9], #4");
    attempt!(place, "ldr w10, [x9, #4]!");
    attempt!(place, "str w10, [x9], #4");
    attempt!(place, "str w10, [x9, #4]!");
    attempt!(place, "strb w10, [x9], #1");
    attempt!(place, "ldrsb x10, [x9]");
    attempt!(place, "ldrsh w10, [x9]");
    attempt!(place, "ldrsw x10, [x9]");
    attempt!(place, "ldr wzr, [x9]");
    attempt!(place, "str wzr, [x9]");
    attempt!(place, "ldxr w10, [x9]");
    attempt!(place, "ldaxr x10, [x9]");
    attempt!(place, "ldxp w10, w11, [x9]");
    attempt!(place, "stxr w12, w10, [x9]");
    attempt!(place, "ldxr w10, [x9]\n stxr w12, w10, [x9]");
    attempt!(place, "ldar w10, [x9]");
    attempt!(place, "stlr w10, [x9]");
    attempt!(place, "ldr b0, [x9]");
    attempt!(place, "ldr s0, [x9]");
    attempt!(place, "ldr q0, [x9]");
    attempt!(place, "str q0, [x9]");
    attempt!(place, "ldp q0, q1, [x9]");
    attempt!(place, "ld1 {{v0.16b}}, [x9]");
    attempt!(place, "st1 {{v0.s}}[1], [x9]");
    attempt!(place, "ldr w10, [x9, #1]");
    attempt!(place, "ldr x10, [x9, #4]");
    attempt!(place, "ldrh w10, [x9, #3]");
    attempt!(place, "prfm pldl1keep, [x9]");
    attempt!(place, "dc zva, x9");
    attempt!(place, "dc civac, x9");
    attempt!(place, "dc cvac, x9");
    attempt!(place, "dc cvau, x9");
    attempt!(place, "dc ivac, x9");
    attempt!(place, "ic ivau, x9");
    attempt!(place, "at s1e1r, x9");
    attempt!(place, "at s1e1w, x9");
    attempt!(place, "at s1e0r, x9");
    attempt!(place, "tlbi vae1is, x9");
    Ok(())
}
