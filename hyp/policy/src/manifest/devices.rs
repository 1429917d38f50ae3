//! Which devices a partition gets.
//!
//! A device is more than its node: a page of registers may hold another device, an interrupt line may be
//! shared, and a DMA master reaches all memory. Whatever cannot be kept apart is refused.

use alloc::vec::Vec;

use bulkhead_board::devices::{ALL_MEMORY, Class};
use bulkhead_board::divided::DividedDevice;

use super::draft::Draft;
use super::properties::Key;
use super::rules::{Rule, Value};
use super::{At, Findings, MAX_DMA_RANGES, parts};
use crate::addr::{Ipa, PAGE_SIZE, Pa, Region};
use crate::irq::IntId;
use crate::plan::{DevicePart, DeviceWindow, DmaRisk, OwnedInterrupt};
use crate::platform::{Platform, is_pmu};
use crate::shared_page::SharedPage;
use crate::stage2::IPA_BITS;
use crate::tree::{GicInterrupt, Node, Property, Specifier, Tree, cut};

/// What the devices that a partition names come to.
#[derive(Default)]
pub(super) struct Access<'a> {
    /// The devices, and where each is named.
    pub(super) nodes: Vec<(Node<'a>, At)>,
    pub(super) windows: Vec<DeviceWindow<'a>>,
    /// Where the device of each window is named.
    pub(super) places: Vec<At>,
    pub(super) shared_pages: Vec<SharedPage>,
    pub(super) interrupts: Vec<OwnedInterrupt>,
    /// Where the device of each interrupt is named.
    pub(super) interrupt_places: Vec<(IntId, At)>,
    pub(super) unprotected: Vec<DmaRisk<'a>>,
}

/// Resolves the devices that partitions name, and compares them.
pub(super) fn check<'a>(
    drafts: &[Draft<'a>],
    platform: &Platform<'a>,
    board: &'a Tree<'a>,
    findings: &mut Findings<'a>,
) -> Vec<Access<'a>> {
    let mut claims: Vec<Claim<'_, 'a>> = Vec::new();
    let mut accesses: Vec<Access<'a>> = Vec::new();
    accesses.resize_with(drafts.len(), Access::default);
    if drafts.iter().all(Draft::names_no_device) {
        return accesses;
    }
    let registers = registers(board, platform);
    for (partition, draft) in drafts.iter().enumerate() {
        let (mut unprotected, mut wishes) = (Vec::new(), Vec::new());
        for (list, key, share) in [
            (&draft.unprotected, Key::UnprotectedDma, None),
            (&draft.access, Key::Access, Some(Share::Whole)),
            (&draft.access_registers, Key::AccessRegisters, Some(Share::Registers)),
        ] {
            for (entry, name) in list.iter().enumerate() {
                let at = draft.entry_of(key, entry);
                match (board.find(name), share) {
                    (Some(node), Some(share)) => wishes.push((node, share, at)),
                    (Some(node), None) => unprotected.push((node, at)),
                    (None, _) => unknown(at, name, findings),
                }
            }
        }
        parts::units(draft, platform, board, &mut wishes, findings);
        for (node, at) in &unprotected {
            if !wishes.iter().any(|(wish, ..)| wish == node) {
                findings.push_text(Rule::UnprotectedNoAccess, *at, node.path());
            }
        }
        for (node, share, place) in wishes {
            let allowed = unprotected.iter().find(|(other, _)| *other == node);
            match refusal(node, allowed.is_some(), &registers, platform) {
                Some((rule, why)) => {
                    findings.push(rule, place, &[Value::Text(node.path()), Value::Text(why)]);
                }
                None => claim(Claim { partition, draft, node, share, place }, &mut claims, findings),
            }
            if let Some((_, at)) = allowed
                && let Some(access) = accesses.get_mut(partition)
            {
                access.unprotected.push(reach(node, draft, *at, platform, findings));
            }
        }
    }
    for claim in &claims {
        let Some(access) = accesses.get_mut(claim.partition) else { continue };
        access.nodes.push((claim.node, claim.place));
        let polled = claim.draft.polled.iter().any(|name| board.find(name) == Some(claim.node));
        let part = parts::part(claim, polled, platform, findings);
        windows(claim, part, &claims, &registers, platform, access, findings);
        if !polled {
            interrupts(claim, &claims, platform, access, findings);
        }
    }
    for (draft, access) in drafts.iter().zip(&accesses) {
        parts::check_polled(draft, access, board, findings);
    }
    shared_interrupts(&accesses, platform, findings);
    accesses
}

/// A partition's wish for a device.
#[derive(Clone, Copy)]
pub(super) struct Claim<'d, 'a> {
    pub(super) partition: usize,
    pub(super) draft: &'d Draft<'a>,
    pub(super) node: Node<'a>,
    pub(super) share: Share,
    /// Where the manifest names it.
    pub(super) place: At,
}

impl Claim<'_, '_> {
    /// Where the manifest names one of its units.
    fn unit_place(&self, device: &DividedDevice, unit: u32) -> At {
        let numbers = self.draft.node.property(device.property).and_then(Property::u32s);
        let entry = numbers.and_then(|mut numbers| numbers.position(|number| number == unit));
        At { entry: entry.map_or(At::WHOLE, |entry| entry as u16), ..self.place }
    }
}

/// How much of it.
#[derive(Clone, Copy)]
pub(super) enum Share {
    /// Its pages.
    Whole,
    /// Its registers, not the pages around them.
    Registers,
    /// The registers of these of its units, one bit for each.
    Units(&'static DividedDevice, u64),
}

/// A name that stands for nothing on the board.
pub(super) fn unknown<'a>(at: At, name: &'a str, findings: &mut Findings<'a>) {
    let rule = if name.starts_with('/') { Rule::NoSuchPath } else { Rule::NoSuchAlias };
    findings.push_text(rule, at, name);
}

/// Adds a claim if nobody else has one to the same device, or to one above or below it.
fn claim<'d, 'a>(new: Claim<'d, 'a>, claims: &mut Vec<Claim<'d, 'a>>, findings: &mut Findings<'a>) {
    let path = Value::Text(new.node.path());
    for old in claims.iter().filter(|old| old.node.is_above(new.node) || new.node.is_above(old.node)) {
        let other = Value::Text(old.node.path());
        let same = old.partition == new.partition;
        if !same && let (Share::Units(device, owned), Share::Units(_, units)) = (old.share, new.share) {
            let both = owned & units;
            if both != 0 {
                let number = Value::Number(both.trailing_zeros().into());
                let values = [Value::Text(device.unit), number, path];
                let place = |claim: &Claim<'_, '_>| claim.unit_place(device, both.trailing_zeros());
                return findings.push_with(Rule::UnitOwned, place(&new), place(old), &values);
            }
            continue;
        }
        let rule = match (same, old.node == new.node) {
            (true, true) => Rule::DeviceTwice,
            (true, false) => Rule::DeviceIncluded,
            (false, true) => Rule::DeviceOwned,
            (false, false) => Rule::DeviceBelowOwned,
        };
        return findings.push_with(rule, new.place, old.place, &[path, other]);
    }
    claims.push(new);
}

/// Why a partition cannot have this node; `unprotected` where the manifest allows it to reach memory.
fn refusal(
    node: Node<'_>,
    unprotected: bool,
    registers: &[(Region<Pa>, Node<'_>)],
    platform: &Platform<'_>,
) -> Option<(Rule, &'static str)> {
    let path = node.path();
    let (top, _) = cut(path.strip_prefix('/').unwrap_or(path), b'/');
    let below_gic = path.strip_prefix(platform.gic_path);
    let below_gic = below_gic.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let emulated =
        |name: &[u8]| *name == b"arm,armv8-timer"[..] || name.starts_with(b"arm,psci") || is_pmu(name);
    let class = class(node, platform);
    let has_registers = node.property("reg").is_some();
    let rule = if matches!(top, "" | "chosen" | "aliases") {
        Rule::NoDevice
    } else if top == "cpus" {
        Rule::CpuAsDevice
    } else if node.is_memory() || top == "reserved-memory" {
        Rule::MemoryAsDevice
    } else if below_gic || node.compatible().any(emulated) {
        Rule::EveryonesOwn
    } else if let Class::Kept(why) = class {
        return Some((Rule::DeviceKept, why));
    } else if class == Class::Shadow {
        Rule::Shadow
    } else if !node.is_enabled() && !completes_a_page(node, registers) {
        Rule::Disabled
    } else if has_registers && let Some(mark) = dma_mark(node, class, platform).filter(|_| !unprotected) {
        return Some((Rule::DmaMaster, mark));
    } else if node.property("ranges").is_some() {
        Rule::Bus
    } else if !has_registers {
        Rule::NoRegisters
    } else {
        return None;
    };
    Some((rule, ""))
}

/// Whether an enabled device cannot be given away without this one: they share a page.
fn completes_a_page(node: Node<'_>, registers: &[(Region<Pa>, Node<'_>)]) -> bool {
    let mut own = registers.iter().filter(|(_, other)| *other == node);
    own.any(|(block, _)| {
        let pages = page_of(*block);
        registers
            .iter()
            .any(|(other, node)| node.is_enabled() && pages.is_some_and(|pages| pages.overlaps(*other)))
    })
}

/// What a device can do to others as the board's data say. What the data do not know may reach all memory.
fn class(node: Node<'_>, platform: &Platform<'_>) -> Class {
    match platform.board.filter(|board| !board.devices.is_empty()) {
        None => Class::Plain,
        Some(board) => board.class(node.compatible()).unwrap_or(Class::Master(ALL_MEMORY)),
    }
}

/// What tells that a device reads and writes memory by itself.
fn dma_mark(node: Node<'_>, class: Class, platform: &Platform<'_>) -> Option<&'static str> {
    const PROPERTIES: [&str; 4] = ["dma-coherent", "iommus", "iommu-map", "#dma-cells"];
    if let Some(mark) = PROPERTIES.into_iter().find(|name| node.property(name).is_some()) {
        return Some(mark);
    }
    let device_type = node.property("device_type").and_then(Property::string);
    if device_type == Some("pci") || node.compatible().any(|name| name.starts_with(b"pci-host-")) {
        return Some("PCI host");
    }
    if let Class::Master(_) = class {
        let known = platform.board.is_some_and(|board| board.class(node.compatible()).is_some());
        return Some(if known { "as this board's data say" } else { "for all that is known of it" });
    }
    node.is_compatible("virtio,mmio").then_some("virtio,mmio")
}

/// How far a device reaches that may, and whether its owner's memory is where it does.
fn reach<'a>(
    node: Node<'a>,
    draft: &Draft<'a>,
    at: At,
    platform: &Platform<'_>,
    findings: &mut Findings<'a>,
) -> DmaRisk<'a> {
    let path = node.path();
    let limit = match class(node, platform) {
        Class::Master(limit) => limit,
        _ => ALL_MEMORY,
    };
    let mut seen = Vec::new();
    let mut entries = 0_usize;
    while let Some((_, memory)) = node.dma_range(entries).filter(|_| entries < MAX_DMA_RANGES) {
        seen.extend(memory);
        entries = entries.wrapping_add(1);
    }
    if entries == 0 {
        seen.extend(Region::new(Pa::new(0), limit));
    }
    let last = seen.iter().map(|seen| seen.last().raw()).max().unwrap_or(0).min(limit.wrapping_sub(1));
    for range in &draft.memory {
        let Some(memory) = range.pa.and_then(|pa| Region::new(pa, range.ipa.size())) else { continue };
        if memory.last().raw() > last || !seen.iter().any(|seen| seen.encloses(memory)) {
            let values = [Value::Text(path), memory.into(), Value::Number(last)];
            findings.push_with(Rule::OutOfReach, at, draft.range(range.index), &values);
        }
    }
    let below = (limit != ALL_MEMORY).then_some(Pa::new(last.saturating_add(1)));
    DmaRisk { path, below }
}

/// The whole pages that a register block touches.
pub(super) fn page_of(registers: Region<Pa>) -> Option<Region<Pa>> {
    let mask = PAGE_SIZE.wrapping_sub(1);
    let start = registers.start().raw() & !mask;
    Region::new(Pa::new(start), (registers.last().raw() | mask).wrapping_sub(start).checked_add(1)?)
}

/// All register blocks on the board.
fn registers<'a>(board: &'a Tree<'a>, platform: &Platform<'_>) -> Vec<(Region<Pa>, Node<'a>)> {
    let mut registers = Vec::new();
    for node in board.nodes() {
        let is_device = !node.is_memory() && !node.path().starts_with("/reserved-memory/");
        if is_device && class(node, platform) != Class::Shadow {
            registers.extend(node.reg().flatten().map(|block| (block, node)));
        }
    }
    registers
}

/// Adds the registers of a claimed device, or the pages around them, if nothing else lives there.
fn windows<'a>(
    claim: &Claim<'_, 'a>,
    part: Option<DevicePart>,
    claims: &[Claim<'_, 'a>],
    registers: &[(Region<Pa>, Node<'a>)],
    platform: &Platform<'_>,
    access: &mut Access<'a>,
    findings: &mut Findings<'a>,
) {
    let (node, at) = (claim.node, claim.place);
    let path = node.path();
    let named = Value::Text(path);
    for (index, block) in node.reg().enumerate() {
        let place = block.and_then(|block| Some((block, page_of(block)?)));
        let Some((block, pages)) = place.filter(|(_, pages)| pages.last().raw() >> IPA_BITS == 0) else {
            findings.push(Rule::Unreachable, at, &[named, Value::Number(IPA_BITS.into())]);
            continue;
        };
        if let Some(ram) = platform.ram.iter().find(|ram| ram.overlaps(pages)) {
            findings.push(Rule::RegistersInRam, at, &[named, pages.into(), (*ram).into()]);
        }
        let own = if part.is_none() { pages } else { block };
        for (other_block, other) in registers {
            if !other_block.overlaps(own) || node.is_above(*other) || findings.is_full() {
                continue;
            }
            let owner = claims.iter().find(|claim| claim.node.is_above(*other));
            let other = other.path();
            let values = [named, own.into(), Value::Text(other)];
            let is_kept = other == platform.gic_path || platform.uart.is_some_and(|uart| uart.path == other);
            match owner {
                Some(owner) if owner.partition == claim.partition => {}
                Some(owner) => {
                    let rule = if part.is_none() { Rule::PageOfOther } else { Rule::RegistersOfOther };
                    findings.push_with(rule, at, owner.place, &values);
                }
                None => {
                    let rule = match (part, is_kept) {
                        (None, true) => Rule::PageOfHypervisor,
                        (None, false) => Rule::PageOfNobody,
                        (Some(_), true) => Rule::RegistersOfHypervisor,
                        (Some(_), false) => Rule::RegistersOfNobody,
                    };
                    findings.push(rule, at, &values);
                }
            }
        }
        let (start, size) = (pages.start(), pages.size());
        access.places.push(at);
        access.windows.push(DeviceWindow { path, ipa: Ipa::new(start.raw()), pa: start, size, part });
        let Some(part) = part else { continue };
        if size != PAGE_SIZE || !block.is_aligned(4) {
            findings.push_text(Rule::NotWords, at, path);
        } else if index == 0 || part.units.is_none() {
            let first = block.start().raw().wrapping_sub(start.raw()) as u16;
            let rules = parts::rules(node, part, first, block.size(), index == 0, platform);
            match access.shared_pages.iter_mut().find(|old| old.page == start) {
                Some(old) => old.rules.extend(rules),
                None => access.shared_pages.push(SharedPage { page: start, rules }),
            }
        }
    }
}

/// Adds the interrupts of a claimed device and of what is below it.
fn interrupts<'a>(
    claim: &Claim<'_, 'a>,
    claims: &[Claim<'_, 'a>],
    platform: &Platform<'_>,
    access: &mut Access<'a>,
    findings: &mut Findings<'a>,
) {
    let at = claim.place;
    for node in claim.node.subtree() {
        let path = node.path();
        for (index, interrupt) in node.interrupts().enumerate() {
            if let Share::Units(device, units) = claim.share
                && (node != claim.node
                    || device.interrupt_per_unit && units.checked_shr(index as u32).unwrap_or(0) & 1 == 0)
            {
                continue;
            }
            let Some((controller, specifier)) = interrupt else {
                findings.push_text(Rule::InterruptUnreadable, at, path);
                break;
            };
            if controller.path() != platform.gic_path {
                // Several partitions may have parts of it.
                let has = |other: &Claim<'_, 'a>| {
                    other.partition == claim.partition && other.node.is_above(controller)
                };
                if !claims.iter().any(has) {
                    findings.push(
                        Rule::OtherController,
                        at,
                        &[Value::Text(path), Value::Text(controller.path())],
                    );
                }
                continue;
            }
            let spi = match specifier.gic() {
                Some(GicInterrupt::Spi(number, trigger)) => IntId::spi(number).map(|intid| (intid, trigger)),
                _ => None,
            };
            let Some((intid, trigger)) = spi else {
                findings.push_text(Rule::NoSpi, at, path);
                continue;
            };
            if !platform.has(intid) {
                let last = Value::Number(platform.spis.saturating_sub(1).into());
                let values = [Value::Text(path), Value::Number(intid.raw().into()), last];
                findings.push(Rule::NoSuchSpi, at, &values);
            }
            if let Some(kind) = foreign_trigger(specifier) {
                findings.push(Rule::NoTrigger, at, &[Value::Text(path), Value::Number(kind.into())]);
            }
            if !access.interrupts.iter().any(|owned| owned.intid == intid) {
                access.interrupts.push(OwnedInterrupt { intid, trigger });
                access.interrupt_places.push((intid, at));
            }
        }
    }
}

/// The trigger of an SPI where it is one that a GIC has not: it knows rising edges (1) and high levels (4), and where a tree says
/// nothing (0) takes a level (IHI 0069, 4.5; Linux binding `arm,gic-v3`).
fn foreign_trigger(specifier: Specifier) -> Option<u32> {
    let flags = specifier.cells().get(2)? & 15;
    (!matches!(flags, 0 | 1 | 4)).then_some(flags)
}

/// Each SPI has one owner.
fn shared_interrupts<'a>(accesses: &[Access<'a>], platform: &Platform<'a>, findings: &mut Findings<'a>) {
    let mut owners: Vec<(IntId, At)> = Vec::new();
    for access in accesses {
        for &(intid, at) in &access.interrupt_places {
            if let Some((_, other)) = owners.iter().find(|(owned, _)| *owned == intid) {
                findings.push_with(Rule::InterruptShared, at, *other, &[Value::Number(intid.raw().into())]);
            }
            if let Some(uart) = platform.uart
                && uart.intid == Some(intid)
                && !accesses
                    .iter()
                    .any(|access| access.nodes.iter().any(|(node, _)| node.path() == uart.path))
            {
                let values = [Value::Number(intid.raw().into()), Value::Text(uart.path)];
                findings.push(Rule::InterruptOfHypervisor, at, &values);
            }
        }
        owners.extend(&access.interrupt_places);
    }
}
