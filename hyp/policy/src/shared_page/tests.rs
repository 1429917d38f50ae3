//! Two partitions at the registers of one page: whatever they do, neither changes or sees a bit of the other.

use std::vec;

use bulkhead_board::divided::InterruptEnable;
use bulkhead_boards::BOARDS;
use proptest::prelude::*;

use super::*;

const PAGE: Pa = Pa::new(0xfe20_0000);
const LEFT: u64 = 1 << 4 | 1 << 17 | 1 << 22 | 1 << 31 | 1 << 32 | 1 << 45 | 1 << 57;
const RIGHT: u64 = 1 << 5 | 1 << 16 | 1 << 23 | 1 << 30 | 1 << 33 | 1 << 44 | 1 << 56;

fn device(property: &str) -> &'static DividedDevice {
    let divided = BOARDS.iter().flat_map(|board| board.divided);
    divided.into_iter().find(|device| device.property == property).expect("the board's")
}

fn pins(units: u64, polled: bool) -> SharedPage {
    SharedPage { page: PAGE, rules: rules_for(device("gpio-pins"), units, 0, polled) }
}

/// The GPIO registers ("BCM2711 ARM Peripherals", 5.2), one after the other.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Gpio {
    /// What holds what was written.
    held: [u32; 1024],
    outputs: [u32; 2],
    events: [u32; 2],
}

const GPSET: u64 = 0x1c;
const GPCLR: u64 = 0x28;
const GPLEV: u64 = 0x34;
const GPEDS: u64 = 0x40;

impl Gpio {
    fn read(&self, offset: u64) -> u32 {
        match offset {
            // What is only written reads as something.
            0x1c | 0x20 | 0x28 | 0x2c => 0x6770_696f,
            0x34 | 0x38 => self.outputs[(offset - GPLEV) as usize / 4],
            0x40 | 0x44 => self.events[(offset - GPEDS) as usize / 4],
            _ => self.held[offset as usize / 4],
        }
    }

    fn write(&mut self, offset: u64, value: u32) {
        match offset {
            0x1c | 0x20 => self.outputs[(offset - GPSET) as usize / 4] |= value,
            0x28 | 0x2c => self.outputs[(offset - GPCLR) as usize / 4] &= !value,
            0x34 | 0x38 => {}
            0x40 | 0x44 => self.events[(offset - GPEDS) as usize / 4] &= !value,
            _ => self.held[offset as usize / 4] = value,
        }
    }

    /// As `el2` does it.
    fn access(&mut self, page: &SharedPage, offset: u64, direction: Direction) -> u32 {
        match page.decide(offset, direction) {
            Step::Nothing => {}
            Step::Read(mask) => return self.read(offset) & mask,
            Step::Write(value) => self.write(offset, value),
            Step::Change { mask, bits } => {
                assert_eq!(bits & !mask, 0);
                self.write(offset, self.read(offset) & !mask | bits);
            }
        }
        0
    }

    /// What is in the fields of these pins, and of nobody.
    fn view(&self, units: u64) -> Vec<u32> {
        let field = |register: u32, pin: u32, bits: u32| register >> (pin * bits) & ((1 << bits) - 1);
        let mut view = vec![];
        for pin in (0..58_u32).filter(|pin| units >> pin & 1 != 0) {
            let (word, bit) = ((pin / 32) as usize, pin % 32);
            view.push(field(self.held[(pin / 10) as usize], pin % 10, 3));
            view.push(field(self.held[0xe4 / 4 + (pin / 16) as usize], pin % 16, 2));
            view.push(field(self.outputs[word], bit, 1));
            view.push(field(self.events[word], bit, 1));
            for enable in [0x4c, 0x58, 0x64, 0x70, 0x7c, 0x88] {
                view.push(field(self.held[enable / 4 + word], bit, 1));
            }
        }
        view
    }
}

fn store(value: u32) -> Direction {
    Direction::Store(value.into())
}

fn value() -> impl Strategy<Value = u32> {
    prop_oneof![Just(0), Just(u32::MAX), any::<u32>()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 256 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// Pins that nobody has stay as well, and what is written to own bits arrives.
    #[test]
    fn neither_changes_what_is_the_others(
        writes in prop::collection::vec((any::<bool>(), 0..1024_u64, value()), 1..200),
        held in value(),
        polled in any::<bool>(),
    ) {
        let mut gpio = Gpio { held: [held; 1024], outputs: [0x5555_5555; 2], events: [0xffff_ffff; 2] };
        let pages = [pins(LEFT, false), pins(RIGHT, polled)];
        for (right, register, value) in writes {
            let before = gpio.clone();
            let (page, own) = if right { (&pages[1], RIGHT) } else { (&pages[0], LEFT) };
            // Most writes go to the registers that there are.
            let offset = if register % 8 == 0 { register * 4 } else { register % 61 * 4 };
            gpio.access(page, offset, store(value));
            prop_assert_eq!(gpio.view(!own), before.view(!own));
            if offset >= 0xf4 || (0x94..0xe4).contains(&offset) {
                prop_assert_eq!(&gpio, &before);
            }
        }
    }

    /// Neither sees the other's bits.
    #[test]
    fn neither_sees_what_is_the_others(offset in 0..1024_u64, held in any::<u32>()) {
        let gpio = |bits| Gpio { held: [bits; 1024], outputs: [bits; 2], events: [bits; 2] };
        let load = |bits| gpio(bits).access(&pins(LEFT, false), offset * 4, Direction::Load);
        let mine = match pins(LEFT, false).decide(offset * 4, Direction::Load) {
            Step::Read(mask) => mask,
            _ => 0,
        };
        prop_assert_eq!(load(held) & !mine, 0);
        prop_assert_eq!(load(held), load(held & mine));
    }
}

#[test]
fn what_a_partition_writes_arrives() {
    let mut gpio = Gpio { held: [0; 1024], outputs: [0; 2], events: [u32::MAX; 2] };
    let page = pins(LEFT, false);
    // Pin 17 is an output, pin 4 has function 0, pin 57 the function 7.
    gpio.access(&page, 0x04, store(u32::MAX));
    assert_eq!(gpio.held[1], 0b111 << 21);
    gpio.access(&page, 0x04, store(0b001 << 21));
    assert_eq!((gpio.held[1], gpio.access(&page, 0x04, Direction::Load)), (0b001 << 21, 0b001 << 21));
    gpio.access(&page, 0x14, store(u32::MAX));
    assert_eq!(gpio.held[5], 0b111 << 21);
    gpio.access(&page, GPSET, store(u32::MAX));
    assert_eq!(gpio.outputs[0], LEFT as u32);
    assert_eq!(gpio.access(&page, GPLEV, Direction::Load), LEFT as u32);
    gpio.access(&page, GPCLR, store(1 << 17));
    assert_eq!(gpio.outputs[0], LEFT as u32 & !(1 << 17));
    gpio.access(&page, GPEDS + 4, store(u32::MAX));
    assert_eq!(gpio.events[1], !((LEFT >> 32) as u32));
    gpio.access(&page, 0xf0, store(u32::MAX));
    assert_eq!(gpio.held[0xf0 / 4], 0b11 << 18);
}

#[test]
fn a_polled_partition_detects_no_events() {
    let page = pins(LEFT, true);
    for offset in (0x4c..0x94).step_by(4) {
        assert_eq!(page.decide(offset, store(u32::MAX)), Step::Nothing);
    }
    assert_ne!(page.decide(0x40, store(u32::MAX)), Step::Nothing);
}

#[test]
fn a_channel_is_its_registers_and_its_bits() {
    let device = device("dma-channels");
    let page = SharedPage { page: PAGE, rules: rules_for(device, 1 << 5 | 1 << 6, 0, false) };
    for offset in (0..0x1000).step_by(4) {
        let expected = match offset {
            0x500..0x700 => Step::Write(u32::MAX),
            0xff0 => Step::Change { mask: 0b11 << 5, bits: 0b11 << 5 },
            _ => Step::Nothing,
        };
        assert_eq!(page.decide(offset, store(u32::MAX)), expected, "{offset:#x}");
    }
    assert_eq!(page.decide(0xfe0, Direction::Load), Step::Read(0b11 << 5));
}

#[test]
fn a_later_rule_holds() {
    let rule = |first, last, mask| Rule { first, last, mask, write: Write::Zeros };
    let page = SharedPage { page: PAGE, rules: vec![rule(0x600, 0x7ff, !0), rule(0x638, 0x63b, 0)] };
    assert_eq!(page.decide(0x600, store(7)), Step::Write(7));
    assert_eq!(page.decide(0x638, store(7)), Step::Write(0));
    assert_eq!(page.decide(0x63c, store(7)), Step::Write(7));
    assert_eq!(page.decide(0x5fc, store(7)), Step::Nothing);
    assert_eq!(page.decide(0x800, Direction::Load), Step::Nothing);
}

#[test]
fn the_boards_data_is_sound() {
    for device in BOARDS.iter().flat_map(|board| board.divided) {
        assert!(device.units <= 64 && device.usable.is_none_or(|_| device.units <= 32));
        let all = rules_for(device, u64::MAX, 0, false);
        for (index, rule) in all.iter().enumerate() {
            assert!(rule.first.is_multiple_of(4) && rule.last < 4096 && rule.last % 4 == 3, "{rule:?}");
            let apart = |other: &Rule| other.last < rule.first || rule.last < other.first;
            assert!(all[..index].iter().all(apart), "{rule:?}");
        }
        // No bit belongs to two units.
        for unit in 0..device.units {
            let others = rules_for(device, !(1 << unit), 0, false);
            for rule in rules_for(device, 1 << unit, 0, false) {
                let same = others.iter().find(|other| other.first == rule.first);
                assert_eq!(same.map_or(0, |other| other.mask & rule.mask), 0);
            }
        }
    }
    for &InterruptEnable { offset, bits, .. } in BOARDS.iter().flat_map(|board| board.interrupt_enables) {
        assert!(offset.is_multiple_of(4) && bits != 0);
    }
}
