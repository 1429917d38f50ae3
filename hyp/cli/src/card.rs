//! The boot partition of a Raspberry Pi's card, less the files that only its vendor may hand out.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::output::{self, Medium, Output};
use crate::source;
use crate::system::{BUNDLE, IMAGE, System};

/// What the firmware is told.
pub const CONFIG: &str = "config.txt";
/// What the card needs besides.
pub const LIST: &str = "vendor-files.txt";

/// The overlay that makes the PL011 the console.
pub const OVERLAY: &str = "overlays/bulkhead.dtbo";

const CONFIG_TEXT: &str = include_str!("../../../board-support/rpi4/boot/config.txt");
const LIST_TEXT: &str = include_str!("../../../board-support/rpi4/boot/vendor-files.txt");
const OVERLAY_SOURCE: &str = include_str!("../../../board-support/rpi4/boot/bulkhead-overlay.dts");

/// Writes Bulkhead's part of the boot partition into `folder`: every file whole, or as it was.
///
/// # Errors
///
/// Where `folder` has files of these names that Bulkhead did not write (unless `force`), or where it cannot be written.
pub fn write(system: &System, folder: &Path, force: bool) -> Result<()> {
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let (overlay, messages) = source::dtc(OVERLAY_SOURCE, Path::new("."))?;
    let files = [
        (IMAGE, read(&system.image)?),
        (BUNDLE, read(&system.bundle)?),
        (OVERLAY, overlay.with_context(|| format!("dtc does not compile the overlay:\n{messages}"))?),
        (LIST, LIST_TEXT.into()),
        // Last, for it says that the others are there.
        (CONFIG, CONFIG_TEXT.into()),
    ];
    if !force {
        refuse_foreign(folder, files.each_ref().map(|(name, _)| *name))?;
    }
    let files = files.map(|(name, bytes)| Output::new(folder.join(name), bytes));
    output::write_all(&files, Medium::Removable)
}

/// A folder is Bulkhead's where its config.txt is.
fn refuse_foreign(folder: &Path, names: [&str; 5]) -> Result<()> {
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

    const NAMES: [&str; 5] = [IMAGE, BUNDLE, OVERLAY, LIST, CONFIG];

    #[test]
    fn the_configuration_names_the_files() {
        let config = Config::parse(CONFIG_TEXT).expect("complete");
        assert_eq!((config.kernel.as_str(), config.initramfs.as_str()), (IMAGE, BUNDLE));
        // Older firmware cuts longer lines off.
        assert!(CONFIG_TEXT.lines().all(|line| line.len() <= 78));
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
}
