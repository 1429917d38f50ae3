//! The inventory: what the files of a bundle were when it was put together.
//!
//! It lies in the bundle and is what `sha256sum` prints for the other entries, so that `sha256sum --check inventory` says of an
//! unpacked bundle what the hypervisor says at boot, and the shell makes one by hand:
//!
//! ```sh
//! sha256sum manifest.dtb Image > inventory
//! echo "# $(sha256sum < inventory)" >> inventory
//! ```
//!
//! Lines that begin with `#` are for people, but for two: the last is the SHA-256 of all before it, so that what was damaged is
//! told from what says so; and one right above a file's line says what the file is.
//! `hyp/docs/decisions/0015` says what this protects from.

use core::fmt;

/// Name of the inventory in the bundle.
pub const ENTRY: &str = "inventory";

/// Folds blocks of a message into the state of SHA-256 (FIPS 180-4, 6.2.2).
pub type Compress = fn(&mut [u32; 8], &[[u8; 64]]);

/// [`Compress`] for any CPU.
pub fn compress_in_software(state: &mut [u32; 8], blocks: &[[u8; 64]]) {
    sha2::block_api::compress256(state, blocks);
}

/// A SHA-256 as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hash([u8; 64]);

impl Hash {
    /// The state before the first block (FIPS 180-4, 5.3.3).
    const INITIAL: [u32; 8] = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19,
    ];

    /// The hash of `data`.
    #[must_use]
    pub fn of(data: &[u8], compress: Compress) -> Self {
        let mut state = Self::INITIAL;
        let (blocks, rest) = data.as_chunks();
        compress(&mut state, blocks);
        // A one bit, zeros and the length in bits fill the last block (FIPS 180-4, 5.1.1).
        let mut padded = [0; 128];
        let (padded, _) = padded.split_at_mut(if rest.len() < 56 { 64 } else { 128 });
        if let Some((message, [one, ..])) = padded.split_at_mut_checked(rest.len()) {
            message.copy_from_slice(rest);
            *one = 0x80;
        }
        if let Some(length) = padded.last_chunk_mut() {
            *length = ((data.len() as u64) << 3).to_be_bytes();
        }
        compress(&mut state, padded.as_chunks().0);
        let mut digits = [0; 64];
        for (digits, mut word) in digits.as_chunks_mut::<8>().0.iter_mut().zip(state) {
            for digit in digits {
                word = word.rotate_left(4);
                let value = word as u8 & 0xf;
                *digit = value.wrapping_add(if value < 10 { b'0' } else { b'a' - 10 });
            }
        }
        Self(digits)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(text(&self.0))
    }
}

/// What is no text is not worth printing.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("")
}

/// What became of a file since the bundle was made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict<'a> {
    /// The hash that was computed.
    pub hash: Hash,
    /// The hash that was written down, 64 digits; empty where the inventory does not name the file.
    pub listed: &'a [u8],
    /// What was written down of it besides: its size, its version.
    pub about: &'a [u8],
}

impl Verdict<'_> {
    /// The file is as it was.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.hash.0 == *self.listed
    }
}

impl fmt::Display for Verdict<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { hash, listed, about } = self;
        if self.is_good() {
            write!(f, ": sha256 {hash} {}", text(about))
        } else if listed.is_empty() {
            f.write_str(" is not in the bundle's inventory")
        } else {
            write!(f, " is damaged: SHA-256 is {hash}, the inventory says {}", text(listed))
        }
    }
}

/// An inventory that is itself undamaged.
#[derive(Clone, Copy, Debug)]
pub struct Inventory<'a> {
    /// Without the last line.
    lines: &'a [u8],
}

impl<'a> Inventory<'a> {
    /// Checks the inventory's own hash; `None` where it is damaged or is no inventory.
    #[must_use]
    pub fn new(bytes: &'a [u8], compress: Compress) -> Option<Self> {
        let (lines, last) = bytes.split_last_chunk::<70>()?;
        let digits = last.get(2..)?.first_chunk()?;
        (*digits == Hash::of(lines, compress).0).then_some(Self { lines })
    }

    /// Holds the bundle's entry `name`, which is `data`, against what is written down of it.
    #[must_use]
    pub fn verify(&self, name: &str, data: &[u8], compress: Compress) -> Verdict<'a> {
        let mut verdict = Verdict { hash: Hash::of(data, compress), listed: &[], about: &[] };
        let mut above: &[u8] = &[];
        for line in self.lines.split(|&byte| byte == b'\n') {
            if let Some((digits, [b' ', b' ', listed @ ..])) = line.split_at_checked(64)
                && listed == name.as_bytes()
            {
                verdict.listed = digits;
                verdict.about = above.strip_prefix(b"# ").unwrap_or(&[]);
                break;
            }
            above = line;
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use sha2::{Digest, Sha256};

    use super::*;
    use crate::manifest::tests::Random;

    fn hash(data: &[u8]) -> Hash {
        Hash::of(data, compress_in_software)
    }

    fn inventory(text: &str) -> Option<Inventory<'_>> {
        Inventory::new(text.as_bytes(), compress_in_software)
    }

    fn sealed(lines: &str) -> String {
        format!("{lines}# {}  -\n", hash(lines.as_bytes()))
    }

    fn sample() -> String {
        sealed(&format!(
            "# made by hand, on a desk\n{}  a\n# 5 bytes, Linux 6.1\n{}  b c\n{}  empty\n",
            hash(b"alpha"),
            hash(b"bravo"),
            hash(b"")
        ))
    }

    #[test]
    fn hashes_are_those_of_the_library() {
        let data: Vec<u8> = (0..300_u32).map(|n| (n * 7) as u8).collect();
        for size in 0..data.len() {
            let expected: String =
                Sha256::digest(&data[..size]).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(format!("{}", hash(&data[..size])), expected, "{size} bytes");
        }
    }

    #[test]
    fn files_are_held_against_it() {
        let text = sample();
        let inventory = inventory(&text).expect("an inventory");
        let verify = |name, data: &[u8]| {
            let verdict = inventory.verify(name, data, compress_in_software);
            (verdict.is_good(), format!("{name}{verdict}"))
        };
        let good = |text: String| (true, text);
        let a = format!("a: sha256 {} made by hand, on a desk", hash(b"alpha"));
        assert_eq!(verify("a", b"alpha"), good(a));
        assert_eq!(
            verify("b c", b"bravo"),
            good(format!("b c: sha256 {} 5 bytes, Linux 6.1", hash(b"bravo")))
        );
        assert_eq!(verify("empty", b""), good(format!("empty: sha256 {} ", hash(b""))));
        let damaged =
            format!("a is damaged: SHA-256 is {}, the inventory says {}", hash(b"alpHa"), hash(b"alpha"));
        assert_eq!(verify("a", b"alpHa"), (false, damaged));
        for unknown in ["", "b", "-", "a ", "on a desk"] {
            let said = format!("{unknown} is not in the bundle's inventory");
            assert_eq!(verify(unknown, b"alpha"), (false, said));
        }
    }

    #[test]
    fn what_the_tools_print_is_one() {
        // printf one > a; sha256sum a > inventory; echo "# $(sha256sum < inventory)" >> inventory
        let text = "7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed  a\n\
                    # 45143a439e9fc6ac3328517a0777d9876b3230c4d900a408d447b53a26b07ce9  -\n";
        let inventory = inventory(text).expect("an inventory");
        assert!(inventory.verify("a", b"one", compress_in_software).is_good());
    }

    #[test]
    fn each_flipped_bit_is_found() {
        let text = sample();
        // Miri takes minutes for all of them.
        for bit in (0..text.len() * 8).step_by(if cfg!(miri) { 211 } else { 1 }) {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // What stands around the digits of the last line is of no interest.
            let last = text.len() - 70;
            let found = Inventory::new(&bytes, compress_in_software).is_none();
            assert_eq!(found, (0..last).chain(last + 2..last + 66).any(|at| at == bit / 8), "bit {bit}");
        }
        assert!(inventory("").is_none());
        assert!(inventory(&text[1..]).is_none());
        assert!(inventory(&text[..text.len() - 1]).is_none());
    }

    #[test]
    fn any_bytes_are_safe() {
        let mut random = Random(0x1d5e);
        for _ in 0..if cfg!(miri) { 20 } else { 20_000 } {
            let mut lines = sample().into_bytes();
            random.mutate(&mut lines);
            let _ = Inventory::new(&lines, compress_in_software);
            if let Ok(lines) = String::from_utf8(lines) {
                let text = sealed(&lines);
                let inventory = inventory(&text).expect("sealed");
                for name in ["a", "b c", "empty", ""] {
                    let _ = inventory.verify(name, b"alpha", compress_in_software);
                }
            }
        }
    }
}
