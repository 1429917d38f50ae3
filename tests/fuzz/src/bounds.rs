//! The largest trees that pass the gate are read in bounded time: nothing that the firmware or the manifest can make long is
//! compared with everything else.

use std::time::{Duration, Instant};

use bulkhead_policy::tree::Tree;

use crate::blob::Blob;
use crate::manifests;
use crate::world::{self, World};

/// Seconds that the check of the worst of these may take without optimization, on a machine that is busy. A quadratic loop over what
/// fits into 2 MiB takes minutes.
const PATIENCE: Duration = Duration::from_secs(60);

/// A good board with something long in it.
fn board(long: impl FnOnce(&mut Blob)) -> Blob {
    let mut board = Blob::read(world::TREES[world::VIRT]);
    let end = board.structure.split_off(board.structure.len() - 4);
    long(&mut board);
    board.structure.extend(end);
    board
}

fn repeat(cells: &[u32], count: u32) -> Vec<u8> {
    let entry = |n: u32| cells.iter().flat_map(move |cell| cell.wrapping_mul(n + 1).to_be_bytes());
    (0..count).flat_map(entry).collect()
}

/// Checks a manifest that names `devices` 64 times in each of 32 partitions.
fn check(name: &str, board: &Blob, devices: impl Fn(usize) -> String) {
    let started = Instant::now();
    let bytes = board.finish();
    assert!(bytes.len() <= 2 << 20, "{name}: {}", bytes.len());
    let done = match Tree::new(&bytes) {
        Err(error) => error.to_string(),
        Ok(tree) => match World::new(&tree) {
            None => "no platform".to_owned(),
            Some(world) => {
                let gate = started.elapsed();
                world.check(&manifests::greedy(devices).finish(), |_, _, _| {});
                format!("board {gate:?}")
            }
        },
    };
    println!("{name}: {:?}, {done}", started.elapsed());
    assert!(started.elapsed() < PATIENCE, "{name} took {:?}", started.elapsed());
}

/// A page of registers at a place of its own.
fn page(n: u32) -> Vec<u8> {
    [0, 0x2000_0000 + 0x1000 * n, 0, 0x1000].into_iter().flat_map(u32::to_be_bytes).collect()
}

fn no_device(_: usize) -> String {
    String::new()
}

fn one_device(_: usize) -> String {
    "/x@1".to_owned()
}

/// A device with one more property.
fn device(blob: &mut Blob, property: &str, value: &[u8]) {
    blob.begin("x@1");
    blob.property("reg", &page(1));
    blob.property(property, value);
    blob.end();
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn many_ranges_of_memory_are_refused() {
    let long = |board: &mut Blob| {
        board.begin("memory@1");
        board.property("device_type", b"memory\0");
        // Downwards, which is the longest way to sort them.
        let ranges = (0..8000_u32).flat_map(|n| [1, 0xf000_0000 - n * 0x2000, 0, 0x1000]);
        board.property("reg", &ranges.flat_map(u32::to_be_bytes).collect::<Vec<_>>());
        board.end();
    };
    check("memory", &board(long), no_device);
    let long = |board: &mut Blob| (0..65_000).for_each(|n| board.reserve(0x4000_0000 + n * 0x2000, 0x1000));
    check("reservations", &board(long), no_device);
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn long_lists_of_one_device_are_read_once() {
    check(
        "registers",
        &board(|board| device(board, "reg", &repeat(&[0, 0x1000, 0, 0x1000], 8000))),
        one_device,
    );
    check(
        "all registers",
        &board(|board| device(board, "reg", &repeat(&[0, 0x1000, 0, 0x1000], 130_000))),
        one_device,
    );
    check(
        "interrupts",
        &board(|board| device(board, "interrupts", &repeat(&[0, 1, 0], 150_000))),
        one_device,
    );
    let extended = |board: &mut Blob| device(board, "interrupts-extended", &repeat(&[0x7000_0000], 200_000));
    check("interrupts-extended", &board(extended), one_device);
    check(
        "dma-ranges",
        &board(|board| {
            (0..30).for_each(|_| {
                board.begin("x@1");
                board.property("ranges", &repeat(&[0, 1, 0, 1, 0, 1], 2_600));
            });
            (0..30).for_each(|_| board.end());
        }),
        |_| one_device(0).repeat(30),
    );
}

#[test]
#[cfg_attr(miri, ignore = "hours")]
fn many_nodes_are_compared_in_time() {
    let nodes = |status: &'static [u8]| {
        board(|board| {
            for n in 0..3900 {
                board.begin(&format!("x@{n}"));
                board.property("status", status);
                board.property("reg", &page(n));
                board.property("phandle", &(0x1000 + n).to_be_bytes());
                board.property("interrupts-extended", &repeat(&[0x1000], 50));
                board.end();
            }
        })
    };
    check("devices", &nodes(b"okay\0"), |n| format!("/x@{}", n % 3900));
    check("disabled devices", &nodes(b"disabled\0"), |n| format!("/x@{}", n % 3900));
    let aliases = |board: &mut Blob| {
        board.begin("aliases");
        (0..40_000).for_each(|n| board.property("x", format!("/x@{n}\0").as_bytes()));
        board.end();
    };
    check("aliases", &board(aliases), |n| format!("y{n}"));
    let cpus = |board: &mut Blob| {
        board.begin("cpus");
        for n in 0..3900_u64 {
            board.begin(&format!("cpu@{n:x}"));
            board.property("reg", &n.to_be_bytes());
            board.property("enable-method", b"spin-table\0");
            board.property("cpu-release-addr", &(0x4000_0000 + n * 4096).to_be_bytes());
            board.end();
        }
        board.end();
    };
    check("cpus", &board(cpus), no_device);
}
