//! The Raspberry Pi 4 with a CPU that does not start.

use anyhow::Result;
use bulkhead::board::{Board, Origin};
use bulkhead::linux::RPI4_TREE;
use bulkhead_hil::Source;

use crate::lab::{Lab, SOON, expect_power_off};

/// CPU 1 looks elsewhere for its release: not at 0x80800, which with the string's end is 64 bits.
const WITHOUT_CPU_1: Origin = Origin::Firmware {
    file: RPI4_TREE,
    patched: "rpi4-qemu-without-cpu-1.dtb",
    lacks: &bulkhead_rpi4::QEMU_LACKS,
    settings: &[
        ("/chosen", "stdout-path", "serial0:115200n8"),
        ("/cpus/cpu@1", "cpu-release-addr", "\0\0\0\0\0\u{8}\u{8}"),
    ],
};

/// The partition that owns it does not start, and says why; the other one does.
pub fn missing(lab: &Lab) -> Result<()> {
    let board = Board { origin: WITHOUT_CPU_1, ..lab.board };
    let mut target = lab.start_on(board, lab.test_manifest("restart.dts"))?;
    target.expect(Source::HYPERVISOR, "^partition second: not started: CPU 1 does not start\n", SOON)?;
    let rtos = target.partition("first", SOON)?;
    target.expect(rtos, "^heartbeat 1:", SOON)?;
    target.focus("first")?;
    target.send(b"off\r")?;
    expect_power_off(&mut target)
}
