//! Turning a chip of the BCM2835's family off, by the watchdog of its power manager.
//!
//! No manual has these registers. The figures are those of Linux, drivers/watchdog/bcm2835_wdt.c.

use crate::mmu::Mmio;

const RSTC: usize = 0x1c;
const RSTS: usize = 0x20;
const WDOG: usize = 0x24;

/// In the highest byte of each write.
const PASSWORD: u32 = 0x5a00_0000;
/// RSTC: what happens when the watchdog runs out.
const RSTC_CONFIGURATION: u32 = 0x30;
const RSTC_FULL_RESET: u32 = 0x20;
/// RSTS: the partition to boot from, its bits 2 apart. From number 63 the firmware boots nothing and waits.
const RSTS_PARTITION_63: u32 = 0x555;
/// About 150 µs.
const TICKS: u32 = 10;

/// Has the chip reset and stay in its firmware. This takes a moment, during which the caller goes on.
pub fn power_off(registers: &Mmio) {
    registers.write32(RSTS, PASSWORD | registers.read32(RSTS) | RSTS_PARTITION_63);
    registers.write32(WDOG, PASSWORD | TICKS);
    let control = registers.read32(RSTC) & !RSTC_CONFIGURATION;
    registers.write32(RSTC, PASSWORD | control | RSTC_FULL_RESET);
}
