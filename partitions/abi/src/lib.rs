//! Numbers and layouts that the hypervisor and its guests share.
//!
//! Both sides take them from here, so that they cannot disagree. Most are Arm's: the SMC Calling Convention
//! (DEN0028, "SMCCC") and the Power State Coordination Interface (DEN0022, "PSCI"). A call is made with the
//! function identifier in W0 and arguments from X1 on, by `HVC #0` or `SMC #0`; results come back in X0–X3,
//! and X4–X30 are preserved (SMCCC 1.1, 2.6).
#![no_std]
#![forbid(unsafe_code)]

pub mod hypercall;
pub mod psci;
pub mod smccc;
