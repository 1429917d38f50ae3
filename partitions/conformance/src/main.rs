//! What a partition's machine must do like the real one.
//!
//! The program runs on bare QEMU `virt`, which shows that a test asks for nothing but what the machine does,
//! and in a partition, which must not differ. What only a hypervisor can answer is tested when Bulkhead lies
//! below, and skipped otherwise. Tests that need a second or third CPU are skipped where there is none.
#![no_std]
#![no_main]
// Entry points for secondary CPUs and code that looks at every register are assembly.
#![expect(unsafe_code, reason = "assembly that looks at all registers")]

mod calls;
mod distributor;
mod gicv2;
mod harness;
mod identification;
mod interrupts;
mod memory;
mod power;
mod preservation;
mod timers;
mod uart;

use bulkhead_rt::{cpu, entry, println, smccc, verdict};

entry!(main);

fn main() {
    let cpus = cpu::count();
    let below = if smccc::on_bulkhead() { "Bulkhead" } else { "no Bulkhead" };
    println!("conformance: {cpus} CPUs, {below} below");
    memory::run();
    calls::run();
    identification::run(cpus);
    preservation::run();
    power::run(cpus);
    distributor::run(cpus);
    interrupts::run(cpus);
    timers::run(cpus);
    uart::run();
    verdict::done()
}
