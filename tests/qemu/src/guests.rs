//! Bare guests that check their own machine and attack the others'.

use anyhow::{Result, ensure};
use bulkhead::board::{Board, QEMU_VIRT};
use bulkhead::elf::Executable;
use bulkhead::workspace::Noise;
use bulkhead_hil::Source;

use crate::lab::{LONG, Lab, SOON, expect_power_off, expect_verdict};

/// Two partitions of two CPUs each check their machines at the same time.
pub fn pair(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.system_manifest("pair.dts"), QEMU_VIRT)?;
    for name in ["left", "right"] {
        let guest = target.partition(name, SOON)?;
        expect_verdict(&mut target, guest)?;
    }
    expect_power_off(&mut target)?;
    for name in ["left", "right"] {
        let off = target.text(Source::HYPERVISOR).contains(&format!("\npartition {name}: off\n"));
        ensure!(off, "the hypervisor did not say that {name} is off");
    }
    Ok(())
}

/// The same guest on the bare machine: it asks for nothing but what the machine does.
pub fn conformance_without_bulkhead(lab: &Lab) -> Result<()> {
    let image = Executable::read(&lab.workspace.build("conformance", Noise::Quiet)?)?.flatten()?;
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), image)?;
    let bare = Board { machine: "virt,gic-version=3", ..QEMU_VIRT };
    let mut command = bare.command();
    command.arg("-kernel").arg(file.path());
    let mut target = lab.start_command(command)?;
    expect_verdict(&mut target, Source::HYPERVISOR)?;
    ensure!(target.wait(SOON)?.success(), "QEMU failed:\n{}", target.complaints());
    Ok(())
}

/// One partition has the whole machine.
pub fn conformance_on_four_cpus(lab: &Lab) -> Result<()> {
    conformance(lab, "conformance.dts", QEMU_VIRT)
}

/// The hypervisor's image knows nothing of the machine: other CPUs, another number of them, other RAM.
pub fn another_machine_same_image(lab: &Lab) -> Result<()> {
    let others = [
        Board { cpu: "cortex-a53", cpus: 6, memory: 640, ..QEMU_VIRT },
        Board { cpu: "neoverse-n1", memory: 4096, ..QEMU_VIRT },
    ];
    others.into_iter().try_for_each(|board| conformance(lab, "conformance.dts", board))
}

fn conformance(lab: &Lab, manifest: &str, board: Board) -> Result<()> {
    let mut target = lab.start(lab.system_manifest(manifest), board)?;
    let guest = target.partition("conformance", SOON)?;
    expect_verdict(&mut target, guest)?;
    expect_power_off(&mut target)
}

/// Images linked for one place run unchanged on any CPU at any place in memory.
pub fn elsewhere(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.test_manifest("elsewhere.dts"), QEMU_VIRT)?;
    let guest = target.partition("conformance", SOON)?;
    let rtos = target.partition("rtos", SOON)?;
    expect_verdict(&mut target, guest)?;
    target.expect(rtos, "^heartbeat [0-9]+: ticks [0-9]+, lost 0", SOON)?;
    target.focus("rtos")?;
    target.send(b"off\r")?;
    expect_power_off(&mut target)
}

/// One guest breaks every rule; the other's deadlines hold, and only the attacker notices its attacks.
pub fn hostile(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.system_manifest("hostile.dts"), QEMU_VIRT)?;
    let hostile = target.partition("hostile", SOON)?;
    let neighbour = target.partition("neighbour", SOON)?;
    expect_verdict(&mut target, hostile)?;
    target.expect(Source::HYPERVISOR, "^partition hostile: off\n", LONG)?;
    expect_verdict(&mut target, neighbour)?;
    expect_power_off(&mut target)?;
    let forged: Vec<_> = target.lines().iter().filter(|line| line.text.contains("FORGED by")).collect();
    ensure!(!forged.is_empty(), "the hostile guest forged no line");
    for line in forged {
        ensure!(line.source == hostile, "the hostile guest spoke as {}: {}", line.source, line.text);
    }
    Ok(())
}
