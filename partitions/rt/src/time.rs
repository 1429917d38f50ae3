//! The generic timers of this CPU (Arm ARM DDI 0487, D12).

use crate::{read_sysreg, write_sysreg};

/// CNTFRQ_EL0: ticks in a second.
#[must_use]
pub fn frequency() -> u64 {
    read_sysreg!("cntfrq_el0")
}

/// CNTVCT_EL0, ticks; not read ahead of earlier instructions.
#[must_use]
pub fn now() -> u64 {
    barrier();
    read_sysreg!("cntvct_el0")
}

/// CNTPCT_EL0, ticks; not read ahead of earlier instructions.
#[must_use]
pub fn physical_now() -> u64 {
    barrier();
    read_sysreg!("cntpct_el0")
}

fn barrier() {
    // SAFETY: a barrier only.
    unsafe { core::arch::asm!("isb", options(nostack, preserves_flags)) };
}

/// `microseconds` in ticks.
#[must_use]
pub fn ticks(microseconds: u64) -> u64 {
    frequency() * microseconds / 1_000_000
}

/// Spins for so many microseconds.
pub fn delay(microseconds: u64) {
    let start = now();
    let ticks = ticks(microseconds);
    while now() - start < ticks {}
}

/// Spins until `done` holds, at most so many milliseconds; returns whether it held.
pub fn wait_until(milliseconds: u64, mut done: impl FnMut() -> bool) -> bool {
    let start = now();
    let limit = ticks(milliseconds * 1000);
    loop {
        if done() {
            return true;
        }
        if now() - start > limit {
            return false;
        }
    }
}

/// One of the two EL1 timers.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Timer {
    /// CNTV.
    Virtual,
    /// CNTP.
    Physical,
}

impl Timer {
    /// Its INTID, a PPI, level-sensitive.
    #[must_use]
    pub const fn intid(self) -> u32 {
        match self {
            Self::Virtual => 27,
            Self::Physical => 30,
        }
    }

    /// The counter that it compares with.
    #[must_use]
    pub fn now(self) -> u64 {
        match self {
            Self::Virtual => now(),
            Self::Physical => physical_now(),
        }
    }

    /// Fires when the counter reaches `value`.
    pub fn fire_at(self, value: u64) {
        match self {
            Self::Virtual => {
                write_sysreg!("cntv_cval_el0", value);
                write_sysreg!("cntv_ctl_el0", 1);
            }
            Self::Physical => {
                write_sysreg!("cntp_cval_el0", value);
                write_sysreg!("cntp_ctl_el0", 1);
            }
        }
    }

    /// Stops it and takes its line back.
    pub fn stop(self) {
        match self {
            Self::Virtual => write_sysreg!("cntv_ctl_el0", 0),
            Self::Physical => write_sysreg!("cntp_ctl_el0", 0),
        }
    }

    /// Its control register: bit 0 enable, bit 1 masked, bit 2 condition met.
    #[must_use]
    pub fn control(self) -> u64 {
        match self {
            Self::Virtual => read_sysreg!("cntv_ctl_el0"),
            Self::Physical => read_sysreg!("cntp_ctl_el0"),
        }
    }
}
