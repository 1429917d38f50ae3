//! What a board's devices can do to others beyond their registers and interrupts.
//!
//! A device tree says where a device is, but not whether it reads and writes memory by itself, nor that it switches
//! the clocks of all. Where a board has such data, a device that it does not know is taken for the worst.

/// What a device can do to those who do not own it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// Nothing.
    Plain,
    /// It reads and writes memory by itself: at most what lies below this address, [`ALL_MEMORY`] where nothing
    /// but the size of memory is a limit. What `dma-ranges` in the tree lead to may be less.
    Master(u64),
    /// So much that nobody may have it, for this reason.
    Kept(&'static str),
    /// It is none: its node shows the registers of another.
    Shadow,
}

/// The limit of a [`Class::Master`] that reaches everything, whatever `dma-ranges` in the tree say.
pub const ALL_MEMORY: u64 = u64::MAX;

/// Devices of one class.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Devices {
    /// Strings of `compatible`, with spaces between them.
    pub compatible: &'static str,
    /// What they can do.
    pub class: Class,
}

/// A clock that runs as the firmware set it. A guest that may not touch its controller sees a fixed clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Clock {
    /// `compatible` of the controller.
    pub controller: &'static str,
    /// Which of its clocks: the cell behind the phandle.
    pub index: u32,
    /// Its rate in Hz.
    pub hertz: u32,
}
