//! How the tool writes files: a file is whole, or it is as it was.
//!
//! Each goes under a temporary name into the folder where it belongs and gets its own name when all of them are
//! complete. What a full disk, a missing right or a Ctrl-C leaves is removed: no loader ever takes half an image.

use std::error::Error;
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tempfile::{Builder, NamedTempFile};

use crate::interrupt::Postponed;

/// A file to write.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Output {
    /// Where; folders that are missing are made.
    pub path: PathBuf,
    /// Its content.
    pub bytes: Vec<u8>,
    /// Whether it is a program.
    pub executable: bool,
}

impl Output {
    /// A file that is no program.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), bytes: bytes.into(), executable: false }
    }
}

/// How sure it has to be that what was written stays.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Medium {
    /// A disk of this host.
    Disk,
    /// A card, which is pulled out soon after.
    Removable,
}

/// Writes one file on a disk.
///
/// # Errors
///
/// As [`write_all`].
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<()> {
    write_all(&[Output::new(path, bytes)], Medium::Disk)
}

/// As [`write_atomically`], but what is there already stays, unless `force`.
///
/// # Errors
///
/// As [`write_all`], or where there is such a file.
pub fn write_new(path: &Path, bytes: &[u8], force: bool) -> Result<()> {
    // What takes the bytes and keeps nothing loses nothing.
    let keeps = fs::symlink_metadata(path).is_ok_and(|found| found.is_file() || found.is_symlink());
    anyhow::ensure!(
        force || !keeps,
        "{} exists; name another file, or overwrite it with --force",
        path.display()
    );
    write_atomically(path, bytes)
}

/// Writes files: all that can fail for want of space or rights is done before the first of them changes.
///
/// # Errors
///
/// Names the file that cannot be written. Nothing new is left then, not even folders.
pub fn write_all(files: &[Output], medium: Medium) -> Result<()> {
    // A pipe may keep it waiting, and then Ctrl-C has to help.
    let (files, streams): (Vec<_>, Vec<_>) = files.iter().partition(|file| !is_stream(&real(&file.path)));
    for stream in streams {
        write_stream(stream).with_context(|| cannot(stream))?;
    }
    let postponed = Postponed::new().context("cannot catch signals")?;
    let mut made = Vec::new();
    let written = write_and_rename(&files, medium, &mut made, &postponed);
    if written.is_err() {
        // Only what is empty is removed, the innermost first.
        made.iter().rev().for_each(|folder| drop(fs::remove_dir(folder)));
    }
    postponed.settle();
    written
}

fn cannot(file: &Output) -> String {
    format!("cannot write {}", file.path.display())
}

fn write_and_rename(
    files: &[&Output],
    medium: Medium,
    made: &mut Vec<PathBuf>,
    postponed: &Postponed,
) -> Result<()> {
    // Those that are dropped before they get their names are removed.
    let mut whole = Vec::new();
    for file in files {
        whole.push((write_aside(file, medium, made).with_context(|| cannot(file))?, file));
        anyhow::ensure!(!postponed.is_pending(), "interrupted");
    }
    for (temporary, file) in whole {
        let persisted = temporary.persist(real(&file.path)).map_err(|error| bare(error.error));
        persisted.with_context(|| cannot(file))?;
    }
    Ok(())
}

/// Whether it is a device or a pipe, which takes bytes and has no use for a file in its place.
fn is_stream(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|found| !found.is_file() && !found.is_dir())
}

fn write_stream(file: &Output) -> std::io::Result<()> {
    File::options().write(true).open(&file.path)?.write_all(&file.bytes)
}

/// The file under a temporary name, complete.
fn write_aside(file: &Output, medium: Medium, made: &mut Vec<PathBuf>) -> Result<NamedTempFile> {
    let path = real(&file.path);
    anyhow::ensure!(!path.is_dir(), "it is a folder");
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    make_folder(folder, made)?;
    let mode = if file.executable { 0o777 } else { 0o666 };
    let mut builder = Builder::new();
    let builder = builder.prefix(".bulkhead-").permissions(Permissions::from_mode(mode));
    let mut temporary = builder.tempfile_in(folder).map_err(bare)?;
    // Its own methods name the temporary file, which nobody asked for.
    temporary.as_file_mut().write_all(&file.bytes)?;
    if medium == Medium::Removable {
        temporary.as_file().sync_all()?;
    }
    Ok(temporary)
}

/// What the system says, without the name of a temporary file.
fn bare(error: io::Error) -> io::Error {
    let mut cause: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(one) = cause {
        if let Some(code) = one.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return io::Error::from_raw_os_error(code);
        }
        cause = one.source();
    }
    io::Error::from(error.kind())
}

/// Where a link leads: the file is replaced and not the link.
fn real(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap_or_else(|_| path.to_owned())
}

fn make_folder(folder: &Path, made: &mut Vec<PathBuf>) -> Result<()> {
    let missing: Vec<_> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    for &folder in missing.iter().rev().filter(|folder| **folder != Path::new("")) {
        fs::create_dir(folder)?;
        made.push(folder.to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries =
            fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn all_files_or_none() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::write(root.join("old"), "old").expect("written");
        fs::write(root.join("file"), "no folder").expect("written");
        let good = Output::new(root.join("old"), "new");
        let deep = Output::new(root.join("a/b/c"), "new");
        let bad = Output::new(root.join("file/x"), "new");
        let error =
            write_all(&[good.clone(), deep.clone(), bad.clone()], Medium::Disk).expect_err("no place");
        assert!(
            format!("{error:#}").starts_with(&format!("cannot write {}: ", bad.path.display())),
            "{error:#}"
        );
        assert_eq!(names(root), ["file", "old"]);
        assert_eq!(fs::read(root.join("old")).expect("there"), b"old");
        write_all(&[good, deep], Medium::Removable).expect("written");
        assert_eq!(names(root), ["a", "file", "old"]);
        assert_eq!(fs::read(root.join("old")).expect("there"), b"new");
        assert_eq!(names(&root.join("a/b")), ["c"]);
        write_atomically(&root.join("a"), b"").expect_err("a folder");
    }

    #[test]
    fn a_full_device_is_an_error_and_a_link_stays() {
        write_atomically(Path::new("/dev/full"), b"x").expect_err("it takes nothing");
        let folder = tempfile::tempdir().expect("a folder");
        let (file, link) = (folder.path().join("file"), folder.path().join("link"));
        fs::write(&file, "old").expect("written");
        std::os::unix::fs::symlink("file", &link).expect("a link");
        write_atomically(&link, b"new").expect("written");
        assert_eq!(fs::read(&file).expect("there"), b"new");
        assert!(link.is_symlink());
    }

    #[test]
    fn errors_name_the_file_that_was_asked_for() {
        // No file can be made there, whoever asks.
        let error = write_atomically(Path::new("/proc/x"), b"").expect_err("no place");
        assert!(format!("{error:#}").starts_with("cannot write /proc/x: "), "{error:#}");
        assert!(!format!("{error:#}").contains(".bulkhead"), "{error:#}");
    }

    #[test]
    fn modes_are_the_users() {
        let folder = tempfile::tempdir().expect("a folder");
        let (plain, program) = (folder.path().join("plain"), folder.path().join("program"));
        fs::write(folder.path().join("as-usual"), "").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
        write_atomically(&plain, b"").expect("written");
        write_all(&[Output { executable: true, ..Output::new(&program, "") }], Medium::Disk)
            .expect("written");
        assert_eq!(mode(&plain), mode(&folder.path().join("as-usual")));
        assert_eq!(mode(&program) & 0o100, 0o100);
    }
}
