//! Puts a partition's images and device tree into its memory, through a window that shows 2 MiB at a time.

use bulkhead_arch::cache;
use bulkhead_arch::mmu::Window;
use bulkhead_exits::system::{Partition, System};
use bulkhead_policy::addr::{Address, BLOCK_2M, Ipa, Pa, Region};
use bulkhead_policy::guest_dtb;
use bulkhead_policy::plan::Segment;

use crate::{VERSION, run};

/// Calls `with` for the RAM behind `size` bytes at `ipa`, piece by piece with the offset of each, for a guest that starts
/// without caches. False where not all of it is RAM of the partition. An interrupt that is pending is served after each: the console's
/// is everybody's.
fn for_each_piece(
    system: &System,
    partition: &Partition,
    window: &mut Window,
    ipa: Ipa,
    size: u64,
    with: &mut dyn FnMut(u64, &mut [u8]),
) -> bool {
    let mut done = 0;
    while done < size {
        let Some(rest) = ipa.checked_add(done).and_then(|ipa| partition.plan.locate(ipa)) else {
            return false;
        };
        let to_block_end = BLOCK_2M - (rest.start().raw() & (BLOCK_2M - 1));
        let piece = rest.size().min(to_block_end).min(size - done);
        let Some(region) = Region::<Pa>::new(rest.start(), piece) else { return false };
        window.with(region, |bytes| {
            cache::forget(bytes);
            with(done, bytes);
            cache::publish();
        });
        done += piece;
        run::serve(system, Some((partition, 0)));
    }
    true
}

/// Loads everything.
///
/// # Errors
/// Says what cannot be loaded.
pub fn load(
    system: &System,
    partition: &Partition,
    window: &mut Window,
    again: bool,
) -> Result<(), &'static str> {
    if again {
        // The guest before wrote through its caches; the next one starts without. What is still dirty would be
        // written over its memory later (Arm ARM DDI 0487, B2.8).
        for memory in &partition.plan.memory {
            for_each_piece(system, partition, window, memory.ipa, memory.size, &mut |_, _: &mut [u8]| {});
        }
    }
    for segment in &partition.plan.segments {
        let payload = system.bundle.find(segment.payload).ok_or("a payload is gone from the bundle")?;
        if !load_segment(system, partition, window, segment, payload) {
            return Err("an image does not fit its memory");
        }
    }
    let mut written = Err(guest_dtb::DtbError);
    let dtb = partition.plan.dtb;
    for_each_piece(system, partition, window, dtb.start(), dtb.size(), &mut |offset, bytes: &mut [u8]| {
        if offset == 0 {
            written = guest_dtb::generate(bytes, system.board, system.platform, partition.plan, VERSION);
        }
    });
    written.map(drop).map_err(|_| "its device tree does not fit")
}

fn load_segment(
    system: &System,
    partition: &Partition,
    window: &mut Window,
    segment: &Segment<'_>,
    payload: &[u8],
) -> bool {
    let source = usize::try_from(segment.offset)
        .ok()
        .zip(usize::try_from(segment.file_size).ok())
        .and_then(|(offset, size)| payload.get(offset..)?.get(..size));
    let Some(source) = source else { return false };
    let size = if segment.zeroed { segment.memory_size } else { segment.file_size };
    for_each_piece(system, partition, window, segment.ipa, size, &mut |offset, bytes: &mut [u8]| {
        let from = source.get(offset as usize..).unwrap_or(&[]);
        let (copied, zeroed) = bytes.split_at_mut(from.len().min(bytes.len()));
        copied.copy_from_slice(&from[..copied.len()]);
        zeroed.fill(0);
    })
}
