//! How the tool reads files that users name: whatever is wrong with one is said in a line, and no
//! payload makes the tool wait for ever.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};

/// Sources and trees are smaller. Whoever names a disk image by mistake learns it before the memory is full.
const MAX_TEXT: u64 = 16 << 20;

/// All bytes of a source, a tree or a configuration. It may come through a pipe.
///
/// # Errors
///
/// Where it cannot be read, or is larger than any of these is.
pub fn bytes(path: &Path) -> Result<Vec<u8>> {
    let bytes = start(path, MAX_TEXT + 1)?;
    ensure!(
        bytes.len() as u64 <= MAX_TEXT,
        "{} has more than {} MiB; it is not what it was taken for",
        path.display(),
        MAX_TEXT >> 20
    );
    Ok(bytes)
}

/// As [`bytes`], of a text.
///
/// # Errors
///
/// As [`bytes`], or where it is no UTF-8.
pub fn text(path: &Path) -> Result<String> {
    String::from_utf8(bytes(path)?).map_err(|error| {
        anyhow::anyhow!(
            "{} is no text: byte {} is not UTF-8",
            path.display(),
            error.utf8_error().valid_up_to()
        )
    })
}

/// The whole of a payload, which is a file on a disk.
///
/// # Errors
///
/// Where it is anything else, cannot be read or does not fit into a bundle, whose sizes have 32 bits.
pub fn payload(path: &Path) -> Result<Vec<u8>> {
    refuse_what_is_no_file(path)?;
    let size = fs::metadata(path).with_context(|| cannot_read(path))?.len();
    ensure!(
        size <= u64::from(u32::MAX),
        "{} has {} MiB; a payload has less than 4096",
        path.display(),
        size >> 20
    );
    fs::read(path).with_context(|| cannot_read(path))
}

/// The first bytes of a payload.
///
/// # Errors
///
/// As [`payload`].
pub fn head(path: &Path, size: u64) -> Result<Vec<u8>> {
    refuse_what_is_no_file(path)?;
    start(path, size)
}

/// Says early what would be said after a long build: that there is no such file, or no such folder.
///
/// # Errors
///
/// Where there is none, or it is the other.
pub fn expect(path: &Path, is_folder: bool) -> Result<()> {
    let found = fs::metadata(path).with_context(|| cannot_read(path))?;
    match (is_folder, found.is_dir()) {
        (true, false) => bail!("{} is a file, not a folder", path.display()),
        (false, true) => bail!("{} is a folder, not a file", path.display()),
        _ => Ok(()),
    }
}

/// Reading a pipe that nobody writes to would never end.
fn refuse_what_is_no_file(path: &Path) -> Result<()> {
    let found = fs::metadata(path).with_context(|| cannot_read(path))?;
    if found.is_dir() {
        bail!("{} is a folder, not a file", path.display());
    }
    ensure!(found.is_file(), "{} is a device or a pipe, not a file", path.display());
    Ok(())
}

fn start(path: &Path, size: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| cannot_read(path))?;
    file.take(size).read_to_end(&mut bytes).with_context(|| cannot_read(path))?;
    Ok(bytes)
}

fn cannot_read(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_said() {
        let folder = tempfile::tempdir().expect("a folder");
        let said = |result: Result<Vec<u8>>| format!("{:#}", result.expect_err("no file"));
        let nothing = folder.path().join("nothing");
        assert!(said(bytes(&nothing)).starts_with("cannot read "));
        assert!(said(payload(&nothing)).starts_with("cannot read "));
        assert!(said(payload(folder.path())).ends_with("is a folder, not a file"));
        assert!(said(payload(Path::new("/dev/zero"))).ends_with("is a device or a pipe, not a file"));
        assert!(said(head(Path::new("/dev/zero"), 4)).ends_with("is a device or a pipe, not a file"));
        assert!(said(bytes(Path::new("/dev/zero"))).contains("has more than 16 MiB"));
        let binary = folder.path().join("binary");
        fs::write(&binary, b"ab\xff").expect("written");
        assert!(format!("{:#}", text(&binary).expect_err("no text")).ends_with("byte 2 is not UTF-8"));
        assert_eq!(head(&binary, 2).expect("a file"), b"ab");
        assert_eq!(bytes(Path::new("/dev/null")).expect("empty"), b"");
        let large = folder.path().join("large");
        File::create(&large).and_then(|file| file.set_len(5 << 30)).expect("a file of holes");
        assert!(said(payload(&large)).ends_with("has 5120 MiB; a payload has less than 4096"));
    }
}
