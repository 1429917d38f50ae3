//! The manifest: who owns what, checked whole before anything starts.
//!
//! [`check`] is the only way to a [`Plan`], on the developer's desk and again at boot. It goes on after an
//! error so that one run names every fault, and each finding says where it is, who the two parties are and which
//! rule is broken. The reference of the properties is `hyp/docs/manifest.md`, that of the rules `hyp/docs/rules.md`.

use alloc::vec::Vec;

use crate::addr::{Ipa, Region};
use crate::plan::{MAX_CPUS, MAX_VCPUS, MemoryWindow, PartitionPlan, Plan};
use crate::platform::{self, EnableMethod, Gic, Platform};
use crate::stage2::Stage2;
use crate::tree::{Node, Tree};
use crate::{bundle, inventory};

mod devices;
mod draft;
mod layout;
mod memory;
mod parts;
pub mod properties;
pub mod rules;
#[cfg(test)]
pub(crate) mod tests;

use devices::Access;
use draft::Draft;
use memory::Pool;
use properties::Reader;
pub use properties::{Form, Key};
pub use rules::{Finding, Place, Rule, Value};

/// The root's `compatible`.
pub const COMPATIBLE: &str = "bulkhead,manifest-v1";
/// Name of the compiled manifest in the bundle.
pub const BUNDLE_ENTRY: &str = "manifest.dtb";
/// Names in the bundle that no payload can have.
const RESERVED_NAMES: [&str; 3] = [BUNDLE_ENTRY, inventory::ENTRY, bundle::TRAILER];
/// Space kept for a guest's device tree, in bytes.
pub const DTB_SPACE: u64 = 64 << 10;

/// Entries of one bus's `dma-ranges` that count; with more, a device reaches less than it could.
pub(crate) const MAX_DMA_RANGES: usize = 64;
/// The most ranges of one partition's memory.
pub const MAX_RANGES: usize = 16;
/// The most entries of a list: as many as there can be CPUs, or units of a device.
pub const MAX_LIST: usize = MAX_CPUS;
/// A longer command line is refused: Linux on arm64 keeps 2048 bytes (`COMMAND_LINE_SIZE`).
pub const MAX_BOOTARGS: usize = 2047;
/// The most characters of a partition's name, as of any node's (Devicetree Specification 2.2.1).
pub const MAX_NAME: usize = 31;
/// The most bytes of a payload's name, as of a file's on Linux (`NAME_MAX`).
pub const MAX_PAYLOAD_NAME: usize = 255;
/// GICv2 has 8 CPU interfaces (IHI 0048, 1.1).
pub const MAX_VCPUS_V2: usize = 8;
/// The most stage-2 tables of all partitions together, 4 KiB each, less [`TABLES_PER_CPU`] for each CPU that a partition has: of the
/// hypervisor's 2 MiB what its image and all else leave.
pub const MAX_TABLES: usize = 432;
/// A CPU's stack takes as much as so many tables.
pub const TABLES_PER_CPU: usize = 4;
/// More findings than this are dropped.
pub const MAX_FINDINGS: usize = 128;

/// Checks a manifest against the machine and lays out every partition.
///
/// `board` is the tree that `platform` was made from; `payload` finds a file of the bundle by its name. The hypervisor's console,
/// [`Platform::uart`], becomes the one that the manifest names.
///
/// # Errors
///
/// Returns every fault that was found, at most [`MAX_FINDINGS`]; never an empty list.
pub fn check<'a>(
    manifest: &'a Tree<'a>,
    platform: &mut Platform<'a>,
    board: &'a Tree<'a>,
    payload: &dyn Fn(&str) -> Option<&'a [u8]>,
) -> Result<Plan<'a>, Vec<Finding<'a>>> {
    check_with(manifest, platform, board, payload, &|_| false)
}

/// The same at boot, where a payload can be other than what was checked on the desk: it is asked whether a kernel that breaks a rule
/// `is_damaged`. Such a kernel is no finding but a partition that does not start, so that the others can; in the plan
/// it has one empty segment, which names it.
///
/// # Errors
///
/// As [`check`].
pub fn check_with<'a>(
    manifest: &'a Tree<'a>,
    platform: &mut Platform<'a>,
    board: &'a Tree<'a>,
    payload: &dyn Fn(&str) -> Option<&'a [u8]>,
    is_damaged: &dyn Fn(&str) -> bool,
) -> Result<Plan<'a>, Vec<Finding<'a>>> {
    let mut findings = Findings { manifest, list: Vec::new() };
    choose_console(manifest.root(), platform, board, &mut findings);
    let platform = &*platform;
    let mut drafts = draft::read(manifest, platform, &mut findings);
    check_cpus(&drafts, platform, &mut findings);
    place_memory(&mut drafts, platform, &mut findings);
    let accesses = devices::check(&drafts, platform, board, &mut findings);
    check_consoles(manifest.root(), &drafts, &accesses, platform, &mut findings);
    let mut plan = Plan { partitions: Vec::with_capacity(drafts.len()) };
    let cpus: usize = drafts.iter().map(|draft| draft.cpus.len()).sum();
    let mut tables = MAX_TABLES.saturating_sub(cpus.saturating_mul(TABLES_PER_CPU));
    for (draft, access) in drafts.iter().zip(accesses) {
        check_addresses(draft, &access, platform, &mut findings);
        let Some(partition) = finish(draft, access, payload, is_damaged, &mut findings) else { continue };
        // What they are allocated from has blocks of a power of two.
        let needed = Stage2::tables_for(&partition.mappings(&platform.gic)).next_power_of_two();
        if needed > tables {
            let values = [needed, tables].map(|tables| Value::Number(tables as u64));
            findings.push(Rule::TooManyTables, draft.at(Key::Memory), &values);
        }
        tables = tables.saturating_sub(needed);
        plan.partitions.push(partition);
    }
    if findings.list.is_empty() { Ok(plan) } else { Err(findings.list) }
}

/// A place in the manifest, small enough for one register: most of them are noted for a finding that never comes.
#[derive(Clone, Copy, PartialEq, Eq)]
struct At {
    node: u32,
    /// [`At::NODE`], [`At::COMPATIBLE`], a [`Key`], or from [`At::OTHERS`] on the position of a property that is none.
    property: u16,
    /// Position in the value, [`At::WHOLE`] for all of it.
    entry: u16,
}

impl At {
    const NODE: u16 = u16::MAX;
    const COMPATIBLE: u16 = 0xff;
    const OTHERS: u16 = 0x100;
    const WHOLE: u16 = u16::MAX;
    /// No place.
    const NOWHERE: Self = Self { node: u32::MAX, property: Self::NODE, entry: Self::WHOLE };

    fn node(node: Node<'_>) -> Self {
        Self { node: node.index(), property: Self::NODE, entry: Self::WHOLE }
    }

    fn property(node: Node<'_>, key: Key) -> Self {
        Self { property: key as u16, ..Self::node(node) }
    }

    fn entry(node: Node<'_>, key: Key, entry: usize) -> Self {
        Self { entry: entry as u16, ..Self::property(node, key) }
    }

    fn resolve<'a>(self, manifest: &'a Tree<'a>) -> Place<'a> {
        let node = manifest.node(self.node);
        let property = match self.property {
            Self::NODE => "",
            Self::COMPATIBLE => "compatible",
            Self::OTHERS.. => {
                let position = self.property.wrapping_sub(Self::OTHERS);
                node.properties().nth(position.into()).map_or("", |property| property.name)
            }
            key => properties::NAMES.get(usize::from(key)).copied().unwrap_or(""),
        };
        Place { node, property, entry: Some(self.entry).filter(|&entry| entry != Self::WHOLE) }
    }
}

/// The faults found so far.
struct Findings<'a> {
    manifest: &'a Tree<'a>,
    list: Vec<Finding<'a>>,
}

impl<'a> Findings<'a> {
    fn push(&mut self, rule: Rule, at: At, values: &[Value<'a>]) {
        self.push_with(rule, at, At::NOWHERE, values);
    }

    /// Whether no more are kept: what would only find more can be left out.
    fn is_full(&self) -> bool {
        self.list.len() >= MAX_FINDINGS
    }

    #[inline(never)]
    fn push_text(&mut self, rule: Rule, at: At, text: &'a str) {
        self.push(rule, at, &[Value::Text(text)]);
    }

    #[inline(never)]
    fn push_number(&mut self, rule: Rule, at: At, number: u64) {
        self.push(rule, at, &[Value::Number(number)]);
    }

    /// A finding with another party.
    #[inline(never)]
    fn push_with(&mut self, rule: Rule, at: At, other: At, values: &[Value<'a>]) {
        if self.is_full() {
            return;
        }
        let other = (other != At::NOWHERE).then(|| other.resolve(self.manifest));
        let at = at.resolve(self.manifest);
        // What two parties share is found from either side.
        let is_mirror =
            |old: &Finding<'_>| old.rule == rule && old.other == Some(at) && other == Some(old.at);
        if !self.list.iter().any(is_mirror) {
            let mut kept = [Value::Number(0); 3];
            kept.iter_mut().zip(values).for_each(|(slot, value)| *slot = *value);
            self.list.push(Finding { rule, at, other, values: kept });
        }
    }
}

/// Each CPU exists, can be started and has one owner.
fn check_cpus<'a>(drafts: &[Draft<'a>], platform: &Platform<'_>, findings: &mut Findings<'a>) {
    let limit = match platform.gic {
        Gic::V3 { .. } => MAX_VCPUS,
        Gic::V2 { .. } => MAX_VCPUS_V2,
    };
    let present = platform.cpus.len().min(MAX_CPUS);
    let mut owners: Vec<At> = alloc::vec![At::NOWHERE; present];
    for draft in drafts {
        if draft.cpus.len() > limit {
            findings.push_number(Rule::TooManyCpus, draft.at(Key::Cpus), limit as u64);
        }
        for (entry, &cpu) in draft.cpus.iter().enumerate() {
            let at = draft.entry_of(Key::Cpus, entry);
            let index = cpu as usize;
            let number = Value::Number(cpu.into());
            let (Some(owner), Some(physical)) = (owners.get_mut(index), platform.cpus.get(index)) else {
                let last = Value::Number(present.saturating_sub(1) as u64);
                findings.push(Rule::NoSuchCpu, at, &[number, last]);
                continue;
            };
            if *owner == At::NOWHERE {
                *owner = at;
            } else {
                let rule = if owner.node == at.node { Rule::CpuTwice } else { Rule::CpuOwned };
                findings.push_with(rule, at, *owner, &[number]);
            }
            // CPU 0 runs already.
            let rule = match physical.enable_method {
                Some(EnableMethod::Psci) if platform.psci.is_none() => Rule::CpuWithoutPsci,
                None => Rule::CpuNotStartable,
                Some(EnableMethod::Psci | EnableMethod::SpinTable { .. }) => continue,
            };
            if index != 0 {
                findings.push_number(rule, at, cpu.into());
            }
        }
    }
}

/// Finds the physical memory: first what the manifest places, then the rest in its order.
fn place_memory<'a>(drafts: &mut [Draft<'a>], platform: &Platform<'a>, findings: &mut Findings<'a>) {
    let mut pool = Pool::new(platform);
    for draft in drafts.iter() {
        for range in &draft.memory {
            if let Some(pa) = range.pa {
                pool.take(pa, range.ipa.size(), draft.placed_by(range.index), findings);
            }
        }
    }
    for draft in drafts {
        let node = draft.node;
        for range in draft.memory.iter_mut().filter(|range| !range.fixed) {
            let at = At::entry(node, Key::Memory, range.index.saturating_mul(2));
            range.pa = pool.choose(range.ipa, at, findings);
        }
    }
}

/// Makes the serial port that `console` of the manifest's root names the hypervisor's.
fn choose_console<'a>(
    root: Node<'a>,
    platform: &mut Platform<'a>,
    board: &'a Tree<'a>,
    findings: &mut Findings<'a>,
) {
    let name = Reader { node: root, findings }.string(Key::Console);
    let Some(name) = name else { return };
    let at = At::property(root, Key::Console);
    let Some(node) = board.find(name) else {
        return devices::unknown(at, name, findings);
    };
    match platform::uart(node) {
        Some(uart) => platform.uart = Some(uart),
        None => {
            let rule = if node.is_enabled() { Rule::NoSerialPort } else { Rule::ConsoleDisabled };
            findings.push_text(rule, at, node.path());
        }
    }
}

/// The real serial port stays with the hypervisor as long as it carries the bytes of emulated ones.
fn check_consoles<'a>(
    root: Node<'a>,
    drafts: &[Draft<'a>],
    accesses: &[Access<'a>],
    platform: &Platform<'a>,
    findings: &mut Findings<'a>,
) {
    let key = Key::Console.name();
    let mut keepers = core::iter::once(root).chain(drafts.iter().map(|draft| draft.node));
    let keeper = keepers.find(|node| node.property(key).is_some());
    let (Some(keeper), Some(uart)) = (keeper, platform.uart) else { return };
    for access in accesses {
        for (node, at) in &access.nodes {
            if node.path() == uart.path {
                let keeper = At::property(keeper, Key::Console);
                findings.push_with(Rule::ConsoleGivenAway, *at, keeper, &[Value::Text(uart.path)]);
            }
        }
    }
}

/// What stands at an address that a guest sees.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Gic,
    /// Pages of a device; whether only a part of them.
    Device(bool),
    Console,
    Memory,
}

/// Something that stands there: what, where, its name where it has one, and who put it there.
struct Occupant<'a> {
    kind: Kind,
    region: Region<Ipa>,
    name: &'a str,
    place: At,
}

/// No two things stand at one address of the guest.
#[inline(never)]
fn check_addresses<'a>(
    draft: &Draft<'a>,
    access: &Access<'a>,
    platform: &Platform<'a>,
    findings: &mut Findings<'a>,
) {
    let mut all: Vec<Occupant<'a>> = Vec::new();
    let mut add = |kind, region, name, place| all.push(Occupant { kind, region, name, place });
    for (name, region) in platform.gic.guest_frames(draft.cpus.len()) {
        // How many redistributors there are is the partition's choice.
        add(Kind::Gic, region, name, if name == "GICR" { draft.at(Key::Cpus) } else { At::NOWHERE });
    }
    for (window, place) in access.windows.iter().zip(&access.places) {
        if let Some(region) = Region::new(window.ipa, window.size) {
            add(Kind::Device(window.part.is_some()), region, window.path, *place);
        }
    }
    if let Some(console) = &draft.console {
        add(Kind::Console, console.registers, "", draft.console_by(Key::ConsoleAddress));
    }
    for range in &draft.memory {
        add(Kind::Memory, range.ipa, "", draft.range(range.index));
    }
    for (index, one) in all.iter().enumerate() {
        for other in all.iter().take(index).filter(|other| other.region.overlaps(one.region)) {
            let rule = match (one.kind, other.kind) {
                // A guest's redistributors follow each other, which those of the board need not.
                (Kind::Gic, _) => Rule::GicOverGic,
                (Kind::Console, Kind::Console | Kind::Memory) => continue,
                // Pages of one partition's devices, which it has alike.
                (Kind::Device(part), Kind::Device(other)) if part == other => continue,
                (Kind::Device(_), Kind::Gic) => Rule::DeviceOverGic,
                (Kind::Device(_), _) => Rule::PartAndWhole,
                (Kind::Console, Kind::Gic) => Rule::ConsoleOverGic,
                (Kind::Console, Kind::Device(_)) => Rule::ConsoleOverDevice,
                (Kind::Memory, Kind::Gic) => Rule::MemoryOverGic,
                (Kind::Memory, Kind::Device(_)) => Rule::MemoryOverDevice,
                (Kind::Memory, Kind::Console) => Rule::MemoryOverConsole,
                (Kind::Memory, Kind::Memory) => Rule::MemoryOverMemory,
            };
            let named = if let Kind::Device(_) = one.kind { one } else { other };
            let values = [one.region.into(), other.region.into(), Value::Text(named.name)];
            findings.push_with(rule, one.place, other.place, &values);
        }
    }
    let Some(console) = draft.console else { return };
    if let Some((_, other)) = access.interrupt_places.iter().find(|(intid, _)| *intid == console.intid) {
        let values = [Value::Number(console.intid.raw().into())];
        findings.push_with(
            Rule::ConsoleInterruptTaken,
            draft.console_by(Key::ConsoleInterrupt),
            *other,
            &values,
        );
    }
}

/// Lays out the images. `None` only where there is a finding.
#[inline(never)]
fn finish<'a>(
    draft: &Draft<'a>,
    access: Access<'a>,
    payload: &dyn Fn(&str) -> Option<&'a [u8]>,
    is_damaged: &dyn Fn(&str) -> bool,
    findings: &mut Findings<'a>,
) -> Option<PartitionPlan<'a>> {
    let sound = findings.list.len();
    let layout = layout::lay_out(draft, payload, findings).or_else(|| {
        let kernel = draft.kernel.filter(|kernel| is_damaged(kernel))?;
        findings.list.truncate(sound);
        layout::damaged(draft, kernel)
    })?;
    let mut memory = Vec::with_capacity(draft.memory.len());
    for range in &draft.memory {
        memory.push(MemoryWindow { ipa: range.ipa.start(), pa: range.pa?, size: range.ipa.size() });
    }
    Some(PartitionPlan {
        name: draft.node.name(),
        os: draft.os,
        cpus: draft.cpus.iter().map(|&cpu| cpu as usize).collect(),
        memory,
        devices: access.windows,
        shared_pages: access.shared_pages,
        interrupts: access.interrupts,
        unprotected: access.unprotected,
        console: draft.console,
        segments: layout.segments,
        entry: layout.entry,
        dtb: layout.dtb,
        ramdisk: layout.ramdisk,
        bootargs: draft.bootargs,
    })
}
