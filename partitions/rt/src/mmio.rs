//! Accesses to everything that is not this guest's RAM.
//!
//! Each is one load or store with plain `[register]` addressing, which an emulating hypervisor gets with a
//! valid syndrome, and none touches RAM, where it could change a Rust object.

use core::arch::asm;

use crate::memory::{RAM_END, RAM_START};

fn check(address: u64) {
    assert!(!(RAM_START - 7..RAM_END).contains(&address), "{address:#x} is RAM");
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal, $size:literal) => {
        #[doc = concat!("Reads ", $size, " at `address`; all ones where the load did not complete.")]
        ///
        /// # Panics
        /// Where the address lies in RAM.
        #[must_use]
        pub fn $read(address: u64) -> $type {
            check(address);
            let value: u64;
            // SAFETY: the address is no RAM, so no Rust object is read or changed.
            unsafe {
                asm!(concat!($load, ", [{address}]"), address = in(reg) address,
                    value = inlateout(reg) u64::MAX => value, options(nostack, preserves_flags));
            }
            value as $type
        }

        #[doc = concat!("Writes ", $size, " at `address`.")]
        ///
        /// # Panics
        /// Where the address lies in RAM.
        pub fn $write(address: u64, value: $type) {
            check(address);
            // SAFETY: the address is no RAM, so no Rust object is changed.
            unsafe {
                asm!(concat!($store, ", [{address}]"), address = in(reg) address,
                    value = in(reg) u64::from(value), options(nostack, preserves_flags));
            }
        }
    };
}

access!(read8, write8, u8, "ldrb {value:w}", "strb {value:w}", "a byte");
access!(read16, write16, u16, "ldrh {value:w}", "strh {value:w}", "a halfword");
access!(read32, write32, u32, "ldr {value:w}", "str {value:w}", "a word");
access!(read64, write64, u64, "ldr {value:x}", "str {value:x}", "a doubleword");

/// Branches to `address` and expects to come back by a caught instruction abort, which returns to the caller.
///
/// # Panics
/// Where the address lies in RAM.
pub fn execute(address: u64) {
    check(address);
    // SAFETY: what lies there either faults, or is a device or empty space of which a test expects a fault;
    // a return through X30 leaves all that the C convention preserves.
    unsafe {
        asm!("blr {address}", address = in(reg) address, clobber_abi("C"));
    }
}
