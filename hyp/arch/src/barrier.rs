//! Barriers by what they are for (Arm ARM DDI 0487, B2.3).

use core::arch::asm;

/// Instructions that follow see the effects of system register writes that precede.
#[inline(always)]
pub fn context_synchronization() {
    // SAFETY: a barrier changes no memory and no register.
    unsafe { asm!("isb", options(nostack, preserves_flags)) };
}

/// Stores that precede are complete for every observer, table walkers included, before anything that follows.
#[inline(always)]
pub fn complete_stores() {
    // SAFETY: a barrier changes no memory and no register.
    unsafe { asm!("dsb ishst", options(nostack, preserves_flags)) };
}

/// Everything that precedes is complete for every observer in the system, devices included.
#[inline(always)]
pub fn complete_all() {
    // SAFETY: a barrier changes no memory and no register.
    unsafe { asm!("dsb sy", options(nostack, preserves_flags)) };
}

/// Wakes CPUs that wait for an event.
#[inline(always)]
pub fn send_event() {
    // SAFETY: an event changes no memory and no register.
    unsafe { asm!("sev", options(nostack, preserves_flags)) };
}

/// Waits for an interrupt, masked or not, after all memory accesses are complete.
#[inline(always)]
pub fn wait_for_interrupt() {
    // SAFETY: WFI changes no memory and no register, and an implementation may treat it as a NOP.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}
