//! What the tool needs on the host, found or installed.
//!
//! On Debian, as root, missing programs are installed from the archive that the host uses already; anyone
//! else is shown the commands. Debian 12 has a QEMU that is too old, so its backports are added as a source
//! of their own, in a file that can be removed again.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use anyhow::{Context, Result, bail, ensure};

use crate::board::QEMU;
use crate::say;
use crate::workspace::TARGET;

/// The oldest QEMU whose `virt` is known to be complete enough.
const QEMU_MAJOR: u32 = 9;
/// The tool's own source of packages.
const BACKPORTS_FILE: &str = "/etc/apt/sources.list.d/bulkhead-backports.sources";
/// The toolchain that has Miri.
const NIGHTLY: &str = "nightly";

/// Something that has to be on the host.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Need {
    /// Rust's core library for the machine.
    Target,
    /// cargo's clippy, for the tests.
    Clippy,
    /// cargo's formatter, for the tests.
    Rustfmt,
    /// QEMU for 64-bit Arm, version 9 or later.
    Qemu,
    /// The C compiler for FreeRTOS.
    CrossCompiler,
    /// A C++ compiler for this host, for libFuzzer.
    CxxCompiler,
    /// The device-tree compiler.
    Dtc,
    /// apt and dpkg-deb, to fetch the Linux partition's kernel.
    Apt,
}

impl Need {
    /// All that checking the source takes.
    pub const SOURCE: [Self; 3] = [Self::Target, Self::Clippy, Self::Rustfmt];

    /// All of them.
    pub const EVERY: [Self; 8] = [
        Self::Target,
        Self::Clippy,
        Self::Rustfmt,
        Self::Qemu,
        Self::CrossCompiler,
        Self::CxxCompiler,
        Self::Dtc,
        Self::Apt,
    ];

    /// All that building and starting any system takes.
    pub const ALL: [Self; 5] = [Self::Target, Self::Qemu, Self::CrossCompiler, Self::Dtc, Self::Apt];

    /// What is wrong; `None` where it is there.
    fn lack(self) -> Option<String> {
        self.find().err()
    }

    /// What there is.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn find(self) -> Result<String, String> {
        let program = |name: &str| version(name).ok_or_else(|| format!("{name} is missing"));
        match self {
            Self::Target if has_target() => Ok(TARGET.to_owned()),
            Self::Target => Err(format!("Rust's target {TARGET} is missing")),
            Self::Clippy => program("cargo-clippy"),
            Self::Rustfmt => program("cargo-fmt"),
            Self::Qemu => match qemu_version() {
                None => Err(format!("{QEMU} is missing")),
                Some((major, text)) if major < QEMU_MAJOR => {
                    Err(format!("{QEMU} {text} is older than {QEMU_MAJOR}"))
                }
                Some((_, text)) => Ok(format!("{QEMU} {text}")),
            },
            Self::CrossCompiler => program("aarch64-linux-gnu-gcc"),
            Self::CxxCompiler => program("c++"),
            Self::Dtc => program("dtc"),
            Self::Apt => program("dpkg-deb").and_then(|_| program("apt-get")),
        }
    }

    /// What it is for.
    #[must_use]
    pub const fn purpose(self) -> &'static str {
        match self {
            Self::Target => "builds the hypervisor and the bare guests",
            Self::Clippy | Self::Rustfmt => "checks the source in the tests",
            Self::Qemu => "makes device trees and starts systems",
            Self::CrossCompiler => "builds FreeRTOS",
            Self::CxxCompiler => "builds libFuzzer for the tests",
            Self::Dtc => "compiles manifests",
            Self::Apt => "fetches Debian's kernel and busybox",
        }
    }

    /// What somebody does who lacks it.
    #[must_use]
    pub fn mend(self) -> String {
        match self {
            Self::Target => format!("rustup target add {TARGET}"),
            Self::Clippy => "rustup component add clippy".to_owned(),
            Self::Rustfmt => "rustup component add rustfmt".to_owned(),
            Self::Apt => "use Debian 12 or 13".to_owned(),
            Self::Qemu | Self::CrossCompiler | Self::CxxCompiler | Self::Dtc => {
                match Installation::new(&[self]) {
                    Ok(installation) => installation.to_string(),
                    Err(error) => error.to_string(),
                }
            }
        }
    }

    /// The Debian package that has it.
    const fn package(self) -> Option<&'static str> {
        match self {
            Self::Target | Self::Clippy | Self::Rustfmt | Self::Apt => None,
            Self::Qemu => Some("qemu-system-arm"),
            Self::CrossCompiler => Some("gcc-aarch64-linux-gnu"),
            Self::CxxCompiler => Some("g++"),
            Self::Dtc => Some("device-tree-compiler"),
        }
    }
}

/// Makes sure that all `needs` are on the host, installing what is missing where that is allowed.
///
/// # Errors
///
/// Where something is missing and cannot be installed; the message has the command that does it.
pub fn ensure(needs: &[Need]) -> Result<()> {
    // Each asks a program for its version, so they are asked at once.
    let missing: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = needs.iter().map(|need| (*need, scope.spawn(|| need.lack()))).collect();
        let lacks = asked.into_iter().filter_map(|(need, lack)| Some((need, lack.join().ok()??)));
        lacks.collect()
    });
    if missing.is_empty() {
        return Ok(());
    }
    for (_, lack) in &missing {
        say::note(lack);
    }
    let missing: Vec<_> = missing.into_iter().map(|(need, _)| need).collect();
    ensure!(
        !missing.contains(&Need::Apt),
        "fetching the Debian kernel takes apt-get and dpkg-deb; run this on a Debian 12 or 13"
    );
    for need in &missing {
        match need {
            Need::Target => rustup(&["target", "add", TARGET])?,
            Need::Clippy => rustup(&["component", "add", "clippy"])?,
            Need::Rustfmt => rustup(&["component", "add", "rustfmt"])?,
            _ => {}
        }
    }
    let packages: Vec<_> = missing.iter().copied().filter(|need| need.package().is_some()).collect();
    if !packages.is_empty() {
        install(&Installation::new(&packages)?)?;
    }
    for need in missing {
        if let Some(lack) = need.lack() {
            bail!("{lack}, even after the installation; install it by hand");
        }
    }
    Ok(())
}

/// How Miri is installed, by rustup.
const MIRI: [&str; 9] = [
    "toolchain",
    "install",
    NIGHTLY,
    "--profile",
    "minimal",
    "--component",
    "miri",
    "--component",
    "rust-src",
];

/// What `rustup run nightly cargo miri` is; `None` where it does not run.
#[must_use]
pub fn miri() -> Option<String> {
    first_line(Command::new("rustup").args(["run", NIGHTLY, "cargo", "miri", "--version"]))
}

/// What somebody does who lacks Miri.
#[must_use]
pub fn miri_mend() -> String {
    format!("rustup {}", MIRI.join(" "))
}

/// Makes sure that Miri can be run with `rustup run nightly cargo miri`.
///
/// # Errors
///
/// Where it is missing and rustup cannot install it.
pub fn ensure_miri() -> Result<&'static str> {
    if miri().is_none() {
        say::note("Miri is missing");
        rustup(&MIRI)?;
    }
    ensure!(miri().is_some(), "Miri does not run; run: rustup +nightly component add miri rust-src");
    Ok(NIGHTLY)
}

fn rustup(arguments: &[&str]) -> Result<()> {
    let shown = format!("rustup {}", arguments.join(" "));
    say::step("Installing", &shown);
    let status = Command::new("rustup").args(arguments).status();
    let status = status.context("rustup is missing; install it from https://rustup.rs")?;
    ensure!(status.success(), "`{shown}` failed; is the network up?");
    Ok(())
}

/// The first line that a program prints, if it succeeds.
fn first_line(command: &mut Command) -> Option<String> {
    let output = command.stdin(Stdio::null()).output().ok().filter(|output| output.status.success())?;
    Some(String::from_utf8_lossy(&output.stdout).lines().next().unwrap_or_default().trim().to_owned())
}

/// What a program says that it is.
#[must_use]
pub fn version(program: &str) -> Option<String> {
    let line = first_line(Command::new(program).arg("--version"))?;
    Some(line.strip_prefix("Version: ").unwrap_or(&line).to_owned())
}

fn has_target() -> bool {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output();
    sysroot.is_ok_and(|output| {
        let sysroot = String::from_utf8_lossy(&output.stdout);
        Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET).join("lib").exists()
    })
}

/// QEMU's major version and the whole of it.
fn qemu_version() -> Option<(u32, String)> {
    let output = Command::new(QEMU).arg("--version").output().ok()?;
    parse_qemu_version(&String::from_utf8_lossy(&output.stdout))
}

fn parse_qemu_version(text: &str) -> Option<(u32, String)> {
    let version = text.strip_prefix("QEMU emulator version ")?.split_whitespace().next()?;
    Some((version.split('.').next()?.parse().ok()?, version.to_owned()))
}

/// A source of Debian packages to be added.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Backports {
    uri: String,
    suite: String,
    signed_by: Option<String>,
}

impl fmt::Display for Backports {
    /// The source in apt's format (sources.list(5), "deb822-style").
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Types: deb\nURIs: {}\nSuites: {}\nComponents: main", self.uri, self.suite)?;
        self.signed_by.iter().try_for_each(|keyring| writeln!(f, "Signed-By: {keyring}"))
    }
}

/// Packages to be installed, and from where.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct Installation {
    /// A source to be added first.
    source: Option<Backports>,
    /// Packages of the host's own suite.
    packages: Vec<&'static str>,
    /// Suite of the backports and what to take from it.
    backports: Option<(String, Vec<&'static str>)>,
}

impl Installation {
    fn new(needs: &[Need]) -> Result<Self> {
        ensure!(
            version("apt-get").is_some(),
            "this is no Debian; install QEMU {QEMU_MAJOR} or later for aarch64, aarch64-linux-gnu-gcc and dtc by hand"
        );
        let codename = codename().unwrap_or_default();
        let mut this = Self::default();
        for need in needs {
            let Some(package) = need.package() else { continue };
            // QEMU 7.2 is Debian 12's own.
            if *need == Need::Qemu && codename == "bookworm" {
                let suite = format!("{codename}-backports");
                let targets = index_targets();
                if !targets.iter().any(|target| target.suite == suite) {
                    let source = backports(&targets, &codename, &suite).with_context(|| {
                        format!("apt has no source of Debian's {codename}, so {suite} cannot be found; add {suite} to its sources")
                    })?;
                    this.source = Some(source);
                }
                this.backports = Some((suite, vec![package]));
            } else {
                this.packages.push(package);
            }
        }
        Ok(this)
    }

    /// The arguments of each call of apt-get.
    fn calls(&self) -> Vec<Vec<&str>> {
        let install = ["install", "--yes", "--no-install-recommends"];
        let mut calls = vec![vec!["update"]];
        if !self.packages.is_empty() {
            calls.push([&install[..], &self.packages].concat());
        }
        if let Some((suite, packages)) = &self.backports {
            calls.push([&install[..], &["--target-release", suite], packages].concat());
        }
        calls
    }
}

impl fmt::Display for Installation {
    /// Shell commands for someone who is not root.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(source) = &self.source {
            let text = source.to_string().replace('\n', "\\n");
            writeln!(f, "  printf '{text}' | sudo tee {BACKPORTS_FILE}")?;
        }
        self.calls().iter().try_for_each(|call| writeln!(f, "  sudo apt-get {}", call.join(" ")))
    }
}

fn install(installation: &Installation) -> Result<()> {
    let is_root = fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    ensure!(is_root, "not root, so nothing is installed; run this and then try again:\n{installation}");
    if let Some(source) = &installation.source {
        say::step("Adding", format_args!("{} of {} in {BACKPORTS_FILE}", source.suite, source.uri));
        fs::write(BACKPORTS_FILE, source.to_string())
            .with_context(|| format!("cannot write {BACKPORTS_FILE}"))?;
    }
    for call in installation.calls() {
        say::step("Running", format_args!("apt-get {}", call.join(" ")));
        let status = Command::new("apt-get")
            .args(["-q", "-o", "DPkg::Lock::Timeout=300"])
            .args(&call)
            .env("DEBIAN_FRONTEND", "noninteractive")
            .stdin(Stdio::null())
            // Standard output is for what the tool was asked for.
            .stdout(std::io::stderr())
            .status()
            .context("cannot run apt-get")?;
        ensure!(
            status.success(),
            "apt-get failed; its messages above say why. By hand it would be:\n{installation}"
        );
    }
    Ok(())
}

/// Name of the host's Debian release.
fn codename() -> Option<String> {
    let release = fs::read_to_string("/etc/os-release").ok()?;
    let name = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(name.trim_matches('"').to_owned())
}

/// One suite of a source that the host's apt has.
#[derive(Clone, PartialEq, Eq, Debug)]
struct IndexTarget {
    suite: String,
    uri: String,
    /// File and number of the line or stanza.
    entry: String,
}

/// What the host's apt has for sources, whether their lists have been downloaded or not.
fn index_targets() -> Vec<IndexTarget> {
    let output = Command::new("apt-get")
        .args(["indextargets", "--no-release-info", "--format"])
        .args(["$(COMPONENT)|$(RELEASE)|$(REPO_URI)|$(SOURCESENTRY)", "Created-By: Packages"])
        .output();
    output.map_or_else(|_| Vec::new(), |output| parse_index_targets(&String::from_utf8_lossy(&output.stdout)))
}

fn parse_index_targets(text: &str) -> Vec<IndexTarget> {
    text.lines()
        .filter_map(|line| match line.split('|').collect::<Vec<_>>()[..] {
            ["main", suite, uri, entry] => {
                Some(IndexTarget { suite: suite.into(), uri: uri.into(), entry: entry.into() })
            }
            _ => None,
        })
        .collect()
}

/// The backports from where the host has its own release, under the same key; `None` where its sources name no such place.
fn backports(targets: &[IndexTarget], codename: &str, suite: &str) -> Option<Backports> {
    let own = targets.iter().find(|target| target.suite == codename)?;
    let signed_by = own.entry.rsplit_once(':').and_then(|(path, number)| {
        keyring(&fs::read_to_string(path).ok()?, path.ends_with(".sources"), number.parse().ok()?)
    });
    Some(Backports { uri: own.uri.clone(), suite: suite.to_owned(), signed_by })
}

/// The keyring of entry `number`, counted from 1: of a stanza or of a line.
fn keyring(source: &str, stanzas: bool, number: usize) -> Option<String> {
    let index = number.checked_sub(1)?;
    if stanzas {
        // Comments do not make an empty line full.
        let lines = source.lines().filter(|line| !line.starts_with('#'));
        let text = lines.collect::<Vec<_>>().join("\n");
        let stanza = text.split("\n\n").filter(|stanza| !stanza.trim().is_empty()).nth(index)?;
        let value = stanza.lines().find_map(|line| line.strip_prefix("Signed-By:"))?.trim();
        return value.starts_with('/').then(|| value.to_owned());
    }
    let (_, options) = source.lines().nth(index)?.split_once('[')?;
    let (options, _) = options.split_once(']')?;
    options.split_whitespace().find_map(|option| option.strip_prefix("signed-by=")).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_qemu() {
        let text = "QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2+deb13u1~bpo12+1)\nCopyright";
        assert_eq!(parse_qemu_version(text), Some((10, "10.0.2".to_owned())));
        assert_eq!(parse_qemu_version("QEMU emulator version 7.2.17").map(|v| v.0), Some(7));
        assert_eq!(parse_qemu_version("bash: no such program"), None);
    }

    #[test]
    fn backports_come_from_the_hosts_mirror() {
        let targets = parse_index_targets(
            "main|bookworm-updates|http://mirror.example/debian/|/nowhere/debian.sources:1\n\
             contrib|bookworm|http://mirror.example/other/|/nowhere/debian.sources:1\n\
             main|bookworm|http://mirror.example/debian/|/nowhere/debian.sources:1\n",
        );
        let found =
            backports(&targets, "bookworm", "bookworm-backports").expect("the host has its own release");
        let expected = "Types: deb\nURIs: http://mirror.example/debian/\n\
                        Suites: bookworm-backports\nComponents: main\n";
        assert_eq!(found.to_string(), expected);
        assert_eq!(backports(&[], "bookworm", "bookworm-backports"), None);
    }

    #[test]
    fn keyrings_are_found() {
        let stanzas = "# a comment\nTypes: deb\nSuites: a\n\n\nTypes: deb\n# http\nSigned-By: /k.gpg\n";
        assert_eq!(keyring(stanzas, true, 1), None);
        assert_eq!(keyring(stanzas, true, 2).as_deref(), Some("/k.gpg"));
        let lines = "# comment\ndeb [arch=amd64 signed-by=/l.gpg] http://mirror.example a main\n";
        assert_eq!(keyring(lines, false, 2).as_deref(), Some("/l.gpg"));
        assert_eq!(keyring("deb http://mirror.example a main", false, 1), None);
    }

    #[test]
    fn the_commands_can_be_pasted() {
        let installation = Installation {
            source: Some(Backports {
                uri: "http://mirror.example/".to_owned(),
                suite: "bookworm-backports".to_owned(),
                signed_by: None,
            }),
            packages: vec!["device-tree-compiler"],
            backports: Some(("bookworm-backports".to_owned(), vec!["qemu-system-arm"])),
        };
        let expected = "  printf 'Types: deb\\nURIs: http://mirror.example/\\nSuites: bookworm-backports\\n\
            Components: main\\n' | sudo tee /etc/apt/sources.list.d/bulkhead-backports.sources\n\
            \x20 sudo apt-get update\n\
            \x20 sudo apt-get install --yes --no-install-recommends device-tree-compiler\n\
            \x20 sudo apt-get install --yes --no-install-recommends --target-release bookworm-backports \
            qemu-system-arm\n";
        assert_eq!(installation.to_string(), expected);
    }
}
