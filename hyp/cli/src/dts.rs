//! Device-tree source that the tool writes for people: what it says is for dtc, its comments are for the reader.
//!
//! Names and texts come from trees and files that others made. Nothing in them ends a comment or a string early.

use std::fmt::Write as _;

/// Comments are broken behind this column.
const WIDTH: usize = 100;
const INDENT: &str = "    ";

/// A source in the making.
#[derive(Debug)]
pub struct Source {
    text: String,
    depth: usize,
}

impl Default for Source {
    fn default() -> Self {
        Self { text: "/dts-v1/;\n".to_owned(), depth: 0 }
    }
}

impl Source {
    /// An empty line.
    pub fn blank(&mut self) {
        self.text.push('\n');
    }

    /// A comment, broken into lines where it is long.
    pub fn comment(&mut self, text: &str) {
        let mut lines = vec![String::new()];
        let room = WIDTH.saturating_sub(self.depth * INDENT.len());
        for word in text.split_whitespace() {
            if lines.last().is_some_and(|line| !line.is_empty() && line.len() + 1 + word.len() > room) {
                lines.push(String::new());
            }
            let line = lines.last_mut().expect("there is always one");
            if !line.is_empty() {
                line.push(' ');
            }
            line.extend(word.chars().map(|c| if c.is_control() { '?' } else { c }));
        }
        let text = lines.join("\n").replace("*/", "* /");
        self.line(&format!("/* {} */", text.replace('\n', &format!("\n{} * ", self.margin()))));
    }

    /// Opens a node.
    pub fn open(&mut self, name: &str) {
        self.line(&format!("{name} {{"));
        self.depth += 1;
    }

    /// Closes the node that was opened last.
    pub fn close(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        self.line("};");
    }

    /// A property with a value as [`strings`], [`cells`] and [`numbers`] make it.
    pub fn property(&mut self, name: &str, value: &str) {
        self.line(&format!("{name} = {value};"));
    }

    /// A property that only the comment's reader sees, with what there is to say of it.
    pub fn suggestion(&mut self, name: &str, value: &str) {
        self.line(&format!("/* {name} = {}; */", value.replace("*/", "* /")));
    }

    /// The text.
    #[must_use]
    pub fn finish(self) -> String {
        self.text
    }

    fn margin(&self) -> String {
        INDENT.repeat(self.depth)
    }

    fn line(&mut self, line: &str) {
        let margin = self.margin();
        self.text.push_str(&margin);
        self.text.push_str(line);
        self.text.push('\n');
    }
}

/// A value of strings.
#[must_use]
pub fn strings<S: AsRef<str>>(texts: impl IntoIterator<Item = S>) -> String {
    let quoted = texts.into_iter().map(|text| {
        let mut quoted = String::from('"');
        for c in text.as_ref().chars() {
            match c {
                '"' | '\\' => quoted.extend(['\\', c]),
                // dtc takes bytes as they are, but a control character moves a terminal's cursor.
                c if c.is_ascii_control() => {
                    let _ = write!(quoted, "\\x{:02x}", u32::from(c));
                }
                c => quoted.push(c),
            }
        }
        quoted + "\""
    });
    quoted.collect::<Vec<_>>().join(", ")
}

/// A value of small numbers.
#[must_use]
pub fn cells(numbers: impl IntoIterator<Item = u32>) -> String {
    let numbers: Vec<_> = numbers.into_iter().map(|number| number.to_string()).collect();
    format!("<{}>", numbers.join(" "))
}

/// A value of addresses and sizes, 64 bits each.
#[must_use]
pub fn numbers(numbers: impl IntoIterator<Item = u64>) -> String {
    let numbers: Vec<_> = numbers.into_iter().map(|number| format!("{number:#x}")).collect();
    format!("/bits/ 64 <{}>", numbers.join(" "))
}

#[cfg(test)]
mod tests {
    use bulkhead_policy::tree::Tree;

    use super::*;
    use crate::source;

    #[test]
    fn what_is_written_is_what_is_read() {
        let nasty = "a \"b\" \\ \u{1b}[2J */ ü";
        let mut source = Source::default();
        source.comment(&format!("{nasty} {}", "word ".repeat(60)));
        source.open("/");
        source.comment("*/ nobody = \"here\"; /*");
        source.property("text", &strings([nasty, ""]));
        source.property("small", &cells([1, 2]));
        source.property("large", &numbers([u64::MAX, 0]));
        source.suggestion("also", &strings(["*/ evil;"]));
        source.close();
        let source = source.finish();
        assert!(source.lines().all(|line| line.len() <= WIDTH + INDENT.len()), "{source}");
        let blob = source::compiled(&source);
        let tree = Tree::new(&blob).expect("a tree");
        let root = tree.root();
        let text: Vec<_> = root.property("text").expect("there").strings().collect();
        assert_eq!(text, [nasty, ""]);
        assert_eq!(root.property("small").expect("there").u64(), Some(1 << 32 | 2));
        let large: Vec<_> = root.property("large").expect("there").u64s().expect("numbers").collect();
        assert_eq!(large, [u64::MAX, 0]);
        assert_eq!(root.properties().count(), 3);
    }
}
