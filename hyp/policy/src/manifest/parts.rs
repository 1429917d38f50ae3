//! Parts of pages that several partitions use: single devices, pins and channels.
//!
//! What a partition has of such a page is written down as rules, register by register. A part without the device's interrupt is the one
//! way to share a line: the line has one owner, and nobody else may raise it.

use alloc::vec::Vec;

use bulkhead_board::divided::{InterruptEnable, Write};

use super::devices::{Access, Claim, Share};
use super::{Draft, Findings};
use crate::plan::DevicePart;
use crate::platform::Platform;
use crate::shared_page::{Rule, rules_for};
use crate::tree::{Node, Property, Tree};

/// Adds the units of divided devices for which a partition asks to its wishes.
pub(super) fn units<'a>(
    draft: &Draft<'_>,
    platform: &Platform<'_>,
    board: &'a Tree<'a>,
    wishes: &mut Vec<(Node<'a>, Share)>,
    findings: &mut Findings,
) {
    for (property, numbers) in [("gpio-pins", &draft.gpio_pins), ("dma-channels", &draft.dma_channels)] {
        if numbers.is_empty() {
            continue;
        }
        let known = platform.board.map_or(&[][..], |board| board.divided);
        let device = known.iter().find(|device| device.property == property);
        let Some((device, node)) = device.and_then(|device| {
            Some((device, board.nodes().find(|node| node.is_compatible(device.compatible))?))
        }) else {
            findings.push(
                draft.node,
                text!("Bulkhead knows no device of this board to divide; take {property} out"),
            );
            continue;
        };
        let usable = device.usable.and_then(|name| node.property(name)).and_then(Property::u32);
        let all = u64::MAX.wrapping_shr(64_u32.wrapping_sub(device.units.into()));
        let usable = usable.map_or(all, |usable| all & u64::from(usable));
        let mut units = 0_u64;
        for &number in numbers {
            let bit = 1_u64.checked_shl(number).unwrap_or(0) & usable;
            if bit == 0 {
                let (unit, path) = (device.unit, node.path());
                let message = text!(
                    "there is no {unit} {number} to give; what {path} has to give are the bits of {usable:#x}"
                );
                findings.push(draft.node, message);
            }
            units |= bit;
        }
        wishes.push((node, Share::Units(device, units)));
    }
}

/// `polled` names only what the partition has in part.
pub(super) fn check_polled(
    draft: &Draft<'_>,
    access: &Access<'_>,
    board: &Tree<'_>,
    findings: &mut Findings,
) {
    for &name in &draft.polled {
        let path = board.find(name).map(Node::path);
        if !access.windows.iter().any(|window| Some(window.path) == path && window.part.is_some()) {
            let name = super::names::Quoted(name);
            let message = text!(
                "polled names {name}, of which the partition has nothing by access-registers or gpio-pins"
            );
            findings.push(draft.node, message);
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
pub(super) fn part(
    claim: &Claim<'_, '_>,
    polled: bool,
    platform: &Platform<'_>,
    findings: &mut Findings,
) -> Option<DevicePart> {
    if let Share::Registers = claim.share
        && claim.node.property("#clock-cells").is_some()
    {
        let message = text!(
            "{} switches the clocks of its neighbours; give it by access, and them to the same partition",
            claim.node.path()
        );
        findings.push(claim.draft.node, message);
    }
    let (units, quiet) = match claim.share {
        Share::Whole => return None,
        Share::Registers => (None, interrupt_enables(claim.node, platform).next().is_some()),
        Share::Units(device, units) => (Some((device, units)), !device.interrupt_per_unit),
    };
    if polled && !quiet {
        let message = text!(
            "{} cannot be polled: Bulkhead does not know how to keep its interrupt from rising",
            claim.node.path()
        );
        findings.push(claim.draft.node, message);
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
) -> Vec<Rule> {
    if let Some((device, units)) = part.units {
        return rules_for(device, units, start, part.polled);
    }
    let last = u64::from(start).saturating_add(size).saturating_sub(1) as u16;
    let mut rules = alloc::vec![Rule { first: start, last, mask: u32::MAX, write: Write::Zeros }];
    for enable in interrupt_enables(node, platform).filter(|_| part.polled && first) {
        let first = start.saturating_add(enable.offset);
        let last = first.saturating_add(3);
        rules.push(Rule { first, last, mask: !enable.bits, write: Write::Zeros });
    }
    rules
}
