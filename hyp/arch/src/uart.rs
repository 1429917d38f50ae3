//! The real console: a serial port as the firmware left it, no clock, baud rate or pin touched.
//!
//! The two kinds differ in where their bits are, and in that alone: a PL011 (DDI 0183) and the mini-UART of the BCM2835 and its
//! successors (BCM2711 ARM Peripherals, chapter 2), which is a 16550 in what matters here.

use bulkhead_policy::addr::{Pa, Region};
use bulkhead_policy::platform::UartModel;

use crate::mmu::Mmio;

/// Where a port has what. Both have their data register first.
struct Layout {
    /// Register of the two bits that follow: UARTFR, AUX_MU_LSR_REG.
    status: u8,
    /// Bits of it that say the opposite.
    inverted: u32,
    /// Nothing came in.
    empty: u32,
    /// Something is still being sent.
    busy: u32,
    /// UARTCR, AUX_MU_CNTL_REG, and its bits that let the port send and receive.
    control: u8,
    enable: u32,
    /// UARTLCR_H, AUX_MU_LCR_REG, and its value for 8 bits and, where there is a choice, FIFOs.
    line: u8,
    line_8bit: u32,
    /// UARTIMSC, AUX_MU_IER_REG, and its bits.
    mask: u8,
    receive: u32,
    transmit: u32,
    /// UARTICR. The mini-UART's interrupts go with their causes.
    clear: Option<u8>,
}

static PL011: Layout = Layout {
    status: 0x18,
    inverted: 0,
    empty: 1 << 4,
    busy: 1 << 3,
    control: 0x30,
    enable: 1 | 1 << 8 | 1 << 9,
    line: 0x2c,
    line_8bit: 0b11 << 5 | 1 << 4,
    mask: 0x38,
    // Data, and data that nothing follows.
    receive: 1 << 4 | 1 << 6,
    transmit: 1 << 5,
    clear: Some(0x44),
};

static MINI: Layout = Layout {
    status: 0x14,
    inverted: !0,
    empty: 1 << 0,
    busy: 1 << 6,
    control: 0x20,
    enable: 0b11,
    line: 0x0c,
    line_8bit: 0b11,
    mask: 0x04,
    // The manual calls bits 2 and 3 unused, but none comes without: set the line status bit as a 16550's driver does.
    receive: 1 << 0 | 1 << 2,
    transmit: 1 << 1,
    clear: None,
};

const DATA: usize = 0;
/// UARTFR.TXFF, and the transmitter's bit of AUX_MU_LSR_REG, which says the opposite.
const FULL: u32 = 1 << 5;

/// A serial port.
pub struct Uart {
    model: UartModel,
    layout: &'static Layout,
    registers: Mmio,
    transmit_interrupt: bool,
}

impl Uart {
    /// The one at `registers`, made ready to send and receive.
    #[must_use]
    pub fn new(model: UartModel, registers: Mmio) -> Self {
        let layout = match model {
            UartModel::Pl011 => &PL011,
            UartModel::MiniUart => &MINI,
        };
        registers.write32(layout.mask.into(), 0);
        let control = layout.control.into();
        if registers.read32(control) & layout.enable != layout.enable {
            registers.write32(layout.line.into(), layout.line_8bit);
            registers.write32(control, registers.read32(control) | layout.enable);
        }
        Self { model, layout, registers, transmit_interrupt: false }
    }

    fn status(&self) -> u32 {
        self.registers.read32(self.layout.status.into()) ^ self.layout.inverted
    }

    /// Sends `byte` if there is room for it.
    pub fn try_send(&mut self, byte: u8) -> bool {
        // Each byte that a guest prints comes here: registers at offsets that are known take fewer instructions.
        let room = match self.model {
            UartModel::Pl011 => self.registers.read32(0x18) & FULL == 0,
            UartModel::MiniUart => self.registers.read32(0x14) & FULL != 0,
        };
        if !room {
            return false;
        }
        self.registers.write32(DATA, byte.into());
        true
    }

    /// Sends `byte`, waiting for room.
    pub fn send(&mut self, byte: u8) {
        while !self.try_send(byte) {}
    }

    /// A byte that came in.
    pub fn receive(&mut self) -> Option<u8> {
        (self.status() & self.layout.empty == 0).then(|| self.registers.read32(DATA) as u8)
    }

    /// Whether room in the transmit FIFO interrupts. Received bytes do from the first call with a change on.
    pub fn set_transmit_interrupt(&mut self, enabled: bool) {
        if self.transmit_interrupt != enabled {
            self.transmit_interrupt = enabled;
            self.set_mask();
        }
    }

    fn set_mask(&mut self) {
        let transmit = if self.transmit_interrupt { self.layout.transmit } else { 0 };
        self.registers.write32(self.layout.mask.into(), self.layout.receive | transmit);
    }

    /// Clears the interrupts of received bytes. That of the transmit FIFO goes with its cause.
    pub fn clear_receive_interrupt(&mut self) {
        if let Some(clear) = self.layout.clear {
            self.registers.write32(clear.into(), self.layout.receive);
        }
    }

    /// Whether something is still being sent.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.status() & self.layout.busy != 0
    }
}

/// The PL011 that the boot code found for its trace: one character for each step of a boot, before there is a console.
pub struct Trace(Option<Mmio>);

impl Trace {
    /// On the PL011 at `data_register`; 0 where the board has none for this.
    #[must_use]
    pub fn new(data_register: u64) -> Self {
        let registers = Region::new(Pa::new(data_register), 0x1000).filter(|_| data_register != 0);
        Self(registers.and_then(Mmio::map))
    }

    /// Sends the character of a step that is done, unless there is no room for long.
    pub fn step(&self, character: u8) {
        let Some(registers) = self.0 else { return };
        let mut uart = Uart { model: UartModel::Pl011, layout: &PL011, registers, transmit_interrupt: false };
        let _ = (0..0x1_0000).any(|_| uart.try_send(character));
    }

    /// The port, for a console where the tree has none.
    #[must_use]
    pub fn port(&self) -> Option<(UartModel, Mmio)> {
        self.0.map(|registers| (UartModel::Pl011, registers))
    }
}
