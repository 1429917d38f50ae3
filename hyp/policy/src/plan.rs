//! The checked manifest: what each partition will own, down to the last address.
//!
//! A [`Plan`] exists only if the whole manifest passed every check, so that nothing after it asks again.
//! Fields are plain data: a partition is rebuilt from its plan whenever it restarts.

use alloc::vec::Vec;
use core::fmt;

use bulkhead_board::divided::DividedDevice;

use crate::addr::{Ipa, Pa, Region};
use crate::irq::{IntId, Trigger};
use crate::platform::Gic;
use crate::shared_page::SharedPage;
use crate::stage2::{Kind, Mapping};

/// Everything that will run on the machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Plan<'a> {
    /// The partitions, in the order of the manifest. Partition `n` has VMID `n + 1`.
    pub partitions: Vec<PartitionPlan<'a>>,
}

/// The most partitions that one manifest may hold.
pub const MAX_PARTITIONS: usize = 32;
/// The most physical CPUs that the hypervisor uses.
pub const MAX_CPUS: usize = 64;
/// The most vCPUs of one partition: as many as one cluster's Aff0 and a 16-bit target list can name.
pub const MAX_VCPUS: usize = 16;

/// What one partition owns and starts with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PartitionPlan<'a> {
    /// Name of its node.
    pub name: &'a str,
    /// What kind of guest it is.
    pub os: OsType,
    /// Its physical CPUs as indices into `Platform::cpus`; the position is the vCPU's number.
    pub cpus: Vec<usize>,
    /// Its memory.
    pub memory: Vec<MemoryWindow>,
    /// Devices passed through to it, whole or in part.
    pub devices: Vec<DeviceWindow<'a>>,
    /// The pages of those devices that trap.
    pub shared_pages: Vec<SharedPage>,
    /// Interrupts of those devices, each an SPI.
    pub interrupts: Vec<OwnedInterrupt>,
    /// Those of its devices that reach memory past the stage-2 tables, as its `unprotected-dma` allows.
    pub unprotected: Vec<DmaRisk<'a>>,
    /// Its emulated PL011.
    pub console: Option<VirtualUart>,
    /// What is copied into its memory before it starts, in this order.
    pub segments: Vec<Segment<'a>>,
    /// Where its first vCPU starts.
    pub entry: Ipa,
    /// Where its device tree is put; its size is the space kept for it.
    pub dtb: Region<Ipa>,
    /// Where its ramdisk ends up, exact size.
    pub ramdisk: Option<Region<Ipa>>,
    /// The kernel's command line.
    pub bootargs: Option<&'a str>,
}

/// The value of `os,type`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OsType {
    /// Linux: arm64 boot protocol.
    Linux,
    /// FreeRTOS.
    FreeRtos,
    /// Anything else that starts at EL1 with its device tree in x0.
    Bare,
}

/// RAM of a partition: `size` bytes at `ipa`, found at `pa`. All multiples of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemoryWindow {
    /// Where the guest sees it.
    pub ipa: Ipa,
    /// Where it is.
    pub pa: Pa,
    /// Bytes.
    pub size: u64,
}

/// The pages of one register block of a device passed through. All multiples of 4 KiB.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeviceWindow<'a> {
    /// Path of the device's node in the board's tree.
    pub path: &'a str,
    /// Where the guest sees it.
    pub ipa: Ipa,
    /// Where it is.
    pub pa: Pa,
    /// Bytes.
    pub size: u64,
    /// What the partition has, where that is not whole pages: those are not mapped then.
    pub part: Option<DevicePart>,
}

/// A device that reads and writes memory by itself, and nothing confines it: what remains to be said of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DmaRisk<'a> {
    /// Path of the device's node in the board's tree.
    pub path: &'a str,
    /// It reaches what lies below this address; `None` is all memory.
    pub below: Option<Pa>,
}

impl fmt::Display for DmaRisk<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, below } = self;
        write!(f, "{path} can read and write all memory")?;
        if let Some(below) = below {
            write!(f, " below {below}")?;
        }
        f.write_str(", that of the hypervisor and of other partitions too: no SMMU confines it")
    }
}

/// Registers in pages that others have parts of as well.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DevicePart {
    /// The partition has the device without its interrupt.
    pub polled: bool,
    /// Which units of it the partition has, one bit for each; `None` where it has the whole device.
    pub units: Option<(&'static DividedDevice, u64)>,
}

/// An SPI that belongs to a partition and arrives from real hardware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OwnedInterrupt {
    /// The interrupt; the guest sees it under the same number.
    pub intid: IntId,
    /// Its trigger as the board's tree says.
    pub trigger: Trigger,
}

/// An emulated PL011.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VirtualUart {
    /// One page of registers.
    pub registers: Region<Ipa>,
    /// Its interrupt, an SPI, level.
    pub intid: IntId,
}

/// Bytes of a payload and where they go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segment<'a> {
    /// Name of the payload in the bundle.
    pub payload: &'a str,
    /// First byte within the payload.
    pub offset: u64,
    /// Bytes copied from the payload.
    pub file_size: u64,
    /// Where they go.
    pub ipa: Ipa,
    /// Bytes that the segment occupies, at least `file_size`.
    pub memory_size: u64,
    /// What the payload does not fill is zeroed, as an ELF file asks. An arm64 Image clears its own.
    pub zeroed: bool,
}

impl PartitionPlan<'_> {
    /// Where `ipa` is, if it is RAM: from there to the end of its memory window.
    #[must_use]
    pub fn locate(&self, ipa: Ipa) -> Option<Region<Pa>> {
        self.memory.iter().find_map(|window| {
            let offset = ipa.raw().checked_sub(window.ipa.raw())?;
            Region::new(Pa::new(window.pa.raw().checked_add(offset)?), window.size.checked_sub(offset)?)
        })
    }

    /// Everything that is mapped at stage 2 with this GIC. Nothing twice, though devices may share pages.
    #[must_use]
    pub fn mappings(&self, gic: &Gic) -> Vec<Mapping> {
        let mut mappings = Vec::new();
        for window in &self.memory {
            mappings.push((window.ipa, window.pa, window.size, Kind::Memory));
        }
        if let Some(frame) = gic.guest_cpu_interface() {
            mappings.push((frame.mapped.start(), frame.pa, frame.mapped.size(), Kind::Device));
        }
        let mut devices: Vec<(u64, u64)> = Vec::new();
        for window in self.devices.iter().filter(|window| window.part.is_none()) {
            let (mut start, mut end) = (window.pa.raw(), window.pa.raw().saturating_add(window.size));
            devices.retain(|&(other, other_end)| {
                let apart = other_end <= start || end <= other;
                if !apart {
                    start = start.min(other);
                    end = end.max(other_end);
                }
                apart
            });
            devices.push((start, end));
        }
        // A device is found where it is.
        for (start, end) in devices {
            mappings.push((Ipa::new(start), Pa::new(start), end.saturating_sub(start), Kind::Device));
        }
        mappings
    }
}
