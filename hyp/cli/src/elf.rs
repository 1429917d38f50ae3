//! What becomes of an ELF file: a flat image, its sizes, and file and line of an address.

use std::fmt;
use std::path::Path;

use addr2line::Loader;
use anyhow::{Context, Result, anyhow, bail, ensure};
use object::elf::{FileHeader64, PF_W, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Endianness, elf};

/// The most bytes that text and rodata of the hypervisor may have together.
pub const TEXT_LIMIT: u64 = 128 << 10;

/// A loadable segment.
#[derive(Clone, Debug)]
struct Segment {
    address: u64,
    content: Vec<u8>,
    memory_size: u64,
    writable: bool,
}

/// The loadable part of a 64-bit Arm executable.
#[derive(Clone, Debug)]
pub struct Executable {
    segments: Vec<Segment>,
}

/// How much of what an image has, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sizes {
    /// Code and read-only data.
    pub text_and_rodata: u64,
    /// Initialised data.
    pub data: u64,
    /// Zeroed data, tables and stacks.
    pub bss: u64,
    /// All RAM that the image claims when it runs: `image_size` of its arm64 Image header, heap included.
    pub claimed: u64,
}

impl Executable {
    /// Reads an executable.
    ///
    /// # Errors
    ///
    /// Where it is no little-endian 64-bit Arm ELF file with something to load.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header = FileHeader64::<Endianness>::parse(bytes).context("not a 64-bit ELF file")?;
        let endian = header.endian()?;
        ensure!(header.e_machine(endian) == elf::EM_AARCH64, "not an executable for 64-bit Arm");
        let mut segments = header
            .program_headers(endian, bytes)?
            .iter()
            .filter(|segment| segment.p_type(endian) == PT_LOAD && segment.p_memsz(endian) != 0)
            .map(|segment| {
                let content = segment.data(endian, bytes).map_err(|()| anyhow!("a segment is cut off"))?;
                Ok(Segment {
                    address: segment.p_vaddr(endian),
                    content: content.to_vec(),
                    memory_size: segment.p_memsz(endian),
                    writable: segment.p_flags(endian).0 & PF_W.0 != 0,
                })
            })
            .collect::<Result<Vec<_>>>()?;
        segments.sort_by_key(|segment| segment.address);
        ensure!(!segments.is_empty(), "nothing in it is loaded");
        Ok(Self { segments })
    }

    /// Reads the executable in a file.
    ///
    /// # Errors
    ///
    /// As [`Executable::parse`], or where the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let bytes = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        Self::parse(&bytes).with_context(|| path.display().to_string())
    }

    /// The bytes from the first loaded one to the last one that is not zero-filled: what a loader that knows
    /// no ELF puts into memory.
    ///
    /// # Errors
    ///
    /// Where segments overlap or lie more than 256 MiB apart.
    pub fn flatten(&self) -> Result<Vec<u8>> {
        const LIMIT: u64 = 256 << 20;
        let start = self.segments[0].address;
        let mut image = Vec::new();
        for segment in &self.segments {
            let offset = segment.address - start;
            if segment.content.is_empty() {
                continue;
            }
            if offset < image.len() as u64 || offset > LIMIT {
                bail!("the segment at {:#x} overlaps another or lies too far off", segment.address);
            }
            image.resize(offset as usize, 0);
            image.extend_from_slice(&segment.content);
        }
        Ok(image)
    }

    /// Its sizes; an image without an arm64 Image header claims what its segments occupy.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        let sum = |writable: bool| -> u64 {
            self.segments.iter().filter(|s| s.writable == writable).map(|s| s.content.len() as u64).sum()
        };
        let occupied: u64 = self.segments.iter().map(|segment| segment.memory_size).sum();
        let content: u64 = self.segments.iter().map(|segment| segment.content.len() as u64).sum();
        Sizes {
            text_and_rodata: sum(false),
            data: sum(true),
            bss: occupied - content,
            claimed: image_size(&self.segments[0].content).unwrap_or(occupied),
        }
    }
}

/// `image_size` of an arm64 Image header (Linux, `Documentation/arch/arm64/booting.rst`).
fn image_size(image: &[u8]) -> Option<u64> {
    let field = |offset: usize| image.get(offset..offset + 8)?.first_chunk().copied();
    (image.get(56..60)? == b"ARM\x64").then_some(())?;
    field(16).map(u64::from_le_bytes).filter(|&size| size != 0)
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut row = |what: &str, bytes: u64| writeln!(f, "  {what:<28}{bytes:>10} bytes");
        row("text and rodata", self.text_and_rodata)?;
        row("data", self.data)?;
        row("bss, tables and stacks", self.bss)?;
        row("RAM claimed at run time", self.claimed)
    }
}

/// Finds file and line of code addresses.
pub struct Symbols(Loader);

impl Symbols {
    /// Reads the debug information of an executable.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read.
    pub fn read(path: &Path) -> Result<Self> {
        let loader = Loader::new(path)
            .map_err(|error| anyhow!("{error}"))
            .with_context(|| format!("cannot read the symbols of {}", path.display()))?;
        Ok(Self(loader))
    }

    /// Functions, inlined ones first, that `address` belongs to, each with file and line where known.
    #[must_use]
    pub fn find(&self, address: u64) -> Vec<String> {
        let mut found = Vec::new();
        let Ok(mut frames) = self.0.find_frames(address) else { return found };
        while let Ok(Some(frame)) = frames.next() {
            let Some(function) = frame.function else { continue };
            let name = function.demangle().map_or_else(|_| "?".to_owned(), |name| name.into_owned());
            let place = frame.location.and_then(|location| Some((location.file?, location.line?)));
            found.push(match place {
                Some((file, line)) => format!("{name} ({file}:{line})"),
                None => name,
            });
        }
        // Assembly has symbols but no functions in its debug information.
        if found.is_empty() {
            found.extend(self.0.find_symbol(address).map(str::to_owned));
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(address: u64, content: &[u8], memory_size: u64, writable: bool) -> Segment {
        Segment { address, content: content.to_vec(), memory_size, writable }
    }

    #[test]
    fn flat_images_keep_the_gaps() {
        let executable = Executable {
            segments: vec![
                segment(0x1000, b"text", 4, false),
                segment(0x1008, b"data", 12, true),
                segment(0x1014, b"", 64, true),
            ],
        };
        assert_eq!(executable.flatten().unwrap(), b"text\0\0\0\0data");
        let sizes = Sizes { text_and_rodata: 4, data: 4, bss: 72, claimed: 80 };
        assert_eq!(executable.sizes(), sizes);
    }

    #[test]
    fn overlapping_segments_are_refused() {
        let executable = Executable {
            segments: vec![segment(0x1000, b"text", 4, false), segment(0x1002, b"data", 4, true)],
        };
        assert!(executable.flatten().is_err());
    }

    #[test]
    fn the_header_says_what_is_claimed() {
        let mut image = [0; 64];
        image[16..24].copy_from_slice(&0x20_0000_u64.to_le_bytes());
        image[56..60].copy_from_slice(b"ARM\x64");
        let executable = Executable { segments: vec![segment(0, &image, 64, false)] };
        assert_eq!(executable.sizes().claimed, 0x20_0000);
    }

    #[test]
    fn other_files_are_refused() {
        assert!(Executable::parse(b"").is_err());
        let own = std::env::current_exe().unwrap();
        let of_this_machine = Executable::read(&own);
        assert_eq!(of_this_machine.is_ok(), cfg!(target_arch = "aarch64"));
    }
}
