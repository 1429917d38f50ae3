//! Stage-2 translation tables: the wall between partitions.
//!
//! 4 KiB granule, at most 39-bit IPA, first lookup at level 1 (Arm ARM DDI 0487, D8.2 and D8.3). A mapping uses the
//! largest descriptor that the alignment of both addresses and the size allow, because every level
//! saved is a memory access less in each of the guest's TLB misses. Tables are built before their partition first
//! runs and never changed under it, so break-before-make does not arise.

use crate::addr::{Address, BLOCK_1G, BLOCK_2M, Ipa, PAGE_SIZE, Pa};

/// One translation table: 512 descriptors.
#[derive(Clone, Copy)]
#[repr(C, align(4096))]
pub struct Table(pub [u64; 512]);

impl Table {
    /// Nothing mapped.
    pub const EMPTY: Self = Self([0; 512]);
}

/// The most IPA bits: what one level-1 table translates.
pub const IPA_BITS: u32 = 39;

/// Descriptor bits (DDI 0487, D8.3.1).
const VALID: u64 = 1;
const TABLE_OR_PAGE: u64 = 1 << 1;
const ACCESS_FLAG: u64 = 1 << 10;
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;
const S2AP_READ_WRITE: u64 = 0b11 << 6;
const INNER_SHAREABLE: u64 = 0b11 << 8;
const XN: u64 = 1 << 54;
/// MemAttr[3:0] without FEAT_S2FWB: Normal, inner and outer write-back.
const NORMAL: u64 = 0b1111 << 2;
/// MemAttr[3:0]: Device-nGnRE.
const DEVICE_NGNRE: u64 = 0b0001 << 2;

/// IPA, PA, size in bytes, and what is there.
pub type Mapping = (Ipa, Pa, u64, Kind);

/// What is mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// RAM: Normal write-back, read, write and execute.
    Memory,
    /// Registers: Device-nGnRE, read and write, never executed.
    Device,
}

/// Why a mapping was not made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Error {
    /// An address or the size is no multiple of 4 KiB, the size is zero, or the range leaves the address space.
    BadRange,
    /// Something is mapped there already.
    AlreadyMapped,
    /// The pool has no table left.
    OutOfTables,
}

/// The tables of one partition, in a pool that lies contiguous in physical memory.
pub struct Stage2<'a> {
    pool: &'a mut [Table],
    base: Pa,
    used: usize,
}

impl<'a> Stage2<'a> {
    /// Empty tables in `pool`, which is found at `base` and all [`Table::EMPTY`]. The root is the first table.
    ///
    /// # Errors
    /// [`Error::OutOfTables`] where the pool is empty, [`Error::BadRange`] where `base` is not 4 KiB aligned.
    pub fn new(pool: &'a mut [Table], base: Pa) -> Result<Self, Error> {
        if !base.is_aligned(PAGE_SIZE) {
            return Err(Error::BadRange);
        }
        if pool.is_empty() {
            return Err(Error::OutOfTables);
        }
        Ok(Self { pool, base, used: 1 })
    }

    /// A number of tables that suffices for these mappings: the root, and for each what its unaligned ends need, or all of it
    /// where the difference of the addresses forbids blocks.
    #[must_use]
    pub fn tables_for(mappings: &[Mapping]) -> usize {
        mappings.iter().fold(1, |tables, &(ipa, pa, size, _)| {
            let end = ipa.raw().saturating_add(size);
            let needed = |shift: u32| {
                let within = (1_u64 << shift).wrapping_sub(1);
                let first = ipa.raw() >> shift;
                let touched = (end.saturating_sub(1) >> shift).saturating_sub(first).saturating_add(1);
                let ends = u64::from(ipa.raw() & within != 0).saturating_add(u64::from(end & within != 0));
                let tables = if (ipa.raw() ^ pa.raw()) & within == 0 { ends.min(touched) } else { touched };
                usize::try_from(tables).unwrap_or(usize::MAX)
            };
            tables.saturating_add(needed(shift(1))).saturating_add(needed(shift(2)))
        })
    }

    /// What goes into VTTBR_EL2.BADDR.
    #[must_use]
    pub fn root(&self) -> Pa {
        self.base
    }

    /// Maps `size` bytes at `ipa` to `pa`.
    ///
    /// # Errors
    /// See [`Error`]. After an error the tables are incomplete and must not be used.
    pub fn map(&mut self, ipa: Ipa, pa: Pa, size: u64, kind: Kind) -> Result<(), Error> {
        let aligned = ipa.is_aligned(PAGE_SIZE) && pa.is_aligned(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE);
        let ends = ipa.raw().checked_add(size).zip(pa.raw().checked_add(size));
        match ends {
            Some((ipa_end, pa_end)) if aligned && size != 0 => {
                if ipa_end > 1 << IPA_BITS || pa_end > 1 << 48 {
                    return Err(Error::BadRange);
                }
            }
            _ => return Err(Error::BadRange),
        }
        let mut done = 0;
        while done < size {
            let (ipa, pa) = (ipa.raw().wrapping_add(done), pa.raw().wrapping_add(done));
            let block = block(Ipa::new(ipa), Pa::new(pa), size.wrapping_sub(done));
            let level = match block {
                BLOCK_1G => 1,
                BLOCK_2M => 2,
                _ => 3,
            };
            self.set(ipa, level, leaf(pa, level, kind))?;
            done = done.wrapping_add(block);
        }
        Ok(())
    }

    /// The physical address behind `ipa`, and whether it is memory or a device.
    #[must_use]
    pub fn translate(&self, ipa: Ipa) -> Option<(Pa, Kind)> {
        if ipa.raw() >> IPA_BITS != 0 {
            return None;
        }
        let mut table = 0;
        for level in 1..=3 {
            let entry = *self.pool.get(table)?.0.get(index(ipa.raw(), level))?;
            if entry & VALID == 0 {
                return None;
            }
            if level == 3 || entry & TABLE_OR_PAGE == 0 {
                let within = (1_u64 << shift(level)).wrapping_sub(1);
                let kind = if entry & (0b1111 << 2) == NORMAL { Kind::Memory } else { Kind::Device };
                return Some((Pa::new((entry & ADDRESS & !within) | (ipa.raw() & within)), kind));
            }
            table = self.table_index(entry)?;
        }
        None
    }

    /// Writes the descriptor for `ipa` at `level`, making the tables that lead there.
    fn set(&mut self, ipa: u64, level: u32, descriptor: u64) -> Result<(), Error> {
        let mut table = 0;
        for above in 1..level {
            let entry = self.entry(table, ipa, above)?;
            if *entry & VALID == 0 {
                let new = self.used;
                if new >= self.pool.len() {
                    return Err(Error::OutOfTables);
                }
                self.used = new.wrapping_add(1);
                let pa = self.base.raw().wrapping_add((new as u64).wrapping_mul(PAGE_SIZE));
                *self.entry(table, ipa, above)? = pa | TABLE_OR_PAGE | VALID;
                table = new;
            } else if *entry & TABLE_OR_PAGE == 0 {
                return Err(Error::AlreadyMapped);
            } else {
                let entry = *entry;
                table = self.table_index(entry).ok_or(Error::BadRange)?;
            }
        }
        let entry = self.entry(table, ipa, level)?;
        if *entry & VALID != 0 {
            return Err(Error::AlreadyMapped);
        }
        *entry = descriptor;
        Ok(())
    }

    fn entry(&mut self, table: usize, ipa: u64, level: u32) -> Result<&mut u64, Error> {
        let table = self.pool.get_mut(table).ok_or(Error::OutOfTables)?;
        table.0.get_mut(index(ipa, level)).ok_or(Error::BadRange)
    }

    fn table_index(&self, entry: u64) -> Option<usize> {
        let index = (entry & ADDRESS).checked_sub(self.base.raw())? / PAGE_SIZE;
        (index < self.used as u64).then_some(index as usize)
    }
}

/// Bytes that one descriptor maps at the start of `left` bytes at `ipa` and `pa`: 1 GiB, 2 MiB or 4 KiB, the most that fits.
#[must_use]
pub fn block(ipa: Ipa, pa: Pa, left: u64) -> u64 {
    let fits = |block: &u64| (ipa.raw() | pa.raw()) & block.wrapping_sub(1) == 0 && left >= *block;
    [BLOCK_1G, BLOCK_2M].into_iter().find(fits).unwrap_or(PAGE_SIZE)
}

/// Lowest address bit that `level` translates.
fn shift(level: u32) -> u32 {
    match level {
        1 => 30,
        2 => 21,
        _ => 12,
    }
}

fn index(ipa: u64, level: u32) -> usize {
    ((ipa >> shift(level)) & 0x1ff) as usize
}

fn leaf(pa: u64, level: u32, kind: Kind) -> u64 {
    let attributes = match kind {
        Kind::Memory => NORMAL | INNER_SHAREABLE,
        Kind::Device => DEVICE_NGNRE | XN,
    };
    pa | attributes | ACCESS_FLAG | S2AP_READ_WRITE | if level == 3 { TABLE_OR_PAGE } else { 0 } | VALID
}

/// VTCR_EL2 for these tables (DDI 0487, D19.2.166) on a machine whose ID_AA64MMFR0_EL1.PARange is `pa_range`: IPA as wide
/// as the PA but at most 39 bits, level-1 start, 4 KiB granule, walks write-back and inner shareable.
#[must_use]
pub fn vtcr(pa_range: u64) -> u64 {
    let bits = match pa_range & 0xf {
        0 => 32,
        1 => 36,
        _ => IPA_BITS,
    };
    let t0sz = u64::from(64_u32.wrapping_sub(bits));
    let (sl0, walks, res1) = (1 << 6, (1 << 8) | (1 << 10) | (0b11 << 12), 1 << 31);
    let ps = pa_range.min(5) << 16;
    res1 | ps | walks | sl0 | t0sz
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec;

    #[test]
    fn the_largest_block_that_fits_is_used() {
        let mappings = [
            (Ipa::new(0x4000_0000), Pa::new(0x8000_0000), 0x4020_0000, Kind::Memory),
            (Ipa::new(0x900_0000), Pa::new(0x900_0000), 0x1000, Kind::Device),
        ];
        let mut pool = vec![Table::EMPTY; Stage2::tables_for(&mappings)];
        let mut tables = Stage2::new(&mut pool, Pa::new(0x1000)).unwrap();
        for (ipa, pa, size, kind) in mappings {
            tables.map(ipa, pa, size, kind).unwrap();
        }
        // One level-1 block, one level-2 table for the rest, a level-2 and a level-3 table for the device.
        assert_eq!((tables.used, tables.pool.len()), (4, 4));
        assert_eq!(tables.translate(Ipa::new(0x4000_1234)), Some((Pa::new(0x8000_1234), Kind::Memory)));
        assert_eq!(tables.translate(Ipa::new(0x801f_ffff)), Some((Pa::new(0xc01f_ffff), Kind::Memory)));
        assert_eq!(tables.translate(Ipa::new(0x8020_0000)), None);
        assert_eq!(tables.translate(Ipa::new(0x900_0fff)), Some((Pa::new(0x900_0fff), Kind::Device)));
        assert_eq!(tables.translate(Ipa::new(0x900_1000)), None);
        assert_eq!(tables.translate(Ipa::new(0x8f_ffff_f000)), None);
    }

    #[test]
    fn nothing_is_mapped_twice() {
        let mut pool = vec![Table::EMPTY; 16];
        let mut tables = Stage2::new(&mut pool, Pa::new(0)).unwrap();
        tables.map(Ipa::new(0x20_0000), Pa::new(0), 0x20_0000, Kind::Memory).unwrap();
        assert_eq!(
            tables.map(Ipa::new(0x20_1000), Pa::new(0), 0x1000, Kind::Memory),
            Err(Error::AlreadyMapped)
        );
        tables.map(Ipa::new(0x1000), Pa::new(0), 0x1000, Kind::Memory).unwrap();
        assert_eq!(tables.map(Ipa::new(0), Pa::new(0), 0x20_0000, Kind::Memory), Err(Error::AlreadyMapped));
    }

    #[test]
    fn bad_ranges_are_refused() {
        let mut pool = vec![Table::EMPTY; 4];
        let mut tables = Stage2::new(&mut pool, Pa::new(0)).unwrap();
        for (ipa, pa, size) in [
            (1, 0, 0x1000),
            (0, 1, 0x1000),
            (0, 0, 1),
            (0, 0, 0),
            (1 << 39, 0, 0x1000),
            (0, 1 << 48, 0x1000),
            (0x1000, 0, !0xfff),
        ] {
            assert_eq!(tables.map(Ipa::new(ipa), Pa::new(pa), size, Kind::Memory), Err(Error::BadRange));
        }
    }
}
