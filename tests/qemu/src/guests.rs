//! Bare guests that check their own machine and attack the others'.

use std::path::PathBuf;

use anyhow::{Result, ensure};
use bulkhead::board::{Board, RPI4};
use bulkhead_hil::Source;

use crate::lab::{LONG, Lab, SOON, expect_power_off, expect_verdict};

/// Two partitions of two CPUs each check their machines at the same time.
pub fn pair(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.system_manifest("pair.dts"))?;
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

/// Each CPU of a larger machine is a partition.
pub fn sixteen(lab: &Lab) -> Result<()> {
    tenants(lab, Board { cpus: 16, ..lab.board }, 16, lab.test_manifest("sixteen.dts"))
}

/// As many partitions and CPUs as there may be.
pub fn thirty_two(lab: &Lab) -> Result<()> {
    let manifest = lab.workspace.root().join("tests/manifests/scale/thirty-two.dts");
    tenants(lab, Board { cpus: 64, memory: 4096, ..lab.board }, 32, manifest)
}

/// All of `count` equal guests pass, each as the one that its partition is.
fn tenants(lab: &Lab, board: Board, count: usize, manifest: PathBuf) -> Result<()> {
    let mut target = lab.start_on(board, manifest)?;
    for number in 0..count {
        let tenant = target.partition(&format!("tenant-{number}"), SOON)?;
        target.expect(tenant, &format!("^tenant {number}\n"), SOON)?;
        expect_verdict(&mut target, tenant)?;
    }
    expect_power_off(&mut target)
}

/// The same guest on the bare machine: it asks for nothing but what the machine does.
pub fn conformance_without_bulkhead(lab: &Lab) -> Result<()> {
    let mut target = lab.start_bare("conformance")?;
    expect_verdict(&mut target, Source::HYPERVISOR)?;
    ensure!(target.wait(SOON)?.success(), "QEMU failed:\n{}", target.complaints());
    Ok(())
}

/// One partition has the whole machine.
pub fn conformance_on_four_cpus(lab: &Lab) -> Result<()> {
    conformance(lab, lab.board)
}

/// The hypervisor's image knows nothing of the machine: other CPUs, another number of them, other RAM.
pub fn another_machine_same_image(lab: &Lab) -> Result<()> {
    let others = [
        Board { cpu: "cortex-a53", cpus: 6, memory: 640, ..lab.board },
        Board { cpu: "neoverse-n1", memory: 4096, ..lab.board },
    ];
    others.into_iter().try_for_each(|board| conformance(lab, board))
}

fn conformance(lab: &Lab, board: Board) -> Result<()> {
    let mut target = lab.start_on(board, lab.system_manifest("conformance.dts"))?;
    let guest = target.partition("conformance", SOON)?;
    expect_verdict(&mut target, guest)?;
    expect_power_off(&mut target)
}

/// Images linked for one place run unchanged on any CPU at any place in memory.
pub fn elsewhere(lab: &Lab) -> Result<()> {
    let manifest = if lab.board == RPI4 { "elsewhere-rpi4.dts" } else { "elsewhere.dts" };
    let mut target = lab.start(lab.test_manifest(manifest))?;
    let guest = target.partition("conformance", SOON)?;
    let rtos = target.partition("rtos", SOON)?;
    expect_verdict(&mut target, guest)?;
    target.expect(rtos, "^heartbeat [0-9]+: ticks [0-9]+, lost 0", SOON)?;
    target.focus("rtos")?;
    target.send(b"off\r")?;
    expect_power_off(&mut target)
}

/// More interrupts pending than list registers, a million times.
pub fn storm(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.system_manifest("storm.dts"))?;
    let guest = target.partition("storm", SOON)?;
    // The longest part.
    target.expect(guest, "^TEST storm-polled-split-end ", LONG)?;
    expect_verdict(&mut target, guest)?;
    expect_power_off(&mut target)
}

/// One guest breaks every rule; the other's deadlines hold, and only the attacker notices its attacks.
pub fn hostile(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.system_manifest("hostile.dts"))?;
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
