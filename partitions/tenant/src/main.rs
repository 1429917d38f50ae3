//! One of many: a guest that shows in two seconds that its machine is whole and its own.
//!
//! All run the same image and are told apart by their command line, so what one finds of another's could not be
//! its own by chance: its memory is filled from its number, and its interrupts are its own timer's and the one that it
//! sends itself.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU32, Ordering};

use bulkhead_rt::exception::{mask_irqs, set_irq_handler, unmask_irqs};
use bulkhead_rt::machine::machine;
use bulkhead_rt::memory::{self, image_end};
use bulkhead_rt::time::{Timer, now, ticks, wait_until};
use bulkhead_rt::{Failure, Verdict, cpu, ensure, ensure_eq, entry, gic, println, verdict};

/// Bytes of memory behind the image that it fills.
const FILLED: u64 = 1 << 20;
/// Interrupts of its timer that it waits for.
const TICKS: u32 = 100;
/// Microseconds between them.
const PERIOD: u64 = 10_000;
/// SGI that it sends itself.
const SGI: u32 = 3;
/// How long it waits for an interrupt at the most, in milliseconds: longer than any host keeps an emulator waiting.
const PATIENCE: u64 = 30_000;

entry!(main);

static TICKED: AtomicU32 = AtomicU32::new(0);
static SENT: AtomicU32 = AtomicU32::new(0);
/// Interrupts that are none of its business.
static FOREIGN: AtomicU32 = AtomicU32::new(0);

fn main() {
    println!("tenant {}", machine().bootargs);
    verdict::test("first-cpu", || {
        ensure_eq!(cpu::id(), 0, "the number of its CPU");
        Ok(())
    });
    verdict::test("fill", fill);
    verdict::test("interrupts", interrupts);
    verdict::test("still-filled", still_filled);
    verdict::done()
}

/// The number in the command line.
fn number() -> Result<u64, Failure> {
    let bootargs = machine().bootargs.as_str();
    bootargs.parse().map_err(|_| Failure::new(format_args!("bootargs \"{bootargs}\" are no number")))
}

fn words() -> impl Iterator<Item = u64> {
    (image_end()..image_end() + FILLED).step_by(8)
}

fn pattern(number: u64, address: u64) -> u64 {
    (address << 8 | number).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

fn fill() -> Verdict {
    let number = number()?;
    words().for_each(|address| memory::write(address, pattern(number, address)));
    Ok(())
}

fn still_filled() -> Verdict {
    let number = number()?;
    for address in words() {
        ensure_eq!(memory::read(address), pattern(number, address), "what it left at {address:#x}");
    }
    Ok(())
}

fn take() {
    let intid = gic::acknowledge();
    if intid == Timer::Virtual.intid() {
        TICKED.fetch_add(1, Ordering::Relaxed);
        Timer::Virtual.fire_at(now() + ticks(PERIOD));
    } else if intid == SGI {
        SENT.fetch_add(1, Ordering::Relaxed);
    } else {
        FOREIGN.fetch_add(1, Ordering::Relaxed);
    }
    gic::end(intid);
}

fn interrupts() -> Verdict {
    gic::init_distributor();
    gic::init_cpu();
    set_irq_handler(take);
    for intid in 0..gic::spi_end() {
        gic::enable(intid);
    }
    Timer::Virtual.fire_at(now() + ticks(PERIOD));
    unmask_irqs();
    gic::set_pending(SGI);
    let came = wait_until(PATIENCE, || {
        cpu::wait_for_interrupt();
        TICKED.load(Ordering::Relaxed) >= TICKS
    });
    mask_irqs();
    Timer::Virtual.stop();
    let [ticked, sent, foreign] = [&TICKED, &SENT, &FOREIGN].map(|count| count.load(Ordering::Relaxed));
    ensure!(came, "{ticked} of {TICKS} ticks came");
    ensure_eq!(sent, 1, "how often the SGI came");
    ensure_eq!(foreign, 0, "number of foreign interrupts");
    Ok(())
}
