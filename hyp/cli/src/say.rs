//! How the tool speaks of its own work: on standard error, one line a step, in cargo's manner.

use std::io::{self, ErrorKind, Write};

use anstream::eprintln;
use anstyle::{AnsiColor, Style};
use anyhow::{Context, Result};

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
