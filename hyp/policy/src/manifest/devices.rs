//! Which devices a partition gets.
//!
//! A device is more than its node: a page of registers may hold another device, an interrupt line may be
//! shared, and a DMA master reaches all memory. Whatever cannot be kept apart is refused.

use alloc::vec::Vec;
use core::{fmt, iter};

use bulkhead_board::devices::{ALL_MEMORY, Class};
use bulkhead_board::divided::DividedDevice;

use super::names::{self, Quoted};
use super::{Draft, Findings, MAX_DMA_RANGES, UNPROTECTED_DMA, parts};
use crate::addr::{Ipa, PAGE_SIZE, Pa, Region};
use crate::irq::IntId;
use crate::plan::{DevicePart, DeviceWindow, DmaRisk, OwnedInterrupt};
use crate::platform::{Platform, is_pmu};
use crate::shared_page::SharedPage;
use crate::stage2::IPA_BITS;
use crate::tree::{GicInterrupt, Node, Property, Tree, cut};

/// What the devices that a partition names come to.
#[derive(Default)]
pub(super) struct Access<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    pub(super) windows: Vec<DeviceWindow<'a>>,
    pub(super) shared_pages: Vec<SharedPage>,
    pub(super) interrupts: Vec<OwnedInterrupt>,
    pub(super) unprotected: Vec<DmaRisk<'a>>,
}

/// Resolves the devices that partitions name, and compares them.
pub(super) fn check<'a>(
    drafts: &[Draft<'_>],
    platform: &Platform<'_>,
    board: &'a Tree<'a>,
    findings: &mut Findings,
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
        for (list, share) in [
            (&draft.unprotected, None),
            (&draft.access, Some(Share::Whole)),
            (&draft.access_registers, Some(Share::Registers)),
        ] {
            for name in list {
                match (board.find(name), share) {
                    (Some(node), Some(share)) => wishes.push((node, share)),
                    (Some(node), None) => unprotected.push(node),
                    (None, _) => {
                        let property = share.map_or(UNPROTECTED_DMA, Share::property);
                        unknown(draft.node, property, name, board, findings);
                    }
                }
            }
        }
        parts::units(draft, platform, board, &mut wishes, findings);
        for node in &unprotected {
            if !wishes.iter().any(|(wish, _)| wish == node) {
                let message =
                    text!("unprotected-dma names {}, which is not in access; add it there", node.path());
                findings.push(draft.node, message);
            }
        }
        for (node, share) in wishes {
            match refusal(node, unprotected.contains(&node), &registers, platform) {
                Some(reason) => findings.push(draft.node, text!("{} {reason}", node.path())),
                None => claim(Claim { partition, draft, node, share }, &mut claims, findings),
            }
            if unprotected.contains(&node)
                && let Some(access) = accesses.get_mut(partition)
            {
                access.unprotected.push(reach(node, draft, platform, findings));
            }
        }
    }
    for claim in &claims {
        let Some(access) = accesses.get_mut(claim.partition) else { continue };
        access.nodes.push(claim.node);
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
    shared_interrupts(drafts, &accesses, platform, findings);
    accesses
}

/// A partition's wish for a device.
#[derive(Clone, Copy)]
pub(super) struct Claim<'d, 'a> {
    pub(super) partition: usize,
    pub(super) draft: &'d Draft<'d>,
    pub(super) node: Node<'a>,
    pub(super) share: Share,
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

impl Share {
    fn property(self) -> &'static str {
        match self {
            Self::Whole => "access",
            Self::Registers => "access-registers",
            Self::Units(device, _) => device.property,
        }
    }
}

pub(super) fn unknown(node: Node<'_>, property: &str, name: &str, board: &Tree<'_>, findings: &mut Findings) {
    let aliases = board.root().child("aliases");
    let mut paths = board.nodes().map(Node::path);
    let mut aliases = aliases.iter().flat_map(|node| node.properties()).map(|alias| alias.name);
    let (kind, mut candidates): (_, &mut dyn Iterator<Item = _>) =
        if name.starts_with('/') { ("node", &mut paths) } else { ("alias", &mut aliases) };
    let mut none = iter::empty();
    if !findings.wants_more() {
        candidates = &mut none;
    }
    let offer = names::offer(name, candidates);
    let name = Quoted(name);
    findings.push(node, text!("{property} names {name}, but the board's tree has no such {kind}{offer}"));
}

/// Adds a claim if nobody else has one to the same device, or to one above or below it.
fn claim<'d, 'a>(new: Claim<'d, 'a>, claims: &mut Vec<Claim<'d, 'a>>, findings: &mut Findings) {
    let path = new.node.path();
    for old in claims.iter().filter(|old| old.node.is_above(new.node) || new.node.is_above(old.node)) {
        let (owner, other) = (old.draft.node.path(), old.node.path());
        let same = old.partition == new.partition;
        let property = new.share.property();
        if !same && let (Share::Units(device, owned), Share::Units(_, units)) = (old.share, new.share) {
            let (unit, both) = (device.unit, owned & units);
            if both != 0 {
                let number = both.trailing_zeros();
                let message = text!(
                    "{unit} {number} of {path} is already given to {owner}; give each {unit} to one partition"
                );
                return findings.push(new.draft.node, message);
            }
            continue;
        }
        let message = match other == path {
            true if same => text!("{property} names {path} twice"),
            _ if same => text!("access names {path} and {other}; the upper one includes the other"),
            true => {
                text!("{path} is already given to {owner}; give each device to one partition")
            }
            _ => text!("{path} belongs together with {other}, which is given to {owner}"),
        };
        return findings.push(new.draft.node, message);
    }
    claims.push(new);
}

/// Why a partition cannot have a node.
enum Refusal {
    /// It is given to nobody, for this reason.
    Kept(&'static str),
    /// It reaches memory, as this shows.
    DmaMaster(&'static str),
    Other(&'static str),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kept(why) => write!(f, "is given to nobody: {why}"),
            Self::DmaMaster(mark) => write!(
                f,
                "is a DMA master ({mark}), and the board has no SMMU to confine it: it could reach all memory; \
                 name it in unprotected-dma as well if its owner may"
            ),
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

/// Why a partition cannot have this node; `unprotected` where the manifest allows it to reach memory.
fn refusal(
    node: Node<'_>,
    unprotected: bool,
    registers: &[(Region<Pa>, Node<'_>)],
    platform: &Platform<'_>,
) -> Option<Refusal> {
    let path = node.path();
    let (top, _) = cut(path.strip_prefix('/').unwrap_or(path), b'/');
    let below_gic = path.strip_prefix(platform.gic_path);
    let below_gic = below_gic.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let emulated =
        |name: &[u8]| *name == b"arm,armv8-timer"[..] || name.starts_with(b"arm,psci") || is_pmu(name);
    let class = class(node, platform);
    let has_registers = node.property("reg").is_some();
    let reason = if matches!(top, "" | "chosen" | "aliases") {
        "is no device"
    } else if top == "cpus" {
        "is no device; name CPUs in cpus"
    } else if node.is_memory() || top == "reserved-memory" {
        "is no device; name memory in memory"
    } else if below_gic || node.compatible().any(emulated) {
        "is something of which every partition gets its own; take it out of access"
    } else if let Class::Kept(why) = class {
        return Some(Refusal::Kept(why));
    } else if class == Class::Shadow {
        "shows the registers of another device; name that one"
    } else if !node.is_enabled() && !completes_a_page(node, registers) {
        "is disabled on this board"
    } else if has_registers && let Some(mark) = dma_mark(node, class, platform).filter(|_| !unprotected) {
        return Some(Refusal::DmaMaster(mark));
    } else if node.property("ranges").is_some() {
        "is a bus; name the devices below it (what is behind a PCI host cannot be given away)"
    } else if !has_registers {
        "has no registers"
    } else {
        return None;
    };
    Some(Refusal::Other(reason))
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
    draft: &Draft<'_>,
    platform: &Platform<'_>,
    findings: &mut Findings,
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
            let message = text!(
                "{path} does not reach memory {memory}; what it reaches ends at {last:#x}: move memory there"
            );
            findings.push(draft.node, message);
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
    findings: &mut Findings,
) {
    let (node, partition) = (claim.node, claim.draft.node);
    let path = node.path();
    for (index, block) in node.reg().enumerate() {
        let place = block.and_then(|block| Some((block, page_of(block)?)));
        let Some((block, pages)) = place.filter(|(_, pages)| pages.last().raw() >> IPA_BITS == 0) else {
            let message = text!("{path} has registers that no CPU reaches below 2^{IPA_BITS}");
            findings.push(partition, message);
            continue;
        };
        if let Some(ram) = platform.ram.iter().find(|ram| ram.overlaps(pages)) {
            findings.push(partition, text!("{path} has registers at {pages} in the RAM at {ram}"));
        }
        let (own, what) = if part.is_none() { (pages, "page") } else { (block, "registers") };
        for (other_block, other) in registers {
            if !other_block.overlaps(own) || node.is_above(*other) {
                continue;
            }
            let owner = claims.iter().find(|claim| claim.node.is_above(*other));
            let other_path = other.path();
            let whose = match owner {
                Some(owner) if owner.partition == claim.partition => continue,
                Some(owner) => {
                    text!("which is given to {}; give both to one partition", owner.draft.node.path())
                }
                None if other_path == platform.gic_path
                    || platform.uart.is_some_and(|uart| uart.path == other_path) =>
                {
                    text!("which the hypervisor keeps")
                }
                None => text!("which nobody is given; give both to one partition"),
            };
            findings.push(partition, text!("{path} shares the {what} at {own} with {other_path}, {whose}"));
        }
        let (start, size) = (pages.start(), pages.size());
        access.windows.push(DeviceWindow { path, ipa: Ipa::new(start.raw()), pa: start, size, part });
        let Some(part) = part else { continue };
        if size != PAGE_SIZE || !block.is_aligned(4) {
            let message =
                text!("{path} has registers that are no whole words in one page; give it by access");
            findings.push(partition, message);
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
    findings: &mut Findings,
) {
    let partition = claim.draft.node;
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
                findings.push(partition, text!("{path} has interrupts that cannot be read"));
                break;
            };
            if controller.path() != platform.gic_path {
                // Several partitions may have parts of it.
                let has = |other: &Claim<'_, 'a>| {
                    other.partition == claim.partition && other.node.is_above(controller)
                };
                if !claims.iter().any(has) {
                    let controller = controller.path();
                    let message = text!("{path} interrupts through {controller}; give both to one partition");
                    findings.push(partition, message);
                }
                continue;
            }
            let spi = match specifier.gic() {
                Some(GicInterrupt::Spi(number, trigger)) => IntId::spi(number).map(|intid| (intid, trigger)),
                _ => None,
            };
            let Some((intid, trigger)) = spi else {
                let message = text!("{path} has an interrupt that is no SPI, so no one partition can own it");
                findings.push(partition, message);
                continue;
            };
            if !access.interrupts.iter().any(|owned| owned.intid == intid) {
                access.interrupts.push(OwnedInterrupt { intid, trigger });
            }
        }
    }
}

/// Each SPI has one owner.
fn shared_interrupts(
    drafts: &[Draft<'_>],
    accesses: &[Access<'_>],
    platform: &Platform<'_>,
    findings: &mut Findings,
) {
    let mut owners: Vec<(IntId, usize)> = Vec::new();
    for (partition, (draft, access)) in drafts.iter().zip(accesses).enumerate() {
        for owned in &access.interrupts {
            let other = owners.iter().find(|(intid, _)| *intid == owned.intid);
            if let Some(other) = other.and_then(|(_, other)| drafts.get(*other)) {
                let (intid, other) = (owned.intid, other.node.path());
                let message = text!(
                    "{intid} is shared with a device of {other}; give both devices to one partition, or one by access-registers and polled"
                );
                findings.push(draft.node, message);
            }
            owners.push((owned.intid, partition));
        }
        if let Some(uart) = platform.uart
            && let Some(intid) = uart.intid
            && !accesses.iter().any(|access| access.nodes.iter().any(|node| node.path() == uart.path))
            && access.interrupts.iter().any(|owned| owned.intid == intid)
        {
            let message = text!(
                "{intid} is shared with {}, which the hypervisor keeps; give the device by access-registers and polled",
                uart.path
            );
            findings.push(draft.node, message);
        }
    }
}
