//! Changes of a tree that keep it well-formed, so that what comes after the gate is reached: numbers, names and places that mean
//! something to a reader.

use arbitrary::{Result, Unstructured};

use crate::blob::Blob;

/// Names of properties that someone reads.
const NAMES: [&str; 45] = [
    "#address-cells",
    "#clock-cells",
    "#dma-cells",
    "#gpio-cells",
    "#interrupt-cells",
    "#power-domain-cells",
    "#redistributor-regions",
    "#size-cells",
    "assigned-clock-rates",
    "assigned-clocks",
    "brcm,dma-channel-mask",
    "clock-names",
    "clocks",
    "compatible",
    "cpu-release-addr",
    "device_type",
    "dma-coherent",
    "dma-ranges",
    "dmas",
    "enable-method",
    "gpio-reserved-ranges",
    "gpios",
    "interrupt-controller",
    "interrupt-map",
    "interrupt-parent",
    "interrupts",
    "interrupts-extended",
    "iommu-map",
    "iommus",
    "linux,initrd-start",
    "linux,phandle",
    "memory",
    "method",
    "msi-parent",
    "phandle",
    "phys",
    "pinctrl-0",
    "power-domains",
    "ranges",
    "reg",
    "resets",
    "serial0",
    "status",
    "stdout-path",
    "vmmc-supply",
];

/// Strings that are values of those.
const STRINGS: [&str; 26] = [
    "arm,armv8-timer\0",
    "arm,cortex-a72-pmu\0",
    "arm,gic-400\0",
    "arm,gic-v3\0",
    "arm,pl011\0",
    "arm,psci-1.0\0",
    "brcm,bcm2711\0",
    "brcm,bcm2711-gpio\0",
    "brcm,bcm2835-aux-uart\0",
    "brcm,bcm2835-dma\0",
    "cpu\0",
    "disabled\0",
    "fixed-clock\0",
    "hvc\0",
    "memory\0",
    "okay\0",
    "pci\0",
    "pci-host-ecam-generic\0",
    "psci\0",
    "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "serial0:115200\0",
    "simple-bus\0",
    "smc\0",
    "spin-table\0",
    "virtio,mmio\0",
    "/\0",
];

/// Names of nodes that someone looks for.
const NODES: [&str; 16] = [
    "aliases",
    "chosen",
    "cpu@0",
    "cpus",
    "intc@8000000",
    "memory@40000000",
    "partitions",
    "pl011@9000000",
    "psci",
    "reserved-memory",
    "soc",
    "system",
    "timer",
    "x",
    "x@0",
    "123456789abcdef123456789abcdef123456789abcdef123456789abcdef123456789abcdef123456789abcdef123456789abcdef123456789abcdef1234567",
];

/// Numbers at which something changes.
const NUMBERS: [u64; 32] = [
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    9,
    16,
    31,
    32,
    63,
    64,
    988,
    0xfff,
    0x1000,
    0x2000,
    0x1_0000,
    0x20_0000,
    0x800_0000,
    0x900_0000,
    0x4000_0000,
    0x4020_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_f000,
    0xffff_ffff,
    0x1_0000_0000,
    0x7f_ffff_f000,
    0xffff_ffff_ffff,
    0xffff_ffff_ffff_f000,
    u64::MAX,
];

/// A few changes, or none.
pub(crate) fn some(blob: &mut Blob, choices: &mut Unstructured<'_>) {
    edits(blob, choices, 4);
}

/// More changes.
pub(crate) fn many(blob: &mut Blob, choices: &mut Unstructured<'_>) {
    edits(blob, choices, 16);
}

fn edits(blob: &mut Blob, choices: &mut Unstructured<'_>, most: u8) {
    let count = choices.int_in_range(0..=most).unwrap_or(0);
    for _ in 0..count {
        // Out of choices: done.
        if edit(blob, choices).is_err() {
            return;
        }
    }
}

fn number(choices: &mut Unstructured<'_>) -> Result<u64> {
    if choices.ratio(3, 4)? { choices.choose(&NUMBERS).copied() } else { choices.arbitrary() }
}

/// A value of some kind.
fn value(choices: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    Ok(match choices.int_in_range(0..=3)? {
        0 => choices.choose(&STRINGS)?.as_bytes().to_vec(),
        1 => {
            let count = choices.int_in_range(0..=16)?;
            let cells: Result<Vec<_>> =
                (0..count).map(|_| Ok((number(choices)? as u32).to_be_bytes())).collect();
            cells?.concat()
        }
        2 => {
            let count = choices.int_in_range(0..=8)?;
            let numbers: Result<Vec<_>> = (0..count).map(|_| Ok(number(choices)?.to_be_bytes())).collect();
            numbers?.concat()
        }
        _ => {
            let size = choices.int_in_range(0..=20)?;
            choices.bytes(size)?.to_vec()
        }
    })
}

fn edit(blob: &mut Blob, choices: &mut Unstructured<'_>) -> Result<()> {
    let (nodes, properties) = blob.places();
    let (node, property) = (*choices.choose(&nodes)?, *choices.choose(&properties)?);
    match choices.int_in_range(0..=10_u8)? {
        0..=2 => {
            let number = number(choices)?;
            let cells = blob.value(property).as_chunks_mut::<4>().0;
            if !cells.is_empty() {
                let at = choices.choose_index(cells.len())?;
                cells[at] = (number as u32).to_be_bytes();
            }
        }
        3 => blob.rename(property, choices.choose(&NAMES)?),
        4 => blob.remove(property),
        5 => {
            let other = *choices.choose(&properties)?;
            let value = blob.value(other).to_vec();
            blob.replace(property, &value);
        }
        6 => {
            let value = value(choices)?;
            blob.replace(property, &value);
        }
        7 => {
            let name = choices.choose(&NAMES)?;
            let value = value(choices)?;
            blob.insert(node, name, &value);
        }
        // The root's name is empty.
        8 if node != 0 => blob.rename_node(node, choices.choose(&NODES)?),
        9 if node != 0 => blob.double(node),
        _ => blob.reserve(number(choices)?, number(choices)?),
    }
    Ok(())
}
