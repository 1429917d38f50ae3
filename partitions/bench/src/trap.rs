//! Operations that end where they began: calls, register accesses, aborts.

use core::arch::asm;

use bulkhead_abi::{hypercall, psci, smccc as ids};
use bulkhead_rt::console::{UARTDR, UARTFR, pl011};
use bulkhead_rt::exception::catch;
use bulkhead_rt::gic::{self, gicd, offset, uart_intid};
use bulkhead_rt::time::Timer;
use bulkhead_rt::{Verdict, mmio, println, smccc, verdict};

use crate::RUNS;
use crate::interrupt::{Vectors, with_vectors};
use crate::sample::Samples;

/// Ticks from one read of the counter to another around some instructions.
macro_rules! ticks {
    ($instruction:literal, $($operand:tt)*) => {{
        let start: u64;
        let end: u64;
        // SAFETY: the measured instruction is a call, or an access to a device or an identification register:
        // it changes no memory, and no register that is not declared.
        unsafe {
            asm!(
                "isb",
                "mrs x20, cntvct_el0",
                $instruction,
                "isb",
                "mrs x21, cntvct_el0",
                out("x20") start,
                out("x21") end,
                $($operand)*
            );
        }
        (end - start).cast_signed()
    }};
}

/// Samples of an operation, each followed by an `undo` that is not counted.
fn sample(empty: i64, mut operation: impl FnMut() -> i64, mut undo: impl FnMut()) -> Samples {
    let mut samples = Samples::new();
    for _ in 0..RUNS {
        samples.add(operation() - empty);
        undo();
    }
    samples
}

fn hvc(function: u32) -> i64 {
    ticks!("hvc #0", inout("x0") u64::from(function) => _, clobber_abi("C"))
}

fn smc(function: u32) -> i64 {
    ticks!("smc #0", inout("x0") u64::from(function) => _, clobber_abi("C"))
}

fn load(address: u64) -> i64 {
    ticks!("ldr {value:w}, [{address}]", address = in(reg) address, value = out(reg) _)
}

fn store(address: u64, value: u32) -> i64 {
    ticks!("str {value:w}, [{address}]", address = in(reg) address, value = in(reg) value)
}

fn store_byte(address: u64, value: u8) -> i64 {
    ticks!("strb {value:w}, [{address}]", address = in(reg) address, value = in(reg) u32::from(value))
}

/// An address at which a partition has nothing, nor has QEMU `virt`.
const UNOWNED: u64 = 0x0f00_0000;

/// Measures and prints all of them.
pub fn measure() -> Verdict {
    let nothing = || {};
    let empty = sample(0, || ticks!("nop",), nothing);
    empty.print("empty");
    let empty = empty.min();

    sample(empty, || hvc(psci::PSCI_VERSION), nothing).print("psci-version-hvc");
    if catch(|| smccc::smc(psci::PSCI_VERSION, 0, 0, 0)).is_ok() {
        sample(empty, || smc(psci::PSCI_VERSION), nothing).print("psci-version-smc");
    } else {
        verdict::skip("psci-version-smc", "SMC is undefined here");
    }
    sample(empty, || hvc(ids::SMCCC_VERSION), nothing).print("smccc-version-hvc");
    let own = [
        ("partition-id", hypercall::PARTITION_ID),
        ("call-uid", hypercall::CALL_UID),
        ("call-revision", hypercall::CALL_REVISION),
    ];
    for (name, function) in own {
        if smccc::on_bulkhead() {
            sample(empty, || hvc(function), nothing).print(name);
        } else {
            verdict::skip(name, "no Bulkhead below");
        }
    }
    sample(empty, || hvc(ids::FAST_CALL | 0x3f00_0000), nothing).print("unknown-hvc");

    sample(empty, || load(gicd() + offset::TYPER), nothing).print("gicd-typer-read");
    let timer = Timer::Virtual.intid();
    // Where the enables of private interrupts are.
    let private = if gic::is_v2() { "gicd-isenabler0-write" } else { "gicr-isenabler0-write" };
    for (name, register, undo, intid) in [
        ("gicd-isenabler-write", offset::ISENABLER, offset::ICENABLER, uart_intid()),
        ("gicd-ispendr-write", offset::ISPENDR, offset::ICPENDR, uart_intid()),
        (private, offset::ISENABLER, offset::ICENABLER, timer),
    ] {
        let word = gic::bit_word(register, intid);
        sample(empty, || store(word, 1 << (intid % 32)), || gic::set_bit(undo, intid)).print(name);
    }
    let priority = gicd() + offset::IPRIORITYR + u64::from(uart_intid());
    sample(empty, || store_byte(priority, 0x80), nothing).print("gicd-ipriorityr-write");
    gic::set_priority(uart_intid(), gic::DEFAULT_PRIORITY);

    let [flags, data] = [UARTFR, UARTDR].map(|register| pl011() + register);
    sample(empty, || load(flags), nothing).print("pl011-fr-read");
    let sent = sample(empty, || store_byte(data, b'.'), nothing);
    println!("");
    sent.print("pl011-dr-write");

    let read = || ticks!("mrs {value}, id_aa64mmfr0_el1", value = out(reg) _);
    sample(empty, read, nothing).print("id-register-read");

    if catch(|| mmio::read32(UNOWNED)).is_err() {
        with_vectors(Vectors::Virtual, || sample(empty, unowned_load, nothing)).print("unowned-read");
    } else {
        verdict::skip("unowned-read", "it does not abort here");
    }
    Ok(())
}

/// A load that aborts, under the vectors of [`crate::interrupt`]: less the four instructions of the vector, plus
/// the load, which is not executed.
fn unowned_load() -> i64 {
    ticks!("ldr {value:w}, [{address}]", address = in(reg) UNOWNED, value = out(reg) _, out("x22") _) - 3
}
