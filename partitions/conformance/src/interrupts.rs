//! Delivery: what arrives, in which order, what holds it back, and who gets it.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use bulkhead_rt::exception::{mask_irqs, set_irq_handler, unmask_irqs, with_irqs};
use bulkhead_rt::gic::{
    self, DEFAULT_PRIORITY, IDLE, SPURIOUS, acknowledge, bit, offset, send_sgi, sgi_to, sgi_to_list,
    sgi_to_others,
};
use bulkhead_rt::smccc::on_bulkhead;
use bulkhead_rt::time::{Timer, delay, now, wait_until};
use bulkhead_rt::{Failure, Verdict, cpu, ensure, ensure_eq, verdict};

use heapless::Vec;

use crate::harness::{PATIENCE, SILENCE, fresh, log, my_log, record, silence, test_on_each_cpu};

/// Runs the tests.
pub fn run(cpus: usize) {
    test_on_each_cpu("irq-sgi-to-self", cpus, sgi_to_self);
    test_on_each_cpu("irq-spurious", cpus, spurious);
    test_on_each_cpu("irq-disabled", cpus, disabled);
    test_on_each_cpu("irq-taken-back", cpus, taken_back);
    test_on_each_cpu("irq-priority-mask", cpus, priority_mask);
    test_on_each_cpu("irq-group-enable", cpus, group_enable);
    verdict::test("irq-distributor-off", distributor_off);
    test_on_each_cpu("irq-running-priority", cpus, running_priority);
    test_on_each_cpu("irq-preemption", cpus, preemption);
    test_on_each_cpu("irq-binary-point", cpus, binary_point);
    test_on_each_cpu("irq-eoi-mode-1", cpus, eoi_mode_1);
    test_on_each_cpu("irq-pended-ppi", cpus, pended_ppi);
    test_on_each_cpu("irq-pended-while-active", cpus, pended_while_active);
    test_on_each_cpu("irq-pended-by-register-while-active", cpus, pended_by_register_while_active);
    test_on_each_cpu("irq-active-and-pending", cpus, active_and_pending);
    test_on_each_cpu("irq-priority-order", cpus, priority_order);
    test_on_each_cpu("irq-all-active", cpus, all_active);
    verdict::test("irq-spi", || spi(cpus));
    if cpus > 1 {
        verdict::test("irq-sgi-to-others", || sgis_between_cpus(cpus));
        verdict::test("irq-sgi-flood", sgi_flood);
    } else {
        verdict::skip("irq-sgi-to-others", "one CPU only");
        verdict::skip("irq-sgi-flood", "one CPU only");
    }
    verdict::test("irq-sgi-foreign", || sgi_to_nobody(cpus));
}

fn to_self(intid: u32) {
    send_sgi(sgi_to(intid, cpu::id()));
}

/// Nothing arrives although interrupts are unmasked.
fn expect_silence(when: &str) -> Verdict {
    let before = my_log().count();
    with_irqs(|| delay(SILENCE));
    ensure_eq!(my_log().count() - before, 0, "interrupts {when}");
    Ok(())
}

fn sgi_to_self() -> Verdict {
    for intid in 0..16 {
        fresh();
        gic::enable(intid);
        with_irqs(|| {
            to_self(intid);
            my_log().expect(&[intid])
        })?;
    }
    Ok(())
}

fn spurious() -> Verdict {
    fresh();
    ensure_eq!(acknowledge(), SPURIOUS, "acknowledge with nothing pending");
    ensure_eq!(gic::highest_pending(), SPURIOUS, "highest pending with nothing pending");
    gic::enable(2);
    to_self(2);
    let pending = wait_until(PATIENCE, || gic::highest_pending() == 2);
    ensure!(pending, "highest pending is {}, not SGI 2", gic::highest_pending());
    ensure!(bit(offset::ISPENDR, 2), "SGI 2 is not pending in the redistributor");
    ensure_eq!(acknowledge(), 2, "acknowledge");
    ensure!(!bit(offset::ISPENDR, 2), "SGI 2 is pending after it was acknowledged");
    ensure!(bit(offset::ISACTIVER, 2), "SGI 2 is not active after it was acknowledged");
    ensure_eq!(acknowledge(), SPURIOUS, "second acknowledge");
    gic::end(2);
    ensure!(!bit(offset::ISACTIVER, 2), "SGI 2 is active after its end");
    Ok(())
}

/// Pending but disabled waits; disabled again while already signalled is withdrawn.
fn disabled() -> Verdict {
    // A GICv2 may keep its SGIs enabled for ever (IHI 0048, 4.3.5).
    let intid = if gic::is_v2() { Timer::Virtual.intid() } else { 3 };
    fresh();
    gic::set_pending(intid);
    expect_silence("while disabled")?;
    ensure!(bit(offset::ISPENDR, intid), "{intid} does not become pending while disabled");
    gic::enable(intid);
    with_irqs(|| my_log().expect(&[intid]))?;
    gic::set_pending(intid);
    gic::disable(intid);
    expect_silence("after disabling")?;
    gic::enable(intid);
    with_irqs(|| my_log().expect(&[intid; 2]))
}

fn taken_back() -> Verdict {
    fresh();
    gic::enable(4);
    to_self(4);
    gic::clear_pending(4);
    expect_silence("after an SGI was taken back")?;
    let timer = Timer::Virtual;
    gic::enable(timer.intid());
    timer.fire_at(now());
    let raised = wait_until(PATIENCE, || bit(offset::ISPENDR, timer.intid()));
    timer.stop();
    ensure!(raised, "the timer does not become pending");
    if on_bulkhead() {
        // A timer's interrupt that is in a list register already arrives once: the guest stops its timer
        // without a trap, so nobody could take it out. Software has to expect that of timers anyway.
        with_irqs(|| delay(SILENCE));
        ensure!(my_log().count() <= 1, "{} interrupts of a stopped timer", my_log().count());
    }
    expect_silence("after the timer was stopped")
}

fn priority_mask() -> Verdict {
    fresh();
    gic::enable(1);
    gic::enable(2);
    gic::set_priority(1, 0xa0);
    gic::set_priority(2, 0x60);
    gic::set_priority_mask(0x80);
    to_self(1);
    expect_silence("of a priority that is masked")?;
    ensure_eq!(acknowledge(), SPURIOUS, "acknowledge of a masked priority");
    to_self(2);
    with_irqs(|| my_log().expect(&[2]))?;
    gic::set_priority_mask(0xff);
    with_irqs(|| my_log().expect(&[2, 1]))?;
    gic::set_priority_mask(0xa0);
    to_self(1);
    expect_silence("of the very priority in PMR")?;
    // As FreeRTOS does in a critical section: lower, look, raise.
    gic::set_priority_mask(0xb0);
    with_irqs(|| my_log().expect(&[2, 1, 1]))
}

fn group_enable() -> Verdict {
    fresh();
    gic::enable(1);
    gic::set_interface(false);
    to_self(1);
    expect_silence("with IGRPEN1 0")?;
    gic::set_interface(true);
    with_irqs(|| my_log().expect(&[1]))
}

fn distributor_off() -> Verdict {
    fresh();
    gic::enable(1);
    gic::set_distributor(false);
    to_self(1);
    let quiet = expect_silence("with the distributor off");
    gic::set_distributor(true);
    quiet?;
    with_irqs(|| my_log().expect(&[1]))
}

fn running_priority() -> Verdict {
    fresh();
    ensure_eq!(gic::running_priority(), IDLE, "idle running priority");
    for (intid, priority) in [(1, 0xa0), (2, 0x40), (15, 0x00), (3, 0xf0)] {
        gic::set_priority(intid, priority);
        gic::enable(intid);
        to_self(intid);
        ensure!(wait_until(PATIENCE, || gic::highest_pending() == intid), "SGI {intid} does not come");
        if priority == 0xf0 {
            gic::set_priority_mask(0xff);
        }
        let acknowledged = acknowledge();
        let running = gic::running_priority();
        gic::end(acknowledged);
        ensure_eq!(acknowledged, intid, "acknowledge");
        ensure_eq!(running, u32::from(priority), "running priority");
        ensure_eq!(gic::running_priority(), IDLE, "running priority after the end");
    }
    // A peripheral interrupt, as an RTOS checks in its tick handler.
    let timer = Timer::Virtual;
    gic::set_priority(timer.intid(), 0xe0);
    gic::enable(timer.intid());
    timer.fire_at(now());
    ensure!(wait_until(PATIENCE, || gic::highest_pending() == timer.intid()), "no timer");
    let acknowledged = acknowledge();
    let running = gic::running_priority();
    timer.stop();
    gic::end(acknowledged);
    ensure_eq!(running, 0xe0, "running priority of the timer");
    Ok(())
}

/// Running priorities seen by [`preempting`]: inner, and outer after the inner one's end.
static SEEN: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

/// SGI 1 sends SGI 2 (more urgent) and 3 (as urgent as 1), and lets itself be preempted.
fn preempting() {
    let intid = acknowledge();
    my_log().add(intid);
    if intid == 1 {
        to_self(3);
        to_self(2);
        unmask_irqs();
        delay(SILENCE);
        mask_irqs();
        SEEN[1].store(gic::running_priority().into(), Ordering::Relaxed);
        my_log().add(100);
    } else if intid == 2 {
        SEEN[0].store(gic::running_priority().into(), Ordering::Relaxed);
    }
    gic::end(intid);
}

fn preemption() -> Verdict {
    fresh();
    set_irq_handler(preempting);
    for (intid, priority) in [(1, 0xa0), (2, 0x40), (3, 0xa0)] {
        gic::set_priority(intid, priority);
        gic::enable(intid);
    }
    with_irqs(|| {
        to_self(1);
        my_log().expect(&[1, 2, 100, 3])
    })?;
    let seen = SEEN.each_ref().map(|priority| priority.load(Ordering::Relaxed));
    ensure_eq!(seen, [0x40, 0xa0], "running priorities inside and after the preemption");
    ensure_eq!(gic::running_priority(), IDLE, "running priority afterwards");
    Ok(())
}

/// Priorities of one group do not preempt each other: at the largest binary point only bit 7 tells groups apart.
fn binary_point() -> Verdict {
    for (priority, order) in [(0x80, [1, 100, 2, 3]), (0x40, [1, 2, 100, 3])] {
        fresh();
        gic::set_binary_point(gic::halving_binary_point());
        ensure_eq!(gic::binary_point(), gic::halving_binary_point().into(), "binary point");
        set_irq_handler(preempting);
        for (intid, priority) in [(1, 0xa0), (2, priority), (3, 0xa0)] {
            gic::set_priority(intid, priority);
            gic::enable(intid);
        }
        let result = with_irqs(|| {
            to_self(1);
            my_log().expect(&order)
        });
        gic::set_binary_point(0);
        result?;
    }
    Ok(())
}

/// EOImode 1: the end drops the priority, the deactivation comes apart.
fn eoi_mode_1() -> Verdict {
    for intid in [1, Timer::Virtual.intid(), Timer::Physical.intid()] {
        fresh();
        gic::set_split_end(true);
        ensure!(gic::split_end(), "EOImode stays 0");
        let result = split_end(intid);
        gic::set_split_end(false);
        result?;
    }
    Ok(())
}

fn trigger(intid: u32) {
    match intid {
        0..16 => to_self(intid),
        27 => Timer::Virtual.fire_at(now()),
        30 => Timer::Physical.fire_at(Timer::Physical.now()),
        _ => gic::set_pending(intid),
    }
}

fn split_end(intid: u32) -> Verdict {
    let signalled = || wait_until(PATIENCE, || gic::highest_pending() == intid);
    gic::enable(intid);
    trigger(intid);
    ensure!(signalled(), "{intid} does not come");
    ensure_eq!(acknowledge(), intid, "acknowledge");
    silence(intid);
    gic::end(intid);
    ensure_eq!(gic::running_priority(), IDLE, "running priority after the end of {intid}");
    ensure!(bit(offset::ISACTIVER, intid), "{intid} is not active before its deactivation");
    // Active: the next one has to wait.
    trigger(intid);
    expect_silence("while active")?;
    gic::deactivate(intid);
    ensure!(signalled(), "{intid} does not come again after its deactivation");
    ensure_eq!(acknowledge(), intid, "second acknowledge");
    silence(intid);
    gic::end(intid);
    gic::deactivate(intid);
    ensure!(!bit(offset::ISACTIVER, intid), "{intid} is active after its deactivation");
    ensure_eq!(acknowledge(), SPURIOUS, "third acknowledge");
    Ok(())
}

/// ISPENDR makes a timer's interrupt pending without the timer: it comes once.
fn pended_ppi() -> Verdict {
    for timer in [Timer::Virtual, Timer::Physical] {
        fresh();
        gic::enable(timer.intid());
        gic::set_pending(timer.intid());
        with_irqs(|| my_log().expect(&[timer.intid()]))?;
        timer.fire_at(timer.now());
        with_irqs(|| my_log().expect(&[timer.intid(); 2]))?;
    }
    Ok(())
}

/// An SGI that is sent while it is active comes again after the end, once however often it was sent.
fn pended_while_active() -> Verdict {
    fresh();
    gic::enable(6);
    to_self(6);
    ensure!(wait_until(PATIENCE, || gic::highest_pending() == 6), "SGI 6 does not come");
    ensure_eq!(acknowledge(), 6, "acknowledge");
    to_self(6);
    to_self(6);
    let both = wait_until(PATIENCE, || bit(offset::ISPENDR, 6)) && bit(offset::ISACTIVER, 6);
    ensure!(both, "SGI 6 is not active and pending");
    ensure_eq!(acknowledge(), SPURIOUS, "acknowledge while active");
    gic::end(6);
    with_irqs(|| my_log().expect(&[6]))
}

/// The same by ISPENDR for everything that has another source, too.
fn pended_by_register_while_active() -> Verdict {
    for intid in everything() {
        fresh();
        gic::enable(intid);
        trigger(intid);
        let came = wait_until(PATIENCE, || gic::highest_pending() == intid);
        ensure!(came, "{intid} does not come");
        ensure_eq!(acknowledge(), intid, "acknowledge");
        silence(intid);
        gic::set_pending(intid);
        ensure!(
            bit(offset::ISPENDR, intid) && bit(offset::ISACTIVER, intid),
            "{intid} is not active and pending"
        );
        ensure_eq!(acknowledge(), SPURIOUS, "acknowledge while {intid} is active");
        gic::end(intid);
        with_irqs(|| my_log().expect(&[intid]))?;
        // And its own source again.
        trigger(intid);
        with_irqs(|| my_log().expect(&[intid; 2]))?;
    }
    Ok(())
}

/// Many that are active and pending again leave room for one that is more urgent, and for one that is not.
fn active_and_pending() -> Verdict {
    const ACTIVE: u32 = 12;
    for (late, priority) in [(14, 0x10), (15, 0xf0)] {
        fresh();
        for (index, intid) in (1..).zip(0..ACTIVE) {
            gic::set_priority(intid, falling_priority(index));
            gic::enable(intid);
            to_self(intid);
            let came = wait_until(PATIENCE, || gic::highest_pending() == intid);
            ensure!(came, "SGI {intid} does not come");
            ensure_eq!(acknowledge(), intid, "acknowledge");
            to_self(intid);
        }
        gic::set_priority(late, priority);
        gic::enable(late);
        to_self(late);
        if priority == 0x10 {
            let came = wait_until(PATIENCE, || gic::highest_pending() == late);
            ensure!(came, "the most urgent one does not come");
            ensure_eq!(acknowledge(), late, "acknowledge of the most urgent one");
            gic::end(late);
        } else {
            delay(SILENCE);
            ensure_eq!(acknowledge(), SPURIOUS, "acknowledge of the least urgent one");
        }
        // Back: the end of each lets its second instance through, the most urgent first.
        for intid in (0..ACTIVE).rev() {
            gic::end(intid);
            let again = wait_until(PATIENCE, || gic::highest_pending() == intid);
            ensure!(again, "SGI {intid} does not come again");
            ensure_eq!(acknowledge(), intid, "second acknowledge");
            gic::end(intid);
        }
        let rest = if priority == 0x10 { SPURIOUS } else { late };
        wait_until(PATIENCE, || gic::highest_pending() == rest);
        ensure_eq!(acknowledge(), rest, "what is left");
        if rest == late {
            gic::end(late);
        }
    }
    Ok(())
}

/// All that one CPU can get: SGIs, both timers, and on CPU 0 an SPI.
fn everything() -> Vec<u32, 19> {
    let spi = (cpu::id() == 0).then_some(gic::uart_intid());
    (0..16).chain([Timer::Virtual.intid(), Timer::Physical.intid()]).chain(spi).collect()
}

/// The priority of the `index`th of [`everything`]: the last is the most urgent.
fn falling_priority(index: usize) -> u8 {
    0xf0 - 8 * (index as u8)
}

/// Bits 2–0 of a priority need not be implemented; bit 3 must be for the priorities above to differ.
fn has_32_priorities() -> bool {
    gic::set_priority(0, 0x08);
    let implemented = gic::priority(0) == 0x08;
    gic::set_priority(0, DEFAULT_PRIORITY);
    implemented
}

/// More interrupts at once than there are list registers come in the order of their priorities.
fn priority_order() -> Verdict {
    fresh();
    ensure!(has_32_priorities(), "fewer than 32 priorities");
    for (index, intid) in everything().into_iter().enumerate() {
        gic::set_priority(intid, falling_priority(index));
        gic::enable(intid);
        trigger(intid);
    }
    delay(SILENCE);
    for intid in everything() {
        ensure!(bit(offset::ISPENDR, intid), "{intid} is not pending");
    }
    with_irqs(|| wait_until(PATIENCE, || my_log().count() >= everything().len()));
    for (index, intid) in everything().into_iter().rev().enumerate() {
        ensure_eq!(my_log().entry(index), intid, "interrupt {index}");
    }
    ensure_eq!(my_log().count(), everything().len(), "number of interrupts");

    // Again with one priority for all: each comes once, in any order.
    fresh();
    for intid in everything() {
        gic::enable(intid);
        trigger(intid);
    }
    with_irqs(|| wait_until(PATIENCE, || my_log().count() >= everything().len()));
    for intid in everything() {
        let times = (0..my_log().count()).filter(|&index| my_log().entry(index) == intid).count();
        ensure_eq!(times, 1, "how often {intid} came");
    }
    Ok(())
}

/// Each interrupt preempts the one before until all are active at once; then they end in turn.
fn all_active() -> Verdict {
    fresh();
    for (index, intid) in everything().into_iter().enumerate() {
        gic::set_priority(intid, falling_priority(index));
        gic::enable(intid);
        trigger(intid);
        let came = wait_until(PATIENCE, || gic::highest_pending() == intid);
        ensure!(came, "{intid} does not come while {index} are active");
        ensure_eq!(acknowledge(), intid, "acknowledge while {index} are active");
        silence(intid);
        ensure_eq!(gic::running_priority(), u32::from(falling_priority(index)), "running priority");
    }
    for intid in everything() {
        ensure!(bit(offset::ISACTIVER, intid), "{intid} is not active");
    }
    // One more of each, which must wait for the end of the active one.
    for intid in 0..16 {
        to_self(intid);
    }
    for (index, intid) in everything().into_iter().enumerate().skip(16).rev() {
        ensure_eq!(acknowledge(), SPURIOUS, "acknowledge while {intid} is active");
        ensure_eq!(
            gic::running_priority(),
            u32::from(falling_priority(index)),
            "running priority on the way back"
        );
        gic::end(intid);
        ensure!(!bit(offset::ISACTIVER, intid), "{intid} is active after its end");
    }
    for intid in (0..16).rev() {
        ensure_eq!(gic::running_priority(), u32::from(falling_priority(intid as usize)), "running priority");
        gic::end(intid);
        let again = wait_until(PATIENCE, || gic::highest_pending() == intid);
        ensure!(again, "SGI {intid} does not come again");
        ensure_eq!(acknowledge(), intid, "second acknowledge");
        gic::end(intid);
    }
    ensure_eq!(gic::running_priority(), IDLE, "running priority at the end");
    ensure_eq!(acknowledge(), SPURIOUS, "acknowledge at the end");
    Ok(())
}

/// SPI 1, made pending by software: on this CPU, on the CPU to which it is routed, active and inactive.
fn spi(cpus: usize) -> Verdict {
    fresh();
    gic::route(gic::uart_intid(), 0);
    gic::enable(gic::uart_intid());
    for round in 1..=10 {
        gic::set_pending(gic::uart_intid());
        with_irqs(|| wait_until(PATIENCE, || my_log().count() == round));
        ensure_eq!(my_log().count(), round, "interrupts");
    }
    gic::set_split_end(true);
    let result = split_end(gic::uart_intid());
    gic::set_split_end(false);
    result?;
    for target in 1..cpus {
        start_listener(target)?;
        let (before, mine) = (log(target).count(), my_log().count());
        gic::route(gic::uart_intid(), target);
        gic::set_pending(gic::uart_intid());
        let came = with_irqs(|| wait_until(PATIENCE, || log(target).count() > before));
        gic::route(gic::uart_intid(), 0);
        stop_listeners();
        ensure!(came, "SPI 1 does not come to CPU {target}");
        ensure_eq!(log(target).entry(before), gic::uart_intid(), "INTID on CPU {target}");
        ensure_eq!(my_log().count(), mine, "interrupts on CPU 0");
    }
    Ok(())
}

static LISTENING: AtomicU32 = AtomicU32::new(0);
static STOP: AtomicU32 = AtomicU32::new(0);

/// Starts a CPU that sleeps and records all SGIs and SPIs.
fn start_listener(target: usize) -> Verdict {
    STOP.store(0, Ordering::Release);
    let before = LISTENING.load(Ordering::Acquire);
    ensure_eq!(cpu::start(target, listen, 0), 0, "CPU_ON of CPU {target}");
    let came = wait_until(PATIENCE, || LISTENING.load(Ordering::Acquire) > before);
    ensure!(came, "CPU {target} does not come");
    Ok(())
}

fn listen(_: u64) {
    fresh();
    for intid in 0..16 {
        gic::enable(intid);
    }
    LISTENING.fetch_add(1, Ordering::AcqRel);
    while STOP.load(Ordering::Acquire) == 0 {
        cpu::wait_for_interrupt();
        with_irqs(|| {});
    }
    LISTENING.fetch_sub(1, Ordering::AcqRel);
}

/// Tells the listeners to go, and waits until they are off.
fn stop_listeners() {
    STOP.store(1, Ordering::Release);
    send_sgi(sgi_to_others(15));
    wait_until(PATIENCE, || {
        (1..cpu::MAX_CPUS).all(|target| cpu::state(target) != bulkhead_abi::psci::affinity::ON)
    });
}

/// Targeted, listed and broadcast SGIs reach exactly those they name.
fn sgis_between_cpus(cpus: usize) -> Verdict {
    fresh();
    for intid in 0..16 {
        gic::enable(intid);
    }
    for target in 1..cpus {
        start_listener(target)?;
    }
    let result = with_irqs(|| named_targets(cpus));
    mask_irqs();
    stop_listeners();
    result
}

fn named_targets(cpus: usize) -> Verdict {
    let everyone = (1 << cpus) - 1;
    let cases: [(&str, u64, u32, u64); 5] = [
        ("to CPU 1", sgi_to(3, 1), 3, 0b10),
        ("to CPU 0 and 1", sgi_to(4, 1) | sgi_to(4, 0), 4, 0b11),
        ("to all but self", sgi_to_others(5), 5, everyone & !1),
        ("to all but self, with a list", sgi_to_others(6) | sgi_to_list(0, 1), 6, everyone & !1),
        ("to the whole list, absent CPUs too", sgi_to_list(7, u16::MAX), 7, everyone),
    ];
    for (name, value, intid, targets) in cases {
        let mut before = [0; cpu::MAX_CPUS];
        for (cpu, before) in before.iter_mut().enumerate() {
            *before = log(cpu).count() % 64;
        }
        send_sgi(value);
        for (cpu, &before) in before.iter().enumerate().take(cpus) {
            let expected = usize::from(targets >> cpu & 1 != 0);
            wait_until(PATIENCE, || log(cpu).count() >= before + expected);
            delay(SILENCE);
            ensure_eq!(log(cpu).count(), before + expected, "SGIs {name} on CPU {cpu}");
            if expected != 0 {
                ensure_eq!(log(cpu).entry(before), intid, "INTID {name} on CPU {cpu}");
            }
        }
    }
    Ok(())
}

/// Question and answer between two CPUs, often: none gets lost.
fn sgi_flood() -> Verdict {
    static ROUNDS: AtomicU32 = AtomicU32::new(0);
    fn answer() {
        let intid = acknowledge();
        match (intid, cpu::id()) {
            (8, 1) => send_sgi(sgi_to(9, 0)),
            (9, 0) => _ = ROUNDS.fetch_add(1, Ordering::AcqRel),
            _ => {}
        }
        gic::end(intid);
    }
    fresh();
    gic::enable(9);
    ROUNDS.store(0, Ordering::Relaxed);
    start_listener(1)?;
    set_irq_handler(answer);
    let result = with_irqs(|| {
        for round in 0..1000 {
            send_sgi(sgi_to(8, 1));
            if !wait_until(PATIENCE, || ROUNDS.load(Ordering::Acquire) == round + 1) {
                return Err(Failure::new(format_args!("no answer to SGI {round}")));
            }
        }
        Ok(())
    });
    stop_listeners();
    set_irq_handler(record);
    result
}

/// SGIs to CPUs that the partition has not got go nowhere: other affinities, or the other targets of a GICv2.
fn sgi_to_nobody(cpus: usize) -> Verdict {
    fresh();
    for intid in 0..16 {
        gic::enable(intid);
    }
    let aff = |aff3: u64, aff2: u64, aff1: u64| aff3 << 48 | aff2 << 32 | aff1 << 16 | 3 << 24;
    let absent = !0 << cpus;
    let foreign = if gic::is_v2() {
        [0, absent, 0x80 & absent, 0, absent, 0].map(|list| sgi_to_list(3, list))
    } else {
        [
            aff(0, 0, 1) | 0xffff,
            aff(0, 1, 0) | 0xffff,
            aff(1, 0, 0) | 0xffff,
            aff(0xff, 0xff, 0xff) | 0xffff,
            aff(0, 0, 0) | 1 << 8,
            aff(0, 0, 0),
        ]
    };
    for foreign in foreign {
        send_sgi(foreign);
        expect_silence("from an SGI to nobody")?;
        ensure!(!bit(offset::ISPENDR, 3), "SGI by {foreign:#x} is pending here");
    }
    Ok(())
}
