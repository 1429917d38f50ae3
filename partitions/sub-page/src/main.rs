//! Two partitions with parts of the same two pages: pins of one GPIO controller, and one UART each (Raspberry Pi 4,
//! "BCM2711 ARM Peripherals", chapters 5 and 11).
//!
//! Time is cut into slots by the physical counter, which both see. In a slot of the one kind this guest writes all ones
//! and all zeros to every word of both pages; in a slot of the other kind it leaves its own part alone and looks whether
//! it stays as it is, while the other partition's guest, for which the kinds are the other way round, is at it. What is
//! not this partition's has to read as zero all the time.
//!
//! The manifest says in `bootargs` what the partition has: `gpio=ADDRESS pins=N,N,... uart=ADDRESS`.
#![no_std]
#![no_main]

mod part;

use bulkhead_rt::exception::catch;
use bulkhead_rt::machine::machine;
use bulkhead_rt::mmio::{read32, write8, write16, write32, write64};
use bulkhead_rt::time::{frequency, physical_now};
use bulkhead_rt::{Failure, Verdict, ensure, ensure_eq, entry, println, verdict};

use crate::part::{PAGE, Part};

/// Slots that the guest goes through.
const SLOTS: u64 = 24;
/// Slots in a second.
const SLOTS_PER_SECOND: u64 = 2;

entry!(main);

fn main() {
    match Part::from_bootargs(&machine().bootargs) {
        Ok(part) => {
            verdict::test("sub-page-foreign-bits", || foreign_bits(&part));
            verdict::test("sub-page-writes", || writes(&part));
            verdict::test("sub-page-slots", || slots(&part));
        }
        Err(failure) => verdict::test("sub-page-bootargs", || Err(failure)),
    }
    verdict::done()
}

/// All words of both pages.
fn words(part: &Part) -> impl Iterator<Item = u64> {
    [part.gpio, part.uart_page()].into_iter().flat_map(|page| (page..page + PAGE).step_by(4))
}

/// What is not this partition's reads as zero.
fn foreign_bits(part: &Part) -> Verdict {
    for word in words(part) {
        ensure_eq!(read32(word) & !part.own(word), 0, "foreign bits of {word:#x}");
    }
    Ok(())
}

/// Everything is written, in each width; what a narrow or crooked access does is for the hypervisor to say.
fn attack(part: &Part, value: u32) -> Verdict {
    for word in words(part) {
        // Not what this UART sends.
        if word == part.uart {
            continue;
        }
        write32(word, value);
        let wide = u64::from(value) << 32 | u64::from(value);
        for result in [
            catch(|| write8(word + 1, value as u8)),
            catch(|| write16(word + 2, value as u16)),
            catch(|| write64(word & !7, wide)),
        ] {
            if let Err(fault) = result {
                ensure!(fault.is_data_abort(), "{word:#x}: {fault:x?}");
            }
        }
    }
    foreign_bits(part)
}

/// Writes arrive at the partition's own bits of registers that keep what is written.
fn writes(part: &Part) -> Verdict {
    for value in [u32::MAX, 0, u32::MAX, 0] {
        attack(part, value)?;
        for word in part.kept_words() {
            // An attack ends with halves and bytes: the whole once more.
            write32(word, value);
            let own = part.own(word);
            ensure_eq!(read32(word) & own, value & own, "own bits of {word:#x}");
        }
    }
    Ok(())
}

/// The number of the slot that it is now.
fn slot() -> u64 {
    physical_now() / (frequency() / SLOTS_PER_SECOND)
}

fn slots(part: &Part) -> Verdict {
    let first = slot();
    let (mut attacks, mut looks) = (0_u32, 0_u32);
    while slot() < first + SLOTS {
        let now = slot();
        if now % 2 == part.parity() {
            while slot() == now {
                attack(part, u32::MAX)?;
                attack(part, 0)?;
                attacks += 1;
            }
        } else {
            looks += hold(part, now)?;
        }
    }
    println!("slots {first} to {}: {attacks} attacks, {looks} looks", first + SLOTS);
    ensure!(attacks > 0 && looks > 0, "{attacks} attacks and {looks} looks");
    Ok(())
}

/// Gives the own bits a pattern and sees that it stays until the slot ends; returns how often it looked.
fn hold(part: &Part, now: u64) -> Result<u32, Failure> {
    part.set_pattern(now);
    let mut looks = 0;
    let held: part::Snapshot = part.snapshot();
    while slot() == now {
        let seen = part.snapshot();
        if slot() != now {
            break;
        }
        for (&(word, before), &(_, after)) in held.iter().zip(&seen) {
            ensure_eq!(after, before, "own bits of {word:#x} in slot {now}");
        }
        foreign_bits(part)?;
        looks += 1;
    }
    Ok(looks)
}
