//! cpio archives of the `newc` kind, and the Linux partition's initramfs as one of them.
//!
//! Linux unpacks such an archive as its first root file system, and a Bulkhead bundle is one too. They are
//! written here and not by the `cpio` program so that no root is needed for device nodes and the same
//! inputs give the same bytes: owner and time are 0, inodes count from 1.

use anyhow::{Context, Result};

/// The first program of the Linux partition.
const INIT: &str = include_str!("../../../partitions/linux/init");

const S_IFCHR: u32 = 0o020_000;
const S_IFDIR: u32 = 0o040_000;
const S_IFREG: u32 = 0o100_000;

/// A `newc` archive in the making (Linux, Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
pub struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    /// An empty archive.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a regular file; `mode` is its permission bits.
    ///
    /// # Errors
    /// The format's sizes have 32 bits: the file or the name is larger.
    pub fn file(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.entry(name, S_IFREG | mode, (0, 0), bytes)
    }

    /// Adds a directory; `mode` is its permission bits. Parents come before children.
    ///
    /// # Errors
    /// The name does not fit the format.
    pub fn directory(&mut self, name: &str, mode: u32) -> Result<()> {
        self.entry(name, S_IFDIR | mode, (0, 0), &[])
    }

    /// Adds a character device; `mode` is its permission bits.
    ///
    /// # Errors
    /// The name does not fit the format.
    pub fn device(&mut self, name: &str, mode: u32, major: u32, minor: u32) -> Result<()> {
        self.entry(name, S_IFCHR | mode, (major, minor), &[])
    }

    /// The archive's bytes.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.header("TRAILER!!!", 0, 0, (0, 0), 0, 11);
        self.bytes
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), bytes: &[u8]) -> Result<()> {
        let size = u32::try_from(bytes.len())
            .with_context(|| format!("{name} is larger than the 4 GiB that an archive can hold"))?;
        let name_size = u32::try_from(name.len() + 1).context("a name is too long for an archive")?;
        self.entries += 1;
        self.header(name, self.entries, mode, device, size, name_size);
        self.bytes.extend_from_slice(bytes);
        self.pad();
        Ok(())
    }

    fn header(&mut self, name: &str, inode: u32, mode: u32, device: (u32, u32), size: u32, name_size: u32) {
        let links = 1;
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The initramfs of the Linux partition: busybox, and an `/init` that starts a shell or the load test.
///
/// # Errors
/// busybox does not fit into an archive.
pub fn build(busybox: &[u8]) -> Result<Vec<u8>> {
    let mut archive = Cpio::new();
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp"] {
        archive.directory(directory, 0o755)?;
    }
    // Numbers as in Linux, Documentation/admin-guide/devices.txt.
    archive.device("dev/null", 0o666, 1, 3)?;
    archive.device("dev/console", 0o600, 5, 1)?;
    archive.device("dev/ttyAMA0", 0o600, 204, 64)?;
    archive.file("bin/busybox", 0o755, busybox)?;
    archive.file("init", 0o755, INIT.as_bytes())?;
    Ok(archive.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_the_bytes_of_the_format() {
        let mut archive = Cpio::new();
        archive.file("a", 0o644, b"hello").expect("fits");
        let bytes = archive.finish();
        let expected = "07070100000001000081a400000000000000000000000100000000000000050000000000000000\
                        00000000000000000000000200000000a\0hello\0\0\0\
                        07070100000000000000000000000000000000000000010000000000000000000000000000000000000000\
                        000000000000000b00000000TRAILER!!!\0\0\0\0";
        assert_eq!(String::from_utf8_lossy(&bytes), expected);
        assert_eq!(bytes.len() % 4, 0);
    }

    #[test]
    fn the_same_inputs_give_the_same_initramfs() {
        assert_eq!(build(b"busybox").expect("fits"), build(b"busybox").expect("fits"));
    }
}
