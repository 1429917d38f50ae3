//! What a running guest needs of EL2: answers to its exits, its interrupts, and the console.
//!
//! A crate of its own because it runs often: it is compiled to be fast, and the rest of the image, which runs once, to be
//! small (`hyp/docs/decisions/0009`).
//!
//! The only `unsafe` here is that of naming what the assembly calls.
#![no_std]
#![cfg(target_os = "none")]
#![expect(unsafe_code, reason = "the assembly finds its entry points by unmangled names")]

extern crate alloc;

pub mod console;
pub mod system;

use core::sync::atomic::Ordering;

use bulkhead_arch::gic::Acknowledged;
use bulkhead_arch::percpu::PerCpu;
use bulkhead_arch::{barrier, fault, firmware, gic, guest};
use bulkhead_policy::addr::Ipa;
use bulkhead_policy::dispatch::{Action, Direction, EmulatedDevices, Leave, dispatch};
use bulkhead_policy::irq::IntId;
use bulkhead_policy::lifecycle::Lifecycle;
use bulkhead_policy::vcpu::{Exception, Registers};
use bulkhead_policy::vgic::Vgic;

use crate::system::{Partition, System, system};

/// Why a vCPU left its guest, as a number that fits the assembly's return register; 0 is for staying.
const STAY: u64 = 0;
const LEFT_CPU_OFF: u64 = 1;
/// It asked for its partition to be turned off.
pub const LEFT_SYSTEM_OFF: u64 = 2;
/// It asked for its partition to be restarted.
pub const LEFT_SYSTEM_RESET: u64 = 3;
const LEFT_STOPPED: u64 = 4;

/// Serves an interrupt whose priority is dropped.
pub fn interrupt(
    system: &System,
    role: Option<(&Partition, usize)>,
    acknowledged: Acknowledged,
    intid: IntId,
) {
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
#[unsafe(no_mangle)]
extern "C" fn handle_irq(acknowledged: u64) -> u64 {
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
#[unsafe(no_mangle)]
extern "C" fn handle_synchronous(registers: &mut Registers) -> u64 {
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
#[unsafe(no_mangle)]
extern "C" fn handle_serror() {
    guest::take_serror();
}

#[cold]
fn refuse(partition: &Partition, exception: Exception) {
    if partition.count_refusal(exception) {
        try_println!(
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
