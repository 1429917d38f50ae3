//! Partitions as their nodes say, before anything is compared.

use alloc::vec::Vec;

use super::properties::{Key, NAMES, Reader, known_properties};
use super::rules::{Rule, Value};
use super::{At, COMPATIBLE, Findings, MAX_BOOTARGS, MAX_NAME, MAX_PAYLOAD_NAME, MAX_RANGES, RESERVED_NAMES};
use crate::addr::{Ipa, PAGE_SIZE, Pa, Region};
use crate::irq::IntId;
use crate::plan::{MAX_PARTITIONS, OsType, VirtualUart};
use crate::platform::Platform;
use crate::stage2::IPA_BITS;
use crate::tree::{Node, Property, Tree};

/// A partition as its node says. What could not be read is left out or empty: it has its finding already.
pub(super) struct Draft<'a> {
    pub(super) node: Node<'a>,
    pub(super) os: OsType,
    pub(super) cpus: Vec<u32>,
    pub(super) memory: Vec<Range>,
    pub(super) kernel: Option<&'a str>,
    pub(super) ramdisk: Option<&'a str>,
    pub(super) bootargs: Option<&'a str>,
    pub(super) load_address: Option<u64>,
    pub(super) entry: Option<u64>,
    pub(super) access: Vec<&'a str>,
    pub(super) unprotected: Vec<&'a str>,
    pub(super) access_registers: Vec<&'a str>,
    pub(super) gpio_pins: Vec<u32>,
    pub(super) dma_channels: Vec<u32>,
    pub(super) polled: Vec<&'a str>,
    pub(super) console: Option<VirtualUart>,
}

impl<'a> Draft<'a> {
    /// One of its properties.
    pub(super) fn at(&self, key: Key) -> At {
        At::property(self.node, key)
    }

    /// Where it says where its emulated console is: `key`, or else only that there is one.
    pub(super) fn console_by(&self, key: Key) -> At {
        self.at(if self.node.property(key.name()).is_some() { key } else { Key::Console })
    }

    /// A string or number of one of its properties.
    pub(super) fn entry_of(&self, key: Key, entry: usize) -> At {
        At::entry(self.node, key, entry)
    }

    /// Where the manifest says at which physical address range `index` of its memory is: `memory` with
    /// `unprotected-dma`, whose devices take the guest's addresses for physical ones.
    pub(super) fn placed_by(&self, index: usize) -> At {
        match self.node.property(Key::PhysicalMemory.name()) {
            Some(_) => self.entry_of(Key::PhysicalMemory, index),
            None => self.range(index),
        }
    }

    /// Where the manifest says at which address its guest sees range `index` of its memory.
    pub(super) fn range(&self, index: usize) -> At {
        self.entry_of(Key::Memory, index.saturating_mul(2))
    }

    pub(super) fn names_no_device(&self) -> bool {
        let lists = [&self.access, &self.access_registers, &self.polled, &self.unprotected];
        lists.iter().all(|list| list.is_empty()) && self.gpio_pins.is_empty() && self.dma_channels.is_empty()
    }
}

/// One range of a partition's memory.
pub(super) struct Range {
    pub(super) ipa: Region<Ipa>,
    /// Its position among the pairs of `memory`.
    pub(super) index: usize,
    /// Whether the manifest itself says where the range is found.
    pub(super) fixed: bool,
    pub(super) pa: Option<Pa>,
}

/// Reads all partitions.
pub(super) fn read<'a>(
    manifest: &'a Tree<'a>,
    platform: &Platform<'a>,
    findings: &mut Findings<'a>,
) -> Vec<Draft<'a>> {
    let root = manifest.root();
    if root.property("compatible").and_then(Property::string) != Some(COMPATIBLE) {
        let at = At { property: At::COMPATIBLE, ..At::node(root) };
        findings.push(Rule::NotAManifest, at, &[]);
    }
    known_properties(root, &["compatible", Key::Console.name()], findings);
    let mut partitions = None;
    for child in root.children() {
        let rule = match child.name() {
            "partitions" if partitions.is_none() => {
                partitions = Some(child);
                continue;
            }
            "partitions" => Rule::NodeTwice,
            _ => Rule::UnknownNode,
        };
        let other = partitions.filter(|_| rule == Rule::NodeTwice).map_or(At::NOWHERE, At::node);
        findings.push_with(rule, At::node(child), other, &[Value::Text(child.name())]);
    }
    let Some(partitions) = partitions else {
        findings.push(Rule::NoPartitions, At::node(root), &[]);
        return Vec::new();
    };
    known_properties(partitions, &[], findings);
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    for node in partitions.children() {
        let at = At::node(node);
        if let Some(other) = drafts.iter().find(|other| other.node.name() == node.name()) {
            let other = At::node(other.node);
            findings.push_with(Rule::NodeTwice, at, other, &[Value::Text(node.name())]);
        } else if drafts.len() == MAX_PARTITIONS {
            findings.push_number(Rule::TooManyPartitions, at, MAX_PARTITIONS as u64);
            break;
        } else {
            if node.name().len() > MAX_NAME {
                findings.push_number(Rule::NameTooLong, at, MAX_NAME as u64);
            }
            drafts.push(draft(node, platform, findings));
        }
    }
    if drafts.is_empty() {
        findings.push(Rule::NoPartition, At::node(partitions), &[]);
    }
    drafts
}

#[inline(never)]
fn draft<'a>(node: Node<'a>, platform: &Platform<'_>, findings: &mut Findings<'a>) -> Draft<'a> {
    known_properties(node, &NAMES, findings);
    for child in node.children() {
        findings.push_text(Rule::NodeInPartition, At::node(child), child.name());
    }
    let mut reader = Reader { node, findings };
    for key in [Key::OsType, Key::Cpus, Key::Memory, Key::Kernel] {
        reader.require(key);
    }
    let os = reader.choice(Key::OsType, "\"linux\", \"freertos\" or \"bare\"", |name| match name {
        "linux" => Some(OsType::Linux),
        "freertos" => Some(OsType::FreeRtos),
        "bare" => Some(OsType::Bare),
        _ => None,
    });
    let bootargs = reader.string(Key::Bootargs);
    if bootargs.is_some_and(|bootargs| bootargs.len() > MAX_BOOTARGS) {
        reader.push_number(Rule::BootargsTooLong, Key::Bootargs, MAX_BOOTARGS as u64);
    }
    let unprotected = reader.names(Key::UnprotectedDma);
    Draft {
        node,
        os: os.unwrap_or(OsType::Bare),
        cpus: reader.numbers(Key::Cpus),
        memory: memory(&mut reader, !unprotected.is_empty()),
        kernel: payload_name(&mut reader, Key::Kernel),
        ramdisk: payload_name(&mut reader, Key::Ramdisk),
        bootargs,
        load_address: reader.address(Key::LoadAddress),
        entry: reader.address(Key::Entry),
        access: reader.names(Key::Access),
        unprotected,
        access_registers: reader.names(Key::AccessRegisters),
        gpio_pins: reader.numbers(Key::GpioPins),
        dma_channels: reader.numbers(Key::DmaChannels),
        polled: reader.names(Key::Polled),
        console: console(&mut reader, platform),
    }
}

/// The name of a file in the bundle.
fn payload_name<'a>(reader: &mut Reader<'a, '_>, key: Key) -> Option<&'a str> {
    let name = reader.string(key)?;
    if name.len() > MAX_PAYLOAD_NAME {
        reader.push_number(Rule::PayloadNameTooLong, key, MAX_PAYLOAD_NAME as u64);
    } else if RESERVED_NAMES.contains(&name) {
        reader.push_text(Rule::PayloadNameTaken, key, name);
    } else {
        return Some(name);
    }
    None
}

/// The ranges of memory. With `identity` each is found at the physical address that is the guest's: what a device without an SMMU
/// calls an address is a physical one.
#[inline(never)]
fn memory(reader: &mut Reader<'_, '_>, identity: bool) -> Vec<Range> {
    let numbers = reader.addresses(Key::Memory).unwrap_or_default();
    let (pairs, rest) = numbers.as_chunks::<2>();
    let node = reader.node;
    let is_empty = node.property(Key::Memory.name()).is_some_and(|p| p.value.is_empty());
    if !rest.is_empty() || is_empty {
        reader.push(Rule::MemoryNotPairs, Key::Memory);
    }
    let fixed = reader.addresses(Key::PhysicalMemory);
    if let Some(fixed) = &fixed
        && fixed.len() != pairs.len()
    {
        let values = [Value::Number(fixed.len() as u64), Value::Number(pairs.len() as u64)];
        let (at, other) = (At::property(node, Key::PhysicalMemory), At::property(node, Key::Memory));
        reader.findings.push_with(Rule::PhysicalCount, at, other, &values);
    }
    if pairs.len() > MAX_RANGES {
        reader.push_number(Rule::TooManyRanges, Key::Memory, MAX_RANGES as u64);
    }
    let mut ranges = Vec::new();
    for (index, &[start, size]) in pairs.iter().take(MAX_RANGES).enumerate() {
        let whole_pages = |number: u64| number & PAGE_SIZE.wrapping_sub(1) == 0;
        // What is wrong is the size if it is not the start.
        let at = |start_is_good: bool| {
            At::entry(node, Key::Memory, index.saturating_mul(2).saturating_add(usize::from(start_is_good)))
        };
        let (from, bytes) = (Value::Number(start), Value::Number(size));
        if !whole_pages(start | size) {
            reader.findings.push(Rule::MemoryUnaligned, at(whole_pages(start)), &[from, bytes]);
        }
        let region = Region::new(Ipa::new(start), size).filter(|region| region.last().raw() >> IPA_BITS == 0);
        let pa = fixed.as_ref().and_then(|fixed| fixed.get(index).copied());
        if let Some(pa) = pa {
            let place = At::entry(node, Key::PhysicalMemory, index);
            if !whole_pages(pa) {
                reader.findings.push_number(Rule::PhysicalUnaligned, place, pa);
            } else if identity && pa != start {
                reader.findings.push_with(Rule::NotIdentity, place, at(false), &[Value::Number(pa), from]);
            }
        }
        let pa = pa.or(identity.then_some(start));
        match region {
            Some(ipa) => ranges.push(Range { ipa, index, fixed: pa.is_some(), pa: pa.map(Pa::new) }),
            None if size == 0 => reader.findings.push_number(Rule::MemoryEmpty, at(true), start),
            None => {
                let bits = Value::Number(IPA_BITS.into());
                let at = at(start >> IPA_BITS == 0);
                reader.findings.push(Rule::MemoryBeyond, at, &[from, bytes, bits]);
            }
        }
    }
    ranges
}

fn console(reader: &mut Reader<'_, '_>, platform: &Platform<'_>) -> Option<VirtualUart> {
    let console = reader.choice(Key::Console, "\"pl011\" here", |name| (name == "pl011").then_some(()));
    let address = reader.address(Key::ConsoleAddress);
    let number = reader.number(Key::ConsoleInterrupt);
    if !reader.has(Key::Console) {
        for key in [Key::ConsoleAddress, Key::ConsoleInterrupt] {
            if reader.has(key) {
                reader.push(Rule::ConsoleUseless, key);
            }
        }
    }
    console?;
    let uart = platform.pl011;
    let address = address.or(uart.map(|uart| uart.registers.start().raw()));
    let intid = match number {
        Some(number) => {
            let intid = IntId::spi(number).filter(|&intid| platform.has(intid));
            if intid.is_none() {
                let at = At::property(reader.node, Key::ConsoleInterrupt);
                let last = platform.spis.saturating_sub(1);
                let values = [Value::Number(number.into()), Value::Number(last.into())];
                reader.findings.push(Rule::ConsoleNoSpi, at, &values);
            }
            intid
        }
        None => uart.and_then(|uart| uart.intid).filter(|&intid| platform.has(intid)),
    };
    for (key, is_known) in
        [(Key::ConsoleAddress, address.is_some()), (Key::ConsoleInterrupt, intid.is_some())]
    {
        if !is_known && !reader.has(key) {
            reader.push_text(Rule::NothingToImitate, Key::Console, key.name());
        }
    }
    let address = address?;
    let registers = Region::new(Ipa::new(address), PAGE_SIZE)
        .filter(|region| region.is_aligned(PAGE_SIZE) && region.last().raw() >> IPA_BITS == 0);
    if registers.is_none() {
        let values = [Value::Number(address), Value::Number(1 << IPA_BITS)];
        let at = At::property(reader.node, Key::ConsoleAddress);
        reader.findings.push(Rule::ConsoleUnaligned, at, &values);
    }
    Some(VirtualUart { registers: registers?, intid: intid? })
}
