//! A million interrupts, each of which is the one that the architecture wants next.
//!
//! One CPU keeps more interrupts pending than any GIC has list registers, at mixed priorities, and a model of the
//! GIC ([`model`]) says before each acknowledge what it must find. Priorities, enables and the priority mask change
//! meanwhile, interrupts are withdrawn, or sent again while they are active. An interrupt that comes out of turn, is
//! lost, or comes twice is a failure. The bare machine runs the same storm, which shows that the model is right.
#![no_std]
#![no_main]

mod model;

use bulkhead_rt::exception::{mask_irqs, set_irq_handler, unmask_irqs, with_irqs};
use bulkhead_rt::time::{frequency, now};
use bulkhead_rt::{Verdict, cpu, ensure, entry, gic, println, smccc, verdict};
use spin::Mutex;

use crate::model::{Model, PENDING};

/// Deliveries of the tests, a million together.
const POLLED: u32 = 300_000;
const POLLED_SPLIT: u32 = 300_000;
const GROUPED: u32 = 100_000;
const TAKEN: u32 = 200_000;
const TAKEN_SPLIT: u32 = 100_000;

/// Handlers that one handler lets in upon it.
const MAX_NESTED: usize = 6;

entry!(main);

fn main() {
    let below = if smccc::on_bulkhead() { "Bulkhead" } else { "no Bulkhead" };
    println!("storm: GICv{}, {below} below", if gic::is_v2() { 2 } else { 3 });
    test("storm-polled", || polled(1, POLLED, false, false));
    test("storm-polled-split-end", || polled(2, POLLED_SPLIT, true, false));
    test("storm-binary-points", || polled(3, GROUPED, false, true));
    test("storm-taken", || taken(4, TAKEN, false));
    test("storm-taken-split-end", || taken(5, TAKEN_SPLIT, true));
    verdict::done()
}

/// Runs a test and says how long it took.
fn test(name: &'static str, body: fn() -> Verdict) {
    let start = now();
    verdict::test(name, body);
    println!("{name}: {} ms", (now() - start) * 1000 / frequency());
}

fn fresh(seed: u64, split: bool) -> Result<Model, bulkhead_rt::Failure> {
    // What a storm that failed left active.
    gic::clear_active_priorities();
    gic::init_distributor();
    gic::init_cpu();
    gic::set_split_end(split);
    let model = Model::new(seed, split, cpu::count());
    ensure!(model.sources() > PENDING, "{} interrupts to send, not more than {PENDING}", model.sources());
    Ok(model)
}

/// With interrupts masked: acknowledges and ends in an order of its own.
fn polled(seed: u64, deliveries: u32, split: bool, points: bool) -> Verdict {
    let mut model = fresh(seed, split)?;
    while model.delivered() < deliveries {
        model.fill();
        model.disturb(points)?;
        let end = model.nested() > 0 && model.decide(2);
        // Where nothing is more urgent than what is active, that comes to its end.
        if end || !model.take()? && model.nested() > 0 {
            model.end()?;
        }
    }
    model.finish()
}

static STORM: Mutex<Option<Model>> = Mutex::new(None);
static RESULT: Mutex<Verdict> = Mutex::new(Ok(()));

/// Does something with the model of the storm. Interrupts are masked.
fn with_model<R>(f: impl FnOnce(&mut Model) -> R) -> R {
    f(STORM.lock().as_mut().expect("a storm"))
}

/// Through the vectors, the more urgent ones upon the less urgent.
fn taken(seed: u64, deliveries: u32, split: bool) -> Verdict {
    let model = fresh(seed, split)?;
    *STORM.lock() = Some(model);
    *RESULT.lock() = Ok(());
    set_irq_handler(handle);
    let delivered = || with_model(|model| model.delivered());
    while delivered() < deliveries {
        let before = delivered();
        with_model(Model::fill);
        with_irqs(|| {});
        core::mem::replace(&mut *RESULT.lock(), Ok(()))?;
        ensure!(delivered() > before, "no interrupt is taken after {before}");
    }
    let mut model = STORM.lock().take().expect("a storm");
    ensure!(!model.take()?, "an interrupt was left");
    model.finish()
}

fn handle() {
    let nest = with_model(|model| {
        if !model.take()? {
            ensure!(false, "an interrupt was taken, and none was there");
        }
        // Some more, often more urgent than this one.
        while model.decide(2) && model.wants_more() {
            model.pend_any();
        }
        Ok(model.nested() <= MAX_NESTED && model.decide(2))
    });
    let result = nest.and_then(|nest| {
        if nest {
            unmask_irqs();
            mask_irqs();
        }
        with_model(Model::end)
    });
    if result.is_err() {
        // Nothing more gets through, and the first failure is the one that counts.
        gic::set_interface(false);
        let mut first = RESULT.lock();
        if first.is_ok() {
            *first = result;
        }
    }
}
