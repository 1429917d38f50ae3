//! The boot partition of a Raspberry Pi's card, less the files that only its vendor may hand out.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use tempfile::Builder;

use crate::system::{self, BUNDLE, IMAGE, System};

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
    let (overlay, messages) = system::dtc(OVERLAY_SOURCE, Path::new("."))?;
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
    let is_new = !folder.exists();
    let written = write_all(folder, &files);
    if written.is_err() && is_new {
        // Only what is empty is removed.
        let _ = fs::remove_dir(folder.join("overlays"));
        let _ = fs::remove_dir(folder);
    }
    written
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

fn write_all(folder: &Path, files: &[(&str, Vec<u8>)]) -> Result<()> {
    // Those that are dropped before they get their names are removed.
    let mut whole = Vec::new();
    for (name, bytes) in files {
        let path = folder.join(name);
        let cannot = || format!("cannot write {}", path.display());
        let parent = path.parent().unwrap_or(folder);
        fs::create_dir_all(parent).with_context(cannot)?;
        let readable = Permissions::from_mode(0o644);
        let mut file = Builder::new().permissions(readable).tempfile_in(parent).with_context(cannot)?;
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

    const NAMES: [&str; 5] = [IMAGE, BUNDLE, OVERLAY, LIST, CONFIG];

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

    #[test]
    fn nothing_half_written_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("overlays"), "no folder").expect("written");
        let files = [(IMAGE, vec![1]), (OVERLAY, vec![2])];
        write_all(folder.path(), &files).expect_err("no place for the second");
        assert_eq!(names(folder.path()), ["overlays"]);
        write_all(folder.path(), &files[..1]).expect("written");
        assert_eq!(names(folder.path()), [IMAGE, "overlays"]);
    }
}
