//! Where the boot loader puts things: what the check on the desk believes, held against what QEMU does.

use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use bulkhead::board::QEMU;
use bulkhead::system::Recipe;

use crate::lab::Lab;

/// QEMU's monitor lists what it has loaded; a machine that was never started has it still there.
pub fn as_predicted(lab: &Lab) -> Result<()> {
    let system = lab.build(&Recipe::new(lab.system_manifest("pair.dts"), lab.board))?;
    let size = |path| fs::metadata(path).map(|file| file.len());
    let predicted = lab
        .board
        .occupied(system.sizes.claimed, size(&system.bundle)?, lab.board.tree()?.len() as u64)
        .context("the machine is too small")?;
    let mut qemu = Command::new(QEMU)
        .args(lab.board.options("")?)
        .args(["-S", "-serial", "none", "-monitor", "stdio"])
        .arg("-kernel")
        .arg(&system.image)
        .arg("-initrd")
        .arg(&system.bundle)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    qemu.stdin.take().context("QEMU has no standard input")?.write_all(b"info roms\nquit\n")?;
    let output = qemu.wait_with_output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    for (region, name) in [
        (predicted.hypervisor, system.image.display().to_string()),
        (predicted.bundle, system.bundle.display().to_string()),
        (predicted.tree, "dtb".to_owned()),
    ] {
        let start = format!("addr={:016x} ", region.start().raw());
        let found =
            text.lines().any(|line| line.contains(&start) && line.contains(&format!("name=\"{name}\"")));
        ensure!(found, "{name} is not at {start}:\n{text}");
    }
    Ok(())
}
