//! The real console: a PL011 (DDI 0183) as the firmware left it, no clock or baud rate touched.

use crate::mmu::Mmio;

const DR: usize = 0x00;
const FR: usize = 0x18;
const CR: usize = 0x30;
const LCR_H: usize = 0x2c;
const IMSC: usize = 0x38;
const ICR: usize = 0x44;

const FR_BUSY: u32 = 1 << 3;
const FR_RXFE: u32 = 1 << 4;
const FR_TXFF: u32 = 1 << 5;
const CR_ENABLE: u32 = 1 | 1 << 8 | 1 << 9;
const LCR_H_8BIT_FIFO: u32 = 0b11 << 5 | 1 << 4;
const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RX_TIMEOUT: u32 = 1 << 6;

/// A PL011.
pub struct Pl011 {
    registers: Mmio,
    transmit_interrupt: bool,
}

impl Pl011 {
    /// The one at `registers`, made ready to send and receive.
    #[must_use]
    pub fn new(registers: Mmio) -> Self {
        registers.write32(IMSC, 0);
        if registers.read32(CR) & CR_ENABLE != CR_ENABLE {
            registers.write32(LCR_H, LCR_H_8BIT_FIFO);
            registers.write32(CR, registers.read32(CR) | CR_ENABLE);
        }
        Self { registers, transmit_interrupt: false }
    }

    /// Sends `byte` if there is room for it.
    pub fn try_send(&mut self, byte: u8) -> bool {
        if self.registers.read32(FR) & FR_TXFF != 0 {
            return false;
        }
        self.registers.write32(DR, byte.into());
        true
    }

    /// Sends `byte`, waiting for room.
    pub fn send(&mut self, byte: u8) {
        while !self.try_send(byte) {}
    }

    /// A byte that came in.
    pub fn receive(&mut self) -> Option<u8> {
        (self.registers.read32(FR) & FR_RXFE == 0).then(|| self.registers.read32(DR) as u8)
    }

    /// Interrupts on received bytes.
    pub fn enable_receive_interrupt(&mut self) {
        self.clear_receive_interrupt();
        self.set_mask();
    }

    /// Whether room in the transmit FIFO interrupts.
    pub fn set_transmit_interrupt(&mut self, enabled: bool) {
        if self.transmit_interrupt != enabled {
            self.transmit_interrupt = enabled;
            self.set_mask();
        }
    }

    fn set_mask(&mut self) {
        let transmit = if self.transmit_interrupt { INT_TX } else { 0 };
        self.registers.write32(IMSC, INT_RX | INT_RX_TIMEOUT | transmit);
    }

    /// Clears the interrupts of received bytes. That of the transmit FIFO goes with its cause.
    pub fn clear_receive_interrupt(&mut self) {
        self.registers.write32(ICR, INT_RX | INT_RX_TIMEOUT);
    }

    /// Waits until everything is on the line.
    pub fn flush(&mut self) {
        while self.registers.read32(FR) & FR_BUSY != 0 {}
    }
}
