//! Every decision that Bulkhead makes, as plain Rust on plain data.
//!
//! Nothing here sees a register, a lock or a board: functions take `&mut` to the state that they change and
//! return what is to be done. That keeps the whole crate free of `unsafe` and testable on the host.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::todo,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod addr;
pub mod bundle;
pub mod console;
pub mod dispatch;
pub mod guest_dtb;
pub mod image;
pub mod inventory;
pub mod irq;
pub mod lifecycle;
pub mod machine;
pub mod manifest;
pub mod plan;
pub mod platform;
pub mod psci;
pub mod shared_page;
pub mod stage2;
pub mod syndrome;
pub mod tree;
pub mod vcpu;
pub mod vgic;
pub mod vpl011;
