//! All tests, in the order in which a fault is cheapest to find: what reads the source, what runs on the host, fuzz targets,
//! what runs in QEMU. Each check of the source counts as one test, and so does each fuzz target.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use regex::Regex;

use crate::board::{Board, MACHINES};
use crate::fuzzing;
use crate::say;
use crate::setup::{self, Need};
use crate::workspace::{TARGET, Workspace};

/// The package whose tests start QEMU.
const QEMU_TESTS: &str = "bulkhead-qemu-tests";
/// Packages whose tests run under Miri, too, each taking one CPU for minutes. One has so many that a second CPU takes those of
/// its manifests.
const MIRI_PACKAGES: [(&str, Option<&str>); 3] =
    [("bulkhead-policy", Some("manifest::")), ("bulkhead-properties", None), ("bulkhead-fuzz", None)];

/// Which tests.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Scope {
    /// Formatting, clippy, rustdoc, the house's rules, unit tests and properties, Miri.
    Host,
    /// Fuzz targets, each for a fixed number of executions.
    Fuzz,
    /// Whole systems in QEMU.
    Qemu,
    /// All of them.
    All,
}

/// How many tests passed and failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    /// Those that passed.
    pub passed: u64,
    /// Those that failed, and what could not be run.
    pub failed: u64,
}

/// Runs the tests of `scope`; with a filter only those whose names contain it, and no check of the source. Of the system tests only
/// those on `machines`, and those that need none. Each fuzz target is executed `runs` times.
///
/// # Errors
///
/// Where something is missing that cannot be installed, or the workspace cannot be read.
pub fn run(
    workspace: &Workspace,
    scope: Scope,
    filter: Option<&str>,
    machines: &[Board],
    runs: u64,
) -> Result<Tally> {
    let mut run = Run { workspace, filter, tally: Tally::default(), failures: Vec::new() };
    if scope != Scope::Fuzz {
        setup::ensure(&Need::ALL)?;
    }
    if matches!(scope, Scope::Host | Scope::All) {
        if filter.is_none() {
            setup::ensure(&Need::SOURCE)?;
            run.check_source()?;
        }
        run.host_tests()?;
        run.miri()?;
    }
    if matches!(scope, Scope::Fuzz | Scope::All) {
        run.fuzz(runs);
    }
    if matches!(scope, Scope::Qemu | Scope::All) {
        let mut qemu = run.cargo_test(&[QEMU_TESTS]);
        for other in MACHINES.iter().filter(|machine| !machines.contains(machine)) {
            qemu.args(["--skip", &format!("@{}", other.label)]);
        }
        run.suites(vec![("whole systems in QEMU".to_owned(), qemu)])?;
    }
    for failure in &run.failures {
        say::error(format_args!("failed: {failure}"));
    }
    Ok(run.tally)
}

struct Run<'a> {
    workspace: &'a Workspace,
    filter: Option<&'a str>,
    tally: Tally,
    failures: Vec<String>,
}

impl Run<'_> {
    fn check_source(&mut self) -> Result<()> {
        let bare: Vec<_> = self.workspace.bare_packages().iter().map(|p| p.name.to_string()).collect();
        let bare_selection: Vec<_> = bare.iter().flat_map(|name| ["--package", name]).collect();
        let bare_target = ["--target", TARGET];

        let mut format = self.workspace.cargo();
        format.args(["fmt", "--all", "--check"]);
        self.check("formatting", format)?;
        let mut clippy = self.workspace.cargo();
        clippy.args(["clippy", "--all-targets", "--", "-D", "warnings"]);
        self.check("clippy, host", clippy)?;
        let mut clippy = self.workspace.cargo();
        clippy.args(["clippy", "--release"]).args(bare_target).args(&bare_selection);
        clippy.args(["--", "-D", "warnings"]);
        self.check("clippy, machine", clippy)?;
        for (what, selection) in
            [("rustdoc, host", vec![]), ("rustdoc, machine", [&bare_target[..], &bare_selection].concat())]
        {
            let mut doc = self.workspace.cargo();
            doc.args(["doc", "--no-deps"]).args(selection).env("RUSTDOCFLAGS", "-D warnings");
            self.check(what, doc)?;
        }
        Ok(())
    }

    fn host_tests(&mut self) -> Result<()> {
        let packages = self.workspace.host_packages();
        let names: Vec<_> = packages.iter().map(|package| package.name.as_str()).collect();
        let names: Vec<_> = names.into_iter().filter(|&name| name != QEMU_TESTS).collect();
        let test = self.cargo_test(&names);
        self.suites(vec![("host tests".to_owned(), test)])
    }

    fn miri(&mut self) -> Result<()> {
        let nightly = match setup::ensure_miri() {
            Ok(nightly) => nightly,
            Err(error) => {
                self.fail(format!("Miri: {error}"));
                return Ok(());
            }
        };
        let suite = |package: &str, tests: &[&str]| {
            let mut miri = Command::new("rustup");
            miri.current_dir(self.workspace.root());
            miri.args(["run", nightly, "cargo", "miri", "test", "--package", package, "--"]).args(tests);
            // Property tests look for earlier counterexamples in files, and fixtures live as long as the program.
            miri.env("MIRIFLAGS", "-Zmiri-disable-isolation -Zmiri-ignore-leaks");
            (format!("Miri, {}", [&[package], tests].concat().join(" ")), miri)
        };
        let suites = MIRI_PACKAGES.iter().flat_map(|&(package, apart)| match (self.filter, apart) {
            (Some(filter), _) => vec![suite(package, &[filter])],
            (None, Some(apart)) => vec![suite(package, &["--skip", apart]), suite(package, &[apart])],
            (None, None) => vec![suite(package, &[])],
        });
        self.suites(suites.collect())
    }

    fn fuzz(&mut self, runs: u64) {
        match fuzzing::run(self.workspace, self.filter, runs) {
            Ok(targets) => {
                for target in targets {
                    match target.failure {
                        None => self.tally.passed += 1,
                        Some(failure) => self.fail(format!("fuzz target {}: {failure}", target.name)),
                    }
                }
            }
            Err(error) => self.fail(format!("fuzz targets: {error:#}")),
        }
    }

    fn cargo_test(&self, packages: &[&str]) -> Command {
        let mut cargo = self.workspace.cargo();
        cargo.args(["test", "--no-fail-fast"]);
        cargo.args(packages.iter().flat_map(|name| ["--package", name]));
        cargo.arg("--").args(self.filter);
        cargo
    }

    /// Runs one check that passes or fails as a whole.
    fn check(&mut self, what: &str, mut command: Command) -> Result<()> {
        say::step("Checking", what);
        let started = Instant::now();
        // Standard output is for the verdict.
        let status = command.stdout(std::io::stderr()).status().with_context(|| cannot_run(&command))?;
        if status.success() {
            self.tally.passed += 1;
            say::step("Passed", format_args!("{what} in {} s", started.elapsed().as_secs()));
        } else {
            self.fail(what.to_owned());
        }
        Ok(())
    }

    /// Runs test programs beside each other and counts what they say.
    fn suites(&mut self, suites: Vec<(String, Command)>) -> Result<()> {
        let started = Instant::now();
        for (what, _) in &suites {
            say::step("Testing", what);
        }
        let running = suites.into_iter().map(|(what, command)| (what, thread::spawn(|| count(command))));
        for (what, thread) in running.collect::<Vec<_>>() {
            let (status, tally) = thread.join().map_err(|_| anyhow!("a thread has gone"))??;
            self.tally.passed += tally.passed;
            self.tally.failed += tally.failed;
            if status.success() && tally.failed == 0 {
                let seconds = started.elapsed().as_secs();
                say::step("Passed", format_args!("{what}: {} in {seconds} s", tally.passed));
            } else if tally.failed == 0 {
                self.fail(format!("{what}: it does not build or ended early ({status})"));
            } else {
                self.failures.push(format!("{what}: {} of {}", tally.failed, tally.passed + tally.failed));
            }
        }
        Ok(())
    }

    fn fail(&mut self, what: String) {
        self.tally.failed += 1;
        self.failures.push(what);
    }
}

/// Runs a test program, shows what it prints and counts its sums.
fn count(mut command: Command) -> Result<(ExitStatus, Tally)> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| cannot_run(&command))?;
    let output = child.stdout.take().context("a test has no output")?;
    let sum = Regex::new(r"^test result: .*?(\d+) passed; (\d+) failed;")?;
    let mut tally = Tally::default();
    for line in BufReader::new(output).lines() {
        let line = line.context("a test's output breaks off")?;
        if let Some(found) = sum.captures(&line) {
            tally.passed += found[1].parse::<u64>()?;
            tally.failed += found[2].parse::<u64>()?;
        }
        writeln!(std::io::stderr(), "{line}")?;
    }
    Ok((child.wait().context("a test cannot be waited for")?, tally))
}

fn cannot_run(command: &Command) -> String {
    format!("cannot run {}", command.get_program().display())
}
