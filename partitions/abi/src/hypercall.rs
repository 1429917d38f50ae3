//! Bulkhead's own calls: the vendor-specific hypervisor services of SMCCC (DEN0028, 6.2).
//!
//! A guest finds out that it runs on Bulkhead by [`CALL_UID`], and which calls there are by
//! [`CALL_REVISION`]. Identifiers that are not listed return `NOT_SUPPORTED`.

/// `CALL_UID`: returns [`UID_WORDS`] in W0–W3.
pub const CALL_UID: u32 = 0x8600_ff01;

/// `CALL_REVISION`: returns [`REVISION_MAJOR`] in W0 and [`REVISION_MINOR`] in W1.
pub const CALL_REVISION: u32 = 0x8600_ff03;

/// `PARTITION_ID`: returns the caller's partition in X0, counted from 0 in the order of the manifest.
pub const PARTITION_ID: u32 = 0xc600_0000;

/// Which hypervisor this is: the UUID dc36097e-8052-442c-8f00-987ee41313ec, made for Bulkhead once.
pub const UID: u128 = 0xdc36_097e_8052_442c_8f00_987e_e413_13ec;

/// [`UID`] as [`CALL_UID`] returns it: bytes 0–3 of the UUID in W0, byte 0 in its low bits (DEN0028, 6.2.1).
pub const UID_WORDS: [u32; 4] = [
    ((UID >> 96) as u32).swap_bytes(),
    ((UID >> 64) as u32).swap_bytes(),
    ((UID >> 32) as u32).swap_bytes(),
    (UID as u32).swap_bytes(),
];

/// Changes when a call is taken away or changes its meaning.
pub const REVISION_MAJOR: u32 = 1;
/// Changes when a call is added.
pub const REVISION_MINOR: u32 = 0;
