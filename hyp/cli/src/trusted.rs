//! How many lines of code have to be right for partitions to be apart.

use std::path::Path;

use anyhow::{Context, Result};

use crate::workspace::Workspace;

/// Folders of what runs at EL2.
const FOLDERS: [&str; 9] = [
    "hyp/policy/src",
    "hyp/arch/src",
    "hyp/el2/src",
    "hyp/exits/src",
    "board-support/board/src",
    "board-support/boards/src",
    "board-support/qemu-virt/src",
    "board-support/rpi4/src",
    "partitions/abi/src",
];

/// Lines of code of the trusted part: neither empty nor comment nor test.
///
/// # Errors
///
/// Where a source file cannot be read.
pub fn lines_of_code(workspace: &Workspace) -> Result<u64> {
    FOLDERS.iter().map(|folder| in_folder(&workspace.root().join(folder))).sum()
}

fn in_folder(folder: &Path) -> Result<u64> {
    let mut lines = 0;
    for entry in std::fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            if name != "tests" {
                lines += in_folder(&path)?;
            }
        } else if path.extension().is_some_and(|kind| kind == "rs" || kind == "S") && name != "tests.rs" {
            let source =
                std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            lines += in_source(&source);
        }
    }
    Ok(lines)
}

/// Counts the lines of a file that rustfmt has seen: an item of tests at the left margin ends with a brace at
/// the left margin.
fn in_source(source: &str) -> u64 {
    let mut count = 0;
    let mut lines = source.lines();
    while let Some(line) = lines.next() {
        let code = line.trim();
        if code == "#[cfg(test)]" {
            if lines.next().is_some_and(|item| !item.ends_with(';')) {
                lines.by_ref().find(|&line| line == "}");
            }
        } else if !code.is_empty() && !code.starts_with("//") {
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_and_comments_do_not_count() {
        let source = "//! Doc.\n\nuse a;\n#[cfg(test)]\nextern crate std;\n\n/// Doc.\nfn f() {\n    // why\n    g();\n}\n\n\
                      #[cfg(test)]\nmod tests {\n    fn t() {\n    }\n}\nconst A: u32 = 1;\n";
        assert_eq!(in_source(source), 5);
    }
}
