//! The guest's memory: the identity map, and the RAM that the image leaves free.

use core::sync::atomic::{AtomicU64, Ordering};

/// First address of RAM.
pub const RAM_START: u64 = 0x4000_0000;
/// Bytes of RAM that the guest takes for granted.
pub const RAM_SIZE: u64 = 128 << 20;
/// First address after RAM.
pub const RAM_END: u64 = RAM_START + RAM_SIZE;

/// Memory attributes by index: 0 Device-nGnRnE, 1 Normal write-back, 2 Normal non-cacheable
/// (Arm ARM DDI 0487, D19.2.97).
pub const MAIR: u64 = 0x44_ff_00;

/// What an [`identity_map`] makes of a gigabyte.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Attributes {
    /// Device-nGnRnE, not executable.
    Device,
    /// Normal, write-back, inner-shareable.
    Normal,
    /// Normal, non-cacheable: nothing is read ahead of time, and it can be executed.
    NonCacheable,
}

/// A level-1 translation table.
#[repr(C, align(4096))]
pub struct Table(pub [u64; 512]);

/// A level-1 table of 1 GiB blocks that maps 512 GiB to themselves: the gigabyte of RAM as Normal memory,
/// the rest with `others`.
#[must_use]
pub const fn identity_map(others: Attributes) -> Table {
    const BLOCK: u64 = 1;
    const ACCESS_FLAG: u64 = 1 << 10;
    const INNER_SHAREABLE: u64 = 3 << 8;
    const EXECUTE_NEVER: u64 = 3 << 53;
    let mut table = Table([0; 512]);
    let mut gigabyte = 0;
    while gigabyte < 512 {
        let attributes = if gigabyte as u64 == RAM_START >> 30 { Attributes::Normal } else { others };
        let bits = match attributes {
            Attributes::Device => EXECUTE_NEVER,
            Attributes::Normal => 1 << 2 | INNER_SHAREABLE,
            Attributes::NonCacheable => 2 << 2 | INNER_SHAREABLE,
        };
        table.0[gigabyte] = (gigabyte as u64) << 30 | bits | ACCESS_FLAG | BLOCK;
        gigabyte += 1;
    }
    table
}

/// The map that every CPU starts with: all but RAM is Device memory.
pub static IDENTITY_MAP: Table = identity_map(Attributes::Device);

unsafe extern "C" {
    static __image_start: u8;
    static __image_end: u8;
}

/// First address of the image.
#[must_use]
pub fn image_start() -> u64 {
    (&raw const __image_start) as u64
}

/// First address after the image, its zeroed data and its stacks.
#[must_use]
pub fn image_end() -> u64 {
    (&raw const __image_end) as u64
}

/// The doubleword of free RAM at `address`, a multiple of 8.
///
/// # Panics
/// Where `address` is misaligned, outside RAM or inside the image.
#[must_use]
pub fn free_word(address: u64) -> &'static AtomicU64 {
    let inside = (RAM_START..RAM_END).contains(&address);
    let image = (image_start()..image_end()).contains(&address);
    assert!(inside && !image && address.is_multiple_of(8), "{address:#x} is no free memory");
    // SAFETY: aligned, mapped as Normal memory, outside the image, so no other Rust object lies there; every
    // access to free RAM is made through such an atomic.
    unsafe { AtomicU64::from_ptr(address as *mut u64) }
}

/// Writes the doubleword of free RAM at `address`; panics as [`free_word`] does.
pub fn write(address: u64, value: u64) {
    free_word(address).store(value, Ordering::Relaxed);
}

/// Reads the doubleword of free RAM at `address`; panics as [`free_word`] does.
#[must_use]
pub fn read(address: u64) -> u64 {
    free_word(address).load(Ordering::Relaxed)
}
