//! The PL011 (DDI 0183) as drivers use it: identification, flags, settings, the transmit interrupt.

use bulkhead_rt::console::{UARTDR, UARTFR, pl011};
use bulkhead_rt::exception::{set_irq_handler, with_irqs};
use bulkhead_rt::gic::{self, offset, uart_intid};
use bulkhead_rt::mmio;
use bulkhead_rt::time::{delay, wait_until};
use bulkhead_rt::{Verdict, ensure, ensure_eq, verdict};

use crate::harness::{PATIENCE, SILENCE, fresh, my_log};

const IBRD: u64 = 0x24;
const FBRD: u64 = 0x28;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;

const TRANSMIT: u32 = 1 << 5;
const ALL: u32 = 0x7ff;

/// Address of the interrupt mask set/clear register.
pub fn imsc() -> u64 {
    pl011() + IMSC
}

fn read32(register: u64) -> u32 {
    mmio::read32(pl011() + register)
}

fn write32(register: u64, value: u32) {
    mmio::write32(pl011() + register, value);
}

/// Runs the tests.
pub fn run() {
    verdict::test("pl011-identification", identification);
    verdict::test("pl011-flags", flags);
    verdict::test("pl011-settings", settings);
    verdict::test("pl011-interrupt", interrupt);
    verdict::test("pl011-interrupt-masked", masked);
    verdict::test("pl011-level", level);
}

fn identification() -> Verdict {
    const ID: [u32; 8] = [0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1];
    for (index, id) in ID.into_iter().enumerate() {
        let value = read32(0xfe0 + 4 * index as u64);
        // Revisions of the PL011 differ in UARTPeriphID2 bits 7–4.
        let mask = if index == 2 { 0x0f } else { 0xff };
        ensure_eq!(value & mask, id & mask, "identification register {index}");
    }
    Ok(())
}

fn flags() -> Verdict {
    let idle = wait_until(PATIENCE, || read32(UARTFR) & (1 << 7 | 1 << 3) == 1 << 7);
    let flags = read32(UARTFR);
    ensure!(idle, "FR is {flags:#x}: transmit FIFO not empty or busy");
    ensure_eq!(flags & (1 << 5 | 1 << 4), 1 << 4, "TXFF and RXFE of FR = {flags:#x}");
    ensure_eq!(u32::from(mmio::read16(pl011() + UARTFR)), flags & 0xffff, "FR by a halfword load");
    ensure_eq!(u32::from(mmio::read8(pl011() + UARTFR)), flags & 0xff, "FR by a byte load");
    Ok(())
}

fn settings() -> Verdict {
    write32(CR, 0);
    for (name, register, value) in [
        ("IBRD", IBRD, 13),
        ("FBRD", FBRD, 2),
        ("LCR_H", LCR_H, 0x70),
        ("IFLS", IFLS, 0x12),
        ("IMSC", IMSC, ALL & !2),
    ] {
        write32(register, value);
        let read = read32(register);
        write32(IMSC, 0);
        ensure_eq!(read, value, "{name}");
    }
    write32(CR, 0x301);
    ensure_eq!(read32(CR), 0x301, "CR");
    Ok(())
}

fn send(byte: u8) {
    mmio::write8(pl011() + UARTDR, byte);
}

fn interrupt() -> Verdict {
    fresh();
    write32(IMSC, 0);
    write32(ICR, ALL);
    ensure_eq!(read32(RIS) & TRANSMIT, 0, "RIS after ICR");
    gic::enable(uart_intid());
    write32(IMSC, TRANSMIT);
    send(b'\n');
    let raised = wait_until(PATIENCE, || read32(RIS) & TRANSMIT != 0);
    ensure!(raised, "RIS is {:#x} after a byte was sent", read32(RIS));
    ensure_eq!(read32(MIS), TRANSMIT, "MIS");
    ensure!(gic::bit(offset::ISPENDR, uart_intid()), "the SPI is not pending in the distributor");
    with_irqs(|| my_log().expect(&[uart_intid()]))?;
    // The handler masked it in the UART; the line is down, the cause remains.
    ensure!(!gic::bit(offset::ISPENDR, uart_intid()), "the SPI is pending after IMSC was cleared");
    ensure_eq!(read32(RIS) & TRANSMIT, TRANSMIT, "RIS after IMSC was cleared");
    write32(IMSC, TRANSMIT);
    with_irqs(|| wait_until(PATIENCE, || my_log().count() == 2));
    ensure_eq!(my_log().count(), 2, "interrupts after IMSC was set again");
    write32(ICR, ALL);
    ensure_eq!(read32(RIS) & TRANSMIT, 0, "RIS after ICR");
    write32(IMSC, TRANSMIT);
    with_irqs(|| delay(SILENCE));
    ensure_eq!(my_log().count(), 2, "interrupts after ICR");
    write32(IMSC, 0);
    Ok(())
}

/// A cause that is not unmasked raises nothing; one that is cleared before it is taken is taken back.
fn masked() -> Verdict {
    fresh();
    write32(IMSC, 0);
    gic::enable(uart_intid());
    send(b'\n');
    with_irqs(|| delay(SILENCE));
    ensure_eq!(my_log().count(), 0, "interrupts with IMSC 0");
    write32(IMSC, TRANSMIT);
    ensure!(gic::bit(offset::ISPENDR, uart_intid()), "the SPI is not pending");
    write32(ICR, ALL);
    ensure!(!gic::bit(offset::ISPENDR, uart_intid()), "the SPI is pending after ICR");
    with_irqs(|| delay(SILENCE));
    write32(IMSC, 0);
    ensure_eq!(my_log().count(), 0, "interrupts after ICR");
    Ok(())
}

/// The line stays up until the guest clears the cause: the interrupt comes again after each end.
fn level() -> Verdict {
    fresh();
    fn leave_line_up() {
        let intid = gic::acknowledge();
        my_log().add(intid);
        if my_log().count() == 5 {
            write32(ICR, ALL);
        }
        gic::end(intid);
    }
    set_irq_handler(leave_line_up);
    gic::enable(uart_intid());
    write32(IMSC, TRANSMIT);
    send(b'\n');
    let result = with_irqs(|| my_log().expect(&[uart_intid(); 5]));
    write32(IMSC, 0);
    result?;
    ensure!(!gic::bit(offset::ISPENDR, uart_intid()), "the SPI is pending after ICR");
    Ok(())
}
