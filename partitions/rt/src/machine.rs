//! Which machine this is, as far as the run-time cares: where its interrupt controller and its PL011 are.
//!
//! One binary runs on several boards, bare or in a partition, so it reads the device tree that it was started
//! with. Without one it takes the machine for QEMU `virt` with a GICv3, which is also what a word says that is
//! printed before the tree was read.

use heapless::String;
use spin::Once;

use crate::memory::RAM_START;
use crate::tree;

/// The interrupt controller by its architecture.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Gic {
    /// GICv2 (IHI 0048): distributor and memory-mapped CPU interface.
    V2 {
        /// Address of the CPU interface, whose second page follows at once.
        cpu_interface: u64,
    },
    /// GICv3 (IHI 0069): distributor and redistributors.
    V3 {
        /// Address of CPU 0's redistributor.
        redistributors: u64,
    },
}

/// What the tree says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Machine {
    /// The interrupt controller.
    pub gic: Gic,
    /// Address of its distributor.
    pub distributor: u64,
    /// Address of the PL011.
    pub uart: u64,
    /// INTID of the PL011.
    pub uart_intid: u32,
    /// The `bootargs`; empty where there are none or too many.
    pub bootargs: String<128>,
}

/// Which it is until a tree says otherwise.
pub(crate) const QEMU_VIRT: Machine = Machine {
    gic: Gic::V3 { redistributors: 0x080a_0000 },
    distributor: 0x0800_0000,
    uart: 0x0900_0000,
    uart_intid: 33,
    bootargs: String::new(),
};

static MACHINE: Once<Machine> = Once::new();
static WITHOUT_TREE: Machine = QEMU_VIRT;

/// This machine.
#[must_use]
pub fn machine() -> &'static Machine {
    MACHINE.get().unwrap_or(&WITHOUT_TREE)
}

/// Reads the device tree at `address`, X0 at the start; what it does not say stays as on QEMU `virt`.
pub(crate) fn read(address: u64) {
    // The gigabyte that is mapped as memory. A kernel's loader puts the tree there, or gives no address at all.
    const MAX_SIZE: u64 = 2 << 20;
    if !(RAM_START..RAM_START + (1 << 30) - MAX_SIZE).contains(&address) || !address.is_multiple_of(8) {
        return;
    }
    // SAFETY: aligned, mapped as Normal memory; the boot protocol puts a tree at the address in X0, if any,
    // outside the image, and nobody writes memory before `main`.
    let header = unsafe { *(address as *const [u32; 2]) };
    let [magic, size] = header.map(u32::from_be);
    if magic != 0xd00d_feed || u64::from(size) > MAX_SIZE {
        return;
    }
    // SAFETY: as above, for as many bytes as the tree says that it has.
    let blob = unsafe { core::slice::from_raw_parts(address as *const u8, size as usize) };
    if let Some(machine) = tree::describe(blob) {
        MACHINE.call_once(|| machine);
    }
}
