//! Which vCPUs of a partition run, and how the whole partition starts, stops and restarts.
//!
//! One [`Lifecycle`] a partition, under one lock. A physical CPU belongs to its vCPU for ever: while the vCPU is off the CPU
//! waits at EL2 and asks [`Lifecycle::next`] whenever it is kicked.

use bulkhead_abi::psci;
use heapless::Vec;

use crate::addr::Ipa;
use crate::plan::MAX_VCPUS;

/// Power state of one vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Power {
    Off,
    /// Asked to start, not started yet.
    OnPending {
        entry: Ipa,
        context: u64,
    },
    On,
}

/// What the partition as a whole is doing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Phase {
    /// Its memory is to be loaded by the CPU of vCPU 0.
    Loading,
    Running,
    /// Its vCPUs are on their way out.
    Stopping {
        restart: bool,
    },
    /// All are out, and the last one's CPU puts the partition back to power-on state.
    Resetting {
        restart: bool,
    },
    Off,
}

/// What a CPU without a running vCPU is to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Next {
    /// Wait for a kick.
    Wait,
    /// Load the partition's memory, then call [`Lifecycle::loaded`].
    Load,
    /// Start its vCPU.
    Start {
        /// First instruction.
        entry: Ipa,
        /// x0.
        context: u64,
    },
}

/// What a CPU learns when its vCPU has left its guest for good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parked {
    /// Others still run, or the partition was off before.
    Quiet,
    /// All vCPUs are out. The caller puts the partition back to power-on state, then calls [`Lifecycle::reset`].
    AllOut {
        /// The partition restarts rather than going off.
        restart: bool,
    },
}

/// Power states of one partition.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    phase: Phase,
    vcpus: Vec<Power, MAX_VCPUS>,
}

impl Lifecycle {
    /// A partition of `vcpus` vCPUs that has yet to be loaded.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        Self {
            phase: Phase::Loading,
            vcpus: core::iter::repeat_n(Power::Off, vcpus.min(MAX_VCPUS)).collect(),
        }
    }

    /// What the CPU of `vcpu`, which runs no guest, is to do.
    pub fn next(&mut self, vcpu: usize) -> Next {
        match (self.phase, self.vcpus.get_mut(vcpu)) {
            (Phase::Loading, _) if vcpu == 0 => Next::Load,
            (Phase::Running, Some(power)) => match *power {
                Power::OnPending { entry, context } => {
                    *power = Power::On;
                    Next::Start { entry, context }
                }
                Power::Off | Power::On => Next::Wait,
            },
            _ => Next::Wait,
        }
    }

    /// The partition's memory is loaded: vCPU 0 may start at `entry` with `context` in x0.
    pub fn loaded(&mut self, entry: Ipa, context: u64) {
        if self.phase == Phase::Loading {
            self.phase = Phase::Running;
            if let Some(power) = self.vcpus.first_mut() {
                *power = Power::OnPending { entry, context };
            }
        }
    }

    /// The partition's memory cannot be loaded: it stays off.
    pub fn refused(&mut self) {
        self.phase = Phase::Off;
    }

    /// CPU_ON (DEN0022, 5.4). The caller kicks `target` after [`psci::SUCCESS`].
    pub fn cpu_on(&mut self, target: u64, entry: Ipa, context: u64) -> i64 {
        let running = self.phase == Phase::Running;
        match usize::try_from(target).ok().and_then(|target| self.vcpus.get_mut(target)) {
            None => psci::INVALID_PARAMETERS,
            Some(Power::On) => psci::ALREADY_ON,
            Some(Power::OnPending { .. }) => psci::ON_PENDING,
            Some(_) if !running => psci::DENIED,
            Some(power) => {
                *power = Power::OnPending { entry, context };
                psci::SUCCESS
            }
        }
    }

    /// AFFINITY_INFO (DEN0022, 5.7) at `level`, an affinity level from 0.
    #[must_use]
    pub fn affinity_info(&self, target: u64, level: u64) -> i64 {
        let state = |power: &Power| match power {
            Power::On => psci::affinity::ON,
            Power::Off => psci::affinity::OFF,
            Power::OnPending { .. } => psci::affinity::ON_PENDING,
        };
        match level {
            0 => usize::try_from(target)
                .ok()
                .and_then(|target| self.vcpus.get(target))
                .map_or(psci::INVALID_PARAMETERS, state),
            // All vCPUs are in one cluster, so a higher level is on while any of them is: the least of the values.
            1..=3 if target >> 8 == 0 => self.vcpus.iter().map(state).min().unwrap_or(psci::affinity::OFF),
            _ => psci::INVALID_PARAMETERS,
        }
    }

    /// Asks every vCPU to leave its guest; with `restart` the partition is then loaded again. The caller kicks them all.
    pub fn stop(&mut self, restart: bool) {
        if self.phase == Phase::Running {
            self.phase = Phase::Stopping { restart };
        }
    }

    /// Whether vCPUs are to leave their guest.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// Whether the partition is off for good.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.phase == Phase::Off
    }

    /// `vcpu` has left its guest: by CPU_OFF, or because the partition stops.
    pub fn parked(&mut self, vcpu: usize) -> Parked {
        if let Some(power) = self.vcpus.get_mut(vcpu) {
            *power = Power::Off;
        }
        if self.is_stopping() {
            // A vCPU that was asked to start and has not will not.
            for power in &mut self.vcpus {
                if matches!(power, Power::OnPending { .. }) {
                    *power = Power::Off;
                }
            }
        }
        if self.vcpus.iter().any(|power| *power != Power::Off) {
            return Parked::Quiet;
        }
        let restart = match self.phase {
            Phase::Stopping { restart } => restart,
            // Nobody is left who could turn a vCPU on.
            Phase::Running => false,
            Phase::Loading | Phase::Resetting { .. } | Phase::Off => return Parked::Quiet,
        };
        self.phase = Phase::Resetting { restart };
        Parked::AllOut { restart }
    }

    /// The partition is in power-on state: it may be loaded again, by the CPU of vCPU 0, which the caller kicks, or is off.
    pub fn reset(&mut self) {
        if let Phase::Resetting { restart } = self.phase {
            self.phase = if restart { Phase::Loading } else { Phase::Off };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENTRY: Ipa = Ipa::new(0x4008_0000);

    fn running(vcpus: usize) -> Lifecycle {
        let mut lifecycle = Lifecycle::new(vcpus);
        assert_eq!(lifecycle.next(0), Next::Load);
        lifecycle.loaded(ENTRY, 7);
        assert_eq!(lifecycle.next(0), Next::Start { entry: ENTRY, context: 7 });
        lifecycle
    }

    #[test]
    fn only_one_of_two_racing_starts_succeeds() {
        let mut lifecycle = running(2);
        assert_eq!(lifecycle.affinity_info(1, 0), psci::affinity::OFF);
        assert_eq!(lifecycle.cpu_on(1, ENTRY, 1), psci::SUCCESS);
        assert_eq!(lifecycle.cpu_on(1, ENTRY, 2), psci::ON_PENDING);
        assert_eq!(lifecycle.affinity_info(1, 0), psci::affinity::ON_PENDING);
        assert_eq!(lifecycle.next(1), Next::Start { entry: ENTRY, context: 1 });
        assert_eq!(lifecycle.cpu_on(1, ENTRY, 3), psci::ALREADY_ON);
        assert_eq!(lifecycle.cpu_on(2, ENTRY, 3), psci::INVALID_PARAMETERS);
        assert_eq!(lifecycle.cpu_on(u64::MAX, ENTRY, 3), psci::INVALID_PARAMETERS);
        assert_eq!(lifecycle.affinity_info(2, 0), psci::INVALID_PARAMETERS);
        assert_eq!(lifecycle.affinity_info(0, 1), psci::affinity::ON);
        assert_eq!(lifecycle.affinity_info(0, 4), psci::INVALID_PARAMETERS);
    }

    #[test]
    fn a_partition_restarts_when_the_last_vcpu_is_out() {
        let mut lifecycle = running(3);
        assert_eq!(lifecycle.cpu_on(1, ENTRY, 0), psci::SUCCESS);
        assert!(matches!(lifecycle.next(1), Next::Start { .. }));
        assert_eq!(lifecycle.cpu_on(2, ENTRY, 0), psci::SUCCESS);
        lifecycle.stop(true);
        assert!(lifecycle.is_stopping());
        assert_eq!(lifecycle.next(2), Next::Wait);
        assert_eq!(lifecycle.parked(0), Parked::Quiet);
        assert_eq!(lifecycle.parked(1), Parked::AllOut { restart: true });
        assert_eq!(lifecycle.next(0), Next::Wait);
        lifecycle.reset();
        assert_eq!(lifecycle.next(1), Next::Wait);
        assert_eq!(lifecycle.next(0), Next::Load);
    }

    #[test]
    fn a_partition_is_off_when_nobody_is_left() {
        let mut lifecycle = running(1);
        assert_eq!(lifecycle.parked(0), Parked::AllOut { restart: false });
        assert!(!lifecycle.is_off());
        lifecycle.reset();
        assert!(lifecycle.is_off());
        assert_eq!(lifecycle.next(0), Next::Wait);
        lifecycle.stop(true);
        assert_eq!(lifecycle.parked(0), Parked::Quiet);
    }
}
