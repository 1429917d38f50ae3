//! Runs the fuzz targets for a fixed number of executions.
//!
//! `cargo fuzz` would do no more than set these flags, and building it takes longer than building the targets.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cargo_metadata::Message;

use crate::say;
use crate::setup::{self, Need};
use crate::workspace::Workspace;

/// The package of the targets, and its folder.
const PACKAGE: &str = "bulkhead-fuzz";
const FOLDER: &str = "tests/fuzz";
/// How often each target is run where nothing else is said.
pub const RUNS: u64 = 50_000;
/// What tells libFuzzer which way an execution takes, and what finds accesses beside an object. As `cargo fuzz` has it.
const FLAGS: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Zsanitizer=address -Ccodegen-units=4";
/// Bounds of one target: seconds for an input, MiB for one allocation, MiB for all of the process, of which an empty one takes 50.
const LIMITS: [&str; 3] = ["-timeout=10", "-malloc_limit_mb=32", "-rss_limit_mb=256"];

/// A target that was run.
#[derive(Debug)]
pub struct Ran {
    /// Its name.
    pub name: String,
    /// What went wrong, if anything did.
    pub failure: Option<String>,
}

/// Builds the targets and runs those whose name contains `filter`, as many at a time as there are CPUs.
///
/// # Errors
///
/// Where something is missing that cannot be installed, or the targets do not build.
pub fn run(workspace: &Workspace, filter: Option<&str>, runs: u64) -> Result<Vec<Ran>> {
    let packages = workspace.host_packages();
    let targets =
        packages.iter().filter(|package| package.name == PACKAGE).flat_map(|package| &package.targets);
    let names = targets.filter(|target| target.is_bin()).map(|target| target.name.as_str());
    let names: Vec<_> = names.filter(|name| filter.is_none_or(|filter| name.contains(filter))).collect();
    if names.is_empty() {
        return Ok(Vec::new());
    }
    setup::ensure(&[Need::CxxCompiler])?;
    let nightly = setup::ensure_miri()?;
    say::step("Fuzzing", format_args!("{}; {runs} executions each", names.join(", ")));
    let queue = Mutex::new(build(workspace, nightly, &names)?.into_iter());
    let next = || queue.lock().ok()?.next();
    let worker = || {
        let mut done = Vec::new();
        while let Some((name, program)) = next() {
            let failure =
                run_one(workspace, &name, &program, runs).unwrap_or_else(|error| Some(format!("{error:#}")));
            done.push(Ran { name, failure });
        }
        done
    };
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    Ok(thread::scope(|scope| {
        let workers: Vec<_> = (0..cpus).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().filter_map(|worker| worker.join().ok()).flatten().collect()
    }))
}

/// Name and program of each target.
fn build(workspace: &Workspace, nightly: &str, names: &[&str]) -> Result<Vec<(String, PathBuf)>> {
    let mut cargo = Command::new("rustup");
    cargo.current_dir(workspace.root()).args(["run", nightly, "cargo", "build", "--package", PACKAGE]);
    cargo.args(names.iter().flat_map(|name| ["--bin", name]));
    // With a target of their own the flags are not those of build scripts.
    cargo.args(["--features", "libfuzzer", "--profile", "fuzz", "--target", "host-tuple"]);
    cargo.arg("--message-format=json-render-diagnostics");
    cargo.env("RUSTFLAGS", FLAGS).env_remove("CARGO_ENCODED_RUSTFLAGS").env_remove("RUSTUP_TOOLCHAIN");
    let output = cargo.stderr(Stdio::inherit()).output().context("cannot run rustup")?;
    ensure!(output.status.success(), "the fuzz targets do not build; cargo's messages above say why");
    Ok(Message::parse_stream(&output.stdout[..])
        .filter_map(|message| match message {
            Ok(Message::CompilerArtifact(artifact)) => {
                Some((artifact.target.name, artifact.executable?.into()))
            }
            _ => None,
        })
        .collect())
}

/// Runs one target from its seeds on, the same way each time; what went wrong.
fn run_one(workspace: &Workspace, name: &str, program: &Path, runs: u64) -> Result<Option<String>> {
    let started = Instant::now();
    let folder = workspace.output().join("fuzz").join(name);
    // What an earlier run found would change this one.
    let corpus = folder.join("corpus");
    if corpus.exists() {
        fs::remove_dir_all(&corpus).with_context(|| format!("cannot empty {}", corpus.display()))?;
    }
    fs::create_dir_all(&corpus).with_context(|| format!("cannot make {}", corpus.display()))?;
    let log = folder.join("log");
    let output = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut target = Command::new(program);
    // Weighing inputs by how rare their ways are takes longer than to run them.
    target.arg(format!("-runs={runs}")).args(["-seed=1", "-entropic=0", "-print_final_stats=1"]).args(LIMITS);
    target.arg(format!("-artifact_prefix={}/", folder.display()));
    target.arg(&corpus).args(inputs(workspace, name));
    // What was freed is kept for a while so that its use is found; much of it only slows down.
    target.env("ASAN_OPTIONS", "quarantine_size_mb=4:malloc_context_size=0:detect_leaks=0");
    let status = target.stdout(Stdio::null()).stderr(output).status();
    let status = status.with_context(|| format!("cannot run {}", program.display()))?;
    let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
    let after =
        |key: &str| text.lines().rev().find_map(|line| line.split_once(key).map(|(_, value)| value.trim()));
    if status.success() {
        let (executed, memory) = (after("number_of_executed_units:"), after("peak_rss_mb:"));
        say::step(
            "Passed",
            format_args!(
                "fuzz target {name}: {} executions in {} s, {} MiB",
                executed.unwrap_or("no"),
                started.elapsed().as_secs(),
                memory.unwrap_or("?")
            ),
        );
        return Ok(None);
    }
    let why = text.lines().skip_while(|line| !line.contains("panicked at")).nth(1);
    let why = why.or(after("SUMMARY: ")).unwrap_or("it ended early");
    Ok(Some(match after("Test unit written to ") {
        Some(input) => format!(
            "{why}; copy {input} to {FOLDER}/regressions/{name} and run `cargo test -p {PACKAGE} {name}`"
        ),
        None => format!("{why}; {} has all of it", log.display()),
    }))
}

/// Folders with the inputs that a target starts from.
fn inputs(workspace: &Workspace, name: &str) -> Vec<PathBuf> {
    let folder = workspace.root().join(FOLDER);
    let mut inputs = vec![folder.join("seeds").join(name), folder.join("regressions").join(name)];
    if name == "firmware_tree" {
        inputs.push(workspace.root().join("tests/manifests/boards"));
    }
    inputs.retain(|folder| folder.exists());
    inputs
}
