//! What a check finds, whoever found it: the policy's rules, the desk's warnings or dtc.
//!
//! Everything that looks at a manifest makes these, so that a text for people, JSON and SARIF all say the same. A
//! place is named as the manifest names it, by node and property; where that is in a file is known to the one who
//! read the source.

use std::fmt;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The manifest is refused, here and at boot.
    Error,
    /// It is accepted, but somebody should look.
    Warning,
}

impl Severity {
    /// The word in front of a finding.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// A place in the manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Location {
    /// Path of the node.
    pub path: String,
    /// Name of the property; `None` for the node itself.
    pub property: Option<String>,
    /// Which string or number of the property's value, from 0; `None` for all of it.
    pub entry: Option<usize>,
}

impl Location {
    /// A node.
    #[must_use]
    pub fn node(path: impl Into<String>) -> Self {
        Self { path: path.into(), property: None, entry: None }
    }

    /// A property of a node.
    #[must_use]
    pub fn property(path: impl Into<String>, property: impl Into<String>) -> Self {
        Self { path: path.into(), property: Some(property.into()), entry: None }
    }

    /// A string or number, from 0, of a property's value.
    #[must_use]
    pub fn entry(path: impl Into<String>, property: impl Into<String>, entry: usize) -> Self {
        Self { path: path.into(), property: Some(property.into()), entry: Some(entry) }
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        self.property.iter().try_for_each(|property| write!(f, ":{property}"))?;
        self.entry.iter().try_for_each(|entry| write!(f, "[{entry}]"))
    }
}

/// One finding.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diagnostic {
    /// The rule's code: `BH` and four digits.
    pub code: String,
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong and who is concerned; one line, without code and place.
    pub message: String,
    /// Where.
    pub at: Location,
    /// Where the other party stands, and what to write there.
    pub other: Option<(Location, String)>,
    /// What else there is to know; one line each.
    pub notes: Vec<String>,
    /// How to mend it.
    pub help: Option<String>,
}

impl fmt::Display for Diagnostic {
    /// One line, as the hypervisor prints it at boot.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.at.path.as_str() {
            "" => write!(f, "{}: {}", self.code, self.message),
            path => write!(f, "{}: {path}: {}", self.code, self.message),
        }
    }
}
