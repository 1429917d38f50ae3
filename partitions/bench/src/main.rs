//! Counts what one operation of a guest costs, in ticks of the virtual counter.
//!
//! Under QEMU with `-icount shift=0` and a counter of 1 GHz a tick is one instruction, so the figures are
//! exact and the same in every run. Each operation runs [`RUNS`] times between two reads of CNTVCT_EL0; what
//! the same two reads cost around a `nop` is subtracted, so that an operation which nobody intercepts counts
//! 0 and any other counts the instructions that somebody else executed. For interrupts the second read is the
//! first instruction of the guest's vector. (An intercepted load or store is not itself executed, so it counts
//! one less than the others do.) On hardware a tick is time, and the figures are no counts.
//!
//! A line is `BENCH <name> min=<n> avg=<n> max=<n> first=<n>`; a host reads them.
#![no_std]
#![no_main]
// Counter reads must stand right before and after the one instruction that is measured, and the vectors must
// begin with one: that takes inline assembly.
#![expect(unsafe_code, reason = "measured instructions are inline assembly")]

mod interrupt;
mod sample;
mod trap;

use bulkhead_rt::{cpu, entry, gic, println, time, verdict};

use crate::sample::Samples;

/// How often each operation runs.
const RUNS: usize = 2000;

entry!(main);

fn main() {
    println!("bench: {RUNS} runs each, counter at {} Hz", time::frequency());
    gic::init_distributor();
    gic::init_cpu();
    let mut boot = Samples::new();
    boot.add(cpu::boot_ticks().cast_signed());
    boot.print("boot");
    verdict::test("bench", || {
        trap::measure()?;
        interrupt::measure()
    });
    verdict::done()
}
