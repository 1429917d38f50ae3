//! The registers of the distributor, and those that a redistributor has in common with it.
//!
//! Offsets and fields are those of IHI 0069 (GICv3 and GICv4), 12.9 and 12.11, and of IHI 0048 (GICv2), 4.3. The partition sees
//! a single security state: of a GICv3 GICD_CTLR.DS = 1 and affinity routing always on, of a GICv2 one without Security
//! Extensions. A GICv2's private interrupts are in its distributor, each vCPU seeing its own. A register that does not exist, and an
//! access of a size that a register does not support, reads as zero and is ignored.

use super::bank::{Bank, bits, mask};
use super::{Access, Model, SGIS, Vgic, bank_index};
use crate::irq::IntId;
use crate::machine::Machine;

const CTLR: u64 = 0x0000;
const TYPER: u64 = 0x0004;
const IIDR: u64 = 0x0008;
const IROUTER: u64 = 0x6000;
const PIDR2: u64 = 0xffe8;

const ITARGETSR: u64 = 0x0800;
const ITARGETSR_END: u64 = 0x0c00;
const SGIR: u64 = 0x0f00;
const CPENDSGIR: u64 = 0x0f10;
const SPENDSGIR: u64 = 0x0f20;
const SPENDSGIR_END: u64 = 0x0f30;
const ICPIDR2: u64 = 0x0fe8;

const CTLR_ENABLE_GROUPS: u32 = 0b11;
const CTLR_ARE: u32 = 1 << 4;
const CTLR_DS: u32 = 1 << 6;
const CTLR_RWP: u32 = 1 << 31;

/// Implementer Arm, revision 0, product 'B' (IHI 0069, 12.9.19).
pub(super) const IIDR_VALUE: u32 = 0x4200_043b;
/// Architecture revision GICv3 in bits 7:4 (IHI 0069, 12.9.22).
pub(super) const PIDR2_VALUE: u32 = 0x3b;
/// Those of a GIC-400, revision 1 (DDI 0471, 3.2).
const V2_IIDR_VALUE: u32 = 0x0200_143b;
const V2_ICPIDR2_VALUE: u32 = 0x2b;

/// A register of which there is one for every 32, 16 or 4 interrupts, in the distributor and in the
/// redistributor's SGI frame at the same offset.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BankRegister {
    Group,
    SetEnable,
    ClearEnable,
    SetPending,
    ClearPending,
    SetActive,
    ClearActive,
    /// Priorities from this bit on.
    Priority(usize),
    /// Triggers of the upper or lower 16.
    Config {
        upper: bool,
    },
}

/// The bank register at `offset`, and the word of interrupts it is for.
#[inline(always)]
pub(super) fn decode(offset: u64) -> Option<(BankRegister, usize)> {
    use BankRegister::{
        ClearActive, ClearEnable, ClearPending, Config, Group, Priority, SetActive, SetEnable, SetPending,
    };
    let word = (offset >> 2) as usize & 0x1f;
    Some(match offset {
        0x080..0x100 => (Group, word),
        0x100..0x180 => (SetEnable, word),
        0x180..0x200 => (ClearEnable, word),
        0x200..0x280 => (SetPending, word),
        0x280..0x300 => (ClearPending, word),
        0x300..0x380 => (SetActive, word),
        0x380..0x400 => (ClearActive, word),
        0x400..0x800 => (Priority(offset as usize & 0x1f), (offset as usize >> 5) & 0x1f),
        0xc00..0xd00 => (Config { upper: offset & 4 != 0 }, (offset as usize >> 3) & 0x1f),
        _ => return None,
    })
}

/// The interrupts whose bytes an access of `size` bytes at `offset` touches, with the place of each byte in the value.
fn bytes(offset: u64, size: u64) -> impl Iterator<Item = (u32, u32)> {
    (0..size as u32).map(move |byte| ((offset as u32).wrapping_add(byte), (byte & 3) << 3))
}

/// Which bank an access is for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum BankId {
    /// The private interrupts of this vCPU.
    Private(usize),
    /// SPIs by index into the shared banks.
    Shared(usize),
}

impl Vgic {
    /// A read of `size` bytes at `offset` into the distributor's frame by `vcpu`.
    pub fn read_distributor<M: Machine>(
        &mut self,
        machine: &mut M,
        vcpu: usize,
        offset: u64,
        size: u64,
    ) -> Access {
        if let Some((register, word)) = decode(offset) {
            return match word.checked_sub(1) {
                Some(index) => self.read_bank(machine, vcpu, BankId::Shared(index), register, size),
                None if self.model == Model::V2 => {
                    self.read_bank(machine, vcpu, BankId::Private(vcpu), register, size)
                }
                None => Access::Value(0),
            };
        }
        if self.model == Model::V2 {
            return Access::Value(self.read_v2(machine, vcpu, offset, size).into());
        }
        let value = match (offset, size) {
            (CTLR, 4) => {
                let pending = if self.write_pending() { CTLR_RWP } else { 0 };
                self.groups | CTLR_ARE | CTLR_DS | pending
            }
            (TYPER, 4) => self.typer(),
            (IIDR, 4) => IIDR_VALUE,
            (PIDR2, 4) => PIDR2_VALUE,
            (IROUTER.., 4 | 8) => return Access::Value(self.read_router(offset, size).into()),
            _ => 0,
        };
        Access::Value(value.into())
    }

    /// A write of `size` bytes at `offset` into the distributor's frame by `vcpu`.
    pub fn write_distributor<M: Machine>(
        &mut self,
        machine: &mut M,
        vcpu: usize,
        offset: u64,
        size: u64,
        value: u64,
    ) {
        if let Some((register, word)) = decode(offset) {
            if let Some(index) = word.checked_sub(1) {
                self.write_bank(machine, vcpu, BankId::Shared(index), register, size, value as u32);
            } else if self.model == Model::V2 {
                // SGIs are pended by GICD_SPENDSGIR, which names their senders (IHI 0048, 4.3.7).
                let by_bits = matches!(register, BankRegister::SetPending | BankRegister::ClearPending);
                let value = if by_bits { value as u32 & !0xffff } else { value as u32 };
                self.write_bank(machine, vcpu, BankId::Private(vcpu), register, size, value);
            }
            return;
        }
        if self.model == Model::V2 && offset != CTLR {
            self.write_v2(machine, vcpu, offset, size, value as u32);
            return;
        }
        match (offset, size) {
            (CTLR, 4) => {
                let groups = value as u32 & CTLR_ENABLE_GROUPS;
                if groups != self.groups {
                    self.groups = groups;
                    for other in 0..self.vcpus.len() {
                        self.resynchronize(machine, Some(vcpu), other);
                    }
                }
            }
            (IROUTER.., 4 | 8) => self.write_router(machine, vcpu, offset, size, value),
            _ => {}
        }
    }

    /// What a GICv2's distributor has beside the bank registers.
    #[inline(never)]
    fn read_v2<M: Machine>(&mut self, machine: &mut M, vcpu: usize, offset: u64, size: u64) -> u32 {
        match (offset, size) {
            (CTLR, 4) => self.groups,
            // ITLinesNumber and CPUNumber (IHI 0048, 4.3.2).
            (TYPER, 4) => self.shared.len() as u32 | (self.vcpus.len().wrapping_sub(1) as u32) << 5,
            (IIDR, 4) => V2_IIDR_VALUE,
            (ICPIDR2, 4) => V2_ICPIDR2_VALUE,
            (ITARGETSR..ITARGETSR_END, 1 | 4) => {
                bytes(offset.wrapping_sub(ITARGETSR), size).fold(0, |value, (intid, shift)| {
                    let targets = match IntId::new(intid) {
                        Some(intid) if intid.is_private() => mask(vcpu),
                        Some(intid) => self.targets(intid),
                        None => 0,
                    };
                    value | targets << shift
                })
            }
            (CPENDSGIR..SPENDSGIR_END, 1 | 4) => {
                self.unload(machine, vcpu);
                let senders = self.vcpus.get(vcpu).map_or([0; SGIS], |private| private.senders);
                self.fill(machine, vcpu);
                bytes(offset & 0xf, size).fold(0, |value, (intid, shift)| {
                    value | u32::from(senders.get(intid as usize).copied().unwrap_or(0)) << shift
                })
            }
            _ => 0,
        }
    }

    #[inline(never)]
    fn write_v2<M: Machine>(&mut self, machine: &mut M, vcpu: usize, offset: u64, size: u64, value: u32) {
        match (offset, size) {
            (ITARGETSR..ITARGETSR_END, 1 | 4) => {
                for (intid, shift) in bytes(offset.wrapping_sub(ITARGETSR), size) {
                    if let Some(intid) = IntId::new(intid) {
                        self.write_targets(machine, vcpu, intid, (value >> shift) as u8);
                    }
                }
            }
            (SGIR, 4) => self.write_sgir(machine, vcpu, value),
            (CPENDSGIR..SPENDSGIR_END, 1 | 4) => {
                let existing = mask(self.vcpus.len()).wrapping_sub(1);
                self.unload(machine, vcpu);
                if let Some(private) = self.vcpus.get_mut(vcpu) {
                    for (intid, shift) in bytes(offset & 0xf, size) {
                        let Some(senders) = private.senders.get_mut(intid as usize) else { continue };
                        let named = ((value >> shift) & existing) as u8;
                        if offset < SPENDSGIR {
                            *senders &= !named;
                        } else {
                            *senders |= named;
                        }
                        let bit = mask(intid as usize);
                        if *senders == 0 {
                            private.bank.latched &= !bit;
                        } else {
                            private.bank.latched |= bit;
                        }
                    }
                }
                self.fill(machine, vcpu);
            }
            _ => {}
        }
    }

    /// What GICD_ITARGETSR says of an SPI.
    fn targets(&mut self, intid: IntId) -> u32 {
        let Some((bank, bit)) = self.shared_bit(intid) else { return 0 };
        if bank.owned & mask(bit) == 0 {
            return 0;
        }
        bank.targets.get(bit).copied().map_or(0, u32::from)
    }

    /// GICD_ITARGETSR: bits of vCPUs that do not exist are zero. Of several, the first gets the interrupt.
    fn write_targets<M: Machine>(&mut self, machine: &mut M, vcpu: usize, intid: IntId, targets: u8) {
        let targets = u32::from(targets) & mask(self.vcpus.len()).wrapping_sub(1);
        let Some((bank, bit)) = self.shared_bit(intid) else { return };
        // Of what the partition does not own nothing is read or retargeted.
        if let Some(slot) = bank.targets.get_mut(bit) {
            *slot = targets as u8;
        }
        let target = if targets == 0 { u8::MAX } else { targets.trailing_zeros() as u8 };
        self.retarget(machine, vcpu, intid, target);
    }

    /// GICD_TYPER: No1N, 10 ID bits, ITLinesNumber (IHI 0069, 12.9.38).
    fn typer(&self) -> u32 {
        let words = self.shared.len() as u32;
        (1 << 25) | (9 << 19) | words
    }

    /// The SPI and the byte within its GICD_IROUTER.
    fn router(offset: u64) -> Option<(IntId, u64)> {
        let intid = IntId::new((offset.wrapping_sub(IROUTER) >> 3) as u32)?;
        (!intid.is_private()).then_some((intid, offset & 7))
    }

    fn read_router(&mut self, offset: u64, size: u64) -> u32 {
        let Some((intid, byte)) = Self::router(offset) else { return 0 };
        if byte != 0 || (size == 8 && !offset.is_multiple_of(8)) {
            return 0;
        }
        let Some((bank, bit)) = self.shared_bit(intid) else { return 0 };
        if bank.owned & mask(bit) == 0 { 0 } else { bank.target_of(bit) as u32 }
    }

    fn write_router<M: Machine>(&mut self, machine: &mut M, vcpu: usize, offset: u64, size: u64, value: u64) {
        let Some((intid, 0)) = Self::router(offset) else { return };
        let vcpus = self.vcpus.len() as u64;
        // Affinities are Aff0 below the number of vCPUs; any other names nobody, and the interrupt then stays
        // pending. GICD_TYPER.No1N says that 1-of-N routing does not exist.
        let affinity = if size == 8 { value & 0xff_00ff_ffff } else { value & 0x00ff_ffff };
        let target = if affinity < vcpus { affinity as u8 } else { u8::MAX };
        self.retarget(machine, vcpu, intid, target);
    }

    /// Sends an SPI to `target` from now on, `u8::MAX` being nobody.
    fn retarget<M: Machine>(&mut self, machine: &mut M, vcpu: usize, intid: IntId, target: u8) {
        let Some((bank, bit)) = self.shared_bit(intid) else { return };
        if bank.owned & mask(bit) == 0 {
            return;
        }
        bank.set_target(bit, target);
        if target != u8::MAX && bank.hardware & mask(bit) != 0 {
            machine.route(intid, usize::from(target));
        }
        if bank.resident & mask(bit) != 0 {
            self.recall(machine, Some(vcpu), bank_index(intid), mask(bit));
        } else if bank.pending() & mask(bit) != 0 {
            self.deliver(machine, Some(vcpu), usize::from(target), intid);
        }
    }

    fn bank(&mut self, id: BankId) -> Option<&mut Bank> {
        match id {
            BankId::Private(vcpu) => self.vcpus.get_mut(vcpu).map(|private| &mut private.bank),
            BankId::Shared(index) => self.shared.get_mut(index),
        }
    }

    /// A read of a bank register.
    pub(super) fn read_bank<M: Machine>(
        &mut self,
        machine: &mut M,
        vcpu: usize,
        id: BankId,
        register: BankRegister,
        size: u64,
    ) -> Access {
        use BankRegister::{
            ClearActive, ClearEnable, ClearPending, Config, Group, Priority, SetActive, SetEnable, SetPending,
        };
        let precise = matches!(register, SetPending | ClearPending | SetActive | ClearActive) && size == 4;
        if precise && !self.settle(machine, vcpu, id) {
            return Access::Retry;
        }
        let Some(bank) = self.bank(id) else { return Access::Value(0) };
        let value = match (register, size) {
            (Group, 4) => bank.group1 & bank.owned,
            (SetEnable | ClearEnable, 4) => bank.enabled,
            (SetPending | ClearPending, 4) => {
                let known = bank.pending() | bank.seen_pending;
                let (hardware, word) = (bank.hardware, bank.word());
                let owner = if let BankId::Private(owner) = id { owner } else { vcpu };
                known | (machine.physical_pending(owner, word) & hardware)
            }
            (SetActive | ClearActive, 4) => bank.active | bank.seen_active,
            (Priority(first), 1 | 4) => {
                let mut value = 0;
                for byte in 0..size as usize {
                    let bit = first.wrapping_add(byte);
                    value |= u32::from(bank.priority_of(bit)) << ((byte as u32 & 3) << 3);
                }
                value
            }
            (Config { upper }, 4) => {
                let half = if upper { bank.edge >> 16 } else { bank.edge };
                bits(half & 0xffff).fold(0, |value, bit| value | mask(bit.wrapping_mul(2).wrapping_add(1)))
            }
            _ => 0,
        };
        Access::Value(value.into())
    }

    /// A write to a bank register.
    pub(super) fn write_bank<M: Machine>(
        &mut self,
        machine: &mut M,
        vcpu: usize,
        id: BankId,
        register: BankRegister,
        size: u64,
        value: u32,
    ) {
        use BankRegister::{
            ClearActive, ClearEnable, ClearPending, Config, Group, Priority, SetActive, SetEnable, SetPending,
        };
        let owner = if let BankId::Private(owner) = id { owner } else { vcpu };
        if matches!(register, SetPending | ClearPending | SetActive | ClearActive)
            && id == BankId::Private(vcpu)
        {
            // This CPU can make its bank exact at once.
            self.unload(machine, vcpu);
        }
        let timer = if owner == vcpu { 0 } else { self.timer_mask() };
        let Some(bank) = self.bank(id) else { return };
        // List register 0 of another CPU may hold the timer unknown to its bank.
        let elsewhere = bank.resident | if bank.word() == 0 { timer } else { 0 };
        // Only these have one bit for each interrupt.
        let value = if matches!(register, Priority(_) | Config { .. }) { value } else { value & bank.owned };
        match (register, size) {
            (SetEnable, 4) => {
                let changed = value & !bank.enabled;
                bank.enabled |= changed;
                let (word, hardware, ready) =
                    (bank.word(), bank.hardware & changed, bank.pending() & changed);
                if hardware != 0 {
                    machine.set_enabled(owner, word, hardware, true);
                }
                if ready != 0 {
                    self.deliver_bits(machine, vcpu, id, ready);
                } else if word == 0 && changed & self.timer_mask() != 0 {
                    self.refresh_timer(machine, vcpu, owner);
                }
            }
            (ClearEnable, 4) => {
                let changed = value & bank.enabled & !bank.always_enabled;
                bank.enabled &= !changed;
                let (word, hardware) = (bank.word(), bank.hardware & changed);
                if hardware != 0 {
                    machine.set_enabled(owner, word, hardware, false);
                }
                self.recall_bits(machine, vcpu, id, changed);
            }
            (Group, 4) => {
                let changed = (value ^ bank.group1) & bank.owned;
                bank.group1 ^= changed;
                self.recall_bits(machine, vcpu, id, changed);
                self.deliver_bits(machine, vcpu, id, changed);
            }
            (SetPending, 4) => {
                // GICR_ISPENDR0 pends an SGI too (IHI 0069, 12.11.21).
                bank.latched |= value;
                self.deliver_bits(machine, vcpu, id, value);
            }
            (ClearPending, 4) => {
                bank.latched &= !value;
                bank.cancel_pending |= value & elsewhere;
                let done = value & bank.in_service & !bank.active & !bank.resident;
                bank.in_service &= !done;
                for bit in bits(done) {
                    if let Some(intid) = self.bank(id).and_then(|bank| bank.intid(bit)) {
                        machine.deactivate(owner, intid);
                    }
                }
                self.recall_bits(machine, vcpu, id, value);
            }
            (SetActive, 4) => {
                let changed = value & !bank.resident & !bank.active;
                bank.active |= changed;
                for bit in bits(changed) {
                    let home = if let BankId::Private(owner) = id { owner } else { bank.target_of(bit) };
                    bank.set_home(bit, home);
                }
                self.deliver_bits(machine, vcpu, id, changed);
            }
            (ClearActive, 4) => {
                bank.cancel_active |= value & elsewhere;
                let ended = value & bank.active;
                for bit in bits(ended) {
                    if let Some(intid) = self.bank(id).and_then(|bank| bank.intid(bit)) {
                        self.end(machine, owner, intid);
                    }
                }
                self.recall_bits(machine, vcpu, id, value);
                self.deliver_bits(machine, vcpu, id, ended);
            }
            (Priority(first), 1 | 4) => {
                let owned = bank.owned;
                let mut changed = 0;
                for byte in 0..size as usize {
                    let bit = first.wrapping_add(byte);
                    if owned & mask(bit) != 0 {
                        bank.set_priority(bit, (value >> ((byte as u32 & 3) << 3)) as u8);
                        changed |= mask(bit);
                    }
                }
                let waiting = bank.pending() & !bank.resident & changed;
                self.recall_bits(machine, vcpu, id, changed);
                self.deliver_bits(machine, vcpu, id, waiting);
            }
            (Config { .. }, 4) => {}
            _ => {}
        }
        if let (Config { upper }, 4) = (register, size) {
            self.write_config(id, upper, value);
        }
        if matches!(register, SetPending | ClearPending | SetActive | ClearActive)
            && id == BankId::Private(vcpu)
        {
            self.fill(machine, vcpu);
        }
    }

    /// The trigger of each owned interrupt but the SGIs, which are always edge-triggered.
    fn write_config(&mut self, id: BankId, upper: bool, value: u32) {
        let Some(bank) = self.bank(id) else { return };
        let mut edge = 0;
        for bit in 0..16_usize {
            if value & mask(bit.wrapping_mul(2).wrapping_add(1)) != 0 {
                edge |= mask(bit);
            }
        }
        let (edge, half) = if upper { (edge << 16, 0xffff_0000) } else { (edge, 0xffff) };
        let writable = bank.owned & half & if bank.word() == 0 { !0xffff } else { !0 };
        bank.edge = (bank.edge & !writable) | (edge & writable);
    }

    /// The vCPUs whose list registers hold interrupts of this bank among `which`.
    pub(super) fn homes(&self, id: BankId, which: u32) -> u32 {
        let timer = self.timer_mask();
        let bank = match id {
            BankId::Private(vcpu) => self.vcpus.get(vcpu).map(|private| &private.bank),
            BankId::Shared(index) => self.shared.get(index),
        };
        let Some(bank) = bank else { return 0 };
        match id {
            // List register 0 may hold the timer unknown to the bank.
            BankId::Private(owner) => {
                let maybe = bank.resident | timer;
                if maybe & which == 0 { 0 } else { mask(owner) }
            }
            BankId::Shared(_) => {
                bits(bank.resident & which).fold(0, |homes, bit| homes | mask(bank.home_of(bit)))
            }
        }
    }

    /// The list registers that hold interrupts of `which` are looked at again by their CPUs.
    fn recall_bits<M: Machine>(&mut self, machine: &mut M, vcpu: usize, id: BankId, which: u32) {
        let homes = self.homes(id, which);
        if id == BankId::Private(vcpu) && homes != 0 {
            let timer = self.timer_mask();
            let resident = self.bank(id).map_or(0, |bank| bank.resident & which);
            if resident == 0 && machine.empty_list_registers() & 1 != 0 {
                // The timer alone, and its list register is empty.
                if which & timer != 0 {
                    self.publish_timer(machine, vcpu);
                }
                return;
            }
        }
        for home in bits(homes) {
            self.resynchronize(machine, Some(vcpu), home);
        }
    }

    /// What the short path of the CPU of `owner` may do with the timer changed.
    fn refresh_timer<M: Machine>(&mut self, machine: &mut M, vcpu: usize, owner: usize) {
        if owner == vcpu {
            self.publish_timer(machine, vcpu);
        } else {
            self.resynchronize(machine, Some(vcpu), owner);
        }
    }

    /// What of `which` is pending or active is put into list registers.
    fn deliver_bits<M: Machine>(&mut self, machine: &mut M, vcpu: usize, id: BankId, which: u32) {
        for bit in bits(which) {
            let Some(bank) = self.bank(id) else { return };
            let owner = if let BankId::Private(owner) = id { owner } else { vcpu };
            let (place, intid) = (bank.place_of(owner, bit), bank.intid(bit));
            if let Some(intid) = intid {
                self.deliver(machine, Some(vcpu), place, intid);
            }
        }
    }

    /// Makes the banks say what the list registers hold of bank `id`; false while another CPU has yet to look.
    fn settle<M: Machine>(&mut self, machine: &mut M, vcpu: usize, id: BankId) -> bool {
        let running = |vcpu: &usize| self.vcpus.get(*vcpu).is_some_and(|private| private.running);
        let Some(private) = self.vcpus.get(vcpu) else { return true };
        if private.asked == Some(id) {
            if private.awaiting != 0 {
                return false;
            }
        } else {
            // A vCPU that is off has nothing in list registers.
            let homes = self.homes(id, !0) & !mask(vcpu);
            let others = bits(homes).filter(running).fold(0, |others, home| others | mask(home));
            if others != 0 {
                if let Some(private) = self.vcpus.get_mut(vcpu) {
                    private.asked = Some(id);
                    private.awaiting = others as u16;
                }
                for other in bits(others) {
                    self.resynchronize(machine, Some(vcpu), other);
                }
                return false;
            }
        }
        if let Some(private) = self.vcpus.get_mut(vcpu) {
            private.asked = None;
        }
        self.synchronize(machine, vcpu);
        true
    }
}
