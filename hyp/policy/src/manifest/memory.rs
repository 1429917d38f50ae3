//! Which physical memory a partition gets.

use alloc::vec::Vec;

use super::names::list;
use super::{Findings, Size};
use crate::addr::{BLOCK_1G, BLOCK_2M, Ipa, PAGE_SIZE, Pa, Region};
use crate::platform::Platform;
use crate::tree::Node;

/// The RAM of the machine while it is being given away.
pub(super) struct Pool<'a> {
    ram: &'a [Region<Pa>],
    /// What nobody has, sorted by address, whole pages.
    free: Vec<Region<Pa>>,
    /// What somebody has.
    taken: Vec<(Region<Pa>, &'a str)>,
}

impl<'a> Pool<'a> {
    pub(super) fn new(platform: &'a Platform<'_>) -> Self {
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
                pool.taken.push((region, reservation.holder));
            }
        }
        pool
    }

    /// Takes `size` bytes at `pa`, not empty, as `what` in the manifest asks.
    pub(super) fn take(&mut self, pa: Pa, size: u64, what: &str, node: Node<'a>, findings: &mut Findings) {
        let Some(region) = Region::new(pa, size) else {
            let message = text!("{what} {pa} of {} runs past the end of the address space", Size(size));
            return findings.push(node, message);
        };
        if !self.ram.iter().any(|ram| ram.encloses(region)) {
            let ram = list(self.ram.iter());
            findings.push(node, text!("{what} {region} is not RAM; the board's RAM is {ram}"));
        } else if let Some((other, holder)) = self.taken.iter().find(|(other, _)| other.overlaps(region)) {
            findings.push(
                node,
                text!(
                    "{what} {region} overlaps {other}, which belongs to {holder}; \
                     move it"
                ),
            );
        } else {
            self.give(region, node);
        }
    }

    /// Takes the first place where `ipa` fits with the largest blocks that it can have: IPA and PA have to
    /// agree in the bits below a block's size. `None` where there is a finding.
    pub(super) fn choose(&mut self, ipa: Region<Ipa>, node: Node<'a>, findings: &mut Findings) -> Option<Pa> {
        let region = [BLOCK_1G, BLOCK_2M, PAGE_SIZE]
            .into_iter()
            .filter(|&block| block == PAGE_SIZE || holds_block(ipa, block))
            .find_map(|block| self.free.iter().find_map(|free| congruent(*free, ipa, block)));
        let Some(region) = region else {
            let total = self.free.iter().fold(0_u64, |sum, free| sum.saturating_add(free.size()));
            let largest = self.free.iter().map(|free| free.size()).max().unwrap_or(0);
            let message = text!(
                "memory of {} does not fit: {} of RAM are free, {} of them in one piece; \
                 make it smaller or split it",
                Size(ipa.size()),
                Size(total),
                Size(largest)
            );
            findings.push(node, message);
            return None;
        };
        self.give(region, node);
        Some(region.start())
    }

    fn give(&mut self, region: Region<Pa>, node: Node<'a>) {
        self.carve(region);
        self.taken.push((region, node.path()));
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
