//! The hypervisor image: the story of a boot, from the firmware's tree to the first guest.
//!
//! The only `unsafe` here is that of naming what the assembly uses.
#![no_std]
#![no_main]
#![expect(unsafe_code, reason = "the assembly finds its entry points by unmangled names")]

extern crate alloc;

mod build;
mod load;
mod panic;
mod run;

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use bulkhead_arch::boot::{self, EarlyUart};
use bulkhead_arch::mmu::{self, Mmio};
use bulkhead_arch::uart::Trace;
use bulkhead_arch::{gic, guest, layout, percpu, sha256};
use bulkhead_boards::BOARDS;
use bulkhead_exits::system::{System, system};
use bulkhead_exits::{console, println};
use bulkhead_policy::addr::{Pa, Region};
use bulkhead_policy::bundle::Bundle;
use bulkhead_policy::inventory::{self, Inventory};
use bulkhead_policy::manifest;
use bulkhead_policy::plan::{MAX_CPUS, Plan};
use bulkhead_policy::platform::{self, BUNDLE, Gic, HYPERVISOR, Platform, Reservation, Uart, UartModel};
use bulkhead_policy::tree::Tree;

/// Every CPU that comes has come, and partitions may start.
static ALL_ARRIVED: AtomicBool = AtomicBool::new(false);

/// What this hypervisor calls itself.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Where the trace of a boot can go before the tree is understood.
#[unsafe(no_mangle)]
static EARLY_UARTS: [EarlyUart; BOARDS.len() + 1] = early_uarts();

const fn early_uarts() -> [EarlyUart; BOARDS.len() + 1] {
    let mut list = [EarlyUart { compatible: [0; 16], data_register: 0 }; BOARDS.len() + 1];
    let (mut board, mut count) = (0, 0);
    while board < BOARDS.len() {
        if let Some(data_register) = BOARDS[board].early_pl011
            && let Some(compatible) = BOARDS[board].compatible.as_bytes().first_chunk()
        {
            list[count] = EarlyUart { compatible: *compatible, data_register };
            count += 1;
        }
        board += 1;
    }
    list
}

/// The first Rust that runs: MMU on, at the fixed VA, on the boot CPU. `tree` is what the loader passed in x0, `image` where the
/// image was loaded, `early_uart` where the trace goes.
#[unsafe(no_mangle)]
extern "C" fn boot_main(tree: u64, image: u64, early_uart: u64) -> ! {
    boot::init();
    let trace = Trace::new(early_uart);
    console::init_last(trace.port());
    trace.step(b'l');
    let Some(firmware) = boot::map_tree(tree) else { bulkhead_arch::firmware::halt() };
    trace.step(b'k');
    let Ok(board) = Tree::new(firmware) else { bulkhead_arch::firmware::halt() };
    trace.step(b'h');
    let board: &'static Tree<'static> = Box::leak(Box::new(board));
    let platform = Platform::from_tree(board, &BOARDS);
    trace.step(b'e');
    let uart = match &platform {
        Ok(platform) => platform.uart,
        // To say what is wrong with the rest.
        Err(_) => board.stdout().and_then(platform::uart),
    };
    let port = uart.and_then(map_port).or(trace.port());
    trace.step(b'a');
    if let Some((model, registers)) = port {
        console::init(model, registers);
    }
    b"d\r\n".iter().for_each(|&character| trace.step(character));
    let mut platform = match platform {
        Ok(platform) => platform,
        Err(error) => refuse(format_args!("the firmware's tree: {error}")),
    };
    run::remember_power(&platform);
    print_banner(&platform);
    let hypervisor = Region::new(Pa::new(image), layout::FOOTPRINT);
    let tree_region = Region::new(Pa::new(tree), firmware.len() as u64);
    let initrd = initrd(board).or_else(|| layout::appended(image));
    for (region, holder) in [(hypervisor, HYPERVISOR), (tree_region, "the firmware's tree"), (initrd, BUNDLE)]
    {
        if let Some(region) = region {
            platform.reserved.push(Reservation { region, holder });
        }
    }
    let Some(bundle) = initrd.and_then(mmu::map_firmware_data) else {
        refuse(format_args!(
            "/chosen: there is no bundle; hand it over as the initrd (linux,initrd-start, -end), or start bulkhead-single.img"
        ))
    };
    let bundle = match Bundle::new(bundle) {
        Ok(bundle) => bundle,
        Err(error) => refuse(format_args!("the bundle: {error}")),
    };
    let (Gic::V3 { distributor, .. } | Gic::V2 { distributor, .. }) = platform.gic;
    let Some(distributor) = Mmio::map(distributor) else {
        refuse(format_args!("the distributor cannot be mapped"));
    };
    platform.spis = platform.spis.min(gic::spis(&distributor));
    let inventory = inventory(bundle);
    let plan = plan(board, &mut platform, bundle, &inventory);
    let platform: &'static Platform<'static> = Box::leak(Box::new(platform));
    let cpu = bring_up_interrupts(platform, distributor);
    let given = |path| {
        plan.partitions.iter().any(|partition| partition.devices.iter().any(|device| device.path == path))
    };
    let kept = platform.uart.filter(|uart| !given(uart.path));
    let system =
        match build::build(board, platform, bundle, inventory, plan, kept.and_then(|uart| uart.intid)) {
            Ok(system) => system,
            Err(error) => refuse(format_args!("{error}")),
        };
    for (partition, number) in plan.partitions.iter().zip(1_u64..) {
        let size: u64 = partition.memory.iter().map(|memory| memory.size).sum();
        println!("partition {number} {}: cpus {}, {} MiB", partition.name, List(&partition.cpus), size >> 20);
        for risk in &partition.unprotected {
            println!("partition {}: {risk}", partition.name);
        }
    }
    start_secondaries(system, cpu);
    console::flush();
    if kept != platform.uart {
        console::give_away();
    }
    if let Some(intid) = system.console_interrupt {
        gic::enable_for_el2(intid, cpu);
        console::start_input(system);
    }
    ALL_ARRIVED.store(true, Ordering::Release);
    gic::kick_others(cpu, platform.cpus.len());
    run::off_if_last(system);
    run::run(system, cpu)
}

/// Where a secondary CPU arrives, MMU on.
#[unsafe(no_mangle)]
extern "C" fn secondary_main(cpu: usize) -> ! {
    percpu::install(cpu);
    match system() {
        Some(system) => {
            gic::init_cpu(cpu, system.platform.maintenance);
            boot::arrive(cpu);
            while !ALL_ARRIVED.load(Ordering::Acquire) {
                run::wait(system, None);
            }
            run::run(system, cpu)
        }
        None => bulkhead_arch::firmware::halt(),
    }
}

/// What can be known of this boot from its first line.
fn print_banner(platform: &Platform<'_>) {
    let name = platform.board.map_or("an unknown board, as its device tree says", |board| board.title);
    println!("bulkhead {VERSION} on {name}");
}

/// Maps the registers of a serial port.
fn map_port(uart: Uart<'_>) -> Option<(UartModel, Mmio)> {
    Some((uart.model, Mmio::map(uart.registers)?))
}

/// Numbers with spaces between.
struct List<'a>(&'a [usize]);

impl core::fmt::Display for List<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().enumerate().try_for_each(
            |(n, cpu)| {
                if n == 0 { write!(f, "{cpu}") } else { write!(f, " {cpu}") }
            },
        )
    }
}

/// Says why nothing runs, and turns the machine off.
fn refuse(error: core::fmt::Arguments<'_>) -> ! {
    print_error(error);
    give_up()
}

fn print_error(error: core::fmt::Arguments<'_>) {
    println!("bulkhead: error: {error}");
}

/// Says that nothing runs, and turns the machine off.
fn give_up() -> ! {
    println!("bulkhead: no partition was started");
    run::power_off()
}

/// Where the loader put the initrd: `linux,initrd-start` and `-end` of `/chosen`, 32 or 64 bits each.
fn initrd(board: &Tree<'_>) -> Option<Region<Pa>> {
    let chosen = board.find("/chosen")?;
    let address = |name| {
        let property = chosen.property(name)?;
        property.u64().or_else(|| property.u32().map(u64::from))
    };
    let (start, end) = (address("linux,initrd-start")?, address("linux,initrd-end")?);
    Region::new(Pa::new(start), end.checked_sub(start)?)
}

/// The bundle's inventory, undamaged.
fn inventory(bundle: Bundle<'static>) -> Inventory<'static> {
    let inventory = bundle.find(inventory::ENTRY).and_then(|entry| Inventory::new(entry, sha256::compress()));
    inventory.unwrap_or_else(|| refuse(format_args!("the bundle's inventory is missing or damaged")))
}

/// The checked manifest of the bundle.
fn plan(
    board: &'static Tree<'static>,
    platform: &mut Platform<'static>,
    bundle: Bundle<'static>,
    inventory: &Inventory<'static>,
) -> &'static Plan<'static> {
    let Some(blob) = bundle.find(manifest::BUNDLE_ENTRY) else {
        refuse(format_args!("the bundle has no manifest.dtb"));
    };
    let verdict = inventory.verify(manifest::BUNDLE_ENTRY, blob, sha256::compress());
    if !verdict.is_good() {
        refuse(format_args!("{}{verdict}", manifest::BUNDLE_ENTRY));
    }
    println!("{}{verdict}", manifest::BUNDLE_ENTRY);
    let manifest = match Tree::new(blob) {
        Ok(tree) => Box::leak(Box::new(tree)),
        Err(error) => refuse(format_args!("manifest.dtb: {error}")),
    };
    let firmwares = platform.uart;
    let is_damaged = |name: &str| {
        bundle.find(name).is_some_and(|data| !inventory.verify(name, data, sha256::compress()).is_good())
    };
    let plan = manifest::check_with(manifest, platform, board, &|name| bundle.find(name), &is_damaged);
    if let Some(uart) = platform.uart.filter(|uart| firmwares != Some(*uart))
        && let Some((model, registers)) = map_port(uart)
    {
        println!("the console goes on at {}", uart.path);
        console::init(model, registers);
        print_banner(platform);
    }
    match plan {
        Ok(plan) => Box::leak(Box::new(plan)),
        Err(findings) => {
            findings.iter().for_each(|finding| print_error(format_args!("{finding}")));
            give_up()
        }
    }
}

/// Maps the rest of the GIC, makes every CPU's redistributor known, brings up the interface of the CPU that boots, and returns its number.
fn bring_up_interrupts(platform: &Platform<'_>, distributor: Mmio) -> usize {
    let redistributors: &[_] = match &platform.gic {
        Gic::V3 { redistributors, .. } => redistributors,
        Gic::V2 { .. } => &[],
    };
    if !redistributors.is_empty() && !guest::has_gic_system_registers() {
        refuse(format_args!("{}: the CPU has no system registers for it", platform.gic_path));
    }
    if let Gic::V2 { hypervisor_interface, .. } = platform.gic {
        let cpu_interface = platform.gic.adjacent_cpu_interface().and_then(Mmio::map);
        let Some((cpu_interface, hypervisor_interface)) = cpu_interface.zip(Mmio::map(hypervisor_interface))
        else {
            refuse(format_args!("the GIC's CPU interfaces cannot be mapped"));
        };
        gic::find_interface(cpu_interface, hypervisor_interface);
    }
    gic::init_distributor(distributor);
    let own = percpu::mpidr();
    let Some(cpu) = platform.cpus.iter().take(MAX_CPUS).position(|cpu| cpu.mpidr == own) else {
        refuse(format_args!("/cpus: the boot CPU, {own:#x}, is missing"));
    };
    percpu::install(cpu);
    let mpidrs = platform.cpus.iter().take(MAX_CPUS).map(|cpu| cpu.mpidr);
    if !redistributors.iter().all(|&region| gic::find_redistributors(region, mpidrs.clone())) {
        refuse(format_args!("the redistributors cannot be mapped"));
    }
    gic::init_cpu(cpu, platform.maintenance);
    cpu
}

/// What is done for each CPU.
#[derive(Clone, Copy)]
enum Step {
    Prepare,
    Start,
    Wait,
}

/// Starts the CPUs that partitions own, and waits until they are here: a partition runs with all of its CPUs or not at all.
fn start_secondaries(system: &System, boot_cpu: usize) {
    let mut deadline = 0;
    // Each step for all CPUs before the next: where they share a release address, all come at once.
    for step in [Step::Prepare, Step::Start, Step::Wait] {
        for (number, cpu) in system.platform.cpus.iter().enumerate().take(MAX_CPUS) {
            let Some((partition, _)) = system.role(number).filter(|_| number != boot_cpu) else { continue };
            match step {
                Step::Prepare => boot::prepare_secondary(number, cpu.mpidr),
                Step::Start => {
                    if let Some(method) = cpu.enable_method {
                        boot::start_secondary(method, system.platform.psci, cpu.mpidr);
                    }
                    deadline = boot::in_a_second();
                }
                // The next one has a second from here on: an emulator of many CPUs may be slow.
                Step::Wait if boot::has_arrived(number, deadline) => deadline = boot::in_a_second(),
                Step::Wait => {
                    println!("partition {}: not started: CPU {number} does not start", partition.plan.name);
                    partition.lifecycle().refused();
                }
            }
        }
    }
}
