//! Device trees that passed the gate.
//!
//! A tree comes from firmware or from an integrator, so its bytes are an allegation. [`Tree::new`] is the
//! gate: one pass over the structure block checks every token, name and length, and notes where each node
//! stands. Whatever is read afterwards needs no check of its own, and nothing in here can panic.
//!
//! Why not a library alone: the boot path reads two trees before the first guest instruction. For QEMU virt's
//! tree (8 KiB of structure) dtoolkit's gate takes 141,000 instructions and one walk over all nodes with the
//! `fdt` crate 76,000, where the whole boot should take 150,000; this pass takes 42,000 and what it notes saves
//! the walks (counted on the host). The `fdt` crate also cuts a tree short at a NOP token and panics on malformed blobs: it
//! reads the reservations of a tree whose header and list of them have passed. The tests hold this reader against both crates on
//! the same blobs.
//!
//! References are to the Devicetree Specification, release 0.4.

use alloc::vec::Vec;
use core::fmt;

use crate::addr::{Pa, Region};
use crate::irq::Trigger;

#[cfg(test)]
mod tests;

/// The first word of a blob (5.2).
const MAGIC: u32 = 0xd00d_feed;
/// Structure block tokens (5.4.1).
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROP: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;

/// The version of the blob's layout that this reader knows (5.2).
const VERSION: u32 = 17;
/// Deeper trees are refused.
const MAX_DEPTH: usize = 32;
/// Trees with more nodes are refused: the index has to fit in the boot heap.
const MAX_NODES: usize = 4096;
/// Longer node names are refused (2.2.1 allows 31 characters before the unit address).
pub(crate) const MAX_NAME: usize = 127;
/// Longer paths are refused.
const MAX_PATH: usize = 512;
/// Trees whose paths together have more bytes are refused, for the same reason.
const MAX_PATHS: usize = 256 << 10;
/// Trees whose `reg` properties together have more bytes are refused: they are compared with each other.
const MAX_REGISTERS: usize = 128 << 10;
/// Stands for the root's parent.
const NO_NODE: u32 = u32::MAX;
/// The most cells of one address or one size (2.3.5 has at most 3, for PCI).
const MAX_CELLS: u32 = 4;

/// Why a blob is no device tree.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TreeError {
    what: &'static str,
    offset: usize,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not a valid device tree: {} at byte {:#x}", self.what, self.offset)
    }
}

impl core::error::Error for TreeError {}

/// What the gate noted about a node.
#[derive(Clone, Copy, Debug)]
struct Record<'a> {
    name: &'a [u8],
    /// Where its path stands in `Tree::paths`.
    path: (u32, u32),
    parent: u32,
    /// The node that follows its last descendant.
    end: u32,
    /// Offset of its first property in the structure block.
    properties: u32,
    /// Offset and size of the value of its `compatible`; size 0 without one.
    compatible: (u32, u32),
    /// Whether its `device_type` is "memory".
    is_memory: bool,
    /// phandle of its interrupt parent, its own or inherited; 0 is none.
    interrupt_parent: u32,
    /// `#address-cells` and `#size-cells` for its children.
    address_cells: u32,
    size_cells: u32,
}

/// A device tree that passed the gate.
#[derive(Clone)]
pub struct Tree<'a> {
    fdt: fdt::Fdt<'a>,
    structure: &'a [u8],
    strings: &'a [u8],
    /// Depth-first.
    nodes: Vec<Record<'a>>,
    /// All paths, one after the other.
    paths: Vec<u8>,
    /// phandle and node.
    phandles: Vec<(u32, u32)>,
    /// Bytes that `reg` properties may still have.
    registers: usize,
}

impl fmt::Debug for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tree").field("nodes", &self.nodes.len()).finish_non_exhaustive()
    }
}

/// The big-endian word at `offset`.
fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|word| u32::from_be_bytes(*word))
}

/// `offset` rounded up to the next token.
fn align(offset: usize) -> usize {
    offset.saturating_add(3) & !3
}

/// Length of the value and offset of the name from a property's header.
fn property_header(header: [u8; 8]) -> (usize, usize) {
    let header = u64::from_be_bytes(header);
    ((header >> 32) as usize, header as u32 as usize)
}

/// Whether `name` stands at the start of `bytes`, followed by NUL. Its end is looked at first: that sorts out
/// most other names.
fn is_named(bytes: &[u8], name: &[u8]) -> bool {
    bytes.get(name.len()) == Some(&0) && bytes.iter().zip(name).all(|(a, b)| a == b)
}

/// Whether a byte is a character of a node's name (2.2.1) or the `@` before its unit address.
const NAME_CHARS: [bool; 256] = {
    let mut table = [false; 256];
    let mut rest: &mut [bool] = &mut table;
    let mut byte = 0_u8;
    while let Some((first, tail)) = rest.split_first_mut() {
        *first = byte.is_ascii_alphanumeric() || matches!(byte, b',' | b'.' | b'_' | b'+' | b'-' | b'@');
        byte = byte.wrapping_add(1);
        rest = tail;
    }
    table
};

fn is_name_char(byte: u8) -> bool {
    NAME_CHARS.get(usize::from(byte)).is_some_and(|&is| is)
}

/// Text that the gate let through; it is ASCII.
fn text(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or("")
}

impl<'a> Tree<'a> {
    /// Lets a blob through the gate. Bytes behind the size that its header states are ignored.
    ///
    /// # Errors
    ///
    /// Returns what is wrong and where if the blob is not a well-formed flattened device tree of version 17,
    /// or larger than anything that a board needs (depth, number of nodes, length of names).
    pub fn new(blob: &'a [u8]) -> Result<Self, TreeError> {
        let error = |what, offset| TreeError { what, offset };
        if word(blob, 0).is_some_and(|magic| magic != MAGIC) {
            return Err(error("no magic number", 0));
        }
        let blob = word(blob, 4).and_then(|size| blob.get(..size as usize));
        let blob = blob.ok_or(error("the blob is shorter than its header says", 0))?;
        let field = |offset| word(blob, offset).ok_or(error("the header is cut off", offset));
        let block = |offset: u32, size: u32, what| {
            let start = offset as usize;
            blob.get(start..start.saturating_add(size as usize)).ok_or(error(what, start))
        };
        // The header's fields (5.2).
        if field(20)? < VERSION || field(24)? > VERSION {
            return Err(error("the layout's version is not 17", 20));
        }
        let structure_offset = field(8)?;
        if structure_offset & 3 != 0 {
            return Err(error("the structure block is not aligned", 8));
        }
        let structure = block(structure_offset, field(36)?, "the structure block lies outside")?;
        let strings = block(field(12)?, field(32)?, "the strings block lies outside")?;
        if !strings.is_ascii() {
            return Err(error("a property's name is not ASCII", 12));
        }
        if strings.last().is_some_and(|&byte| byte != 0) {
            return Err(error("the last property's name does not end", 12));
        }
        // An entry of zeros ends the list (5.3.2).
        let reservations = blob.get(field(16)? as usize..).unwrap_or(&[]).as_chunks().0;
        if !reservations.contains(&[0; 16]) {
            return Err(error("the reservations do not end", 16));
        }
        let mut tree = Self {
            fdt: fdt::Fdt::new(blob).map_err(|_| error("a malformed header", 0))?,
            structure,
            strings,
            nodes: Vec::new(),
            paths: Vec::new(),
            phandles: Vec::new(),
            registers: MAX_REGISTERS,
        };
        // Measured on common trees: 120 to 160 bytes of structure a node.
        tree.nodes.reserve((structure.len() / 128).min(MAX_NODES));
        tree.index()
            .map_err(|(what, offset)| error(what, offset.saturating_add(structure_offset as usize)))?;
        Ok(tree)
    }

    /// Checks the structure block (5.4.2) and fills in the index.
    fn index(&mut self) -> Result<(), (&'static str, usize)> {
        let structure = self.structure;
        let mut at = 0;
        let mut current = None;
        let mut depth = 0_usize;
        // Properties come before child nodes.
        let mut in_properties = false;
        loop {
            let token = word(structure, at).ok_or(("the structure block ends too early", at))?;
            let here = at;
            at = at.saturating_add(4);
            match (token, current) {
                (PROP, Some(node)) if in_properties => {
                    at = self.gate_property(at, node).ok_or(("a property is malformed", here))?;
                }
                (BEGIN_NODE, above) => {
                    if above.is_none() && !self.nodes.is_empty() {
                        return Err(("there is a second root node", here));
                    }
                    depth = depth.saturating_add(1);
                    if depth > MAX_DEPTH {
                        return Err(("nodes are nested too deep", here));
                    }
                    let name = self.gate_name(at).filter(|name| name.is_empty() == above.is_none());
                    let name = name.ok_or(("a node's name is malformed", here))?;
                    at = align(at.saturating_add(name.len()).saturating_add(1));
                    current = Some(self.open_node(name, above, at).map_err(|what| (what, here))?);
                    in_properties = true;
                }
                (END_NODE, Some(node)) => {
                    let end = self.nodes.len() as u32;
                    current = self.nodes.get_mut(node as usize).and_then(|record| {
                        record.end = end;
                        (record.parent != NO_NODE).then_some(record.parent)
                    });
                    depth = depth.saturating_sub(1);
                    in_properties = false;
                }
                (NOP, Some(_)) => {}
                (END, None) if !self.nodes.is_empty() => return Ok(()),
                _ => return Err(("an unexpected token", here)),
            }
        }
    }

    /// The node name at `at`, if it is one.
    fn gate_name(&self, at: usize) -> Option<&'a [u8]> {
        let bytes = self.structure.get(at..)?;
        let length = bytes.iter().position(|&byte| !is_name_char(byte))?;
        let name = bytes.get(..length)?;
        (bytes.get(length) == Some(&0) && length <= MAX_NAME).then_some(name)
    }

    fn open_node(&mut self, name: &'a [u8], parent: Option<u32>, at: usize) -> Result<u32, &'static str> {
        let index = self.nodes.len();
        if index >= MAX_NODES {
            return Err("there are too many nodes");
        }
        // Never more than there may be, where doubling would be.
        if index == self.nodes.capacity() {
            self.nodes.reserve_exact(index.max(8).min(MAX_NODES.saturating_sub(index)));
        }
        let index = index as u32;
        let above = parent.and_then(|parent| self.nodes.get(parent as usize));
        let start = self.paths.len();
        let mut interrupt_parent = 0;
        self.paths.reserve(MAX_PATH);
        if let Some(above) = above {
            interrupt_parent = above.interrupt_parent;
            let (from, to) = (above.path.0 as usize, above.path.1 as usize);
            let length = to.saturating_sub(from).saturating_add(name.len());
            if length >= MAX_PATH || start.saturating_add(length) >= MAX_PATHS {
                return Err("the paths are too long");
            }
            // The root's path is the separator itself.
            if above.parent != NO_NODE {
                self.paths.extend_from_within(from..to);
            }
        }
        self.paths.push(b'/');
        self.paths.extend_from_slice(name);
        self.nodes.push(Record {
            name,
            path: (start as u32, self.paths.len() as u32),
            parent: parent.unwrap_or(NO_NODE),
            end: index.saturating_add(1),
            properties: at as u32,
            compatible: (0, 0),
            is_memory: false,
            interrupt_parent,
            // The defaults of 2.3.5.
            address_cells: 2,
            size_cells: 1,
        });
        Ok(index)
    }

    /// Checks the property whose header is at `at`; the offset of what follows.
    fn gate_property(&mut self, at: usize, node: u32) -> Option<usize> {
        let (length, name) = property_header(*self.structure.get(at..)?.first_chunk()?);
        let name = self.strings.get(name..)?;
        let start = at.checked_add(8)?;
        let end = start.checked_add(length)?;
        if end > self.structure.len() {
            return None;
        }
        match *name.first()? {
            0 => return None,
            b'c' if is_named(name, b"compatible") => {
                self.nodes.get_mut(node as usize)?.compatible = (start as u32, length as u32);
            }
            b'd' if is_named(name, b"device_type") => {
                self.nodes.get_mut(node as usize)?.is_memory =
                    *self.structure.get(start..end)? == b"memory\0"[..];
            }
            b'#' | b'i' | b'p' if length == 4 => {
                let value = word(self.structure, start)?;
                let record = self.nodes.get_mut(node as usize)?;
                if is_named(name, b"phandle") {
                    // One a node, or the list would not end.
                    if self.phandles.last().is_some_and(|&(_, last)| last == node) {
                        return None;
                    }
                    self.phandles.push((value, node));
                } else if is_named(name, b"interrupt-parent") {
                    record.interrupt_parent = value;
                } else if is_named(name, b"#address-cells") {
                    record.address_cells = value;
                } else if is_named(name, b"#size-cells") {
                    record.size_cells = value;
                }
            }
            b'r' if is_named(name, b"reg") => {
                self.registers = self.registers.checked_sub(length)?;
            }
            _ => {}
        }
        Some(align(end))
    }

    /// The root node.
    #[must_use]
    pub fn root(&self) -> Node<'_> {
        Node { tree: self, index: 0 }
    }

    /// All nodes, each before its children.
    pub fn nodes(&self) -> impl Iterator<Item = Node<'_>> + Clone {
        (0..self.nodes.len() as u32).map(|index| Node { tree: self, index })
    }

    /// The node at a path, or behind an alias (which may be followed by `/` and a path below it).
    ///
    /// A unit address may be left out where only one node has the name (2.2.3).
    #[must_use]
    pub fn find(&self, path: &str) -> Option<Node<'_>> {
        let (node, rest) = match path.strip_prefix('/') {
            Some(rest) => (self.root(), rest),
            None => {
                let (alias, rest) = cut(path, b'/');
                let target = self.root().child("aliases")?.property(alias)?.string()?;
                // An alias is a path, never another alias (3.3).
                (self.root().descendant(target.strip_prefix('/')?)?, rest)
            }
        };
        node.descendant(rest)
    }

    /// The node with this phandle.
    #[must_use]
    pub fn by_phandle(&self, phandle: u32) -> Option<Node<'_>> {
        let &(_, index) = self.phandles.iter().find(|&&(other, _)| other == phandle)?;
        Some(Node { tree: self, index })
    }

    /// A phandle that no node has.
    #[must_use]
    pub fn free_phandle(&self) -> u32 {
        // 0 and all ones are no phandles (2.3.3).
        let highest = self.phandles.iter().map(|&(phandle, _)| phandle).filter(|&p| p < 0xffff_0000).max();
        highest.unwrap_or(0).saturating_add(1)
    }

    /// The node with this position among [`Tree::nodes`].
    pub(crate) fn node(&self, index: u32) -> Node<'_> {
        Node { tree: self, index }
    }

    /// The memory reservations (5.3): address and size in bytes.
    pub fn reservations(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.fdt.memory_reservations().map(|entry| (entry.address() as usize as u64, entry.size() as u64))
    }

    /// Size of the blob in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.fdt.total_size()
    }

    /// The nodes of the CPUs, in the tree's order (3.8).
    pub fn cpus(&self) -> impl Iterator<Item = Node<'_>> {
        let cpus = self.root().child("cpus").unwrap_or(self.root());
        cpus.children().filter(|node| node.base_name() == "cpu")
    }

    /// The node that `/chosen/stdout-path` names, without the options behind its colon (3.6).
    #[must_use]
    pub fn stdout(&self) -> Option<Node<'_>> {
        let path = self.root().child("chosen")?.property("stdout-path")?.string()?;
        self.find(cut(path, b':').0)
    }

    #[inline(never)]
    fn record(&self, index: u32) -> Option<&Record<'a>> {
        self.look_up(index)
    }

    /// The same for the walks over all nodes, which a boot spends its time on.
    #[inline(always)]
    fn look_up(&self, index: u32) -> Option<&Record<'a>> {
        self.nodes.get(index as usize)
    }
}

/// A node of a [`Tree`].
#[derive(Clone, Copy)]
pub struct Node<'t> {
    tree: &'t Tree<'t>,
    index: u32,
}

impl PartialEq for Node<'_> {
    fn eq(&self, other: &Self) -> bool {
        core::ptr::eq(self.tree, other.tree) && self.index == other.index
    }
}

impl Eq for Node<'_> {}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path())
    }
}

/// `text` before the first `byte`, which is ASCII, and after it.
#[inline(never)]
pub(crate) fn cut(text: &str, byte: u8) -> (&str, &str) {
    let at = text.bytes().position(|other| other == byte).unwrap_or(text.len());
    (text.get(..at).unwrap_or(text), text.get(at.saturating_add(1)..).unwrap_or(""))
}

impl<'t> Node<'t> {
    /// Its position among [`Tree::nodes`].
    pub(crate) fn index(self) -> u32 {
        self.index
    }

    fn at(self, index: u32) -> Self {
        Self { tree: self.tree, index }
    }

    /// Its name with the unit address; empty for the root.
    #[must_use]
    pub fn name(self) -> &'t str {
        text(self.raw_name())
    }

    fn raw_name(self) -> &'t [u8] {
        self.tree.look_up(self.index).map_or(&[], |record| record.name)
    }

    /// Its name without the unit address.
    #[must_use]
    pub fn base_name(self) -> &'t str {
        cut(self.name(), b'@').0
    }

    /// The node at a path below this one.
    #[inline(never)]
    fn descendant(mut self, mut path: &str) -> Option<Self> {
        while !path.is_empty() {
            let (name, rest) = cut(path, b'/');
            if !name.is_empty() {
                self = self.child(name)?;
            }
            path = rest;
        }
        Some(self)
    }

    /// Its full path.
    #[must_use]
    pub fn path(self) -> &'t str {
        let range = self.tree.record(self.index).map(|record| record.path.0 as usize..record.path.1 as usize);
        text(range.and_then(|range| self.tree.paths.get(range)).unwrap_or(b"/"))
    }

    /// The node that it is a child of.
    #[must_use]
    pub fn parent(self) -> Option<Self> {
        let parent = self.tree.record(self.index)?.parent;
        (parent != NO_NODE).then_some(self.at(parent))
    }

    /// The node after its last descendant.
    fn end(self) -> u32 {
        self.tree.look_up(self.index).map_or(0, |record| record.end)
    }

    /// Whether `other` is this node or lies below it.
    #[must_use]
    pub fn is_above(self, other: Self) -> bool {
        (self.index..self.end()).contains(&other.index)
    }

    /// This node and all below it.
    pub fn subtree(self) -> impl Iterator<Item = Self> + Clone {
        (self.index..self.end()).map(move |index| self.at(index))
    }

    /// Its child nodes.
    pub fn children(self) -> impl Iterator<Item = Self> + Clone {
        let mut next = self.index.saturating_add(1);
        core::iter::from_fn(move || {
            let child = (next < self.end()).then_some(self.at(next))?;
            next = child.end();
            Some(child)
        })
    }

    /// Its child of this name. The unit address may be left out where only one child has the name (2.2.3).
    #[must_use]
    pub fn child(self, name: &str) -> Option<Self> {
        let mut by_base = None;
        for child in self.children() {
            match child.raw_name().strip_prefix(name.as_bytes()) {
                Some([]) => return Some(child),
                Some([b'@', ..]) => by_base = Some(if by_base.is_none() { Some(child) } else { None }),
                _ => {}
            }
        }
        by_base.flatten()
    }

    /// The structure block from its first property on.
    #[inline(never)]
    fn behind_name(self) -> &'t [u8] {
        let record = self.tree.look_up(self.index);
        record.and_then(|record| self.tree.structure.get(record.properties as usize..)).unwrap_or(&[])
    }

    /// Its properties.
    pub fn properties(self) -> impl Iterator<Item = Property<'t>> + Clone {
        let tree = self.tree;
        let mut rest = self.behind_name();
        core::iter::from_fn(move || {
            let (name, value) = next_property(tree, &mut rest)?;
            let end = name.iter().position(|&byte| byte == 0)?;
            Some(Property { name: core::str::from_utf8(name.get(..end)?).ok()?, value })
        })
    }

    /// Its property of this name.
    #[must_use]
    pub fn property(self, wanted: &str) -> Option<Property<'t>> {
        let mut rest = self.behind_name();
        loop {
            let (name, value) = next_property(self.tree, &mut rest)?;
            if is_named(name, wanted.as_bytes()) {
                let name = core::str::from_utf8(name.get(..wanted.len())?).ok()?;
                return Some(Property { name, value });
            }
        }
    }

    /// The strings of its `compatible` (2.3.1), as bytes: they are compared, not printed.
    pub fn compatible(self) -> impl Iterator<Item = &'t [u8]> + Clone {
        let (start, size) = self.tree.look_up(self.index).map_or((0, 0), |record| record.compatible);
        let text = start.saturating_add(size).saturating_sub(1) as usize;
        self.tree.structure.get(start as usize..text).unwrap_or(&[]).split(|&byte| byte == 0)
    }

    /// Whether its `compatible` lists this string.
    #[must_use]
    pub fn is_compatible(self, with: &str) -> bool {
        self.compatible().any(|string| string == with.as_bytes())
    }

    /// Whether it describes memory: its `device_type` says so (3.4).
    #[must_use]
    pub fn is_memory(self) -> bool {
        self.tree.record(self.index).is_some_and(|record| record.is_memory)
    }

    /// Whether its `status` lets it be used (2.3.4).
    #[must_use]
    pub fn is_enabled(self) -> bool {
        self.property("status").is_none_or(|status| matches!(status.string(), Some("okay" | "ok")))
    }

    /// Its phandle.
    #[must_use]
    pub fn phandle(self) -> Option<u32> {
        self.property("phandle")?.u32()
    }

    /// `#address-cells` and `#size-cells` that hold for its children (2.3.5).
    #[must_use]
    pub fn cells(self) -> (u32, u32) {
        self.tree.record(self.index).map_or((2, 1), |record| (record.address_cells, record.size_cells))
    }

    /// The entries of its `reg` as its parent counts them, address and size in bytes (2.3.6). Ends early at an
    /// entry that is cut off or has an address or size of more than 64 bits.
    pub fn raw_reg(self) -> impl Iterator<Item = (u64, u64)> {
        let (address_cells, size_cells) = self.parent().map_or((2, 1), Node::cells);
        let mut cells = self.property("reg").map_or(Cells(&[]), Property::cells);
        core::iter::from_fn(move || {
            // Without cells there is nothing to take, ever.
            (!cells.0.is_empty() && (address_cells, size_cells) != (0, 0)).then_some(())?;
            Some((cells.take(address_cells)?, cells.take(size_cells)?))
        })
    }

    /// The registers or memory that its `reg` names, as the CPUs see them (2.3.8). `None` stands for an entry
    /// that no CPU reaches, that is empty or malformed.
    pub fn reg(self) -> impl Iterator<Item = Option<Region<Pa>>> {
        let (address_cells, size_cells) = self.parent().map_or((2, 1), Node::cells);
        let entry = address_cells.saturating_add(size_cells).saturating_mul(4) as usize;
        let bytes = self.property("reg").map_or(0, |property| property.value.len());
        let whole = if entry == 0 { 0 } else { bytes.div_ceil(entry) };
        let mut raw = self.raw_reg();
        (0..whole).map(move |_| {
            let (address, size) = raw.next()?;
            Region::new(Pa::new(self.translate(address, size)?), size)
        })
    }

    /// What an address in the parent's space is to the CPUs; `None` where a bus above does not pass it on.
    fn translate(self, address: u64, size: u64) -> Option<u64> {
        let mut address = address;
        let mut bus = self.parent()?;
        while let Some(above) = bus.parent() {
            address = bus.translate_up(above, bus.property("ranges")?, address, size)?;
            bus = above;
        }
        Some(address)
    }

    /// Entry `index` of what leads from its bus to memory when it reads and writes by itself: address on the bus, and the memory, `None`
    /// where the entry leads nowhere. Without any entry it puts the CPUs' addresses on its bus.
    ///
    /// The nearest bus with `dma-ranges` counts (2.3.9); those above translate further where they have some.
    #[inline(never)]
    #[must_use]
    pub fn dma_range(self, index: usize) -> Option<(u64, Option<Region<Pa>>)> {
        let mut bus = self.parent()?;
        let (above, ranges) = loop {
            let above = bus.parent()?;
            match bus.property("dma-ranges").filter(|ranges| !ranges.value.is_empty()) {
                Some(ranges) => break (above, ranges),
                None => bus = above,
            }
        };
        let ((child_cells, size_cells), (parent_cells, _)) = (bus.cells(), above.cells());
        let entry = child_cells.saturating_add(parent_cells).saturating_add(size_cells) as usize;
        let start = index.checked_mul(entry.checked_mul(4)?)?;
        let mut cells = Cells(ranges.value.get(start..).filter(|rest| !rest.is_empty())?);
        let mut read = || {
            let child = cells.take(child_cells)?;
            let mut address = cells.take(parent_cells)?;
            let size = cells.take(size_cells)?;
            let mut bus = above;
            while let Some(above) = bus.parent() {
                if let Some(ranges) = bus.property("dma-ranges") {
                    address = bus.translate_up(above, ranges, address, size)?;
                }
                bus = above;
            }
            Some((child, Region::new(Pa::new(address), size)))
        };
        Some(read().unwrap_or((0, None)))
    }

    /// One step of [`Node::translate`]: from this bus to the one above by its `ranges` or `dma-ranges`.
    fn translate_up(self, above: Self, ranges: Property<'_>, address: u64, size: u64) -> Option<u64> {
        if ranges.value.is_empty() {
            return Some(address);
        }
        let (child_cells, size_cells) = self.cells();
        let (parent_cells, _) = above.cells();
        // PCI's 3 cells are no plain number, and entries without cells would never end.
        if !(1..=2).contains(&child_cells) {
            return None;
        }
        let mut cells = ranges.cells();
        while !cells.0.is_empty() {
            let child = cells.take(child_cells)?;
            let parent = cells.take(parent_cells)?;
            let length = cells.take(size_cells)?;
            if let Some(offset) = address.checked_sub(child)
                && offset.checked_add(size)? <= length
            {
                return parent.checked_add(offset);
            }
        }
        None
    }

    /// The controller that its interrupts go to, its own or an inherited `interrupt-parent` (2.4.1).
    #[must_use]
    pub fn interrupt_parent(self) -> Option<Self> {
        self.tree.by_phandle(self.tree.record(self.index)?.interrupt_parent)
    }

    /// Its interrupts, from `interrupts-extended` or `interrupts` (2.4.1): the controller and the cells. `None`
    /// stands for one that names no controller or is cut off; it is the last.
    pub fn interrupts(self) -> impl Iterator<Item = Option<(Self, Specifier)>> {
        let controlled = |controller: Self| {
            let count = controller.property("#interrupt-cells")?.u32().filter(|&count| count != 0)?;
            Some((controller, count))
        };
        let extended = self.property("interrupts-extended");
        let parent = match extended {
            Some(_) => None,
            None => self.interrupt_parent().and_then(controlled),
        };
        let mut cells = extended.or_else(|| self.property("interrupts")).map_or(Cells(&[]), Property::cells);
        core::iter::from_fn(move || {
            if cells.0.is_empty() {
                return None;
            }
            let mut next = || {
                let (controller, count) = match extended {
                    Some(_) => controlled(self.tree.by_phandle(cells.take(1)? as u32)?)?,
                    None => parent?,
                };
                let mut specifier = Specifier { cells: [0; 4], count: 0 };
                specifier.count = (count as usize).min(specifier.cells.len());
                for index in 0..count {
                    let cell = cells.take(1)? as u32;
                    if let Some(slot) = specifier.cells.get_mut(index as usize) {
                        *slot = cell;
                    }
                }
                Some((controller, specifier))
            };
            let interrupt = next();
            if interrupt.is_none() {
                cells = Cells(&[]);
            }
            Some(interrupt)
        })
    }
}

/// The name (and what follows it in the strings block) and the value of the first property in `rest`, which
/// becomes what follows it.
fn next_property<'t>(tree: &'t Tree<'t>, rest: &mut &'t [u8]) -> Option<(&'t [u8], &'t [u8])> {
    loop {
        let token;
        (token, *rest) = rest.split_first_chunk()?;
        match u32::from_be_bytes(*token) {
            PROP => break,
            NOP => {}
            _ => return None,
        }
    }
    let (header, behind) = rest.split_first_chunk()?;
    let (length, name) = property_header(*header);
    *rest = behind.get(align(length)..)?;
    Some((tree.strings.get(name..)?, behind.get(..length)?))
}

/// The cells of one interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Specifier {
    cells: [u32; 4],
    count: usize,
}

/// What an interrupt specifier of a GIC means (Linux binding `arm,gic-v3`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum GicInterrupt {
    /// Shared peripheral interrupt by number, with its trigger.
    Spi(u32, Trigger),
    /// Private peripheral interrupt by number, with its trigger.
    Ppi(u32, Trigger),
}

impl Specifier {
    /// The cells.
    #[must_use]
    pub fn cells(&self) -> &[u32] {
        self.cells.get(..self.count).unwrap_or(&self.cells)
    }

    /// Its meaning to a GIC; `None` for a kind that Bulkhead does not know.
    #[must_use]
    pub fn gic(&self) -> Option<GicInterrupt> {
        let [kind, number, flags, _] = self.cells;
        // IRQ_TYPE_EDGE_RISING and IRQ_TYPE_EDGE_FALLING.
        let trigger = if flags & 3 == 0 { Trigger::Level } else { Trigger::Edge };
        match kind {
            0 if self.count >= 3 => Some(GicInterrupt::Spi(number, trigger)),
            1 if self.count >= 3 => Some(GicInterrupt::Ppi(number, trigger)),
            _ => None,
        }
    }
}

/// A property of a [`Node`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Property<'t> {
    /// Its name.
    pub name: &'t str,
    /// Its bytes.
    pub value: &'t [u8],
}

impl<'t> Property<'t> {
    /// Its value as one cell.
    #[must_use]
    pub fn u32(self) -> Option<u32> {
        <[u8; 4]>::try_from(self.value).ok().map(u32::from_be_bytes)
    }

    /// Its value as two cells that make one number.
    #[must_use]
    pub fn u64(self) -> Option<u64> {
        <[u8; 8]>::try_from(self.value).ok().map(u64::from_be_bytes)
    }

    /// Its value as a list of cells; `None` where its size is no multiple of 4.
    #[must_use]
    pub fn u32s(self) -> Option<impl ExactSizeIterator<Item = u32> + 't> {
        let (cells, rest) = self.value.as_chunks();
        rest.is_empty().then(|| cells.iter().map(|cell| u32::from_be_bytes(*cell)))
    }

    /// Its value as a list of 64-bit numbers; `None` where its size is no multiple of 8.
    #[must_use]
    pub fn u64s(self) -> Option<impl ExactSizeIterator<Item = u64> + 't> {
        let (cells, rest) = self.value.as_chunks();
        rest.is_empty().then(|| cells.iter().map(|cell| u64::from_be_bytes(*cell)))
    }

    /// Its value as one string.
    #[must_use]
    pub fn string(self) -> Option<&'t str> {
        let mut strings = self.strings();
        strings.next().filter(|string| string.len().checked_add(1) == Some(self.value.len()))
    }

    /// Its value as strings; none where any of them is not UTF-8 or does not end.
    pub fn strings(self) -> impl Iterator<Item = &'t str> + Clone {
        let mut rest =
            self.value.last().and_then(|&end| core::str::from_utf8(self.value).ok().filter(|_| end == 0));
        core::iter::from_fn(move || {
            let (string, others) = cut(rest.filter(|text| !text.is_empty())?, 0);
            rest = Some(others);
            Some(string)
        })
    }

    fn cells(self) -> Cells<'t> {
        Cells(self.value)
    }
}

/// A value that is read cell by cell.
#[derive(Clone, Copy)]
struct Cells<'t>(&'t [u8]);

impl Cells<'_> {
    /// The number in the next `count` cells; `None` at the end or where it has more than 64 bits.
    fn take(&mut self, count: u32) -> Option<u64> {
        if count > MAX_CELLS {
            return None;
        }
        let mut number = 0_u64;
        for _ in 0..count {
            let (cell, rest) = self.0.split_first_chunk()?;
            if number >> 32 != 0 {
                return None;
            }
            number = number << 32 | u64::from(u32::from_be_bytes(*cell));
            self.0 = rest;
        }
        Some(number)
    }
}
