//! What `build` writes for loaders, started by them.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bulkhead::loader::{self, COMMANDS, Outputs, RUN, SCRIPT, SINGLE};
use bulkhead::system::{self, BUNDLE, IMAGE, Recipe};
use bulkhead::workspace::{Noise, Workspace};
use bulkhead::{linux, say};
use bulkhead_hil::{Source, Target};

use crate::lab::{LONG, Lab, SOON, expect_power_off};

fn build(lab: &Lab) -> Result<Outputs> {
    let recipe = Recipe::new(lab.test_manifest("restart.dts"), lab.board);
    let outputs = loader::build(&lab.workspace, &recipe, &lab.folder(), Noise::Quiet)?;
    ensure!(outputs.missing.is_empty(), "{:?}", outputs.missing);
    Ok(outputs)
}

/// Both partitions run.
fn expect_partitions(target: &mut Target) -> Result<()> {
    for name in ["first", "second"] {
        let rtos = target.partition(name, LONG)?;
        target.expect(rtos, "^heartbeat 1:", SOON)?;
        target.focus(name)?;
        target.send(b"off\r")?;
    }
    expect_power_off(target)
}

/// Image and bundle in one file, and no initrd.
pub fn single_image(lab: &Lab) -> Result<()> {
    build(lab)?;
    let mut command = lab.board.command()?;
    command.arg("-kernel").arg(lab.folder().join(SINGLE));
    expect_partitions(&mut lab.start_command(command)?)
}

/// The image without a bundle says what it lacks.
pub fn no_bundle(lab: &Lab) -> Result<()> {
    let mut command = lab.board.command()?;
    command.arg("-kernel").arg(build(lab)?.system.image);
    let mut target = lab.start_command(command)?;
    ensure!(target.wait(SOON)?.success(), "QEMU failed");
    let text = target.text(Source::HYPERVISOR);
    ensure!(text.contains("bulkhead: error: /chosen: there is no bundle; "), "{text}");
    Ok(())
}

/// The shell script starts the system from a folder of any name.
pub fn run_script(lab: &Lab) -> Result<()> {
    build(lab)?;
    let elsewhere = lab.folder().join("a folder");
    if elsewhere.exists() {
        fs::remove_dir_all(&elsewhere)?;
    }
    fs::create_dir_all(&elsewhere)?;
    for entry in fs::read_dir(lab.folder())? {
        let path = entry?.path();
        if path.is_file() {
            fs::copy(&path, elsewhere.join(path.file_name().context("a name")?))?;
        }
    }
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(elsewhere.join(RUN));
    expect_partitions(&mut lab.start_command(command)?)
}

/// An unmodified U-Boot finds the script on a disk and does what it says.
pub fn u_boot(lab: &Lab) -> Result<()> {
    let outputs = build(lab)?;
    let disk = lab.folder().join("disk");
    fs::create_dir_all(&disk)?;
    for name in [IMAGE, BUNDLE, SCRIPT] {
        fs::copy(lab.folder().join(name), disk.join(name))?;
    }
    let firmware = linux::u_boot(&system::downloads()?, &mut |line| say::step("Debian", line))?;
    let mut command = lab.board.command()?;
    command.arg("-bios").arg(firmware);
    command.args(["-device", "virtio-blk-device,drive=disk", "-drive"]);
    command.arg(format!("if=none,id=disk,format=raw,read-only=on,file=fat:{}", disk.display()));
    let mut target = lab.start_command(command)?;
    target.expect(Source::HYPERVISOR, "U-Boot 2", SOON)?;
    target.expect(Source::HYPERVISOR, "^bulkhead .* on QEMU virt", LONG)?;
    expect_partitions(&mut target)?;
    let commands = fs::read_to_string(lab.folder().join(COMMANDS))?;
    let address = commands.lines().find_map(|line| line.strip_prefix("booti ")?.split(' ').next());
    let text = target.text(Source::HYPERVISOR);
    let moved = text.contains("Moving Image from");
    ensure!(!moved, "U-Boot moved the image from {address:?}:\n{text}");
    ensure!(outputs.system.bundle.starts_with(lab.folder()), "the bundle is elsewhere");
    Ok(())
}

/// The same sources in another folder, built later, give the same bytes, as flat images and as ELF files.
pub fn reproducible(lab: &Lab) -> Result<()> {
    let copy = lab.folder().join("the same sources");
    if copy.exists() {
        fs::remove_dir_all(&copy)?;
    }
    copy_sources(lab.workspace.root(), &copy)?;
    let elsewhere = Workspace::at(&copy, Some(lab.folder().join("target")))?;
    for manifest in ["demo.dts", "pair.dts"] {
        let build = |workspace: &Workspace, folder: &str| {
            let recipe = Recipe::new(workspace.root().join("partitions/systems").join(manifest), lab.board);
            loader::build(workspace, &recipe, &lab.folder().join(folder), Noise::Quiet)
        };
        build(&lab.workspace, "one")?;
        build(&elsewhere, "two")?;
        for name in [IMAGE, BUNDLE, SINGLE, COMMANDS, SCRIPT, RUN] {
            let (one, two) = (
                fs::read(lab.folder().join("one").join(name))?,
                fs::read(lab.folder().join("two").join(name))?,
            );
            let at = one.iter().zip(&two).position(|(one, two)| one != two);
            ensure!(
                one == two,
                "{manifest}: {name} differs from byte {at:x?} on ({} and {} bytes)",
                one.len(),
                two.len()
            );
        }
    }
    Ok(())
}

fn copy_sources(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        if name == "target" || name == ".git" {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy_sources(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name))?;
        }
    }
    Ok(())
}
