//! A built system, started and watched: by the user at a terminal, or by a program that wants a verdict.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_hil::target::Reason;
use bulkhead_hil::{Report, Source, Target};

use crate::screen::{Screen, Surface};
use crate::symbolize::annotator;
use crate::system::System;
use crate::terminal::{self, End};

/// Starts a system in the user's terminal; returns whether it ended well or the user ended it.
///
/// # Errors
///
/// Where QEMU cannot be started or the terminal cannot be used.
pub fn interactive(system: &System, root: &Path) -> Result<bool> {
    let end = terminal::run(system.command()?, Some(annotator(&system.executable, root)?))?;
    Ok(match end {
        End::Quit => true,
        End::Machine(status) => status.success(),
        End::Signal(_) => false,
    })
}

/// Starts a system whose lines are printed as they come, each behind its partition's name.
///
/// # Errors
///
/// Where QEMU cannot be started.
pub fn watched(system: &System, root: &Path) -> Result<Target> {
    let mut target = Target::start(system.command()?).context("cannot start QEMU")?;
    let annotate = annotator(&system.executable, root)?;
    let mut screen = Screen::new(io::stdout(), Surface::Plain, Some(annotate));
    target.observe(move |line| {
        // Nobody reads any more: the verdict still counts.
        let _ = screen.print(line.source, format!("{}\n", line.text).as_bytes());
    });
    Ok(target)
}

/// Starts a system, waits for it to end and returns what was wrong with it, nothing if all was well.
///
/// # Errors
///
/// Where QEMU cannot be started.
pub fn batch(system: &System, root: &Path, timeout: Duration) -> Result<Vec<String>> {
    let mut target = watched(system, root)?;
    let mut faults = Vec::new();
    match target.wait(timeout) {
        Ok(status) if status.success() => {}
        Ok(status) => faults.push(format!("QEMU ended with {status}:\n{}", target.complaints())),
        Err(error) => faults.push(match error.reason {
            Reason::Timeout(time) => format!("the machine was still on after {} s", time.as_secs()),
            _ => error.to_string(),
        }),
    }
    for line in target.lines() {
        match Report::parse(&line.text).filter(|_| line.source == Source::HYPERVISOR) {
            Some(Report::Refused) => faults.push("the hypervisor refused the manifest".to_owned()),
            // A partition whose memory could not be loaded, or a CPU that did not start.
            None if line.source == Source::HYPERVISOR && is_trouble(&line.text) => {
                faults.push(line.text.clone())
            }
            _ if line.source != Source::HYPERVISOR && is_failure(&line.text) => {
                faults.push(format!("{}: {}", line.source, line.text));
            }
            _ => {}
        }
    }
    Ok(faults)
}

/// Whether a guest's line is the verdict of a failed test.
#[must_use]
pub fn is_failure(line: &str) -> bool {
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["TEST", _, "FAIL", ..] => true,
        ["DONE", _, "passed,", failed, "failed"] => failed != "0",
        _ => false,
    }
}

/// Whether a line of the hypervisor's says that something does not run which should.
fn is_trouble(line: &str) -> bool {
    line.starts_with("bulkhead: error: ")
        || (line.starts_with("partition ") && line.contains(": not started: "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_start_is_trouble() {
        assert!(is_trouble("partition rtos: not started: its device tree does not fit"));
        assert!(is_trouble("bulkhead: error: CPU 3 does not start"));
        assert!(!is_trouble("partition rtos: off"));
    }

    #[test]
    fn failures_are_told_from_the_rest() {
        assert!(is_failure("TEST sgi FAIL none came"));
        assert!(is_failure("DONE 12 passed, 1 failed"));
        assert!(!is_failure("DONE 12 passed, 0 failed"));
        assert!(!is_failure("TEST sgi ok"));
        assert!(!is_failure("what a FAIL"));
    }
}
