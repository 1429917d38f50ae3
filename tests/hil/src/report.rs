//! What the hypervisor says on the console, for programs that read it.

use crate::demux::Source;

/// A line of the hypervisor that means something to a program.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Report<'a> {
    /// A partition exists.
    Partition {
        /// Whose bytes carry its tag.
        source: Source,
        /// Its name in the manifest.
        name: &'a str,
    },
    /// Typed bytes now go to the partition of this name.
    InputTo(&'a str),
    /// The partition of this name has switched itself off.
    PartitionOff(&'a str),
    /// The partition of this name starts again.
    PartitionRestart(&'a str),
    /// Every partition has switched itself off.
    AllOff,
    /// The manifest was refused.
    Refused,
    /// The hypervisor itself has failed; its registers and a backtrace follow.
    Fault,
}

impl<'a> Report<'a> {
    /// Reads a line of the hypervisor; `None` where it is for people alone.
    #[must_use]
    pub fn parse(line: &'a str) -> Option<Self> {
        match line {
            "bulkhead: all partitions are off" => return Some(Self::AllOff),
            "bulkhead: no partition was started" => return Some(Self::Refused),
            _ if line.starts_with("bulkhead: EL2 fault") => return Some(Self::Fault),
            _ => {}
        }
        if let Some(name) = line.strip_prefix("input to ") {
            return Some(Self::InputTo(name));
        }
        let (subject, statement) = line.strip_prefix("partition ")?.split_once(": ")?;
        match statement {
            "off" => Some(Self::PartitionOff(subject)),
            "restart" => Some(Self::PartitionRestart(subject)),
            _ => {
                let (number, name) = subject.split_once(' ')?;
                let source = Source(number.parse().ok()?);
                statement.starts_with("cpus ").then_some(Self::Partition { source, name })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_are_told_from_prose() {
        let partition = Report::Partition { source: Source(2), name: "rtos" };
        for (line, report) in [
            ("partition 2 rtos: cpus 3, 16 MiB", Some(partition)),
            ("partition rtos: off", Some(Report::PartitionOff("rtos"))),
            ("partition rtos: restart", Some(Report::PartitionRestart("rtos"))),
            ("input to linux", Some(Report::InputTo("linux"))),
            ("bulkhead: all partitions are off", Some(Report::AllOff)),
            ("bulkhead: no partition was started", Some(Report::Refused)),
            ("bulkhead: EL2 fault on cpu 2", Some(Report::Fault)),
            ("bulkhead: error: /partitions/a: cpus lists cpu 1 twice", None),
            ("partition rtos: read of 0x9000000: abort injected", None),
            ("partition x rtos: cpus 3", None),
            ("", None),
        ] {
            assert_eq!(Report::parse(line), report, "{line}");
        }
    }
}
