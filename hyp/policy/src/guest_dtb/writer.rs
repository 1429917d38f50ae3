//! Writes a flattened device tree of version 17 (5.1 to 5.6) into a buffer, front to back.
//!
//! Property names collect at the end of the buffer and move behind the structure when it is complete. Whatever
//! does not fit is noted once and reported by [`Writer::finish`], so that the callers read like the tree.

use core::fmt::{self, Write};

use crate::console::Bytes;

use super::DtbError;
use crate::addr::{Address, Region};
use crate::tree::{MAX_NAME, Property};

const MAGIC: u32 = 0xd00d_feed;
const VERSION: u32 = 17;
const LAST_COMPATIBLE_VERSION: u32 = 16;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const END: u32 = 9;

/// Bytes of the header.
const HEADER: usize = 40;
/// Where the structure block starts: behind the header and an empty list of reservations (16 bytes of 0).
const STRUCTURE: usize = HEADER + 16;
/// Bytes kept for property names while writing.
const STRINGS: usize = 8 << 10;
/// Names that are remembered, to be written only once.
const REMEMBERED: usize = 64;

pub(crate) struct Writer<'o> {
    /// Header, reservations and structure block.
    out: &'o mut [u8],
    /// Where the next token goes.
    at: usize,
    /// Property names, at the end of the caller's buffer.
    strings: &'o mut [u8],
    strings_size: usize,
    /// Offset and length of names by a hash of theirs; a name whose place is taken is written again.
    remembered: [(u16, u16); REMEMBERED],
    /// Where the length of the open property stands.
    length_at: usize,
    full: bool,
}

impl<'o> Writer<'o> {
    pub(crate) fn new(out: &'o mut [u8]) -> Self {
        let (out, strings) = out.split_at_mut(out.len().saturating_sub(STRINGS));
        let full = out.len() < STRUCTURE;
        if let Some(head) = out.get_mut(..STRUCTURE) {
            head.fill(0);
        }
        Self {
            out,
            at: STRUCTURE,
            strings,
            strings_size: 0,
            remembered: [(0, 0); REMEMBERED],
            length_at: 0,
            full,
        }
    }

    fn put(&mut self, bytes: &[u8]) {
        let end = self.at.saturating_add(bytes.len());
        match self.out.get_mut(self.at..end) {
            Some(place) => {
                place.copy_from_slice(bytes);
                self.at = end;
            }
            None => self.full = true,
        }
    }

    fn put_cell(&mut self, value: u32) {
        self.put(&value.to_be_bytes());
    }

    fn put_cell_at(&mut self, offset: usize, value: u32) {
        if let Some(place) = self.out.get_mut(offset..).and_then(|rest| rest.first_chunk_mut()) {
            *place = value.to_be_bytes();
        }
    }

    fn pad(&mut self) {
        let rest = self.at.wrapping_neg() & 3;
        self.put([0; 3].get(..rest).unwrap_or(&[]));
    }

    /// Begins a node of this name; the root's is empty.
    pub(crate) fn begin(&mut self, name: fmt::Arguments<'_>) {
        self.put_cell(BEGIN_NODE);
        // Longer ones, made of a long name of the board's and an address, are cut: no reader takes them. Writing fails only where
        // there is no space, which is noted.
        let end = self.at.saturating_add(MAX_NAME);
        let _ = Bytes(&mut |byte| {
            if self.at < end {
                self.put(&[byte]);
            }
        })
        .write_fmt(name);
        self.put(&[0]);
        self.pad();
    }

    /// Ends the node that was begun last.
    pub(crate) fn end(&mut self) {
        self.put_cell(END_NODE);
    }

    /// Begins a property whose value is written in parts.
    pub(crate) fn begin_property(&mut self, name: &str) {
        self.put_cell(PROP);
        self.length_at = self.at;
        self.put_cell(0);
        let name = self.name_offset(name);
        self.put_cell(name);
    }

    pub(crate) fn end_property(&mut self) {
        let length = self.at.saturating_sub(self.length_at).saturating_sub(8);
        self.put_cell_at(self.length_at, length as u32);
        self.pad();
    }

    /// One cell of the open property's value.
    pub(crate) fn value_cell(&mut self, value: u32) {
        self.put_cell(value);
    }

    /// Two cells of the open property's value.
    pub(crate) fn value_number(&mut self, value: u64) {
        self.put(&value.to_be_bytes());
    }

    pub(crate) fn bytes(&mut self, name: &str, value: &[u8]) {
        self.begin_property(name);
        self.put(value);
        self.end_property();
    }

    pub(crate) fn string(&mut self, name: &str, value: &str) {
        self.begin_property(name);
        self.put(value.as_bytes());
        self.put(&[0]);
        self.end_property();
    }

    /// A string that is put together here.
    pub(crate) fn text(&mut self, name: &str, value: fmt::Arguments<'_>) {
        self.begin_property(name);
        let _ = Bytes(&mut |byte| self.put(&[byte])).write_fmt(value);
        self.put(&[0]);
        self.end_property();
    }

    pub(crate) fn cells(&mut self, name: &str, values: &[u32]) {
        self.begin_property(name);
        for &value in values {
            self.put_cell(value);
        }
        self.end_property();
    }

    pub(crate) fn number(&mut self, name: &str, value: u64) {
        self.begin_property(name);
        self.value_number(value);
        self.end_property();
    }

    /// A `reg` of one entry with two cells each.
    pub(crate) fn region<A: Address>(&mut self, name: &str, region: Region<A>) {
        self.begin_property(name);
        self.value_number(region.start().raw());
        self.value_number(region.size());
        self.end_property();
    }

    /// A property of another tree, if it is there.
    pub(crate) fn copy(&mut self, property: Option<Property<'_>>) {
        if let Some(property) = property {
            self.bytes(property.name, property.value);
        }
    }

    /// The offset of a name in the strings block, where it is put if it is not there.
    fn name_offset(&mut self, name: &str) -> u32 {
        let bytes = name.as_bytes();
        let hash = match bytes {
            [first, .., last] => usize::from(first ^ last.rotate_left(3)).wrapping_add(bytes.len()),
            _ => 0,
        };
        let known = self.remembered.get(hash % REMEMBERED).copied().unwrap_or((0, 0));
        let (offset, length) = (usize::from(known.0), usize::from(known.1));
        if length == bytes.len() && self.strings.get(offset..).is_some_and(|rest| rest.starts_with(bytes)) {
            return known.0.into();
        }
        let start = self.strings_size;
        let end = start.saturating_add(bytes.len());
        match self.strings.get_mut(start..=end) {
            Some([place @ .., terminator]) => {
                place.copy_from_slice(bytes);
                *terminator = 0;
            }
            _ => self.full = true,
        }
        self.strings_size = end.saturating_add(1);
        if let (Ok(offset), Ok(length)) = (u16::try_from(start), u16::try_from(bytes.len()))
            && let Some(slot) = self.remembered.get_mut(hash % REMEMBERED)
        {
            *slot = (offset, length);
        }
        start as u32
    }

    /// Completes the tree and returns its size in bytes.
    pub(crate) fn finish(mut self) -> Result<usize, DtbError> {
        self.put_cell(END);
        let strings_at = self.at;
        let strings = core::mem::take(&mut self.strings);
        self.put(strings.get(..self.strings_size).unwrap_or(&[]));
        if self.full {
            return Err(DtbError);
        }
        let header = [
            MAGIC,
            self.at as u32,
            STRUCTURE as u32,
            strings_at as u32,
            // The list of reservations follows the header.
            HEADER as u32,
            VERSION,
            LAST_COMPATIBLE_VERSION,
            // The boot CPU.
            0,
            self.strings_size as u32,
            strings_at.saturating_sub(STRUCTURE) as u32,
        ];
        for (index, field) in header.into_iter().enumerate() {
            self.put_cell_at(index.saturating_mul(4), field);
        }
        Ok(self.at)
    }
}
