//! Drives a target from outside, as a person at its serial line would.
//!
//! The hypervisor sends the consoles of all partitions over one UART, each stretch of bytes behind a tag that
//! says whose it is. This crate starts the target, takes the stream apart and lets a test wait for what a
//! partition prints, type at it and see the target end. Nothing here knows what is being tested.
//!
//! ```no_run
//! use std::{process::Command, time::Duration};
//! use bulkhead_hil::{Source, Target};
//!
//! let mut qemu = Command::new("qemu-system-aarch64");
//! qemu.args(["-M", "virt,gic-version=3,virtualization=on", "-kernel", "bulkhead.img"]);
//! let mut target = Target::start(qemu)?;
//! let boot = target.expect(Source::HYPERVISOR, "partition 1 ([a-z]+)", Duration::from_secs(5))?;
//! println!("the first partition is {}", &boot[1]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod demux;
pub mod process;
pub mod report;
pub mod target;

pub use demux::{Demultiplexer, Source};
pub use process::{Output, Process};
pub use report::Report;
pub use target::{Line, Target, WaitError};
