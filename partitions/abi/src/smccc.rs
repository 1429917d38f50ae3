//! The SMC Calling Convention: how a function identifier is read, and the calls of the Arm architecture
//! and standard services (DEN0028 1.4; the TRNG calls: DEN0098 1.0).

/// Bit 31 of a function identifier: a fast call, which completes before it returns (DEN0028, 2.5).
pub const FAST_CALL: u32 = 1 << 31;
/// Bit 30 of a function identifier: arguments and results are 64 bits wide.
pub const CALL_64: u32 = 1 << 30;

/// The service that owns a function identifier: bits 29–24 (DEN0028, table 6-1).
#[must_use]
pub const fn owner(function: u32) -> u32 {
    function >> 24 & 0x3f
}

/// Owner: Arm architecture calls.
pub const OWNER_ARCH: u32 = 0;
/// Owner: standard secure services, PSCI and TRNG among them.
pub const OWNER_STANDARD: u32 = 4;
/// Owner: vendor-specific hypervisor services, [`crate::hypercall`].
pub const OWNER_VENDOR_HYPERVISOR: u32 = 6;

/// `SMCCC_VERSION`: major version in bits 30–16, minor in bits 15–0.
pub const SMCCC_VERSION: u32 = 0x8000_0000;
/// `SMCCC_ARCH_FEATURES`: W1 a function identifier; returns [`SUCCESS`] or more where it is implemented.
pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
/// `SMCCC_ARCH_SOC_ID`: identity of the chip.
pub const SMCCC_ARCH_SOC_ID: u32 = 0x8000_0002;
/// `SMCCC_ARCH_WORKAROUND_1`: mitigation of CVE-2017-5715.
pub const SMCCC_ARCH_WORKAROUND_1: u32 = 0x8000_8000;
/// `SMCCC_ARCH_WORKAROUND_2`: mitigation of CVE-2018-3639.
pub const SMCCC_ARCH_WORKAROUND_2: u32 = 0x8000_7fff;
/// `SMCCC_ARCH_WORKAROUND_3`: mitigation of CVE-2017-5715 and CVE-2022-23960.
pub const SMCCC_ARCH_WORKAROUND_3: u32 = 0x8000_3fff;

/// `TRNG_VERSION`: the first of the true random number generator's calls.
pub const TRNG_VERSION: u32 = 0x8400_0050;
/// `TRNG_FEATURES`.
pub const TRNG_FEATURES: u32 = 0x8400_0051;
/// `TRNG_GET_UUID`.
pub const TRNG_GET_UUID: u32 = 0x8400_0052;
/// `TRNG_RND` with 32-bit results.
pub const TRNG_RND32: u32 = 0x8400_0053;
/// `TRNG_RND` with 64-bit results.
pub const TRNG_RND64: u32 = 0xc400_0053;

/// The version that [`SMCCC_VERSION`] reports: 1.1.
pub const VERSION_1_1: u32 = 0x0001_0001;

/// The call succeeded.
pub const SUCCESS: i64 = 0;
/// The call is not implemented: the answer to every unknown identifier (DEN0028, 5.2).
pub const NOT_SUPPORTED: i64 = -1;
/// The call is implemented, but this machine does not need it.
pub const NOT_REQUIRED: i64 = -2;
/// An argument is out of range.
pub const INVALID_PARAMETER: i64 = -3;
