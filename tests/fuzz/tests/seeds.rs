//! Every seed, and every input that once broke a promise, through its target.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead_fuzz::TARGETS;

/// The files of a folder in a fixed order; none where there is no such folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a folder's entry").path()).collect();
    files.sort();
    files
}

/// Runs what `folder` has for the target; how many inputs there were.
fn run(folder: &str, name: &str, target: fn(&[u8])) -> usize {
    let files = files(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(name));
    for file in &files {
        // A panic ends the test; this line then says whose fault it was.
        println!("{}", file.display());
        target(&fs::read(file).expect("a readable seed"));
    }
    files.len()
}

fn seeds_of(name: &str) {
    let (_, target) = *TARGETS.iter().find(|(other, _)| *other == name).expect("a target");
    assert!(run("seeds", name, target) > 0, "{name} has no seeds");
    run("regressions", name, target);
}

/// The trees of real boards are the best seeds for a reader of them, and are here already.
#[test]
#[cfg_attr(miri, ignore = "minutes for the largest one")]
fn boards() {
    let (_, target) = TARGETS[0];
    assert!(run("../manifests", "boards", target) > 0);
}

macro_rules! tests {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            seeds_of(stringify!($name));
        }
    )* };
}

tests!(firmware_tree manifest board_and_manifest bundle image guest_tree);
