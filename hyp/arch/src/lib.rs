//! The mechanism: everything that touches hardware, and nothing that decides.
//!
//! This crate may use `unsafe` because registers, page tables and exception vectors have no safe form. Each use says which
//! facts make it sound; what a caller must guarantee is in the contract of an `unsafe fn`.
#![no_std]
#![cfg(target_os = "none")]
#![expect(
    unsafe_code,
    reason = "system registers, translation tables, vectors and device registers have no safe form"
)]

extern crate alloc;

pub mod barrier;
pub mod boot;
pub mod cache;
pub mod fault;
pub mod firmware;
pub mod gic;
pub mod guest;
pub mod heap;
pub mod layout;
mod memory;
pub mod mmu;
pub mod once;
pub mod percpu;
pub mod sha256;
mod sysreg;
pub mod uart;
pub mod vectors;
pub mod watchdog;
