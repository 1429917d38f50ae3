//! Manifests, most of them wrong, with the boards and payloads that they name.
//!
//! `rules` has a folder for each rule: `invalid.dts` breaks it and no other, `valid.dts` is its nearest neighbour that
//! breaks none. The policy, the tool and the hypervisor in QEMU are held against the same files, so that all three say the same of
//! them. The line where a fault is reported ends with `// <- BHnnnn`, that of the other party with `// <- other`.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

pub mod payloads;

/// The board of a manifest that names none.
const USUAL_BOARD: &str = "qemu-virt-gicv3";
/// What stands in front of the marks in a line.
const MARKS: &str = "// <- ";
/// The mark of the other party's line.
pub const OTHER: &str = "other";

/// The folder with all of them.
#[must_use]
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The two manifests of a rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rule {
    /// The rule's code: `BH` and four digits.
    pub code: String,
    /// What breaks it, and nothing else.
    pub invalid: Manifest,
    /// The same without the fault.
    pub valid: Manifest,
}

/// The manifests of all rules, in the order of the codes.
///
/// # Panics
///
/// Where a file cannot be read.
#[must_use]
pub fn rules() -> Vec<Rule> {
    let entries = fs::read_dir(folder().join("rules")).expect("the rules' manifests");
    let mut folders: Vec<_> = entries.map(|entry| entry.expect("a folder").path()).collect();
    folders.sort();
    let rule = |folder: PathBuf| Rule {
        code: folder.file_name().expect("a name").to_string_lossy().into_owned(),
        invalid: Manifest::read(folder.join("invalid.dts")),
        valid: Manifest::read(folder.join("valid.dts")),
    };
    folders.into_iter().map(rule).collect()
}

/// A manifest's source.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Manifest {
    /// Its file.
    pub path: PathBuf,
    /// What is in it.
    pub text: String,
}

/// A line of a manifest.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line<'m> {
    /// From 1.
    pub number: usize,
    /// What is in it.
    pub text: &'m str,
    /// Path of the node that it opens or stands in.
    pub node: String,
}

impl Manifest {
    /// Reads a source.
    ///
    /// # Panics
    ///
    /// Where it cannot be read.
    #[must_use]
    pub fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path)
            .unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()));
        Self { path, text }
    }

    /// What its first lines say of `kind`: lines like `// board: rpi4-qemu`.
    pub fn remarks(&self, kind: &str) -> impl Iterator<Item = &str> {
        self.text
            .lines()
            .filter_map(move |line| line.strip_prefix("// ")?.strip_prefix(kind)?.strip_prefix(": "))
    }

    /// The name of the board that it is for.
    #[must_use]
    pub fn board(&self) -> &str {
        self.remarks("board").next().unwrap_or(USUAL_BOARD)
    }

    /// The line with this mark, if there is one.
    #[must_use]
    pub fn marked(&self, mark: &str) -> Option<Line<'_>> {
        // A node is opened by a line's only or last opening brace, as people write them.
        let mut open: Vec<&str> = Vec::new();
        for (index, text) in self.text.lines().enumerate() {
            let (code, marks) = text.split_once(MARKS).unwrap_or((text, ""));
            open.extend(code.split_once('{').map(|(name, _)| name.trim().trim_matches('/')));
            if marks.split(", ").any(|found| found == mark) {
                let node = format!("/{}", open.join("/").trim_matches('/'));
                return Some(Line { number: index + 1, text: code, node });
            }
            if code.contains('}') {
                open.pop();
            }
        }
        None
    }

    /// Compiles it.
    ///
    /// # Panics
    ///
    /// Where dtc is missing or refuses it.
    #[must_use]
    pub fn compile(&self) -> Vec<u8> {
        // Forced: names given twice are for the rules to find.
        dtc(&["-f", "-I", "dts", "-O", "dtb"], &self.path)
    }
}

/// The tree of the board with this name.
///
/// # Panics
///
/// Where there is none.
#[must_use]
pub fn board(name: &str) -> Vec<u8> {
    let path = folder().join("boards").join(format!("{name}.dtb"));
    fs::read(&path).unwrap_or_else(|error| panic!("cannot read {}: {error}", path.display()))
}

/// Runs `dtc` on a file and returns what it writes.
///
/// # Panics
///
/// Where it is missing or refuses the file.
#[must_use]
pub fn dtc(options: &[&str], source: &Path) -> Vec<u8> {
    let output = Command::new("dtc").arg("-q").args(options).arg(source).output();
    let output = output.expect("dtc is installed (package device-tree-compiler)");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dtc refuses {}: {errors}", source.display());
    output.stdout
}

/// The payload with this name.
#[must_use]
pub fn payload(name: &str) -> Option<&'static [u8]> {
    static ALL: OnceLock<BTreeMap<String, Vec<u8>>> = OnceLock::new();
    ALL.get_or_init(payloads::all).get(name).map(Vec::as_slice)
}
