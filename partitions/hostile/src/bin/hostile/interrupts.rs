//! The CPU interface with random values, SGIs to everybody, and interrupts that never end.

use core::sync::atomic::{AtomicU32, Ordering};

use bulkhead_rt::exception::{mask_irqs, set_irq_handler, with_irqs};
use bulkhead_rt::gic::{self, gicc, send_sgi, sgi_to, sgi_to_others};
use bulkhead_rt::mmio::{read32, write32};
use bulkhead_rt::time::{Timer, wait_until};
use bulkhead_rt::{Verdict, cpu, ensure, ensure_eq, read_sysreg, verdict, write_sysreg};

use crate::{PATIENCE, attack, end_any};
use bulkhead_rt::random::Random;

/// Runs the attacks.
pub fn run(cpus: usize) {
    if gic::is_v2() {
        attack("gicc-random", random_gicc_values);
        attack("sgi-everywhere", everywhere_by_distributor);
    } else {
        attack("icc-random", random_values);
        attack("sgi-everywhere", everywhere);
    }
    attack("timer-storm", timer_storm);
    attack("wait-storm", wait_storm);
    if cpus > 1 {
        attack("sgi-storm", sgi_storm);
    } else {
        verdict::skip("sgi-storm", "one CPU only");
    }
}

/// Every writable register of the CPU interface, in random order with random values; acknowledges in between.
fn random_values() -> Verdict {
    let mut random = Random::new(20);
    gic::init_cpu();
    for intid in 0..16 {
        gic::enable(intid);
    }
    for _ in 0..50_000 {
        let value = random.argument();
        let intid = random.below(1024);
        let result = bulkhead_rt::exception::catch(|| match random.below(16) {
            0 => write_sysreg!("icc_pmr_el1", value),
            // Bits above 2–0 are RES0, and QEMU 10 dies of an assertion when 8 is written.
            1 => write_sysreg!("icc_bpr0_el1", value & 7),
            2 => write_sysreg!("icc_bpr1_el1", value & 7),
            3 => write_sysreg!("icc_ctlr_el1", value),
            4 => write_sysreg!("icc_sre_el1", value),
            5 => write_sysreg!("icc_igrpen0_el1", value),
            6 => write_sysreg!("icc_igrpen1_el1", value),
            7 => write_sysreg!("icc_eoir0_el1", intid),
            8 => write_sysreg!("icc_eoir1_el1", intid),
            9 => write_sysreg!("icc_dir_el1", intid),
            10 => write_sysreg!("icc_ap0r0_el1", value),
            11 => write_sysreg!("icc_ap1r0_el1", value),
            12 => send_sgi(sgi_to(intid as u32, cpu::id())),
            13 => _ = read_sysreg!("icc_iar0_el1"),
            14 => _ = read_sysreg!("icc_iar1_el1"),
            _ => gic::set_bit(gic::offset::ICACTIVER, intid as u32 % 32),
        });
        if let Err(fault) = result {
            ensure!(fault.is_undefined(), "{fault:x?}");
        }
    }
    Ok(())
}

/// All values of Aff1, and random ones of everything, through all three registers that send SGIs.
fn everywhere() -> Verdict {
    let mut random = Random::new(21);
    for affinity in 0..256 {
        send_sgi(affinity << 16 | 2 << 24 | 0xffff);
        send_sgi(affinity << 32 | 2 << 24 | 0xffff);
        send_sgi(affinity << 48 | 2 << 24 | 0xffff);
    }
    for _ in 0..20_000 {
        let value = random.argument();
        send_sgi(value);
        write_sysreg!("icc_sgi0r_el1", value);
        write_sysreg!("icc_asgi1r_el1", value);
    }
    Ok(())
}

/// The same of a GICv2, whose registers lie in memory that the guest reaches without anybody in between.
fn random_gicc_values() -> Verdict {
    let mut random = Random::new(22);
    gic::init_cpu();
    let interface = gic::cpu_interface();
    for _ in 0..50_000 {
        let value = random.argument() as u32;
        // An INTID with a sender, as an end wants it.
        let intid = random.below(1 << 13) as u32;
        let any = 4 * random.below(0x100 / 4);
        match random.below(16) {
            0 => write32(interface + gicc::CTLR, value),
            1 => write32(interface + gicc::PMR, value),
            2 => write32(interface + gicc::BPR, value),
            3 => write32(interface + gicc::ABPR, value),
            4 => write32(interface + gicc::EOIR, intid),
            5 => write32(interface + gicc::AEOIR, intid),
            6 => write32(interface + gicc::DIR, intid),
            7 => write32(interface + gicc::APR + any % 16, value),
            8 => write32(interface + gicc::NSAPR + any % 16, value),
            9 => send_sgi(2 << 24 | random.below(16)),
            10 => _ = read32(interface + gicc::IAR),
            11 => _ = read32(interface + gicc::AIAR),
            12 => _ = read32(interface + any),
            13 => write32(interface + any, value),
            14 => gic::set_bit(gic::offset::IGROUPR, intid % 32),
            _ => gic::set_bit(gic::offset::ICACTIVER, intid % 32),
        }
    }
    Ok(())
}

/// All filters, all lists of targets, whoever is in them, and random values of everything.
fn everywhere_by_distributor() -> Verdict {
    let mut random = Random::new(23);
    for filter in 0..4 {
        for list in 0..256 {
            send_sgi(filter << 24 | list << 16 | 2);
        }
    }
    for _ in 0..20_000 {
        send_sgi(random.argument());
        let pending = gic::gicd() + gic::offset::SPENDSGIR + 4 * random.below(4);
        write32(pending, random.argument() as u32);
    }
    Ok(())
}

static COUNT: AtomicU32 = AtomicU32::new(0);

/// Interrupts of a storm, each timer's.
const STORM: u32 = 50_000;

/// Ends the interrupt and leaves its line up; after [`STORM`] of them the line goes down, since nothing but the
/// handler gets to run as long as it is up.
fn end_only() {
    let intid = gic::acknowledge();
    if COUNT.fetch_add(1, Ordering::Relaxed) % STORM == STORM - 1 {
        for timer in [Timer::Virtual, Timer::Physical] {
            if intid == timer.intid() {
                timer.stop();
            }
        }
    }
    gic::end(intid);
}

/// Each timer due for ever: the next interrupt comes as soon as one ends.
fn timer_storm() -> Verdict {
    gic::init_cpu();
    set_irq_handler(end_only);
    for timer in [Timer::Virtual, Timer::Physical] {
        COUNT.store(0, Ordering::Relaxed);
        gic::enable(timer.intid());
        timer.fire_at(0);
        let all = with_irqs(|| wait_until(PATIENCE, || COUNT.load(Ordering::Relaxed) >= STORM));
        timer.stop();
        ensure!(all, "only {} interrupts of the {timer:?} timer", COUNT.load(Ordering::Relaxed));
    }
    set_irq_handler(end_any);
    Ok(())
}

/// WFI and WFE that never wait.
fn wait_storm() -> Verdict {
    gic::init_cpu();
    gic::enable(Timer::Virtual.intid());
    Timer::Virtual.fire_at(0);
    for _ in 0..100_000 {
        cpu::wait_for_interrupt();
        // SAFETY: hints only; the event register is set before the wait.
        unsafe { core::arch::asm!("sevl", "wfe", "sev", "wfe", "yield", options(nostack, nomem)) };
    }
    Timer::Virtual.stop();
    Ok(())
}

/// SGIs to a CPU that takes them as fast as it can, one way and broadcast.
fn sgi_storm() -> Verdict {
    static LISTENING: AtomicU32 = AtomicU32::new(0);
    fn listen(_: u64) {
        gic::init_cpu();
        for intid in 0..16 {
            gic::enable(intid);
        }
        LISTENING.store(1, Ordering::Release);
        with_irqs(|| while LISTENING.load(Ordering::Acquire) != 0 {});
        mask_irqs();
    }
    set_irq_handler(end_only);
    COUNT.store(0, Ordering::Relaxed);
    ensure_eq!(cpu::start(1, listen, 0), 0, "CPU_ON");
    ensure!(wait_until(PATIENCE, || LISTENING.load(Ordering::Acquire) == 1), "CPU 1 does not come");
    for round in 0..100_000 {
        send_sgi(if round % 2 == 0 { sgi_to(round % 16, 1) } else { sgi_to_others(round % 16) });
    }
    let came = wait_until(PATIENCE, || COUNT.load(Ordering::Relaxed) > 0);
    LISTENING.store(0, Ordering::Release);
    let off = wait_until(PATIENCE, || cpu::state(1) == bulkhead_abi::psci::affinity::OFF);
    set_irq_handler(end_any);
    ensure!(came, "no SGI came");
    ensure!(off, "CPU 1 is not off");
    Ok(())
}
