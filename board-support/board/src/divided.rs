//! Registers of which several partitions can have parts.
//!
//! A tree gives a device's registers as one block. Where the block is an array of like units, pins or channels, or where a device
//! shares its interrupt line with others, a partition can have a part of it only if someone knows which bits are whose.

/// A device that is an array of like units, each of which can go to another partition.
///
/// Registers of its page that no bank names belong to nobody.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DividedDevice {
    /// What its node is compatible with. A board has one such node.
    pub compatible: &'static str,
    /// The property of a partition that lists its units.
    pub property: &'static str,
    /// What a unit is called in messages.
    pub unit: &'static str,
    /// How many there are, at most 64; the first is 0.
    pub units: u8,
    /// The property of its node whose bits say which of them the firmware leaves to others.
    pub usable: Option<&'static str>,
    /// Unit `n` has the node's interrupt `n`. Otherwise all interrupts belong to all units.
    pub interrupt_per_unit: bool,
    /// Its registers.
    pub banks: &'static [Bank],
}

/// Registers that hold the same of every unit.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bank {
    /// Where the first one is, in bytes from the device's first register.
    pub offset: u16,
    /// Bytes from one register to the next.
    pub stride: u16,
    /// Bytes of one register; more than 4 where a unit has several that follow each other.
    pub size: u16,
    /// Bits of one unit in a 32-bit register, 1 to 32: unit 0 has the lowest.
    pub bits: u8,
    /// What a write does.
    pub write: Write,
    /// A bit that is set here can raise an interrupt.
    pub interrupts: bool,
}

impl Bank {
    /// Registers of 32 bits without gaps, from `offset`, with `bits` bits a unit.
    #[must_use]
    pub const fn new(offset: u16, bits: u8, write: Write) -> Self {
        Self { offset, stride: 4, size: 4, bits, write, interrupts: false }
    }

    /// The same, in which a set bit can raise an interrupt.
    #[must_use]
    pub const fn raising(self) -> Self {
        Self { interrupts: true, ..self }
    }
}

/// What a write to a register does with the bits that are not the writer's.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Write {
    /// There is nothing to write.
    Never,
    /// A zero changes nothing, or there are no other bits: they are written as zeros.
    Zeros,
    /// The register holds what was written: they are written as they are read.
    Kept,
}

/// Where a device, given by `compatible`, enables its interrupts. Bulkhead keeps these bits zero for whoever has the device without its
/// interrupt, so that the line is quiet for the line's owner. A device with several such registers has an entry for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterruptEnable {
    /// What its node is compatible with.
    pub compatible: &'static str,
    /// Where the register is, in bytes from the device's first one.
    pub offset: u16,
    /// The bits.
    pub bits: u32,
}
