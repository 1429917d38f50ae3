//! The manifest's reference, `hyp/docs/manifest.md`, made of what the checks themselves use.
//!
//! What a property is for is prose, in `reference/manifest.md`. Its form, the limits and the rules that can be broken by
//! it come from the policy, so they cannot drift from the checks: a property without prose, a limit that is not
//! stated and a rule that is about nothing fail here.

use std::fmt::Write as _;

use bulkhead_policy::addr::PAGE_SIZE;
use bulkhead_policy::manifest::{self, Key, Rule};
use bulkhead_policy::plan;
use bulkhead_policy::stage2::IPA_BITS;

use crate::explain::{self, Page};

/// The prose. A heading of the third level names properties; `{NAME}` is a limit.
const PROSE: &str = include_str!("reference/manifest.md");
/// Where the page is, below the workspace's root.
pub const PAGE: &str = "hyp/docs/manifest.md";

/// The limits by the names that the prose has for them.
const LIMITS: [(&str, u64, &str); 12] = [
    ("MAX_PARTITIONS", plan::MAX_PARTITIONS as u64, "partitions"),
    ("MAX_NAME", manifest::MAX_NAME as u64, "characters of a partition's name"),
    ("MAX_CPUS", plan::MAX_CPUS as u64, "CPUs of the board"),
    ("MAX_VCPUS", plan::MAX_VCPUS as u64, "CPUs of a partition"),
    ("MAX_VCPUS_V2", manifest::MAX_VCPUS_V2 as u64, "CPUs of a partition on a board with a GICv2"),
    ("MAX_RANGES", manifest::MAX_RANGES as u64, "ranges of a partition's `memory`"),
    ("IPA_BITS", IPA_BITS as u64, "bits of a guest's address"),
    ("PAGE_SIZE", PAGE_SIZE, "bytes of a page, the unit of memory and of devices"),
    ("MAX_LIST", manifest::MAX_LIST as u64, "entries of a list of devices, pins or channels"),
    ("MAX_BOOTARGS", manifest::MAX_BOOTARGS as u64, "bytes of `bootargs`"),
    ("MAX_PAYLOAD_NAME", manifest::MAX_PAYLOAD_NAME as u64, "bytes of a payload's name"),
    ("MAX_FINDINGS", manifest::MAX_FINDINGS as u64, "findings that one check names"),
];

/// What a rule is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Subject {
    /// The nodes and what they may hold.
    Nodes,
    /// The root's `console`.
    RootConsole,
    /// A property of a partition.
    Key(Key),
}

/// What a finding of this rule can be about.
#[must_use]
pub fn subjects(rule: Rule) -> Vec<Subject> {
    let keys = |keys: &[Key]| keys.iter().copied().map(Subject::Key).collect::<Vec<_>>();
    let with = |more: Subject, list: &[Key]| [vec![more], keys(list)].concat();
    let all = |form| Key::ALL.iter().copied().filter(move |key| key.form() == form).collect::<Vec<_>>();
    let devices = [Key::Access, Key::AccessRegisters, Key::GpioPins, Key::DmaChannels];
    let places = [Key::Memory, Key::PhysicalMemory];
    match rule {
        Rule::NotAManifest
        | Rule::UnknownNode
        | Rule::UnknownProperty
        | Rule::NoPartitions
        | Rule::NodeTwice
        | Rule::PropertyTwice
        | Rule::NoPartition
        | Rule::TooManyPartitions
        | Rule::NameTooLong
        | Rule::NodeInPartition => vec![Subject::Nodes],
        Rule::WrongForm => with(Subject::RootConsole, Key::ALL),
        Rule::Missing => keys(&[Key::OsType, Key::Cpus, Key::Memory, Key::Kernel]),
        Rule::UnknownValue => keys(&[Key::OsType, Key::Console]),
        Rule::TooManyEntries => keys(&[all(manifest::Form::Numbers), all(manifest::Form::Names)].concat()),
        Rule::BootargsTooLong => keys(&[Key::Bootargs]),
        Rule::PayloadNameTooLong | Rule::PayloadNameTaken | Rule::PayloadMissing | Rule::PayloadEmpty => {
            keys(&[Key::Kernel, Key::Ramdisk])
        }
        Rule::NoSuchCpu
        | Rule::CpuTwice
        | Rule::CpuOwned
        | Rule::CpuNotStartable
        | Rule::CpuWithoutPsci
        | Rule::TooManyCpus
        | Rule::GicOverGic => keys(&[Key::Cpus]),
        Rule::MemoryNotPairs
        | Rule::MemoryUnaligned
        | Rule::MemoryEmpty
        | Rule::MemoryBeyond
        | Rule::TooManyRanges
        | Rule::NoRoom
        | Rule::TooManyTables
        | Rule::MemoryOverMemory
        | Rule::MemoryOverDevice
        | Rule::MemoryOverGic
        | Rule::MemoryOverConsole
        | Rule::NoRoomForTree => keys(&[Key::Memory]),
        Rule::PhysicalCount | Rule::PhysicalUnaligned | Rule::NotIdentity => keys(&[Key::PhysicalMemory]),
        Rule::PhysicalBeyond
        | Rule::NotRam
        | Rule::OverPartition
        | Rule::OverHypervisor
        | Rule::OverBundle
        | Rule::OverFirmware => keys(&places),
        Rule::ConsoleOverDevice | Rule::ConsoleOverGic => keys(&[Key::Console, Key::ConsoleAddress]),
        Rule::ConsoleInterruptTaken => keys(&[Key::Console, Key::ConsoleInterrupt]),
        Rule::NothingToImitate => keys(&[Key::Console]),
        Rule::ImageBigEndian
        | Rule::ImageTextOffset
        | Rule::ElfCut
        | Rule::ElfClass
        | Rule::ElfMachine
        | Rule::ElfSegmentOutside
        | Rule::ElfSegmentBeyond
        | Rule::ElfSegmentsOverlap
        | Rule::ElfTooManySegments
        | Rule::ElfNothing
        | Rule::ElfEntry
        | Rule::LinuxCompressed
        | Rule::NotLinux => keys(&[Key::Kernel]),
        Rule::KernelDoesNotFit => keys(&[Key::Kernel, Key::LoadAddress]),
        Rule::LoadAddressUnsuitable | Rule::LoadAddressUseless => keys(&[Key::LoadAddress]),
        Rule::EntryOutside | Rule::EntryUnaligned => keys(&[Key::Entry]),
        Rule::NoRoomForRamdisk => keys(&[Key::Ramdisk]),
        Rule::NoSuchPath | Rule::NoSuchAlias => with(Subject::RootConsole, &all(manifest::Form::Names)),
        Rule::DeviceOwned
        | Rule::DeviceTwice
        | Rule::DeviceBelowOwned
        | Rule::DeviceIncluded
        | Rule::DeviceKept
        | Rule::DmaMaster
        | Rule::NoDevice
        | Rule::CpuAsDevice
        | Rule::MemoryAsDevice
        | Rule::EveryonesOwn
        | Rule::Shadow
        | Rule::Disabled
        | Rule::Bus
        | Rule::NoRegisters
        | Rule::Unreachable
        | Rule::RegistersInRam
        | Rule::DeviceOverGic
        | Rule::InterruptUnreadable
        | Rule::OtherController
        | Rule::NoSpi
        | Rule::InterruptShared
        | Rule::InterruptOfHypervisor
        | Rule::NoTrigger
        | Rule::NoSuchSpi
        | Rule::ConsoleGivenAway => keys(&devices),
        Rule::PageOfOther | Rule::PageOfNobody | Rule::PageOfHypervisor => keys(&[Key::Access]),
        Rule::NothingToDivide | Rule::NoSuchUnit | Rule::UnitOwned => {
            keys(&[Key::GpioPins, Key::DmaChannels])
        }
        Rule::SwitchesClocks => keys(&[Key::AccessRegisters]),
        Rule::NotWords | Rule::RegistersOfOther | Rule::RegistersOfNobody | Rule::RegistersOfHypervisor => {
            keys(&devices[1..])
        }
        Rule::PartAndWhole => keys(&devices),
        Rule::NotPollable | Rule::PolledNothing => keys(&[Key::Polled]),
        Rule::UnprotectedNoAccess | Rule::OutOfReach => keys(&[Key::UnprotectedDma]),
        Rule::NoSerialPort | Rule::ConsoleDisabled => vec![Subject::RootConsole],
        Rule::ConsoleUseless => keys(&[Key::ConsoleAddress, Key::ConsoleInterrupt]),
        Rule::ConsoleUnaligned => keys(&[Key::ConsoleAddress]),
        Rule::ConsoleNoSpi => keys(&[Key::ConsoleInterrupt]),
    }
}

/// The page as it has to be.
#[must_use]
pub fn page() -> String {
    let mut text = String::new();
    let mut in_root = false;
    // What the section is about: its rules stand at its end.
    let mut about: Vec<Subject> = Vec::new();
    for line in PROSE.lines() {
        if line.starts_with("## ") {
            in_root = line.contains("the root");
        }
        if line.starts_with("## ") || line.starts_with("### ") {
            if !about.is_empty() {
                let _ = writeln!(text, "{}\n", rules_line(&about));
            }
            about.clear();
        }
        match line {
            "{NODE_RULES}" => text.push_str(&rules_line(&[Subject::Nodes])),
            "{LIMITS}" => text.push_str(&limits()),
            "{RULES}" => text.push_str(&rules()),
            _ => text.push_str(&with_limits(line)),
        }
        text.push('\n');
        if let Some(names) = line.strip_prefix("### ") {
            let named = Key::ALL.iter().filter(|key| names.contains(&format!("`{}`", key.name())));
            about.extend(named.map(|key| if in_root { Subject::RootConsole } else { Subject::Key(*key) }));
            let _ = writeln!(text, "\n{}\n", forms(&about));
        }
    }
    text + "\n" + &targets()
}

/// How the values of these properties are written.
fn forms(subjects: &[Subject]) -> String {
    let form = |subject: &Subject| {
        let key = match subject {
            Subject::Key(key) => *key,
            Subject::RootConsole | Subject::Nodes => Key::Console,
        };
        let needed = if is_about(Rule::Missing, *subject) { "required" } else { "optional" };
        format!("`{}`: {needed}; {}.", key.name(), key.form().words())
    };
    subjects.iter().map(form).collect::<Vec<_>>().join(" ")
}

fn is_about(rule: Rule, subject: Subject) -> bool {
    subjects(rule).contains(&subject)
}

/// The codes of the rules about any of these.
fn rules_line(about: &[Subject]) -> String {
    let rules = Rule::ALL.iter().filter(|rule| about.iter().any(|subject| is_about(**rule, *subject)));
    let links: Vec<_> = rules.map(|rule| format!("[BH{}]", rule.code())).collect();
    format!("Rules: {}", links.join(", "))
}

/// Where the links to the rules' pages lead.
fn targets() -> String {
    let target = |page: &Page| {
        let heading = format!("{}: {}", page.code, page.title).to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
        format!("[{}]: rules.md#{}\n", page.code, kept.collect::<String>().replace(' ', "-"))
    };
    explain::pages().iter().map(target).collect()
}

fn limits() -> String {
    let mut text = "| at most | what |\n|---:|---|\n".to_owned();
    for (_, value, what) in LIMITS {
        let _ = writeln!(text, "| {value} | {what} |");
    }
    text.trim_end().to_owned()
}

fn rules() -> String {
    let mut text = "| code | what is wrong |\n|---|---|\n".to_owned();
    for Page { code, title, .. } in explain::pages() {
        let _ = writeln!(text, "| [{code}] | {title} |");
    }
    text.trim_end().to_owned()
}

/// A line of the prose with the limits' numbers in place of their names.
fn with_limits(line: &str) -> String {
    LIMITS.iter().fold(line.to_owned(), |line, (name, value, _)| {
        line.replace(&format!("{{{name}}}"), &value.to_string())
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{rules, source, warnings};

    #[test]
    fn every_rule_has_its_page_in_order() {
        let of_the_policy: Vec<_> = Rule::ALL.iter().map(|rule| format!("BH{}", rule.code())).collect();
        let pages: Vec<_> = explain::pages().iter().map(|page| page.code.to_owned()).collect();
        assert!(pages.is_sorted(), "hyp/docs/rules.md is not in the order of the codes");
        let is_of_the_desk = |code: &&String| code.starts_with("BH09") || code.starts_with("BH000");
        let (desk, rest): (Vec<_>, Vec<_>) = pages.iter().partition(is_of_the_desk);
        assert_eq!(
            rest,
            of_the_policy.iter().collect::<Vec<_>>(),
            "pages in hyp/docs/rules.md and the policy's rules"
        );
        let known =
            [source::SYNTAX, rules::TREE_TOO_LARGE, source::WARNED].into_iter().chain(warnings::CODES);
        assert_eq!(desk, known.collect::<Vec<_>>(), "pages of what only the tool finds");
    }

    #[test]
    fn every_section_is_a_page() {
        let rules = include_str!("../../docs/rules.md");
        assert_eq!(
            rules.matches("\n## ").count(),
            explain::pages().len(),
            "a section without a mend or a code"
        );
        for page in explain::pages() {
            assert!(!page.reason().starts_with("**"), "{}: no reason is given", page.code);
            assert!(!page.mend.ends_with('.') && !page.mend.is_empty(), "{}: a mend is a phrase", page.code);
        }
    }

    #[test]
    fn every_property_has_prose() {
        let (_, properties) = PROSE.split_once("\n## Properties of a partition\n").expect("a section");
        let headings: Vec<_> = properties.lines().filter_map(|line| line.strip_prefix("### ")).collect();
        let named: Vec<_> = headings.iter().flat_map(|line| line.split('`').skip(1).step_by(2)).collect();
        assert_eq!(named, Key::ALL.iter().map(|key| key.name()).collect::<Vec<_>>());
    }

    #[test]
    fn every_limit_is_stated() {
        assert!(!page().contains("{MAX_"), "a limit that the prose names and LIMITS has not");
        for (name, ..) in LIMITS.iter().filter(|(name, ..)| !["MAX_CPUS", "MAX_PAYLOAD_NAME"].contains(name))
        {
            assert!(PROSE.contains(&format!("{{{name}}}")), "{name}");
        }
    }

    #[test]
    fn the_committed_page_is_up_to_date() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(PAGE);
        let committed = std::fs::read_to_string(path).expect("the page");
        assert!(committed == page(), "run: cargo bulkhead reference > {PAGE}");
    }
}
