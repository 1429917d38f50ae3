//! The boot partition of a Raspberry Pi's card, less the files that only its vendor may hand out.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::Builder;

use crate::system::{BUNDLE, IMAGE, System};

/// What the firmware is told.
pub const CONFIG: &str = "config.txt";
/// What the card needs besides.
pub const LIST: &str = "vendor-files.txt";

/// Where the firmware puts the hypervisor and the bundle: where QEMU puts them, so that the check on the desk reserves the right
/// places. The bundle could also follow the kernel (`followkernel`), but the kernel's file ends where its zeroed data begins.
const CONFIG_TEXT: &str = "\
# Boots Bulkhead. Written by `cargo bulkhead build --board rpi4 --sd`.
# What the options mean: https://www.raspberrypi.com/documentation/computers/config_txt.html

# The hypervisor is a 64-bit kernel to the firmware.
arm_64bit=1
kernel=bulkhead.img
kernel_address=0x200000

# Manifest and payloads, far from the end of the hypervisor. No `=` here: this option has none.
initramfs bundle.cpio 0x08000000

# Interrupts go through the GIC-400, which has what it takes to give each partition its own.
enable_gic=1

# The console is the PL011 on pins 8 (TXD) and 10 (RXD), 115200 baud. Without the overlay Bluetooth has it.
enable_uart=1
dtoverlay=disable-bt

# The firmware says on the same pins what it loads: look there when Bulkhead prints nothing.
uart_2ndstage=1
";

/// The list of what is missing.
const LIST_TEXT: &str = "\
Bulkhead's part of a Raspberry Pi 4's boot partition (FAT) is in this folder:

  bulkhead.img    the hypervisor
  bundle.cpio     the manifest and the images that it names
  config.txt      what the firmware does with them

The rest belongs to the vendor. Take these files from a Raspberry Pi OS card or from the folder boot of
https://github.com/raspberrypi/firmware, all of one version:

  start4.elf                  the firmware of the VideoCore
  fixup4.dat                  goes with it
  bcm2711-rpi-4-b.dtb         the board's device tree, which the firmware completes
  overlays/disable-bt.dtbo    gives the PL011 to pins 8 and 10

There must be no armstub8*.bin: the stub inside the firmware is the one that Bulkhead expects. The board starts from
its EEPROM, so bootcode.bin is not needed.
";

/// Writes Bulkhead's part of the boot partition into `folder`: every file whole, or as it was.
///
/// # Errors
///
/// Where `folder` has files of these names that Bulkhead did not write (unless `force`), or where it cannot be written.
pub fn write(system: &System, folder: &Path, force: bool) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let files = [
        (IMAGE, read(&system.image)?),
        (BUNDLE, read(&system.bundle)?),
        (LIST, LIST_TEXT.into()),
        // Last, for it says that the others are there.
        (CONFIG, CONFIG_TEXT.into()),
    ];
    if !force {
        refuse_foreign(folder, files.each_ref().map(|(name, _)| *name))?;
    }
    let is_new = !folder.exists();
    let written = write_all(folder, &files);
    if written.is_err() && is_new {
        // Only what is empty is removed.
        let _ = fs::remove_dir(folder);
    }
    written
}

/// A folder is Bulkhead's where its config.txt is.
fn refuse_foreign(folder: &Path, names: [&str; 4]) -> Result<()> {
    let config = fs::read(folder.join(CONFIG)).ok();
    if config.as_deref() == Some(CONFIG_TEXT.as_bytes()) {
        return Ok(());
    }
    let foreign = names.into_iter().rev().find(|name| folder.join(name).exists());
    ensure!(
        foreign.is_none(),
        "{} is not as this command writes it; move it away, or overwrite it with --force",
        folder.join(foreign.unwrap_or_default()).display()
    );
    Ok(())
}

fn write_all(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    // Those that are dropped before they get their names are removed.
    let mut whole = Vec::new();
    for (name, bytes) in files {
        let path = folder.join(name);
        let cannot = || format!("cannot write {}", path.display());
        let readable = Permissions::from_mode(0o644);
        let mut file = Builder::new().permissions(readable).tempfile_in(folder).with_context(cannot)?;
        file.write_all(bytes).with_context(cannot)?;
        // A card is pulled out soon after.
        file.as_file().sync_all().with_context(cannot)?;
        whole.push((file, path));
    }
    for (file, path) in whole {
        file.persist(&path).with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
}

/// What a config.txt tells the firmware to load.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Config {
    /// The kernel's file.
    pub kernel: String,
    /// Where it goes.
    pub kernel_address: u64,
    /// The file that is handed over as the initrd.
    pub initramfs: String,
    /// Where it goes.
    pub initramfs_address: u64,
}

impl Config {
    /// Reads the lines of a config.txt that name files, as the firmware does.
    ///
    /// # Errors
    ///
    /// Where one of them is missing.
    pub fn parse(text: &str) -> Result<Self> {
        let line = |prefix: &str| {
            let found = text.lines().find_map(|line| line.strip_prefix(prefix));
            found.with_context(|| format!("config.txt has no line {prefix}..."))
        };
        let address = |text: &str| {
            let digits = text.strip_prefix("0x").with_context(|| format!("{text} is no address"))?;
            u64::from_str_radix(digits, 16).with_context(|| format!("{text} is no address"))
        };
        let initramfs = line("initramfs ")?;
        let (initramfs, initramfs_address) =
            initramfs.split_once(' ').context("config.txt says of no initramfs where it goes")?;
        Ok(Self {
            kernel: line("kernel=")?.to_owned(),
            kernel_address: address(line("kernel_address=")?)?,
            initramfs: initramfs.to_owned(),
            initramfs_address: address(initramfs_address)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&str; 4] = [IMAGE, BUNDLE, LIST, CONFIG];

    fn names(folder: &Path) -> Vec<String> {
        let entries =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_configuration_names_the_files() {
        let config = Config::parse(CONFIG_TEXT).expect("complete");
        assert_eq!((config.kernel.as_str(), config.initramfs.as_str()), (IMAGE, BUNDLE));
        for name in NAMES.iter().filter(|&&name| name != LIST) {
            assert!(LIST_TEXT.contains(name), "{name}");
        }
    }

    #[test]
    fn what_is_not_ours_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        refuse_foreign(folder.path(), NAMES).expect("empty");
        fs::write(folder.path().join("start4.elf"), "").expect("written");
        refuse_foreign(folder.path(), NAMES).expect("of no interest");
        fs::write(folder.path().join(CONFIG), "gpu_mem=16\n").expect("written");
        let error = refuse_foreign(folder.path(), NAMES).expect_err("foreign").to_string();
        assert!(error.contains(CONFIG) && !error.contains("start4"), "{error}");
        fs::write(folder.path().join(CONFIG), CONFIG_TEXT).expect("written");
        refuse_foreign(folder.path(), NAMES).expect("ours");
    }

    #[test]
    fn nothing_half_written_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let files = [(IMAGE, vec![1]), ("no/such/folder", vec![2])];
        write_all(folder.path(), &files).expect_err("no such folder");
        let after = names(folder.path());
        assert!(after.iter().all(|name| name == IMAGE), "{after:?}");
        write_all(folder.path(), &files[..1]).expect("written");
        assert_eq!(names(folder.path()), [IMAGE]);
    }
}
