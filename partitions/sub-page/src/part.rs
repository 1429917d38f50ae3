//! What the partition has of the two pages, by the board's data sheet and not by the hypervisor's word.

use bulkhead_rt::mmio::{read32, write32};
use bulkhead_rt::{Failure, ensure};
use heapless::Vec;

/// Bytes of a page.
pub const PAGE: u64 = 0x1000;
/// Bytes of a UART's registers.
const UART: u64 = 0x200;
const PINS: u32 = 58;

/// Registers with some bits for each pin: the first one's offset, the bits, whether they keep what is written.
const BANKS: [(u64, u32, bool); 12] = [
    (0x00, 3, true),  // GPFSEL
    (0x1c, 1, false), // GPSET
    (0x28, 1, false), // GPCLR
    (0x34, 1, false), // GPLEV
    (0x40, 1, false), // GPEDS
    (0x4c, 1, false), // GPREN; QEMU 10 has none of the detection
    (0x58, 1, false), // GPFEN
    (0x64, 1, false), // GPHEN
    (0x70, 1, false), // GPLEN
    (0x7c, 1, false), // GPAREN
    (0x88, 1, false), // GPAFEN
    (0xe4, 2, true),  // GPIO_PUP_PDN_CNTRL
];
const GPFSEL: u64 = 0x00;
const GPSET: u64 = 0x1c;
const GPCLR: u64 = 0x28;
const GPLEV: u64 = 0x34;
const PULL: u64 = 0xe4;

/// Registers of a PL011 that keep what is written: IBRD, FBRD, LCR_H, IFLS.
const UART_KEPT: [(u64, u32); 4] = [(0x24, 0xffff), (0x28, 0x3f), (0x2c, 0xff), (0x34, 0x3f)];

/// Words and the partition's own bits of them.
pub type Snapshot = Vec<(u64, u32), 24>;

/// The partition's part.
pub struct Part {
    /// Page of the GPIO controller.
    pub gpio: u64,
    /// First register of the UART.
    pub uart: u64,
    /// A bit for each pin.
    pins: u64,
}

fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

impl Part {
    /// What `bootargs` says.
    pub fn from_bootargs(bootargs: &str) -> Result<Self, Failure> {
        let value = |name: &str| {
            let word = bootargs.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            word.ok_or_else(|| Failure::new(format_args!("no {name}= in bootargs \"{bootargs}\"")))
        };
        let wrong = || Failure::new(format_args!("bootargs \"{bootargs}\" are none"));
        let mut pins = 0;
        for pin in value("pins")?.split(',') {
            pins |= 1 << number(pin).filter(|&pin| pin < PINS.into()).ok_or_else(wrong)?;
        }
        let page = |name| number(value(name)?).ok_or_else(wrong);
        let part = Self { gpio: page("gpio")?, uart: page("uart")?, pins };
        ensure!(
            part.gpio.is_multiple_of(PAGE) && part.uart.is_multiple_of(UART),
            "crooked addresses in \"{bootargs}\""
        );
        Ok(part)
    }

    /// Page of the UART.
    pub fn uart_page(&self) -> u64 {
        self.uart & !(PAGE - 1)
    }

    /// In which slots this one attacks: the lowest pin decides, as two partitions have different ones next to each other.
    pub fn parity(&self) -> u64 {
        u64::from(self.pins.trailing_zeros() % 2)
    }

    /// The partition's own bits of a word in either page.
    pub fn own(&self, word: u64) -> u32 {
        if word & !(PAGE - 1) == self.uart_page() {
            return if (self.uart..self.uart + UART).contains(&word) { u32::MAX } else { 0 };
        }
        BANKS.into_iter().fold(0, |own, (first, bits, _)| own | self.spread(word, first, bits, u64::MAX))
    }

    /// Of the register `word` of the bank at `first` the bits of own pins that are set in `which`.
    fn spread(&self, word: u64, first: u64, bits: u32, which: u64) -> u32 {
        let in_word = 32 / bits;
        let Some(offset) = word.checked_sub(self.gpio + first) else { return 0 };
        let first_pin = offset as u32 / 4 * in_word;
        if offset >= PAGE || first_pin >= PINS {
            return 0;
        }
        let pins = (first_pin..PINS.min(first_pin + in_word)).filter(|pin| self.pins & which & 1 << pin != 0);
        pins.fold(0, |mask, pin| mask | ((1 << bits) - 1) << ((pin - first_pin) * bits))
    }

    fn words_of(&self, first: u64, bits: u32) -> impl Iterator<Item = u64> {
        let first = self.gpio + first;
        (0..u64::from(PINS.div_ceil(32 / bits))).map(move |n| first + 4 * n)
    }

    /// Words of the GPIO page that keep what is written.
    pub fn kept_words(&self) -> impl Iterator<Item = u64> {
        BANKS.into_iter().filter(|bank| bank.2).flat_map(|(first, bits, _)| self.words_of(first, bits))
    }

    /// Makes own pins outputs with some levels and pulls, and gives the UART some settings: others for each `seed`.
    pub fn set_pattern(&self, seed: u64) {
        let high = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let ones = 0x9249_2492 >> 1; // 001 in each field of three
        for word in self.words_of(GPFSEL, 3) {
            write32(word, self.spread(word, GPFSEL, 3, u64::MAX) & ones);
        }
        for (word, level) in self.words_of(GPSET, 1).zip(self.words_of(GPCLR, 1)) {
            write32(word, self.spread(word, GPSET, 1, high));
            write32(level, self.spread(level, GPCLR, 1, !high));
        }
        for word in self.words_of(PULL, 2) {
            let up = self.spread(word, PULL, 2, high) & 0x5555_5555;
            let down = self.spread(word, PULL, 2, !high) & 0xaaaa_aaaa;
            write32(word, up | down);
        }
        for (register, bits) in UART_KEPT {
            write32(self.uart + register, high as u32 & bits);
        }
    }

    /// The partition's own bits of all registers that show what it set.
    pub fn snapshot(&self) -> Snapshot {
        let levels = self.words_of(GPLEV, 1);
        let uart = UART_KEPT.into_iter().map(|(register, _)| self.uart + register);
        let words = self.kept_words().chain(levels).chain(uart);
        words.map(|word| (word, read32(word) & self.own(word))).collect()
    }
}
