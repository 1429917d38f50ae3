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
