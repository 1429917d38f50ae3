//! What each CPU does for ever: run its vCPU, or wait until it is to.

use core::sync::atomic::{AtomicBool, Ordering};

use bulkhead_arch::gic::Acknowledged;
use bulkhead_arch::mmu::{Mmio, Window};
use bulkhead_arch::percpu::PerCpu;
use bulkhead_arch::{barrier, fault, firmware, gic, guest, watchdog};
use bulkhead_board::power::PowerModel;
use bulkhead_policy::addr::Ipa;
use bulkhead_policy::dispatch::{Action, Direction, EmulatedDevices, Leave, dispatch};
use bulkhead_policy::irq::IntId;
use bulkhead_policy::lifecycle::{Lifecycle, Next, Parked};
use bulkhead_policy::platform::Platform;
use bulkhead_policy::vcpu::{Exception, Registers};
use bulkhead_policy::vgic::Vgic;

use crate::console;
use crate::load;
use crate::println;
use crate::system::{Partition, System, system};

/// Why a vCPU left its guest, as a number that fits the assembly's return register; 0 is for staying.
const STAY: u64 = 0;
const LEFT_CPU_OFF: u64 = 1;
const LEFT_SYSTEM_OFF: u64 = 2;
const LEFT_SYSTEM_RESET: u64 = 3;
const LEFT_STOPPED: u64 = 4;

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
        let next = partition.lifecycle.lock().next(vcpu);
        match next {
            Next::Wait => wait(system, Some((partition, vcpu))),
            Next::Load => load_partition(system, partition, window.as_mut()),
            Next::Start { entry, context } => run_vcpu(system, partition, vcpu, entry, context),
        }
    }
}

fn load_partition(system: &System, partition: &Partition, window: Option<&mut Window>) {
    let again = partition.started.swap(true, Ordering::Relaxed);
    let loaded = window.ok_or("there is no memory for its loading window");
    let loaded = loaded.and_then(|window| load::load(system, partition, window, again));
    match loaded {
        Ok(()) => partition.lifecycle.lock().loaded(partition.plan.entry, partition.plan.dtb.start().raw()),
        Err(why) => {
            println!("partition {}: not started: {why}", partition.plan.name);
            partition.lifecycle.lock().refused();
            off_if_last(system);
        }
    }
}

fn run_vcpu(system: &System, partition: &Partition, vcpu: usize, entry: Ipa, context: u64) {
    gic::reset_virtual_interface();
    partition.vgic.lock().start_vcpu(&mut partition.machine(), vcpu);
    let left = guest::run(entry, context);
    partition.vgic.lock().stop_vcpu(&mut partition.machine(), vcpu);
    if left == LEFT_SYSTEM_OFF || left == LEFT_SYSTEM_RESET {
        partition.lifecycle.lock().stop(left == LEFT_SYSTEM_RESET);
        partition.stopping.store(true, Ordering::Release);
        partition.kick_others(vcpu);
    }
    let parked = partition.lifecycle.lock().parked(vcpu);
    if let Parked::AllOut { restart } = parked {
        partition.reset();
        println!("partition {}: {}", partition.plan.name, if restart { "restart" } else { "off" });
        partition.lifecycle.lock().reset();
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
        power_off(Some(system.platform));
    }
}

/// Turns the machine off, by its firmware or by the board's own means, as far as it has either.
pub fn power_off(platform: Option<&Platform<'_>>) -> ! {
    console::flush();
    if let Some(conduit) = platform.and_then(|platform| platform.psci) {
        firmware::system_off(conduit);
    }
    let power = platform.and_then(|platform| platform.power);
    if let Some((PowerModel::Bcm2835Pm, registers)) = power
        && let Some(registers) = Mmio::map(registers)
    {
        watchdog::power_off(&registers);
    }
    firmware::halt()
}

/// Waits for an interrupt and serves what is pending.
fn wait(system: &System, role: Option<(&Partition, usize)>) {
    barrier::wait_for_interrupt();
    loop {
        let acknowledged = gic::acknowledge();
        let Some(intid) = acknowledged.intid() else { return acknowledged.discard() };
        acknowledged.drop_priority();
        interrupt(system, role, acknowledged, intid);
    }
}

/// Serves an interrupt whose priority is dropped.
#[inline]
fn interrupt(system: &System, role: Option<(&Partition, usize)>, acknowledged: Acknowledged, intid: IntId) {
    if intid == gic::KICK || intid == system.platform.maintenance {
        // Whoever kicked has stored before; nothing here may have been loaded before the acknowledgement: taking an
        // exception does not order it, since another interrupt may have caused that (DDI 0487, B2.3).
        barrier::context_synchronization();
        if fault::is_halted() {
            firmware::halt();
        }
        if let Some((partition, vcpu)) = role {
            partition.refresh_uart_line(vcpu);
            partition.vgic.lock().refill(&mut partition.machine(), vcpu);
        }
        acknowledged.deactivate();
    } else if Some(intid) == system.console_interrupt {
        console::interrupt(system);
        acknowledged.deactivate();
    } else if let Some((partition, vcpu)) = role {
        partition.vgic.lock().hardware_interrupt(&mut partition.machine(), vcpu, intid);
    } else {
        acknowledged.deactivate();
    }
}

/// A guest was interrupted. Returns why its vCPU leaves, or 0.
#[inline]
pub fn guest_interrupt(acknowledged: u64) -> u64 {
    let Some(system) = system() else { return STAY };
    let Some((partition, vcpu)) = system.role(PerCpu::current().cpu()) else { return STAY };
    let acknowledged = Acknowledged::from_raw(acknowledged);
    let Some(intid) = acknowledged.intid() else {
        acknowledged.discard();
        return STAY;
    };
    acknowledged.drop_priority();
    interrupt(system, Some((partition, vcpu)), acknowledged, intid);
    if intid == gic::KICK && partition.stopping.load(Ordering::Acquire) { LEFT_STOPPED } else { STAY }
}

/// A guest stopped synchronously. Returns why its vCPU leaves, or 0.
#[inline]
pub fn guest_exit(registers: &mut Registers) -> u64 {
    let Some(system) = system() else { return STAY };
    let Some((partition, vcpu)) = system.role(PerCpu::current().cpu()) else { return STAY };
    let action = dispatch(&mut Stopped { partition, vcpu }, guest::read_exit(), registers);
    match action {
        Action::Resume => {}
        Action::Advance => guest::advance(),
        Action::Inject(exception) => refuse(partition, exception),
        Action::Standby { advance } => {
            if advance {
                guest::advance();
            }
            // The physical interrupt that ends it is taken when the guest runs again.
            if !gic::offers_interrupt() {
                barrier::wait_for_interrupt();
            }
        }
        Action::Leave(Leave::CpuOff) => return LEFT_CPU_OFF,
        Action::Leave(Leave::System { restart: false }) => return LEFT_SYSTEM_OFF,
        Action::Leave(Leave::System { restart: true }) => return LEFT_SYSTEM_RESET,
    }
    STAY
}

/// An SError came while a guest ran: it is the guest's own, since it alone uses its devices and memory.
pub fn guest_serror() {
    guest::take_serror();
}

#[cold]
fn refuse(partition: &Partition, exception: Exception) {
    if partition.count_refusal(exception) {
        println!(
            "partition {}: {} at pc {:#x}{}: given to the guest; more are only counted",
            partition.plan.name,
            match exception {
                Exception::DataAbort => "data access to what it does not own",
                Exception::InstructionAbort => "instruction fetch from what it does not own",
                Exception::Undefined => "instruction it may not use",
            },
            guest::read_pc(),
            Address((exception != Exception::Undefined).then(guest::read_far)),
        );
    }
    guest::take_exception(exception);
}

/// A partition whose vCPU `vcpu` stopped on this CPU.
struct Stopped<'a> {
    partition: &'a Partition,
    vcpu: usize,
}

impl<'a> bulkhead_policy::dispatch::System for Stopped<'a> {
    type Machine = gic::GicMachine<'a>;

    fn vcpu(&self) -> usize {
        self.vcpu
    }

    fn partition(&self) -> usize {
        self.partition.index
    }

    fn devices(&self) -> &EmulatedDevices {
        &self.partition.devices
    }

    fn is_memory(&self, ipa: Ipa) -> bool {
        self.partition.plan.locate(ipa).is_some()
    }

    fn with_vgic<R>(&mut self, f: impl FnOnce(&mut Vgic, &mut Self::Machine) -> R) -> R {
        f(&mut self.partition.vgic.lock(), &mut self.partition.machine())
    }

    fn with_lifecycle<R>(&mut self, f: impl FnOnce(&mut Lifecycle) -> R) -> R {
        f(&mut self.partition.lifecycle.lock())
    }

    fn access_uart(&mut self, offset: u64, direction: Direction) -> u64 {
        match direction {
            Direction::Load => self.partition.with_uart(|uart| uart.read(offset)),
            Direction::Store(value) => {
                let sent = self.partition.with_uart(|uart| {
                    uart.write(offset, value);
                    uart.has_transmitted()
                });
                if sent {
                    console::send(self.partition.index + 1, value as u8 == b'\n');
                }
                0
            }
        }
    }

    fn access_shared_page(&mut self, page: usize, offset: u64, direction: Direction) -> u64 {
        self.partition.access_shared_page(page, offset, direction)
    }

    fn kick(&mut self, vcpu: usize) {
        if let Some(&cpu) = self.partition.plan.cpus.get(vcpu) {
            gic::kick(cpu);
        }
    }

    fn id_register(&self, crm: u8, op2: u8) -> u64 {
        guest::read_id_register(crm, op2)
    }
}

/// The address of a refused access, where it has one.
struct Address(Option<u64>);

impl core::fmt::Display for Address {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.map_or(Ok(()), |address| write!(f, ", address {address:#x}"))
    }
}
