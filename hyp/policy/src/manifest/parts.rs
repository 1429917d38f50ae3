//! Parts of pages that several partitions use: single devices, pins and channels.
//!
//! What a partition has of such a page is written down as rules, register by register. A part without the device's interrupt is the one
//! way to share a line: the line has one owner, and nobody else may raise it.

use alloc::vec::Vec;

use bulkhead_board::divided::{InterruptEnable, Write};

use super::devices::{Access, Claim, Share};
use super::draft::Draft;
use super::properties::Key;
use super::rules::{Rule, Value};
use super::{At, Findings};
use crate::plan::DevicePart;
use crate::platform::Platform;
use crate::shared_page::{self, rules_for};
use crate::tree::{Node, Property, Tree};

/// Adds the units of divided devices for which a partition asks to its wishes.
pub(super) fn units<'a>(
    draft: &Draft<'a>,
    platform: &Platform<'_>,
    board: &'a Tree<'a>,
    wishes: &mut Vec<(Node<'a>, Share, At)>,
    findings: &mut Findings<'a>,
) {
    for (key, numbers) in [(Key::GpioPins, &draft.gpio_pins), (Key::DmaChannels, &draft.dma_channels)] {
        if numbers.is_empty() {
            continue;
        }
        let known = platform.board.map_or(&[][..], |board| board.divided);
        let device = known.iter().find(|device| device.property == key.name());
        let Some((device, node)) = device.and_then(|device| {
            Some((device, board.nodes().find(|node| node.is_compatible(device.compatible))?))
        }) else {
            findings.push(Rule::NothingToDivide, draft.at(key), &[]);
            continue;
        };
        let usable = device.usable.and_then(|name| node.property(name)).and_then(Property::u32);
        let all = u64::MAX.wrapping_shr(64_u32.wrapping_sub(device.units.into()));
        let usable = usable.map_or(all, |usable| all & u64::from(usable));
        let mut units = 0_u64;
        for (entry, &number) in numbers.iter().enumerate() {
            let bit = 1_u64.checked_shl(number).unwrap_or(0) & usable;
            let (rule, other) = match bit {
                0 => (Rule::NoSuchUnit, At::NOWHERE),
                bit if units & bit != 0 => (Rule::UnitOwned, draft.at(key)),
                bit => {
                    units |= bit;
                    continue;
                }
            };
            let values = [Value::Text(device.unit), Value::Number(number.into()), Value::Text(node.path())];
            findings.push_with(rule, draft.entry_of(key, entry), other, &values);
        }
        wishes.push((node, Share::Units(device, units), draft.at(key)));
    }
}

/// `polled` names only what the partition has in part.
pub(super) fn check_polled<'a>(
    draft: &Draft<'a>,
    access: &Access<'_>,
    board: &Tree<'_>,
    findings: &mut Findings<'a>,
) {
    for (entry, &name) in draft.polled.iter().enumerate() {
        let at = draft.entry_of(Key::Polled, entry);
        let Some(node) = board.find(name) else {
            super::devices::unknown(at, name, findings);
            continue;
        };
        if !access.windows.iter().any(|window| window.path == node.path() && window.part.is_some()) {
            findings.push_text(Rule::PolledNothing, at, name);
        }
    }
}

/// Where a device enables its interrupt.
fn interrupt_enables<'a>(
    node: Node<'a>,
    platform: &Platform<'_>,
) -> impl Iterator<Item = &'static InterruptEnable> + use<'a> {
    let known = platform.board.map_or(&[][..], |board| board.interrupt_enables);
    known.iter().filter(move |enable| node.is_compatible(enable.compatible))
}

/// What a claim to a part comes to, if it can be polled where it is to be.
pub(super) fn part<'a>(
    claim: &Claim<'_, 'a>,
    polled: bool,
    platform: &Platform<'_>,
    findings: &mut Findings<'a>,
) -> Option<DevicePart> {
    let path = claim.node.path();
    if let Share::Registers = claim.share
        && claim.node.property("#clock-cells").is_some()
    {
        findings.push_text(Rule::SwitchesClocks, claim.place, path);
    }
    let (units, quiet) = match claim.share {
        Share::Whole => return None,
        Share::Registers => (None, interrupt_enables(claim.node, platform).next().is_some()),
        Share::Units(device, units) => (Some((device, units)), !device.interrupt_per_unit),
    };
    if polled && !quiet {
        findings.push_with(Rule::NotPollable, claim.draft.at(Key::Polled), claim.place, &[Value::Text(path)]);
    }
    Some(DevicePart { polled, units })
}

/// The rules for a part whose registers, `size` bytes of them, begin at `start` in their page. `first`: these are the first of the
/// device's blocks.
pub(super) fn rules(
    node: Node<'_>,
    part: DevicePart,
    start: u16,
    size: u64,
    first: bool,
    platform: &Platform<'_>,
) -> Vec<shared_page::Rule> {
    if let Some((device, units)) = part.units {
        return rules_for(device, units, start, part.polled);
    }
    let last = u64::from(start).saturating_add(size).saturating_sub(1) as u16;
    let mut rules =
        alloc::vec![shared_page::Rule { first: start, last, mask: u32::MAX, write: Write::Zeros }];
    for enable in interrupt_enables(node, platform).filter(|_| part.polled && first) {
        let first = start.saturating_add(enable.offset);
        let last = first.saturating_add(3);
        rules.push(shared_page::Rule { first, last, mask: !enable.bits, write: Write::Zeros });
    }
    rules
}
