//! Counts that must not depend on when or where they are made.

use std::process::Command;

use anyhow::{Result, ensure};
use bulkhead::board::{MACHINES, QEMU_VIRT};
use bulkhead::elf::TEXT_LIMIT;
use bulkhead::system::Recipe;
use bulkhead::workspace::Noise;
use bulkhead::{bench, system};

use crate::lab::Lab;

/// Text and rodata of the hypervisor fit into what they may have.
pub fn image_size(lab: &Lab) -> Result<()> {
    let sizes = system::build_hypervisor(&lab.workspace, Noise::Quiet)?.sizes;
    ensure!(sizes.text_and_rodata <= TEXT_LIMIT, "more than {TEXT_LIMIT} bytes of text and rodata:\n{sizes}");
    Ok(())
}

/// Every machine gets the same image.
pub fn one_image(lab: &Lab) -> Result<()> {
    let build = |board| {
        let system = lab.build(&Recipe::new(lab.system_manifest("conformance.dts"), board))?;
        let output = Command::new("sha256sum").arg(&system.image).output()?;
        ensure!(
            String::from_utf8_lossy(&output.stdout).starts_with(&system.sha256),
            "another hash was printed"
        );
        Ok(system.sha256)
    };
    let first = build(QEMU_VIRT)?;
    for board in MACHINES {
        ensure!(build(board)? == first, "{} has another image", board.label);
    }
    Ok(())
}

/// Two runs of the benchmark give the same figures.
pub fn is_exact(lab: &Lab) -> Result<()> {
    let first = bench::measure(&lab.workspace, Noise::Quiet)?;
    let second = bench::measure(&lab.workspace, Noise::Quiet)?;
    ensure!(first == second, "{}", bench::Comparison::new(&first, &second));
    Ok(())
}
