//! The device trees that guests will find, as source: by the code that writes them at boot.

use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bulkhead_policy::guest_dtb::{self, DtbError};
use bulkhead_policy::manifest::DTB_SPACE;
use bulkhead_policy::plan::PartitionPlan;
use bulkhead_policy::platform::Platform;
use bulkhead_policy::tree::Tree;

use crate::system::Checked;

/// The tree of one partition.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct GuestTree {
    /// The partition's name.
    pub partition: String,
    /// The tree's source.
    pub source: String,
}

/// The blob that a partition gets.
///
/// # Errors
///
/// Where it does not fit into the space kept for it, so that its partition would not start.
pub fn generate(
    plan: &PartitionPlan<'_>,
    platform: &Platform<'_>,
    board: &Tree<'_>,
) -> Result<Vec<u8>, DtbError> {
    let mut blob = vec![0; DTB_SPACE as usize];
    let size = guest_dtb::generate(&mut blob, board, platform, plan, env!("CARGO_PKG_VERSION"))?;
    blob.truncate(size);
    Ok(blob)
}

/// The trees of all partitions of a checked manifest.
///
/// # Errors
///
/// Where dtc does not run.
pub fn trees(checked: Checked<'_>) -> Result<Vec<GuestTree>> {
    let mut trees = Vec::new();
    for plan in &checked.plan.partitions {
        let source = generate(plan, checked.platform, checked.board)
            .map_err(anyhow::Error::from)
            .and_then(|blob| decompile(&blob))
            .with_context(|| format!("the tree of {}", plan.name))?;
        trees.push(GuestTree { partition: plan.name.to_owned(), source });
    }
    Ok(trees)
}

fn decompile(blob: &[u8]) -> Result<String> {
    let mut dtc = Command::new("dtc")
        .args(["-q", "-I", "dtb", "-O", "dts", "-o", "-", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot run dtc; run: apt-get install device-tree-compiler")?;
    let stdin = dtc.stdin.take().context("dtc has no standard input")?;
    // dtc reads all of it before it writes.
    { stdin }.write_all(blob).context("dtc takes no input")?;
    let output = dtc.wait_with_output().context("cannot run dtc")?;
    ensure!(output.status.success(), "dtc: {}", String::from_utf8_lossy(&output.stderr).trim());
    String::from_utf8(output.stdout).context("dtc writes no text")
}
