//! Where in its files each node and property of a manifest stands.
//!
//! dtc tells: with `-T -T` it prints the tree that it read with a comment behind every line, which names file, lines and
//! columns, through `/include/` and through cpp's line markers. Behind cpp its columns are those of the expanded text, so
//! only its lines are trusted: name and value are looked up in the line as the author wrote it.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::LazyLock;

use regex::Regex;

use super::files::{Files, Span};
use super::tokens::{Kind, Token, entries, tokens};
use crate::diagnostic::Location;

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
                let entries = entries(value, &tokens(value, 0).collect::<Vec<_>>()).len();
                node.properties.push(PropertyAt { name: name.to_owned(), mark: mark(), entries });
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
                return property.find(files, at.entry, part);
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
        let one = entry.filter(|_| entries.len() == self.entries).and_then(|entry| entries.get(entry));
        span(one.cloned().unwrap_or(first.range.start..last.range.end))
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
