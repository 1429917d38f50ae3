//! Counts that must not depend on when or where they are made.

use anyhow::{Result, ensure};
use bulkhead::elf::TEXT_LIMIT;
use bulkhead::workspace::Noise;
use bulkhead::{bench, system};

use crate::lab::Lab;

/// Text and rodata of the hypervisor fit into what they may have.
pub fn image_size(lab: &Lab) -> Result<()> {
    let sizes = system::build_hypervisor(&lab.workspace, Noise::Quiet)?.sizes;
    ensure!(sizes.text_and_rodata <= TEXT_LIMIT, "more than {TEXT_LIMIT} bytes of text and rodata:\n{sizes}");
    Ok(())
}

/// Two runs of the benchmark give the same figures.
pub fn is_exact(lab: &Lab) -> Result<()> {
    let first = bench::measure(&lab.workspace, Noise::Quiet)?;
    let second = bench::measure(&lab.workspace, Noise::Quiet)?;
    ensure!(first == second, "{}", bench::Comparison::new(&first, &second));
    Ok(())
}
