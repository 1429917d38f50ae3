//! The demo's FreeRTOS for QEMU `virt` with a GICv2.
#![no_std]
#![no_main]

#[path = "../panic.rs"]
mod panic;
