//! What the tests share: a test on another CPU, and a record of the interrupts that arrived.

use core::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize, Ordering};

use bulkhead_rt::exception::{mask_irqs, set_irq_handler};
use bulkhead_rt::time::{Timer, wait_until};
use bulkhead_rt::{Failure, Verdict, cpu, ensure_eq, gic, mmio, verdict};
use spin::Mutex;

/// Milliseconds within which anything that shall happen has happened, on a slow emulator too.
pub const PATIENCE: u64 = 10_000;
/// Microseconds after which what has not happened will not.
pub const SILENCE: u64 = 3000;

static BODY: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());
static RESULT: Mutex<Option<Verdict>> = Mutex::new(None);

/// Runs a test on this and then on every other CPU.
pub fn test_on_each_cpu(name: &'static str, cpus: usize, body: fn() -> Verdict) {
    verdict::test(name, || {
        body()?;
        for target in 1..cpus {
            run_on(target, body)?;
        }
        Ok(())
    });
}

/// Starts a CPU, runs `body` there, waits until the CPU is off again and returns what `body` returned.
pub fn run_on(target: usize, body: fn() -> Verdict) -> Verdict {
    BODY.store(body as *mut (), Ordering::Release);
    ensure_eq!(cpu::start(target, run_body, 0), 0, "CPU_ON of CPU {target}");
    let off = wait_until(PATIENCE, || {
        cpu::state(target) == bulkhead_abi::psci::affinity::OFF && RESULT.lock().is_some()
    });
    match RESULT.lock().take() {
        Some(Err(failure)) => Err(failure.on(target)),
        Some(Ok(())) if off => Ok(()),
        _ => Err(Failure::new(format_args!("CPU {target} did not finish"))),
    }
}

fn run_body(_: u64) {
    // SAFETY: only `run_on` stores here, and it stores a `fn() -> Verdict`.
    let body: fn() -> Verdict = unsafe { core::mem::transmute(BODY.load(Ordering::Acquire)) };
    let result = body();
    *RESULT.lock() = Some(result);
}

/// Interrupts that one CPU took, in order.
pub struct Log {
    count: AtomicUsize,
    entries: [AtomicU32; Self::SIZE],
}

impl Log {
    const SIZE: usize = 64;

    /// Adds one; forgets what comes after the 64th, but counts it.
    pub fn add(&self, intid: u32) {
        let index = self.count.fetch_add(1, Ordering::AcqRel);
        if let Some(entry) = self.entries.get(index) {
            entry.store(intid, Ordering::Release);
        }
    }

    /// How many there were.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// The one at `index`, from 0; meaningless from `count` on.
    pub fn entry(&self, index: usize) -> u32 {
        self.entries[index].load(Ordering::Acquire)
    }

    /// Waits for `count` interrupts and a silence, and compares.
    pub fn expect(&self, expected: &[u32]) -> Verdict {
        wait_until(PATIENCE, || self.count() >= expected.len());
        bulkhead_rt::time::delay(SILENCE);
        ensure_eq!(self.count(), expected.len(), "number of interrupts (the first was {})", self.entry(0));
        for (index, &intid) in expected.iter().enumerate() {
            ensure_eq!(self.entry(index), intid, "interrupt {index}");
        }
        Ok(())
    }

    fn clear(&self) {
        self.count.store(0, Ordering::Release);
        for entry in &self.entries {
            entry.store(gic::SPURIOUS, Ordering::Relaxed);
        }
    }
}

static LOGS: [Log; cpu::MAX_CPUS] =
    [const { Log { count: AtomicUsize::new(0), entries: [const { AtomicU32::new(0) }; Log::SIZE] } };
        cpu::MAX_CPUS];

/// The log of a CPU.
pub fn log(cpu: usize) -> &'static Log {
    &LOGS[cpu]
}

/// This CPU's log.
pub fn my_log() -> &'static Log {
    log(cpu::id())
}

/// Puts this CPU's part of the GIC, and on CPU 0 the distributor, into a known state: everything idle and
/// disabled, IRQs masked, the log empty, [`record`] as the handler.
pub fn fresh() {
    mask_irqs();
    Timer::Virtual.stop();
    Timer::Physical.stop();
    if cpu::id() == 0 {
        gic::init_distributor();
    }
    gic::init_cpu();
    my_log().clear();
    set_irq_handler(record);
}

/// Acknowledges, logs, silences the source and ends the interrupt.
pub fn record() {
    let intid = gic::acknowledge();
    my_log().add(intid);
    silence(intid);
    gic::end(intid);
}

/// Takes back the line of a level-sensitive interrupt.
pub fn silence(intid: u32) {
    match intid {
        27 => Timer::Virtual.stop(),
        30 => Timer::Physical.stop(),
        intid if intid == gic::uart_intid() => mmio::write32(crate::uart::imsc(), 0),
        _ => {}
    }
}
