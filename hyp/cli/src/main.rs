//! The command line of the host tool.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead::board::{self, Board, BoardName, Choice, Origin, RPI4};
use bulkhead::elf::TEXT_LIMIT;
use bulkhead::findings::Findings;
use bulkhead::loader::{self, Outputs};
use bulkhead::new::New;
use bulkhead::render::{self, Format};
use bulkhead::setup::Need;
use bulkhead::system::{self, Recipe};
use bulkhead::testing::{self, Scope, Tally};
use bulkhead::workspace::{HYPERVISOR, Noise, Workspace};
use bulkhead::{
    bench, card, completions, demo, doctor, explain, fuzzing, import, input, new, reference, report, say,
    session, setup, symbolize,
};
use clap::{Args, CommandFactory, Parser, Subcommand};

/// Cuts one 64-bit Arm machine into partitions: builds, checks, runs and measures systems.
#[derive(Parser)]
#[command(name = "cargo bulkhead", bin_name = "cargo bulkhead", version)]
#[command(
    after_help = "Exit codes: 0 all is well, 1 something is wrong with what was looked at, 2 it could not \
    be looked at.\n\nStart here: cargo bulkhead demo"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Linux beside FreeRTOS in QEMU, with all the set-up that it takes
    #[command(after_help = "Examples:\n  cargo bulkhead demo\n  cargo bulkhead demo --board rpi4\n  \
        cargo bulkhead demo --gic 2\n  cargo bulkhead demo --batch --seconds 30\n\n\
        Keys: Ctrl-] moves the input to the next partition, Ctrl-\\ quits.")]
    Demo {
        #[command(flatten)]
        machine: Choice,
        /// Needs no terminal: Linux loads its CPUs and powers off, FreeRTOS goes on; exits by verdict
        #[arg(long)]
        batch: bool,
        /// How long Linux loads its CPUs
        #[arg(long, value_name = "N", default_value_t = 10, requires = "batch")]
        seconds: u64,
    },
    /// Build the hypervisor and a manifest's bundle
    #[command(after_help = "Examples:\n  cargo bulkhead build partitions/systems/demo.dts\n  \
        cargo bulkhead build mine.dts --payloads images --out boot\n  \
        cargo bulkhead build --board rpi4 --sd /media/card\n\n\
        Writes bulkhead.img, for the boot loader to start, and bundle.cpio, for it to pass as the initrd; \
        bulkhead-single.img, both in one file, for a loader that takes no initrd; boot.scr for U-Boot, and boot.cmd, \
        which is the same to read; and run-qemu.sh. The same inputs give the same bytes. With --sd also config.txt, and vendor-files.txt, which lists what the card needs besides; files of these names that \
        are not Bulkhead's stay as they are.")]
    Build {
        #[command(flatten)]
        input: Input,
        /// Where the files go [default: target/bulkhead/MANIFEST's name]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
        /// Write what goes on the boot partition of a Raspberry Pi 4's card
        #[arg(long, value_name = "DIR", conflicts_with = "out")]
        sd: Option<PathBuf>,
        /// Check against this device tree, source or blob, taken from a real board, and not against QEMU's
        #[arg(long, value_name = "FILE")]
        dtb: Option<PathBuf>,
        /// Overwrite files in the card's folder whoever wrote them
        #[arg(long, requires = "sd")]
        force: bool,
    },
    /// Check a manifest as the hypervisor will at boot
    #[command(after_help = "Examples:\n  cargo bulkhead check partitions/systems/demo.dts\n  \
        cargo bulkhead check mine.dts --payloads images\n  \
        cargo bulkhead check mine.dts --board rpi4 --dtb fdt\n\n\
        rpi4 is checked against the tree of QEMU's raspi4b: a board with 1 GiB of RAM and without Ethernet and \
        PCIe. To check for a certain board, copy /sys/firmware/fdt from a Linux on it and name the copy with \
        --dtb.\n\n\
        Each finding has a code; `cargo bulkhead explain CODE` says more.\n\n\
        Exit codes: 0 it is accepted, perhaps with warnings, 1 it is refused, 2 the check could not be made.")]
    Check {
        #[command(flatten)]
        input: Input,
        /// Check against this device tree, source or blob, taken from a real board, and not against QEMU's
        #[arg(long, value_name = "FILE")]
        dtb: Option<PathBuf>,
        /// How findings are written: text on standard error, a document on standard output
        #[arg(long, value_enum, default_value_t = Format::Text)]
        format: Format,
    },
    /// Print a script that completes `cargo bulkhead` in a shell
    #[command(after_help = "Examples:\n  cargo bulkhead completions bash > ~/.bulkhead.bash\n  \
        cargo bulkhead completions zsh > ~/.bulkhead.zsh\n  \
        cargo bulkhead completions fish > ~/.config/fish/conf.d/bulkhead.fish\n\n\
        fish finds its file by itself. For bash add `. ~/.bulkhead.bash` to ~/.bashrc, for zsh `. ~/.bulkhead.zsh` to ~/.zshrc, behind compinit.")]
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: completions::For,
    },
    /// Say what this host lacks and how to get it
    #[command(after_help = "It installs nothing. Exit codes: 0 nothing is lacking, 1 something is.")]
    Doctor,
    /// Write a first manifest for a board, with comments
    #[command(after_help = "Examples:\n  cargo bulkhead new --out mine.dts\n  \
        cargo bulkhead new --board rpi4 --out mine.dts\n  cargo bulkhead new --dtb fdt --out mine.dts\n\n\
        What it says is accepted for that board as it stands: check it, run it, then change it.")]
    New(New),
    /// Say what a finding's code means and how to mend it
    #[command(after_help = "Examples:\n  cargo bulkhead explain BH0103\n  cargo bulkhead explain")]
    Explain {
        /// The code, with or without its letters [default: a list of all]
        code: Option<String>,
    },
    /// Print the reference of the manifest, as it stands in hyp/docs/manifest.md
    #[command(hide = true)]
    Reference,
    /// Make a manifest of what another hypervisor is configured with
    Import {
        #[command(subcommand)]
        format: import::Format,
    },
    /// Show what a system will be: who owns what, memory maps, device trees, free RAM, risks
    #[command(after_help = "Examples:\n  cargo bulkhead report partitions/systems/demo.dts\n  \
        cargo bulkhead report mine.dts --format svg --out memory.svg\n  \
        cargo bulkhead report mine.dts --out report\n  \
        cargo bulkhead report mine.dts --diff old.dts\n  \
        cargo bulkhead report mine.dts --trees\n\n\
        --out without --format names a folder: report.txt, report.json, memory.svg and each partition's device tree go \
        there.\n\n\
        Exit codes: 0 the report was made, with or without differences, 1 a manifest is refused, 2 the report could not \
        be made.")]
    Report {
        #[command(flatten)]
        input: Input,
        /// Report on a machine with this device tree, source or blob, taken from a real board, and not QEMU's
        #[arg(long, value_name = "FILE")]
        dtb: Option<PathBuf>,
        #[command(flatten)]
        options: report::Options,
    },
    /// Build a system and start it in QEMU
    #[command(after_help = "Examples:\n  cargo bulkhead run partitions/systems/demo.dts\n  \
        cargo bulkhead run partitions/systems/pair.dts --batch --timeout 60\n  \
        cargo bulkhead run partitions/systems/pair.dts --board rpi4\n  \
        cargo bulkhead run mine.dts -- -d int -D qemu.log\n\n\
        Keys: Ctrl-] moves the input to the next partition, Ctrl-\\ quits.")]
    Run {
        #[command(flatten)]
        input: Input,
        /// Needs no terminal: waits until the machine is off; exits by the guests' verdicts
        #[arg(long)]
        batch: bool,
        /// Seconds that a batch run may take
        #[arg(long, value_name = "S", default_value_t = 120, requires = "batch")]
        timeout: u64,
        /// More options for QEMU
        #[arg(last = true, value_name = "QEMU ARGS")]
        qemu: Vec<String>,
    },
    /// Run the tests; the last line is "N passed, N failed"
    #[command(after_help = "Examples:\n  cargo bulkhead test\n  cargo bulkhead test host\n  \
        cargo bulkhead test qemu pair\n  cargo bulkhead test qemu --board rpi4\n  \
        cargo bulkhead test qemu --gic 2\n  cargo bulkhead test fuzz --runs 1000000 bundle\n\n\
        A system test's name ends with the machine that it runs on: pair@virt-gicv3, pair@virt-gicv2, pair@rpi4.")]
    Test {
        /// Which tests
        #[arg(value_enum, default_value_t = Scope::All)]
        scope: Scope,
        /// Only tests whose names contain this, and no checks of the source
        filter: Option<String>,
        /// Of the system tests only those on this board, and those that need none
        #[arg(long, value_enum, value_name = "NAME")]
        board: Option<BoardName>,
        /// Of the system tests only those on qemu-virt with this interrupt controller, and those that need none
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=3))]
        gic: Option<u8>,
        /// How often each fuzz target is executed
        #[arg(long, value_name = "N", default_value_t = fuzzing::RUNS)]
        runs: u64,
    },
    /// Count what the hypervisor costs and compare with what is recorded
    #[command(after_help = "Examples:\n  cargo bulkhead bench\n  cargo bulkhead bench --record\n\n\
        Exit codes: 0 nothing grew, 1 something grew, 2 it could not be measured.")]
    Bench {
        /// Write the new figures into partitions/bench/baseline.toml
        #[arg(long)]
        record: bool,
    },
    /// Turn the addresses of an EL2 fault's report into functions, files and lines
    #[command(after_help = "Examples:\n  cargo bulkhead symbolize console.log\n  \
        some-serial-program | cargo bulkhead symbolize\n\n\
        The addresses are those of the hypervisor as the source tree builds it now.")]
    Symbolize {
        /// Console text [default: standard input]
        file: Option<PathBuf>,
        /// The hypervisor's ELF file, if it is not the one that the source tree builds
        #[arg(long, value_name = "FILE")]
        elf: Option<PathBuf>,
    },
}

/// A manifest and what belongs to it.
#[derive(Args)]
struct Input {
    /// The manifest: its source, a .dts file, or a compiled one [default: the demo's]
    manifest: Option<PathBuf>,
    /// A folder with payloads, after the manifest's own; may be given more than once
    #[arg(long, value_name = "DIR")]
    payloads: Vec<PathBuf>,
    #[command(flatten)]
    machine: Choice,
    /// Another number of CPUs than the machine usually has
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    cpus: Option<u32>,
    /// Another amount of RAM than the machine usually has, in MiB
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u32).range(1..))]
    memory: Option<u32>,
}

impl Input {
    fn recipe(self, workspace: &Workspace) -> Result<Recipe> {
        let usual = self.machine.board()?;
        ensure!(
            usual.origin == Origin::Qemu || (self.cpus.is_none() && self.memory.is_none()),
            "{} is as it is built; --cpus and --memory go with --board qemu-virt",
            usual.label
        );
        let cpus = self.cpus.unwrap_or(usual.cpus);
        let memory = self.memory.unwrap_or(usual.memory);
        let board = Board { cpus, memory, ..usual };
        let manifest = self.manifest.unwrap_or_else(|| demo::manifest(workspace));
        input::expect(&manifest, false)?;
        self.payloads.iter().try_for_each(|folder| input::expect(folder, true))?;
        Ok(Recipe { payloads: self.payloads, ..Recipe::new(manifest, board) })
    }
}

/// What a command found.
#[derive(PartialEq, Eq)]
enum Outcome {
    Well,
    Findings,
}

impl From<bool> for Outcome {
    fn from(well: bool) -> Self {
        if well { Self::Well } else { Self::Findings }
    }
}

fn main() -> ExitCode {
    say::expect_closed_outputs();
    match run(Cli::parse().command) {
        Ok(Outcome::Well) => ExitCode::SUCCESS,
        Ok(Outcome::Findings) => ExitCode::from(1),
        Err(error) => match error.downcast_ref::<Findings>() {
            Some(findings) => {
                render::show(findings);
                ExitCode::from(1)
            }
            None => {
                say::error(format_args!("{error:#}"));
                ExitCode::from(2)
            }
        },
    }
}

fn run(command: Command) -> Result<Outcome> {
    match command {
        Command::Demo { machine, batch, seconds } => run_demo(machine.board()?, batch, seconds),
        Command::Build { input, out, sd, dtb, force } => run_build(input, out, sd, dtb, force),
        Command::Check { input, dtb, format } => run_check(input, dtb, format),
        Command::Explain { code } => explain(code.as_deref()),
        Command::Reference => say::print(&reference::page()).map(|()| Outcome::Well),
        Command::Import { format } => import::run(&format).map(Into::into),
        Command::New(options) => new::run(&options).map(|()| Outcome::Well),
        Command::Doctor => doctor::run().map(Into::into),
        Command::Completions { shell } => {
            say::print(&completions::script(shell, Cli::command())).map(|()| Outcome::Well)
        }
        Command::Report { input, dtb, options } => run_report(input, dtb, &options),
        Command::Run { input, batch, timeout, qemu } => {
            let timeout = batch.then(|| Duration::from_secs(timeout));
            run_system(input, timeout, &qemu)
        }
        Command::Test { scope, filter, board, gic, runs } => {
            let machines = board::chosen(board, gic)?;
            Ok(run_tests(scope, filter.as_deref(), &machines, runs).into())
        }
        Command::Bench { record } => run_bench(record),
        Command::Symbolize { file, elf } => run_symbolize(file, elf),
    }
}

fn run_demo(board: Board, batch: bool, seconds: u64) -> Result<Outcome> {
    setup::ensure(&Need::ALL)?;
    let workspace = Workspace::load()?;
    if !batch {
        let recipe = demo::recipe(&workspace, board);
        return start(&workspace, &recipe, None, &[]);
    }
    let recipe = demo::test_recipe(&workspace, board, seconds);
    let system = system::build(&workspace, &recipe, &workspace.output().join("demo-batch"), Noise::Shown)?;
    println!("{}", system.identity());
    let mut target = session::watched(&system, workspace.root())?;
    let checks = demo::follow(&mut target, seconds);
    println!();
    for check in &checks {
        println!("{} {}", if check.ok { "ok    " } else { "FAILED" }, check.found);
    }
    Ok(checks.iter().all(|check| check.ok).into())
}

fn run_build(
    input: Input,
    out: Option<PathBuf>,
    sd: Option<PathBuf>,
    dtb: Option<PathBuf>,
    force: bool,
) -> Result<Outcome> {
    let workspace = Workspace::load()?;
    let recipe = Recipe { tree: dtb, ..input.recipe(&workspace)? };
    ensure!(sd.is_none() || recipe.board == RPI4, "--sd writes the card of a Raspberry Pi: add --board rpi4");
    setup::ensure(&Need::ALL)?;
    let folder = out.unwrap_or_else(|| workspace.output().join(recipe.name()));
    let Outputs { system: built, others, missing } =
        loader::build(&workspace, &recipe, &folder, Noise::Shown)?;
    println!("{}\n{}\n  {}", built.image.display(), built.sizes.to_string().trim_end(), built.identity());
    for path in std::iter::once(&built.bundle).chain(&others) {
        println!("{}\n  {} bytes", path.display(), std::fs::metadata(path)?.len());
    }
    println!("QEMU starts it by {}", say::word(&folder.join(loader::RUN)));
    missing.iter().for_each(say::note);
    let fits = built.sizes.text_and_rodata <= TEXT_LIMIT;
    if !fits {
        say::error(format_args!(
            "text and rodata may have {TEXT_LIMIT} bytes; a listing of the ELF's symbols by size shows what grew"
        ));
    }
    if let Some(card) = sd {
        say_which_board(&recipe);
        card::write(&built, &card, force)?;
        say::step("Wrote", format_args!("{}; {} has what it needs besides", card.display(), card::LIST));
    }
    Ok(fits.into())
}

fn run_check(input: Input, dtb: Option<PathBuf>, format: Format) -> Result<Outcome> {
    let workspace = Workspace::load()?;
    let recipe = &Recipe { tree: dtb, ..input.recipe(&workspace)? };
    // QEMU is wanted for its device tree alone.
    let has_tree = recipe.tree.is_some() || recipe.board.has_tree();
    let needs = Need::ALL.into_iter().filter(|need| *need != Need::Qemu || !has_tree);
    setup::ensure(&needs.collect::<Vec<_>>())?;
    let noise = if format == Format::Text { Noise::Shown } else { Noise::Quiet };
    let checked = system::build_hypervisor(&workspace, noise).and_then(|hypervisor| {
        let parts = system::gather(&workspace, recipe, noise)?;
        system::checked(recipe, &parts, &hypervisor, |checked| {
            Ok((system::describe(checked.plan), checked.warnings.clone()))
        })
    });
    match checked {
        Ok((plan, warnings)) => {
            render::write(&warnings, format)?;
            if format == Format::Text {
                print!("{plan}");
                say_which_board(recipe);
            }
            Ok(Outcome::Well)
        }
        Err(error) => {
            render::write(&error.downcast::<Findings>()?, format)?;
            Ok(Outcome::Findings)
        }
    }
}

fn explain(code: Option<&str>) -> Result<Outcome> {
    let text = match code {
        None => explain::pages().iter().map(|page| format!("{}  {}\n", page.code, page.title)).collect(),
        Some(code) => {
            let page = explain::page_of(code).with_context(|| {
                format!("there is no rule {code}; `cargo bulkhead explain` lists all of them")
            })?;
            format!("{}: {}\n\n{}\n", page.code, page.title, page.body)
        }
    };
    say::print(&text).map(|()| Outcome::Well)
}

fn run_report(input: Input, dtb: Option<PathBuf>, options: &report::Options) -> Result<Outcome> {
    let workspace = Workspace::load()?;
    let recipe = &Recipe { tree: dtb, ..input.recipe(&workspace)? };
    setup::ensure(&Need::ALL)?;
    report::run(&workspace, recipe, options)?;
    say_which_board(recipe);
    Ok(Outcome::Well)
}

/// Where QEMU is not the board that a manifest is for, the check on the desk is of limited worth.
fn say_which_board(recipe: &Recipe) {
    if recipe.tree.is_none() && recipe.board.origin != Origin::Qemu {
        say::note(
            "checked for QEMU's model, with 1 GiB of RAM; --dtb FILE checks for the board that FILE is from",
        );
    }
}

fn run_system(input: Input, timeout: Option<Duration>, qemu: &[String]) -> Result<Outcome> {
    let workspace = Workspace::load()?;
    let recipe = input.recipe(&workspace)?;
    setup::ensure(&Need::ALL)?;
    start(&workspace, &recipe, timeout, qemu)
}

/// Builds and starts a system: in batch mode where there is a timeout.
fn start(
    workspace: &Workspace,
    recipe: &Recipe,
    timeout: Option<Duration>,
    qemu: &[String],
) -> Result<Outcome> {
    let mut system = system::build(workspace, recipe, &workspace.output().join(recipe.name()), Noise::Shown)?;
    system.options = qemu.to_vec();
    let Some(timeout) = timeout else {
        return session::interactive(&system, workspace.root()).map(Into::into);
    };
    let faults = session::batch(&system, workspace.root(), timeout)?;
    for fault in &faults {
        say::error(fault);
    }
    Ok(faults.is_empty().into())
}

/// Whatever happens, the last line is the sum: what could not be run has failed.
fn run_tests(scope: Scope, filter: Option<&str>, machines: &[Board], runs: u64) -> bool {
    let tally =
        Workspace::load().and_then(|workspace| testing::run(&workspace, scope, filter, machines, runs));
    let tally = tally.unwrap_or_else(|error| {
        say::error(format_args!("{error:#}"));
        Tally { passed: 0, failed: 1 }
    });
    println!("{} passed, {} failed", tally.passed, tally.failed);
    tally.failed == 0 && tally.passed > 0
}

fn run_bench(record: bool) -> Result<Outcome> {
    setup::ensure(&Need::ALL)?;
    let workspace = Workspace::load()?;
    let old = bench::recorded(&workspace)?;
    let new = bench::measure(&workspace, Noise::Shown)?;
    let comparison = bench::Comparison::new(&old, &new);
    anstream::print!("{comparison}");
    if record {
        bench::record(&workspace, &old, &new)?;
        return Ok(Outcome::Well);
    }
    let findings = comparison.findings();
    for finding in &findings {
        say::error(finding);
    }
    if !findings.is_empty() {
        say::note("if that is meant, record it with `cargo bulkhead bench --record` and commit the record");
    }
    Ok(findings.is_empty().into())
}

fn run_symbolize(file: Option<PathBuf>, elf: Option<PathBuf>) -> Result<Outcome> {
    let workspace = Workspace::load()?;
    let elf = match elf {
        Some(elf) => elf,
        None => {
            setup::ensure(&[Need::Target])?;
            workspace.build(HYPERVISOR, Noise::Quiet)?
        }
    };
    let annotate = symbolize::annotator(&elf, workspace.root())?;
    let input: Box<dyn BufRead> = match &file {
        Some(path) => Box::new(BufReader::new(
            File::open(path).with_context(|| format!("cannot read {}", path.display()))?,
        )),
        None => {
            if io::stdin().is_terminal() {
                say::note("reading console text from the keyboard; Ctrl-D ends it");
            }
            Box::new(io::stdin().lock())
        }
    };
    for line in input.lines() {
        let line = line.context("the console text is not readable")?;
        println!("{line}");
        annotate(&line).iter().for_each(|more| println!("{more}"));
    }
    Ok(Outcome::Well)
}
