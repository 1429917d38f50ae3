//! Breaks every rule on purpose: the machine below must answer each time, and nobody else may notice.
//!
//! Each attack ends with a check that this guest's own machine still works. On the bare machine most attacks
//! run too, which shows that they do not stop a machine that is not to be blamed; those that need stage 2 are
//! skipped there. The last one drives a CPU mad for good, and the partition is switched off with it raging.
#![no_std]
#![no_main]
// Attacks are made of instructions that Rust does not emit.
#![expect(unsafe_code, reason = "attacks are assembly")]

mod calls;
mod code;
mod console;
mod frames;
mod interrupts;
mod outside;
mod registers;
mod syndrome;
mod translation;

use bulkhead_rt::exception::{catch, mask_irqs, set_irq_handler, with_irqs};
use bulkhead_rt::gic::{self, gicc};
use bulkhead_rt::mmio::write32;
use bulkhead_rt::time::{Timer, delay, wait_until};
use bulkhead_rt::{Verdict, cpu, ensure, ensure_eq, entry, println, smccc, verdict, write_sysreg};

entry!(main);

fn main() {
    let cpus = cpu::count();
    let below = if smccc::on_bulkhead() { "Bulkhead" } else { "no Bulkhead" };
    println!("hostile: {cpus} CPUs, {below} below");
    set_irq_handler(end_any);
    outside::run(cpus);
    syndrome::run();
    translation::run();
    registers::run();
    calls::run(cpus);
    frames::run(cpus);
    interrupts::run(cpus);
    console::run();
    if cpus > 1 {
        verdict::test("madness", madness);
    } else {
        verdict::skip("madness", "one CPU only");
    }
    verdict::done()
}

/// Milliseconds within which anything that shall happen has happened, on a slow emulator too.
const PATIENCE: u64 = 10_000;

/// Takes whatever comes and makes it stop.
fn end_any() {
    let intid = gic::acknowledge();
    for timer in [Timer::Virtual, Timer::Physical] {
        if intid == timer.intid() {
            timer.stop();
        }
    }
    if intid < gic::SPURIOUS - 3 {
        gic::end(intid);
    }
}

/// Runs an attack and then checks this CPU's calls and interrupts.
fn attack(name: &'static str, body: impl FnOnce() -> Verdict) {
    verdict::test(name, || {
        body()?;
        still_works()
    });
}

/// The machine below answers calls and delivers interrupts after the GIC has been set up anew.
fn still_works() -> Verdict {
    let version = smccc::hvc(bulkhead_abi::psci::PSCI_VERSION, 0, 0, 0)[0];
    ensure_eq!(version, u64::from(bulkhead_abi::psci::VERSION_1_1), "PSCI_VERSION afterwards");
    mask_irqs();
    Timer::Virtual.stop();
    Timer::Physical.stop();
    let result = catch(|| {
        gic::clear_active_priorities();
        if gic::is_v2() {
            write32(gic::cpu_interface() + gicc::CTLR, 0);
        } else {
            write_sysreg!("icc_igrpen0_el1", 0);
        }
    });
    ensure!(result.is_ok(), "the CPU interface afterwards: {result:x?}");
    if cpu::id() == 0 {
        gic::init_distributor();
    }
    gic::init_cpu();
    gic::enable(1);
    gic::send_sgi(gic::sgi_to(1, cpu::id()));
    let pending = wait_until(PATIENCE, || gic::highest_pending() == 1);
    ensure!(pending, "no SGI afterwards");
    with_irqs(|| delay(100));
    ensure_eq!(gic::highest_pending(), gic::SPURIOUS, "highest pending afterwards");
    Ok(())
}

/// CPU 1 points its vectors at nothing and takes an exception: from then on each vector fetch aborts, and the
/// abort's vector fetch too. CPU 0 works on, and switches the partition off in the end.
fn madness() -> Verdict {
    ensure_eq!(cpu::start(1, rage, 0), bulkhead_abi::psci::SUCCESS, "CPU_ON");
    for _ in 0..20 {
        delay(50_000);
        still_works()?;
    }
    ensure_eq!(cpu::state(1), bulkhead_abi::psci::affinity::ON, "state of the mad CPU");
    Ok(())
}

fn rage(_: u64) {
    // SAFETY: this CPU never executes another instruction of the program.
    unsafe {
        core::arch::asm!("msr vbar_el1, {}", "isb", "udf #0", in(reg) outside::NOWHERE, options(noreturn));
    }
}
