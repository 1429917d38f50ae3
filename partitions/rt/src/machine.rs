//! Which machine this is, as far as the run-time cares: where its interrupt controller and its PL011 are.
//!
//! One binary runs on several boards, bare or in a partition, so it reads the device tree that it was started
//! with. Without one it takes the machine for QEMU `virt` with a GICv3, which is also what a word says that is
//! printed before the tree was read.

use dtoolkit::fdt::{Fdt, FdtNode};
use dtoolkit::{Node, Property};
use heapless::String;
use spin::Once;

use crate::memory::RAM_START;

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

const QEMU_VIRT: Machine = Machine {
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
    let Ok(tree) = Fdt::new(blob) else { return };
    let mut machine = QEMU_VIRT;
    // Devices stand below the root, on QEMU virt and in a partition.
    for node in tree.root().children() {
        let is = |name: &str| node.compatible().into_iter().flatten().any(|compatible| compatible == name);
        let Some(first) = frame(node, 0) else { continue };
        if is("arm,gic-v3") {
            machine.distributor = first;
            if let Some(redistributors) = frame(node, 1) {
                machine.gic = Gic::V3 { redistributors };
            }
        } else if is("arm,cortex-a15-gic") || is("arm,gic-400") {
            machine.distributor = first;
            if let Some(cpu_interface) = frame(node, 1) {
                machine.gic = Gic::V2 { cpu_interface };
            }
        } else if is("arm,pl011") && is_console(tree, node) {
            machine.uart = first;
            machine.uart_intid = spi(node).unwrap_or(machine.uart_intid);
        }
    }
    let chosen = tree.root().child("chosen");
    let bootargs = chosen.as_ref().and_then(|chosen| chosen.property("bootargs"));
    if let Some(bootargs) = bootargs.as_ref().and_then(|bootargs| bootargs.value_as::<&str>().ok()) {
        machine.bootargs = String::try_from(bootargs).unwrap_or_default();
    }
    MACHINE.call_once(|| machine);
}

/// Address of the frame at `index` of `reg`.
fn frame(node: FdtNode<'_>, index: usize) -> Option<u64> {
    node.reg().ok()??.nth(index)?.address().ok()
}

/// INTID of the node's first interrupt where that is an SPI (Linux binding `arm,gic`).
fn spi(node: FdtNode<'_>) -> Option<u32> {
    let interrupts = node.property("interrupts")?;
    let specifier = interrupts.value().first_chunk::<8>()?;
    let number = u64::from_be_bytes(*specifier);
    (number >> 32 == 0).then_some(number as u32 + 32)
}

/// Whether `stdout-path` names the node, or names none below the root.
fn is_console(tree: Fdt<'_>, node: FdtNode<'_>) -> bool {
    let chosen = tree.root().child("chosen");
    let path = chosen.as_ref().and_then(|chosen| chosen.property("stdout-path"));
    let path = path.as_ref().and_then(|path| path.value_as::<&str>().ok());
    path.and_then(|path| path.strip_prefix('/')?.split(':').next()).is_none_or(|name| name == node.name())
}
