//! From a guest's exit to what happens next.
//!
//! [`dispatch`] reads and changes the partition's model and returns an [`Action`]; `arch` applies it. Every input of a
//! guest has an answer here: the fall-through of each `match` is an exception for the guest or NOT_SUPPORTED.

use bulkhead_abi::{hypercall, psci, smccc};

use crate::addr::{Ipa, Region};
use crate::irq::IntId;
use crate::lifecycle::Lifecycle;
use crate::machine::Machine;
use crate::psci::Outcome;
use crate::shared_page::SharedPage;
use crate::syndrome::{DataAbort, Exit, SystemRegister, SystemRegisterAccess};
use crate::vcpu::{Exception, Registers};
use crate::vgic::{Access, Vgic};

/// Where a guest finds what Bulkhead emulates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EmulatedDevices {
    /// GICD frame.
    pub distributor: Region<Ipa>,
    /// GICR frames of all its vCPUs.
    pub redistributors: Option<Region<Ipa>>,
    /// GICC_DIR of a GICv2, at the start of each of its pages.
    pub deactivate: Option<Region<Ipa>>,
    /// PL011.
    pub uart: Option<Region<Ipa>>,
    /// Pages of registers of which the partition has parts.
    pub shared_pages: &'static [SharedPage],
}

/// A load or a store.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Direction {
    /// The guest reads.
    Load,
    /// The guest writes this.
    Store(u64),
}

/// The partition that stopped, with the means to change its model.
pub trait System {
    /// Its interrupt hardware.
    type Machine: Machine;
    /// Which of its vCPUs stopped.
    fn vcpu(&self) -> usize;
    /// Which partition it is, from 0.
    fn partition(&self) -> usize;
    /// What is emulated where.
    fn devices(&self) -> &EmulatedDevices;
    /// Whether `ipa` is in its RAM.
    fn is_memory(&self, ipa: Ipa) -> bool;
    /// Its interrupt controller.
    fn with_vgic<R>(&mut self, f: impl FnOnce(&mut Vgic, &mut Self::Machine) -> R) -> R;
    /// Its power states.
    fn with_lifecycle<R>(&mut self, f: impl FnOnce(&mut Lifecycle) -> R) -> R;
    /// A load or store in its emulated PL011; the value of a load.
    fn access_uart(&mut self, offset: u64, direction: Direction) -> u64;
    /// A load or store at this offset, a multiple of 4, of its shared page `page`; the value of a load.
    fn access_shared_page(&mut self, page: usize, offset: u64, direction: Direction) -> u64;
    /// Makes the CPU of `vcpu` look at its lifecycle.
    fn kick(&mut self, vcpu: usize);
    /// The CPU's own ID register with this CRm and Op2.
    fn id_register(&self, crm: u8, op2: u8) -> u64;
}

/// What happens next to the vCPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It goes on where it stopped.
    Resume,
    /// It goes on at the next instruction.
    Advance,
    /// It takes an exception.
    Inject(Exception),
    /// It waits for an interrupt, then goes on; at the next instruction if so said.
    Standby {
        /// Step over the instruction that trapped.
        advance: bool,
    },
    /// It leaves its guest.
    Leave(Leave),
}

/// Why a vCPU leaves its guest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leave {
    /// CPU_OFF.
    CpuOff,
    /// Its partition goes off or restarts.
    System {
        /// It restarts.
        restart: bool,
    },
}

/// Decides what follows from `exit`; `registers` are the guest's.
#[inline]
pub fn dispatch<S: System>(system: &mut S, exit: Exit, registers: &mut Registers) -> Action {
    match exit {
        // An abort in an emulated device is by far the most frequent.
        Exit::DataAbort(abort) => data_abort(system, abort, registers),
        Exit::SystemRegister(access) => system_register(system, access, registers),
        Exit::Hvc(immediate) => service_call(system, immediate, registers, false),
        Exit::Smc(immediate) => service_call(system, immediate, registers, true),
        Exit::InstructionAbort => Action::Inject(Exception::InstructionAbort),
        Exit::Other(_) => Action::Inject(Exception::Undefined),
    }
}

fn data_abort<S: System>(system: &mut S, abort: DataAbort, registers: &mut Registers) -> Action {
    let unowned = Action::Inject(Exception::DataAbort);
    let Some(ipa) = abort.ipa else { return unowned };
    let Some(device) = Device::at(system.devices(), ipa) else { return unowned };
    if abort.cache_maintenance {
        // Registers are not cached: nothing to do, as on real hardware.
        return Action::Advance;
    }
    let Some(access) = abort.access else { return unowned };
    if let Device::SharedPage(_, offset) = device
        && (access.size > 4 || offset & 3 != 0)
    {
        return unowned;
    }
    let direction = if abort.write {
        Direction::Store(access.truncate(registers.get(access.register)))
    } else {
        Direction::Load
    };
    match device.access(system, access.size, direction) {
        Access::Retry => Action::Resume,
        Access::Value(value) => {
            if !abort.write {
                registers.set(access.register, access.extend(value));
            }
            Action::Advance
        }
    }
}

/// An emulated device and the offset of an access within it.
#[derive(Clone, Copy)]
enum Device {
    Distributor(u64),
    Redistributors(u64),
    Deactivate(u64),
    Uart(u64),
    SharedPage(usize, u64),
}

impl Device {
    fn at(devices: &EmulatedDevices, ipa: Ipa) -> Option<Self> {
        if let Some(offset) = devices.distributor.offset_of(ipa) {
            return Some(Self::Distributor(offset));
        }
        if let Some(offset) = devices.redistributors.and_then(|region| region.offset_of(ipa)) {
            return Some(Self::Redistributors(offset));
        }
        if let Some(offset) = devices.uart.and_then(|region| region.offset_of(ipa)) {
            return Some(Self::Uart(offset));
        }
        if let Some(offset) = devices.deactivate.and_then(|region| region.offset_of(ipa)) {
            return Some(Self::Deactivate(offset));
        }
        let mut pages = devices.shared_pages.iter().enumerate();
        pages.find_map(|(page, rules)| Some(Self::SharedPage(page, rules.offset_of(ipa)?)))
    }

    fn access<S: System>(self, system: &mut S, size: u64, direction: Direction) -> Access {
        let vcpu = system.vcpu();
        match (self, direction) {
            (Self::Distributor(offset), Direction::Load) => {
                system.with_vgic(|vgic, machine| vgic.read_distributor(machine, vcpu, offset, size))
            }
            (Self::Distributor(offset), Direction::Store(value)) => {
                system.with_vgic(|vgic, machine| vgic.write_distributor(machine, vcpu, offset, size, value));
                Access::Value(0)
            }
            (Self::Redistributors(offset), Direction::Load) => {
                system.with_vgic(|vgic, machine| vgic.read_redistributor(machine, vcpu, offset, size))
            }
            (Self::Redistributors(offset), Direction::Store(value)) => {
                system
                    .with_vgic(|vgic, machine| vgic.write_redistributor(machine, vcpu, offset, size, value));
                Access::Value(0)
            }
            (Self::Deactivate(offset), Direction::Store(value)) => {
                // INTID 9:0; the sender in 12:10 is that of the one SGI of this number that is active.
                let intid = IntId::new(value as u32 & 0x3ff).filter(|_| offset & 0xfff == 0 && size == 4);
                if let Some(intid) = intid {
                    system.with_vgic(|vgic, machine| vgic.deactivate(machine, vcpu, intid));
                }
                Access::Value(0)
            }
            (Self::Deactivate(_), Direction::Load) => Access::Value(0),
            (Self::Uart(offset), direction) => Access::Value(system.access_uart(offset, direction)),
            (Self::SharedPage(page, offset), direction) => {
                Access::Value(system.access_shared_page(page, offset, direction))
            }
        }
    }
}

/// ID_AA64PFR0_EL1.GIC: there is a GIC's CPU interface in system registers.
const ID_AA64PFR0_GIC: u64 = 0xf << 24;

fn system_register<S: System>(
    system: &mut S,
    access: SystemRegisterAccess,
    registers: &mut Registers,
) -> Action {
    let vcpu = system.vcpu();
    let value = registers.get(access.rt);
    match (access.register, access.read) {
        (SystemRegister::ICC_SGI1R, false) => {
            system.with_vgic(|vgic, machine| vgic.send_sgi(machine, vcpu, value, true));
        }
        // With one security state the alias reaches the other group's interrupts, which are group 0 here.
        (SystemRegister::ICC_SGI0R | SystemRegister::ICC_ASGI1R, false) => {
            system.with_vgic(|vgic, machine| vgic.send_sgi(machine, vcpu, value, false));
        }
        (SystemRegister::ICC_DIR, false) => {
            if let Some(intid) = IntId::new(value as u32 & 0xff_ffff) {
                system.with_vgic(|vgic, machine| vgic.deactivate(machine, vcpu, intid));
            }
        }
        // A GICv2 has no system registers, also where the CPU has some.
        (SystemRegister::ICC_SRE, _) if system.devices().redistributors.is_none() => {
            return Action::Inject(Exception::Undefined);
        }
        // System registers are the only interface (SRE, DFB, DIB); ACTLR_EL1 has nothing for a guest.
        (SystemRegister::ICC_SRE, true) => registers.set(access.rt, 0b111),
        // The OS lock exists (OSLM 0b10) and is never set; there is no debug ROM table.
        (SystemRegister::OSLSR, true) => registers.set(access.rt, 0b1000),
        (SystemRegister::OSDLR | SystemRegister::DBGPRCR | SystemRegister::MDRAR, true) => {
            registers.set(access.rt, 0)
        }
        (SystemRegister::OSLAR | SystemRegister::OSDLR | SystemRegister::DBGPRCR, false) => {}
        (SystemRegister::ACTLR, true) => registers.set(access.rt, 0),
        (SystemRegister::ICC_SRE | SystemRegister::ACTLR, false) => {}
        (register, true) => {
            let Some((crm, op2)) = register.id_register() else {
                return Action::Inject(Exception::Undefined);
            };
            let value = crate::vcpu::id_register(crm, op2, system.id_register(crm, op2));
            let value = if (crm, op2) == (4, 0) && system.devices().redistributors.is_none() {
                value & !ID_AA64PFR0_GIC
            } else {
                value
            };
            registers.set(access.rt, value);
        }
        (_, false) => return Action::Inject(Exception::Undefined),
    }
    Action::Advance
}

/// HVC and SMC (DEN0028): results in x0–x3, everything else kept.
fn service_call<S: System>(system: &mut S, immediate: u16, registers: &mut Registers, smc: bool) -> Action {
    let [function, arguments @ ..] = [registers.get(0), registers.get(1), registers.get(2), registers.get(3)];
    let function = function as u32;
    let mut action = if smc { Action::Advance } else { Action::Resume };
    let result = if immediate != 0 {
        psci::NOT_SUPPORTED
    } else {
        match function {
            hypercall::PARTITION_ID => system.partition() as i64,
            hypercall::CALL_UID => {
                for (register, word) in (0..).zip(hypercall::UID_WORDS) {
                    registers.set(register, word.into());
                }
                return action;
            }
            hypercall::CALL_REVISION => {
                registers.set(1, hypercall::REVISION_MINOR.into());
                hypercall::REVISION_MAJOR.into()
            }
            smccc::SMCCC_VERSION => smccc::VERSION_1_1.into(),
            smccc::SMCCC_ARCH_FEATURES => {
                architecture_feature(arguments.first().copied().unwrap_or(0) as u32)
            }
            function if smccc::owner(function) == smccc::OWNER_STANDARD => {
                let (result, next) = power_call(system, function, arguments, action);
                action = next;
                result
            }
            _ => smccc::NOT_SUPPORTED,
        }
    };
    registers.set(0, result as u64);
    action
}

/// SMCCC_ARCH_FEATURES: which of the architecture's calls there are. No workaround is offered, because a guest's own
/// calls never reach firmware and EL2 applies none on its behalf.
fn architecture_feature(function: u32) -> i64 {
    match function {
        smccc::SMCCC_VERSION | smccc::SMCCC_ARCH_FEATURES => smccc::SUCCESS,
        _ => smccc::NOT_SUPPORTED,
    }
}

fn power_call<S: System>(system: &mut S, function: u32, arguments: [u64; 3], done: Action) -> (i64, Action) {
    let entry = Ipa::new(if function & smccc::CALL_64 == 0 {
        arguments[1] & u64::from(u32::MAX)
    } else {
        arguments[1]
    });
    let entry_is_memory = system.is_memory(entry);
    match system
        .with_lifecycle(|lifecycle| crate::psci::call(lifecycle, function, arguments, |_| entry_is_memory))
    {
        Outcome::Return(result) => (result, done),
        Outcome::Started(target) => {
            system.kick(target);
            (psci::SUCCESS, done)
        }
        Outcome::Standby => (psci::SUCCESS, Action::Standby { advance: done == Action::Advance }),
        Outcome::CpuOff => (psci::SUCCESS, Action::Leave(Leave::CpuOff)),
        Outcome::System { restart } => (psci::SUCCESS, Action::Leave(Leave::System { restart })),
    }
}
