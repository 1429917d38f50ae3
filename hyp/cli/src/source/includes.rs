//! What a source includes, looked at before the compilers do.
//!
//! dtc says neither where a circle of includes begins nor that what it was told to include is a folder, and it waits for ever for a
//! pipe. A name that a macro makes is not found here: for that the compilers have a time limit.

use std::fs;
use std::path::{Path, PathBuf};

use super::files::{Files, Span};
use super::tokens::{Kind, Token, tokens};

/// What is wrong with what is included.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Includes {
    /// Includes of what is no file, and what it is.
    pub no_files: Vec<(Span, String)>,
    /// The first `/include/` that leads back to a file which it stands in.
    pub circle: Option<Span>,
}

impl Includes {
    /// Follows all includes from the first file on; `folder` is where the compilers run.
    pub fn read(files: &mut Files, folder: &Path) -> Self {
        let mut this = Self::default();
        let start = files.get(0).path.clone();
        let mut open = vec![fs::canonicalize(&start).unwrap_or(start)];
        let mut seen = open.clone();
        this.follow(files, 0, folder, &mut open, &mut seen);
        this
    }

    fn follow(
        &mut self,
        files: &mut Files,
        file: usize,
        folder: &Path,
        open: &mut Vec<PathBuf>,
        seen: &mut Vec<PathBuf>,
    ) {
        for (how, range, name) in named(&files.get(file).text) {
            let beside = files.get(file).path.parent().unwrap_or(Path::new("")).join(&name);
            let Some(path) = [beside, folder.join(&name)].into_iter().find(|path| path.exists()) else {
                continue;
            };
            let span = Span { file, range };
            if !path.is_file() {
                let kind = if path.is_dir() { "a folder" } else { "a device or a pipe" };
                self.no_files.push((span, format!("\"{name}\" is {kind}, not a file")));
                continue;
            }
            let real = fs::canonicalize(&path).unwrap_or_else(|_| path.clone());
            // One of cpp's may have guards.
            if how == How::Dtc && open.contains(&real) && self.circle.is_none() {
                self.circle = Some(span);
            }
            if how == How::Binary || seen.contains(&real) {
                continue;
            }
            seen.push(real.clone());
            if let Some(next) = files.load(&path) {
                open.push(real);
                self.follow(files, next, folder, open, seen);
                open.pop();
            }
        }
    }
}

/// How a file is taken in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum How {
    /// `/include/`.
    Dtc,
    /// `#include`.
    Cpp,
    /// `/incbin/`: as it is.
    Binary,
}

/// The files that a text names to be taken in, and where.
fn named(text: &str) -> Vec<(How, std::ops::Range<usize>, String)> {
    let all: Vec<_> = tokens(text, 0).collect();
    let word = |token: &Token| &text[token.range.clone()];
    let mut named = Vec::new();
    for (index, token) in all.iter().enumerate() {
        let before = |back: usize| index.checked_sub(back).map_or("", |index| word(&all[index]));
        let how = match (before(2), before(1)) {
            (_, "/include/") => How::Dtc,
            ("/incbin/", "(") => How::Binary,
            (_, "#include") | ("#", "include") => How::Cpp,
            _ => continue,
        };
        if token.kind == Kind::Quoted {
            named.push((how, token.range.clone(), word(token).trim_matches('"').to_owned()));
        }
    }
    named
}
