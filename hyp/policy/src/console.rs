//! How several partitions share one serial line.
//!
//! What the hypervisor sends is preceded by a tag whenever its source changes: an ECMA-48 application program command, which
//! terminals ignore. What is typed goes to one partition, the one in focus.

use core::fmt::{self, Write};

use heapless::Deque;

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

    fn write_char(&mut self, c: char) -> fmt::Result {
        self.write_str(c.encode_utf8(&mut [0; 4]))
    }
}

/// `byte`, which a source sends after `before`, or a replacement where the two would begin a tag: no partition speaks in
/// another's name.
#[must_use]
pub fn defuse(before: u8, byte: u8) -> u8 {
    if (before, byte) == (0x1b, b'_') { b'?' } else { byte }
}

/// Bytes that a [`Log`] holds.
pub const LOG: usize = 4096;

/// The hypervisor's own lines until they are sent.
#[derive(Debug)]
pub struct Log {
    bytes: Deque<u8, LOG>,
    lost: bool,
}

impl Log {
    /// Nothing to send.
    #[must_use]
    pub const fn new() -> Self {
        Self { bytes: Deque::new(), lost: false }
    }

    /// Queues all of `text`, or nothing and returns false: where more than `limit` bytes wait already, or where it does not fit.
    // Seldom called: small, as this crate is compiled.
    #[inline(never)]
    pub fn push(&mut self, text: fmt::Arguments<'_>, limit: usize) -> bool {
        let before = self.bytes.len();
        if before > limit {
            return false;
        }
        let mark = if self.lost { "(lines lost)\n" } else { "" };
        let queue = &mut |byte| {
            if byte == b'\n' {
                let _ = self.bytes.push_back(b'\r');
            }
            let _ = self.bytes.push_back(byte);
        };
        // A queue does not fail.
        let _ = write!(Bytes(queue), "{mark}{text}");
        if self.bytes.is_full() {
            self.bytes.truncate(before);
            return false;
        }
        self.lost = false;
        true
    }

    /// The caller gives up a line: the next one says so.
    pub fn lose(&mut self) {
        self.lost = true;
    }

    /// Takes the next byte to send.
    pub fn pop(&mut self) -> Option<u8> {
        self.bytes.pop_front()
    }
}

impl Default for Log {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::format;
    use std::string::String;

    #[test]
    fn a_line_is_queued_whole_or_not_at_all() {
        let mut log = Log::new();
        let line = "x".repeat(99);
        let count = (0..LOG).take_while(|_| log.push(format_args!("{line}\n"), LOG)).count();
        assert_eq!(count, LOG / 101);
        log.lose();
        assert!(!log.push(format_args!("y\n"), 0), "more than 0 bytes wait");
        let sent: String = core::iter::from_fn(|| log.pop()).map(char::from).collect();
        assert_eq!(sent, format!("{line}\r\n").repeat(count));
        assert!(log.push(format_args!("y\n"), 0));
        assert!(log.push(format_args!("z\n"), LOG));
        let sent: String = core::iter::from_fn(|| log.pop()).map(char::from).collect();
        assert_eq!(sent, "(lines lost)\r\ny\r\nz\r\n");
    }

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
