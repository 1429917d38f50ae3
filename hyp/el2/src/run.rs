//! What each CPU does for ever: run its vCPU, or wait until it is to.

use core::sync::atomic::{AtomicBool, Ordering};

use bulkhead_arch::mmu::{Mmio, Window};
use bulkhead_arch::once::Once;
use bulkhead_arch::{barrier, firmware, gic, guest, sha256, watchdog};
use bulkhead_board::power::PowerModel;
use bulkhead_exits::system::{Partition, System};
use bulkhead_exits::{LEFT_SYSTEM_OFF, LEFT_SYSTEM_RESET, console, interrupt, println, try_println};
use bulkhead_policy::addr::{Ipa, Pa, Region};
use bulkhead_policy::lifecycle::{Next, Parked};
use bulkhead_policy::platform::{Conduit, Platform};

use crate::load;

/// Runs the CPU that calls, number `cpu`.
pub fn run(system: &'static System, cpu: usize) -> ! {
    let Some((partition, vcpu)) = system.role(cpu) else {
        loop {
            wait(system, None);
        }
    };
    guest::assign_cpu(&partition.stage2, partition.index, vcpu);
    let mut window = (vcpu == 0).then(Window::new).flatten();
    loop {
        let next = partition.lifecycle().next(vcpu);
        match next {
            Next::Wait => wait(system, Some((partition, vcpu))),
            Next::Load => load_partition(system, partition, window.as_mut()),
            Next::Start { entry, context } => run_vcpu(system, partition, vcpu, entry, context),
        }
    }
}

fn load_partition(system: &System, partition: &Partition, window: Option<&mut Window>) {
    let again = partition.started.swap(true, Ordering::Relaxed);
    if !again && !verify_payloads(system, partition) {
        return refuse(system, partition);
    }
    let loaded = window.ok_or("there is no memory for its loading window");
    let loaded = loaded.and_then(|window| load::load(system, partition, window, again));
    match loaded {
        Ok(()) => partition.lifecycle().loaded(partition.plan.entry, partition.plan.dtb.start().raw()),
        Err(why) => {
            println!("partition {}: not started: {why}", partition.plan.name);
            refuse(system, partition);
        }
    }
}

fn refuse(system: &System, partition: &Partition) {
    partition.lifecycle().refused();
    off_if_last(system);
}

/// Whether the partition's payloads are what the inventory says; prints what each is. Once is enough: no guest reaches the bundle.
fn verify_payloads(system: &System, partition: &Partition) -> bool {
    let name = partition.plan.name;
    let mut last = "";
    partition.plan.segments.iter().map(|segment| segment.payload).all(|payload| {
        // An ELF file is several segments.
        if core::mem::replace(&mut last, payload) == payload {
            return true;
        }
        let data = system.bundle.find(payload).unwrap_or(&[]);
        let verdict = system.inventory.verify(payload, data, sha256::compress());
        let good = verdict.is_good();
        println!("partition {name}: {}payload {payload}{verdict}", if good { "" } else { "not started: " });
        good
    })
}

fn run_vcpu(system: &System, partition: &Partition, vcpu: usize, entry: Ipa, context: u64) {
    gic::reset_virtual_interface();
    partition.start_vcpu(vcpu);
    let left = guest::run(entry, context);
    partition.stop_vcpu(vcpu);
    if left == LEFT_SYSTEM_OFF || left == LEFT_SYSTEM_RESET {
        partition.lifecycle().stop(left == LEFT_SYSTEM_RESET);
        partition.stopping.store(true, Ordering::Release);
        partition.kick_others(vcpu);
    }
    let parked = partition.lifecycle().parked(vcpu);
    if let Parked::AllOut { restart } = parked {
        partition.reset();
        try_println!("partition {}: {}", partition.plan.name, if restart { "restart" } else { "off" });
        partition.lifecycle().reset();
        if restart {
            partition.kick_others(vcpu);
        } else {
            off_if_last(system);
        }
    }
}

/// Turns the machine off if no partition is left.
pub fn off_if_last(system: &System) {
    static LAST: AtomicBool = AtomicBool::new(false);
    if system.all_off() && !LAST.swap(true, Ordering::Relaxed) {
        for partition in system.partitions {
            let [data, instruction, undefined] = partition.refusals();
            if data + instruction + undefined != 0 {
                println!(
                    "partition {}: refused {data} accesses, {instruction} instruction fetches, {undefined} instructions",
                    partition.plan.name
                );
            }
        }
        println!("bulkhead: all partitions are off");
        power_off();
    }
}

/// What turns a machine off: its firmware, or the board's own means.
type Power = (Option<Conduit>, Option<(PowerModel, Region<Pa>)>);

/// What turns this one off, as soon as that is known.
static POWER: Once<Power> = Once::new();

/// Keeps in mind how the machine is turned off.
pub fn remember_power(platform: &Platform<'_>) {
    POWER.set((platform.psci, platform.power));
}

/// Turns the machine off when everything is printed, as far as there is a way. Allocates nothing.
pub fn power_off() -> ! {
    console::flush();
    if let Some((conduit, power)) = POWER.get() {
        if let Some(conduit) = conduit {
            firmware::system_off(*conduit);
        }
        if let Some((PowerModel::Bcm2835Pm, registers)) = power
            && let Some(registers) = Mmio::map(*registers)
        {
            watchdog::power_off(&registers);
        }
    }
    firmware::halt()
}

/// Waits for an interrupt and serves what is pending.
#[inline(never)]
pub fn wait(system: &System, role: Option<(&Partition, usize)>) {
    barrier::wait_for_interrupt();
    while serve(system, role) {}
}

/// Serves one pending interrupt; false where there is none.
pub fn serve(system: &System, role: Option<(&Partition, usize)>) -> bool {
    let acknowledged = gic::acknowledge();
    let Some(intid) = acknowledged.intid() else {
        acknowledged.discard();
        return false;
    };
    acknowledged.drop_priority();
    interrupt(system, role, acknowledged, intid);
    true
}
