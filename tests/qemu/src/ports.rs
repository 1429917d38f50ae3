//! The Raspberry Pi 4 with other serial ports than its firmware usually leaves it.

use anyhow::Result;
use bulkhead::board::{Board, Origin};
use bulkhead::linux::RPI4_TREE;
use bulkhead_hil::Source;

use crate::lab::{Lab, SOON, expect_power_off, expect_verdict};

/// The mini-UART, QEMU's second serial line, is the console.
const MINI_UART: Origin = Origin::Firmware {
    file: RPI4_TREE,
    patched: "rpi4-qemu-mini-uart.dtb",
    lacks: &bulkhead_rpi4::QEMU_LACKS,
    settings: &[("/chosen", "stdout-path", "serial1:115200n8")],
};

/// The same with UART 3 switched on, as by `dtoverlay=uart3`: the PL011s are free for partitions.
const UART3: Origin = Origin::Firmware {
    file: RPI4_TREE,
    patched: "rpi4-qemu-uart3.dtb",
    lacks: &bulkhead_rpi4::QEMU_LACKS,
    settings: &[("/chosen", "stdout-path", "serial1:115200n8"), ("/soc/serial@7e201600", "status", "okay")],
};

/// Nothing hangs on the first.
const SECOND_LINE: &[&str] = &["-serial", "null"];

/// What is printed on the mini-UART arrives, and what is typed there.
pub fn mini_uart(lab: &Lab) -> Result<()> {
    let board = Board { origin: MINI_UART, options: SECOND_LINE, ..lab.board };
    let mut target = lab.start_on(board, lab.test_manifest("restart.dts"))?;
    for name in ["first", "second"] {
        let rtos = target.partition(name, SOON)?;
        target.expect(rtos, "^heartbeat 1:", SOON)?;
        target.focus(name)?;
        target.send(b"stats\r")?;
        target.expect(rtos, "^heap:", SOON)?;
        target.send(b"off\r")?;
    }
    expect_power_off(&mut target)
}

/// The firmware's tree names the mini-UART and the manifest the PL011: the trace of the boot is there, and all that follows the check of
/// the manifest.
pub fn console_of_the_manifest(lab: &Lab) -> Result<()> {
    let board = Board { origin: MINI_UART, ..lab.board };
    let mut target = lab.start_on(board, lab.test_manifest("console-rpi4.dts"))?;
    target.expect(Source::HYPERVISOR, "^Bulkhead\n", SOON)?;
    target.expect(Source::HYPERVISOR, "^bulkhead .* on Raspberry Pi 4\n", SOON)?;
    for name in ["first", "second"] {
        let rtos = target.partition(name, SOON)?;
        target.expect(rtos, "^heartbeat 1:", SOON)?;
        target.focus(name)?;
        target.send(b"off\r")?;
    }
    expect_power_off(&mut target)
}

/// Two partitions have different pins of one page and different UARTs of another, and write all that they reach.
pub fn sub_page(lab: &Lab) -> Result<()> {
    let board = Board { origin: UART3, options: SECOND_LINE, ..lab.board };
    let mut target = lab.start_on(board, lab.test_manifest("sub-page.dts"))?;
    for name in ["left", "right"] {
        let guest = target.partition(name, SOON)?;
        expect_verdict(&mut target, guest)?;
    }
    expect_power_off(&mut target)
}
