//! QEMU's `virt` machine. Its tree says everything.
#![no_std]
#![forbid(unsafe_code)]

use bulkhead_board::Board;

/// The board.
pub const BOARD: Board = Board {
    name: "qemu-virt",
    title: "QEMU virt",
    compatible: "linux,dummy-virt",
    divided: &[],
    interrupt_enables: &[],
    devices: &[],
    clocks: &[],
    added: &[],
    power: None,
    early_pl011: None,
    // As its Cortex-A72 has, and its GICv2.
    list_registers: 4,
    // QEMU hw/arm/virt: NUM_IRQS.
    spis: 256,
};
