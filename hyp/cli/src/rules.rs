//! The policy's findings as the tool shows them: with the name that was probably meant. The mend comes from the rule's page.
//!
//! The hypervisor has neither: its image is small, and nobody mends a manifest at its console.

use bulkhead_policy::manifest::{DTB_SPACE, Finding, Key, Place, Rule, Value};
use bulkhead_policy::tree::Tree;

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::system::Parts;

/// Names less alike than this are not offered; 1 is the same.
const ALIKE: f64 = 0.6;

/// The code of a guest's device tree that is too large. At boot its partition does not start.
pub const TREE_TOO_LARGE: &str = "BH0002";

/// The finding that the device tree of `partition` does not fit into the space kept for it.
#[must_use]
pub fn tree_too_large(partition: &str) -> Diagnostic {
    Diagnostic {
        code: TREE_TOO_LARGE.to_owned(),
        severity: Severity::Error,
        message: format!("the device tree of {partition} does not fit into {} KiB", DTB_SPACE >> 10),
        at: Location { path: format!("/partitions/{partition}"), property: None, entry: None },
        other: None,
        notes: Vec::new(),
        help: None,
    }
}

/// Makes a finding of the policy's one of the tool's, with the name that was probably meant and what else there is to know.
#[must_use]
pub fn diagnostic(finding: &Finding<'_>, parts: &Parts, board: &Tree<'_>) -> Diagnostic {
    let mut notes = Vec::new();
    if finding.rule == Rule::PayloadMissing {
        notes.push(format!("looked for it in {}", parts.searched()));
    }
    if finding.rule == Rule::NoSuchAlias && aliases(board).next().is_none() {
        notes.push("the board's tree has no aliases at all: name the device by its path".to_owned());
    }
    let help = meant(finding, parts, board).map(|name| format!("did you mean \"{name}\"?"));
    Diagnostic { notes, help, ..plain(finding) }
}

/// What a finding of the policy's says by itself.
#[must_use]
pub fn plain(finding: &Finding<'_>) -> Diagnostic {
    let at = location(finding.at);
    let other = match (finding.rule, finding.other) {
        (Rule::NodeTwice | Rule::PropertyTwice, _) => Some((at.clone(), "given here first".to_owned())),
        (Rule::CpuTwice | Rule::DeviceTwice, Some(other)) => {
            Some((location(other), "named here first".to_owned()))
        }
        (_, other) => other.map(|other| (location(other), other.node.path().to_owned())),
    };
    Diagnostic {
        code: format!("BH{}", finding.rule.code()),
        severity: Severity::Error,
        message: finding.message().to_string(),
        at,
        other,
        notes: Vec::new(),
        help: None,
    }
}

fn location(place: Place<'_>) -> Location {
    Location {
        path: place.node.path().to_owned(),
        property: (!place.property.is_empty()).then(|| place.property.to_owned()),
        entry: place.entry.map(usize::from),
    }
}

/// The name that is most like the one that is wrong.
fn meant(finding: &Finding<'_>, parts: &Parts, board: &Tree<'_>) -> Option<String> {
    let Value::Text(wrong) = finding.values[0] else { return None };
    match finding.rule {
        Rule::UnknownProperty => {
            let keys = Key::ALL.iter().map(|key| key.name());
            // What the root has of its own.
            let in_root = ["compatible", "console"].into_iter();
            match finding.at.node.path() {
                "/" => nearest(wrong, in_root),
                "/partitions" => None,
                _ => nearest(wrong, keys),
            }
        }
        Rule::UnknownNode => nearest(wrong, ["partitions"].into_iter()),
        Rule::NoSuchPath => {
            let paths = || board.nodes().map(|node| node.path());
            let tail = wrong.trim_start_matches('/');
            let elsewhere = paths().find(|path| path.rsplit_once('/').is_some_and(|(_, name)| name == tail));
            elsewhere.map(str::to_owned).or_else(|| nearest(wrong, paths()))
        }
        Rule::NoSuchAlias => nearest(wrong, aliases(board)),
        Rule::UnknownValue => {
            // The text names all that it may be, each between quotation marks.
            let value = finding.at.node.property(finding.at.property)?.string()?;
            nearest(value, wrong.split('"').skip(1).step_by(2))
        }
        Rule::PayloadMissing => nearest(wrong, parts.offered().iter().map(String::as_str)),
        _ => None,
    }
}

fn aliases<'t>(board: &'t Tree<'t>) -> impl Iterator<Item = &'t str> {
    board.find("/aliases").into_iter().flat_map(|node| node.properties()).map(|property| property.name)
}

fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    // A transposition is one slip of the finger.
    let rated = names.map(|name| (strsim::normalized_damerau_levenshtein(wrong, name), name));
    let best = rated.filter(|(rate, _)| *rate >= ALIKE).max_by(|(one, _), (two, _)| one.total_cmp(two));
    best.map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        let keys = || Key::ALL.iter().map(|key| key.name());
        for (wrong, meant) in
            [("cpu", "cpus"), ("memroy", "memory"), ("acces", "access"), ("bootarg", "bootargs")]
        {
            assert_eq!(nearest(wrong, keys()).as_deref(), Some(meant));
        }
        assert_eq!(nearest("colour", keys()), None);
    }
}
