//! Whole systems in QEMU: what is built is what a user builds, and what is read is the console.

mod bench;
mod card;
mod cpus;
mod demo;
mod dma;
mod guests;
mod lab;
mod loaders;
mod placement;
mod ports;
mod refusals;
mod rtos;
mod tampered;
mod xen;

use std::process::ExitCode;

use anyhow::Result;
use bulkhead::board::{Board, MACHINES, QEMU_VIRT, QEMU_VIRT_GICV2, RPI4};
use bulkhead::say;
use bulkhead::setup::{self, Need};
use libtest_mimic::{Arguments, Trial};

use crate::lab::Lab;

/// What each test does.
type Test = fn(&Lab) -> Result<()>;

/// On which machines a test runs. Each is a test of its own, called `name@machine`.
#[derive(Clone, Copy)]
enum On {
    /// All of [`MACHINES`].
    All,
    /// Only these.
    Only(&'static [Board]),
    /// None: it is about files, or starts machines of its own.
    Nowhere,
}

const TESTS: &[(&str, On, Test)] = &[
    ("placement", On::All, placement::as_predicted),
    ("pair", On::All, guests::pair),
    // A GICv2 has eight CPUs at the most.
    ("sixteen", On::Only(&[QEMU_VIRT]), guests::sixteen),
    ("thirty_two", On::Only(&[QEMU_VIRT]), guests::thirty_two),
    // The real board starts guests at EL2 and without PSCI, which is not what they are built for.
    (
        "conformance_without_bulkhead",
        On::Only(&[QEMU_VIRT, QEMU_VIRT_GICV2]),
        guests::conformance_without_bulkhead,
    ),
    ("conformance_on_four_cpus", On::All, guests::conformance_on_four_cpus),
    // There is one kind of raspi4b.
    (
        "another_machine_same_image",
        On::Only(&[QEMU_VIRT, QEMU_VIRT_GICV2]),
        guests::another_machine_same_image,
    ),
    ("elsewhere", On::All, guests::elsewhere),
    ("hostile", On::All, guests::hostile),
    ("storm", On::All, guests::storm),
    ("refused_by_the_hypervisor", On::All, refusals::by_the_hypervisor),
    ("refused_by_the_tool", On::All, refusals::by_the_tool),
    ("tampered_payload", On::All, tampered::payload),
    ("tampered_bundle", On::All, tampered::bundle),
    ("single_image", On::All, loaders::single_image),
    ("no_bundle", On::All, loaders::no_bundle),
    ("run_script", On::All, loaders::run_script),
    // Debian's U-Boot is for no real board.
    ("u_boot", On::Only(&[QEMU_VIRT, QEMU_VIRT_GICV2]), loaders::u_boot),
    ("reproducible", On::Nowhere, loaders::reproducible),
    ("one_image", On::Nowhere, bench::one_image),
    ("image_size", On::Nowhere, bench::image_size),
    // Instructions can only be counted with one CPU and another counter frequency, and are recorded for one interrupt controller.
    ("bench_is_exact", On::Nowhere, bench::is_exact),
    ("typing", On::All, rtos::typing),
    ("restart_alone", On::All, rtos::restart_alone),
    // As with conformance_without_bulkhead.
    ("rtos_alone", On::Only(&[QEMU_VIRT, QEMU_VIRT_GICV2]), rtos::alone),
    ("demo_batch", On::All, demo::batch),
    // The only board with such ports and such pages.
    ("mini_uart", On::Only(&[RPI4]), ports::mini_uart),
    ("sub_page", On::Only(&[RPI4]), ports::sub_page),
    ("console_of_the_manifest", On::Only(&[RPI4]), ports::console_of_the_manifest),
    // The only board whose tree is the tool's to change.
    ("missing_cpu", On::Only(&[RPI4]), cpus::missing),
    // The only board that starts from a card.
    ("card", On::Only(&[RPI4]), card::boots),
    // The board that has no SMMU and data about its devices.
    ("unprotected_dma", On::Only(&[RPI4]), dma::unprotected),
    ("import_xen", On::All, xen::two_linux),
    // The terminal does not know what the machine is.
    ("demo_interactive", On::Only(&[QEMU_VIRT]), demo::interactive),
];

impl On {
    /// The machines; `None` stands for none in particular.
    fn machines(self) -> Vec<Option<Board>> {
        match self {
            Self::All => MACHINES.map(Some).into(),
            Self::Only(machines) => machines.iter().copied().map(Some).collect(),
            Self::Nowhere => vec![None],
        }
    }
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads = Some(1);
    if !arguments.list
        && let Err(error) = setup::ensure(&Need::ALL)
    {
        say::error(format_args!("{error:#}"));
        return ExitCode::from(2);
    }
    let trials = TESTS.iter().copied().flat_map(|(name, on, test)| {
        on.machines().into_iter().map(move |machine| {
            let name = machine.map_or(name.to_owned(), |machine| format!("{name}@{}", machine.label));
            Trial::test(name.clone(), move || {
                let lab = Lab::new(name, machine.unwrap_or(QEMU_VIRT))?;
                test(&lab).map_err(|error| format!("{error:#}").into())
            })
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit_code()
}
