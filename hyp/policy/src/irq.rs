//! Interrupt identifiers that cannot be out of range.
//!
//! Every table of the vGIC is indexed by an [`IntId`], so a number is checked once, where it enters.

use core::fmt;

/// An interrupt identifier of the GIC: SGI 0–15, PPI 16–31, SPI 32–1019 (GICv3 specification IHI 0069, 2.2).
///
/// Special INTIDs (1020–1023), extended ranges and LPIs are not representable: no partition gets any.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IntId(u16);

impl IntId {
    /// The number of INTIDs that an [`IntId`] can be: one more than the largest SPI.
    pub const COUNT: usize = 1020;

    /// The number of SPIs that a GIC can have.
    pub const SPIS: u32 = 988;

    /// The INTID with this number, or `None` where it is no SGI, PPI or SPI.
    #[must_use]
    pub const fn new(raw: u32) -> Option<Self> {
        if raw < Self::COUNT as u32 { Some(Self(raw as u16)) } else { None }
    }

    /// Software-generated interrupt `n`, taken modulo 16.
    #[must_use]
    pub const fn sgi(n: u8) -> Self {
        Self((n & 15) as u16)
    }

    /// Private peripheral interrupt `n` as a device tree counts them (0–15), taken modulo 16.
    #[must_use]
    pub const fn ppi(n: u8) -> Self {
        Self(16 | (n & 15) as u16)
    }

    /// SGI or PPI with this INTID, taken modulo 32.
    #[must_use]
    pub const fn private(intid: usize) -> Self {
        Self((intid & 31) as u16)
    }

    /// Shared peripheral interrupt `n` as a device tree counts them, or `None` above 987.
    #[must_use]
    pub const fn spi(n: u32) -> Option<Self> {
        match n.checked_add(32) {
            Some(raw) => Self::new(raw),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn raw(self) -> u32 {
        self.0 as u32
    }

    /// Whether each CPU has its own interrupt of this number (an SGI or a PPI).
    #[must_use]
    pub const fn is_private(self) -> bool {
        self.0 < 32
    }
}

impl fmt::Debug for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for IntId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, n) = match self.0 {
            n @ 0..16 => ("SGI", n),
            n @ 16..32 => ("PPI", n & 15),
            n => ("SPI", n.saturating_sub(32)),
        };
        write!(f, "{kind} {}", u64::from(n))
    }
}

/// What makes an interrupt pending.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Trigger {
    /// Pending as long as the line is asserted.
    Level,
    /// Pending from a rising edge until acknowledged.
    Edge,
}
