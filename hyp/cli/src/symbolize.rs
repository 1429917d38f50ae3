//! Turns the addresses of an EL2 fault's report into functions, files and lines.
//!
//! The hypervisor prints addresses alone: names would be a table in its memory, and the tool has the
//! executable that it was built from.

use std::path::Path;

use anyhow::Result;

use crate::elf::Symbols;
use crate::screen::Annotate;

/// What a frame of the backtrace begins with.
const FRAME: &str = "at 0x";

/// Says more about the lines of a fault's report: a function that looks at one line and returns those to be
/// printed below it.
///
/// # Errors
///
/// Where the executable cannot be read.
pub fn annotator(executable: &Path, root: &Path) -> Result<Annotate> {
    let symbols = Symbols::read(executable)?;
    let root = format!("{}/", root.display());
    Ok(Box::new(move |line: &str| {
        let found = address(line).map(|address| symbols.find(address)).unwrap_or_default();
        found.into_iter().map(|frame| format!("       {}", frame.replace(&root, ""))).collect()
    }))
}

/// The address that a line of a fault's report is about: that of the instruction at fault, or of a call.
fn address(line: &str) -> Option<u64> {
    number(line.trim_start().strip_prefix(FRAME)?)
}

fn number(digits: &str) -> Option<u64> {
    let end = digits.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(digits.len());
    u64::from_str_radix(&digits[..end], 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found() {
        assert_eq!(address("  at 0x7fc0001234"), Some(0x7f_c000_1234));
        assert_eq!(address("bulkhead | at 0x10"), None);
        assert_eq!(address("bulkhead: EL2 fault: vector 4, ESR 0x86000005, ELR 0x1000, FAR 0x1000"), None);
        assert_eq!(address("partition rtos: off"), None);
    }
}
