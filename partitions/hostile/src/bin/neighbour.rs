//! The one beside the hostile partition: it does its work and keeps count of its deadlines.
//!
//! A tick every millisecond, each judged against CNTVCT, while the main loop checks that no word of the
//! partition's memory has changed. An emulator whose host is busy delays and loses ticks by itself, so the
//! verdict asks that none is unaccounted for and that they never stop, and the figures are printed: under
//! `-icount`, where time does not pass while the host does something else, they are the hypervisor's.
#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use bulkhead_rt::exception::{mask_irqs, set_irq_handler, unmask_irqs};
use bulkhead_rt::memory::{self, RAM_END, RAM_START, image_end, image_start};
use bulkhead_rt::time::{Timer, frequency, now};
use bulkhead_rt::{Failure, Verdict, ensure, ensure_eq, entry, gic, println, verdict};

/// Seconds that it runs.
const SECONDS: u64 = 20;
/// Ticks in a second.
const RATE: u64 = 1000;
/// A tick that is so many microseconds late is no tick: longer than any host keeps an emulator waiting.
const STALLED: u64 = 3_000_000;

entry!(main);

/// When the next tick is due, CNTVCT.
static DUE: AtomicU64 = AtomicU64::new(0);
static TAKEN: AtomicU64 = AtomicU64::new(0);
static LOST: AtomicU64 = AtomicU64::new(0);
static WORST: AtomicU64 = AtomicU64::new(0);
/// Interrupts that are none of this partition's business.
static FOREIGN: AtomicU64 = AtomicU64::new(0);

fn main() {
    println!("neighbour: {SECONDS} s at {RATE} Hz");
    verdict::test("neighbour", run);
    verdict::done()
}

fn tick() {
    let intid = gic::acknowledge();
    if intid == Timer::Virtual.intid() {
        let period = frequency() / RATE;
        let due = DUE.load(Ordering::Relaxed);
        let late = now() - due;
        WORST.fetch_max(late, Ordering::Relaxed);
        TAKEN.fetch_add(1, Ordering::Relaxed);
        LOST.fetch_add(late / period, Ordering::Relaxed);
        let next = due + period * (1 + late / period);
        DUE.store(next, Ordering::Relaxed);
        Timer::Virtual.fire_at(next);
    } else {
        FOREIGN.fetch_add(1, Ordering::Relaxed);
    }
    gic::end(intid);
}

fn run() -> Verdict {
    gic::init_distributor();
    gic::init_cpu();
    set_irq_handler(tick);
    for intid in 0..32 {
        gic::enable(intid);
    }
    for intid in 32..gic::spi_end() {
        gic::enable(intid);
    }
    for address in words() {
        memory::write(address, pattern(address));
    }
    let start = now();
    DUE.store(start + frequency() / RATE, Ordering::Relaxed);
    Timer::Virtual.fire_at(DUE.load(Ordering::Relaxed));
    unmask_irqs();
    let mut checked = 0_u64;
    let result = 'run: loop {
        for address in words() {
            if memory::read(address) != pattern(address) {
                break 'run Err(Failure::new(format_args!(
                    "{address:#x} holds {:#x}",
                    memory::read(address)
                )));
            }
            checked += 1;
            if address % 4096 == 0 && now() - start > SECONDS * frequency() {
                break 'run Ok(());
            }
        }
    };
    mask_irqs();
    let expected = (now() - start) * RATE / frequency();
    Timer::Virtual.stop();
    let [taken, lost, worst, foreign] =
        [&TAKEN, &LOST, &WORST, &FOREIGN].map(|count| count.load(Ordering::Relaxed));
    let worst = worst * 1_000_000 / frequency();
    println!("NEIGHBOUR ticks={taken} lost={lost} max-late-us={worst} words={checked}");
    result?;
    ensure_eq!(foreign, 0, "number of foreign interrupts");
    // Those of the longest delay may still be out.
    let out = 1 + worst * RATE / 1_000_000;
    ensure!((taken + lost).abs_diff(expected) <= out, "{taken} ticks and {lost} lost of {expected}");
    ensure!(worst < STALLED, "a tick came {worst} us late, {lost} of {expected} were lost");
    Ok(())
}

fn words() -> impl Iterator<Item = u64> {
    (RAM_START..image_start()).step_by(8).chain((image_end()..RAM_END).step_by(8))
}

fn pattern(address: u64) -> u64 {
    address.wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
