//! The files of a manifest's source, and places in them.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::input;

/// One file.
#[derive(Clone, Debug)]
pub struct File {
    /// How its user calls it.
    pub path: PathBuf,
    /// What is in it; a byte that is no UTF-8 shows as a question mark, so that offsets stay what they are.
    pub text: String,
}

/// A place in a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Span {
    /// Which of the [`Files`].
    pub file: usize,
    /// The bytes of its text.
    pub range: Range<usize>,
}

impl Span {
    /// What spans are sorted by: ranges have no order of their own.
    #[must_use]
    pub fn key(&self) -> (usize, usize, usize) {
        (self.file, self.range.start, self.range.end)
    }
}

/// A line and a column, from 1; columns count characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// All files that were read, the manifest first.
#[derive(Clone, Debug, Default)]
pub struct Files(Vec<File>);

impl Files {
    /// Reads a file, unless it was read before; `None` where it cannot be read.
    pub fn load(&mut self, path: &Path) -> Option<usize> {
        if let Some(index) = self.0.iter().position(|file| file.path == path) {
            return Some(index);
        }
        // A pipe would never end.
        let bytes = path.is_file().then(|| input::bytes(path).ok()).flatten()?;
        Some(self.add(path, &bytes))
    }

    /// Adds a file that was read already.
    pub fn add(&mut self, path: &Path, bytes: &[u8]) -> usize {
        let mut text = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            text.push_str(chunk.valid());
            text.extend(chunk.invalid().iter().map(|_| '?'));
        }
        self.0.push(File { path: path.to_owned(), text });
        self.0.len() - 1
    }

    /// A file.
    #[must_use]
    pub fn get(&self, index: usize) -> &File {
        &self.0[index]
    }

    /// The file of a place; of one that is not known, the manifest.
    #[must_use]
    pub fn of(&self, span: Option<&Span>) -> Option<&File> {
        self.0.get(span.map_or(0, |span| span.file))
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &File> {
        self.0.iter()
    }

    /// The first and the last of a span, the latter one column behind it.
    #[must_use]
    pub fn positions(&self, span: &Span) -> (Position, Position) {
        let text = &self.get(span.file).text;
        (position(text, span.range.start), position(text, span.range.end))
    }

    /// The bytes of a line, from 1, without its end and the white space around it; `None` where there is no such line.
    #[must_use]
    pub fn line(&self, file: usize, line: usize) -> Option<Range<usize>> {
        let text = &self.get(file).text;
        let whole = text.split_inclusive('\n').nth(line.checked_sub(1)?)?;
        let start = whole.as_ptr() as usize - text.as_ptr() as usize;
        let indented = whole.len() - whole.trim_start().len();
        let start = start + if indented == whole.len() { 0 } else { indented };
        Some(start..start + whole.trim().len())
    }

    /// The byte at a line and a column of bytes, both from 1, as dtc and cpp count; the line's end where it is shorter.
    #[must_use]
    pub fn offset(&self, file: usize, line: usize, column: usize) -> Option<usize> {
        let text = &self.get(file).text;
        let mut lines = text.split_inclusive('\n');
        let start: usize = lines.by_ref().take(line.checked_sub(1)?).map(str::len).sum();
        let length = lines.next().map_or(0, |line| line.trim_end().len());
        let mut offset = start + column.checked_sub(1)?.min(length);
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        Some(offset)
    }
}

fn position(text: &str, offset: usize) -> Position {
    let before = &text[..offset.min(text.len())];
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let line = before.bytes().filter(|&byte| byte == b'\n').count() + 1;
    Position { line, column: before[start..].chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns() {
        let mut files = Files::default();
        let file = files.add(Path::new("a.dts"), "\u{e4} = <1>;\r\n\n\tb;".as_bytes());
        assert_eq!(files.line(file, 1), Some(0..9));
        assert_eq!(files.line(file, 2), Some(11..11));
        assert_eq!(files.line(file, 3), Some(13..15));
        assert_eq!(files.line(file, 4), None);
        assert_eq!(files.offset(file, 1, 6), Some(5));
        assert_eq!(files.offset(file, 3, 99), Some(15));
        let (start, end) = files.positions(&Span { file, range: 3..9 });
        assert_eq!((start.line, start.column, end.line, end.column), (1, 3, 1, 9));
    }

    #[test]
    fn bytes_that_are_no_text_keep_offsets() {
        let mut files = Files::default();
        let file = files.add(Path::new("a.dts"), b"/* M\xfcller */ x");
        assert_eq!(files.get(file).text, "/* M?ller */ x");
    }
}
