//! The Power State Coordination Interface, 0.2 to 1.1 (DEN0022, 5.1 and 5.2.2).
//!
//! A call with 64-bit arguments has two identifiers; the one named `..._32` takes 32-bit arguments.

/// `PSCI_VERSION`: major version in bits 31–16, minor in bits 15–0.
pub const PSCI_VERSION: u32 = 0x8400_0000;
/// `CPU_SUSPEND`: W1 power state, X2 entry point, X3 context.
pub const CPU_SUSPEND_32: u32 = 0x8400_0001;
/// `CPU_SUSPEND` with 64-bit arguments.
pub const CPU_SUSPEND: u32 = 0xc400_0001;
/// `CPU_OFF`: turns the calling CPU off; does not return.
pub const CPU_OFF: u32 = 0x8400_0002;
/// `CPU_ON`: X1 the target's affinity, X2 entry point, X3 context, which arrives in X0.
pub const CPU_ON_32: u32 = 0x8400_0003;
/// `CPU_ON` with 64-bit arguments.
pub const CPU_ON: u32 = 0xc400_0003;
/// `AFFINITY_INFO`: X1 an affinity, X2 the lowest affinity level; returns one of [`affinity`].
pub const AFFINITY_INFO_32: u32 = 0x8400_0004;
/// `AFFINITY_INFO` with 64-bit arguments.
pub const AFFINITY_INFO: u32 = 0xc400_0004;
/// `MIGRATE`: moves a trusted OS.
pub const MIGRATE_32: u32 = 0x8400_0005;
/// `MIGRATE` with 64-bit arguments.
pub const MIGRATE: u32 = 0xc400_0005;
/// `MIGRATE_INFO_TYPE`: how a trusted OS can be moved; 2 where there is none to move.
pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
/// `MIGRATE_INFO_UP_CPU`: the CPU of a trusted OS.
pub const MIGRATE_INFO_UP_CPU_32: u32 = 0x8400_0007;
/// `MIGRATE_INFO_UP_CPU` with a 64-bit result.
pub const MIGRATE_INFO_UP_CPU: u32 = 0xc400_0007;
/// `SYSTEM_OFF`: does not return.
pub const SYSTEM_OFF: u32 = 0x8400_0008;
/// `SYSTEM_RESET`: does not return.
pub const SYSTEM_RESET: u32 = 0x8400_0009;
/// `PSCI_FEATURES`: W1 a function identifier; returns flags, or `NOT_SUPPORTED`.
pub const PSCI_FEATURES: u32 = 0x8400_000a;
/// `CPU_FREEZE`.
pub const CPU_FREEZE: u32 = 0x8400_000b;
/// `CPU_DEFAULT_SUSPEND`.
pub const CPU_DEFAULT_SUSPEND_32: u32 = 0x8400_000c;
/// `CPU_DEFAULT_SUSPEND` with 64-bit arguments.
pub const CPU_DEFAULT_SUSPEND: u32 = 0xc400_000c;
/// `NODE_HW_STATE`.
pub const NODE_HW_STATE_32: u32 = 0x8400_000d;
/// `NODE_HW_STATE` with 64-bit arguments.
pub const NODE_HW_STATE: u32 = 0xc400_000d;
/// `SYSTEM_SUSPEND`.
pub const SYSTEM_SUSPEND_32: u32 = 0x8400_000e;
/// `SYSTEM_SUSPEND` with 64-bit arguments.
pub const SYSTEM_SUSPEND: u32 = 0xc400_000e;
/// `PSCI_SET_SUSPEND_MODE`.
pub const PSCI_SET_SUSPEND_MODE: u32 = 0x8400_000f;
/// `PSCI_STAT_RESIDENCY`.
pub const PSCI_STAT_RESIDENCY_32: u32 = 0x8400_0010;
/// `PSCI_STAT_RESIDENCY` with 64-bit arguments.
pub const PSCI_STAT_RESIDENCY: u32 = 0xc400_0010;
/// `PSCI_STAT_COUNT`.
pub const PSCI_STAT_COUNT_32: u32 = 0x8400_0011;
/// `PSCI_STAT_COUNT` with 64-bit arguments.
pub const PSCI_STAT_COUNT: u32 = 0xc400_0011;
/// `SYSTEM_RESET2`: a reset with a type.
pub const SYSTEM_RESET2_32: u32 = 0x8400_0012;
/// `SYSTEM_RESET2` with 64-bit arguments.
pub const SYSTEM_RESET2: u32 = 0xc400_0012;
/// `MEM_PROTECT`.
pub const MEM_PROTECT: u32 = 0x8400_0013;
/// `MEM_PROTECT_CHECK_RANGE`.
pub const MEM_PROTECT_CHECK_RANGE_32: u32 = 0x8400_0014;
/// `MEM_PROTECT_CHECK_RANGE` with 64-bit arguments.
pub const MEM_PROTECT_CHECK_RANGE: u32 = 0xc400_0014;

/// The version that [`PSCI_VERSION`] reports: 1.1.
pub const VERSION_1_1: u32 = 0x0001_0001;

/// [`MIGRATE_INFO_TYPE`]: no trusted OS, or one that need not be moved.
pub const MIGRATION_NOT_REQUIRED: i64 = 2;

/// The call succeeded.
pub const SUCCESS: i64 = 0;
/// The call is not implemented.
pub const NOT_SUPPORTED: i64 = -1;
/// An argument is out of range: no such CPU, say.
pub const INVALID_PARAMETERS: i64 = -2;
/// The call is not allowed.
pub const DENIED: i64 = -3;
/// The CPU is on already.
pub const ALREADY_ON: i64 = -4;
/// The CPU is being turned on already.
pub const ON_PENDING: i64 = -5;
/// The firmware failed.
pub const INTERNAL_FAILURE: i64 = -6;
/// There is no trusted OS where the call needs one.
pub const NOT_PRESENT: i64 = -7;
/// The target is disabled.
pub const DISABLED: i64 = -8;
/// The entry point is no memory of the caller.
pub const INVALID_ADDRESS: i64 = -9;

/// What [`AFFINITY_INFO`] returns (DEN0022, 5.7.1).
pub mod affinity {
    /// The CPU is on.
    pub const ON: i64 = 0;
    /// The CPU is off.
    pub const OFF: i64 = 1;
    /// The CPU was told to start and has not started yet.
    pub const ON_PENDING: i64 = 2;
}
