//! How the tool speaks of its own work: on standard error, one line a step, in cargo's manner.

use std::io::{self, ErrorKind, Write};
use std::path::Path;

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};

const STEP: Style = AnsiColor::Green.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// A text as it can be shown: names of files may hold what moves a terminal's cursor, or begins a line of a script.
#[must_use]
pub fn visible(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// As [`visible`], of what has several lines.
fn lines(what: impl std::fmt::Display) -> String {
    let text = what.to_string();
    text.split('\n').map(visible).collect::<Vec<_>>().join("\n")
}

/// A path as a shell takes it for one word.
#[must_use]
pub fn word(path: &Path) -> String {
    let path = path.display().to_string();
    let is_plain = |character: char| character.is_alphanumeric() || "/._-+=:@%,".contains(character);
    if path.chars().all(is_plain) { path } else { format!("'{}'", path.replace('\'', r"'\''")) }
}

/// Says what is being done now: a verb and its object.
pub fn step(verb: &str, what: impl std::fmt::Display) {
    eprintln!("{STEP}{verb:>12}{STEP:#} {}", lines(what));
}

/// Says something worth knowing.
pub fn note(what: impl std::fmt::Display) {
    eprintln!("{NOTE}{:>12}{NOTE:#} {}", "note", lines(what));
}

/// Says what went wrong.
pub fn error(what: impl std::fmt::Display) {
    eprintln!("{ERROR}error{ERROR:#}: {}", lines(what));
}

/// Prints what was asked for on standard output. Whoever closes it, as `head` does, has read enough.
///
/// # Errors
///
/// Where it takes no more, as a full disk does.
pub fn print(text: &str) -> Result<()> {
    let mut output = io::stdout().lock();
    match output.write_all(text.as_bytes()).and_then(|()| output.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// Lets the tool end without a panic where nobody takes what `println!` and its like print.
pub fn expect_closed_outputs() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The macros have no other way to tell (std::io::_print).
        let message = panic.payload_as_str().unwrap_or_default();
        let Some(why) = message.strip_prefix("failed printing to ") else { return usual(panic) };
        if !why.contains("Broken pipe") {
            // Standard error may be what is full.
            let _ = writeln!(io::stderr(), "error: cannot write to {why}");
            std::process::exit(2);
        }
        // What a shell says of a program that SIGPIPE ended.
        std::process::exit(128 + signal_hook::consts::SIGPIPE);
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_that_is_shown_can_be_copied() {
        for (path, shown) in [
            ("a/b-1.dts", "a/b-1.dts"),
            ("a b.dts", "'a b.dts'"),
            ("it's.dts", r"'it'\''s.dts'"),
            ("$a;b", "'$a;b'"),
        ] {
            assert_eq!(word(Path::new(path)), shown);
        }
    }

    #[test]
    fn names_neither_move_the_cursor_nor_begin_a_line() {
        assert_eq!(visible("a\u{1b}[2J\nreboot\tü"), "a\u{fffd}[2J\u{fffd}reboot\u{fffd}ü");
        assert_eq!(lines("a\nb\u{7}\n"), "a\nb\u{fffd}\n");
    }
}
