//! The serial port of a partition that owns none: a PL011 (DDI 0183) in software.
//!
//! What the guest sends waits in a queue that the hypervisor empties onto the real console as fast as that takes
//! it; a full queue shows as a full FIFO, so a guest that looks at the flags loses nothing and a guest that does not
//! loses only its own bytes. Images in the field write UARTDR without ever enabling the UART, so UARTCR gates
//! nothing.

use heapless::Deque;

/// Bytes that wait for the real console.
const TRANSMIT: usize = 256;
/// Bytes typed, or pasted, that wait for the guest.
const RECEIVE: usize = 512;

const DR: u64 = 0x00;
const FR: u64 = 0x18;
const ILPR: u64 = 0x20;
const IBRD: u64 = 0x24;
const FBRD: u64 = 0x28;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;
const DMACR: u64 = 0x48;
const PERIPH_ID0: u64 = 0xfe0;

const FR_TXFE: u32 = 1 << 7;
const FR_RXFF: u32 = 1 << 6;
const FR_TXFF: u32 = 1 << 5;
const FR_RXFE: u32 = 1 << 4;

const INT_RX: u32 = 1 << 4;
const INT_TX: u32 = 1 << 5;
const INT_RX_TIMEOUT: u32 = 1 << 6;
const INT_OVERRUN: u32 = 1 << 10;
const INT_ALL: u32 = 0x7ff;

/// UARTPeriphID0–3 and UARTPCellID0–3 of a PL011 r1p4 (DDI 0183, 3.3.15 and 3.3.16).
const ID: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// An emulated PL011.
#[derive(Clone, Debug)]
pub struct Vpl011 {
    transmit: Deque<u8, TRANSMIT>,
    receive: Deque<u8, RECEIVE>,
    /// Raw interrupt status.
    raw: u32,
    /// Interrupt mask: 1 lets the interrupt through.
    mask: u32,
    control: u32,
    line_control: u32,
    fifo_levels: u32,
    integer_divisor: u32,
    fractional_divisor: u32,
    low_power: u32,
    dma_control: u32,
}

impl Default for Vpl011 {
    fn default() -> Self {
        Self::new()
    }
}

impl Vpl011 {
    /// In reset state (DDI 0183, 3.2).
    #[must_use]
    pub const fn new() -> Self {
        Self {
            transmit: Deque::new(),
            receive: Deque::new(),
            raw: 0,
            mask: 0,
            control: 0x300,
            line_control: 0,
            fifo_levels: 0x12,
            integer_divisor: 0,
            fractional_divisor: 0,
            low_power: 0,
            dma_control: 0,
        }
    }

    /// Back to reset state, but what was sent is still to be printed.
    pub fn reset(&mut self) {
        let transmit = core::mem::take(&mut self.transmit);
        *self = Self { transmit, ..Self::new() };
    }

    /// Whether its interrupt line is asserted.
    #[must_use]
    pub fn line(&self) -> bool {
        self.raw & self.mask != 0
    }

    /// A guest's load at `offset` into the page, of any size.
    pub fn read(&mut self, offset: u64) -> u64 {
        let value = match offset {
            DR => return self.read_data(),
            FR => self.flags(),
            ILPR => self.low_power,
            IBRD => self.integer_divisor,
            FBRD => self.fractional_divisor,
            LCR_H => self.line_control,
            CR => self.control,
            IFLS => self.fifo_levels,
            IMSC => self.mask,
            RIS => self.raw,
            MIS => self.raw & self.mask,
            DMACR => self.dma_control,
            PERIPH_ID0.. => {
                ID.get((offset.wrapping_sub(PERIPH_ID0) >> 2) as usize).copied().unwrap_or(0).into()
            }
            _ => 0,
        };
        value.into()
    }

    /// A guest's store at `offset` into the page, of any size.
    pub fn write(&mut self, offset: u64, value: u64) {
        let value = value as u32;
        match offset {
            DR => {
                // A full FIFO drops the byte, as the hardware does.
                let _ = self.transmit.push_back(value as u8);
                // As long as there is room for half of the queue, and no longer: drivers write as much without looking.
                self.raw &= !INT_TX;
                if self.transmit.len() <= TRANSMIT / 2 {
                    self.raw |= INT_TX;
                }
            }
            ILPR => self.low_power = value & 0xff,
            IBRD => self.integer_divisor = value & 0xffff,
            FBRD => self.fractional_divisor = value & 0x3f,
            LCR_H => self.line_control = value & 0xff,
            CR => self.control = value & 0xffff,
            IFLS => self.fifo_levels = value & 0x3f,
            IMSC => self.mask = value & INT_ALL,
            ICR => {
                self.raw &= !value;
                if !self.receive.is_empty() {
                    // Bytes that wait time out again, and without a FIFO each comes for itself; here time passes at once.
                    self.raw |= INT_RX | INT_RX_TIMEOUT;
                }
            }
            DMACR => self.dma_control = value & 0x7,
            _ => {}
        }
    }

    fn flags(&self) -> u32 {
        let mut flags = 0;
        if self.transmit.is_empty() {
            flags |= FR_TXFE;
        }
        if self.transmit.is_full() {
            flags |= FR_TXFF;
        }
        if self.receive.is_empty() {
            flags |= FR_RXFE;
        }
        if self.receive.is_full() {
            flags |= FR_RXFF;
        }
        flags
    }

    fn read_data(&mut self) -> u64 {
        let byte = self.receive.pop_front().unwrap_or(0);
        if self.receive.is_empty() {
            self.raw &= !(INT_RX | INT_RX_TIMEOUT);
        }
        byte.into()
    }

    /// A byte was typed for this partition. A guest that does not read loses what exceeds the queue.
    pub fn push_received(&mut self, byte: u8) {
        if self.receive.push_back(byte).is_err() {
            self.raw |= INT_OVERRUN;
        }
        self.raw |= INT_RX | INT_RX_TIMEOUT;
    }

    /// The next byte for the real console.
    pub fn pop_transmitted(&mut self) -> Option<u8> {
        let byte = self.transmit.pop_front()?;
        if self.transmit.len() == TRANSMIT / 2 {
            self.raw |= INT_TX;
        }
        Some(byte)
    }

    /// Whether bytes wait for the real console.
    #[must_use]
    pub fn has_transmitted(&self) -> bool {
        !self.transmit.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_comes_out_without_enabling_anything() {
        let mut uart = Vpl011::new();
        assert_eq!(uart.read(FR) as u32, FR_TXFE | FR_RXFE);
        uart.write(DR, u64::from(b'x'));
        assert_eq!(uart.read(FR) as u32, FR_RXFE);
        assert_eq!(uart.pop_transmitted(), Some(b'x'));
        assert_eq!(uart.pop_transmitted(), None);
    }

    #[test]
    fn a_full_queue_says_so_and_its_draining_interrupts() {
        let mut uart = Vpl011::new();
        for _ in 0..TRANSMIT {
            assert_eq!(uart.read(FR) as u32 & FR_TXFF, 0);
            uart.write(DR, 1);
        }
        assert_ne!(uart.read(FR) as u32 & FR_TXFF, 0);
        uart.write(DR, 2);
        uart.write(ICR, INT_TX.into());
        uart.write(IMSC, INT_TX.into());
        assert!(!uart.line());
        for _ in 0..TRANSMIT / 2 {
            assert_eq!(uart.pop_transmitted(), Some(1));
        }
        assert!(uart.line());
        assert_eq!(core::iter::from_fn(|| uart.pop_transmitted()).count(), TRANSMIT / 2);
    }

    #[test]
    fn a_queue_above_its_level_asks_for_nothing() {
        let mut uart = Vpl011::new();
        (0..TRANSMIT / 2).for_each(|_| uart.write(DR, 1));
        assert_ne!(uart.read(RIS) as u32 & INT_TX, 0);
        uart.write(DR, 1);
        assert_eq!(uart.read(RIS) as u32 & INT_TX, 0);
        assert_eq!(uart.pop_transmitted(), Some(1));
        assert_ne!(uart.read(RIS) as u32 & INT_TX, 0);
    }

    #[test]
    fn typed_bytes_interrupt_until_they_are_read() {
        let mut uart = Vpl011::new();
        uart.write(IMSC, INT_RX.into());
        uart.push_received(b'a');
        uart.push_received(b'b');
        assert!(uart.line());
        assert_eq!(uart.read(MIS), u64::from(INT_RX));
        assert_eq!(uart.read(DR), u64::from(b'a'));
        assert!(uart.line());
        assert_eq!(uart.read(DR), u64::from(b'b'));
        assert!(!uart.line());
        // Cleared while bytes wait: they come again.
        uart.write(IMSC, (INT_RX | INT_RX_TIMEOUT).into());
        uart.push_received(b'c');
        uart.write(ICR, INT_ALL.into());
        assert_eq!(uart.read(MIS), u64::from(INT_RX | INT_RX_TIMEOUT));
        assert_eq!(uart.read(DR), u64::from(b'c'));
        assert!(!uart.line());
        for _ in 0..1000 {
            uart.push_received(0);
        }
        assert_ne!(uart.read(RIS) as u32 & INT_OVERRUN, 0);
    }

    #[test]
    fn it_identifies_itself() {
        let mut uart = Vpl011::new();
        assert_eq!(
            (uart.read(0xfe0), uart.read(0xfe4), uart.read(0xff0), uart.read(0xffc)),
            (0x11, 0x10, 0x0d, 0xb1)
        );
        assert_eq!(uart.read(0xfff), 0xb1);
        assert_eq!(uart.read(0x4c), 0);
    }
}
