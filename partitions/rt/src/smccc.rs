//! Calls to what lies below: HVC and SMC by the SMC Calling Convention.

use core::arch::asm;

use bulkhead_abi::psci;

/// The instruction that makes a call.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `HVC #0`.
    Hvc,
    /// `SMC #0`.
    Smc,
}

/// X0–X17 as a call left them.
pub type Registers = [u64; 18];

macro_rules! call {
    ($instruction:literal, $registers:ident) => {{
        let pointer: *mut u64 = (&raw mut $registers).cast();
        // SAFETY: a call changes no memory of the caller and no register above X17 (SMCCC 1.0); X0–X17 are
        // declared as changed, `pointer` is kept in X20 and points to 18 doublewords.
        unsafe {
            asm!(
                "ldp x0, x1, [x20]",
                "ldp x2, x3, [x20, #16]",
                "ldp x4, x5, [x20, #32]",
                "ldp x6, x7, [x20, #48]",
                "ldp x8, x9, [x20, #64]",
                "ldp x10, x11, [x20, #80]",
                "ldp x12, x13, [x20, #96]",
                "ldp x14, x15, [x20, #112]",
                "ldp x16, x17, [x20, #128]",
                $instruction,
                "stp x0, x1, [x20]",
                "stp x2, x3, [x20, #16]",
                "stp x4, x5, [x20, #32]",
                "stp x6, x7, [x20, #48]",
                "stp x8, x9, [x20, #64]",
                "stp x10, x11, [x20, #80]",
                "stp x12, x13, [x20, #96]",
                "stp x14, x15, [x20, #112]",
                "stp x16, x17, [x20, #128]",
                in("x20") pointer,
                clobber_abi("C"),
            );
        }
    }};
}

/// Makes a call with all argument registers given, and returns all that SMCCC 1.0 lets a call change.
#[must_use]
pub fn call(conduit: Conduit, mut registers: Registers) -> Registers {
    match conduit {
        Conduit::Hvc => call!("hvc #0", registers),
        Conduit::Smc => call!("smc #0", registers),
    }
    registers
}

/// `HVC #0x4a4b`: not a call of the convention, which wants immediate 0.
#[must_use]
pub fn hvc_with_immediate(mut registers: Registers) -> Registers {
    call!("hvc #0x4a4b", registers);
    registers
}

/// `SMC #0x4a4b`: not a call of the convention, which wants immediate 0.
#[must_use]
pub fn smc_with_immediate(mut registers: Registers) -> Registers {
    call!("smc #0x4a4b", registers);
    registers
}

fn short(conduit: Conduit, function: u32, x1: u64, x2: u64, x3: u64) -> [u64; 4] {
    let mut registers = [0; 18];
    registers[..4].copy_from_slice(&[u64::from(function), x1, x2, x3]);
    let [x0, x1, x2, x3, ..] = call(conduit, registers);
    [x0, x1, x2, x3]
}

/// Calls `function` by HVC; returns X0–X3.
pub fn hvc(function: u32, x1: u64, x2: u64, x3: u64) -> [u64; 4] {
    short(Conduit::Hvc, function, x1, x2, x3)
}

/// Calls `function` by SMC; returns X0–X3.
pub fn smc(function: u32, x1: u64, x2: u64, x3: u64) -> [u64; 4] {
    short(Conduit::Smc, function, x1, x2, x3)
}

/// Whether Bulkhead lies below, by its UID.
#[must_use]
pub fn on_bulkhead() -> bool {
    use bulkhead_abi::hypercall::{CALL_UID, UID_WORDS};
    hvc(CALL_UID, 0, 0, 0) == UID_WORDS.map(u64::from)
}

/// Switches the machine, or the partition, off.
pub fn system_off() -> ! {
    hvc(psci::SYSTEM_OFF, 0, 0, 0);
    loop {
        crate::cpu::wait_for_interrupt();
    }
}
