//! The bundle: manifest and payloads in one file that any loader can hand over as an initrd.
//!
//! It is a `newc` cpio archive (Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`), so that
//! standard tools make, list and unpack it. [`Bundle::new`] walks the whole archive once; after that every
//! entry is known to lie inside.

use core::fmt;

/// Bytes of an entry's header: a magic number of 6 characters and 13 numbers of 8 hexadecimal digits.
const HEADER: usize = 110;
/// Where the size of the data stands in the header.
const FILE_SIZE: usize = 54;
/// Where the size of the name, NUL included, stands in the header.
const NAME_SIZE: usize = 94;
/// Name of the entry that ends the archive.
pub(crate) const TRAILER: &str = "TRAILER!!!";

/// The bytes are no bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BundleError {
    what: &'static str,
    offset: usize,
}

impl fmt::Display for BundleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a newc cpio archive: {} at byte {:#x}", self.what, self.offset)
    }
}

impl core::error::Error for BundleError {}

/// A well-formed archive.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    /// From the first entry to the trailer, without it.
    entries: &'a [u8],
}

/// A file in a bundle.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its content.
    pub data: &'a [u8],
}

impl<'a> Bundle<'a> {
    /// Checks an archive up to its trailer; what follows is ignored.
    ///
    /// # Errors
    ///
    /// Returns what is wrong and where if an entry is malformed or the trailer is missing.
    pub fn new(bytes: &'a [u8]) -> Result<Self, BundleError> {
        let mut offset = 0;
        loop {
            let rest = bytes.get(offset..).unwrap_or(&[]);
            let (entry, size) = parse(rest).map_err(|what| BundleError { what, offset })?;
            if entry.name == TRAILER {
                return Ok(Self { entries: bytes.get(..offset).unwrap_or(&[]) });
            }
            offset = offset.saturating_add(size);
        }
    }

    /// The entries in their order, without the trailer.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'a>> + use<'a> {
        let mut rest = self.entries;
        core::iter::from_fn(move || {
            let (entry, size) = parse(rest).ok()?;
            rest = rest.get(size..)?;
            Some(entry)
        })
    }

    /// The content of the first entry with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&'a [u8]> {
        self.entries().find(|entry| entry.name == name).map(|entry| entry.data)
    }
}

/// The entry at the start of `bytes` and the offset of the next one.
fn parse(bytes: &[u8]) -> Result<(Entry<'_>, usize), &'static str> {
    // 070702 is the same with a checksum in the last field.
    if !bytes.starts_with(b"070701") && !bytes.starts_with(b"070702") {
        return Err("an entry without its magic number");
    }
    let cut = "an entry that is cut off";
    let file_size = hex(bytes, FILE_SIZE).ok_or("an entry without a size")?;
    let name_size = hex(bytes, NAME_SIZE).ok_or("an entry without a size of its name")?;
    let name_end = HEADER.saturating_add(name_size);
    let name = bytes.get(HEADER..name_end).ok_or(cut)?;
    let name = name.strip_suffix(b"\0").ok_or("a name that does not end")?;
    let name = core::str::from_utf8(name).map_err(|_| "a name that is not text")?;
    // Name and data are each padded to a multiple of 4.
    let start = name_end.saturating_add(3) & !3;
    let end = start.saturating_add(file_size);
    let data = if file_size == 0 { &[] } else { bytes.get(start..end).ok_or(cut)? };
    Ok((Entry { name, data }, end.saturating_add(3) & !3))
}

/// The number of 8 hexadecimal digits at `offset`.
fn hex(bytes: &[u8], offset: usize) -> Option<usize> {
    let digits = bytes.get(offset..)?.first_chunk::<8>()?;
    digits.iter().try_fold(0_usize, |number, &digit| {
        let digit = char::from(digit).to_digit(16)? as usize;
        number.checked_mul(16)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use std::vec::Vec;

    use super::*;

    fn entry(out: &mut Vec<u8>, name: &str, data: &[u8]) {
        let header = format!(
            "070701{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}{:08x}{:08X}{:08X}{:08X}{:08X}{:08X}{:08X}",
            1,
            0o100644,
            0,
            0,
            1,
            0,
            data.len(),
            0,
            0,
            0,
            0,
            name.len() + 1,
            0
        );
        for part in [header.as_bytes(), name.as_bytes(), &[0]] {
            out.extend_from_slice(part);
        }
        out.resize(out.len().next_multiple_of(4), 0);
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(4), 0);
    }

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        entry(&mut bytes, "manifest.dtb", b"tree");
        entry(&mut bytes, "empty", b"");
        entry(&mut bytes, "kernel", b"a kernel of odd length!");
        entry(&mut bytes, TRAILER, b"");
        bytes
    }

    #[test]
    fn files_are_found() {
        let mut bytes = archive();
        bytes.resize(bytes.len().next_multiple_of(512), 0);
        let bundle = Bundle::new(&bytes).expect("a bundle");
        let names: Vec<_> = bundle.entries().map(|entry| entry.name).collect();
        assert_eq!(names, ["manifest.dtb", "empty", "kernel"]);
        assert_eq!(bundle.find("manifest.dtb"), Some(b"tree".as_slice()));
        assert_eq!(bundle.find("empty"), Some([].as_slice()));
        assert_eq!(bundle.find("kernel"), Some(b"a kernel of odd length!".as_slice()));
        assert_eq!(bundle.find("kerne"), None);
    }

    #[test]
    fn faults_are_named() {
        let bytes = archive();
        let fault = |bytes: &[u8]| format!("{}", Bundle::new(bytes).expect_err("a fault"));
        let prefix = "not a newc cpio archive: ";
        assert_eq!(fault(&[]), format!("{prefix}an entry without its magic number at byte 0x0"));
        assert_eq!(fault(&bytes[..60]), format!("{prefix}an entry without a size at byte 0x0"));
        assert_eq!(fault(&bytes[..112]), format!("{prefix}an entry that is cut off at byte 0x0"));
        // The first two entries have 128 and 116 bytes.
        assert_eq!(fault(&bytes[..128]), format!("{prefix}an entry without its magic number at byte 0x80"));
        let mut long = bytes.clone();
        long[FILE_SIZE..FILE_SIZE + 8].fill(b'f');
        assert_eq!(fault(&long), format!("{prefix}an entry that is cut off at byte 0x0"));
    }

    #[test]
    fn any_bytes_are_safe() {
        let mut random = crate::manifest::tests::Random(0xc910);
        for _ in 0..if cfg!(miri) { 20 } else { 20_000 } {
            let mut bytes = archive();
            random.mutate(&mut bytes);
            if let Ok(bundle) = Bundle::new(&bytes) {
                assert!(bundle.entries().map(|entry| entry.data.len()).sum::<usize>() <= bytes.len());
            }
        }
    }
}
