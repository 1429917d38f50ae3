//! Findings as SARIF 2.1.0, which editors and CI services show beside the source.
//! (OASIS, Static Analysis Results Interchange Format 2.1.0.)

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::diagnostic::Location;
use crate::explain::{self, Page};
use crate::findings::{Findings, Placed};
use crate::source::{Files, Span};

const SCHEMA: &str =
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json";

/// The document.
pub fn render(findings: &Findings) -> Value {
    let rules: Vec<_> = explain::pages().iter().map(rule).collect();
    let results: Vec<_> = findings.iter().map(|placed| result(placed, findings.files())).collect();
    let artifacts: BTreeSet<_> =
        findings.iter().map(|placed| placed.span.as_ref().map_or(0, |span| span.file)).collect();
    let artifacts: Vec<_> = artifacts
        .into_iter()
        .filter(|&file| file < findings.files().iter().count())
        .map(|file| json!({ "location": { "uri": uri(findings.files(), file) } }))
        .collect();
    json!({
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "cargo bulkhead check",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules,
            } },
            "columnKind": "unicodeCodePoints",
            "artifacts": artifacts,
            "results": results,
        }],
    })
}

fn rule(page: &Page) -> Value {
    json!({
        "id": page.code,
        "shortDescription": { "text": page.title },
        "fullDescription": { "text": page.reason() },
        "help": { "text": page.mend, "markdown": page.body },
    })
}

fn result(placed: &Placed, files: &Files) -> Value {
    let found = &placed.diagnostic;
    let mut result = Map::new();
    let mut put = |name: &str, value: Value| result.insert(name.to_owned(), value);
    put("ruleId", json!(found.code));
    if let Some(index) = explain::pages().iter().position(|page| page.code == found.code) {
        put("ruleIndex", json!(index));
    }
    put("level", json!(found.severity.word()));
    put("message", json!({ "text": sentence(placed) }));
    put("locations", json!([location(&found.at, placed.span.as_ref(), files)]));
    if let Some((at, label)) = &found.other {
        let mut related = location(at, placed.other.as_ref(), files);
        related["message"] = json!({ "text": label });
        put("relatedLocations", json!([related]));
    }
    Value::Object(result)
}

/// What an editor shows beside the line: message, notes and mend.
fn sentence(placed: &Placed) -> String {
    let found = &placed.diagnostic;
    let rest = found.notes.iter().chain(&found.help);
    rest.fold(found.message.clone(), |text, more| format!("{text}\n{more}"))
}

fn location(at: &Location, span: Option<&Span>, files: &Files) -> Value {
    let mut location = Map::new();
    if let Some(span) = span {
        let (start, end) = files.positions(span);
        let region = json!({
            "startLine": start.line,
            "startColumn": start.column,
            "endLine": end.line,
            "endColumn": end.column,
        });
        let artifact = json!({ "uri": uri(files, span.file) });
        location
            .insert("physicalLocation".to_owned(), json!({ "artifactLocation": artifact, "region": region }));
    } else if files.of(None).is_some() {
        let artifact = json!({ "artifactLocation": { "uri": uri(files, 0) } });
        location.insert("physicalLocation".to_owned(), artifact);
    }
    if !at.path.is_empty() {
        let name = json!([{ "fullyQualifiedName": at.to_string() }]);
        location.insert("logicalLocations".to_owned(), name);
    }
    Value::Object(location)
}

/// A file as a URI reference (RFC 3986): relative as it was named, else of the file scheme.
fn uri(files: &Files, file: usize) -> String {
    let path = &files.get(file).path;
    let encoded = path.to_string_lossy().bytes().fold(String::new(), |mut uri, byte| {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => {
                uri.push(byte.into())
            }
            _ => uri.push_str(&format!("%{byte:02X}")),
        }
        uri
    });
    if path.is_absolute() { format!("file://{encoded}") } else { encoded }
}
