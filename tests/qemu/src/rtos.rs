//! FreeRTOS without Linux: restarted beside another, and alone on the machine.

use std::time::Duration;

use anyhow::{Result, ensure};
use bulkhead::demo::{lateness, parse_heartbeats};
use bulkhead_hil::{Source, Target};

use crate::lab::{Lab, SOON, expect_power_off};

/// How long FreeRTOS is watched alone.
const ALONE: Duration = Duration::from_secs(10);

/// What is typed arrives, also where more comes at once than a FIFO takes.
pub fn typing(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.test_manifest("restart.dts"))?;
    for name in ["first", "second"] {
        let rtos = target.partition(name, SOON)?;
        target.expect(rtos, "^heartbeat 1:", SOON)?;
    }
    for line in 0..40 {
        let name = if line % 2 == 0 { "second" } else { "first" };
        let rtos = target.partition(name, SOON)?;
        target.focus(name)?;
        let typed = format!("{line:02} a line that is longer than the FIFO of a PL011");
        target.send(format!("{typed}\r").as_bytes())?;
        target.expect(rtos, &format!("unknown command `{typed}`"), SOON)?;
    }
    Ok(())
}

/// SYSTEM_RESET starts one partition again; the other's ticks go on.
pub fn restart_alone(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.test_manifest("restart.dts"))?;
    let first = target.partition("first", SOON)?;
    let second = target.partition("second", SOON)?;
    target.expect(second, "^heartbeat 2:", SOON)?;
    target.focus("first")?;
    for _ in 0..2 {
        target.expect(first, "^heartbeat 2:", SOON)?;
        target.send(b"reboot\r")?;
        target.expect(Source::HYPERVISOR, "^partition first: restart\n", SOON)?;
        target.expect(first, "^heartbeat 1:", SOON)?;
    }
    target.expect_new(second, "^heartbeat .*\n", SOON)?;
    let beats = parse_heartbeats(&target.text(second));
    for (beat, number) in beats.iter().zip(1..) {
        ensure!(beat.number == number && beat.lost == 0, "the other partition noticed: {beat:?}");
    }
    for name in ["first", "second"] {
        target.focus(name)?;
        target.send(b"off\r")?;
        target.expect(Source::HYPERVISOR, &format!("^partition {name}: off\n"), SOON)?;
    }
    expect_power_off(&mut target)
}

/// What the emulator itself makes late: the same image with nothing below and nobody beside it.
pub fn alone(lab: &Lab) -> Result<()> {
    let mut target = lab.start_bare("freertos")?;
    target.expect(Source::HYPERVISOR, "^heartbeat 1:", SOON)?;
    target.run_for(ALONE)?;
    println!(
        "FreeRTOS alone on the machine, without Bulkhead:\n{}",
        histogram(&mut target, Source::HYPERVISOR)?
    );
    let beats = parse_heartbeats(&target.text(Source::HYPERVISOR));
    ensure!(beats.iter().all(|beat| beat.lost == 0), "ticks are lost even there: {beats:?}");
    Ok(())
}

/// Asks FreeRTOS, which has the input, how late its ticks came.
pub fn histogram(target: &mut Target, rtos: Source) -> Result<String> {
    target.send(b"lateness\r")?;
    target.expect_new(rtos, "^max .*\n", SOON)?;
    Ok(lateness(&target.text(rtos)))
}
