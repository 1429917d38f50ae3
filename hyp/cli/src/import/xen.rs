//! Xen's dom0less trees: the domains that Xen itself creates at boot become partitions.
//!
//! Xen's tree says how many vCPUs and how much memory a domain has and where the boot loader put its files; the manifest
//! says which CPUs, and names the files. Where both say the same, it is carried over, down to the addresses that a Xen guest
//! sees, so that the same guests run. Whatever has no counterpart is said, in the manifest and to the caller: an
//! import that keeps quiet about what it drops is worse than none.
//!
//! Bindings: Xen, docs/misc/arm/device-tree/booting.txt and docs/misc/arm/passthrough-noiommu.txt. Addresses: Xen,
//! xen/include/public/arch-arm.h.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use bulkhead_policy::addr::PAGE_SIZE;
use bulkhead_policy::manifest::{COMPATIBLE, MAX_NAME};
use bulkhead_policy::plan::MAX_VCPUS;
use bulkhead_policy::tree::{Node, Tree};

use super::{Payload, Payloads};
use crate::dts::{self, Source};

/// Where a Xen guest sees its memory: start of both areas, and room (`GUEST_RAM0_BASE`, `GUEST_RAM0_SIZE`,
/// `GUEST_RAM1_BASE`). In the second there is room for more than any check lets pass.
const RAM: [(u64, u64); 2] = [(0x4000_0000, 0xc000_0000), (0x2_0000_0000, u64::MAX - 0x2_0000_0000)];
/// Where it sees its emulated UART (`GUEST_PL011_BASE`).
const PL011: u64 = 0x2200_0000;
/// Which interrupt that has, as an SPI (`GUEST_VPL011_SPI` is INTID 32).
const PL011_SPI: u32 = 0;
/// The kernel that the tool finds or fetches where no file is named, and the initramfs.
const DEFAULTS: [&str; 2] = ["Image", "initramfs.cpio"];
/// First bytes of gzip (RFC 1952).
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// Where an arm64 Image has its magic, and which (Linux, Documentation/arch/arm64/booting.rst).
const IMAGE_MAGIC: (usize, &[u8]) = (56, b"ARM\x64");
/// Words on a Linux's command line that lead to Xen's own console.
const XEN_CONSOLES: [&str; 3] = ["console=hvc0", "earlycon=xenboot", "earlyprintk=xen"];

/// Properties of a domain that are carried over, or say nothing by themselves.
const UNDERSTOOD: [&str; 13] = [
    "compatible",
    "#address-cells",
    "#size-cells",
    "cpus",
    "memory",
    "vpl011",
    "direct-map",
    "xen,static-mem",
    "#xen,static-mem-address-cells",
    "#xen,static-mem-size-cells",
    "passthrough",
    "phandle",
    "status",
];

/// Why a property of a domain has no counterpart.
const LEFT_OUT: [(&str, &str); 8] = [
    ("nr_spis", "a partition has the interrupts of its devices and of its console, and needs no number"),
    ("xen,enhanced", "the guest finds no Xen: no grant tables, event channels or xenstore"),
    ("domain-cpupool", "each CPU belongs to one partition, so there is nothing to schedule"),
    ("llc-colors", "Bulkhead does not colour caches"),
    ("max_grant_frames", "there are no grant tables"),
    ("max_grant_version", "there are no grant tables"),
    ("max_maptrack_frames", "there are no grant tables"),
    ("xen,domain-p2m-mem-mb", "stage-2 tables come out of the hypervisor's own memory"),
];

/// What is to be said of something in Xen's tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// Path of the node in Xen's tree.
    pub path: String,
    /// What is different, why, what to do.
    pub text: String,
    /// Whether the partition does not start, or not be heard, unless somebody does something.
    pub open: bool,
}

/// What became of a tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Imported {
    /// The manifest's source.
    pub source: String,
    /// All that was said.
    pub remarks: Vec<Remark>,
}

/// Converts Xen's `tree`. `board` is the tree of the board, where it is known; `title` is what the tree is called.
///
/// # Errors
///
/// Where the tree has no domains.
pub fn convert(
    tree: &Tree<'_>,
    board: Option<&Tree<'_>>,
    payloads: &Payloads,
    title: &str,
) -> Result<Imported> {
    let chosen = tree.root().child("chosen");
    let domains: Vec<_> = chosen
        .iter()
        .flat_map(|node| node.children())
        .filter(|node| node.is_compatible("xen,domain"))
        .collect();
    ensure!(
        !domains.is_empty(),
        "{title} has no domains: a dom0less tree has nodes with compatible = \"xen,domain\" below /chosen"
    );
    let mut conversion = Conversion {
        board,
        payloads,
        source: Source::default(),
        remarks: Vec::new(),
        names: BTreeSet::new(),
        next_cpu: 0,
        assigned: BTreeSet::new(),
        modules: BTreeSet::new(),
    };
    conversion.source.blank();
    conversion.source.comment(&format!(
        "Made of {title}, a Xen dom0less tree, by `cargo bulkhead import xen`. What has no counterpart says so."
    ));
    conversion.source.open("/");
    conversion.source.property("compatible", &dts::strings([COMPATIBLE]));
    if let Some(node) = chosen {
        conversion.chosen(node);
    }
    conversion.source.blank();
    conversion.source.open("partitions");
    for (index, domain) in domains.into_iter().enumerate() {
        if index > 0 {
            conversion.source.blank();
        }
        conversion.domain(domain);
    }
    conversion.source.close();
    conversion.left_behind(tree);
    conversion.source.close();
    Ok(Imported { source: conversion.source.finish(), remarks: conversion.remarks })
}

/// A file of a domain, which the boot loader put into memory.
#[derive(Clone, Copy)]
struct Module<'t> {
    node: Node<'t>,
    address: Option<u64>,
}

impl<'t> Module<'t> {
    fn new(node: Node<'t>) -> Self {
        Self { node, address: node.raw_reg().next().map(|(address, _)| address) }
    }

    /// Where it was, for people.
    fn place(self) -> String {
        self.address.map_or_else(|| "nowhere".to_owned(), |address| format!("at {address:#x}"))
    }

    /// How to name its file.
    fn option(self) -> String {
        self.address.map_or_else(
            || "--imagebuilder FILE".to_owned(),
            |address| format!("--payload {address:#x}=FILE"),
        )
    }
}

/// The files of a domain.
#[derive(Clone, Copy, Default)]
struct Modules<'t> {
    kernel: Option<Module<'t>>,
    ramdisk: Option<Module<'t>>,
    fragment: Option<Module<'t>>,
}

/// Whether a node is a file that the boot loader put into memory, by the names since Xen 4.5 and before.
fn is_module(node: Node<'_>) -> bool {
    ["multiboot,module", "xen,multiboot-module"].iter().any(|name| node.is_compatible(name))
}

impl<'t> Modules<'t> {
    fn of(domain: Node<'t>) -> Self {
        let mut this = Self::default();
        for node in domain.children().filter(|&node| is_module(node)) {
            let is = |names: [&str; 2]| names.iter().any(|name| node.is_compatible(name));
            let slot = if is(["multiboot,kernel", "xen,linux-zimage"]) {
                &mut this.kernel
            } else if is(["multiboot,ramdisk", "xen,linux-initrd"]) {
                &mut this.ramdisk
            } else if node.is_compatible("multiboot,device-tree") {
                &mut this.fragment
            } else if this.kernel.is_none() {
                // Of those without a kind the first is the kernel and the second the ramdisk.
                &mut this.kernel
            } else {
                &mut this.ramdisk
            };
            slot.get_or_insert(Module::new(node));
        }
        this
    }
}

/// A range of a guest's memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Range {
    ipa: u64,
    size: u64,
    pa: Option<u64>,
}

struct Conversion<'a> {
    board: Option<&'a Tree<'a>>,
    payloads: &'a Payloads,
    source: Source,
    remarks: Vec<Remark>,
    /// Names of partitions so far.
    names: BTreeSet<String>,
    /// The first CPU that no partition has yet.
    next_cpu: u32,
    /// Paths of the devices that partitions have.
    assigned: BTreeSet<String>,
    /// Addresses of modules.
    modules: BTreeSet<u64>,
}

impl Conversion<'_> {
    /// Says something, here and in the manifest.
    fn say(&mut self, node: Node<'_>, open: bool, text: impl Into<String>) {
        let text = text.into();
        self.source.comment(&text);
        // Two domains often have the same kernel.
        if self.remarks.iter().any(|remark| remark.text == text) {
            return;
        }
        self.remarks.push(Remark { path: node.path().to_owned(), text, open });
    }

    fn note(&mut self, node: Node<'_>, text: impl Into<String>) {
        self.say(node, false, text);
    }

    fn open(&mut self, node: Node<'_>, text: impl Into<String>) {
        self.say(node, true, text);
    }

    /// What stands beside the domains.
    fn chosen(&mut self, chosen: Node<'_>) {
        if let Some(dom0) = chosen.children().find(|&node| is_module(node)) {
            self.note(
                dom0,
                format!(
                    "{}: dom0 is left out. Nobody manages the other partitions; to run its kernel as one more partition, add \
                     a node with CPUs and memory of its own.",
                    dom0.name()
                ),
            );
        }
        for property in chosen.properties().filter(|property| property.name.starts_with("xen,")) {
            let why = match property.name {
                "xen,xen-bootargs" => "Bulkhead takes no command line",
                "xen,dom0-bootargs" => "there is no dom0",
                "xen,static-heap" => "Bulkhead has no heap beside its 2 MiB",
                _ => "it has no counterpart",
            };
            self.note(chosen, format!("{} is left out: {why}.", property.name));
        }
        for node in chosen.children().filter(|node| node.is_compatible("xen,cpupool")) {
            self.note(node, format!("{} is left out: there is nothing to schedule.", node.name()));
        }
    }

    fn domain(&mut self, node: Node<'_>) {
        let full = node.name().replace('@', "-");
        let cut = |room| full.get(..room).unwrap_or(&full);
        let mut name = cut(MAX_NAME).to_owned();
        for number in 2.. {
            if self.names.insert(name.clone()) {
                break;
            }
            let suffix = format!("-{number}");
            name = format!("{}{suffix}", cut(MAX_NAME - suffix.len()));
        }
        if full.len() > MAX_NAME {
            self.note(
                node,
                format!("the partition is called {name}: a name has at most {MAX_NAME} characters."),
            );
        }
        let modules = Modules::of(node);
        self.modules.extend(
            [modules.kernel, modules.ramdisk, modules.fragment].iter().flatten().filter_map(|m| m.address),
        );
        self.source.open(&name);
        self.kernel(node, modules.kernel);
        if let Some(ramdisk) = modules.ramdisk {
            self.payload("ramdisk", "RAMDISK", node, ramdisk, DEFAULTS[1]);
        }
        self.cpus(node);
        let direct = self.memory(node);
        self.console(node, direct);
        if let Some(fragment) = modules.fragment {
            self.devices(node, fragment, direct);
        }
        for property in node.properties().filter(|property| !UNDERSTOOD.contains(&property.name)) {
            let why = LEFT_OUT.iter().find(|(name, _)| *name == property.name);
            let why = why.map_or("Bulkhead has nothing like it", |(_, why)| why);
            self.note(node, format!("{} is left out: {why}.", property.name));
        }
        for child in node.children().filter(|&child| !is_module(child)) {
            let why = "partitions share no memory and send each other no events";
            self.note(child, format!("{} is left out: {why}.", child.name()));
        }
        self.source.close();
    }

    fn kernel(&mut self, domain: Node<'_>, kernel: Option<Module<'_>>) {
        let Some(kernel) = kernel else {
            self.open(
                domain,
                "Xen's tree names no kernel (a node with \"multiboot,kernel\"): add kernel = \"FILE\".",
            );
            self.source.property("os,type", &dts::strings(["bare"]));
            return;
        };
        let file = self.payloads.find(kernel.address, domain.name(), "KERNEL");
        let (at, magic) = IMAGE_MAGIC;
        let compressed = file.filter(|file| file.head.starts_with(&GZIP));
        let is_image = |file: &Payload| file.head.get(at..).is_some_and(|rest| rest.starts_with(magic));
        // What is compressed is a Linux, or else it would not be.
        let is_linux = compressed.is_some() || file.is_none_or(is_image);
        self.source.property("os,type", &dts::strings([if is_linux { "linux" } else { "bare" }]));
        if let Some(Payload { path, .. }) = compressed {
            self.open(
                kernel.node,
                format!(
                    "{} is compressed. Xen unpacks kernels, Bulkhead does not: gunzip it.",
                    path.display()
                ),
            );
        }
        self.payload("kernel", "KERNEL", domain, kernel, DEFAULTS[0]);
        let Some(bootargs) = kernel.node.property("bootargs") else { return };
        let Some(bootargs) = bootargs.string() else {
            self.open(kernel.node, "bootargs is no string and is left out.");
            return;
        };
        if let Some(word) = bootargs.split_whitespace().find(|word| XEN_CONSOLES.contains(word)) {
            self.open(
                kernel.node,
                format!(
                    "\"{word}\" is Xen's own console, which the guest does not find: write console=ttyAMA0."
                ),
            );
        }
        self.source.property("bootargs", &dts::strings([bootargs]));
    }

    fn payload(&mut self, property: &str, kind: &str, domain: Node<'_>, module: Module<'_>, default: &str) {
        if let Some(file) = self.payloads.find(module.address, domain.name(), kind) {
            self.source.property(property, &dts::strings([file.name()]));
            return;
        }
        // Where UEFI starts Xen, the tree has names.
        let named = module.node.property("xen,uefi-binary").and_then(|property| property.string());
        if let Some(name) = named {
            let name = name.rsplit(['/', '\\']).next().unwrap_or(name);
            self.source.property(property, &dts::strings([name]));
            return;
        }
        self.note(
            module.node,
            format!(
                "Xen found the {property} in memory, {}. Here it is a file: one called {default} beside the manifest, or \
                 that of `import xen {}`. Where there is none, the tool takes that of its demo.",
                module.place(),
                module.option()
            ),
        );
        self.source.property(property, &dts::strings([default]));
    }

    fn cpus(&mut self, domain: Node<'_>) {
        let Some(cpus) = domain.property("cpus").and_then(|property| property.u32()).filter(|&cpus| cpus > 0)
        else {
            self.open(domain, "Xen's tree has no number of vCPUs (cpus = <N>): add cpus.");
            return;
        };
        let most = u32::try_from(MAX_VCPUS).unwrap_or(u32::MAX);
        if cpus > most {
            self.open(
                domain,
                format!("Xen's {cpus} vCPUs are too many: a partition has at most {most} CPUs."),
            );
        }
        let first = self.next_cpu;
        self.next_cpu = first.saturating_add(cpus.min(most));
        let there = self.board.and_then(|board| u32::try_from(board.cpus().count()).ok());
        if let Some(there) = there.filter(|&there| there < self.next_cpu) {
            self.open(
                domain,
                format!(
                    "The board has {there} CPUs, and those up to {} are asked for. Each belongs to one partition, they are not \
                     shared: take some away from other partitions or from this one.",
                    self.next_cpu - 1
                ),
            );
        }
        self.source.property("cpus", &dts::cells(first..self.next_cpu));
    }

    /// Writes the memory; whether the guest sees it where it is.
    fn memory(&mut self, domain: Node<'_>) -> bool {
        let kib = domain.property("memory").and_then(|memory| memory.u64().or(memory.u32().map(u64::from)));
        let size = kib.and_then(|kib| kib.checked_mul(1 << 10)?.checked_next_multiple_of(PAGE_SIZE));
        let Some(size) = size.filter(|&size| size > 0) else {
            self.open(
                domain,
                "Xen's tree has no amount of memory (memory = <0 KIB>): add memory, pairs of address and size.",
            );
            return false;
        };
        let banks = match self.static_memory(domain) {
            Some(banks) if !banks.is_empty() => banks,
            _ => vec![(None, size)],
        };
        let is_static = banks.iter().all(|(pa, _)| pa.is_some());
        let given = banks.iter().try_fold(0_u64, |sum, (_, size)| sum.checked_add(*size));
        if given != Some(size) {
            self.note(
                domain,
                format!("memory is {size:#x} bytes, xen,static-mem another amount, which counts here."),
            );
        }
        let mut direct = domain.property("direct-map").is_some();
        if direct && !is_static {
            self.note(
                domain,
                "direct-map without xen,static-mem means nothing, to Xen neither: it is left out.",
            );
            direct = false;
        }
        let ranges: Vec<_> = if direct {
            banks.iter().map(|&(pa, size)| Range { ipa: pa.unwrap_or(0), size, pa }).collect()
        } else {
            place(&banks)
        };
        self.source
            .property("memory", &dts::numbers(ranges.iter().flat_map(|range| [range.ipa, range.size])));
        if is_static {
            self.source
                .property("physical-memory", &dts::numbers(ranges.iter().filter_map(|range| range.pa)));
        }
        direct
    }

    /// The ranges of `xen,static-mem`, none where there is nothing to read.
    fn static_memory(&mut self, domain: Node<'_>) -> Option<Vec<(Option<u64>, u64)>> {
        let ranges = domain.property("xen,static-mem")?;
        let number = |name: &str| domain.property(name).and_then(|property| property.u32());
        // Newer trees count as their modules do.
        let (address, size) = domain.cells();
        let address = number("#xen,static-mem-address-cells").unwrap_or(address);
        let size = number("#xen,static-mem-size-cells").unwrap_or(size);
        let Some(ranges) = entries(ranges.value, [address, size]) else {
            self.open(
                domain,
                "xen,static-mem cannot be read: its size and its numbers of cells do not agree.",
            );
            return None;
        };
        Some(ranges.into_iter().map(|[address, size]| (Some(address), size)).collect())
    }

    fn console(&mut self, domain: Node<'_>, direct: bool) {
        if domain.property("vpl011").is_none() {
            self.note(domain, "Without vpl011 nobody hears the guest. To hear it add console = \"pl011\".");
            return;
        }
        self.source.property("console", &dts::strings(["pl011"]));
        // Such a guest sees the UART where the board has its own, in Xen and here.
        if !direct {
            self.source
                .comment("Where a Xen guest has it. Without these lines it is where the board has its own.");
            self.source.property("console-address", &dts::numbers([PL011]));
            self.source.property("console-interrupt", &dts::cells([PL011_SPI]));
        }
    }

    fn devices(&mut self, domain: Node<'_>, module: Module<'_>, direct: bool) {
        let Some(file) = self.payloads.find(module.address, domain.name(), "PASSTHROUGH_DTB") else {
            self.open(
                module.node,
                format!(
                    "The devices stand in a device tree fragment {}, which is not at hand: import with {}, or add \
                     access = \"PATH\" by hand.",
                    module.place(),
                    module.option()
                ),
            );
            return;
        };
        let fragment = match Tree::new(&file.head) {
            Ok(fragment) => fragment,
            Err(error) => {
                self.open(module.node, format!("{}: {error}.", file.path.display()));
                return;
            }
        };
        let mut access: Vec<&str> = Vec::new();
        let mut forced: Vec<&str> = Vec::new();
        for device in fragment.nodes() {
            let (registers, path) = (device.property("xen,reg"), device.property("xen,path"));
            if registers.is_none() && path.is_none() {
                continue;
            }
            let Some(path) = path.and_then(|path| path.string()) else {
                let name = device.name();
                self.open(
                    module.node,
                    format!("{name} has no xen,path: find the device in the board's tree and add its path to access."),
                );
                continue;
            };
            let (address, size) = device.parent().map_or((2, 1), Node::cells);
            for [at, _, seen] in registers
                .and_then(|registers| entries(registers.value, [address, size, address]))
                .unwrap_or_default()
            {
                if at != seen {
                    self.note(
                        module.node,
                        format!("{path} is at {at:#x}, where the board has it; Xen showed it at {seen:#x}."),
                    );
                }
            }
            if self.board.is_some_and(|board| board.find(path).is_none()) {
                self.open(module.node, format!("The board's tree has no {path}."));
            }
            access.push(path);
            if device.property("xen,force-assign-without-iommu").is_some() {
                forced.push(path);
            }
        }
        if access.is_empty() {
            self.note(module.node, format!("{} assigns no device.", file.path.display()));
            return;
        }
        self.source.property("access", &dts::strings(&access));
        self.assigned.extend(access.iter().map(|&path| path.to_owned()));
        if !forced.is_empty() {
            let mut text =
                "xen,force-assign-without-iommu: a device that reads and writes memory by itself reaches \
                            everybody's. Remove from unprotected-dma those that do not."
                    .to_owned();
            if !direct {
                text += " With such a device memory must be where the guest sees it: choose an address in the board's RAM \
                         that nobody uses.";
            }
            self.say(module.node, !direct, text);
            self.source.property("unprotected-dma", &dts::strings(&forced));
        }
    }

    /// Devices that Xen keeps from dom0 and no domain has; files that no domain has.
    fn left_behind(&mut self, tree: &Tree<'_>) {
        for device in tree.nodes().filter(|node| node.property("xen,passthrough").is_some()) {
            if !self.assigned.contains(device.path()) {
                self.note(
                    device,
                    format!(
                        "{} is marked xen,passthrough and no partition above has it in access.",
                        device.path()
                    ),
                );
            }
        }
        for address in
            self.payloads.addresses().filter(|address| !self.modules.contains(address)).collect::<Vec<_>>()
        {
            self.open(
                tree.root(),
                format!("--payload {address:#x}: no domain has a module at this address."),
            );
        }
    }
}

/// The entries of a value, each of so many cells for each of its numbers; `None` where the value is no list of such.
fn entries<const N: usize>(value: &[u8], cells: [u32; N]) -> Option<Vec<[u64; N]>> {
    let widths = cells.map(|cells| if (1..=2).contains(&cells) { cells as usize * 4 } else { 0 });
    let entry: usize = widths.iter().sum();
    if widths.contains(&0) || !value.len().is_multiple_of(entry) {
        return None;
    }
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, &byte| number << 8 | u64::from(byte));
    let entries = value.chunks(entry).map(|mut rest| {
        widths.map(|width| {
            let (first, others) = rest.split_at(width);
            rest = others;
            number(first)
        })
    });
    Some(entries.collect())
}

/// Where a Xen guest sees these banks of memory: one behind the other in the first area and what does not fit in the
/// second.
fn place(banks: &[(Option<u64>, u64)]) -> Vec<Range> {
    let mut areas = RAM.into_iter();
    let mut area = areas.next();
    let mut ranges = Vec::new();
    for &(mut pa, mut size) in banks {
        while size > 0 {
            let Some((start, room)) = area else { break };
            let part = size.min(room);
            ranges.push(Range { ipa: start, size: part, pa });
            size -= part;
            pa = pa.map(|pa| pa.saturating_add(part));
            area = if part == room { areas.next() } else { Some((start + part, room - part)) };
        }
    }
    ranges
}

#[cfg(test)]
mod tests;
