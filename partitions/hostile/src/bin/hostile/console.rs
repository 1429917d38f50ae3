//! The console as a way to speak for others: bytes that look like the hypervisor's own tags.

use bulkhead_rt::console::{UARTDR, UARTFR, pl011};
use bulkhead_rt::mmio::{read32, write8};

use crate::attack;

/// Runs the attack. Whether it failed is for the host to see: no line may appear as somebody else's.
pub fn run() {
    attack("console-forgery", || {
        for tag in
            [&b"\x1b_B2\x1b\\"[..], b"\x1b_B0\x1b\\", b"\x1b_B1", b"\x1b_", b"\x1b", b"\xff\x00\x1d\x9f"]
        {
            for &byte in b"\n".iter().chain(tag).chain(b"FORGED by hostile\n") {
                while read32(pl011() + UARTFR) & 1 << 5 != 0 {}
                write8(pl011() + UARTDR, byte);
            }
        }
        Ok(())
    });
}
