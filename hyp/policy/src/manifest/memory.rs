//! Which physical memory a partition gets.

use alloc::vec::Vec;

use super::rules::{Rule, Value};
use super::{At, Findings};
use crate::addr::{BLOCK_1G, BLOCK_2M, Ipa, PAGE_SIZE, Pa, Region};
use crate::platform::{BUNDLE, HYPERVISOR, Platform};

/// The RAM of the machine while it is being given away.
pub(super) struct Pool<'p, 'a> {
    ram: &'p [Region<Pa>],
    /// What nobody has, sorted by address, whole pages.
    free: Vec<Region<Pa>>,
    /// What somebody has.
    taken: Vec<(Region<Pa>, Holder<'a>)>,
}

/// Who has memory.
#[derive(Clone, Copy)]
enum Holder<'a> {
    /// Not a partition.
    Reserved(&'a str),
    /// A partition, as this place in the manifest says.
    Partition(At),
}

impl<'p, 'a> Pool<'p, 'a> {
    pub(super) fn new(platform: &'p Platform<'a>) -> Self {
        let mask = PAGE_SIZE.wrapping_sub(1);
        let mut pool = Self { ram: &platform.ram, free: Vec::new(), taken: Vec::new() };
        for region in &platform.ram {
            // Up at the start, down at the end: only whole pages can be given.
            let start = region.start().raw().saturating_add(mask) & !mask;
            let end = region.last().raw().checked_add(1).unwrap_or(!mask) & !mask;
            pool.free.extend(Region::new(Pa::new(start), end.saturating_sub(start)));
        }
        for reservation in &platform.reserved {
            let start = reservation.region.start().raw() & !mask;
            let size = (reservation.region.last().raw() | mask).wrapping_sub(start).saturating_add(1);
            if let Some(region) = Region::new(Pa::new(start), size) {
                pool.carve(region);
                pool.taken.push((region, Holder::Reserved(reservation.holder)));
            }
        }
        pool
    }

    /// Takes `size` bytes at `pa`, not empty, as `at` in the manifest asks.
    pub(super) fn take(&mut self, pa: Pa, size: u64, at: At, findings: &mut Findings<'a>) {
        let Some(region) = Region::new(pa, size) else {
            return findings.push(Rule::PhysicalBeyond, at, &[Value::Number(pa.raw()), Value::Number(size)]);
        };
        if !self.ram.iter().any(|ram| ram.encloses(region)) {
            return findings.push(Rule::NotRam, at, &[region.into()]);
        }
        let Some((other, holder)) = self.taken.iter().find(|(other, _)| other.overlaps(region)) else {
            return self.give(region, at);
        };
        let (region, other) = (region.into(), (*other).into());
        match *holder {
            Holder::Partition(owner) => {
                findings.push_with(Rule::OverPartition, at, owner, &[region, other]);
            }
            Holder::Reserved(HYPERVISOR) => findings.push(Rule::OverHypervisor, at, &[region, other]),
            Holder::Reserved(BUNDLE) => findings.push(Rule::OverBundle, at, &[region, other]),
            Holder::Reserved(holder) => {
                findings.push(Rule::OverFirmware, at, &[region, other, Value::Text(holder)]);
            }
        }
    }

    /// Takes the first place where `ipa` fits with the largest blocks that it can have: IPA and PA have to
    /// agree in the bits below a block's size. `None` where there is a finding.
    pub(super) fn choose(&mut self, ipa: Region<Ipa>, at: At, findings: &mut Findings<'a>) -> Option<Pa> {
        let region = [BLOCK_1G, BLOCK_2M, PAGE_SIZE]
            .into_iter()
            .filter(|&block| block == PAGE_SIZE || holds_block(ipa, block))
            .find_map(|block| self.free.iter().find_map(|free| congruent(*free, ipa, block)));
        let Some(region) = region else {
            let total = self.free.iter().fold(0_u64, |sum, free| sum.saturating_add(free.size()));
            let largest = self.free.iter().map(|free| free.size()).max().unwrap_or(0);
            findings.push(Rule::NoRoom, at, &[ipa.size(), total, largest].map(Value::Number));
            return None;
        };
        self.give(region, at);
        Some(region.start())
    }

    fn give(&mut self, region: Region<Pa>, at: At) {
        self.carve(region);
        self.taken.push((region, Holder::Partition(at)));
    }

    fn carve(&mut self, region: Region<Pa>) {
        let part = |from: u64, to: u64| Region::new(Pa::new(from), to.checked_sub(from)?);
        let free = core::mem::take(&mut self.free);
        for piece in free {
            if !piece.overlaps(region) {
                self.free.push(piece);
                continue;
            }
            let end = |region: Region<Pa>| region.last().raw().saturating_add(1);
            self.free.extend(part(piece.start().raw(), region.start().raw()));
            self.free.extend(part(end(region), end(piece)));
        }
    }
}

/// Whether a whole aligned block lies in the range.
fn holds_block(range: Region<Ipa>, block: u64) -> bool {
    let mask = block.wrapping_sub(1);
    let first = range.start().raw().checked_add(mask).map(|start| start & !mask);
    let block = first.and_then(|first| Region::new(Ipa::new(first), block));
    block.is_some_and(|block| range.encloses(block))
}

/// The first place in `free` for all of `ipa` where both have the same offset in a block.
fn congruent(free: Region<Pa>, ipa: Region<Ipa>, block: u64) -> Option<Region<Pa>> {
    let start = free.start().raw();
    let skip = ipa.start().raw().wrapping_sub(start) & block.wrapping_sub(1);
    Region::new(Pa::new(start.checked_add(skip)?), ipa.size()).filter(|&place| free.encloses(place))
}
