//! How the tool speaks of its own work: on standard error, one line a step, in cargo's manner.

use anstream::eprintln;
use anstyle::{AnsiColor, Style};

const STEP: Style = AnsiColor::Green.on_default().bold();
const NOTE: Style = AnsiColor::Cyan.on_default().bold();
const ERROR: Style = AnsiColor::Red.on_default().bold();

/// Says what is being done now: a verb and its object.
pub fn step(verb: &str, what: impl std::fmt::Display) {
    eprintln!("{STEP}{verb:>12}{STEP:#} {what}");
}

/// Says something worth knowing.
pub fn note(what: impl std::fmt::Display) {
    eprintln!("{NOTE}{:>12}{NOTE:#} {what}", "note");
}

/// Says what went wrong.
pub fn error(what: impl std::fmt::Display) {
    eprintln!("{ERROR}error{ERROR:#}: {what}");
}
