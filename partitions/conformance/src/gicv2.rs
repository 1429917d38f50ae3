//! What a GICv2 (IHI 0048) has and a GICv3 has not: banked registers, SGIs that know their sender, targets, and
//! two groups in one CPU interface in memory.

use core::sync::atomic::{AtomicU32, Ordering};

use bulkhead_rt::gic::{
    self, SPURIOUS, acknowledge, bit, cpu_interface, gicc, gicd, offset, send_sgi, sgi_to,
};
use bulkhead_rt::mmio::{read8, read32, write8, write32};
use bulkhead_rt::smccc::on_bulkhead;
use bulkhead_rt::time::{Timer, wait_until};
use bulkhead_rt::{Failure, Verdict, cpu, ensure, ensure_eq, read_sysreg, verdict};

use crate::harness::{PATIENCE, fresh, run_on, test_on_each_cpu};

/// What IAR returns where the most urgent interrupt is in group 1, and IAR may not have it.
const OTHER_GROUP: u32 = 1022;

/// Runs the tests.
pub fn run(cpus: usize) {
    verdict::test("gicv2-identification", || identification(cpus));
    test_on_each_cpu("gicv2-private-targets", cpus, private_targets);
    verdict::test("gicv2-targets", || targets(cpus));
    test_on_each_cpu("gicv2-cpu-interface", cpus, cpu_interface_registers);
    test_on_each_cpu("gicv2-pending-sgis", cpus, pending_sgis);
    test_on_each_cpu("gicv2-sgi-filters", cpus, filters);
    test_on_each_cpu("gicv2-active-priorities", cpus, active_priorities);
    test_on_each_cpu("gicv2-groups", cpus, groups);
    test_on_each_cpu("gicv2-fiq", cpus, fiq);
    if cpus > 1 {
        verdict::test("gicv2-banked", banked);
        verdict::test("gicv2-senders", || senders(cpus));
    } else {
        verdict::skip("gicv2-banked", "one CPU only");
        verdict::skip("gicv2-senders", "one CPU only");
    }
}

fn identification(cpus: usize) -> Verdict {
    let typer = read32(gicd() + offset::TYPER);
    ensure_eq!((typer >> 5 & 7) as usize + 1, cpus, "CPUs in GICD_TYPER {typer:#x}");
    ensure_eq!(typer & 1 << 10, 0, "SecurityExtn of GICD_TYPER {typer:#x}");
    ensure_eq!(read32(gicd() + offset::ICPIDR2) >> 4 & 0xf, 2, "architecture revision in ICPIDR2");
    let iidr = read32(cpu_interface() + gicc::IIDR);
    ensure_eq!(iidr >> 16 & 0xf, 2, "architecture version in GICC_IIDR {iidr:#x}");
    // GICC_IIDR names its implementer; who made the distributor may be left out.
    ensure_eq!(iidr & 0xfff, 0x43b, "implementer in GICC_IIDR {iidr:#x}");
    Ok(())
}

fn targets_of(intid: u32) -> u64 {
    gicd() + offset::ITARGETSR + u64::from(intid)
}

/// Private interrupts go to the CPU that looks: this is how software learns its number in the GIC (4.3.12).
fn private_targets() -> Verdict {
    let mine = 1_u8 << cpu::id();
    for intid in [0, 15, Timer::Virtual.intid(), Timer::Physical.intid()] {
        let targets = read8(targets_of(intid));
        // A GIC of one CPU has no targets.
        ensure!(targets == mine || targets == 0 && mine == 1, "targets of {intid} are {targets:#x}");
        write8(targets_of(intid), !mine);
        ensure_eq!(read8(targets_of(intid)), targets, "targets of {intid} after a write");
    }
    Ok(())
}

/// Targets of an SPI can be any CPUs that there are; bits of others stay zero.
fn targets(cpus: usize) -> Verdict {
    fresh();
    let intid = gic::uart_intid();
    let all = ((1_u32 << cpus) - 1) as u8;
    if cpus == 1 {
        let targets = read8(targets_of(intid));
        ensure!(targets <= 1, "targets of {intid} are {targets:#x}");
        return Ok(());
    }
    let word = targets_of(intid) & !3;
    let shift = intid % 4 * 8;
    for value in [all, 0, 1, 2, all] {
        write8(targets_of(intid), value);
        ensure_eq!(read8(targets_of(intid)), value, "targets of {intid}");
        ensure_eq!((read32(word) >> shift) as u8, value, "targets of {intid} in a word");
    }
    write32(word, u32::from_ne_bytes([1; 4]));
    ensure_eq!(read8(targets_of(intid)), 1, "targets of {intid} after a word was written");
    write32(word, u32::MAX);
    let probed = read8(targets_of(intid));
    gic::route(intid, 0);
    // QEMU 10 keeps bits of CPUs that it has not got.
    ensure_eq!(probed & if on_bulkhead() { 0xff } else { all }, all, "targets that can be set");
    Ok(())
}

fn cpu_interface_registers() -> Verdict {
    fresh();
    let interface = cpu_interface();
    ensure_eq!(read32(interface + gicc::RPR), gic::IDLE, "running priority");
    ensure_eq!(read32(interface + gicc::HPPIR) & 0x3ff, SPURIOUS, "highest pending");
    ensure_eq!(read32(interface + gicc::IAR) & 0x3ff, SPURIOUS, "acknowledge");
    for mask in [0x00, 0x10, 0x80, 0xf0] {
        write32(interface + gicc::PMR, mask);
        ensure_eq!(read32(interface + gicc::PMR), mask, "GICC_PMR");
    }
    for (name, register) in [("BPR", gicc::BPR), ("ABPR", gicc::ABPR)] {
        for point in 4..8 {
            write32(interface + register, point);
            ensure_eq!(read32(interface + register), point, "GICC_{name}");
        }
        // Less than the least that is implemented is the least (3.3.3).
        write32(interface + register, 0);
        ensure!(read32(interface + register) <= 4, "GICC_{name} is {}", read32(interface + register));
    }
    let all = gicc::ENABLE_GROUP_0 | gicc::ENABLE_GROUP_1 | gicc::ACK_CTL | gicc::FIQ_EN | gicc::EOI_MODE;
    for control in [all, gicc::ENABLE_GROUP_1, gicc::EOI_MODE, 0, gicc::ENABLE_GROUP_0] {
        write32(interface + gicc::CTLR, control);
        ensure_eq!(read32(interface + gicc::CTLR), control, "GICC_CTLR");
    }
    // The end of nothing changes nothing.
    for intid in [SPURIOUS, OTHER_GROUP, 5, 27, gic::uart_intid()] {
        write32(interface + gicc::EOIR, intid);
    }
    ensure_eq!(read32(interface + gicc::RPR), gic::IDLE, "running priority after the end of nothing");
    fresh();
    Ok(())
}

fn pending_from(intid: u32) -> u8 {
    read8(gicd() + offset::SPENDSGIR + u64::from(intid))
}

/// SPENDSGIR and CPENDSGIR hold a bit for each sender; ISPENDR and ICPENDR show SGIs and change none (4.3.7).
fn pending_sgis() -> Verdict {
    fresh();
    let (me, intid) = (cpu::id(), 4);
    let mine = 1 << me;
    gic::set_bit(offset::ISPENDR, intid);
    ensure!(!bit(offset::ISPENDR, intid), "ISPENDR makes an SGI pending");
    gic::set_pending(intid);
    ensure_eq!(pending_from(intid), mine, "senders in SPENDSGIR");
    let byte = read8(gicd() + offset::CPENDSGIR + u64::from(intid));
    ensure_eq!(byte, mine, "senders in CPENDSGIR");
    let word = read32(gicd() + offset::SPENDSGIR + u64::from(intid / 4 * 4));
    ensure_eq!(word >> (intid % 4 * 8) & 0xff, u32::from(mine), "senders in a word");
    ensure!(bit(offset::ISPENDR, intid), "ISPENDR does not show the SGI");
    gic::set_bit(offset::ICPENDR, intid);
    ensure_eq!(pending_from(intid), mine, "senders after ICPENDR");
    write8(gicd() + offset::CPENDSGIR + u64::from(intid), !mine);
    ensure_eq!(pending_from(intid), mine, "senders after others were taken back");
    ensure_eq!(gic::acknowledge_from(), (intid, me), "acknowledge");
    ensure_eq!(pending_from(intid), 0, "senders after the acknowledge");
    gic::end(intid);
    gic::set_pending(intid);
    gic::clear_pending(intid);
    ensure_eq!(pending_from(intid), 0, "senders after the SGI was taken back");
    ensure_eq!(acknowledge(), SPURIOUS, "acknowledge after the SGI was taken back");
    // A word pends four SGIs.
    write32(gicd() + offset::SPENDSGIR + 8, u32::from_ne_bytes([mine; 4]));
    for intid in 8..12 {
        ensure_eq!(pending_from(intid), mine, "senders of {intid} after a word was written");
    }
    write32(gicd() + offset::CPENDSGIR + 8, u32::MAX);
    ensure_eq!(read32(gicd() + offset::SPENDSGIR + 8), 0, "senders after a word was taken back");
    if on_bulkhead() {
        // QEMU 10 remembers senders that it has not got.
        write8(gicd() + offset::SPENDSGIR, 0xff << cpu::count());
        ensure_eq!(pending_from(0), 0, "senders that there are not");
    }
    fresh();
    Ok(())
}

/// TargetListFilter 2 means the sender alone, whatever the list says (4.3.15).
fn filters() -> Verdict {
    fresh();
    for value in [2 << 24 | 6, 2 << 24 | 0xff << 16 | 6] {
        send_sgi(value);
        let came = wait_until(PATIENCE, || gic::highest_pending() == 6);
        ensure!(came, "no SGI by {value:#x}");
        ensure_eq!(gic::acknowledge_from(), (6, cpu::id()), "acknowledge");
        gic::end(6);
        ensure_eq!(acknowledge(), SPURIOUS, "second acknowledge");
    }
    Ok(())
}

/// GICC_APR shows that something is active, whatever bit it uses for which priority (4.4.14).
fn active_priorities() -> Verdict {
    fresh();
    let any = |first: u64| (0..4).any(|word| read32(cpu_interface() + first + 4 * word) != 0);
    ensure!(!any(gicc::APR) && !any(gicc::NSAPR), "active priorities while idle");
    send_sgi(sgi_to(7, cpu::id()));
    ensure!(wait_until(PATIENCE, || gic::highest_pending() == 7), "SGI 7 does not come");
    ensure_eq!(acknowledge(), 7, "acknowledge");
    let active = any(gicc::APR);
    gic::end(7);
    ensure!(active, "no active priority");
    ensure!(!any(gicc::APR), "active priorities after the end");
    Ok(())
}

/// Both groups in one interface: AckCtl says whether IAR takes group 1 (4.4.1, 4.4.4).
fn groups() -> Verdict {
    fresh();
    let interface = cpu_interface();
    let result = two_groups(interface);
    fresh();
    result
}

fn two_groups(interface: u64) -> Verdict {
    gic::set_bit(offset::IGROUPR, 3);
    write32(gicd() + offset::CTLR, 3);
    let both = gicc::ENABLE_GROUP_0 | gicc::ENABLE_GROUP_1;
    write32(interface + gicc::CTLR, both);
    send_sgi(sgi_to(3, cpu::id()));
    let came = wait_until(PATIENCE, || read32(interface + gicc::HPPIR) & 0x3ff == OTHER_GROUP);
    ensure!(came, "HPPIR is {:#x} for group 1", read32(interface + gicc::HPPIR));
    ensure_eq!(acknowledge(), OTHER_GROUP, "acknowledge of group 1 without AckCtl");
    ensure!(bit(offset::ISPENDR, 3), "SGI 3 is no longer pending");
    write32(interface + gicc::CTLR, both | gicc::ACK_CTL);
    ensure_eq!(acknowledge(), 3, "acknowledge of group 1 with AckCtl");
    gic::end(3);
    ensure_eq!(gic::running_priority(), gic::IDLE, "running priority after the end");
    ensure!(!bit(offset::ISACTIVER, 3), "SGI 3 is active after its end");
    write32(interface + gicc::CTLR, both);
    send_sgi(sgi_to(3, cpu::id()));
    // QEMU 10 has no register of group 1's own: they read as zero.
    if read32(interface + gicc::AHPPIR) == 3 {
        ensure_eq!(read32(interface + gicc::AIAR) & 0x3ff, 3, "GICC_AIAR");
        write32(interface + gicc::AEOIR, 3 | (cpu::id() as u32) << 10);
        ensure!(!bit(offset::ISACTIVER, 3), "SGI 3 is active after AEOIR");
    }
    Ok(())
}

/// FIQEn makes group 0 an FIQ and leaves group 1 an IRQ, and a group that is off is neither. Seen in ISR_EL1 and
/// not taken: QEMU 10 lets IAR take an interrupt whose group is off.
fn fiq() -> Verdict {
    const IRQ: u64 = 1 << 7;
    const FIQ: u64 = 1 << 6;
    fresh();
    gic::set_bit(offset::IGROUPR, 3);
    write32(gicd() + offset::CTLR, 3);
    let both = gicc::ENABLE_GROUP_0 | gicc::ENABLE_GROUP_1;
    let mut result = Ok(());
    for (intid, control, signal) in [
        (2, both, IRQ),
        (2, both | gicc::FIQ_EN, FIQ),
        (3, both, IRQ),
        (3, both | gicc::FIQ_EN, IRQ),
        (2, gicc::ENABLE_GROUP_1 | gicc::FIQ_EN, 0),
        (3, gicc::ENABLE_GROUP_0 | gicc::FIQ_EN, 0),
    ] {
        write32(cpu_interface() + gicc::CTLR, control);
        send_sgi(sgi_to(intid, cpu::id()));
        wait_until(PATIENCE, || bit(offset::ISPENDR, intid));
        let settled = || read_sysreg!("isr_el1") & (IRQ | FIQ) == signal;
        let signalled = wait_until(100, settled);
        gic::clear_pending(intid);
        if !signalled {
            result = Err(Failure::new(format_args!(
                "SGI {intid} with CTLR {control:#x} does not give {signal:#x}"
            )));
        }
    }
    fresh();
    result
}

/// Each CPU has its own of everything about SGIs and PPIs.
fn banked() -> Verdict {
    static PRIORITY: AtomicU32 = AtomicU32::new(0);
    fresh();
    let timer = Timer::Virtual.intid();
    gic::set_priority(timer, 0x40);
    gic::enable(timer);
    gic::set_pending(5);
    run_on(1, || {
        // As CPU 0 left the distributor, which is not this CPU's business.
        let timer = Timer::Virtual.intid();
        fresh();
        PRIORITY.store(gic::priority(timer).into(), Ordering::Relaxed);
        ensure!(!bit(offset::ISENABLER, timer), "CPU 0's timer is enabled here");
        ensure!(!bit(offset::ISPENDR, 5), "CPU 0's SGI is pending here");
        gic::set_priority(timer, 0x60);
        ensure_eq!(gic::priority(timer), 0x60, "priority");
        gic::set_pending(6);
        Ok(())
    })?;
    ensure_eq!(PRIORITY.load(Ordering::Relaxed), gic::DEFAULT_PRIORITY.into(), "priority on CPU 1");
    ensure_eq!(gic::priority(timer), 0x40, "priority on CPU 0");
    ensure!(bit(offset::ISENABLER, timer), "the timer is disabled");
    ensure!(bit(offset::ISPENDR, 5), "SGI 5 is not pending");
    ensure!(!bit(offset::ISPENDR, 6), "CPU 1's SGI is pending here");
    fresh();
    Ok(())
}

/// One SGI from all CPUs is pending once for each, and each acknowledge takes one and says which (3.2.2).
fn senders(cpus: usize) -> Verdict {
    const INTID: u32 = 9;
    fresh();
    send_sgi(sgi_to(INTID, 0));
    for sender in 1..cpus {
        run_on(sender, || {
            // Twice from one sender is once.
            send_sgi(sgi_to(INTID, 0));
            send_sgi(sgi_to(INTID, 0));
            Ok(())
        })?;
    }
    let all = ((1_u32 << cpus) - 1) as u8;
    let pending = wait_until(PATIENCE, || pending_from(INTID) == all);
    ensure!(pending, "pending from {:#x}, not from {all:#x}", pending_from(INTID));
    // One is taken back before it comes.
    write8(gicd() + offset::CPENDSGIR + u64::from(INTID), 1 << 1);
    let mut left = all & !(1 << 1);
    ensure_eq!(pending_from(INTID), left, "senders after one was taken back");
    while left != 0 {
        let came = wait_until(PATIENCE, || gic::highest_pending() == INTID);
        ensure!(came, "nothing comes while {left:#x} are pending");
        let (intid, sender) = gic::acknowledge_from();
        ensure_eq!(intid, INTID, "acknowledge");
        ensure!(left >> sender & 1 != 0, "sender {sender} of {left:#x}");
        left &= !(1 << sender);
        ensure_eq!(pending_from(INTID), left, "senders after {sender} came");
        ensure_eq!(bit(offset::ISPENDR, INTID), left != 0, "ISPENDR");
        ensure_eq!(acknowledge(), SPURIOUS, "acknowledge while one is active");
        gic::end(INTID);
    }
    ensure_eq!(acknowledge(), SPURIOUS, "what is left");
    Ok(())
}
