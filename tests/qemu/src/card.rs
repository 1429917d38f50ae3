//! What `build --sd` writes, started as a Raspberry Pi would.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use bulkhead::board::{Board, Origin};
use bulkhead::card::{CONFIG, Config, OVERLAY};
use bulkhead::linux::RPI4_TREE;
use bulkhead_hil::Source;

use crate::lab::{LONG, Lab};

/// The board's number, 16 digits of which the firmware puts into the tree.
const SERIAL_NUMBER: &str = "10000000c0ffee00";

/// The board's tree as the firmware and `dtoverlay=disable-bt` leave it.
const VENDOR: Origin = Origin::Firmware {
    file: RPI4_TREE,
    patched: "rpi4-qemu-card.dtb",
    lacks: &bulkhead_rpi4::QEMU_LACKS,
    settings: &[("/soc/serial@7e215040", "status", "disabled"), ("/", "serial-number", SERIAL_NUMBER)],
};

/// The demo boots from nothing but the files on the card, where its config.txt wants them, and Linux sees what the firmware says of the
/// board.
pub fn boots(lab: &Lab) -> Result<()> {
    let card = lab.folder().join("card");
    if card.exists() {
        fs::remove_dir_all(&card)?;
    }
    let mut tool = lab.workspace.cargo();
    tool.args(["run", "--quiet", "--package", "bulkhead", "--", "build", "--board", "rpi4", "--sd"])
        .arg(&card);
    let output = tool.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let config = Config::parse(&fs::read_to_string(card.join(CONFIG))?)?;
    let (kernel, initramfs) = (card.join(&config.kernel), card.join(&config.initramfs));
    // Both loaders read the header of the kernel; what it claims is of no interest here.
    let occupied = lab.board.occupied(1, fs::metadata(&initramfs)?.len(), 1).context("it does not fit")?;
    let places = (occupied.hypervisor.start().raw(), occupied.bundle.start().raw());
    ensure!(
        places == (config.kernel_address, config.initramfs_address),
        "QEMU and the check on the desk put things at {places:x?}, and the firmware elsewhere: {config:x?}"
    );

    // The firmware merges the overlay that is on the card; the vendor's is what QEMU's machine has anyway.
    let vendor = Board { origin: VENDOR, ..lab.board };
    let tree = lab.folder().join("merged.dtb");
    let mut merge = Command::new("fdtoverlay");
    merge.arg("-i").arg(vendor.firmware_tree()?).arg("-o").arg(&tree).arg(card.join(OVERLAY));
    ensure!(merge.status()?.success(), "fdtoverlay refuses {OVERLAY}");

    let mut command = lab.board.command()?;
    command.arg("-dtb").arg(tree).arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs);
    let mut target = lab.start_command(command)?;
    let linux = target.partition("linux", LONG)?;
    let rtos = target.partition("rtos", LONG)?;
    ensure!(target.text(Source::HYPERVISOR).contains("Raspberry Pi 4"), "the board is not recognized");
    target.expect(rtos, "^heartbeat 1: .* lost 0", LONG)?;
    let cpus = target.expect(linux, r"Linux is up: (\d+) CPUs", LONG)?;
    ensure!(&cpus[1] == "3", "Linux has {} CPUs", &cpus[1]);
    target.send(b"echo number $(cat /proc/device-tree/serial-number)\r")?;
    target.expect(linux, &format!("^number {SERIAL_NUMBER}"), LONG)?;
    Ok(())
}
