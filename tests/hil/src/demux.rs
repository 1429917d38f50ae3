//! Whose bytes are these: the wire format of the shared console.
//!
//! A tag `ESC _ B <n> ESC \` (an APC string, ECMA-48 8.3.2, which a terminal that knows nothing of it skips)
//! says that the bytes after it are those of source `n`. The stream arrives in chunks cut anywhere, also
//! inside a tag; the bytes handed on do not depend on where the cuts were.

use std::fmt;

/// One of those who share the console.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Source(pub u32);

impl Source {
    /// The hypervisor itself, and whatever speaks before the first tag.
    pub const HYPERVISOR: Self = Self(0);
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("the hypervisor"),
            n => write!(f, "partition {n}"),
        }
    }
}

const ESC: u8 = 0x1b;

/// What a tag looks like up to its number.
const OPENING: [u8; 3] = [ESC, b'_', b'B'];

/// The most digits of a number that is still taken for one.
const MAX_DIGITS: usize = 9;

/// Takes the shared stream apart.
#[derive(Debug)]
pub struct Demultiplexer {
    source: Source,
    /// Bytes that may turn out to be a tag.
    held: Vec<u8>,
}

/// What the held bytes are.
enum Reading {
    Tag(Source),
    Incomplete,
    NoTag,
}

impl Default for Demultiplexer {
    fn default() -> Self {
        Self { source: Source::HYPERVISOR, held: Vec::new() }
    }
}

impl Demultiplexer {
    /// Takes the next bytes of the stream and calls `sink` with each stretch of one source, in order.
    pub fn feed(&mut self, bytes: &[u8], mut sink: impl FnMut(Source, &[u8])) {
        let mut plain = Vec::with_capacity(bytes.len() + self.held.len());
        for &byte in bytes {
            if self.held.is_empty() && byte != ESC {
                plain.push(byte);
                continue;
            }
            self.held.push(byte);
            match read(&self.held) {
                Reading::Incomplete => {}
                Reading::Tag(source) => {
                    self.held.clear();
                    if !plain.is_empty() {
                        sink(self.source, &plain);
                        plain.clear();
                    }
                    self.source = source;
                }
                Reading::NoTag => {
                    // An ESC that spoils one tag may begin the next.
                    let kept = if byte == ESC { self.held.pop() } else { None };
                    plain.append(&mut self.held);
                    self.held.extend(kept);
                }
            }
        }
        if !plain.is_empty() {
            sink(self.source, &plain);
        }
    }

    /// Ends the stream: hands on what would have become a tag.
    pub fn finish(&mut self, sink: impl FnOnce(Source, &[u8])) {
        if !self.held.is_empty() {
            sink(self.source, &std::mem::take(&mut self.held));
        }
    }
}

fn read(held: &[u8]) -> Reading {
    let common = held.len().min(OPENING.len());
    if held[..common] != OPENING[..common] {
        return Reading::NoTag;
    }
    let rest = &held[common..];
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits > MAX_DIGITS {
        return Reading::NoTag;
    }
    let number = rest[..digits].iter().fold(0, |n, digit| n * 10 + u32::from(digit - b'0'));
    match &rest[digits..] {
        [] => Reading::Incomplete,
        [ESC] if digits > 0 => Reading::Incomplete,
        [ESC, b'\\'] if digits > 0 => Reading::Tag(Source(number)),
        _ => Reading::NoTag,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What came out, neighbouring stretches of one source joined.
    fn demultiplex<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<(u32, Vec<u8>)> {
        let mut out: Vec<(u32, Vec<u8>)> = Vec::new();
        let mut sink = |source: Source, bytes: &[u8]| match out.last_mut() {
            Some((last, joined)) if *last == source.0 => joined.extend(bytes),
            _ => out.push((source.0, bytes.to_vec())),
        };
        let mut demux = Demultiplexer::default();
        for chunk in chunks {
            demux.feed(chunk, &mut sink);
        }
        demux.finish(&mut sink);
        out
    }

    fn whole(stream: &[u8]) -> Vec<(u32, Vec<u8>)> {
        demultiplex([stream])
    }

    #[test]
    fn tags_name_the_source() {
        let stream = b"boot\n\x1b_B1\x1b\\hello\x1b_B2\x1b\\tick\n\x1b_B1\x1b\\ world\x1b_B0\x1b\\off\n";
        let expected = [(0, "boot\n"), (1, "hello"), (2, "tick\n"), (1, " world"), (0, "off\n")];
        assert_eq!(whole(stream), expected.map(|(n, text)| (n, text.as_bytes().to_vec())));
    }

    #[test]
    fn other_escape_sequences_pass() {
        for text in [
            &b"\x1b[31mred\x1b[0m"[..],
            b"\x1b_Hello\x1b\\",
            b"\x1b_B\x1b\\",
            b"\x1b_B12x\x1b\\",
            b"\x1b_B1234567890\x1b\\",
            b"\x1b\x1b\x1b",
            b"\x1b_B1\x1b",
        ] {
            assert_eq!(whole(text), [(0, text.to_vec())]);
        }
    }

    #[test]
    fn a_spoilt_tag_may_run_into_a_good_one() {
        assert_eq!(whole(b"\x1b_B1\x1b\x1b_B2\x1b\\x"), [(0, b"\x1b_B1\x1b".to_vec()), (2, b"x".to_vec())]);
        assert_eq!(whole(b"\x1b\x1b_B2\x1b\\_B3"), [(0, b"\x1b".to_vec()), (2, b"_B3".to_vec())]);
    }

    fn piece() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            "[a-z\r\n]{0,8}".prop_map(String::into_bytes),
            (0u32..40).prop_map(|n| format!("\x1b_B{n}\x1b\\").into_bytes()),
            proptest::collection::vec(
                prop::sample::select(&[ESC, b'_', b'B', b'1', b'9', b'\\', b'x'][..]),
                0..6
            ),
        ]
    }

    proptest! {
        #[test]
        fn cuts_do_not_matter(pieces in proptest::collection::vec(piece(), 0..12)) {
            let stream = pieces.concat();
            let expected = whole(&stream);
            prop_assert_eq!(&demultiplex(stream.chunks(1)), &expected);
            for cut in 0..=stream.len() {
                let (first, second) = stream.split_at(cut);
                prop_assert_eq!(&demultiplex([first, second]), &expected);
            }
        }

        #[test]
        fn what_was_tagged_comes_back(
            stretches in proptest::collection::vec((0u32..40, "[ -~\r\n]{1,20}"), 0..12)
        ) {
            let stream: String =
                stretches.iter().map(|(n, text)| format!("\x1b_B{n}\x1b\\{text}")).collect();
            let mut expected: Vec<(u32, Vec<u8>)> = Vec::new();
            for (source, text) in stretches {
                match expected.last_mut() {
                    Some((last, joined)) if *last == source => joined.extend(text.bytes()),
                    _ => expected.push((source, text.into_bytes())),
                }
            }
            prop_assert_eq!(whole(stream.as_bytes()), expected);
        }
    }
}
