//! What this host lacks, and how to get it. Nothing is installed here: the commands that need something do that themselves.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::setup::{self, Need};
use crate::workspace::Workspace;
use crate::{linux, say, system};

/// What a build of everything and the downloads take, generously, in MiB.
const SPACE: u64 = 6 << 10;

/// One line of the diagnosis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Item {
    /// What there is, or what is wrong.
    pub found: String,
    /// What it is for.
    pub purpose: &'static str,
    /// What to do; `None` where nothing is wrong.
    pub mend: Option<String>,
}

/// Looks at the host and prints what it found; whether nothing is lacking.
///
/// # Errors
///
/// Where standard output takes no more.
pub fn run() -> Result<bool> {
    let items = examine();
    say::print(&describe(&items))?;
    Ok(items.iter().all(|item| item.mend.is_none()))
}

/// Looks at the host.
#[must_use]
pub fn examine() -> Vec<Item> {
    let item = |found: Result<String, String>, purpose, mend: &dyn Fn() -> String| match found {
        Ok(found) => Item { found, purpose, mend: None },
        Err(found) => Item { found, purpose, mend: Some(mend()) },
    };
    let program = |name: &str| setup::version(name).ok_or_else(|| format!("{name} is missing"));
    let mut items =
        vec![item(program("rustc"), "compiles everything", &|| "see https://rustup.rs".to_owned())];
    for need in Need::EVERY {
        items.push(item(need.find(), need.purpose(), &|| need.mend()));
    }
    let miri = setup::miri().ok_or_else(|| "Miri is missing".to_owned());
    items.push(item(miri, "runs the policy's tests once more, for `cargo bulkhead test`", &setup::miri_mend));
    let script = || "sudo apt-get install bsdutils".to_owned();
    items.push(item(program("script"), "is the terminal of a test", &script));
    items.push(item(workspace(), "is what the tool builds", &|| {
        "run `cargo bulkhead` in the source tree".to_owned()
    }));
    let (debian, space) = (debian(), space());
    items.push(item(debian, "is the Linux of the demo", &|| {
        "set HOME or XDG_CACHE_HOME to a folder of yours".to_owned()
    }));
    items.push(item(space, "is for builds", &|| {
        "make room, or set CARGO_TARGET_DIR to a folder on another disk".to_owned()
    }));
    items
}

fn workspace() -> Result<String, String> {
    let workspace = Workspace::load().map_err(|error| format!("{error:#}"))?;
    Ok(format!("the source tree {}", workspace.root().display()))
}

/// A host without a network does, once this has been fetched.
fn debian() -> Result<String, String> {
    let downloads = system::downloads().map_err(|error| format!("{error:#}"))?;
    Ok(match linux::cached(&downloads) {
        Some(parts) => {
            format!("Debian's {} in {}; no network is needed", parts.kernel_version, downloads.display())
        }
        None => format!(
            "Debian's kernel is not in {} yet; the first run fetches 70 MB by apt",
            downloads.display()
        ),
    })
}

fn space() -> Result<String, String> {
    let folder = Workspace::load().map_or_else(|_| ".".into(), |workspace| workspace.output());
    let Some(free) = folder.ancestors().find(|folder| folder.exists()).and_then(free_mib) else {
        return Ok(format!(
            "df does not say how much room {} has; {} GiB are enough",
            folder.display(),
            SPACE >> 10
        ));
    };
    let text = format!("{} GiB free for {}", free >> 10, folder.display());
    if free >= SPACE { Ok(text) } else { Err(format!("{text}, less than {} GiB", SPACE >> 10)) }
}

/// MiB that are free where `folder` is (POSIX, df, with -P and -k).
fn free_mib(folder: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(folder).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let kib: u64 = text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()?;
    Some(kib >> 10)
}

/// The diagnosis as text.
#[must_use]
pub fn describe(items: &[Item]) -> String {
    let mut text = String::new();
    for Item { found, purpose, mend } in items {
        let mark = if mend.is_none() { "ok   " } else { "LACKS" };
        let _ = writeln!(text, "{mark}  {found}: {purpose}");
        for line in mend.iter().flat_map(|mend| mend.lines()) {
            let _ = writeln!(text, "         {}", line.trim());
        }
    }
    let lacking = items.iter().filter(|item| item.mend.is_some()).count();
    let _ = match lacking {
        0 => writeln!(text, "nothing is lacking"),
        _ => writeln!(text, "{lacking} of {} lacking: run the indented commands", items.len()),
    };
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_lack_has_its_mend() {
        let good = Item { found: "a 1.0".to_owned(), purpose: "does a", mend: None };
        let bad = Item {
            found: "b is missing".to_owned(),
            purpose: "does b",
            mend: Some("get b\nuse b".to_owned()),
        };
        assert_eq!(describe(std::slice::from_ref(&good)), "ok     a 1.0: does a\nnothing is lacking\n");
        assert_eq!(
            describe(&[good, bad]),
            "ok     a 1.0: does a\nLACKS  b is missing: does b\n         get b\n         use b\n\
             1 of 2 lacking: run the indented commands\n"
        );
        for need in Need::EVERY {
            assert!(!need.mend().trim().is_empty() && !need.purpose().is_empty(), "{need:?}");
        }
    }

    #[test]
    fn room_is_measured() {
        assert!(free_mib(Path::new("/")).is_some());
        assert_eq!(free_mib(Path::new("/no/such/folder")), None);
    }
}
