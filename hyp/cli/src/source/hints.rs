//! What is probably wrong where a compiler says no more than "syntax error": seen from the words at the marked place.

use super::tokens::{Kind, Token, entries, tokens};

/// The mend of a syntax error at byte `at` of a file, which is the manifest's `first` or is included; `None` where it may be anything.
pub fn syntax(text: &str, at: usize, first: bool) -> Option<String> {
    let all: Vec<_> = tokens(text, 0).collect();
    let hint = file(text, &all, first).or_else(|| line(text, at)).or_else(|| {
        let here = all.iter().position(|token| token.range.end > at).unwrap_or(all.len());
        place(text, at, &all[..here], all.get(here))
    });
    hint.map(str::to_owned)
}

/// What concerns the file as a whole.
fn file(text: &str, all: &[Token], first: bool) -> Option<&'static str> {
    let has_version = || all.iter().any(|token| &text[token.range.clone()] == "/dts-v1/");
    if text.contains('\0') {
        Some("the file is no text in UTF-8: save it as such")
    } else if text.starts_with('\u{feff}') {
        Some("the file begins with a byte order mark: save it as UTF-8 without one")
    } else if first && !has_version() && !text.contains("include") {
        Some("begin the file with `/dts-v1/;`")
    } else {
        None
    }
}

/// What concerns the marked line.
fn line(text: &str, at: usize) -> Option<&'static str> {
    let (before, rest) = text.split_at(at);
    let line = before.rfind('\n').map_or(0, |end| end + 1);
    let line = text[line..].trim_start();
    if super::DIRECTIVE.is_match(line.lines().next().unwrap_or_default()) {
        Some("lines of the C preprocessor are read in files that `#include` names, not `/include/`")
    } else if line.starts_with("# ") {
        Some("a comment stands between `/*` and `*/`, or behind `//`")
    } else if rest.starts_with("/*") {
        Some("the comment has no end: close it with `*/`")
    } else {
        None
    }
}

/// What the words around the marked place tell: `before` it and `here`.
fn place(text: &str, at: usize, before: &[Token], here: Option<&Token>) -> Option<&'static str> {
    const SEMICOLON: &str = "most often a `;` is missing just before the marked place";
    let word = |token: &Token| &text[token.range.clone()];
    let is_mark =
        |token: &Token, marks: &[u8]| matches!(token.kind, Kind::Mark(mark) if marks.contains(&mark));
    let count = |mark| before.iter().filter(|token| is_mark(token, &[mark])).count();
    let (open, closed) = (count(b'{'), count(b'}'));
    let last = before.last();
    let Some(here) = here else {
        let ends_node = last.is_some_and(|last| is_mark(last, b"}"));
        return match open > closed {
            true => Some("a `};` is missing: the file ends within a node"),
            false => ends_node.then_some(SEMICOLON),
        };
    };
    let character = text[at..].chars().next()?;
    if "\u{201c}\u{201d}\u{201e}\u{2018}\u{2019}\u{ab}\u{bb}".contains(character) {
        return Some("put strings between plain quotation marks: `\"`");
    }
    let number = word(here).starts_with(|character: char| character.is_ascii_digit());
    if before.iter().rev().find(|token| is_mark(token, b"<>;{}")).is_some_and(|token| is_mark(token, b"<")) {
        return match (here.kind, character) {
            (_, ',') => Some("numbers between `<` and `>` are parted by spaces, not by commas"),
            (Kind::Word, '-') if here.range.start < at => Some("give every number of a range: <0 1 2>"),
            (_, '-') => Some("no number of a manifest is negative"),
            (Kind::Quoted, _) => Some("strings stand without `<` and `>`"),
            (Kind::Mark(b';' | b'}'), _) => Some("a `>` is missing"),
            (Kind::Word, _) if number || UNITS.contains(&word(here)) => {
                Some("a number has no unit: 16 MiB are 0x1000000")
            }
            (Kind::Word, _) => Some(
                "this is no number, and no macro of this name is known: define it, or `#include` the file that does",
            ),
            _ => None,
        };
    }
    let last = last?;
    if word(last) == "#" {
        return Some("a comment stands between `/*` and `*/`, or behind `//`");
    }
    match (last.kind, here.kind) {
        (Kind::Mark(b'='), Kind::Directive) => Some("write `/bits/ 64` for numbers of 64 bits"),
        (Kind::Mark(b':'), Kind::Mark(b'<') | Kind::Quoted) => {
            Some("a value stands behind `=`; a `:` makes a label of the word before it")
        }
        (Kind::Mark(b'='), Kind::Word) if number => Some("put numbers between `<` and `>`"),
        (Kind::Mark(b'='), Kind::Word) => Some("put a string between quotation marks"),
        (Kind::Mark(b'='), Kind::Mark(b';')) => Some("a value is missing behind `=`"),
        (Kind::Quoted, _) if word(last).contains('\n') => {
            Some("the string just before runs over several lines: its closing quotation mark is missing")
        }
        (Kind::Quoted, Kind::Quoted) => Some("a `;` or, between two strings of one list, a `,` is missing"),
        (_, Kind::Mark(b'}')) if closed >= open => Some("there is a `}` too many"),
        (_, Kind::Mark(b';' | b',')) => None,
        (Kind::Quoted | Kind::Mark(b'>' | b']' | b'}'), _) => Some(SEMICOLON),
        (Kind::Word, _) if text[last.range.end..here.range.start].contains('\n') => {
            Some("a `;` is missing just before the marked place or, behind the name of a node, a `{`")
        }
        _ => None,
    }
}

/// What people write behind a number of bytes.
const UNITS: [&str; 9] = ["K", "M", "G", "KB", "MB", "GB", "KiB", "MiB", "GiB"];

/// Whether `value`, of numbers that should have 64 bits each, is written as if they had 32: without `/bits/ 64`, and not in pairs of
/// cells of which the first is the upper half.
pub fn is_short(value: &str) -> bool {
    /// No board has memory or devices beyond so many times 4 GiB.
    const UPPER_HALF: u64 = 0x1000;
    let mut all: Vec<_> = tokens(value, 0).collect();
    // What has 32 bits without being told to.
    if let [bits, size, ..] = &all[..]
        && (&value[bits.range.clone()], &value[size.range.clone()]) == ("/bits/", "32")
    {
        all.drain(..2);
    }
    let is_cells = all.first().is_some_and(|token| token.kind == Kind::Mark(b'<'));
    let number = |text: &str| match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) => u64::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    };
    let cells: Vec<_> = entries(value, &all).into_iter().map(|range| number(&value[range])).collect();
    let is_upper = |cell: &Option<u64>| cell.is_some_and(|cell| cell < UPPER_HALF);
    let in_pairs = cells.len() % 2 == 0 && cells.iter().step_by(2).all(is_upper);
    is_cells && !in_pairs
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said of a text in which `^` marks the place.
    fn said(marked: &str) -> Option<String> {
        let at = marked.find('^').expect("a mark");
        syntax(&marked.replacen('^', "", 1), at, false)
    }

    #[test]
    fn a_syntax_error_is_explained_by_what_stands_there() {
        for (marked, part) in [
            ("\u{feff}^/dts-v1/;", Some("byte order mark")),
            ("^??/\0d\0", Some("UTF-8")),
            ("a { x = <0^, 1>; };", Some("not by commas")),
            ("a { x = /bits/ 64 <0x10 16^M>; };", Some("no unit")),
            ("a { x = <16 ^MiB>; };", Some("no unit")),
            ("a { x = <^-1>; };", Some("negative")),
            ("a { x = <0^-2>; };", Some("every number")),
            ("a { x = <1>; # ^the comment\n };", Some("a comment stands")),
            ("a { x = ^/bit/ 64 <1>; };", Some("write `/bits/ 64`")),
            ("a { x: ^<1>; };", Some("behind `=`")),
            ("a\n ^x = <1>; };", Some("a `{`")),
            ("a { x = <^CPU_B>; };", Some("no macro of this name")),
            ("a { x = <^\"b\">; };", Some("without `<`")),
            ("a { x = <1^; };", Some("`>` is missing")),
            ("a { x = ^bare; };", Some("between quotation marks")),
            ("a { x = ^0 1; };", Some("between `<` and `>`")),
            ("a { x = ^; };", Some("a value is missing")),
            ("a { x = ^\u{201c}bare\u{201d}; };", Some("plain quotation marks")),
            ("a { x = \"b;\n y = \"^c\"; };", Some("closing quotation mark")),
            ("a { x = \"b\" ^\"c\"; };", Some("a `,` is missing")),
            ("a { x = <1>\n ^y = <2>; };", Some("a `;` is missing")),
            ("a { x = \"b\"\n ^y = <2>; };", Some("a `;` is missing")),
            ("a { x = <1> ^};", Some("a `;` is missing")),
            ("a { flag\n ^y = <2>; };", Some("a `;` is missing")),
            ("a { }\n ^b { };", Some("a `;` is missing")),
            ("a { }^", Some("a `;` is missing")),
            ("a { b { };^\n", Some("ends within a node")),
            ("a { };\n^};", Some("too many")),
            ("a { x = <1>; ^/* b\n };", Some("no end")),
            ("a {\n # ^comment\n };", Some("a comment stands")),
            ("#define ^A 1\n", Some("#include")),
            ("a { x ^y; };", None),
            ("a { x = <1>;^; };", None),
        ] {
            let said = said(marked);
            assert_eq!(said.is_some(), part.is_some(), "{marked}: {said:?}");
            assert!(said.is_none_or(|said| part.is_some_and(|part| said.contains(part))), "{marked}");
        }
        for text in ["", "/ { };", "/* nothing */"] {
            assert_eq!(syntax(text, 0, true).as_deref(), Some("begin the file with `/dts-v1/;`"));
        }
    }

    #[test]
    fn numbers_of_32_bits_are_known() {
        for value in [
            "<0x40000000 0x1000>",
            "<0x40000000>",
            "<A B>",
            "<0 0x40000000 0x1000>",
            "/bits/ 32 <0x40000000 0x1000>",
        ] {
            assert!(is_short(value), "{value}");
        }
        for value in ["/bits/ 64 <0x40000000>", "<0 0x40000000 0x0 0x1000>", "\"a\"", "[00]", "MEMORY"] {
            assert!(!is_short(value), "{value}");
        }
    }
}
