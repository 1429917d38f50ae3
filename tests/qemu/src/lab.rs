//! What the tests share: where things are, how a system is built and started, how a guest's verdict is read.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bulkhead::board::{Board, QEMU_VIRT};
use bulkhead::elf::Executable;
use bulkhead::session::is_failure;
use bulkhead::system::{self, Recipe, System};
use bulkhead::workspace::{Noise, Workspace};
use bulkhead_hil::{Source, Target};

/// A partition is announced, or a verdict follows the one before, within this time on a slow host.
pub const SOON: Duration = Duration::from_secs(60);

/// A guest's whole list of tests may take so long.
pub const LONG: Duration = Duration::from_secs(240);

/// The surroundings of one test.
pub struct Lab {
    name: String,
    /// The machine that the test is about.
    pub board: Board,
    /// The source tree.
    pub workspace: Workspace,
}

impl Lab {
    /// The surroundings of the test called `name` about `board`.
    pub fn new(name: String, board: Board) -> Result<Self> {
        Ok(Self { name, board, workspace: Workspace::load()? })
    }

    /// Where the test's files go: the built system and its console.
    pub fn folder(&self) -> PathBuf {
        self.workspace.output().join("tests").join(&self.name)
    }

    /// A manifest that users see.
    pub fn system_manifest(&self, name: &str) -> PathBuf {
        self.workspace.root().join("partitions/systems").join(name)
    }

    /// A manifest that only the tests need.
    pub fn test_manifest(&self, name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("systems").join(name)
    }

    /// Builds and checks a system.
    pub fn build(&self, recipe: &Recipe) -> Result<System> {
        system::build(&self.workspace, recipe, &self.folder(), Noise::Quiet)
    }

    /// Builds a manifest for the test's machine and starts it there.
    pub fn start(&self, manifest: PathBuf) -> Result<Target> {
        self.start_on(self.board, manifest)
    }

    /// Builds a manifest for another machine and starts it there.
    pub fn start_on(&self, board: Board, manifest: PathBuf) -> Result<Target> {
        self.start_command(self.build(&Recipe::new(manifest, board))?.command()?)
    }

    /// The test's machine with a flat image of a guest and no hypervisor.
    pub fn start_bare(&self, guest: &str) -> Result<Target> {
        let binary =
            self.workspace.guest(guest, self.board.label).with_context(|| format!("no guest {guest}"))?;
        let image = Executable::read(&self.workspace.build(binary, Noise::Quiet)?)?.flatten()?;
        let file = self.folder().join(format!("{guest}.bin"));
        fs::create_dir_all(self.folder())?;
        fs::write(&file, image)?;
        let machine = match self.board {
            QEMU_VIRT => "virt,gic-version=3",
            _ => "virt,gic-version=2",
        };
        let mut command = Board { machine, ..self.board }.command()?;
        command.arg("-kernel").arg(&file);
        self.start_command(command)
    }

    /// Starts a machine whose console goes into a file, too.
    pub fn start_command(&self, command: Command) -> Result<Target> {
        let folder = self.folder();
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let log = File::create(folder.join("console.log")).context("cannot write the console's log")?;
        let mut target = Target::start(command).context("cannot start QEMU")?;
        target.log_to(log);
        Ok(target)
    }
}

/// Waits for a guest's sum and fails with its failures, if it has any.
pub fn expect_verdict(target: &mut Target, guest: Source) -> Result<()> {
    let done = target.expect(guest, r"^DONE (\d+) passed, (\d+) failed\n", LONG)?;
    let failures: Vec<_> =
        target.lines().iter().filter(|line| line.source == guest && is_failure(&line.text)).collect();
    let text: String = failures.iter().map(|line| format!("\n  {}", line.text)).collect();
    ensure!(&done[2] == "0" && failures.is_empty(), "{} of {guest}'s tests failed:{text}", &done[2]);
    ensure!(&done[1] != "0", "{guest} tested nothing");
    Ok(())
}

/// Waits until all partitions are off and the machine with them.
pub fn expect_power_off(target: &mut Target) -> Result<()> {
    target.expect(Source::HYPERVISOR, "^bulkhead: all partitions are off\n", SOON)?;
    let status = target.wait(SOON)?;
    ensure!(status.success(), "QEMU ended with {status}:\n{}", target.complaints());
    Ok(())
}
