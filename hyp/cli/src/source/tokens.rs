//! The words of a device-tree source, for finding in a file what dtc names by line.
//!
//! This understands no device tree: dtc does that. It only tells where a name, a brace or one entry of a value begins
//! and ends, in the text as its author sees it, with comments, odd spacing and macros that are not expanded.

use std::ops::Range;

/// What a token is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// A name, a number or a macro.
    Word,
    /// A string, or a character between single quotation marks.
    Quoted,
    /// A word between slashes, as `/bits/`.
    Directive,
    /// A path between `&{` and `}`.
    Reference,
    /// One character of anything else.
    Mark(u8),
}

/// A piece of source text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// What it is.
    pub kind: Kind,
    /// Its bytes in the text.
    pub range: Range<usize>,
}

/// Whether a name, a number or a macro may have this byte (Devicetree Specification 0.4, 2.2.1 and 2.2.4.1); cpp's macros may have
/// any letter.
const fn in_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || !byte.is_ascii()
        || matches!(byte, b',' | b'.' | b'_' | b'+' | b'*' | b'#' | b'?' | b'@' | b'-')
}

/// The tokens of `text` from byte `start` on.
pub fn tokens(text: &str, start: usize) -> impl Iterator<Item = Token> + '_ {
    let bytes = text.as_bytes();
    let mut at = start;
    std::iter::from_fn(move || {
        loop {
            let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
            let blank = blank(rest);
            if blank == 0 {
                let (kind, length) = token(rest);
                let range = at..at + length;
                at = range.end;
                return Some(Token { kind, range });
            }
            at += blank;
        }
    })
}

/// Bytes of white space or of a comment at the start.
fn blank(rest: &[u8]) -> usize {
    if rest.starts_with(b"//") {
        return rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len());
    }
    if rest.starts_with(b"/*") {
        return rest[2..].windows(2).position(|end| end == b"*/").map_or(rest.len(), |end| end + 4);
    }
    rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count()
}

/// What the first token is and how many bytes it has: at least one.
fn token(rest: &[u8]) -> (Kind, usize) {
    let first = rest[0];
    let run = |from: &[u8]| from.iter().take_while(|&&byte| in_word(byte)).count();
    match first {
        b'"' | b'\'' => {
            let mut length = 1;
            while let Some(&byte) = rest.get(length) {
                length += if byte == b'\\' { 2 } else { 1 };
                if byte == first {
                    break;
                }
            }
            (Kind::Quoted, length.min(rest.len()))
        }
        b'/' => match run(&rest[1..]) {
            length if length != 0 && rest.get(length + 1) == Some(&b'/') => (Kind::Directive, length + 2),
            _ => (Kind::Mark(first), 1),
        },
        b'&' if rest.get(1) == Some(&b'{') => {
            (Kind::Reference, rest.iter().position(|&byte| byte == b'}').map_or(rest.len(), |end| end + 1))
        }
        // A list's comma stands alone; one inside of a name does not.
        b',' if !rest.get(1).is_some_and(|&byte| in_word(byte)) => (Kind::Mark(first), 1),
        byte if in_word(byte) => (Kind::Word, run(rest)),
        byte => (Kind::Mark(byte), 1),
    }
}

/// Where the strings and numbers of a value are: `value` are the tokens between `=` and `;`. A macro counts as one.
pub fn entries(text: &str, value: &[Token]) -> Vec<Range<usize>> {
    let mut entries = Vec::new();
    let mut cells = false;
    let mut at = 0;
    while let Some(Token { kind, range }) = value.get(at) {
        let next = value.get(at + 1);
        let mut last = at;
        match kind {
            Kind::Mark(b'<') => cells = true,
            Kind::Mark(b'>') => cells = false,
            Kind::Mark(b'(') => last = closing(value, at),
            Kind::Mark(b'&') => last += 1,
            // A macro with arguments: no number.
            Kind::Word
                if next.is_some_and(|next| next.kind == Kind::Mark(b'('))
                    && !text.as_bytes()[range.start].is_ascii_digit() =>
            {
                last = closing(value, at + 1)
            }
            // The size of what follows.
            Kind::Directive => last += usize::from(&text[range.clone()] == "/bits/"),
            _ => {}
        }
        let is_label = *kind == Kind::Word && next.is_some_and(|next| next.kind == Kind::Mark(b':'));
        let is_entry = match kind {
            Kind::Quoted | Kind::Reference | Kind::Mark(b'&') => true,
            Kind::Word | Kind::Mark(b'(') => (cells || *kind == Kind::Word) && !is_label,
            _ => false,
        };
        if is_entry {
            let end = value.get(last).map_or(range.end, |token| token.range.end);
            entries.push(range.start..end);
        }
        at = last + 1;
    }
    entries
}

/// The place of the parenthesis that closes the one at `open`; the last token where none does.
fn closing(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Mark(b'(') => depth += 1,
            Kind::Mark(b')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth == 0 {
            return index;
        }
    }
    tokens.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        let value: Vec<_> = tokens(text, 0).collect();
        entries(text, &value).into_iter().map(|range| &text[range]).collect()
    }

    #[test]
    fn entries_are_strings_and_numbers() {
        assert_eq!(found("<0 1 0x2>"), ["0", "1", "0x2"]);
        assert_eq!(found(r#""a, b", "c\"d;" , /* "no" */ "e""#), [r#""a, b""#, r#""c\"d;""#, r#""e""#]);
        assert_eq!(
            found("/bits/ 64 <(1 + (2)) BASE(3, 4) l: 5>, <'a' &lab>"),
            ["(1 + (2))", "BASE(3, 4)", "5", "'a'", "&lab"]
        );
        assert_eq!(found("<&{/a/b}> // <1>\n, <2>"), ["&{/a/b}", "2"]);
    }

    #[test]
    fn any_text_has_tokens() {
        for text in ["\"open", "/* open", "&{open", "'\\", "<(1", "/", "\u{e4}\u{20ac} = <1>;", "(((", ")"] {
            let all: Vec<_> = tokens(text, 0).collect();
            assert!(all.iter().all(|token| text.get(token.range.clone()).is_some()), "{text}");
            let _ = entries(text, &all);
        }
    }
}
