//! The manifest: who owns what, checked whole before anything starts.
//!
//! [`check`] is the only way to a [`Plan`], on the developer's desk and again at boot. It goes on after an
//! error so that one run names every fault, and each finding says where it is, who the two parties are and how
//! to mend it. The reference of the properties is `hyp/docs/manifest.md`.

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

use crate::addr::{Ipa, PAGE_SIZE, Pa, Region};
use crate::irq::IntId;
use crate::plan::{
    MAX_CPUS, MAX_PARTITIONS, MAX_VCPUS, MemoryWindow, OsType, PartitionPlan, Plan, VirtualUart,
};
use crate::platform::{self, EnableMethod, Gic, Platform};
use crate::stage2::IPA_BITS;
use crate::tree::{Node, Property, Tree};

/// A finding's message, put together only where [`Findings::push`] keeps it.
macro_rules! text {
    ($($arguments:tt)*) => { format_args!($($arguments)*) };
}

mod devices;
mod layout;
mod memory;
mod names;
mod parts;
#[cfg(test)]
pub(crate) mod tests;

use devices::Access;
use memory::Pool;

/// The root's `compatible`.
pub const COMPATIBLE: &str = "bulkhead,manifest-v1";
/// Name of the compiled manifest in the bundle.
pub const BUNDLE_ENTRY: &str = "manifest.dtb";
/// Space kept for a guest's device tree, in bytes.
pub const DTB_SPACE: u64 = 64 << 10;

/// Entries of one bus's `dma-ranges` that count; with more, a device reaches less than it could.
pub(crate) const MAX_DMA_RANGES: usize = 64;
/// The most ranges of one partition's memory.
const MAX_RANGES: usize = 16;
/// The most entries of a list: as many as there can be CPUs, or units of a device.
const MAX_LIST: usize = MAX_CPUS;
/// A longer command line is refused: Linux on arm64 keeps 2048 bytes (`COMMAND_LINE_SIZE`).
const MAX_BOOTARGS: usize = 2047;
/// GICv2 has 8 CPU interfaces (IHI 0048, 1.1).
const MAX_VCPUS_V2: usize = 8;
/// More findings than this are counted, not kept.
const MAX_FINDINGS: usize = 64;

/// The property that names devices which reach memory past the stage-2 tables.
const UNPROTECTED_DMA: &str = "unprotected-dma";

/// The properties of a partition.
const PROPERTIES: [&str; 18] = [
    "os,type",
    "cpus",
    "memory",
    "physical-memory",
    "kernel",
    "ramdisk",
    "bootargs",
    "load-address",
    "entry",
    "access",
    UNPROTECTED_DMA,
    "access-registers",
    "gpio-pins",
    "dma-channels",
    "polled",
    "console",
    "console-address",
    "console-interrupt",
];

/// One fault of a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// Path of the node in the manifest.
    pub path: String,
    /// What is wrong, who is concerned and how to mend it; one line.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// Checks a manifest against the machine and lays out every partition.
///
/// `board` is the tree that `platform` was made from; `payload` finds a file of the bundle by its name. The hypervisor's console,
/// [`Platform::uart`], becomes the one that the manifest names.
///
/// # Errors
///
/// Returns every fault that was found; never an empty list.
pub fn check<'a>(
    manifest: &'a Tree<'a>,
    platform: &mut Platform<'a>,
    board: &'a Tree<'a>,
    payload: &dyn Fn(&str) -> Option<&'a [u8]>,
) -> Result<Plan<'a>, Vec<Finding>> {
    let mut findings = Findings::default();
    choose_console(manifest.root(), platform, board, &mut findings);
    let platform = &*platform;
    let mut drafts = drafts(manifest, platform, &mut findings);
    check_cpus(&drafts, platform, &mut findings);
    place_memory(&mut drafts, platform, &mut findings);
    let accesses = devices::check(&drafts, platform, board, &mut findings);
    check_consoles(manifest.root(), &drafts, &accesses, platform, &mut findings);
    let mut plan = Plan { partitions: Vec::with_capacity(drafts.len()) };
    for (draft, access) in drafts.iter().zip(accesses) {
        check_addresses(draft, &access, platform, &mut findings);
        plan.partitions.extend(finish(draft, access, payload, &mut findings));
    }
    findings.into_result(plan)
}

/// The faults found so far.
#[derive(Default)]
struct Findings {
    list: Vec<Finding>,
    dropped: usize,
}

impl Findings {
    #[inline(never)]
    fn push(&mut self, node: Node<'_>, message: fmt::Arguments<'_>) {
        if self.list.len() < MAX_FINDINGS {
            self.list.push(Finding { path: node.path().to_string(), message: message.to_string() });
        } else {
            self.dropped = self.dropped.saturating_add(1);
        }
    }

    /// Whether more findings would be kept; what only words them can be left out otherwise.
    fn wants_more(&self) -> bool {
        self.list.len() < MAX_FINDINGS
    }

    fn into_result(mut self, plan: Plan<'_>) -> Result<Plan<'_>, Vec<Finding>> {
        if self.dropped != 0 {
            let message = text!("{} more findings are not listed", self.dropped);
            self.list.push(Finding { path: "/".to_string(), message: message.to_string() });
        }
        if self.list.is_empty() { Ok(plan) } else { Err(self.list) }
    }
}

/// A number of bytes in words.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        match self.0 {
            size if size >= MIB && size % MIB == 0 => write!(f, "{} MiB", size / MIB),
            size if size >= 16 * MIB => write!(f, "{} MiB and {} bytes", size / MIB, size % MIB),
            size if size >= KIB && size % KIB == 0 => write!(f, "{} KiB", size / KIB),
            size => write!(f, "{size} bytes"),
        }
    }
}

/// A partition as its node says, before anything is compared.
///
/// What could not be read is left out or empty: it has its finding already.
struct Draft<'a> {
    node: Node<'a>,
    os: OsType,
    cpus: Vec<u32>,
    memory: Vec<Range>,
    kernel: Option<&'a str>,
    ramdisk: Option<&'a str>,
    bootargs: Option<&'a str>,
    load_address: Option<u64>,
    entry: Option<u64>,
    access: Vec<&'a str>,
    unprotected: Vec<&'a str>,
    access_registers: Vec<&'a str>,
    gpio_pins: Vec<u32>,
    dma_channels: Vec<u32>,
    polled: Vec<&'a str>,
    console: Option<VirtualUart>,
}

impl Draft<'_> {
    /// What in the manifest says where its memory is found.
    fn what_places(&self) -> &'static str {
        match self.node.property(UNPROTECTED_DMA) {
            Some(_) => "memory (for unprotected-dma at the same physical address)",
            None => "physical-memory",
        }
    }
}

impl Draft<'_> {
    fn names_no_device(&self) -> bool {
        let lists = [&self.access, &self.access_registers, &self.polled, &self.unprotected];
        lists.iter().all(|list| list.is_empty()) && self.gpio_pins.is_empty() && self.dma_channels.is_empty()
    }
}

/// One range of a partition's memory.
struct Range {
    ipa: Region<Ipa>,
    /// Whether the manifest itself says where the range is found.
    fixed: bool,
    pa: Option<Pa>,
}

/// Reads all partitions.
fn drafts<'a>(manifest: &'a Tree<'a>, platform: &Platform<'_>, findings: &mut Findings) -> Vec<Draft<'a>> {
    let root = manifest.root();
    if root.property("compatible").and_then(Property::string) != Some(COMPATIBLE) {
        findings.push(root, text!("this is no manifest: its compatible must be \"{COMPATIBLE}\""));
    }
    known_properties(root, &["compatible", "console"], findings);
    let mut partitions = None;
    for child in root.children() {
        match child.name() {
            "partitions" if partitions.is_none() => partitions = Some(child),
            "partitions" => findings.push(child, text!("there are two nodes of this name; make them one")),
            name => findings
                .push(child, text!("unknown node{}", names::offer(name, &mut ["partitions"].into_iter()))),
        }
    }
    let Some(partitions) = partitions else {
        findings.push(root, text!("there is no node \"partitions\""));
        return Vec::new();
    };
    known_properties(partitions, &[], findings);
    let mut drafts: Vec<Draft<'a>> = Vec::new();
    for node in partitions.children() {
        if drafts.iter().any(|other| other.node.name() == node.name()) {
            findings.push(node, text!("there are two partitions of this name; rename one"));
        } else if drafts.len() == MAX_PARTITIONS {
            findings.push(node, text!("a manifest holds at most {MAX_PARTITIONS} partitions"));
            break;
        } else {
            drafts.push(draft(node, platform, findings));
        }
    }
    if drafts.is_empty() {
        findings.push(partitions, text!("there is no partition; add a node for each"));
    }
    drafts
}

fn known_properties(node: Node<'_>, known: &[&'static str], findings: &mut Findings) {
    for property in node.properties().filter(|property| !known.contains(&property.name)) {
        let offer = names::offer(property.name, &mut known.iter().copied());
        findings.push(node, text!("unknown property {}{offer}", names::Quoted(property.name)));
    }
}

/// Reads properties and words what is wrong with them.
struct Reader<'a, 'f> {
    node: Node<'a>,
    findings: &'f mut Findings,
}

impl<'a> Reader<'a, '_> {
    /// The value of a property that may be absent; a finding where it has another form.
    fn get<T>(&mut self, name: &str, form: &str, read: impl Fn(Property<'a>) -> Option<T>) -> Option<T> {
        let value = self.node.property(name).and_then(read);
        if value.is_none() {
            self.misread(name, form);
        }
        value
    }

    /// A finding if there is such a property: its value could not be read.
    #[inline(never)]
    fn misread(&mut self, name: &str, form: &str) {
        if self.node.property(name).is_some() {
            self.findings.push(self.node, text!("{name} must be {form}"));
        }
    }

    fn string(&mut self, name: &str) -> Option<&'a str> {
        self.get(name, "one string, not empty", |p| p.string().filter(|string| !string.is_empty()))
    }

    fn address(&mut self, name: &str) -> Option<u64> {
        self.get(name, "one 64-bit number, written /bits/ 64 <...>", Property::u64)
    }

    fn numbers(&mut self, name: &str) -> Option<Vec<u64>> {
        self.get(name, "a list of 64-bit numbers, written /bits/ 64 <...>", |p| Some(p.u64s()?.collect()))
    }

    /// A list of numbers, one more than [`MAX_LIST`] where there are more.
    fn cells(&mut self, name: &str) -> Vec<u32> {
        let list = self.get(name, "a list of numbers, not empty", |p| {
            p.u32s()
                .filter(|list| list.len() != 0)
                .map(|list| list.take(MAX_LIST.saturating_add(1)).collect())
        });
        list.unwrap_or_default()
    }

    /// A list of names of devices.
    fn names(&mut self, name: &str) -> Vec<&'a str> {
        let form = "a list of node paths or aliases of the board's tree";
        let mut list = Vec::new();
        let Some(property) = self.node.property(name) else { return list };
        for string in property.strings() {
            if list.len() == MAX_LIST {
                self.findings.push(self.node, text!("{name} has more than {MAX_LIST} entries"));
                break;
            }
            list.push(string);
        }
        if list.is_empty() {
            self.findings.push(self.node, text!("{name} must be {form}"));
        }
        list
    }

    fn require(&mut self, name: &str, example: &str) {
        if self.node.property(name).is_none() {
            self.findings.push(self.node, text!("{name} is missing; give for example {name} = {example}"));
        }
    }
}

#[inline(never)]
fn draft<'a>(node: Node<'a>, platform: &Platform<'_>, findings: &mut Findings) -> Draft<'a> {
    known_properties(node, &PROPERTIES, findings);
    for child in node.children() {
        findings.push(child, text!("unknown node: a partition has no nodes below it"));
    }
    let mut reader = Reader { node, findings };
    reader.require("os,type", "\"linux\"");
    reader.require("cpus", "<0>");
    reader.require("memory", "/bits/ 64 <0x40000000 0x8000000>");
    reader.require("kernel", "\"Image\"");
    let form = "\"linux\", \"freertos\" or \"bare\"";
    let os = reader.get("os,type", form, |p| match p.string()? {
        "linux" => Some(OsType::Linux),
        "freertos" => Some(OsType::FreeRtos),
        "bare" => Some(OsType::Bare),
        _ => None,
    });
    let bootargs = reader.get("bootargs", "one string", Property::string);
    if bootargs.is_some_and(|bootargs| bootargs.len() > MAX_BOOTARGS) {
        reader.findings.push(node, text!("bootargs must have at most {MAX_BOOTARGS} characters"));
    }
    Draft {
        node,
        os: os.unwrap_or(OsType::Bare),
        cpus: reader.cells("cpus"),
        memory: draft_memory(&mut reader),
        kernel: reader.string("kernel"),
        ramdisk: reader.string("ramdisk"),
        bootargs,
        load_address: reader.address("load-address"),
        entry: reader.address("entry"),
        access: reader.names("access"),
        unprotected: reader.names(UNPROTECTED_DMA),
        access_registers: reader.names("access-registers"),
        gpio_pins: reader.cells("gpio-pins"),
        dma_channels: reader.cells("dma-channels"),
        polled: reader.names("polled"),
        console: draft_console(&mut reader, platform),
    }
}

#[inline(never)]
fn draft_memory(reader: &mut Reader<'_, '_>) -> Vec<Range> {
    let numbers = reader.numbers("memory").unwrap_or_default();
    let (pairs, rest) = numbers.as_chunks::<2>();
    let node = reader.node;
    if !rest.is_empty() || (pairs.is_empty() && node.property("memory").is_some_and(|p| p.value.is_empty())) {
        reader.findings.push(node, text!("memory must be pairs of an address and a size"));
    }
    let fixed = reader.numbers("physical-memory");
    if let Some(fixed) = &fixed
        && fixed.len() != pairs.len()
    {
        let message = text!(
            "physical-memory has {} addresses for {} ranges of memory; give one for each",
            fixed.len(),
            pairs.len()
        );
        reader.findings.push(node, message);
    }
    if pairs.len() > MAX_RANGES {
        reader.findings.push(node, text!("memory has more than {MAX_RANGES} ranges"));
    }
    // What a device without an SMMU calls an address is a physical one, so the guest's have to be the same.
    let identity = node.property(UNPROTECTED_DMA).is_some();
    let mut ranges = Vec::new();
    for (index, &[start, size]) in pairs.iter().take(MAX_RANGES).enumerate() {
        if (start | size) & PAGE_SIZE.wrapping_sub(1) != 0 {
            let message = text!("memory {start:#x} of size {size:#x} must be in multiples of 4 KiB (0x1000)");
            reader.findings.push(node, message);
        }
        let region = Region::new(Ipa::new(start), size).filter(|region| region.last().raw() >> IPA_BITS == 0);
        let pa = fixed.as_ref().and_then(|fixed| fixed.get(index).copied());
        if let Some(pa) = pa.filter(|pa| pa & PAGE_SIZE.wrapping_sub(1) != 0) {
            let message = text!("physical-memory {pa:#x} must be a multiple of 4 KiB (0x1000)");
            reader.findings.push(node, message);
        }
        if let Some(pa) = pa.filter(|&pa| identity && pa != start) {
            let message = text!(
                "physical-memory {pa:#x} differs from memory {start:#x}, but unprotected-dma needs them the same; \
                 leave physical-memory out"
            );
            reader.findings.push(node, message);
        }
        let pa = pa.or(identity.then_some(start));
        match region {
            Some(ipa) => ranges.push(Range { ipa, fixed: pa.is_some(), pa: pa.map(Pa::new) }),
            None if size == 0 => reader.findings.push(node, text!("memory at {start:#x} has no size")),
            None => reader.findings.push(
                node,
                text!("memory at {start:#x} of size {size:#x} goes beyond {IPA_BITS} address bits"),
            ),
        }
    }
    ranges
}

fn draft_console(reader: &mut Reader<'_, '_>, platform: &Platform<'_>) -> Option<VirtualUart> {
    let node = reader.node;
    let console = reader.get("console", "\"pl011\"", |p| p.string().filter(|&string| string == "pl011"));
    let address = reader.address("console-address");
    let number = reader.get("console-interrupt", "one number", Property::u32);
    if node.property("console").is_none() {
        for name in ["console-address", "console-interrupt"] {
            if node.property(name).is_some() {
                reader.findings.push(node, text!("{name} has no use without console = \"pl011\""));
            }
        }
    }
    console?;
    let uart = platform.pl011;
    let address = address.or(uart.map(|uart| uart.registers.start().raw()));
    if address.is_none() && node.property("console-address").is_none() {
        reader.findings.push(node, text!("the board has no PL011 to imitate; give console-address"));
    }
    let intid = match number {
        Some(number) => {
            let intid = IntId::spi(number);
            if intid.is_none() {
                let message = text!("console-interrupt {number} is no SPI; SPIs are 0 to 987");
                reader.findings.push(node, message);
            }
            intid
        }
        None => {
            let intid = uart.and_then(|uart| uart.intid);
            if intid.is_none() && node.property("console-interrupt").is_none() {
                reader
                    .findings
                    .push(node, text!("the board has no PL011 to imitate; give console-interrupt"));
            }
            intid
        }
    };
    let address = address?;
    let registers = Region::new(Ipa::new(address), PAGE_SIZE)
        .filter(|region| region.is_aligned(PAGE_SIZE) && region.last().raw() >> IPA_BITS == 0);
    if registers.is_none() {
        let message = text!(
            "console-address {address:#x} must be a multiple of 4 KiB (0x1000) below {:#x}",
            1_u64 << IPA_BITS
        );
        reader.findings.push(node, message);
    }
    Some(VirtualUart { registers: registers?, intid: intid? })
}

/// Each CPU exists, can be started and has one owner.
fn check_cpus(drafts: &[Draft<'_>], platform: &Platform<'_>, findings: &mut Findings) {
    let limit = match platform.gic {
        Gic::V3 { .. } => MAX_VCPUS,
        Gic::V2 { .. } => MAX_VCPUS_V2,
    };
    let present = platform.cpus.len().min(MAX_CPUS);
    let mut owners: Vec<Option<Node<'_>>> = alloc::vec![None; present];
    for draft in drafts {
        let node = draft.node;
        if draft.cpus.len() > limit {
            findings.push(node, text!("a partition has at most {limit} CPUs on this board"));
        }
        for &cpu in &draft.cpus {
            let index = cpu as usize;
            let (Some(owner), Some(physical)) = (owners.get_mut(index), platform.cpus.get(index)) else {
                let last = present.saturating_sub(1);
                findings.push(node, text!("there is no cpu {cpu}; the board has cpus 0 to {last}"));
                continue;
            };
            match owner {
                Some(owner) if *owner == node => {
                    findings.push(node, text!("cpus lists cpu {cpu} twice"));
                }
                Some(owner) => {
                    let owner = owner.path();
                    let message =
                        text!("cpu {cpu} is already given to {owner}; give each CPU to one partition");
                    findings.push(node, message);
                }
                None => *owner = Some(node),
            }
            // CPU 0 runs already.
            let startable = match physical.enable_method {
                Some(EnableMethod::Psci) => platform.psci.is_some(),
                Some(EnableMethod::SpinTable { .. }) => true,
                None => false,
            };
            if index != 0 && !startable {
                let message = text!(
                    "cpu {cpu} cannot be started: the board's tree names no method that Bulkhead knows"
                );
                findings.push(node, message);
            }
        }
    }
}

/// Finds the physical memory: first what the manifest places, then the rest in its order.
fn place_memory(drafts: &mut [Draft<'_>], platform: &Platform<'_>, findings: &mut Findings) {
    let mut pool = Pool::new(platform);
    for draft in drafts.iter() {
        for range in &draft.memory {
            if let Some(pa) = range.pa {
                pool.take(pa, range.ipa.size(), draft.what_places(), draft.node, findings);
            }
        }
    }
    for draft in drafts {
        for range in draft.memory.iter_mut().filter(|range| !range.fixed) {
            range.pa = pool.choose(range.ipa, draft.node, findings);
        }
    }
}

/// Makes the serial port that `console` of the manifest's root names the hypervisor's.
fn choose_console<'a>(
    root: Node<'a>,
    platform: &mut Platform<'a>,
    board: &'a Tree<'a>,
    findings: &mut Findings,
) {
    let name = Reader { node: root, findings }.string("console");
    let Some(name) = name else { return };
    let Some(node) = board.find(name) else {
        return devices::unknown(root, "console", name, board, findings);
    };
    match platform::uart(node) {
        Some(uart) => platform.uart = Some(uart),
        None => {
            let path = node.path();
            let reason = if node.is_enabled() {
                "is no serial port that the hypervisor knows; it knows arm,pl011 and brcm,bcm2835-aux-uart"
            } else {
                "is disabled on this board"
            };
            findings.push(root, text!("console is {path}, which {reason}"));
        }
    }
}

/// The real serial port stays with the hypervisor as long as it carries the bytes of emulated ones.
fn check_consoles(
    root: Node<'_>,
    drafts: &[Draft<'_>],
    accesses: &[Access<'_>],
    platform: &Platform<'_>,
    findings: &mut Findings,
) {
    let emulated = drafts.iter().map(|draft| draft.node).find(|node| node.property("console").is_some());
    let chosen = root.property("console").map(|_| root);
    let (Some(keeper), Some(uart)) = (chosen.or(emulated), platform.uart) else { return };
    for (draft, access) in drafts.iter().zip(accesses) {
        if access.nodes.iter().any(|node| node.path() == uart.path) {
            let (path, keeper) = (uart.path, keeper.path());
            let message = text!(
                "{path} carries the console of {keeper}, so the hypervisor keeps it; \
                 take it out of access and give console = \"pl011\" instead"
            );
            findings.push(draft.node, message);
        }
    }
}

/// What stands at an address that a guest sees.
#[derive(Clone, Copy)]
enum Occupant<'a> {
    Memory,
    /// Pages of a device; whether only a part of them.
    Device(&'a str, bool),
    Console,
    Gic(&'static str),
}

impl fmt::Display for Occupant<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("its memory"),
            Self::Device(path, _) => f.write_str(path),
            Self::Console => f.write_str("its emulated console"),
            Self::Gic(frame) => write!(f, "the interrupt controller's {frame}"),
        }
    }
}

/// No two things stand at one address of the guest.
#[inline(never)]
fn check_addresses(draft: &Draft<'_>, access: &Access<'_>, platform: &Platform<'_>, findings: &mut Findings) {
    let frames = platform.gic.guest_frames(draft.cpus.len());
    let mut all: Vec<_> = frames.map(|(name, region)| (region, Occupant::Gic(name))).collect();
    for window in &access.windows {
        if let Some(region) = Region::new(window.ipa, window.size) {
            all.push((region, Occupant::Device(window.path, window.part.is_some())));
        }
    }
    if let Some(console) = &draft.console {
        all.push((console.registers, Occupant::Console));
    }
    for range in &draft.memory {
        all.push((range.ipa, Occupant::Memory));
    }
    for (index, (region, occupant)) in all.iter().enumerate() {
        for (other_region, other) in all.iter().take(index) {
            // Pages of one partition's devices may be the same, if it has them alike; no two other things may.
            let alike = matches!((occupant, other), (Occupant::Device(_, one), Occupant::Device(_, two)) if one == two);
            if region.overlaps(*other_region) && !alike {
                let message =
                    text!("{occupant} at {region} overlaps {other} at {other_region}; move one of them");
                findings.push(draft.node, message);
            }
        }
    }
    let Some(console) = draft.console else { return };
    if access.interrupts.iter().any(|owned| owned.intid == console.intid) {
        let message = text!(
            "the emulated console's {} belongs to a device in access; give another console-interrupt",
            console.intid
        );
        findings.push(draft.node, message);
    }
}

/// Lays out the images. `None` only where there is a finding.
#[inline(never)]
fn finish<'a>(
    draft: &Draft<'a>,
    access: Access<'a>,
    payload: &dyn Fn(&str) -> Option<&'a [u8]>,
    findings: &mut Findings,
) -> Option<PartitionPlan<'a>> {
    let layout = layout::lay_out(draft, payload, findings)?;
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
