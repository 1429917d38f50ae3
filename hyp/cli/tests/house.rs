//! The rules of the house that no compiler enforces: where unsafe code may be, who may depend on whom.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead::workspace::Workspace;
use cargo_metadata::{Dependency, DependencyKind, Metadata, MetadataCommand};

/// What each package may depend on within the workspace: downwards only. A new package needs a row.
const LAYERS: [(&str, &[&str]); 23] = [
    ("bulkhead-abi", &[]),
    ("bulkhead-policy", &["bulkhead-abi", "bulkhead-board"]),
    ("bulkhead-arch", &["bulkhead-abi", "bulkhead-policy"]),
    ("bulkhead-board", &[]),
    ("bulkhead-qemu-virt", &["bulkhead-board"]),
    ("bulkhead-rpi4", &["bulkhead-board"]),
    ("bulkhead-boards", &["bulkhead-board", "bulkhead-qemu-virt", "bulkhead-rpi4"]),
    (
        "bulkhead-el2",
        &["bulkhead-arch", "bulkhead-board", "bulkhead-boards", "bulkhead-exits", "bulkhead-policy"],
    ),
    ("bulkhead-exits", &["bulkhead-arch", "bulkhead-policy"]),
    ("bulkhead-rt", &["bulkhead-abi"]),
    ("bulkhead-bench", &["bulkhead-abi", "bulkhead-rt"]),
    ("bulkhead-conformance", &["bulkhead-abi", "bulkhead-rt"]),
    ("bulkhead-hostile", &["bulkhead-abi", "bulkhead-rt"]),
    ("bulkhead-storm", &["bulkhead-rt"]),
    ("bulkhead-sub-page", &["bulkhead-rt"]),
    ("bulkhead-tenant", &["bulkhead-rt"]),
    ("bulkhead-freertos", &[]),
    ("bulkhead-fixtures", &[]),
    ("bulkhead-hil", &[]),
    ("bulkhead", &["bulkhead-board", "bulkhead-boards", "bulkhead-hil", "bulkhead-policy", "bulkhead-rpi4"]),
    ("bulkhead-properties", &["bulkhead-policy"]),
    ("bulkhead-fuzz", &["bulkhead-boards", "bulkhead-policy"]),
    (
        "bulkhead-qemu-tests",
        &[
            "bulkhead",
            "bulkhead-boards",
            "bulkhead-fixtures",
            "bulkhead-hil",
            "bulkhead-policy",
            "bulkhead-rpi4",
        ],
    ),
];

/// Crates whose safe functions touch hardware, and who alone may depend on them.
const HARDWARE_CRATES: [&str; 2] = ["aarch64-cpu", "tock-registers"];
const MECHANISM: &str = "bulkhead-arch";

/// Folders whose crates may have unsafe code.
const UNSAFE_FOLDERS: [&str; 2] = ["hyp/arch", "partitions"];
/// Where no more than names may be unsafe: those by which the assembly finds its way into the image.
const NAMES_FOLDERS: [&str; 2] = ["hyp/el2", "hyp/exits"];
const NAME: &str = "#[unsafe(no_mangle)]";
/// The lint; written so that this file is no finding.
const LINT: &str = concat!("unsafe", "_code");

/// Folders at the root of someone's machine, which mean nothing on another.
const PRIVATE_FOLDERS: [&str; 3] = ["home", "root", "work"];

fn root() -> PathBuf {
    Workspace::load().expect("a workspace").root().to_owned()
}

fn metadata() -> Metadata {
    let manifest = root().join("Cargo.toml");
    MetadataCommand::new().manifest_path(manifest).no_deps().exec().expect("cargo metadata")
}

/// All files below `folder` that a person wrote.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a folder's entry").path();
        let name = path.file_name().unwrap_or_default();
        // In a second work tree `.git` is a file.
        if name == ".git" || name == "target" {
            continue;
        }
        if path.is_file() {
            found.push(path);
        } else {
            files(&path, found);
        }
    }
}

fn texts() -> Vec<(PathBuf, String)> {
    let root = root();
    let mut found = Vec::new();
    files(&root, &mut found);
    let text = |path: PathBuf| {
        let text = fs::read_to_string(&path).ok()?;
        Some((path.strip_prefix(&root).ok()?.to_owned(), text))
    };
    found.into_iter().filter_map(text).collect()
}

#[test]
fn dependencies_point_down() {
    for package in metadata().packages {
        let name = package.name.as_str();
        let (_, allowed) =
            LAYERS.iter().find(|(layer, _)| *layer == name).unwrap_or_else(|| panic!("{name} has no layer"));
        // Tests may look further.
        let built = |dependency: &&Dependency| dependency.kind != DependencyKind::Development;
        for dependency in
            package.dependencies.iter().filter(built).filter(|dependency| dependency.path.is_some())
        {
            let wanted = dependency.name.as_str();
            assert!(allowed.contains(&wanted), "{name} may not depend on {wanted}");
        }
    }
}

#[test]
fn only_the_mechanism_touches_hardware() {
    for package in metadata().packages.iter().filter(|package| package.name != MECHANISM) {
        for dependency in &package.dependencies {
            let (name, wanted) = (&package.name, dependency.name.as_str());
            assert!(!HARDWARE_CRATES.contains(&wanted), "{name} may not depend on {wanted}");
        }
    }
}

#[test]
fn every_crate_has_the_lints() {
    for package in metadata().packages {
        let manifest = fs::read_to_string(&package.manifest_path).expect("a manifest");
        assert!(manifest.contains("[lints]\nworkspace = true"), "{} has lints of its own", package.name);
    }
}

/// Each exception from the lint: its file and what follows its name.
fn exceptions() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for (path, text) in texts().into_iter().filter(|(path, _)| path.extension() == Some("rs".as_ref())) {
        for level in ["allow", "expect", "warn"] {
            let opening = format!("{level}({LINT}");
            for (at, _) in text.match_indices(&opening) {
                found.push((path.clone(), text[at + opening.len()..].to_owned()));
            }
        }
    }
    found
}

#[test]
fn unsafe_code_stays_where_it_may_be() {
    let allowed = |path: &Path| UNSAFE_FOLDERS.iter().any(|folder| path.starts_with(folder));
    let names_only = |path: &Path| NAMES_FOLDERS.iter().any(|folder| path.starts_with(folder));
    for (path, _) in exceptions() {
        assert!(allowed(&path) || names_only(&path), "{} may have none", path.display());
    }
    for (path, text) in texts().into_iter().filter(|(path, _)| names_only(path)) {
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//") && !line.contains(LINT));
        for line in code.filter(|line| line.contains("unsafe")) {
            assert_eq!(line.trim(), NAME, "{}", path.display());
        }
    }
    let policy = fs::read_to_string(root().join("hyp/policy/src/lib.rs")).expect("the policy");
    assert!(policy.contains(&format!("#![forbid({LINT})]")), "the policy forbids it");
}

#[test]
fn unsafe_crates_say_why() {
    for (path, rest) in exceptions() {
        assert!(rest.trim_start_matches([',', ' ', '\n']).starts_with("reason = "), "{}", path.display());
    }
}

#[test]
fn texts_name_no_private_place() {
    for (path, text) in texts() {
        for folder in PRIVATE_FOLDERS {
            let place = format!("/{folder}/");
            for (number, line) in text.lines().enumerate() {
                let found = line.match_indices(&place).any(|(at, _)| {
                    // A relative path or an address may contain the word.
                    !line[..at].ends_with(|c: char| c.is_alphanumeric() || "._-$})".contains(c))
                });
                assert!(!found, "{}:{}: {line}", path.display(), number + 1);
            }
        }
    }
}
