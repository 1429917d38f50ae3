//! What the hypervisor costs, counted, and held against what it cost before.
//!
//! The figures are exact, so any that grew is a finding. The record lies in the repository: a change that
//! makes one grow has to say so by recording it.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result, anyhow, ensure};
use bulkhead_hil::Target;
use regex::Regex;
use serde::{Deserialize, Serialize};

use crate::board::BENCH;
use crate::system::{self, Recipe};
use crate::workspace::{Noise, Workspace};
use crate::{output, trusted};

/// Where the manifest of the benchmark is.
const MANIFEST: &str = "partitions/systems/bench.dts";
/// Where the record is.
const BASELINE: &str = "partitions/bench/baseline.toml";
/// What the record begins with.
const HEADER: &str = "\
# What Bulkhead costs: EL2 instructions of one operation, counted in QEMU with -icount shift=0, and sizes.
# `cargo bulkhead bench` fails where a figure has grown; `cargo bulkhead bench --record` rewrites this file.
# A goal is what measures well, not what is demanded; it is edited by hand.
";
/// The partition that measures.
const PARTITION: &str = "bench";
/// Counting instructions one by one is slow.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Figures of one operation over many runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// The least.
    pub min: i64,
    /// The average, rounded down.
    pub avg: i64,
    /// The most.
    pub max: i64,
    /// The first time.
    pub first: i64,
}

/// All figures, in the order of their names.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// What would be good, by the name of the operation or size.
    #[serde(default)]
    pub goal: BTreeMap<String, i64>,
    /// Sizes.
    #[serde(default)]
    pub size: BTreeMap<String, i64>,
    /// Instructions.
    #[serde(default)]
    pub instructions: BTreeMap<String, Figures>,
}

/// Measures everything.
///
/// # Errors
///
/// Where the system does not build or does not finish its measurements.
pub fn measure(workspace: &Workspace, noise: Noise) -> Result<Record> {
    let recipe = Recipe::new(workspace.root().join(MANIFEST), BENCH);
    let built = system::build(workspace, &recipe, &workspace.output().join(recipe.name()), noise)?;
    let size = BTreeMap::from([
        ("text and rodata, bytes".to_owned(), built.sizes.text_and_rodata.cast_signed()),
        ("trusted lines of code".to_owned(), trusted::lines_of_code(workspace)?.cast_signed()),
    ]);
    let mut target = Target::start(built.command()?).context("cannot start QEMU")?;
    let bench = target.partition(PARTITION, TIMEOUT)?;
    target.expect(bench, r"^DONE \d+ passed, 0 failed\n", TIMEOUT)?;
    let instructions = parse(&target.text(bench));
    ensure!(!instructions.is_empty(), "the benchmark printed no figures");
    Ok(Record { goal: BTreeMap::new(), size, instructions })
}

fn parse(text: &str) -> BTreeMap<String, Figures> {
    let Ok(line) = Regex::new(r"(?m)^BENCH (\S+) min=(-?\d+) avg=(-?\d+) max=(-?\d+) first=(-?\d+)$") else {
        return BTreeMap::new();
    };
    line.captures_iter(text)
        .filter_map(|found| {
            let number = |group: usize| found[group].parse().ok();
            let figures = Figures { min: number(2)?, avg: number(3)?, max: number(4)?, first: number(5)? };
            Some((found[1].to_owned(), figures))
        })
        .collect()
}

fn baseline(workspace: &Workspace) -> PathBuf {
    workspace.root().join(BASELINE)
}

/// Reads the record; an empty one where there is none yet.
///
/// # Errors
///
/// Where it cannot be read.
pub fn recorded(workspace: &Workspace) -> Result<Record> {
    let path = baseline(workspace);
    if !path.exists() {
        return Ok(Record::default());
    }
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {BASELINE}"))?;
    toml::from_str(&text).with_context(|| format!("{BASELINE} is damaged; take it from the repository again"))
}

/// Writes new figures into the record; its goals stay.
///
/// # Errors
///
/// Where it cannot be written.
pub fn record(workspace: &Workspace, old: &Record, new: &Record) -> Result<()> {
    let record = Record { goal: old.goal.clone(), ..new.clone() };
    let text = toml::to_string(&record).map_err(|error| anyhow!("cannot write figures: {error}"))?;
    output::write_atomically(&baseline(workspace), format!("{HEADER}\n{text}").as_bytes())
}

/// New figures beside the recorded ones.
pub struct Comparison<'a> {
    old: &'a Record,
    new: &'a Record,
}

impl<'a> Comparison<'a> {
    /// Compares two records.
    #[must_use]
    pub fn new(old: &'a Record, new: &'a Record) -> Self {
        Self { old, new }
    }

    /// What grew, or has gone.
    #[must_use]
    pub fn findings(&self) -> Vec<String> {
        let mut findings = Vec::new();
        for (name, &old) in &self.old.size {
            match self.new.size.get(name) {
                Some(&new) if new > old => findings.push(format!("{name} grew from {old} to {new}")),
                Some(_) => {}
                None => findings.push(format!("{name} is measured no more")),
            }
        }
        for (name, old) in &self.old.instructions {
            let Some(new) = self.new.instructions.get(name) else {
                findings.push(format!("{name} is measured no more"));
                continue;
            };
            for (what, old, new) in [
                ("minimum", old.min, new.min),
                ("average", old.avg, new.avg),
                ("maximum", old.max, new.max),
                ("first", old.first, new.first),
            ] {
                if new > old {
                    findings.push(format!("{name}: the {what} grew from {old} to {new}"));
                }
            }
        }
        findings
    }

    fn goal(&self, name: &str, value: i64) -> String {
        self.old
            .goal
            .get(name)
            .map_or_else(String::new, |goal| format!("{goal}{}", if value <= *goal { " met" } else { "" }))
    }
}

/// A figure beside the old one where that is another.
fn beside(new: i64, old: Option<i64>) -> String {
    const GREW: Style = AnsiColor::Red.on_default().bold();
    const SHRANK: Style = AnsiColor::Green.on_default();
    match old {
        Some(old) if new > old => format!("{GREW}{:>18}{GREW:#}", format!("{old} -> {new}")),
        Some(old) if new < old => format!("{SHRANK}{:>18}{SHRANK:#}", format!("{old} -> {new}")),
        _ => format!("{new:>18}"),
    }
}

impl fmt::Display for Comparison<'_> {
    /// The table; where a figure is another than the recorded one, both stand there.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = String::new();
        let head = ["minimum", "average", "maximum", "first"].map(|head| format!("{head:>18}")).concat();
        writeln!(table, "{:<26}{head}   goal", "instructions")?;
        for (name, new) in &self.new.instructions {
            let old = self.old.instructions.get(name);
            let cells = [
                beside(new.min, old.map(|old| old.min)),
                beside(new.avg, old.map(|old| old.avg)),
                beside(new.max, old.map(|old| old.max)),
                beside(new.first, old.map(|old| old.first)),
            ];
            writeln!(table, "{name:<26}{}   {}", cells.concat(), self.goal(name, new.avg))?;
        }
        writeln!(table)?;
        for (name, &new) in &self.new.size {
            let old = self.old.size.get(name).copied();
            writeln!(table, "{name:<26}{}   {}", beside(new, old), self.goal(name, new))?;
        }
        f.write_str(&table)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(avg: i64) -> Record {
        let instructions = parse(&format!("BENCH hvc min=8 avg={avg} max=40 first=41\nBENCH broken min=\n"));
        Record { instructions, ..Record::default() }
    }

    #[test]
    fn lines_are_read() {
        let figures = Figures { min: 8, avg: 9, max: 40, first: 41 };
        assert_eq!(record(9).instructions, BTreeMap::from([("hvc".to_owned(), figures)]));
    }

    #[test]
    fn growth_is_found() {
        assert!(Comparison::new(&record(9), &record(9)).findings().is_empty());
        assert!(Comparison::new(&record(9), &record(8)).findings().is_empty());
        assert_eq!(
            Comparison::new(&record(9), &record(10)).findings(),
            ["hvc: the average grew from 9 to 10"]
        );
        let gone = Comparison::new(&record(9), &Record::default()).findings();
        assert_eq!(gone, ["hvc is measured no more"]);
    }

    #[test]
    fn goals_stand_beside_the_figures() {
        let mut old = record(10);
        old.goal.insert("hvc".to_owned(), 9);
        let (new, unmet) = (record(9), record(10));
        assert!(Comparison::new(&old, &new).to_string().contains("10 -> 9"));
        assert!(Comparison::new(&old, &new).to_string().contains("9 met"));
        assert!(!Comparison::new(&old, &unmet).to_string().contains("met"));
    }

    #[test]
    fn a_record_comes_back() {
        let mut old = record(9);
        old.size.insert("trusted lines of code".to_owned(), 5000);
        assert_eq!(toml::from_str::<Record>(&toml::to_string(&old).unwrap()).unwrap(), old);
    }
}
