//! PSCI: CPUs are started, asked about, stopped, and what cannot be is refused with the right code.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};

use bulkhead_abi::psci::{self, affinity};
use bulkhead_rt::console::pl011;
use bulkhead_rt::memory::{RAM_END, RAM_START};
use bulkhead_rt::smccc::{hvc, on_bulkhead};
use bulkhead_rt::time::{Timer, now, ticks, wait_until};
use bulkhead_rt::{Verdict, cpu, ensure, ensure_eq, gic, read_sysreg, verdict};

use crate::harness::{PATIENCE, fresh, test_on_each_cpu};

/// Runs the tests.
pub fn run(cpus: usize) {
    verdict::test("psci-features", features);
    verdict::test("psci-migrate-info-type", || {
        ensure_eq!(answer(psci::MIGRATE_INFO_TYPE, 0, 0, 0), psci::MIGRATION_NOT_REQUIRED, "answer");
        Ok(())
    });
    verdict::test("psci-affinity-info", || affinity_info(cpus));
    verdict::test("psci-cpu-on-refused", || cpu_on_refused(cpus));
    if cpus > 1 {
        verdict::test("psci-cpu-on", cpu_on);
        verdict::test("psci-cpu-on-state", entry_state);
        verdict::test("psci-cpu-off-and-on", off_and_on);
    } else {
        for name in ["psci-cpu-on", "psci-cpu-on-state", "psci-cpu-off-and-on"] {
            verdict::skip(name, "one CPU only");
        }
    }
    if cpus < 3 {
        verdict::skip("psci-cpu-on-race", "fewer than three CPUs");
    } else if !on_bulkhead() {
        verdict::skip("psci-cpu-on-race", "QEMU lets both win");
    } else {
        verdict::test("psci-cpu-on-race", race);
    }
    test_on_each_cpu("psci-cpu-suspend", cpus, suspend);
}

fn answer(function: u32, x1: u64, x2: u64, x3: u64) -> i64 {
    hvc(function, x1, x2, x3)[0].cast_signed()
}

fn features() -> Verdict {
    let features = |function: u32| answer(psci::PSCI_FEATURES, function.into(), 0, 0);
    for function in [
        psci::PSCI_VERSION,
        psci::CPU_SUSPEND_32,
        psci::CPU_SUSPEND,
        psci::CPU_OFF,
        psci::CPU_ON_32,
        psci::CPU_ON,
        psci::AFFINITY_INFO_32,
        psci::AFFINITY_INFO,
        psci::MIGRATE_INFO_TYPE,
        psci::SYSTEM_OFF,
        psci::SYSTEM_RESET,
        psci::PSCI_FEATURES,
    ] {
        ensure_eq!(features(function), 0, "PSCI_FEATURES of {function:#x}");
    }
    for function in [0, 0x8400_001f, 0xc400_0000, psci::MEM_PROTECT, 0x8400_0050, u32::MAX] {
        ensure_eq!(features(function), psci::NOT_SUPPORTED, "PSCI_FEATURES of {function:#x}");
    }
    Ok(())
}

/// Affinities that no CPU of a partition has.
fn absent(cpus: usize) -> [u64; 6] {
    [cpus as u64, 0xff, 1 << 8, 1 << 16, 1 << 32, 0xff_00ff_ffff]
}

fn affinity_info(cpus: usize) -> Verdict {
    for function in [psci::AFFINITY_INFO, psci::AFFINITY_INFO_32] {
        ensure_eq!(answer(function, 0, 0, 0), affinity::ON, "CPU 0 by {function:#x}");
        for target in 1..cpus as u64 {
            ensure_eq!(answer(function, target, 0, 0), affinity::OFF, "CPU {target} by {function:#x}");
        }
    }
    for target in absent(cpus) {
        let answer = answer(psci::AFFINITY_INFO, target, 0, 0);
        ensure_eq!(answer, psci::INVALID_PARAMETERS, "absent CPU {target:#x}");
    }
    // Levels above 0 are optional since PSCI 1.0.
    for level in [1, 3, 4, u64::MAX] {
        let answer = answer(psci::AFFINITY_INFO, 0, level, 0);
        ensure!(answer == affinity::ON || answer == psci::INVALID_PARAMETERS, "level {level:#x}: {answer}");
    }
    Ok(())
}

fn cpu_on_refused(cpus: usize) -> Verdict {
    let entry = cpu::entry_address();
    for function in [psci::CPU_ON, psci::CPU_ON_32] {
        ensure_eq!(answer(function, 0, entry, 0), psci::ALREADY_ON, "this CPU by {function:#x}");
    }
    for target in absent(cpus) {
        ensure_eq!(
            answer(psci::CPU_ON, target, entry, 0),
            psci::INVALID_PARAMETERS,
            "absent CPU {target:#x}"
        );
    }
    // The bare machine does not look at the entry point.
    if cpus > 1 && on_bulkhead() {
        for entry in [0, RAM_START - 4096, RAM_END, pl011(), gic::gicd(), 1 << 47, !3] {
            ensure_eq!(answer(psci::CPU_ON, 1, entry, 0), psci::INVALID_ADDRESS, "entry {entry:#x}");
        }
        ensure_eq!(cpu::state(1), affinity::OFF, "CPU 1 after all this");
    }
    Ok(())
}

static SEEN_CONTEXT: AtomicU64 = AtomicU64::new(0);
static SEEN_CPU: AtomicU64 = AtomicU64::new(u64::MAX);
static RELEASE: AtomicU32 = AtomicU32::new(0);
static STARTS: AtomicU32 = AtomicU32::new(0);

fn report_and_wait(context: u64) {
    SEEN_CPU.store(read_sysreg!("mpidr_el1") & 0xff_00ff_ffff, Ordering::Relaxed);
    SEEN_CONTEXT.store(context, Ordering::Release);
    STARTS.fetch_add(1, Ordering::AcqRel);
    while RELEASE.load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
}

fn start(target: usize, context: u64) -> i64 {
    SEEN_CPU.store(u64::MAX, Ordering::Relaxed);
    SEEN_CONTEXT.store(!context, Ordering::Relaxed);
    RELEASE.store(0, Ordering::Relaxed);
    cpu::start(target, report_and_wait, context)
}

fn seen(target: usize, context: u64) -> Verdict {
    let came = wait_until(PATIENCE, || SEEN_CONTEXT.load(Ordering::Acquire) == context);
    ensure!(came, "CPU {target} did not come, or X0 was {:#x}", SEEN_CONTEXT.load(Ordering::Acquire));
    ensure_eq!(SEEN_CPU.load(Ordering::Relaxed), target as u64, "its MPIDR");
    Ok(())
}

fn gone(target: usize) -> Verdict {
    RELEASE.store(1, Ordering::Release);
    let off = wait_until(PATIENCE, || cpu::state(target) == affinity::OFF);
    ensure!(off, "CPU {target} is not off after CPU_OFF, but {}", cpu::state(target));
    Ok(())
}

fn cpu_on() -> Verdict {
    let context = 0xfeed_face_cafe_f00d;
    ensure_eq!(start(1, context), psci::SUCCESS, "CPU_ON");
    if on_bulkhead() {
        // QEMU accepts another one until the first has taken effect.
        let again = answer(psci::CPU_ON, 1, cpu::entry_address(), 0);
        ensure!(again == psci::ALREADY_ON || again == psci::ON_PENDING, "CPU_ON at once again: {again}");
    }
    seen(1, context)?;
    ensure_eq!(cpu::state(1), affinity::ON, "AFFINITY_INFO");
    ensure_eq!(answer(psci::CPU_ON, 1, cpu::entry_address(), 0), psci::ALREADY_ON, "CPU_ON of a running CPU");
    gone(1)
}

fn off_and_on() -> Verdict {
    for context in 1..=20 {
        ensure_eq!(start(1, context), psci::SUCCESS, "CPU_ON, time {context}");
        seen(1, context)?;
        gone(1)?;
    }
    cpu::prepare(1, report_and_wait);
    let context = 0x8765_4321;
    RELEASE.store(0, Ordering::Relaxed);
    let entry = cpu::entry_address();
    ensure_eq!(answer(psci::CPU_ON_32, 1, entry, context), psci::SUCCESS, "CPU_ON with 32-bit arguments");
    seen(1, context)?;
    gone(1)
}

global_asm!(
    r#"
    .section .text
    .global report_entry_state          // with MMU and caches off: X0 = context = where to
report_entry_state:
    mrs     x1, sctlr_el1
    mrs     x2, currentel
    mrs     x3, daif
    mrs     x4, spsel
    stp     x1, x2, [x0]
    stp     x3, x4, [x0, #16]
    dsb     sy
    mov     w0, #{cpu_off_low}
    movk    w0, #{cpu_off_high}, lsl #16
    hvc     #0
1:  b       1b
    "#,
    cpu_off_low = const psci::CPU_OFF & 0xffff,
    cpu_off_high = const psci::CPU_OFF >> 16,
);

unsafe extern "C" {
    static report_entry_state: u8;
}

/// What a CPU finds when it starts (DEN0022, 6.4): EL1h, all masked, MMU and caches off.
fn entry_state() -> Verdict {
    #[repr(align(256))]
    struct Report([AtomicU64; 4]);
    static REPORT: Report = Report([const { AtomicU64::new(u64::MAX) }; 4]);
    let place = &raw const REPORT as u64;
    let forget_cached = || {
        // SAFETY: cleans and invalidates, so that memory and what the CPU without caches writes are the same.
        unsafe { asm!("dmb sy", "dc civac, {}", "dsb sy", in(reg) place) }
    };
    forget_cached();
    let entry = &raw const report_entry_state as u64;
    ensure_eq!(answer(psci::CPU_ON, 1, entry, place), psci::SUCCESS, "CPU_ON");
    let reported = wait_until(PATIENCE, || {
        forget_cached();
        REPORT.0[3].load(Ordering::Relaxed) != u64::MAX
    });
    ensure!(reported, "CPU 1 does not report");
    let off = wait_until(PATIENCE, || cpu::state(1) == affinity::OFF);
    ensure!(off, "CPU 1 is not off");
    let [sctlr, level, daif, select] = [0, 1, 2, 3].map(|n: usize| REPORT.0[n].load(Ordering::Relaxed));
    ensure_eq!(sctlr & (1 << 12 | 1 << 2 | 1), 0, "I, C, M of SCTLR_EL1 = {sctlr:#x}");
    ensure_eq!(level, 1 << 2, "CurrentEL");
    ensure_eq!(daif, 0xf << 6, "DAIF");
    ensure_eq!(select, 1, "SPSel");
    Ok(())
}

/// Two CPUs start a third one at the same time: one of them succeeds.
fn race() -> Verdict {
    static OTHER_ANSWER: AtomicI64 = AtomicI64::new(i64::MIN);
    static READY: AtomicU32 = AtomicU32::new(0);
    fn race_for_cpu_2(_: u64) {
        READY.fetch_add(1, Ordering::AcqRel);
        while READY.load(Ordering::Acquire) % 2 == 1 {}
        OTHER_ANSWER.store(answer(psci::CPU_ON, 2, cpu::entry_address(), 7), Ordering::Release);
    }
    cpu::prepare(2, report_and_wait);
    for round in 0..20 {
        OTHER_ANSWER.store(i64::MIN, Ordering::Relaxed);
        SEEN_CONTEXT.store(0, Ordering::Relaxed);
        RELEASE.store(0, Ordering::Relaxed);
        let before = STARTS.load(Ordering::Relaxed);
        ensure_eq!(cpu::start(1, race_for_cpu_2, 0), psci::SUCCESS, "CPU_ON of the rival");
        ensure!(wait_until(PATIENCE, || READY.load(Ordering::Acquire) % 2 == 1), "the rival did not come");
        READY.fetch_add(1, Ordering::AcqRel);
        let mine = answer(psci::CPU_ON, 2, cpu::entry_address(), 7);
        ensure!(wait_until(PATIENCE, || OTHER_ANSWER.load(Ordering::Acquire) != i64::MIN), "no answer");
        let answers = [mine, OTHER_ANSWER.load(Ordering::Acquire)];
        let successes = answers.iter().filter(|&&answer| answer == psci::SUCCESS).count();
        let refused = answers.iter().any(|answer| [psci::ALREADY_ON, psci::ON_PENDING].contains(answer));
        ensure!(successes == 1 && refused, "answers in round {round}: {answers:?}");
        seen(2, 7)?;
        gone(2)?;
        gone(1)?;
        ensure_eq!(STARTS.load(Ordering::Relaxed), before + 1, "starts in round {round}");
    }
    Ok(())
}

/// Standby: returns when an interrupt is pending, masked or not.
fn suspend() -> Verdict {
    fresh();
    let timer = Timer::Virtual;
    gic::enable(timer.intid());
    for function in [psci::CPU_SUSPEND, psci::CPU_SUSPEND_32] {
        let due = now() + ticks(2000);
        timer.fire_at(due);
        while now() < due {
            // A standby may end early.
            ensure_eq!(answer(function, 0, 0, 0), psci::SUCCESS, "answer to {function:#x}");
        }
        wait_until(PATIENCE, || gic::highest_pending() == timer.intid());
        let intid = gic::acknowledge();
        timer.stop();
        ensure_eq!(intid, timer.intid(), "what ended the standby");
        gic::end(intid);
    }
    let invalid = answer(psci::CPU_SUSPEND, 0xffff_ffff, 0, 0);
    ensure_eq!(invalid, psci::INVALID_PARAMETERS, "CPU_SUSPEND to an unknown state");
    Ok(())
}
