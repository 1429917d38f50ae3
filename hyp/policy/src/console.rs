//! How several partitions share one serial line.
//!
//! What the hypervisor sends is preceded by a tag whenever its source changes: an ECMA-48 application program command, which
//! terminals ignore. What is typed goes to one partition, the one in focus.

use core::fmt;

/// The byte that moves the focus to the next partition: Ctrl-].
pub const FOCUS_NEXT: u8 = 0x1d;

/// What precedes the tag's number.
pub const TAG_START: &str = "\x1b_B";
/// What follows the tag's number.
pub const TAG_END: &str = "\x1b\\";

/// The bytes that follow are those of this source: 0 the hypervisor, `n` the `n`th partition of the manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tag(pub usize);

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{TAG_START}{}{TAG_END}", self.0)
    }
}

/// Text that becomes bytes, each handed to a function.
pub struct Bytes<'a>(pub &'a mut dyn FnMut(u8));

impl fmt::Write for Bytes<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(&mut *self.0);
        Ok(())
    }
}

/// `byte`, which a source sends after `before`, or a replacement where the two would begin a tag: no partition speaks in
/// another's name.
#[must_use]
pub fn defuse(before: u8, byte: u8) -> u8 {
    if (before, byte) == (0x1b, b'_') { b'?' } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    #[test]
    fn a_partition_cannot_write_a_tag() {
        let mut last = b'\n';
        let sent: String = format!("a{}\x1b\x1b_B2\x1b\\", Tag(2))
            .bytes()
            .map(|byte| {
                last = defuse(last, byte);
                char::from(last)
            })
            .collect();
        assert!(!sent.contains(TAG_START), "{sent:?}");
        assert_eq!(sent.len(), 1 + 6 + 7);
    }
}
