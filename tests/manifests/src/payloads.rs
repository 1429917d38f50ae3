//! Programs as manifests name them, good ones and broken ones. None of them ever runs.

use std::collections::BTreeMap;

/// Bytes of [`elf`]'s header.
const HEADER: usize = 64;
/// Bytes of one of its program headers.
const ENTRY: usize = 56;

/// All of them, by the names of their files.
#[must_use]
pub fn all() -> BTreeMap<String, Vec<u8>> {
    let image = || arm64_image(32 << 20);
    let bare = || vec![0xd5; 8192];
    [
        ("Image", image()),
        ("big.Image", arm64_image(1 << 30)),
        ("big-endian.Image", changed(image(), 24, &[0xb])),
        ("text-offset.Image", changed(image(), 8, &(2_u64 << 20).to_le_bytes())),
        ("Image.gz", vec![0x1f, 0x8b, 8, 0]),
        ("bare.bin", bare()),
        (&"k".repeat(255), bare()),
        ("bare.elf", elf()),
        ("cut.elf", elf()[..100].to_vec()),
        ("32-bit.elf", changed(elf(), 4, &[1])),
        ("x86.elf", changed(elf(), 18, &[62])),
        ("truncated.elf", elf()[..0x1180].to_vec()),
        ("beyond.elf", changed(elf(), physical(2), &[0xff; 8])),
        ("overlapping.elf", changed(elf(), physical(2), &0x4008_0000_u64.to_le_bytes())),
        ("17-segments.elf", seventeen_segments()),
        ("nothing.elf", changed(elf(), 56, &[1])),
        ("entry.elf", changed(elf(), 24, &[0; 8])),
        ("initramfs.cpio.gz", vec![0x1f; 1 << 20]),
        ("empty", vec![]),
    ]
    .map(|(name, content)| (name.to_owned(), content))
    .into()
}

/// With other bytes at one place.
fn changed(mut file: Vec<u8>, at: usize, bytes: &[u8]) -> Vec<u8> {
    file[at..at + bytes.len()].copy_from_slice(bytes);
    file
}

/// Where [`elf`] says at which physical address a segment goes.
const fn physical(segment: usize) -> usize {
    HEADER + ENTRY * segment + 24
}

/// An arm64 Image's header and a little code (Linux, `Documentation/arch/arm64/booting.rst`).
#[must_use]
pub fn arm64_image(image_size: u64) -> Vec<u8> {
    let mut image = vec![0x1f; 4096];
    image[8..16].fill(0);
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[24..32].copy_from_slice(&0xa_u64.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// Writes a program header (System V ABI, "Program Header").
fn segment(file: &mut [u8], index: usize, kind: u64, offset: u64, address: u64, sizes: [u64; 2]) {
    let at = HEADER + ENTRY * index;
    file[at..at + 8].copy_from_slice(&kind.to_le_bytes());
    let virtual_address = 0xffff_0000_0000_0000 | address;
    for (field, value) in [offset, virtual_address, address, sizes[0], sizes[1]].into_iter().enumerate() {
        let at = at + 8 + 8 * field;
        file[at..at + 8].copy_from_slice(&value.to_le_bytes());
    }
}

/// The header of an ELF executable for AArch64 with so many program headers, and room for what they name.
fn elf_header(segments: u8) -> Vec<u8> {
    let mut file = vec![0; 0x1200];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    file[16] = 2;
    file[18] = 183;
    file[24..32].copy_from_slice(&0xffff_0000_4008_0040_u64.to_le_bytes());
    file[32] = HEADER as u8;
    file[54] = ENTRY as u8;
    file[56] = segments;
    file
}

/// An ELF file with two segments that are linked at a kernel's virtual address and loaded at 0x4008_0000; the entry is virtual.
#[must_use]
pub fn elf() -> Vec<u8> {
    let mut file = elf_header(3);
    // A note, the text, data with its bss.
    segment(&mut file, 0, 4, 0, 0, [0x20, 0x20]);
    segment(&mut file, 1, 1, 0x1000, 0x4008_0000, [0x100, 0x100]);
    segment(&mut file, 2, 1, 0x1100, 0x4009_0000, [0x100, 0x4000]);
    file
}

fn seventeen_segments() -> Vec<u8> {
    let mut file = elf_header(17);
    for index in 0..17 {
        segment(&mut file, index, 1, 0x1000, 0x4008_0000 + 0x1000 * index as u64, [0x100, 0x100]);
    }
    file
}
