//! Manifests out of values that could stand there, so that the deep rules are reached.

use arbitrary::{Result, Unstructured};
use bulkhead_policy::manifest::COMPATIBLE;
use bulkhead_policy::tree::{Node, Tree};

use crate::blob::Blob;

/// Files of the bundle, and one that is not there.
const FILES: [&str; 7] = ["Image", "bare.bin", "bare.elf", "big.Image", "cut.elf", "empty", "missing"];
const IPAS: [u64; 10] = [
    0x4000_0000,
    0x8000_0000,
    0x1000_0000,
    0,
    0x900_0000,
    0x800_0000,
    0x4010_0000,
    0x7f_ffe0_0000,
    0x4000_0800,
    0xffff_ffff_ffff_f000,
];
const SIZES: [u64; 9] =
    [0x800_0000, 0x100_0000, 0x20_0000, 0x1_0000, 0x1000, 0x4000_0000, 0, 0x1800, 0xffff_ffff_f000];
const PAS: [u64; 8] =
    [0x5000_0000, 0x6000_0000, 0x4000_0000, 0x2000_0000, 0x1_0000_0000, 0x5000_1000, 0, u64::MAX];

/// A manifest around `partitions`.
fn whole(console: Option<&str>, partitions: impl FnOnce(&mut Blob)) -> Blob {
    let mut blob = Blob::default();
    blob.begin("");
    blob.property("compatible", &text(COMPATIBLE));
    if let Some(console) = console {
        blob.property("console", &text(console));
    }
    blob.begin("partitions");
    partitions(&mut blob);
    blob.end();
    blob.end();
    blob
}

fn text(string: &str) -> Vec<u8> {
    [string.as_bytes(), &[0]].concat()
}

fn cells(numbers: &[u32]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

fn numbers(numbers: &[u64]) -> Vec<u8> {
    numbers.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// A list of as many as `most` things.
fn list<T>(
    choices: &mut Unstructured<'_>,
    most: usize,
    mut thing: impl FnMut(&mut Unstructured<'_>) -> Result<T>,
) -> Result<Vec<T>> {
    let count = choices.int_in_range(1..=most)?;
    (0..count).map(|_| thing(choices)).collect()
}

/// The name of a device of the board: a path or an alias, or none of them.
fn device(choices: &mut Unstructured<'_>, board: &Tree<'_>) -> Result<Vec<u8>> {
    let nodes = board.nodes().count();
    let path = |choices: &mut Unstructured<'_>| {
        let index = choices.choose_index(nodes)?;
        Ok(board.nodes().nth(index).map_or("", Node::path))
    };
    let name = match choices.int_in_range(0..=9_u8)? {
        0..=6 => path(choices)?,
        7 => path(choices)?.split('@').next().unwrap_or(""),
        8 => *choices.choose(&["serial0", "serial1", "i2c1", "gpio", "mmc0", "none"])?,
        _ => *choices.choose(&["", "/", "/none", "/cpus", "aliases", "\u{fc}", "\x1b[31m"])?,
    };
    Ok(text(name))
}

/// Any mixture.
pub(crate) fn compose(choices: &mut Unstructured<'_>, board: &Tree<'_>) -> Blob {
    let console =
        *choices.choose(&[None, None, None, Some("serial0"), Some("/pl011@9000000")]).unwrap_or(&None);
    whole(console, |blob| {
        let count = choices.int_in_range(1..=4).unwrap_or(1);
        for number in 0..count {
            blob.begin(["linux", "rtos", "bare", "linux"][number]);
            // Out of choices: what is there so far.
            let _ = partition(blob, choices, board);
            blob.end();
        }
    })
}

fn partition(blob: &mut Blob, choices: &mut Unstructured<'_>, board: &Tree<'_>) -> Result<()> {
    blob.property("os,type", &text(choices.choose(&["bare", "linux", "freertos", "none"])?));
    let count = choices.int_in_range(0..=6)?;
    let cpus: Result<Vec<_>> = (0..count).map(|_| choices.int_in_range(0..=8)).collect();
    blob.property("cpus", &cells(&cpus?));
    let memory = list(choices, 3, |choices| Ok([*choices.choose(&IPAS)?, *choices.choose(&SIZES)?]))?;
    blob.property("memory", &numbers(memory.as_flattened()));
    if choices.ratio(1, 4)? {
        let places = list(choices, 3, |choices| Ok(*choices.choose(&PAS)?))?;
        blob.property("physical-memory", &numbers(&places));
    }
    blob.property("kernel", &text(choices.choose(&FILES)?));
    if choices.ratio(1, 4)? {
        blob.property("ramdisk", &text(choices.choose(&FILES)?));
    }
    if choices.ratio(1, 4)? {
        let length = *choices.choose(&[10, 0, 2047, 2048])?;
        blob.property("bootargs", &text(&"x".repeat(length)));
    }
    for name in ["load-address", "entry"] {
        if choices.ratio(1, 6)? {
            let (base, offset) = (*choices.choose(&IPAS)?, choices.int_in_range(0..=0x40_0000)?);
            blob.property(name, &numbers(&[base.wrapping_add(offset)]));
        }
    }
    for name in ["access", "access-registers", "unprotected-dma", "polled"] {
        if choices.ratio(1, 3)? {
            blob.property(name, &list(choices, 6, |choices| device(choices, board))?.concat());
        }
    }
    for name in ["gpio-pins", "dma-channels"] {
        if choices.ratio(1, 6)? {
            blob.property(name, &cells(&list(choices, 6, |choices| choices.int_in_range(0..=64))?));
        }
    }
    if choices.ratio(1, 2)? {
        blob.property("console", &text(choices.choose(&["pl011", "pl011", "uart"])?));
        if choices.ratio(1, 4)? {
            blob.property("console-address", &numbers(&[*choices.choose(&IPAS)?]));
        }
        if choices.ratio(1, 4)? {
            blob.property("console-interrupt", &cells(&[*choices.choose(&[1, 5, 0, 987, 988, u32::MAX])?]));
        }
    }
    Ok(())
}

/// Two partitions as any board could have them, and whatever devices are chosen.
pub(crate) fn typical(kind: u8, choices: &mut Unstructured<'_>, board: &Tree<'_>) -> Blob {
    let mut devices = |blob: &mut Blob| -> Result<()> {
        if choices.is_empty() {
            return Ok(());
        }
        let lists: &[&str] = match kind % 3 {
            0 => &["access"],
            1 => &["access", "unprotected-dma"],
            _ => &["access-registers", "polled"],
        };
        let names = list(choices, 4, |choices| device(choices, board))?.concat();
        lists.iter().for_each(|list| blob.property(list, &names));
        if kind & 16 != 0 {
            blob.property("gpio-pins", &cells(&list(choices, 4, |choices| choices.int_in_range(0..=57))?));
        }
        if kind & 32 != 0 {
            blob.property("dma-channels", &cells(&list(choices, 4, |choices| choices.int_in_range(0..=15))?));
        }
        Ok(())
    };
    // Devices without an SMMU need memory where it really is.
    let free = board.nodes().find(|node| node.is_memory()).and_then(|node| node.raw_reg().next());
    let free = free.map_or(0x5000_0000, |(start, _)| start.wrapping_add(0x1000_0000) & !0x1f_ffff);
    whole(None, |blob| {
        for (index, name) in ["first", "second"].into_iter().enumerate() {
            let start = free.wrapping_add(0x100_0000 * index as u64);
            blob.begin(name);
            blob.property("os,type", &text("bare"));
            blob.property("cpus", &cells(&[index as u32]));
            blob.property("memory", &numbers(&[start, 0x100_0000]));
            blob.property("kernel", &text("bare.bin"));
            if kind & 64 == 0 {
                blob.property("console", &text("pl011"));
            }
            let _ = devices(blob);
            blob.end();
        }
    })
}

/// One partition with a kernel that is called "kernel".
pub(crate) fn one_kernel(choices: &mut Unstructured<'_>) -> Blob {
    whole(None, |blob| {
        blob.begin("guest");
        let _ = kernel(blob, choices);
        blob.property("cpus", &cells(&[1]));
        blob.property("kernel", &text("kernel"));
        blob.end();
    })
}

fn kernel(blob: &mut Blob, choices: &mut Unstructured<'_>) -> Result<()> {
    blob.property("os,type", &text(choices.choose(&["bare", "linux"])?));
    let memory = list(choices, 2, |choices| Ok([*choices.choose(&IPAS)?, *choices.choose(&SIZES)?]))?;
    blob.property("memory", &numbers(memory.as_flattened()));
    for name in ["load-address", "entry"] {
        if choices.ratio(1, 3)? {
            let offset: u32 = choices.arbitrary()?;
            blob.property(name, &numbers(&[0x4000_0000 + u64::from(offset & 0x3f_fffc)]));
        }
    }
    if choices.arbitrary()? {
        blob.property("ramdisk", &text("ramdisk"));
    }
    Ok(())
}

/// As many partitions as there may be, each of which names as many devices as it may.
#[cfg(test)]
pub(crate) fn greedy(device: impl Fn(usize) -> String) -> Blob {
    whole(None, |blob| {
        for partition in 0..32 {
            blob.begin(&format!("p{partition}"));
            blob.property("os,type", &text("bare"));
            blob.property("cpus", &cells(&[partition as u32]));
            blob.property("memory", &numbers(&[0x4000_0000, 0x10_0000]));
            blob.property("kernel", &text("bare.bin"));
            let devices: Vec<_> = (0..64).flat_map(|n| text(&device(64 * partition + n))).collect();
            for list in ["access", "access-registers", "unprotected-dma", "polled"] {
                blob.property(list, &devices);
            }
            blob.end();
        }
    })
}
