//! The Raspberry Pi 4 Model B and its BCM2711: what their device tree does not say.
#![no_std]
#![forbid(unsafe_code)]

mod devices;
mod divided;
mod model;
pub mod sharing;

use bulkhead_board::Board;
use bulkhead_board::power::{PowerController, PowerModel};

pub use crate::model::QEMU_LACKS;

/// The board.
pub const BOARD: Board = Board {
    name: "rpi4",
    title: "Raspberry Pi 4",
    compatible: "raspberrypi,4-model-b",
    divided: &divided::DEVICES,
    interrupt_enables: &divided::INTERRUPT_ENABLES,
    devices: &devices::DEVICES,
    clocks: &devices::CLOCKS,
    added: &devices::ADDED,
    // The board has no switch: its firmware waits for ever after a reset that the power manager marks so.
    power: Some(PowerController { compatible: "brcm,bcm2711-pm", model: PowerModel::Bcm2835Pm }),
    // UART 0 (BCM2711 ARM Peripherals, 1.2 and 11.5), on GPIO 14 and 15 with `dtoverlay=disable-bt`.
    early_pl011: Some(0xfe20_1000),
    // Those of its GIC-400.
    list_registers: 4,
    // BCM2711 ARM Peripherals, 6.5.1: NUM_SPIS=192.
    spis: 192,
};
