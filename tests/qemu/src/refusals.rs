//! Wrong manifests, refused by the tool on the desk and by the hypervisor at boot.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use bulkhead::board::{Board, QEMU_VIRT, QEMU_VIRT_GICV2};
use bulkhead::system::{self, Hypervisor, Recipe, System};
use bulkhead::workspace::Noise;
use bulkhead_boards::BOARDS;
use bulkhead_fixtures::{Manifest, payload, payloads};
use bulkhead_hil::Source;
use bulkhead_policy::manifest;
use bulkhead_policy::platform::{BUNDLE, HYPERVISOR, Platform, Reservation};
use bulkhead_policy::tree::Tree;
use tempfile::TempDir;

use crate::lab::{Lab, SOON};

/// Rules whose manifests are for no machine in particular, shared out between both of QEMU's `virt`.
const ON_GICV3: [&str; 20] = [
    "BH0010", "BH0014", "BH0015", "BH0013", "BH0017", "BH0020", "BH0021", "BH0101", "BH0103", "BH0202",
    "BH0204", "BH0210", "BH0212", "BH0214", "BH0220", "BH0301", "BH0316", "BH0401", "BH0403", "BH0806",
];
const ON_GICV2: [&str; 13] = [
    "BH0011", "BH0012", "BH0016", "BH0022", "BH0102", "BH0211", "BH0215", "BH0217", "BH0218", "BH0310",
    "BH0318", "BH0402", "BH0508",
];

/// Its manifest names a serial port that QEMU has not, so nobody would hear.
const UNHEARD: &str = "BH0610";

/// The manifests for a machine: with the tree that QEMU makes, with trees made here, or those of the Raspberry Pi.
fn manifests(lab: &Lab) -> Vec<(String, Manifest)> {
    let usual: &[&str] = match lab.board {
        QEMU_VIRT => &ON_GICV3,
        QEMU_VIRT_GICV2 => &ON_GICV2,
        _ => &[],
    };
    let others: &[&str] = match lab.board {
        QEMU_VIRT => &["odd", "sharing"],
        QEMU_VIRT_GICV2 => &[],
        _ => &["rpi4-qemu"],
    };
    let rules = bulkhead_fixtures::rules().into_iter().filter(|rule| rule.code != UNHEARD);
    let rules = rules.map(|rule| (rule.code, rule.invalid));
    rules
        .filter(|(code, manifest)| usual.contains(&code.as_str()) || others.contains(&manifest.board()))
        .collect()
}

/// The test's machine, with a tree made here where the manifest is for one.
fn machine(lab: &Lab, manifest: &Manifest) -> Result<Board> {
    if !["odd", "sharing"].contains(&manifest.board()) {
        return Ok(lab.board);
    }
    let tree = bulkhead_fixtures::folder().join("boards").join(format!("{}.dtb", manifest.board()));
    let tree = tree.to_str().context("a path that QEMU can be told")?.to_owned();
    Ok(Board { options: vec!["-dtb", tree.leak()].leak(), ..lab.board })
}

/// The payloads that the manifests name.
fn payload_files() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    for (name, content) in payloads::all() {
        fs::write(folder.path().join(name), content)?;
    }
    Ok(folder)
}

/// What the policy says of a system on the desk: of the tree that this very machine hands over, with what the boot loader puts into
/// its RAM.
fn on_the_desk(system: &System, hypervisor: &Hypervisor, manifest: &Manifest) -> Result<Vec<String>> {
    let board = system.board.tree()?;
    let bundle = fs::metadata(&system.bundle)?.len();
    let occupied = system.board.occupied(hypervisor.sizes.claimed, bundle, board.len() as u64);
    let occupied = occupied.context("the system does not fit into the machine")?;
    let board = Tree::new(&board).context("the machine's tree")?;
    let mut platform = Platform::from_tree(&board, &BOARDS).map_err(|error| anyhow::anyhow!("{error}"))?;
    platform.reserved.extend([
        Reservation { region: occupied.hypervisor, holder: HYPERVISOR },
        Reservation { region: occupied.bundle, holder: BUNDLE },
        Reservation { region: occupied.tree, holder: "the firmware's tree" },
    ]);
    let blob = manifest.compile();
    let tree = Tree::new(&blob).context("the manifest")?;
    match manifest::check(&tree, &mut platform, &board, &|name| payload(name)) {
        Ok(_) => bail!("the policy accepts it"),
        Err(findings) => Ok(findings.iter().map(ToString::to_string).collect()),
    }
}

/// The hypervisor says what the policy says on the desk, starts nothing and switches the machine off.
fn refused(
    lab: &Lab,
    code: &str,
    manifest: &Manifest,
    payloads: &Path,
    hypervisor: &Hypervisor,
) -> Result<()> {
    let recipe = Recipe {
        payloads: vec![payloads.to_owned()],
        ..Recipe::new(&manifest.path, machine(lab, manifest)?)
    };
    let parts = system::gather(&lab.workspace, &recipe, Noise::Quiet)?;
    let unchecked = system::write(&recipe, &parts, hypervisor, &lab.folder())?;
    let mut target = lab.start_command(unchecked.command()?)?;
    let status = target.wait(SOON)?;
    let text = target.text(Source::HYPERVISOR);
    ensure!(status.success(), "QEMU ended with {status}:\n{text}");
    let said: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("bulkhead: error: ")).collect();
    let expected = on_the_desk(&unchecked, hypervisor, manifest)?;
    ensure!(expected.iter().any(|fault| fault.starts_with(code)), "on the desk it is {expected:?}");
    ensure!(said == expected, "the desk says {expected:?}, not\n{text}");
    ensure!(text.contains("bulkhead: no partition was started"), "it goes on:\n{text}");
    ensure!(target.lines().iter().all(|line| line.source == Source::HYPERVISOR), "a guest spoke:\n{text}");
    Ok(())
}

/// Manifests that nobody checked on the desk.
pub fn by_the_hypervisor(lab: &Lab) -> Result<()> {
    let payloads = payload_files()?;
    let hypervisor = system::build_hypervisor(&lab.workspace, Noise::Quiet)?;
    let manifests = manifests(lab);
    ensure!(manifests.len() >= 10, "only {} manifests", manifests.len());
    for (code, manifest) in manifests {
        refused(lab, &code, &manifest, payloads.path(), &hypervisor).context(code)?;
    }
    Ok(())
}

/// The tool refuses one with exit code 1.
pub fn by_the_tool(lab: &Lab) -> Result<()> {
    let payloads = payload_files()?;
    let manifest: PathBuf = bulkhead_fixtures::folder().join("rules/BH0103/invalid.dts");
    let mut tool = lab.workspace.cargo();
    tool.args(["run", "--quiet", "--package", "bulkhead", "--", "check", "--board", lab.board.name]);
    tool.arg(manifest).arg("--payloads").arg(payloads.path());
    let output = tool.output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "exit code {:?}:\n{messages}", output.status.code());
    for part in ["error[BH0103]: cpu 2 is already given to /partitions/linux", "invalid.dts:"] {
        ensure!(messages.contains(part), "no {part:?}:\n{messages}");
    }
    Ok(())
}
