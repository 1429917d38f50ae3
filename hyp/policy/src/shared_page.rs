//! A page of registers of which several partitions have parts.
//!
//! Stage 2 cuts at 4 KiB. Where a page holds several UARTs, or bits of many pins, nobody gets it mapped: accesses trap, and rules say
//! which bits of which register are the partition's. All others read as zero and ignore writes, as a GIC's do, so that one partition
//! neither sees nor changes what is another's. [`SharedPage::decide`] says what an access comes to; `el2` does it.

use alloc::vec::Vec;

use bulkhead_board::divided::{DividedDevice, Write};

use crate::addr::{Ipa, PAGE_SIZE, Pa};
use crate::dispatch::Direction;

/// What a partition has of one page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SharedPage {
    /// The page, for the guest at the same address.
    pub page: Pa,
    /// Its registers. Where two rules are about one register, the later one holds.
    pub rules: Vec<Rule>,
}

/// What a partition has of each 32-bit register in a run of them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rule {
    /// Offset in the page of the first register, a multiple of 4.
    pub first: u16,
    /// Offset in the page of the last one's last byte.
    pub last: u16,
    /// The partition's bits.
    pub mask: u32,
    /// What a write does with the other bits.
    pub write: Write,
}

/// What is done with the register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    /// Nothing; a load gives zero.
    Nothing,
    /// It is read, and the load gives these bits of it.
    Read(u32),
    /// This is written.
    Write(u32),
    /// It is read and written, while nobody else writes a register of the page: the bits of `mask` become those of `bits`.
    Change {
        /// The partition's bits.
        mask: u32,
        /// Their new values; 0 outside `mask`.
        bits: u32,
    },
}

impl SharedPage {
    /// The offset of `ipa` in the page, where it lies there.
    #[must_use]
    pub fn offset_of(&self, ipa: Ipa) -> Option<u64> {
        ipa.raw().checked_sub(self.page.raw()).filter(|&offset| offset < PAGE_SIZE)
    }

    /// What a load or store at `offset` comes to, a multiple of 4 below 4096. One of less than 32 bits is taken for one of the whole
    /// register with zeros above, as on a bus without byte strobes.
    #[must_use]
    pub fn decide(&self, offset: u64, direction: Direction) -> Step {
        let Some(rule) = self.rules.iter().rfind(|rule| rule.holds(offset)) else { return Step::Nothing };
        let mask = rule.mask;
        match (direction, rule.write) {
            (Direction::Load, _) => Step::Read(mask),
            (Direction::Store(_), Write::Never) => Step::Nothing,
            (Direction::Store(value), Write::Zeros) => Step::Write(value as u32 & mask),
            (Direction::Store(value), Write::Kept) => Step::Change { mask, bits: value as u32 & mask },
        }
    }
}

/// What a partition with these units of a device has of its registers, which begin at `start` in their page: one bit of `units` for each.
/// Without the device's interrupt nothing that could raise it.
pub(crate) fn rules_for(device: &DividedDevice, units: u64, start: u16, polled: bool) -> Vec<Rule> {
    let mut rules = Vec::new();
    for bank in device.banks.iter().filter(|bank| !(polled && bank.interrupts)) {
        let bits = u32::from(bank.bits);
        let field = u32::MAX.wrapping_shr(32_u32.wrapping_sub(bits));
        let mut first = start.wrapping_add(bank.offset);
        let (mut mask, mut position) = (0, 0_u32);
        for unit in 1..=u32::from(device.units) {
            if units.wrapping_shr(unit.wrapping_sub(1)) & 1 != 0 {
                mask |= field.wrapping_shl(position);
            }
            position = position.wrapping_add(bits);
            // The register is full, or this was the last unit.
            if position.wrapping_add(bits) > 32 || unit == device.units.into() {
                if mask != 0 {
                    let last = first.wrapping_add(bank.size).wrapping_sub(1);
                    rules.push(Rule { first, last, mask, write: bank.write });
                }
                first = first.wrapping_add(bank.stride);
                (mask, position) = (0, 0);
            }
        }
    }
    rules
}

impl Rule {
    fn holds(&self, offset: u64) -> bool {
        (u64::from(self.first)..=u64::from(self.last)).contains(&offset)
    }
}

#[cfg(test)]
mod tests;
