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
        let usable = usable.map_or(u64::MAX, u64::from);
        let (unit, path) = (device.unit, node.path());
        let mut units = 0_u64;
        for &number in numbers {
            let bit = 1_u64.checked_shl(number).filter(|_| number < device.units.into()).unwrap_or(0);
            if bit == 0 {
                let last = u32::from(device.units).saturating_sub(1);
                findings.push(draft.node, text!("there is no {unit} {number}; {path} has 0 to {last}"));
            } else if units & bit != 0 {
                findings.push(draft.node, text!("{property} lists {unit} {number} twice"));
            } else if usable & bit == 0 {
                findings.push(draft.node, text!("{unit} {number} of {path} is the firmware's; take another"));
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
        if !access.parts.iter().any(|part| Some(part.path) == path) {
            let name = super::names::Quoted(name);
            let message = text!(
                "polled names {name}, of which the partition has nothing by access-registers or gpio-pins"
            );
            findings.push(draft.node, message);
        }
    }
}

/// Where a claimed device enables its interrupt.
fn interrupt_enable(claim: &Claim<'_, '_>, platform: &Platform<'_>) -> Option<&'static InterruptEnable> {
    let known = platform.board.map_or(&[][..], |board| board.interrupt_enables);
    known.iter().find(|enable| claim.node.is_compatible(enable.compatible))
}

/// A claim to a part, if it can be polled where it is to be.
pub(super) fn part<'a>(
    claim: &Claim<'_, 'a>,
    polled: bool,
    platform: &Platform<'_>,
    findings: &mut Findings,
) -> DevicePart<'a> {
    let path = claim.node.path();
    let (units, quiet) = match claim.share {
        Share::Units(device, units) => (Some((device, units)), !device.interrupt_per_unit),
        _ => (None, interrupt_enable(claim, platform).is_some()),
    };
    if polled && !quiet {
        let message =
            text!("{path} cannot be polled: Bulkhead does not know how to keep its interrupt from rising");
        findings.push(claim.draft.node, message);
    }
    DevicePart { path, polled, units }
}

/// The rules of a claim for `size` bytes of registers, which begin at `start` in their page. `polled`: the register that enables
/// the interrupt is one of them.
pub(super) fn rules(
    claim: &Claim<'_, '_>,
    start: u16,
    size: u64,
    polled: bool,
    platform: &Platform<'_>,
) -> Vec<Rule> {
    if let Share::Units(device, units) = claim.share {
        return rules_for(device, units, start, polled);
    }
    let mut rules = Vec::with_capacity(2);
    let mut words = |first: u16, size: u64, mask| {
        let last = u64::from(first).saturating_add(size).saturating_sub(1) as u16;
        rules.push(Rule { first, last, mask, write: Write::Zeros });
    };
    words(start, size, u32::MAX);
    if let Some(enable) = interrupt_enable(claim, platform).filter(|_| polled) {
        words(start.saturating_add(enable.offset), 4, !enable.bits);
    }
    rules
}
