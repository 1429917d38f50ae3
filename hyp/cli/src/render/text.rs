//! Findings as rustc shows them.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::diagnostic::{Location, Severity};
use crate::findings::{Findings, Placed};
use crate::say;
use crate::source::{File, Files};

/// All findings and the line that counts them, with escape sequences for colours.
pub fn render(findings: &Findings) -> String {
    let mut text = String::new();
    for placed in findings.iter() {
        let _ = writeln!(text, "{}\n", one(placed, findings.files()));
    }
    let summary = findings.summary();
    if !summary.is_empty() {
        let _ = writeln!(text, "{summary}");
    }
    text
}

fn one(placed: &Placed, files: &Files) -> String {
    let found = &placed.diagnostic;
    let level = match found.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let mut group = Group::with_title(level.primary_title(&found.message).id(&found.code));
    // Several annotations of one file stand in one snippet; that of the finding's own file comes first.
    let mut snippets: BTreeMap<(bool, usize), Vec<Annotation<'_>>> = BTreeMap::new();
    let own = placed.span.as_ref().map(|span| span.file);
    if let Some(span) = &placed.span {
        let annotation = AnnotationKind::Primary.span(span.range.clone()).label(label(&found.at));
        snippets.entry((false, span.file)).or_default().push(annotation);
    }
    if let (Some(span), Some((_, label))) = (&placed.other, &found.other) {
        let annotation = AnnotationKind::Context.span(span.range.clone()).label(label.as_str());
        snippets.entry((own != Some(span.file), span.file)).or_default().push(annotation);
    }
    for ((_, index), annotations) in snippets {
        let file = files.get(index);
        let path = name(file);
        group = group.element(Snippet::source(&file.text).path(path).annotations(annotations));
    }
    if let (None, Some(file)) = (&placed.span, files.of(None)) {
        group = group.element(Origin::path(name(file)));
    }
    if placed.span.is_none() && !found.at.path.is_empty() {
        group = group.element(Level::NOTE.message(format!("at {}", found.at)));
    }
    if let (None, Some((other, _))) = (&placed.other, &found.other)
        && placed.span.is_none()
    {
        group = group.element(Level::NOTE.message(format!("the other party is at {other}")));
    }
    for note in &found.notes {
        group = group.element(Level::NOTE.message(note));
    }
    if let Some(help) = &found.help {
        group = group.element(Level::HELP.message(help));
    }
    Renderer::styled().render(&[group])
}

/// A file's name, with nothing in it that moves a terminal's cursor.
fn name(file: &File) -> String {
    say::visible(&file.path.display().to_string())
}

/// What to write under the place of a finding: whose it is. A compiler knows no nodes.
fn label(at: &Location) -> Option<String> {
    (!at.path.is_empty()).then(|| at.path.clone())
}
