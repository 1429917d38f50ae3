//! PSCI 1.1 (DEN0022) for one partition: what each call decides. Nothing here reaches firmware.

use bulkhead_abi::{psci, smccc};

use crate::addr::Ipa;
use crate::lifecycle::Lifecycle;

/// What a call comes to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// Return this in x0.
    Return(i64),
    /// Return success, and have this vCPU's CPU look at its [`Lifecycle`].
    Started(usize),
    /// Wait for an interrupt, then return success.
    Standby,
    /// This vCPU goes off.
    CpuOff,
    /// The partition goes off, or restarts.
    System {
        /// Load it again.
        restart: bool,
    },
}

/// Bits of `power_state` that must be zero (original format: state type 16, power level 25:24, state ID 15:0).
const POWER_STATE_RESERVED: u64 = 0xffff_ffff_fcfe_0000;

/// Decides the call `function` with arguments `args` (x1–x3). `is_memory` says whether an address is in the partition's
/// RAM.
pub fn call(
    lifecycle: &mut Lifecycle,
    function: u32,
    args: [u64; 3],
    is_memory: impl FnOnce(Ipa) -> bool,
) -> Outcome {
    // The 32-bit form of a call takes 32-bit arguments (DEN0028, 3.1).
    let width = if function & smccc::CALL_64 == 0 { u64::from(u32::MAX) } else { u64::MAX };
    let [first, second, third] = args.map(|arg| arg & width);
    match function {
        psci::PSCI_VERSION => Outcome::Return(psci::VERSION_1_1.into()),
        psci::PSCI_FEATURES => Outcome::Return(features(first)),
        psci::CPU_ON | psci::CPU_ON_32 => cpu_on(lifecycle, first, Ipa::new(second), third, is_memory),
        psci::CPU_OFF => Outcome::CpuOff,
        // No power state is deeper than standby here, which a powerdown request may always come to (5.4.5).
        psci::CPU_SUSPEND | psci::CPU_SUSPEND_32 if first & POWER_STATE_RESERVED == 0 => Outcome::Standby,
        psci::CPU_SUSPEND | psci::CPU_SUSPEND_32 => Outcome::Return(psci::INVALID_PARAMETERS),
        psci::AFFINITY_INFO | psci::AFFINITY_INFO_32 => {
            Outcome::Return(lifecycle.affinity_info(first, second))
        }
        psci::MIGRATE_INFO_TYPE => Outcome::Return(psci::MIGRATION_NOT_REQUIRED),
        psci::SYSTEM_OFF => Outcome::System { restart: false },
        psci::SYSTEM_RESET => Outcome::System { restart: true },
        _ => Outcome::Return(psci::NOT_SUPPORTED),
    }
}

fn cpu_on(
    lifecycle: &mut Lifecycle,
    target: u64,
    entry: Ipa,
    context: u64,
    is_memory: impl FnOnce(Ipa) -> bool,
) -> Outcome {
    if lifecycle.affinity_info(target, 0) == psci::INVALID_PARAMETERS {
        return Outcome::Return(psci::INVALID_PARAMETERS);
    }
    if entry.raw() & 3 != 0 || !is_memory(entry) {
        return Outcome::Return(psci::INVALID_ADDRESS);
    }
    match lifecycle.cpu_on(target, entry, context) {
        psci::SUCCESS => Outcome::Started(target as usize),
        error => Outcome::Return(error),
    }
}

/// PSCI_FEATURES (DEN0022, 5.15).
fn features(function: u64) -> i64 {
    match u32::try_from(function).unwrap_or(0) {
        psci::PSCI_VERSION
        | psci::PSCI_FEATURES
        | psci::CPU_ON
        | psci::CPU_ON_32
        | psci::CPU_OFF
        | psci::CPU_SUSPEND
        | psci::CPU_SUSPEND_32
        | psci::AFFINITY_INFO
        | psci::AFFINITY_INFO_32
        | psci::MIGRATE_INFO_TYPE
        | psci::SYSTEM_OFF
        | psci::SYSTEM_RESET
        | smccc::SMCCC_VERSION => psci::SUCCESS,
        _ => psci::NOT_SUPPORTED,
    }
}
