//! All findings of one run, each at its place in the source and in the order of the files.

use std::collections::HashMap;
use std::fmt;

use bulkhead_policy::manifest::MAX_FINDINGS;

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::explain;
use crate::source::{Files, Part, Source, Span, takes_64_bits};

/// Rules that are about a property's name and not about its value: UnknownProperty and PropertyTwice.
const OF_NAMES: [&str; 2] = ["BH0012", "BH0015"];

/// What is found of numbers that were meant to have 64 bits each and have 32: their form, their count, where they lead.
const OF_64_BITS: [&str; 7] = ["BH0020", "BH0201", "BH0202", "BH0204", "BH0206", "BH0207", "BH0208"];

/// A finding and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Placed {
    /// What was found.
    pub diagnostic: Diagnostic,
    /// Its place in the source, where that is known.
    pub span: Option<Span>,
    /// That of the other party.
    pub other: Option<Span>,
}

impl Placed {
    /// Whether the manifest is refused for it.
    #[must_use]
    pub fn is_error(&self) -> bool {
        self.diagnostic.severity == Severity::Error
    }
}

/// What one run found; an error where one of it is.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    files: Files,
    list: Vec<Placed>,
}

impl Findings {
    /// Puts findings in order: by file, line and column; what has no place comes last. Who has no mend gets that of the rule's page.
    #[must_use]
    pub fn new(files: Files, mut list: Vec<Placed>) -> Self {
        for Placed { diagnostic, .. } in &mut list {
            let page = explain::page_of(&diagnostic.code);
            diagnostic.help = diagnostic.help.take().or_else(|| Some(page?.mend.to_owned()));
        }
        list.sort_by_key(|placed| {
            let key = placed.span.as_ref().map(Span::key);
            (key.is_none(), key, placed.diagnostic.severity)
        });
        Self { files, list }
    }

    /// Finds the places of `diagnostics` and adds what the compilers warned of.
    #[must_use]
    pub fn place(source: &Source, diagnostics: Vec<Diagnostic>) -> Self {
        // Of what is named alike, each finding is about the next one.
        let mut seen: HashMap<(String, String, Option<String>), usize> = HashMap::new();
        let mut list = source.warnings.clone();
        for mut diagnostic in diagnostics {
            if diagnostic.code == "BH0012" && diagnostic.at.property.as_deref() == Some("phandle") {
                diagnostic.help = Some("take the reference to this node's label out".to_owned());
            }
            if OF_64_BITS.contains(&diagnostic.code.as_str())
                && diagnostic.at.property.as_deref().is_some_and(takes_64_bits)
                && source.is_short(&diagnostic.at)
            {
                diagnostic.help =
                    Some("write `/bits/ 64` before the `<`: each number has 64 bits".to_owned());
            }
            let part = if OF_NAMES.contains(&diagnostic.code.as_str()) { Part::Name } else { Part::Value };
            let other = diagnostic.other.as_ref().map(|(other, _)| other);
            let twice = other.is_some_and(|other| same_name(other, &diagnostic.at));
            let nth = if twice {
                let at = diagnostic.at.clone();
                let count = seen.entry((diagnostic.code.clone(), at.path, at.property)).or_default();
                *count += 1;
                *count
            } else {
                0
            };
            let span = source.find(&diagnostic.at, nth, part);
            let other = other
                .and_then(|other| source.find(other, 0, part))
                .filter(|other| Some(other) != span.as_ref());
            list.push(Placed { diagnostic, span, other });
        }
        Self::new(source.files.clone(), list)
    }

    /// The files that the places are in.
    #[must_use]
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// The findings in order.
    pub fn iter(&self) -> impl Iterator<Item = &Placed> {
        self.list.iter()
    }

    /// How many of them are errors, and how many are warnings.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        let errors = self.list.iter().filter(|placed| placed.is_error()).count();
        (errors, self.list.len() - errors)
    }

    /// `2 errors, 1 warning`, and whether the check ended early; empty where nothing was found.
    #[must_use]
    pub fn summary(&self) -> String {
        let (errors, warnings) = self.counts();
        let more = if errors >= MAX_FINDINGS { ", and perhaps more" } else { "" };
        let words = [(errors, "error"), (warnings, "warning")].into_iter().filter(|(count, _)| *count != 0);
        let words: Vec<_> = words
            .map(|(count, word)| format!("{count} {word}{}", if count == 1 { "" } else { "s" }))
            .collect();
        words.join(", ") + more
    }
}

/// Whether both are whole nodes or properties of the same path and name.
fn same_name(one: &Location, two: &Location) -> bool {
    (&one.path, &one.property) == (&two.path, &two.property) && one.entry.is_none() && two.entry.is_none()
}

impl fmt::Display for Findings {
    /// One line each, as the hypervisor prints them at boot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.iter().enumerate().try_for_each(|(index, placed)| {
            if index != 0 {
                writeln!(f)?;
            }
            placed.diagnostic.fmt(f)
        })
    }
}

impl std::error::Error for Findings {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_that_ended_early_says_so() {
        let list = |count| {
            let diagnostic = Diagnostic {
                code: "BH0101".to_owned(),
                severity: Severity::Error,
                message: String::new(),
                at: Location::node("/"),
                other: None,
                notes: Vec::new(),
                help: None,
            };
            vec![Placed { diagnostic, span: None, other: None }; count]
        };
        let summary = |count| Findings::new(Files::default(), list(count)).summary();
        assert_eq!(summary(2), "2 errors");
        assert_eq!(summary(MAX_FINDINGS), format!("{MAX_FINDINGS} errors, and perhaps more"));
    }
}
