//! Findings as JSON. The names of the fields are stable; `hyp/docs/check-json.md` describes them.

use serde::Serialize;

use crate::diagnostic::Location;
use crate::findings::{Findings, Placed};
use crate::source::{Files, Span};

/// Raised with every change that a reader has to know of.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    errors: usize,
    warnings: usize,
    findings: Vec<Finding<'a>>,
}

#[derive(Serialize)]
struct Finding<'a> {
    code: &'a str,
    severity: &'static str,
    message: &'a str,
    #[serde(flatten)]
    at: Where<'a>,
    other: Option<Other<'a>>,
    help: Option<&'a str>,
    notes: &'a [String],
}

#[derive(Serialize)]
struct Other<'a> {
    message: &'a str,
    #[serde(flatten)]
    at: Where<'a>,
}

#[derive(Serialize)]
struct Where<'a> {
    file: Option<String>,
    line: Option<usize>,
    column: Option<usize>,
    end_line: Option<usize>,
    end_column: Option<usize>,
    path: Option<&'a str>,
    property: Option<&'a str>,
    entry: Option<usize>,
}

impl<'a> Where<'a> {
    fn new(at: &'a Location, span: Option<&Span>, files: &Files) -> Self {
        let positions = span.map(|span| files.positions(span));
        Self {
            file: files.of(span).map(|file| file.path.display().to_string()),
            line: positions.map(|(start, _)| start.line),
            column: positions.map(|(start, _)| start.column),
            end_line: positions.map(|(_, end)| end.line),
            end_column: positions.map(|(_, end)| end.column),
            path: Some(at.path.as_str()).filter(|path| !path.is_empty()),
            property: at.property.as_deref(),
            entry: at.entry,
        }
    }
}

impl<'a> Finding<'a> {
    fn new(placed: &'a Placed, files: &Files) -> Self {
        let found = &placed.diagnostic;
        Self {
            code: &found.code,
            severity: found.severity.word(),
            message: &found.message,
            at: Where::new(&found.at, placed.span.as_ref(), files),
            other: found
                .other
                .as_ref()
                .map(|(at, message)| Other { message, at: Where::new(at, placed.other.as_ref(), files) }),
            help: found.help.as_deref(),
            notes: &found.notes,
        }
    }
}

/// The document.
pub fn render(findings: &Findings) -> String {
    let (errors, warnings) = findings.counts();
    let list = findings.iter().map(|placed| Finding::new(placed, findings.files())).collect();
    let document = Document { version: VERSION, errors, warnings, findings: list };
    serde_json::to_string_pretty(&document).unwrap_or_default()
}
