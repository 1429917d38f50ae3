//! The demo, with a verdict and at a terminal.

use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use bulkhead::board::QEMU_VIRT;
use bulkhead::demo;
use bulkhead_hil::Source;

use crate::lab::{Lab, SOON};

/// How long Linux loads its CPUs.
const SECONDS: u64 = 20;
/// The same on the machines after the first.
const SECONDS_ELSEWHERE: u64 = 5;
/// Linux boots in less on a slow host.
const BOOT: Duration = Duration::from_secs(240);

/// Linux under load beside FreeRTOS.
pub fn batch(lab: &Lab) -> Result<()> {
    let seconds = if lab.board == QEMU_VIRT { SECONDS } else { SECONDS_ELSEWHERE };
    let system = lab.build(&demo::test_recipe(&lab.workspace, lab.board, seconds))?;
    let mut target = lab.start_command(system.command()?)?;
    let checks = demo::follow(&mut target, seconds);
    if let Ok(rtos) = target.partition("rtos", Duration::ZERO) {
        println!("FreeRTOS beside a Linux under load:\n{}", demo::lateness(&target.text(rtos)));
    }
    let failed: Vec<_> = checks.iter().filter(|check| !check.ok).map(|check| check.found.as_str()).collect();
    ensure!(failed.is_empty(), "{}", failed.join("\n"));
    Ok(())
}

/// `cargo bulkhead demo` at a terminal: prefixes, colours, a shell, the keys, the way out.
pub fn interactive(lab: &Lab) -> Result<()> {
    // Built before, so that nothing but the demo itself is on the terminal.
    lab.build(&demo::recipe(&lab.workspace, lab.board))?;
    let cargo = lab.workspace.cargo();
    let tool = format!(
        "{} run --quiet --package bulkhead -- demo; echo exit $?; stty -a",
        cargo.get_program().display()
    );
    let mut terminal = Command::new("script");
    terminal.current_dir(lab.workspace.root()).args(["--quiet", "--command", &tool, "/dev/null"]);
    let mut target = lab.start_command(terminal)?;
    // The whole screen comes without tags, behind the tool's own prefixes.
    let mut see = |pattern: &str| target.expect(Source::HYPERVISOR, pattern, BOOT);
    see(r"rtos.*\| heartbeat 1:")?;
    see(r"linux.*\| .*linux# ")?;
    target.send(b"echo answer $((6 * 7))\r")?;
    target.expect(Source::HYPERVISOR, r"linux.*\| answer 42", SOON)?;
    target.send(b"\x1d")?;
    target.expect(Source::HYPERVISOR, r"\| input to rtos", SOON)?;
    target.send(b"stats\r")?;
    target.expect(Source::HYPERVISOR, r"rtos.*\| .*ticks \d+, expected", SOON)?;
    target.send(b"\x1c")?;
    target.expect(Source::HYPERVISOR, r"exit 0\n", SOON)?;
    target.expect(Source::HYPERVISOR, r" icanon ", SOON)?;
    ensure!(target.wait(SOON)?.success(), "script failed");
    Ok(())
}
