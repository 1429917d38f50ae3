//! The rules' pages: why a manifest is refused and how to mend it, from `hyp/docs/rules.md`.

use std::sync::LazyLock;

/// The book's page of all rules.
const RULES: &str = include_str!("../../docs/rules.md");
/// Begins the line that says how to mend it.
const MEND: &str = "**Mend:** ";

/// One rule's page.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page {
    /// `BH` and four digits.
    pub code: &'static str,
    /// What is wrong, in a few words.
    pub title: &'static str,
    /// How to mend it; one sentence.
    pub mend: &'static str,
    /// All below the title.
    pub body: &'static str,
}

impl Page {
    /// Why it is refused: the first paragraph.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        self.body.split("\n\n").next().unwrap_or_default()
    }
}

static PAGES: LazyLock<Vec<Page>> = LazyLock::new(|| RULES.split("\n## ").skip(1).filter_map(page).collect());

fn page(section: &'static str) -> Option<Page> {
    let (heading, body) = section.split_once('\n')?;
    let (code, title) = heading.split_once(": ")?;
    // A heading between groups of rules ends a page.
    let body = body.split("\n# ").next()?.trim();
    let mend = body.lines().find_map(|line| line.strip_prefix(MEND))?;
    let is_code = code.len() == 6 && code.starts_with("BH");
    is_code.then_some(Page { code, title, mend, body })
}

/// All pages in the order of their codes.
#[must_use]
pub fn pages() -> &'static [Page] {
    &PAGES
}

/// The page of a code, written with or without the letters.
#[must_use]
pub fn page_of(code: &str) -> Option<&'static Page> {
    let digits =
        code.get(..2).filter(|letters| letters.eq_ignore_ascii_case("BH")).map_or(code, |_| &code[2..]);
    PAGES.iter().find(|page| &page.code[2..] == digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_found_however_they_are_written() {
        for code in ["BH0103", "bh0103", "0103"] {
            assert_eq!(page_of(code).map(|page| page.code), Some("BH0103"), "{code}");
        }
        for code in ["", "B", "BH", "103", "BH103", "BH9999", "\u{e4}0103"] {
            assert_eq!(page_of(code), None, "{code}");
        }
    }
}
