//! Addresses that say whose they are.
//!
//! A guest's intermediate physical address ([`Ipa`]) and the machine's physical address ([`Pa`]) are both
//! 64-bit numbers, and mixing them up is how one partition ends up writing another's memory. They are
//! separate types here, nothing converts one into the other but a stage-2 lookup, and all arithmetic is
//! checked.

use core::fmt;
use core::num::NonZeroU64;

/// Bytes in the smallest unit of mapping: the 4 KiB translation granule.
pub const PAGE_SIZE: u64 = 4096;

/// Bytes covered by one level-2 block descriptor of the 4 KiB granule.
pub const BLOCK_2M: u64 = 2 << 20;

/// Bytes covered by one level-1 block descriptor of the 4 KiB granule.
pub const BLOCK_1G: u64 = 1 << 30;

/// What [`Pa`] and [`Ipa`] have in common, so that [`Region`] can be made of either.
pub trait Address: Copy + Ord + fmt::Debug {
    /// The address with this numeric value.
    fn new(raw: u64) -> Self;
    /// The numeric value.
    fn raw(self) -> u64;
    /// The address `offset` bytes further on, or `None` past the end of the 64-bit space.
    fn checked_add(self, offset: u64) -> Option<Self> {
        self.raw().checked_add(offset).map(Self::new)
    }
    /// Whether the address is a multiple of `alignment`, which is a power of two.
    fn is_aligned(self, alignment: u64) -> bool {
        self.raw() & alignment.wrapping_sub(1) == 0
    }
}

macro_rules! address {
    ($name:ident, $doc:literal) => {
        #[doc = $doc]
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(transparent)]
        pub struct $name(u64);

        impl $name {
            /// The address with this numeric value.
            #[must_use]
            pub const fn new(raw: u64) -> Self {
                Self(raw)
            }

            /// The numeric value.
            #[must_use]
            pub const fn raw(self) -> u64 {
                self.0
            }
        }

        impl Address for $name {
            fn new(raw: u64) -> Self {
                Self(raw)
            }

            fn raw(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({:#x})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:#x}", self.0)
            }
        }
    };
}

address!(Pa, "A physical address of the machine.");
address!(Ipa, "An intermediate physical address: what a guest takes for a physical address.");

/// A run of addresses, never empty and never past the end of the 64-bit space.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash)]
pub struct Region<A> {
    start: A,
    /// An `Option<Region>` is as large as a region because this is not 0, and passes in registers.
    size: NonZeroU64,
}

impl<A: Address> Region<A> {
    /// `size` bytes from `start`; `None` where `size` is 0 or the last byte lies past 2^64 − 1.
    #[must_use]
    pub fn new(start: A, size: u64) -> Option<Self> {
        let size = NonZeroU64::new(size)?;
        start.raw().checked_add(size.get().wrapping_sub(1))?;
        Some(Self { start, size })
    }

    /// The first address.
    #[must_use]
    pub fn start(self) -> A {
        self.start
    }

    /// Size in bytes, at least 1.
    #[must_use]
    pub fn size(self) -> u64 {
        self.size.get()
    }

    /// The last address that belongs to the region.
    #[must_use]
    pub fn last(self) -> A {
        A::new(self.start.raw().wrapping_add(self.size()).wrapping_sub(1))
    }

    /// Whether `address` lies inside.
    #[must_use]
    pub fn contains(self, address: A) -> bool {
        self.offset_of(address).is_some()
    }

    /// Bytes from the start to `address`, or `None` where it lies outside.
    #[must_use]
    pub fn offset_of(self, address: A) -> Option<u64> {
        let offset = address.raw().wrapping_sub(self.start.raw());
        (offset < self.size()).then_some(offset)
    }

    /// Whether every address of `other` lies inside.
    #[must_use]
    pub fn encloses(self, other: Self) -> bool {
        let offset = other.start.raw().wrapping_sub(self.start.raw());
        offset < self.size() && other.size() <= self.size().wrapping_sub(offset)
    }

    /// Whether the two have an address in common.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.start <= other.last() && other.start <= self.last()
    }

    /// Whether start and size are multiples of `alignment`, which is a power of two.
    #[must_use]
    pub fn is_aligned(self, alignment: u64) -> bool {
        (self.start.raw() | self.size()) & alignment.wrapping_sub(1) == 0
    }
}

impl<A: Address> fmt::Display for Region<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.start.raw(), self.last().raw())
    }
}
