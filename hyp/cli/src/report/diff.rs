//! What a change of the manifest changes.
//!
//! Two reports are flattened into facts, each with its owner and its subject, and compared. So whatever the report says is
//! compared, nothing else, and it makes no difference where a report comes from.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

use super::model::{Bytes, Holder, Report, ResourceKind, Window, WindowKind, range};

/// One difference.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Change {
    /// Whose it is; none for the machine as a whole.
    pub holder: Option<Holder>,
    /// What is concerned.
    pub subject: String,
    /// What was; none where it is new.
    pub before: Option<String>,
    /// What is; none where it has gone.
    pub after: Option<String>,
    /// Where what was added comes from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Holder>,
    /// Where what was removed goes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<Holder>,
}

/// All differences, each holder's together.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Diff {
    /// The older manifest's file name.
    pub old: String,
    /// The newer one's.
    pub new: String,
    /// What differs; nothing else is listed.
    pub changes: Vec<Change>,
}

/// Facts by whose they are, in which order they are shown, and what they are about.
type Facts = BTreeMap<(Option<Holder>, usize, String), String>;

impl Diff {
    /// Compares two reports.
    #[must_use]
    pub fn new(old: &Report, new: &Report) -> Self {
        let (before, after) = (facts(old), facts(new));
        let mut keys: Vec<_> =
            before.keys().chain(after.keys().filter(|key| !before.contains_key(key))).collect();
        // As in the newer manifest, what has gone behind it, the machine last.
        let position = |holder: &Option<Holder>| {
            let place = |report: &Report| {
                let mut holders = report.holders().into_iter();
                holders.position(|other| Some(&other) == holder.as_ref())
            };
            match holder {
                None => (3, 0),
                Some(_) => place(new).map(|at| (0, at)).or(place(old).map(|at| (1, at))).unwrap_or((2, 0)),
            }
        };
        keys.sort_by_cached_key(|key| (position(&key.0), (*key).clone()));
        let mut changes = Vec::new();
        for key in keys {
            let (was, is) = (before.get(key), after.get(key));
            if was == is {
                continue;
            }
            let (holder, order, subject) = key;
            let moved = (RESOURCES..ADDRESSES).contains(order) && holder.is_some();
            let others = |there: &Facts, here: &Facts| {
                if moved { others(subject, there, here) } else { Vec::new() }
            };
            let from = if was.is_none() { others(&before, &after) } else { Vec::new() };
            let to = if is.is_none() { others(&after, &before) } else { Vec::new() };
            let (holder, subject) = (holder.clone(), subject.clone());
            changes.push(Change { holder, subject, before: was.cloned(), after: is.cloned(), from, to });
        }
        Self { old: old.manifest.clone(), new: new.manifest.clone(), changes }
    }
}

/// Who has a resource there and has lost or gained it here; nobody, where it is nobody's there.
fn others(subject: &str, there: &Facts, here: &Facts) -> Vec<Holder> {
    let mut holders = there.keys().filter(|key| key.2 == subject).peekable();
    if holders.peek().is_none() {
        return vec![Holder::Nobody];
    }
    holders.filter(|key| !here.contains_key(key)).filter_map(|key| key.0.clone()).collect()
}

/// The order in which a holder's facts are shown.
const SELF: usize = 0;
const RESOURCES: usize = 1;
const ADDRESSES: usize = 5;
const RISKS: usize = 6;

fn facts(report: &Report) -> Facts {
    let mut facts = Facts::new();
    let mut add = |holder: Option<&Holder>, order, subject: String, value: String| {
        // What occurs twice, as pages of the same device, is one fact with both values.
        let slot = facts.entry((holder.cloned(), order, subject)).or_default();
        if !slot.is_empty() {
            slot.push_str("; ");
        }
        slot.push_str(&value);
    };
    add(None, SELF, "board".to_owned(), report.board.clone());
    for partition in &report.partitions {
        let holder = Holder::Partition(partition.name.clone());
        let holder = Some(&holder);
        add(holder, SELF, "partition".to_owned(), format!("number {}, {}", partition.number, partition.os));
        add(holder, SELF, "entry".to_owned(), format!("{:#010x}", partition.entry));
        if let Some(bootargs) = &partition.bootargs {
            add(holder, SELF, "bootargs".to_owned(), format!("\"{bootargs}\""));
        }
        for window in &partition.map {
            if window.kind == WindowKind::Device {
                // IPA and PA are the same, and the device is among the resources.
                continue;
            }
            let subject = match window.kind {
                WindowKind::Ram => format!("RAM at IPA {:#010x}", window.ipa),
                kind => format!("{} {}", kind.word(), window.name),
            };
            add(holder, ADDRESSES, subject, behind(window));
            for content in &window.contents {
                add(holder, ADDRESSES, content.label(), range(content.ipa, content.size));
            }
        }
    }
    for resource in &report.resources {
        let order = RESOURCES + resource.kind as usize;
        for share in &resource.shares {
            // RAM is compared by its places; what nobody has follows from what somebody has.
            if resource.kind == ResourceKind::Ram || share.holder == Holder::Nobody {
                continue;
            }
            let name = match resource.kind {
                ResourceKind::Device => format!("device {}", resource.name),
                _ => resource.name.clone(),
            };
            add(Some(&share.holder), order, name, share.portion.to_string());
        }
    }
    for resource in report.resources.iter().filter(|resource| resource.kind == ResourceKind::Ram) {
        add(None, RESOURCES, resource.name.clone(), Bytes(resource.size.unwrap_or(0)).to_string());
    }
    // What nobody has tells machines apart, too.
    for resource in report.resources.iter().filter(|resource| resource.kind == ResourceKind::Device) {
        let size = Bytes(resource.size.unwrap_or(0)).to_string();
        add(None, RESOURCES, format!("has {}", resource.name), size);
    }
    for span in &report.machine {
        if span.ram && matches!(span.holder, Holder::Hypervisor | Holder::Firmware) {
            add(Some(&span.holder), ADDRESSES, span.name.clone(), range(span.pa, span.size));
        }
    }
    add(None, RESOURCES, "free RAM".to_owned(), Bytes(report.free.total).to_string());
    add(None, RESOURCES, "largest free piece".to_owned(), Bytes(report.free.largest).to_string());
    for risk in &report.risks {
        let holder = risk.partition.as_ref().map(|name| Holder::Partition(name.clone()));
        add(holder.as_ref(), RISKS, format!("risk: {}", risk.message), String::new());
    }
    facts
}

fn behind(window: &Window) -> String {
    let size = Bytes(window.size);
    match (window.kind, window.pa, window.blocks) {
        (WindowKind::Ram, Some(pa), Some(blocks)) => format!("{size} at PA {pa:#010x}, {blocks}"),
        (_, Some(pa), _) => format!("{} at PA {pa:#010x}", range(window.ipa, window.size)),
        (_, None, _) => range(window.ipa, window.size),
    }
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { old, new, changes } = self;
        if changes.is_empty() {
            return writeln!(f, "{old} and {new} make the same system");
        }
        writeln!(f, "From {old} to {new}: - gone, + new, ~ other than before")?;
        let mut group = None;
        for change in changes {
            if group != Some(&change.holder) {
                group = Some(&change.holder);
                match &change.holder {
                    Some(holder) => writeln!(f, "\n{holder}")?,
                    None => writeln!(f, "\nmachine")?,
                }
            }
            writeln!(f, "  {change}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        let names = |holders: &[Holder]| {
            let names: Vec<_> = holders.iter().map(ToString::to_string).collect();
            names.join(", ")
        };
        match (&self.before, &self.after) {
            (Some(before), Some(after)) => write!(f, "~ {subject}: {before} → {after}"),
            (None, Some(after)) => {
                write!(f, "+ {}", fact(subject, after))?;
                if self.from.is_empty() { Ok(()) } else { write!(f, " (was {}'s)", names(&self.from)) }
            }
            (Some(before), None) => {
                write!(f, "- {}", fact(subject, before))?;
                if self.to.is_empty() { Ok(()) } else { write!(f, " (now {}'s)", names(&self.to)) }
            }
            (None, None) => Ok(()),
        }
    }
}

fn fact(subject: &str, value: &str) -> String {
    if value.is_empty() { subject.to_owned() } else { format!("{subject}: {value}") }
}
