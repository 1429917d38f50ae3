//! Findings for people, for programs and for editors: the same ones in three forms.

use anyhow::Result;
use clap::ValueEnum;

use crate::findings::Findings;
use crate::say;

mod json;
mod sarif;
mod text;

/// How findings are written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// For people: the source with what is meant underlined
    Text,
    /// For programs: hyp/docs/check-json.md
    Json,
    /// For editors and CI: SARIF 2.1.0
    Sarif,
}

/// The document, or the text with escape sequences for colours.
#[must_use]
pub fn render(findings: &Findings, format: Format) -> String {
    match format {
        Format::Text => text::render(findings),
        Format::Json => format!("{}\n", json::render(findings)),
        Format::Sarif => format!("{:#}\n", sarif::render(findings)),
    }
}

/// Writes findings for people on standard error, in colour on a terminal, with a line that counts them.
pub fn show(findings: &Findings) {
    anstream::eprint!("{}", render(findings, Format::Text));
}

/// Writes findings on standard output, or, as text, on standard error.
///
/// # Errors
///
/// As [`say::print`].
pub fn write(findings: &Findings, format: Format) -> Result<()> {
    match format {
        Format::Text => show(findings),
        Format::Json | Format::Sarif => say::print(&render(findings, format))?,
    }
    Ok(())
}
