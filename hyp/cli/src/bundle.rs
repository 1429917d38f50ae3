//! The bundle: manifest, payloads and the inventory that the hypervisor holds them against at boot.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, ensure};
use bulkhead_policy::inventory;
use bulkhead_policy::manifest::BUNDLE_ENTRY;
use sha2::{Digest, Sha256};

use crate::initramfs::Cpio;

/// What goes into a bundle beside the manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// The file's content.
    pub bytes: Vec<u8>,
    /// What it is, where that is known: `Linux 6.1.0-56-arm64`.
    pub version: Option<String>,
}

impl Payload {
    /// A file of which nothing is known but what it says itself.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { version: linux_version(&bytes), bytes }
    }
}

/// The version that a Linux kernel carries: the banner of its log begins with it.
fn linux_version(image: &[u8]) -> Option<String> {
    const BANNER: &[u8] = b"Linux version ";
    let start = image.windows(BANNER.len()).position(|window| window == BANNER)? + BANNER.len();
    let release: Vec<u8> = image[start..].iter().copied().take_while(u8::is_ascii_graphic).take(64).collect();
    (release.first()?.is_ascii_digit()).then(|| format!("Linux {}", String::from_utf8_lossy(&release)))
}

/// The bundle of a compiled manifest and its payloads.
///
/// # Errors
///
/// Where a payload has a name or a size that a bundle cannot have.
pub fn build(manifest: &[u8], payloads: &BTreeMap<String, Payload>) -> Result<Vec<u8>> {
    let mut archive = Cpio::new();
    archive.file(BUNDLE_ENTRY, 0o644, manifest)?;
    archive.file(inventory::ENTRY, 0o644, list(manifest, payloads)?.as_bytes())?;
    for (name, payload) in payloads {
        archive.file(name, 0o644, &payload.bytes)?;
    }
    Ok(archive.finish())
}

/// The inventory (`bulkhead_policy::inventory` says what it looks like).
fn list(manifest: &[u8], payloads: &BTreeMap<String, Payload>) -> Result<String> {
    let mut text = format!("# Made by Bulkhead {}.\n", env!("CARGO_PKG_VERSION"));
    let mut add = |name: &str, bytes: &[u8], version: Option<&str>| {
        let separator = if version.is_some() { ", " } else { "" };
        let version = version.unwrap_or_default();
        writeln!(text, "# {} bytes{separator}{version}\n{}  {name}", bytes.len(), sha256(bytes))
    };
    add(BUNDLE_ENTRY, manifest, None)?;
    for (name, Payload { bytes, version }) in payloads {
        // sha256sum writes such names in another way.
        ensure!(
            !name.contains(['\\', '\n', '\r']),
            "a payload cannot be called {name:?}; give the file a name without backslashes and line ends"
        );
        add(name, bytes, version.as_deref())?;
    }
    let seal = sha256(text.as_bytes());
    writeln!(text, "# {seal}  -")?;
    Ok(text)
}

/// SHA-256 as hexadecimal digits.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use bulkhead_policy::bundle::Bundle;
    use bulkhead_policy::inventory::{Inventory, compress_in_software};

    use super::*;

    fn payloads() -> BTreeMap<String, Payload> {
        let kernel = b"MZ\0Linux version 6.1.0-56-arm64 (someone@somewhere)\0".to_vec();
        BTreeMap::from([
            ("Image".to_owned(), Payload::new(kernel)),
            ("my file.bin".to_owned(), Payload::new(vec![1; 1000])),
            ("rtos".to_owned(), Payload { bytes: Vec::new(), version: Some("rtos 1.0".to_owned()) }),
        ])
    }

    #[test]
    fn the_hypervisor_accepts_what_is_made_here() {
        let bytes = build(b"manifest", &payloads()).expect("a bundle");
        let bundle = Bundle::new(&bytes).expect("a bundle");
        let entry = bundle.find(inventory::ENTRY).expect("an inventory");
        let inventory = Inventory::new(entry, compress_in_software).expect("an inventory");
        for (entry, about) in bundle.entries().filter(|entry| entry.name != inventory::ENTRY).zip([
            "8 bytes",
            "52 bytes, Linux 6.1.0-56-arm64",
            "1000 bytes",
            "0 bytes, rtos 1.0",
        ]) {
            let verdict = inventory.verify(entry.name, entry.data, compress_in_software);
            assert!(verdict.is_good(), "{}{verdict}", entry.name);
            assert_eq!(String::from_utf8_lossy(verdict.about), about);
        }
    }

    #[test]
    fn a_kernel_says_its_version() {
        assert_eq!(
            linux_version(b"xLinux version 6.1.0-56-arm64 (x)").as_deref(),
            Some("Linux 6.1.0-56-arm64")
        );
        for without in [&b"Linux version %s"[..], b"Linux version ", b"", b"Linux"] {
            assert_eq!(linux_version(without), None);
        }
    }

    #[test]
    fn sha256sum_accepts_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let bytes = build(b"manifest", &payloads()).expect("a bundle");
        for entry in Bundle::new(&bytes).expect("a bundle").entries() {
            std::fs::write(folder.path().join(entry.name), entry.data).expect("written");
        }
        let mut check = Command::new("sha256sum");
        check.args(["--check", "--strict", "--quiet", inventory::ENTRY]).current_dir(folder.path());
        assert!(check.status().expect("sha256sum").success());
        std::fs::write(folder.path().join("rtos"), "x").expect("written");
        assert!(
            !check
                .stdout(std::process::Stdio::null())
                .stderr(std::process::Stdio::null())
                .status()
                .expect("sha256sum")
                .success()
        );
    }

    #[test]
    fn names_that_cannot_be() {
        for name in ["two\nlines", "back\\slash"] {
            let payloads = BTreeMap::from([(name.to_owned(), Payload::new(Vec::new()))]);
            build(b"manifest", &payloads).expect_err(name);
        }
    }
}
