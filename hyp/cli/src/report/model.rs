//! What a system will be, as plain data: all that the report's forms show, and what two reports are compared by.
//!
//! The names here are those of the JSON form, which other programs read: a field may be added, but none renamed or given
//! another meaning without another [`FORMAT`]. Addresses and sizes are numbers, in bytes. `hyp/docs/report.md` describes them.

use std::fmt;

use bulkhead_policy::addr::{BLOCK_1G, BLOCK_2M, Ipa, Pa};
use bulkhead_policy::stage2;
use serde::{Deserialize, Serialize};

/// Which form of data this is.
pub const FORMAT: &str = "bulkhead-report-v1";

/// A system.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: String,
    /// The manifest's file name.
    pub manifest: String,
    /// The machine: its title, or what its tree says it is.
    pub board: String,
    /// Partitions in the order of the manifest.
    pub partitions: Vec<Partition>,
    /// The ownership matrix: every CPU, bank of RAM, device and interrupt of the machine.
    pub resources: Vec<Resource>,
    /// The machine's physical addresses that somebody has, and free RAM; sorted, without overlap.
    pub machine: Vec<Span>,
    /// RAM that nobody has.
    pub free: Free,
    /// What the walls between partitions do not hold back.
    pub risks: Vec<Risk>,
}

/// A partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Partition {
    /// Its name.
    pub name: String,
    /// Its number on the console, from 1.
    pub number: usize,
    /// Its `os,type`.
    pub os: String,
    /// Its CPUs; the position is the vCPU's number.
    pub cpus: Vec<usize>,
    /// IPA at which vCPU 0 starts.
    pub entry: u64,
    /// The kernel's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bootargs: Option<String>,
    /// What stands at its addresses, sorted by IPA. Devices in one page share their window's addresses.
    pub map: Vec<Window>,
}

/// Something at addresses that a partition sees.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Window {
    /// First address.
    pub ipa: u64,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: WindowKind,
    /// Its name: a device's path, a GIC's frame.
    pub name: String,
    /// The physical address behind it; none where there is only emulation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pa: Option<u64>,
    /// How stage 2 maps it; none where it does not, and every access traps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blocks: Option<Blocks>,
    /// What the RAM holds at the start, sorted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub contents: Vec<Content>,
}

/// What stands in a [`Window`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowKind {
    /// Memory.
    Ram,
    /// A device's registers.
    Device,
    /// Pages in which others have registers as well.
    SharedDevice,
    /// A frame of the interrupt controller.
    Gic,
    /// The emulated PL011.
    Console,
}

/// Descriptors of stage 2, by the bytes that each maps.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub struct Blocks {
    /// 1 GiB.
    pub gib_1: u64,
    /// 2 MiB.
    pub mib_2: u64,
    /// 4 KiB.
    pub kib_4: u64,
}

/// What the hypervisor puts into a partition's RAM.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Content {
    /// First address.
    pub ipa: u64,
    /// Bytes.
    pub size: u64,
    /// What it is.
    pub kind: ContentKind,
    /// The payload's name; empty for the device tree.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub payload: String,
}

/// What [`Content`] is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContentKind {
    /// The kernel, or a segment of it.
    Kernel,
    /// The ramdisk.
    Ramdisk,
    /// The space for the generated device tree.
    DeviceTree,
}

/// A row of the ownership matrix.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Resource {
    /// What it is.
    pub kind: ResourceKind,
    /// `CPU 0`, `RAM 0x40000000`, a device's path, `SPI 1`.
    pub name: String,
    /// Bytes of RAM or registers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Devices of the board that raise the interrupt, or what else it is for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised_by: Vec<String>,
    /// Who has it; never empty.
    pub shares: Vec<Share>,
}

/// Kinds of what a machine has.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ResourceKind {
    /// A physical CPU.
    Cpu,
    /// A bank of RAM.
    Ram,
    /// A device.
    Device,
    /// An interrupt.
    Interrupt,
}

/// What someone has of a [`Resource`].
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Share {
    /// Who.
    pub holder: Holder,
    /// What.
    pub portion: Portion,
}

/// Who can have something.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Holder {
    /// The partition of this name.
    Partition(String),
    /// The hypervisor, for all.
    Hypervisor,
    /// The board's firmware, by what its tree reserves.
    Firmware,
    /// Nobody.
    Nobody,
}

/// How much of a [`Resource`] someone has.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Portion {
    /// All of it.
    Whole,
    /// The CPU, as this vCPU.
    Vcpu(usize),
    /// Bytes of RAM.
    Bytes(u64),
    /// A device's registers in a page with others'.
    Registers,
    /// These units of a device: pins, channels.
    Units(Vec<u32>),
    /// One of its own: each CPU has the interrupt.
    PerCpu,
    /// An imitation.
    Emulated,
    /// The device without this interrupt.
    Polled,
}

/// Physical addresses.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Span {
    /// First address.
    pub pa: u64,
    /// Bytes.
    pub size: u64,
    /// RAM; registers otherwise.
    pub ram: bool,
    /// Whose it is.
    pub holder: Holder,
    /// What it is; empty for free RAM.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// RAM that nobody has, in whole pages.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Free {
    /// Bytes.
    pub total: u64,
    /// Bytes of the largest piece.
    pub largest: u64,
}

/// Something that remains to be thought of.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Risk {
    /// What it is about.
    pub kind: RiskKind,
    /// The partition that brings it; none where it is the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub partition: Option<String>,
    /// One line.
    pub message: String,
}

/// Kinds of [`Risk`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RiskKind {
    /// A device reaches memory past stage 2.
    UnprotectedDma,
    /// No SMMU is programmed.
    NoSmmu,
    /// A page of registers has several owners.
    SharedPage,
    /// A device's interrupt is another's.
    PolledInterrupt,
    /// A device that nobody has can raise someone's interrupt.
    SharedInterrupt,
    /// More interrupts than list registers.
    ListRegisters,
    /// RAM in small pages though it is large.
    SmallPages,
    /// Devices that nobody looks after.
    NobodysDevices,
}

impl WindowKind {
    /// In words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Ram => "RAM",
            Self::Device => "device",
            Self::SharedDevice => "shared device",
            Self::Gic => "GIC",
            Self::Console => "console",
        }
    }
}

impl Blocks {
    pub(super) fn of(ipa: Ipa, pa: Pa, size: u64) -> Self {
        let mut blocks = Self::default();
        let mut done = 0;
        while done < size {
            let block = stage2::block(Ipa::new(ipa.raw() + done), Pa::new(pa.raw() + done), size - done);
            match block {
                BLOCK_1G => blocks.gib_1 += 1,
                BLOCK_2M => blocks.mib_2 += 1,
                _ => blocks.kib_4 += 1,
            }
            done += block;
        }
        blocks
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        for (count, size) in [(self.gib_1, "1 GiB"), (self.mib_2, "2 MiB"), (self.kib_4, "4 KiB")] {
            if count != 0 {
                write!(f, "{}{count} × {size}", if first { "" } else { ", " })?;
                first = false;
            }
        }
        Ok(())
    }
}

impl Content {
    /// What it is, with its payload's name.
    #[must_use]
    pub fn label(&self) -> String {
        match self.kind {
            ContentKind::Kernel => format!("kernel {}", self.payload),
            ContentKind::Ramdisk => format!("ramdisk {}", self.payload),
            ContentKind::DeviceTree => "device tree".to_owned(),
        }
    }
}

impl ResourceKind {
    /// In words.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Cpu => "CPU",
            Self::Ram => "RAM",
            Self::Device => "device",
            Self::Interrupt => "interrupt",
        }
    }
}

impl Holder {
    pub(super) fn partition(name: &str) -> Self {
        Self::Partition(name.to_owned())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Partition(name) => name,
            Self::Hypervisor => "hypervisor",
            Self::Firmware => "firmware",
            Self::Nobody => "nobody",
        })
    }
}

impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Whole => f.write_str("all"),
            Self::Vcpu(number) => write!(f, "vCPU {number}"),
            Self::Bytes(bytes) => Bytes(*bytes).fmt(f),
            Self::Registers => f.write_str("registers"),
            Self::Units(units) => {
                let units: Vec<_> = units.iter().map(ToString::to_string).collect();
                f.write_str(&units.join(" "))
            }
            Self::PerCpu => f.write_str("own"),
            Self::Emulated => f.write_str("emulated"),
            Self::Polled => f.write_str("polled"),
        }
    }
}

/// A number of bytes in words: exact where that is short.
pub struct Bytes(pub u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(u64, &str); 3] = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
        let size = self.0;
        let text = match UNITS.into_iter().find(|(unit, _)| size >= *unit) {
            None => format!("{size} bytes"),
            Some((unit, name)) if size.is_multiple_of(unit) => format!("{} {name}", size / unit),
            Some((unit, name)) => format!("{:.1} {name}", size as f64 / unit as f64),
        };
        f.pad(&text)
    }
}

/// The first and the last of a run of addresses.
#[must_use]
pub fn range(start: u64, size: u64) -> String {
    format!("{start:#010x}..={:#010x}", start + (size - 1))
}

impl Report {
    /// Everyone who can have something: the partitions, then the others as far as they have anything.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        let mut holders: Vec<_> =
            self.partitions.iter().map(|partition| Holder::partition(&partition.name)).collect();
        holders.push(Holder::Hypervisor);
        let firmware = |resource: &Resource| resource.share_of(&Holder::Firmware).is_some();
        holders.extend(self.resources.iter().any(firmware).then_some(Holder::Firmware));
        holders.push(Holder::Nobody);
        holders
    }
}

impl Resource {
    /// What this holder has of it.
    #[must_use]
    pub fn share_of(&self, holder: &Holder) -> Option<&Portion> {
        self.shares.iter().find(|share| share.holder == *holder).map(|share| &share.portion)
    }

    /// Whether nobody has any of it.
    #[must_use]
    pub fn is_nobodys(&self) -> bool {
        self.shares.iter().all(|share| share.holder == Holder::Nobody)
    }
}
