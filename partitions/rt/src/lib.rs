//! Run-time of the bare guests: what a program needs to run at EL1 and to give verdicts.
//!
//! RAM at 0x40000000 and PSCI by HVC are compiled in; where the interrupt controller and the PL011 are is read
//! from the device tree ([`machine`](mod@machine)). So the same binary runs on the bare machine and in a partition
//! of any board. Threads run on SP_EL0 and exceptions on SP_EL1, so that a test may ruin its own stack and still
//! be told about it.
//!
//! The functions are safe to call although they poke at registers: device accesses refuse addresses in RAM,
//! memory accesses refuse the image itself, and [`write_sysreg!`] refuses registers that Rust's code or data
//! depend on. What is left can disturb the test, not the meaning of the program.
#![no_std]
// Entry, vectors, register and device accesses of a guest that has no other layer below it.
#![expect(unsafe_code, reason = "run-time of a bare-metal guest")]

pub mod console;
pub mod cpu;
mod entry;
pub mod exception;
pub mod gic;
pub mod machine;
pub mod memory;
pub mod mmio;
pub mod random;
pub mod smccc;

pub mod sysreg;
pub mod time;
mod tree;
pub mod verdict;

pub use verdict::{Failure, Verdict};

/// Makes `$main`, a `fn()`, the program: it is called on the boot CPU with MMU, caches, vectors and console
/// ready and interrupts masked. When it returns, the machine is switched off.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        #[unsafe(no_mangle)]
        fn bulkhead_guest_main() {
            let main: fn() = $main;
            main();
        }
    };
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    verdict::abandon(info)
}
