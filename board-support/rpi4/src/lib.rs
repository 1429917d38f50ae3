//! The Raspberry Pi 4 Model B and its BCM2711: what their device tree does not say.
#![no_std]
#![forbid(unsafe_code)]

mod devices;
mod divided;
mod model;
pub mod sharing;

use bulkhead_board::Board;

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
};
