//! The boards that are known beyond their device trees: one list for the hypervisor and for the host tool.
#![no_std]
#![forbid(unsafe_code)]

use bulkhead_board::Board;

/// All of them.
pub static BOARDS: [Board; 2] = [bulkhead_qemu_virt::BOARD, bulkhead_rpi4::BOARD];
