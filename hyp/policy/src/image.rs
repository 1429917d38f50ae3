//! What kind of program a payload is, and where its parts go.
//!
//! Three kinds cover what people already have: the arm64 Image that Linux and many RTOSes use, ELF
//! executables, and raw binaries, for which the manifest says all that there is to know.

use alloc::vec::Vec;

use crate::addr::{Address, BLOCK_2M, Ipa, Region};
use crate::manifest::Rule;

/// A program as its file describes it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Image {
    /// Linux's boot format (`Documentation/arch/arm64/booting.rst`, "Call the kernel image").
    Arm64(Arm64Header),
    /// ELF executable for AArch64.
    Elf(Elf),
    /// Anything else: no header to go by.
    Raw,
}

/// The fields of an arm64 Image's header that decide where it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Arm64Header {
    /// Bytes from a 2 MiB boundary to the image's first byte.
    pub text_offset: u64,
    /// Bytes that the program uses from its first byte on, its zeroed data included; never less than the file.
    pub image_size: u64,
}

/// The loadable part of an ELF executable.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Elf {
    /// Where its first instruction is.
    pub entry: Ipa,
    /// What is loaded, in the file's order; never empty.
    pub segments: Vec<ElfSegment>,
}

/// A `PT_LOAD` segment that occupies memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ElfSegment {
    /// Offset of its first byte in the file.
    pub offset: u64,
    /// Bytes in the file, at most the region's size.
    pub file_size: u64,
    /// Where it goes (`p_paddr`) and how many bytes it occupies there.
    pub memory: Region<Ipa>,
}

/// The most segments of an ELF executable.
const MAX_SEGMENTS: usize = 16;

/// The little-endian number in the `size` bytes at `offset`.
#[inline(never)]
fn number(bytes: &[u8], offset: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(offset..)?.get(..size)?;
    Some(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
}

fn u16_at(bytes: &[u8], offset: usize) -> Option<u64> {
    number(bytes, offset, 2)
}

fn u64_at(bytes: &[u8], offset: usize) -> Option<u64> {
    number(bytes, offset, 8)
}

impl Image {
    /// Recognises a payload by its header.
    ///
    /// # Errors
    ///
    /// Returns the rule that is broken where the payload has the header of an Image or an ELF file but is not one that
    /// can run here.
    pub fn parse(bytes: &[u8]) -> Result<Self, Rule> {
        if bytes.is_empty() {
            return Err(Rule::PayloadEmpty);
        }
        if bytes.starts_with(b"\x7fELF") {
            return elf(bytes).map(Self::Elf);
        }
        if bytes.get(56..60) == Some(b"ARM\x64") {
            return arm64(bytes).map(Self::Arm64);
        }
        Ok(Self::Raw)
    }
}

fn arm64(bytes: &[u8]) -> Result<Arm64Header, Rule> {
    // The magic number stands behind all of them.
    let [text_offset, image_size, flags] = [8, 16, 24].map(|offset| u64_at(bytes, offset).unwrap_or(0));
    if flags & 1 != 0 {
        return Err(Rule::ImageBigEndian);
    }
    if text_offset >= BLOCK_2M {
        return Err(Rule::ImageTextOffset);
    }
    // Kernels before 3.17 leave image_size 0; for them text_offset is 0x80000 whatever the field says.
    let text_offset = if image_size == 0 { 0x8_0000 } else { text_offset };
    Ok(Arm64Header { text_offset, image_size: image_size.max(bytes.len() as u64) })
}

/// Reads the headers (System V ABI, "Object Files"; ELF for the Arm 64-bit Architecture, AAELF64).
#[inline(never)]
fn elf(bytes: &[u8]) -> Result<Elf, Rule> {
    let cut = Rule::ElfCut;
    // EI_CLASS ELFCLASS64, EI_DATA ELFDATA2LSB.
    if bytes.get(4..6) != Some(&[2, 1]) {
        return Err(Rule::ElfClass);
    }
    // ET_EXEC or ET_DYN (a static position-independent executable), EM_AARCH64.
    if !matches!(u16_at(bytes, 16), Some(2 | 3)) || u16_at(bytes, 18) != Some(183) {
        return Err(Rule::ElfMachine);
    }
    let entry = u64_at(bytes, 24).ok_or(cut)?;
    let table = u64_at(bytes, 32).ok_or(cut)?;
    let entry_size = u16_at(bytes, 54).ok_or(cut)?;
    let count = u16_at(bytes, 56).ok_or(cut)?;
    if entry_size < 56 {
        return Err(Rule::ElfCut);
    }
    // Both have 16 bits.
    let (entry_size, size) = (entry_size as usize, entry_size.wrapping_mul(count) as usize);
    let table = usize::try_from(table).ok().and_then(|start| bytes.get(start..start.checked_add(size)?));
    let table = table.ok_or(cut)?;

    let mut segments = Vec::new();
    let mut start = None;
    for header in table.chunks_exact(entry_size) {
        let field = |offset| u64_at(header, offset).ok_or(cut);
        let (offset, address, physical) = (field(8)?, field(16)?, field(24)?);
        let (file_size, memory_size) = (field(32)?, field(40)?);
        // PT_LOAD
        if number(header, 0, 4) != Some(1) || memory_size == 0 {
            continue;
        }
        if offset.checked_add(file_size).is_none_or(|end| end > bytes.len() as u64) || file_size > memory_size
        {
            return Err(Rule::ElfSegmentOutside);
        }
        let memory = Region::new(Ipa::new(physical), memory_size);
        let memory = memory.ok_or(Rule::ElfSegmentBeyond)?;
        if segments.iter().any(|other: &ElfSegment| other.memory.overlaps(memory)) {
            return Err(Rule::ElfSegmentsOverlap);
        }
        // The entry is a virtual address; the CPU starts with the MMU off.
        if let Some(offset) = entry.checked_sub(address).filter(|&offset| offset < memory_size) {
            start = start.or(memory.start().checked_add(offset));
        }
        if segments.len() >= MAX_SEGMENTS {
            return Err(Rule::ElfTooManySegments);
        }
        segments.push(ElfSegment { offset, file_size, memory });
    }
    if segments.is_empty() {
        return Err(Rule::ElfNothing);
    }
    // Some linker scripts give the entry as a physical address already.
    let physical = Some(Ipa::new(entry)).filter(|&entry| segments.iter().any(|s| s.memory.contains(entry)));
    let entry = start.or(physical).ok_or(Rule::ElfEntry)?;
    Ok(Elf { entry, segments })
}

#[cfg(test)]
mod tests {
    use std::vec;

    use bulkhead_fixtures::payloads::elf;

    use super::*;

    #[test]
    fn elf_is_loaded_by_physical_addresses() {
        let Ok(Image::Elf(elf)) = Image::parse(&elf()) else { panic!("an ELF file") };
        assert_eq!(elf.entry, Ipa::new(0x4008_0040));
        let segments: Vec<_> = elf
            .segments
            .iter()
            .map(|s| (s.offset, s.file_size, s.memory.start().raw(), s.memory.size()))
            .collect();
        assert_eq!(segments, [(0x1000, 0x100, 0x4008_0000, 0x100), (0x1100, 0x100, 0x4009_0000, 0x4000)]);
    }

    #[test]
    fn elf_faults_are_named() {
        let fault = |change: fn(&mut Vec<u8>)| {
            let mut file = elf();
            change(&mut file);
            Image::parse(&file).expect_err("a fault")
        };
        assert_eq!(fault(|f| f[4] = 1), Rule::ElfClass);
        assert_eq!(fault(|f| f[18] = 62), Rule::ElfMachine);
        assert_eq!(fault(|f| f.truncate(40)), Rule::ElfCut);
        assert_eq!(fault(|f| f.truncate(0x1080)), Rule::ElfSegmentOutside);
        assert_eq!(fault(|f| f[32..40].fill(0xff)), Rule::ElfCut);
        assert_eq!(fault(|f| f[54] = 8), Rule::ElfCut);
        assert_eq!(fault(|f| f[56] = 1), Rule::ElfNothing);
        assert_eq!(fault(|f| f[31] = 0), Rule::ElfEntry);
        assert_eq!(fault(|f| f[64 + 56 * 2 + 26] = 8), Rule::ElfSegmentsOverlap);
        assert_eq!(fault(|f| f[64 + 56 + 24..64 + 56 + 32].fill(0xff)), Rule::ElfSegmentBeyond);
    }

    #[test]
    fn images_are_recognised() {
        let mut image = vec![0; 64];
        image[56..60].copy_from_slice(b"ARM\x64");
        image[8..16].copy_from_slice(&0x1_0000_u64.to_le_bytes());
        image[16..24].copy_from_slice(&0x20_0000_u64.to_le_bytes());
        let header = Arm64Header { text_offset: 0x1_0000, image_size: 0x20_0000 };
        assert_eq!(Image::parse(&image), Ok(Image::Arm64(header)));
        // An old kernel says neither.
        image[16..24].fill(0);
        assert_eq!(
            Image::parse(&image),
            Ok(Image::Arm64(Arm64Header { text_offset: 0x8_0000, image_size: 64 }))
        );
        image[24] = 1;
        assert_eq!(Image::parse(&image), Err(Rule::ImageBigEndian));
        image[24] = 0;
        image[11] = 1;
        assert_eq!(Image::parse(&image), Err(Rule::ImageTextOffset));
        assert_eq!(Image::parse(&[0; 59]), Ok(Image::Raw));
        assert_eq!(Image::parse(&[]), Err(Rule::PayloadEmpty));
    }

    #[test]
    fn mutated_elf_files_do_no_harm() {
        let mut random = crate::manifest::tests::Random(0xe1f);
        for _ in 0..if cfg!(miri) { 50 } else { 20_000 } {
            let mut file = elf();
            // The headers are where the decisions are.
            let mut head: Vec<u8> = file.drain(..256).collect();
            random.mutate(&mut head);
            head.extend(file);
            if let Ok(Image::Elf(elf)) = Image::parse(&head) {
                assert!(elf.segments.iter().any(|segment| segment.memory.contains(elf.entry)));
                assert!(elf.segments.iter().all(|s| s.offset + s.file_size <= head.len() as u64));
            }
        }
    }
}
