//! Where in its files each node and property of a manifest stands.
//!
//! dtc tells: with `-T -T` it prints the tree that it read with a comment behind every line, which names file, lines and
//! columns, through `/include/` and through cpp's line markers. Behind cpp its columns are those of the expanded text, so
//! only its lines are trusted: name and value are looked up in the line as the author wrote it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use bulkhead_policy::manifest::{Form, Key, Rule};
use regex::Regex;

use super::files::{Files, Span};
use super::tokens::{Kind, Token, entries, tokens};
use crate::diagnostic::{Diagnostic, Location, Severity};

/// `file:line:column-line:column` in a comment of dtc's.
static MARK: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?:^|, )(?<file>.+?):(?<line>\d+):(?<column>\d+)-\d+:\d+").expect("a valid expression")
});

/// Where dtc says that something begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Mark {
    file: usize,
    line: usize,
    /// In the text that dtc read, from 1.
    column: usize,
}

#[derive(Clone, Debug)]
struct PropertyAt {
    name: String,
    mark: Option<Mark>,
    /// Strings and numbers of its value, macros expanded.
    entries: usize,
    written: Written,
}

/// How dtc shows that a value was written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Written {
    /// With strings.
    quoted: bool,
    /// With numbers between `<` and `>`.
    cells: bool,
    /// Their size, where it is not the usual one.
    bits: Option<u32>,
}

impl Written {
    fn new(value: &str, tokens: &[Token]) -> Self {
        let word = |token: &Token| value.get(token.range.clone()).unwrap_or_default();
        let bits = tokens.windows(2).find(|pair| word(&pair[0]) == "/bits/");
        Self {
            quoted: tokens.iter().any(|token| token.kind == Kind::Quoted),
            cells: tokens.iter().any(|token| token.kind == Kind::Mark(b'<')),
            bits: bits.and_then(|pair| word(&pair[1]).parse().ok()),
        }
    }

    /// What the property has, how this is written instead, and the mend.
    fn other_than(self, form: Form) -> Option<(&'static str, String, &'static str)> {
        let bits = self.bits.unwrap_or(32);
        let text = || "text".to_owned();
        let sized = || format!("numbers of {bits} bits");
        match form {
            Form::Number | Form::Numbers => {
                let wants = "numbers of 32 bits";
                let quoted =
                    self.quoted.then(|| (wants, text(), "put numbers between `<` and `>`, as in <0 1>"));
                quoted.or_else(|| (bits != 32).then(|| (wants, sized(), "take /bits/ out: write <0 1>")))
            }
            Form::Address | Form::Addresses => {
                let wants = "numbers of 64 bits";
                let written = if self.quoted { Some(text()) } else { (bits < 32).then(sized) };
                written.map(|written| (wants, written, "write /bits/ 64 <...>"))
            }
            Form::String | Form::Names => {
                self.cells.then(|| ("text", sized(), "write text between quotation marks"))
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
struct NodeAt {
    mark: Option<Mark>,
    properties: Vec<PropertyAt>,
}

/// Places of all nodes and properties.
#[derive(Clone, Debug, Default)]
pub struct Spans {
    /// By path; several where a name is given twice.
    nodes: HashMap<String, Vec<NodeAt>>,
}

/// Which part of a property is meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// Its name.
    Name,
    /// Its value, or the entry that the place names.
    Value,
}

impl Spans {
    /// Reads what dtc printed; `load` finds a file by the name that dtc has for it.
    pub fn read(annotated: &str, mut load: impl FnMut(&str) -> Option<usize>) -> Self {
        let mut this = Self::default();
        // Paths of the open nodes, each with its place in the list of nodes of that path.
        let mut open: Vec<(String, usize)> = Vec::new();
        for line in annotated.lines() {
            let (text, comment) = line.rsplit_once(" /* ").unwrap_or((line, ""));
            let mut mark = || {
                let found = MARK.captures(comment.trim_end_matches(" */"))?;
                let (line, column) = (found["line"].parse().ok()?, found["column"].parse().ok()?);
                Some(Mark { file: load(&found["file"])?, line, column })
            };
            let text = unlabelled(text.trim());
            if text.starts_with('}') {
                open.pop();
            } else if let Some(name) = text.strip_suffix('{') {
                let path = match open.last() {
                    None => "/".to_owned(),
                    Some((parent, _)) => format!("{}/{}", parent.trim_end_matches('/'), name.trim()),
                };
                let nodes = this.nodes.entry(path.clone()).or_default();
                nodes.push(NodeAt { mark: mark(), properties: Vec::new() });
                open.push((path, nodes.len() - 1));
            } else if let Some((path, index)) = open.last()
                && let Some(node) = this.nodes.get_mut(path).and_then(|nodes| nodes.get_mut(*index))
            {
                let text = text.trim_end_matches(';');
                let (name, value) = text.split_once(" = ").unwrap_or((text, ""));
                let tokens: Vec<_> = tokens(value, 0).collect();
                node.properties.push(PropertyAt {
                    name: name.to_owned(),
                    mark: mark(),
                    entries: entries(value, &tokens).len(),
                    written: Written::new(value, &tokens),
                });
            }
        }
        this
    }

    /// Where a place is in the source; the node above where dtc knows none. Of a name that is given several times in one
    /// node, the one with index `nth`, from 0, is meant.
    #[must_use]
    pub fn find(&self, files: &Files, at: &Location, nth: usize, part: Part) -> Option<Span> {
        if let Some(name) = &at.property {
            let nodes = self.nodes.get(&at.path).into_iter().flatten();
            let found: Vec<_> =
                nodes.flat_map(|node| &node.properties).filter(|property| property.name == *name).collect();
            if let Some(property) = found.get(nth).or(found.last()) {
                // What dtc adds itself, as a phandle, was written nowhere.
                let span = property.find(files, at.entry, part);
                if span.is_some() {
                    return span;
                }
            }
        }
        let mut path = at.path.as_str();
        loop {
            let node = self.nodes.get(path).and_then(|nodes| nodes.get(nth).or(nodes.last()));
            if let Some(mark) = node.and_then(|node| node.mark) {
                return node_name(files, mark);
            }
            path = match path.rsplit_once('/')? {
                ("", "") => return None,
                ("", _) => "/",
                (parent, _) => parent,
            };
        }
    }

    /// See [`super::Source::other_forms`].
    pub fn other_forms(&self) -> Vec<Diagnostic> {
        let is_partition =
            |path: &str| path.strip_prefix("/partitions/").is_some_and(|name| !name.contains('/'));
        let mut found = Vec::new();
        for (path, nodes) in self.nodes.iter().filter(|(path, _)| is_partition(path)) {
            for property in nodes.iter().flat_map(|node| &node.properties) {
                let Some(key) = key(&property.name) else { continue };
                let Some((wants, written, help)) = property.written.other_than(key.form()) else { continue };
                found.push(Diagnostic {
                    code: format!("BH{}", Rule::WrongForm.code()),
                    severity: Severity::Error,
                    message: format!("{} must be {wants}, not {written}", key.name()),
                    at: Location::property(path, &property.name),
                    other: None,
                    notes: Vec::new(),
                    help: Some(help.to_owned()),
                });
            }
        }
        found.sort_by(|one, two| (&one.at.path, &one.at.property).cmp(&(&two.at.path, &two.at.property)));
        found
    }
}

/// Whether the numbers of the partition's property of this name have 64 bits.
#[must_use]
pub fn takes_64_bits(name: &str) -> bool {
    key(name).is_some_and(|key| matches!(key.form(), Form::Address | Form::Addresses))
}

/// The partition's property of this name.
fn key(name: &str) -> Option<Key> {
    Key::ALL.iter().copied().find(|key| key.name() == name)
}

/// The text behind its labels.
fn unlabelled(mut text: &str) -> &str {
    while let Some((label, rest)) = text.split_once(": ")
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        text = rest;
    }
    text
}

impl PropertyAt {
    fn find(&self, files: &Files, entry: Option<usize>, part: Part) -> Option<Span> {
        let mark = self.mark?;
        let text = &files.get(mark.file).text;
        let all: Vec<_> = tokens(text, 0).collect();
        let is_name = |&index: &usize| {
            let next = all.get(index + 1).map(|token| token.kind);
            text[all[index].range.clone()] == self.name && matches!(next, Some(Kind::Mark(b'=' | b';')))
        };
        let span = |range| Some(Span { file: mark.file, range });
        let Some(name) = mark.nearest(files, &all, is_name) else {
            // A macro makes it.
            return span(files.line(mark.file, mark.line)?);
        };
        let rest = all.get(name + 2..).unwrap_or_default();
        let value = match all.get(name + 1) {
            Some(token) if token.kind == Kind::Mark(b'=') => {
                let end = rest.iter().position(|token| token.kind == Kind::Mark(b';'));
                &rest[..end.unwrap_or(rest.len())]
            }
            _ => &[],
        };
        let (Part::Value, Some(first), Some(last)) = (part, value.first(), value.last()) else {
            return span(all[name].range.clone());
        };
        let entries = entries(text, value);
        // Two cells make a number of 64 bits.
        let has_pairs = self.written.cells && self.written.bits.is_none() && takes_64_bits(&self.name);
        let cells = if has_pairs { 2 } else { 1 };
        let of = |entry: usize| {
            let first = entry.checked_mul(cells)?;
            Some(entries.get(first)?.start..entries.get(first + cells - 1)?.end)
        };
        let one = entry.filter(|_| entries.len() == self.entries).and_then(of);
        span(one.unwrap_or(first.range.start..last.range.end))
    }
}

/// The name of the node whose brace is at the mark.
fn node_name(files: &Files, mark: Mark) -> Option<Span> {
    let text = &files.get(mark.file).text;
    let all: Vec<_> = tokens(text, 0).collect();
    let range: Range<usize> = match mark.nearest(files, &all, |&index| all[index].kind == Kind::Mark(b'{')) {
        Some(brace) => {
            let name = brace.checked_sub(1).map_or(brace, |before| before);
            all[name].range.clone()
        }
        None => files.line(mark.file, mark.line)?,
    };
    Some(Span { file: mark.file, range })
}

impl Mark {
    /// Of the tokens in its line that are wanted, the one nearest to its column.
    fn nearest(self, files: &Files, all: &[Token], wanted: impl Fn(&usize) -> bool) -> Option<usize> {
        let line = files.line(self.file, self.line)?;
        let column = files.offset(self.file, self.line, self.column)?;
        let first = all.partition_point(|token| token.range.start < line.start);
        let last = all.partition_point(|token| token.range.start < line.end);
        (first..last).filter(wanted).min_by_key(|&index| all[index].range.start.abs_diff(column))
    }
}
