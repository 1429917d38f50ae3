//! The generic timers tick on every CPU, at the rate they say, and interrupt as architected.

use core::sync::atomic::{AtomicU64, Ordering};

use bulkhead_rt::exception::{set_irq_handler, with_irqs};
use bulkhead_rt::time::{Timer, delay, frequency, now, physical_now, ticks, wait_until};
use bulkhead_rt::{Verdict, cpu, ensure, ensure_eq, gic, read_sysreg, verdict, write_sysreg};

use crate::harness::{PATIENCE, SILENCE, fresh, my_log, run_on, test_on_each_cpu};

const TIMERS: [Timer; 2] = [Timer::Virtual, Timer::Physical];

/// Runs the tests.
pub fn run(cpus: usize) {
    test_on_each_cpu("counters", cpus, counters);
    if cpus > 1 {
        verdict::test("counters-agree", counters_agree);
    } else {
        verdict::skip("counters-agree", "one CPU only");
    }
    test_on_each_cpu("timer-condition", cpus, condition);
    test_on_each_cpu("timer-interrupt", cpus, interrupt);
    test_on_each_cpu("timer-level", cpus, level);
    test_on_each_cpu("timer-imask", cpus, imask);
    test_on_each_cpu("timer-wfi", cpus, wfi);
}

fn counters() -> Verdict {
    ensure!((1_000_000..=10_000_000_000).contains(&frequency()), "CNTFRQ_EL0 is {}", frequency());
    for counter in [now, physical_now] {
        let mut last = counter();
        for _ in 0..1000 {
            let next = counter();
            ensure!(next >= last, "went back from {last} to {next}");
            last = next;
        }
    }
    // Both count the same time: the physical one's is between two readings of the virtual one's.
    let sample = || [now(), physical_now(), now()];
    let start = sample();
    delay(10_000);
    let end = sample();
    let elapsed = end[1] - start[1];
    let bounds = end[0] - start[2]..=end[2] - start[0];
    ensure!(bounds.contains(&elapsed), "CNTPCT_EL0 counted {elapsed}, CNTVCT_EL0 {bounds:?}");
    ensure!(*bounds.end() >= ticks(10_000), "CNTVCT_EL0 counted {bounds:?} in 10 ms");
    Ok(())
}

/// Time read on CPU 0, then on CPU 1, then on CPU 0 is in order.
fn counters_agree() -> Verdict {
    static OTHERS: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];
    let before = [now(), physical_now()];
    run_on(1, || {
        OTHERS[0].store(now(), Ordering::Relaxed);
        OTHERS[1].store(physical_now(), Ordering::Release);
        Ok(())
    })?;
    let after = [now(), physical_now()];
    for ((before, other), after) in before.into_iter().zip(&OTHERS).zip(after) {
        let other = other.load(Ordering::Acquire);
        ensure!((before..=after).contains(&other), "{before}, on CPU 1 {other}, {after}");
    }
    Ok(())
}

/// ISTATUS follows the compare value.
fn condition() -> Verdict {
    fresh();
    for timer in TIMERS {
        timer.fire_at(timer.now() + frequency() * 3600);
        ensure_eq!(timer.control(), 1, "control of the {timer:?} timer, an hour ahead");
        timer.fire_at(timer.now() - 1);
        ensure_eq!(timer.control(), 1 | 4, "control of the {timer:?} timer, overdue");
        timer.stop();
        ensure_eq!(timer.control() & 1, 0, "control of the {timer:?} timer, stopped");
    }
    write_sysreg!("cntv_tval_el0", 1000);
    let left = read_sysreg!("cntv_tval_el0");
    ensure!((left as u32).cast_signed() <= 1000, "CNTV_TVAL_EL0 is {left:#x}");
    Ok(())
}

/// Each fires once for each compare value, never early.
fn interrupt() -> Verdict {
    fresh();
    static TAKEN: [AtomicU64; cpu::MAX_CPUS] = [const { AtomicU64::new(0) }; cpu::MAX_CPUS];
    fn note_time() {
        let intid = gic::acknowledge();
        let timer = if intid == Timer::Virtual.intid() { Timer::Virtual } else { Timer::Physical };
        TAKEN[cpu::id()].store(timer.now(), Ordering::Relaxed);
        timer.stop();
        my_log().add(intid);
        gic::end(intid);
    }
    set_irq_handler(note_time);
    for timer in TIMERS {
        gic::enable(timer.intid());
        for round in 1..=20 {
            let count = my_log().count();
            let due = timer.now() + ticks(200);
            timer.fire_at(due);
            with_irqs(|| wait_until(PATIENCE, || my_log().count() > count));
            ensure_eq!(my_log().count(), count + 1, "interrupts after round {round} of the {timer:?} timer");
            ensure_eq!(my_log().entry(count), timer.intid(), "INTID");
            let taken = TAKEN[cpu::id()].load(Ordering::Relaxed);
            ensure!(taken >= due, "{timer:?} timer {} ticks early", due - taken);
        }
        gic::disable(timer.intid());
    }
    Ok(())
}

/// A timer's line stays up until the guest moves the compare value: the interrupt comes again after each end.
fn level() -> Verdict {
    fresh();
    fn leave_line_up() {
        let intid = gic::acknowledge();
        my_log().add(intid);
        if my_log().count() == 5 {
            crate::harness::silence(intid);
        }
        gic::end(intid);
    }
    for timer in TIMERS {
        fresh();
        set_irq_handler(leave_line_up);
        gic::enable(timer.intid());
        timer.fire_at(timer.now());
        with_irqs(|| my_log().expect(&[timer.intid(); 5]))?;
        ensure!(
            !gic::bit(gic::offset::ISPENDR, timer.intid()),
            "{timer:?} timer pending after it was stopped"
        );
        gic::disable(timer.intid());
    }
    Ok(())
}

/// IMASK holds the line back.
fn imask() -> Verdict {
    fresh();
    gic::enable(Timer::Virtual.intid());
    write_sysreg!("cntv_cval_el0", now());
    write_sysreg!("cntv_ctl_el0", 1 | 2);
    with_irqs(|| delay(SILENCE));
    ensure_eq!(my_log().count(), 0, "interrupts while masked");
    write_sysreg!("cntv_ctl_el0", 1);
    with_irqs(|| my_log().expect(&[Timer::Virtual.intid()]))
}

/// WFI ends when a timer fires, whether interrupts are masked or taken.
fn wfi() -> Verdict {
    for timer in TIMERS {
        fresh();
        gic::enable(timer.intid());
        let due = timer.now() + ticks(2000);
        timer.fire_at(due);
        while timer.control() & 4 == 0 {
            cpu::wait_for_interrupt();
        }
        ensure!(timer.now() >= due, "condition met early");
        with_irqs(|| my_log().expect(&[timer.intid()]))?;
        timer.fire_at(timer.now() + ticks(2000));
        // Masked between question and WFI, so that the interrupt does not come in between.
        while my_log().count() < 2 {
            cpu::wait_for_interrupt();
            with_irqs(|| {});
        }
        ensure_eq!(my_log().count(), 2, "interrupts of the {timer:?} timer");
    }
    Ok(())
}
