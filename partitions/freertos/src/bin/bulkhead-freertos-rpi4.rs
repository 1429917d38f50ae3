//! The demo's FreeRTOS for the Raspberry Pi 4.
#![no_std]
#![no_main]

#[path = "../panic.rs"]
mod panic;
