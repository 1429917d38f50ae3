//! All of the partition's memory is there, and nobody else writes it.

use bulkhead_rt::memory::{RAM_END, RAM_START, free_word, image_end, image_start};
use bulkhead_rt::{Failure, Verdict, verdict};
use core::sync::atomic::Ordering;

/// Runs the tests.
pub fn run() {
    verdict::test("memory-words", || every_word(|address| address));
    verdict::test("memory-inverted", || every_word(|address| !address.rotate_left(32)));
}

/// Every free doubleword: through RAM up to the image, and from its end on.
fn words() -> impl Iterator<Item = u64> {
    (RAM_START..image_start()).step_by(8).chain((image_end()..RAM_END).step_by(8))
}

/// Writes all, then reads all: an address that is mapped twice shows.
fn every_word(pattern: impl Fn(u64) -> u64) -> Verdict {
    for address in words() {
        free_word(address).store(pattern(address), Ordering::Relaxed);
    }
    for address in words() {
        let value = free_word(address).load(Ordering::Relaxed);
        if value != pattern(address) {
            return Err(Failure::new(format_args!("{address:#x} holds {value:#x}")));
        }
    }
    Ok(())
}
