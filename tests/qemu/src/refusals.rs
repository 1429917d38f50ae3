//! Wrong manifests, refused by the tool on the desk and by the hypervisor at boot.

use std::fs;

use anyhow::{Context, Result, ensure};
use bulkhead::findings::Findings;
use bulkhead::system::{self, Recipe};
use bulkhead::workspace::Noise;
use bulkhead_hil::Source;
use tempfile::TempDir;

use crate::lab::{Lab, SOON};

/// Faulty manifests and a piece of what must be said of each.
const FAULTS: [(&str, &str); 4] = [
    ("memory-overlap", "BH0215: /partitions/rtos: memory 0x40800000"),
    ("cpu-twice", "BH0103: /partitions/rtos: cpu 2 is already given to /partitions/linux"),
    ("unknown-path", "BH0401: /partitions/rtos: access names"),
    ("image-too-big", "BH0316: /partitions/linux: kernel \"big.Image\" does not fit"),
];

/// The payloads that the fixtures name.
fn payloads() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    let files = [
        ("Image", image(32 << 20)),
        ("big.Image", image(1 << 30)),
        ("bare.bin", vec![0xd5; 8192]),
        ("initramfs.cpio.gz", vec![0x1f; 1 << 20]),
    ];
    for (name, content) in files {
        fs::write(folder.path().join(name), content)?;
    }
    Ok(folder)
}

/// An arm64 Image that claims so many bytes (Linux, `Documentation/arch/arm64/booting.rst`).
fn image(size: u64) -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&size.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

fn recipe(lab: &Lab, payloads: &TempDir, name: &str) -> Recipe {
    let manifest = lab.workspace.root().join("tests/manifests").join(format!("{name}.dts"));
    Recipe { payloads: vec![payloads.path().to_owned()], ..Recipe::new(manifest, lab.board) }
}

/// The hypervisor names the node, starts nothing and switches the machine off.
pub fn by_the_hypervisor(lab: &Lab) -> Result<()> {
    let payloads = payloads()?;
    let hypervisor = system::build_hypervisor(&lab.workspace, Noise::Quiet)?;
    for (name, fault) in FAULTS {
        let recipe = recipe(lab, &payloads, name);
        let parts = system::gather(&lab.workspace, &recipe, Noise::Quiet)?;
        let folder = lab.folder().join(name);
        let unchecked = system::write(&recipe, &parts, &hypervisor, &folder)?;
        let mut target = lab.start_command(unchecked.command()?)?;
        let status = target.wait(SOON).with_context(|| name.to_owned())?;
        ensure!(status.success(), "{name}: QEMU ended with {status}");
        let text = target.text(Source::HYPERVISOR);
        let said = text.lines().any(|line| {
            line.strip_prefix("bulkhead: error: ").is_some_and(|message| message.starts_with(fault))
        });
        ensure!(said, "{name}: no error about {fault}:\n{text}");
        ensure!(text.contains("bulkhead: no partition was started"), "{name}: not refused:\n{text}");
        ensure!(target.lines().iter().all(|line| line.source == Source::HYPERVISOR), "{name}: a guest spoke");
    }
    Ok(())
}

/// The tool says the same and exits with 1.
pub fn by_the_tool(lab: &Lab) -> Result<()> {
    let payloads = payloads()?;
    let hypervisor = system::build_hypervisor(&lab.workspace, Noise::Quiet)?;
    for (name, fault) in FAULTS {
        let recipe = recipe(lab, &payloads, name);
        let parts = system::gather(&lab.workspace, &recipe, Noise::Quiet)?;
        let Err(error) = system::check(&recipe, &parts, &hypervisor) else {
            anyhow::bail!("{name} was accepted")
        };
        let findings = error.downcast::<Findings>().with_context(|| name.to_owned())?;
        let said = findings.to_string();
        ensure!(said.lines().any(|line| line.starts_with(fault)), "{name}: {said}");
    }
    let (name, fault) = FAULTS[0];
    let mut tool = lab.workspace.cargo();
    tool.args(["run", "--quiet", "--package", "bulkhead", "--", "check"]);
    tool.arg(recipe(lab, &payloads, name).manifest).arg("--payloads").arg(payloads.path());
    let output = tool.output()?;
    let messages = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(1), "exit code {:?}:\n{messages}", output.status.code());
    let (code, _) = fault.split_once(": ").context("a code")?;
    for part in [format!("error[{code}]: "), format!("{name}.dts:")] {
        ensure!(messages.contains(&part), "no {part:?}:\n{messages}");
    }
    Ok(())
}
