//! Distributor and redistributor registers: what is the partition's behaves as architected (GICv2: IHI 0048, 4.3;
//! GICv3: IHI 0069, 12.9 to 12.11), what is not reads as zero and ignores writes.

use bulkhead_rt::exception::catch;
use bulkhead_rt::gic::{self, bit, bit_word, gicd, offset, redistributor, set_bit, uart_intid};
use bulkhead_rt::mmio::{read8, read16, read32, read64, write8, write32, write64};
use bulkhead_rt::smccc::on_bulkhead;
use bulkhead_rt::time::{Timer, wait_until};
use bulkhead_rt::{Verdict, ensure, ensure_eq, verdict};

use crate::gicv2;
use crate::harness::{PATIENCE, fresh};

/// Set and clear registers that show the same state.
const PAIRS: [(&str, u64, u64); 3] = [
    ("ENABLER", offset::ISENABLER, offset::ICENABLER),
    ("PENDR", offset::ISPENDR, offset::ICPENDR),
    ("ACTIVER", offset::ISACTIVER, offset::ICACTIVER),
];

/// Runs the tests.
pub fn run(cpus: usize) {
    fresh();
    verdict::test("gicd-identification", identification);
    verdict::test("gicd-ctlr", control);
    verdict::test("gicd-bits", || {
        // An SPI, an SGI, and the PPIs of both timers.
        for intid in [uart_intid(), 5, Timer::Virtual.intid(), Timer::Physical.intid()] {
            set_and_clear(intid)?;
        }
        Ok(())
    });
    verdict::test("gicd-priorities", priorities);
    verdict::test("gicd-groups", groups);
    verdict::test("gicd-icfgr", triggers);
    verdict::test("gic-odd-accesses", odd_accesses);
    if gic::is_v2() {
        gicv2::run(cpus);
    } else {
        verdict::test("gicd-irouter", routing);
        verdict::test("gicr-identification", || redistributors(cpus));
        verdict::test("gicr-waker", waker);
        if cpus > 1 {
            verdict::test("gicr-of-other-cpu", other_redistributor);
        } else {
            verdict::skip("gicr-of-other-cpu", "one CPU only");
        }
    }
    if on_bulkhead() {
        verdict::test("gicd-foreign", foreign);
    } else {
        verdict::skip("gicd-foreign", "no Bulkhead below: nothing is foreign");
    }
}

fn identification() -> Verdict {
    let typer = read32(gicd() + offset::TYPER);
    ensure!(gic::spi_end() > uart_intid(), "GICD_TYPER {typer:#x} has no SPI {}", uart_intid() - 32);
    if gic::is_v2() {
        return Ok(());
    }
    let architecture = read32(gicd() + offset::PIDR2) >> 4 & 0xf;
    ensure!(architecture == 3 || architecture == 4, "architecture revision {architecture}");
    if on_bulkhead() {
        ensure_eq!(typer & 1 << 17, 0, "LPIS of GICD_TYPER {typer:#x}");
    }
    Ok(())
}

fn control() -> Verdict {
    if gic::is_v2() {
        // Without Security Extensions one bit for each group (IHI 0048, 4.3.1).
        for value in [0, 1, 2, 3, 1] {
            write32(gicd() + offset::CTLR, value);
            ensure_eq!(read32(gicd() + offset::CTLR), value, "GICD_CTLR");
        }
        return Ok(());
    }
    let settled = || wait_until(PATIENCE, || read32(gicd()) & 1 << 31 == 0);
    ensure_eq!(read32(gicd()) & (1 << 4 | 1 << 1), 1 << 4 | 1 << 1, "ARE and EnableGrp1 of GICD_CTLR");
    write32(gicd(), 1 << 4);
    ensure!(settled(), "RWP stays set");
    ensure_eq!(read32(gicd()) & 1 << 1, 0, "EnableGrp1 after it was cleared");
    write32(gicd(), 1 << 4 | 1 << 1);
    ensure!(settled(), "RWP stays set");
    ensure_eq!(read32(gicd()) & 1 << 1, 1 << 1, "EnableGrp1 after it was set");
    Ok(())
}

/// Ones set or clear, zeros do nothing, both registers show the state, and other bits stay.
fn set_and_clear(intid: u32) -> Verdict {
    // SGIs of a GICv2 are made pending by other registers, and it may keep them enabled (IHI 0048, 4.3.5 and 4.3.7).
    let elsewhere = |set| intid < 16 && gic::is_v2() && set != offset::ISACTIVER;
    for (name, set, clear) in PAIRS.into_iter().filter(|&(_, set, _)| !elsewhere(set)) {
        let word = |register| read32(bit_word(register, intid));
        let before = word(set);
        ensure!(!bit(set, intid), "{name} of {intid} is set at first");
        set_bit(set, intid);
        let after = word(set);
        let shown = word(clear);
        write32(bit_word(set, intid), 0);
        write32(bit_word(clear, intid), 0);
        let kept = word(set);
        set_bit(clear, intid);
        let cleared = word(set);
        let bit = 1 << (intid % 32);
        ensure_eq!(after, before | bit, "{name} of {intid} when set");
        ensure_eq!(shown, after, "{name} of {intid} in the clear register");
        ensure_eq!(kept, after, "{name} of {intid} after writes of 0");
        ensure_eq!(cleared, before, "{name} of {intid} when cleared");
    }
    Ok(())
}

fn priorities() -> Verdict {
    for intid in [uart_intid(), 0, 3, 15, Timer::Virtual.intid(), Timer::Physical.intid()] {
        let address = gic::frame(intid) + offset::IPRIORITYR + u64::from(intid);
        let word = address & !3;
        let neighbours = read32(word) & !(0xff << (intid % 4 * 8));
        for priority in [0x00, 0x10, 0x50, 0xa0, 0xf0] {
            gic::set_priority(intid, priority);
            ensure_eq!(gic::priority(intid), priority, "priority of {intid}, a byte");
            let expected = neighbours | u32::from(priority) << (intid % 4 * 8);
            ensure_eq!(read32(word), expected, "priorities around {intid}, a word");
        }
        gic::set_priority(intid, 0xff);
        let most = gic::priority(intid);
        ensure!(most >= 0xf0 && most.leading_ones() + most.trailing_zeros() == 8, "0xff became {most:#x}");
        gic::set_priority(intid, gic::DEFAULT_PRIORITY);
    }
    let sgis = gic::frame(0) + offset::IPRIORITYR;
    write32(sgis + 4, 0x1020_3040);
    let bytes = [4, 5, 6, 7].map(gic::priority);
    write32(sgis + 4, u32::from_ne_bytes([gic::DEFAULT_PRIORITY; 4]));
    ensure_eq!(bytes, [0x40, 0x30, 0x20, 0x10], "priorities of SGIs 4-7 after a word was written");
    Ok(())
}

fn groups() -> Verdict {
    for intid in [uart_intid(), 5, Timer::Virtual.intid()] {
        set_bit(offset::IGROUPR, intid);
        ensure!(bit(offset::IGROUPR, intid), "{intid} is not in group 1");
        write32(bit_word(offset::IGROUPR, intid), gic::all_in_own_group());
        ensure_eq!(bit(offset::IGROUPR, intid), !gic::is_v2(), "group of {intid}");
    }
    Ok(())
}

fn triggers() -> Verdict {
    ensure_eq!(read32(gic::frame(0) + offset::ICFGR), 0xaaaa_aaaa, "trigger of the SGIs");
    let word = gicd() + offset::ICFGR + u64::from(uart_intid() / 16 * 4);
    let shift = uart_intid() % 16 * 2;
    for trigger in [2, 0] {
        write32(word, trigger << shift);
        ensure_eq!(read32(word) >> shift & 3, trigger, "trigger of {}", uart_intid());
    }
    Ok(())
}

fn routing() -> Verdict {
    let register = gicd() + offset::IROUTER + u64::from(uart_intid()) * 8;
    // Bit 31, to any CPU, means something only where GICD_TYPER.No1N is 0.
    let any = read32(gicd() + offset::TYPER) & 1 << 25 == 0;
    for route in [0, 1 << 31, 0].into_iter().filter(|&route| any || route == 0) {
        write64(register, route);
        ensure_eq!(read64(register), route, "GICD_IROUTER of the SPI");
        ensure_eq!(u64::from(read32(register)), route, "lower half of GICD_IROUTER");
        ensure_eq!(read32(register + 4), 0, "upper half of GICD_IROUTER");
    }
    write32(register, 0);
    ensure_eq!(read64(register), 0, "GICD_IROUTER after a word was written");
    write64(register, 0);
    Ok(())
}

fn redistributors(cpus: usize) -> Verdict {
    for cpu in 0..cpus {
        let frame = redistributor(cpu);
        let typer = read64(frame + offset::GICR_TYPER);
        ensure_eq!(typer >> 32, cpu as u64, "affinity in GICR_TYPER of CPU {cpu}");
        ensure_eq!(typer >> 4 & 1, u64::from(cpu == cpus - 1), "Last in GICR_TYPER of CPU {cpu}");
        ensure_eq!(typer >> 8 & 0xffff, cpu as u64, "Processor_Number in GICR_TYPER of CPU {cpu}");
        let halves =
            [read32(frame + offset::GICR_TYPER), read32(frame + offset::GICR_TYPER + 4)].map(u64::from);
        ensure_eq!(halves[1] << 32 | halves[0], typer, "GICR_TYPER of CPU {cpu} in halves");
        let architecture = read32(frame + offset::PIDR2) >> 4 & 0xf;
        ensure!(architecture == 3 || architecture == 4, "architecture revision {architecture}");
        if on_bulkhead() {
            ensure_eq!(typer & 1, 0, "PLPIS in GICR_TYPER of CPU {cpu}");
        }
    }
    Ok(())
}

fn waker() -> Verdict {
    let waker = redistributor(0) + offset::GICR_WAKER;
    ensure_eq!(read32(waker) & 6, 0, "GICR_WAKER of an awake CPU");
    write32(waker, 1 << 1);
    let asleep = wait_until(PATIENCE, || read32(waker) & 1 << 2 != 0);
    write32(waker, 0);
    let awake = wait_until(PATIENCE, || read32(waker) & 1 << 2 == 0);
    ensure!(asleep, "ChildrenAsleep does not follow ProcessorSleep");
    ensure!(awake, "ChildrenAsleep stays set");
    Ok(())
}

/// Accesses of sizes that a register does not have are answered somehow: a value, nothing, or an abort.
fn odd_accesses() -> Verdict {
    let frames = if gic::is_v2() {
        [gicd(), gic::cpu_interface(), gic::cpu_interface() + gic::gicc::DIR]
    } else {
        [gicd(), redistributor(0), redistributor(0) + offset::SGI_FRAME]
    };
    for frame in frames {
        for register in
            [offset::CTLR, offset::TYPER, offset::ISENABLER + 4, offset::IPRIORITYR, offset::ICFGR, 0xffe8]
        {
            let address = frame + register;
            for result in [
                catch(|| _ = read8(address)),
                catch(|| _ = read16(address)),
                catch(|| _ = read64(address & !7)),
                catch(|| _ = read32(address + 1)),
                catch(|| write8(frame + offset::ICENABLER + 4, 0)),
            ] {
                if let Err(fault) = result {
                    ensure!(fault.is_data_abort(), "{address:#x}: {fault:x?}");
                }
            }
        }
    }
    Ok(())
}

/// A redistributor belongs to a CPU, but every CPU of the partition may program it.
fn other_redistributor() -> Verdict {
    let frame = redistributor(1) + offset::SGI_FRAME;
    write32(frame + offset::ISENABLER, 1 << 7);
    let set = read32(frame + offset::ISENABLER) >> 7 & 1;
    write32(frame + offset::ICENABLER, 1 << 7);
    let cleared = read32(frame + offset::ISENABLER) >> 7 & 1;
    ensure_eq!([set, cleared], [1, 0], "SGI 7 of CPU 1, enabled and disabled from CPU 0");
    ensure!(!bit(offset::ISENABLER, 7), "SGI 7 of CPU 0 changed too");
    Ok(())
}

/// SPIs that the partition does not own: all but the UART's.
fn foreign() -> Verdict {
    for intid in (32..1020).step_by(32) {
        let own = if intid == uart_intid() / 32 * 32 { 1 << (uart_intid() % 32) } else { 0 };
        for (name, set, clear) in PAIRS {
            let words = [set, clear].map(|register| bit_word(register, intid));
            write32(words[0], !own);
            let read = words.map(read32);
            ensure_eq!(read, [0; 2], "{name} from {intid} on, all foreign ones written");
            write32(words[1], !own);
        }
        write32(bit_word(offset::IGROUPR, intid), 0);
        let group = read32(bit_word(offset::IGROUPR, intid)) & !own;
        write32(bit_word(offset::IGROUPR, intid), u32::MAX);
        let other_group = read32(bit_word(offset::IGROUPR, intid)) & !own;
        ensure_eq!(group, other_group, "IGROUPR from {intid} on, foreign bits");
    }
    for intid in (32..1020).filter(|&intid| intid != uart_intid()) {
        gic::set_priority(intid, 0x50);
        ensure_eq!(gic::priority(intid), 0, "priority of {intid}");
        if gic::is_v2() {
            let targets = gicd() + offset::ITARGETSR + u64::from(intid);
            write8(targets, 0xff);
            ensure_eq!(read8(targets), 0, "GICD_ITARGETSR of {intid}");
        } else {
            let router = gicd() + offset::IROUTER + u64::from(intid) * 8;
            write64(router, 1);
            ensure_eq!(read64(router), 0, "GICD_IROUTER of {intid}");
        }
    }
    for first in (32_u32..1020).step_by(16) {
        let word = gicd() + offset::ICFGR + u64::from(first / 4);
        let own = if first == uart_intid() / 16 * 16 { 3 << (uart_intid() % 16 * 2) } else { 0 };
        write32(word, !own);
        ensure_eq!(read32(word) & !own, 0, "ICFGR from {first} on");
    }
    gic::init_distributor();
    Ok(())
}
