//! What is known about a fault of EL2 itself, for the last message.

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, Readable, SPSR_EL2};

use crate::layout::{FOOTPRINT, HYP_VA};

/// The registers that say what happened.
#[derive(Debug)]
pub struct Report {
    /// ESR_EL2.
    pub esr: u64,
    /// ELR_EL2.
    pub elr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// SPSR_EL2.
    pub spsr: u64,
}

/// Reads them.
#[must_use]
pub fn report() -> Report {
    Report { esr: ESR_EL2.get(), elr: ELR_EL2.get(), far: FAR_EL2.get(), spsr: SPSR_EL2.get() }
}

/// Return addresses, innermost first, from the frame pointer `frame` (AAPCS64, 6.4.6). Stops at anything that is no
/// frame of EL2's.
pub fn backtrace(mut frame: u64) -> impl Iterator<Item = u64> {
    core::iter::from_fn(move || {
        if !(HYP_VA..HYP_VA + FOOTPRINT - 16).contains(&frame) || !frame.is_multiple_of(8) {
            return None;
        }
        // SAFETY: an aligned address in the image or heap. A guard page cannot be hit: nothing is pushed there.
        let [next, address] = unsafe { (frame as *const [u64; 2]).read_volatile() };
        // Frames lie upwards, so the walk ends.
        frame = if next > frame { next } else { 0 };
        (address != 0).then_some(address)
    })
    .take(32)
}

/// The frame pointer of the caller.
#[inline(always)]
#[must_use]
pub fn frame_pointer() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, x29", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
