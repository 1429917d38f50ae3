//! Whole systems in QEMU: what is built is what a user builds, and what is read is the console.

mod bench;
mod demo;
mod guests;
mod lab;
mod refusals;
mod rtos;

use std::process::ExitCode;

use anyhow::Result;
use bulkhead::say;
use bulkhead::setup::{self, Need};
use libtest_mimic::{Arguments, Trial};

use crate::lab::Lab;

/// What each test gets.
type Test = fn(&Lab) -> Result<()>;

const TESTS: [(&str, Test); 15] = [
    ("pair", guests::pair),
    ("conformance_without_bulkhead", guests::conformance_without_bulkhead),
    ("conformance_on_four_cpus", guests::conformance_on_four_cpus),
    ("another_machine_same_image", guests::another_machine_same_image),
    ("elsewhere", guests::elsewhere),
    ("hostile", guests::hostile),
    ("refused_by_the_hypervisor", refusals::by_the_hypervisor),
    ("refused_by_the_tool", refusals::by_the_tool),
    ("image_size", bench::image_size),
    ("bench_is_exact", bench::is_exact),
    ("typing", rtos::typing),
    ("restart_alone", rtos::restart_alone),
    ("rtos_alone", rtos::alone),
    ("demo_batch", demo::batch),
    ("demo_interactive", demo::interactive),
];

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = setup::ensure(&Need::ALL)
    {
        say::error(format_args!("{error:#}"));
        return ExitCode::from(2);
    }
    let trials = TESTS.map(|(name, test)| {
        Trial::test(name, move || {
            let lab = Lab::new(name)?;
            test(&lab).map_err(|error| format!("{error:#}").into())
        })
    });
    libtest_mimic::run(&arguments, trials.into()).exit_code()
}
