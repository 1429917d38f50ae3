//! The interrupt controller that a partition sees.
//!
//! One [`Vgic`] a partition, under one lock. Interrupts live in banks of bit masks; those that a vCPU may take
//! now are *resident* in list registers, where the hardware changes their state without an exit. So the list
//! registers hold the truth about a resident interrupt, and only the CPU that has them can ask: it does so
//! when it must ([`Vgic::synchronize`]), and other vCPUs ask it by a kick. Nobody waits at EL2: a read that needs
//! another CPU's list registers is retried by re-executing the guest's instruction.
//!
//! List register 0 belongs to the virtual timer, so that its interrupt is one register write.

pub mod bank;
pub mod distributor;
pub mod list_register;
pub mod redistributor;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use self::bank::{Bank, bits, mask};
use self::distributor::BankId;
use self::list_register::ListRegister;
use crate::irq::{IntId, Trigger};
use crate::machine::{Machine, Maintenance};

/// The most list registers that a GIC has.
const LIST_REGISTERS: usize = 16;
/// How many SGIs there are.
const SGIS: usize = 16;

/// Which GIC the partition sees: the one that the board has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Model {
    /// GICv2 without Security Extensions (IHI 0048), at most 8 vCPUs.
    V2,
    /// GICv3 with one Security state and affinity routing (IHI 0069), at most 16 vCPUs.
    V3,
}

/// What one vCPU has to itself.
#[derive(Clone, Debug)]
struct Private {
    /// SGIs and PPIs.
    bank: Bank,
    /// The interrupt in each list register, by what was last written there.
    slots: [Slot; LIST_REGISTERS],
    /// Bit `n` set: `slots[n]` says what list register `n` holds.
    used: u32,
    /// Private interrupts that other vCPUs made pending, for this one's CPU to look at.
    inbox: u32,
    /// The same of shared interrupts.
    inbox_shared: bool,
    /// Another vCPU changed something that is resident here.
    resync: bool,
    /// vCPUs whose list registers this one's retried read waits for.
    awaiting: u16,
    /// The bank that a read is being retried for.
    asked: Option<BankId>,
    /// The vCPU is on: its list registers may hold something.
    running: bool,
    /// GICR_WAKER.ProcessorSleep.
    asleep: bool,
    /// Which vCPUs have each SGI pending here, outside of the list registers (GICD_SPENDSGIR). Not of a GICv3.
    senders: [u8; SGIS],
    /// The sender of each SGI that is in a list register or active.
    sender: [u8; SGIS],
    /// What the machine was last told.
    maintenance: Maintenance,
}

impl Private {
    /// SGI `intid` is pending from vCPU `sender`, too.
    fn add_sender(&mut self, intid: IntId, sender: u8) {
        if let Some(senders) = self.senders.get_mut(intid.raw() as usize) {
            *senders |= mask(usize::from(sender)) as u8;
        }
    }

    /// The sender of an SGI that is pending in a list register sends it again: the two are one. True where others are pending.
    fn merge_sender(&mut self, intid: IntId, sender: u8) -> bool {
        self.senders.get_mut(intid.raw() as usize).is_some_and(|senders| {
            *senders &= !(mask(usize::from(sender)) as u8);
            *senders != 0
        })
    }
}

/// The interrupt in a list register.
#[derive(Clone, Copy, Debug)]
struct Slot {
    intid: IntId,
    flags: u16,
}

impl Slot {
    /// No interrupt in particular.
    const EMPTY: Self = Self { intid: IntId::sgi(0), flags: 0 };
    const HARDWARE: u16 = 1 << 0;
    /// Pending by a latched event rather than by the level of an emulated line.
    const LATCHED: u16 = 1 << 1;
    /// EL2 is told of its end.
    const NOTIFY_END: u16 = 1 << 2;

    fn has(self, flag: u16) -> bool {
        self.flags & flag != 0
    }
}

/// How a register access ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// With this value.
    Value(u64),
    /// Not yet: re-execute the instruction.
    Retry,
}

/// The interrupt controller of one partition.
#[derive(Clone, Debug)]
pub struct Vgic {
    model: Model,
    /// GICD_CTLR.EnableGrp0 and EnableGrp1.
    groups: u32,
    /// SPIs, bank `n` holding INTIDs `32 * (n + 1)` onwards.
    shared: Vec<Bank>,
    vcpus: Vec<Private>,
    virtual_timer: IntId,
    /// The list registers that there are, as a mask.
    lists: u32,
}

impl Vgic {
    /// A controller of this model with INTIDs below `32 * words` (1 ≤ `words` ≤ 32) for `vcpus` vCPUs, each having the SGIs and
    /// the PPIs in `ppis` (bit mask of INTIDs 16–31). All come from hardware.
    #[must_use]
    pub fn new(model: Model, words: usize, vcpus: usize, ppis: u32, virtual_timer: IntId) -> Self {
        let mut private = Bank::new(0);
        if model == Model::V2 {
            // As a GIC-400 has them (DDI 0471, 3.3: GICD_ISENABLER0).
            private.always_enabled = 0xffff;
            private.enabled = 0xffff;
        }
        private.owned = 0xffff | ppis;
        private.hardware = ppis;
        let vcpu = || Private {
            bank: private.clone(),
            slots: [Slot::EMPTY; LIST_REGISTERS],
            used: 0,
            inbox: 0,
            inbox_shared: false,
            resync: false,
            awaiting: 0,
            asked: None,
            running: false,
            asleep: true,
            senders: [0; SGIS],
            sender: [0; SGIS],
            maintenance: Maintenance::default(),
        };
        Self {
            model,
            groups: 0,
            shared: (1..words.min(32)).map(|word| Bank::new(word as u16)).collect(),
            vcpus: core::iter::repeat_with(vcpu).take(vcpus.min(16)).collect(),
            virtual_timer,
            lists: 0,
        }
    }

    /// Gives the partition an SPI from hardware.
    pub fn own_hardware(&mut self, intid: IntId, trigger: Trigger) {
        if let Some((bank, bit)) = self.shared_bit(intid) {
            bank.owned |= mask(bit);
            bank.hardware |= mask(bit);
            if trigger == Trigger::Edge {
                bank.wired_edge |= mask(bit);
            }
        }
    }

    /// Gives the partition a level-triggered SPI of an emulated device.
    pub fn own_emulated(&mut self, intid: IntId) {
        if let Some((bank, bit)) = self.shared_bit(intid) {
            bank.owned |= mask(bit);
        }
    }

    /// To power-on state: every physical interrupt of the partition disabled, inactive and routed to vCPU 0. No vCPU runs.
    pub fn reset<M: Machine>(&mut self, machine: &mut M) {
        self.groups = 0;
        for bank in &mut self.shared {
            machine.set_enabled(0, bank.word(), bank.hardware, false);
            for intid in bits(bank.hardware).filter_map(|bit| bank.intid(bit)) {
                machine.deactivate(0, intid);
                machine.route(intid, 0);
            }
            bank.reset();
        }
        for vcpu in 0..self.vcpus.len() {
            self.reset_private(machine, vcpu);
        }
    }

    /// The private interrupts of `vcpu`, which is off, as at reset.
    fn reset_private<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        let Some(private) = self.vcpus.get_mut(vcpu) else { return };
        machine.set_enabled(vcpu, 0, private.bank.hardware, false);
        for intid in bits(private.bank.hardware).filter_map(|bit| private.bank.intid(bit)) {
            machine.deactivate(vcpu, intid);
        }
        private.bank.reset();
        private.inbox = 0;
        private.inbox_shared = false;
        private.asleep = true;
        private.senders = [0; SGIS];
    }

    /// Starts vCPU `vcpu` on this CPU with its list registers empty. Its private interrupts are as its stop or the partition's reset
    /// left them, and as others have programmed them since.
    pub fn start_vcpu<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        let Some(private) = self.vcpus.get_mut(vcpu) else { return };
        private.slots = [Slot::EMPTY; LIST_REGISTERS];
        private.used = 0;
        private.resync = false;
        private.awaiting = 0;
        private.asked = None;
        private.running = true;
        private.maintenance = Maintenance::default();
        machine.set_maintenance(private.maintenance);
        self.lists = mask(machine.list_registers()).wrapping_sub(1);
        for n in bits(self.lists) {
            machine.write_list_register(n, None);
        }
        if self.model == Model::V2 {
            // A GICv2's CPU says how to reach it only when it is up.
            for bank in &self.shared {
                for bit in bits(bank.hardware).filter(|&bit| bank.target_of(bit) == vcpu) {
                    if let Some(intid) = bank.intid(bit) {
                        machine.route(intid, vcpu);
                    }
                }
            }
        }
        self.fill(machine, vcpu);
    }

    /// Stops vCPU `vcpu` on this CPU: what its list registers held of SPIs goes back to the banks, its private interrupts lose
    /// their state as in a power-down.
    pub fn stop_vcpu<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        self.unload(machine, vcpu);
        // An interrupt that the vCPU took and never ended would stay active for ever.
        while let Some((intid, _)) = self.spilled_active(vcpu) {
            self.end(machine, vcpu, intid);
        }
        machine.set_timer_list_register(None);
        // Without a guest nothing answers maintenance: it would be asked for as long as the vCPU is off.
        machine.set_maintenance(Maintenance::default());
        self.reset_private(machine, vcpu);
        if let Some(private) = self.vcpus.get_mut(vcpu) {
            private.running = false;
        }
        // Nobody may wait for a CPU that is off.
        self.answer(vcpu);
    }

    /// A physical interrupt of the partition was acknowledged on the CPU of `vcpu` and its priority dropped.
    pub fn hardware_interrupt<M: Machine>(&mut self, machine: &mut M, vcpu: usize, intid: IntId) {
        let Some((bank, bit)) = self.bank_bit(vcpu, intid) else {
            machine.deactivate(vcpu, intid);
            return;
        };
        if bank.hardware & mask(bit) == 0 {
            machine.deactivate(vcpu, intid);
            return;
        }
        bank.latched |= mask(bit);
        bank.in_service |= mask(bit);
        let target = bank.place_of(vcpu, bit);
        self.deliver(machine, Some(vcpu), target, intid);
    }

    /// The line of an emulated device rises or falls. `current` is the vCPU of this partition that this CPU
    /// runs, if any.
    pub fn set_line<M: Machine>(
        &mut self,
        machine: &mut M,
        current: Option<usize>,
        intid: IntId,
        level: bool,
    ) {
        let Some((bank, bit)) = self.shared_bit(intid) else { return };
        let was = bank.line & mask(bit) != 0;
        if was == level {
            return;
        }
        if level {
            bank.line |= mask(bit);
            bank.latched |= mask(bit) & bank.edge;
            let target = bank.place_of(0, bit);
            self.deliver(machine, current, target, intid);
        } else {
            bank.line &= !mask(bit);
            self.recall(machine, current, bank_index(intid), mask(bit));
        }
    }

    /// Sends an SGI as a write of `value` to ICC_SGI1R_EL1 or ICC_SGI0R_EL1 does (IHI 0069, 12.2.20): `group1` says which.
    pub fn send_sgi<M: Machine>(&mut self, machine: &mut M, vcpu: usize, value: u64, group1: bool) {
        let intid = IntId::sgi((value >> 24) as u8);
        let broadcast = value & (1 << 40) != 0;
        let range = (value >> 44) & 0xf;
        let affinity321 = value & 0x00ff_00ff_00ff_0000 & !(0xf << 44) & !(1 << 40);
        // vCPUs have Aff3.Aff2.Aff1 = 0 and Aff0 below 16, so other clusters and ranges name nobody.
        let targets = if broadcast {
            !(1_u32.wrapping_shl(vcpu as u32))
        } else if affinity321 == 0 && range == 0 {
            value as u32 & 0xffff
        } else {
            0
        };
        for target in bits(targets & 0xffff) {
            let Some(private) = self.vcpus.get_mut(target) else { break };
            let sgi = mask(intid.raw() as usize);
            // An SGI of the other group is not generated (IHI 0069, 4.6: SGI generation and groups).
            if (private.bank.group1 & sgi != 0) != group1 {
                continue;
            }
            private.bank.latched |= sgi;
            self.deliver(machine, Some(vcpu), target, intid);
        }
    }

    /// Sends an SGI as a write of `value` to GICD_SGIR does (IHI 0048, 4.3.15).
    fn write_sgir<M: Machine>(&mut self, machine: &mut M, vcpu: usize, value: u32) {
        let own = mask(vcpu);
        let targets = match (value >> 24) & 3 {
            0 => (value >> 16) & 0xff,
            1 => !own,
            2 => own,
            _ => 0,
        };
        let intid = IntId::sgi(value as u8);
        for target in bits(targets) {
            let Some(private) = self.vcpus.get_mut(target) else { break };
            private.bank.latched |= mask(intid.raw() as usize);
            private.add_sender(intid, vcpu as u8);
            self.deliver(machine, Some(vcpu), target, intid);
        }
    }

    /// Ends an interrupt that may have no list register: a trapped write to ICC_DIR_EL1.
    pub fn deactivate<M: Machine>(&mut self, machine: &mut M, vcpu: usize, intid: IntId) {
        if !machine.splits_deactivation() {
            return;
        }
        self.unload(machine, vcpu);
        self.end(machine, vcpu, intid);
        self.fill(machine, vcpu);
    }

    /// Brings the list registers of this CPU up to date: after a kick, and on a maintenance interrupt.
    pub fn refill<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        let Some(private) = self.vcpus.get_mut(vcpu).filter(|private| private.running) else { return };
        if private.resync {
            self.synchronize(machine, vcpu);
            return;
        }
        let maintenance = private.maintenance;
        if maintenance == Maintenance::default() && !private.inbox_shared && private.inbox != 0 {
            let inbox = core::mem::take(&mut private.inbox);
            for bit in bits(inbox) {
                self.place(machine, vcpu, IntId::private(bit));
            }
            return;
        }
        self.fill(machine, vcpu);
    }

    /// Ends what the guest has ended without a list register (ICH_HCR_EL2.EOIcount). EOIs arrive in order of priority, so each is for
    /// the highest-priority active interrupt that has none.
    fn absorb_ends<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        if !self.vcpus.get(vcpu).is_some_and(|private| private.maintenance.active_spilled) {
            return;
        }
        for _ in 0..machine.take_eoi_count() {
            let Some((intid, _)) = self.spilled_active(vcpu) else { break };
            if !machine.splits_deactivation() {
                self.end(machine, vcpu, intid);
            }
        }
    }

    /// Takes everything out of this CPU's list registers into the banks, and fills them anew. Answers those
    /// that wait for it.
    pub fn synchronize<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        self.unload(machine, vcpu);
        self.answer(vcpu);
        self.fill(machine, vcpu);
    }

    /// Tells the vCPUs that wait for the list registers of `vcpu` that the banks have their contents.
    fn answer(&mut self, vcpu: usize) {
        for waiting in &mut self.vcpus {
            waiting.awaiting &= !(mask(vcpu) as u16);
        }
        if let Some(private) = self.vcpus.get_mut(vcpu) {
            private.resync = false;
        }
    }

    /// Whether the effect of an earlier write is still on its way to another CPU (GICD_CTLR.RWP).
    fn write_pending(&self) -> bool {
        self.vcpus.iter().any(|vcpu| vcpu.resync)
    }

    /// The virtual timer's bit among the private interrupts.
    fn timer_mask(&self) -> u32 {
        mask(self.virtual_timer.raw() as usize)
    }

    /// The bank of `intid` as `vcpu` sees it, and the bit within.
    #[inline(always)]
    fn bank_bit(&mut self, vcpu: usize, intid: IntId) -> Option<(&mut Bank, usize)> {
        if intid.is_private() {
            let private = self.vcpus.get_mut(vcpu)?;
            Some((&mut private.bank, intid.raw() as usize))
        } else {
            self.shared_bit(intid)
        }
    }

    #[inline(always)]
    fn shared_bit(&mut self, intid: IntId) -> Option<(&mut Bank, usize)> {
        let bank = self.shared.get_mut(bank_index(intid))?;
        Some((bank, (intid.raw() & 31) as usize))
    }

    /// `intid` became deliverable at `target`: place it here, or have the target's CPU do so. A vCPU that is off finds it
    /// when it starts.
    #[inline]
    fn deliver<M: Machine>(&mut self, machine: &mut M, current: Option<usize>, target: usize, intid: IntId) {
        let Some(private) = self.vcpus.get_mut(target).filter(|private| private.running) else { return };
        if current == Some(target) {
            self.place(machine, target, intid);
            return;
        }
        if intid.is_private() {
            private.inbox |= mask(intid.raw() as usize);
        } else {
            private.inbox_shared = true;
        }
        machine.kick(target);
    }

    /// Puts `intid`, which has just become pending, into a free list register of this CPU. While no maintenance event is asked for,
    /// nothing else waits, so it is the only candidate.
    fn place<M: Machine>(&mut self, machine: &mut M, vcpu: usize, intid: IntId) {
        let empty = machine.empty_list_registers();
        if self.reap_all(machine, vcpu, empty) {
            // The end of another interrupt was to be noticed: it may be due again.
            self.fill(machine, vcpu);
            return;
        }
        let (groups, timer) = (self.groups, self.virtual_timer);
        let free = empty & self.lists & !1;
        let alone = self.vcpus.get(vcpu).is_some_and(|private| private.maintenance == Maintenance::default());
        if alone && free != 0 && intid != timer {
            let Some((bank, bit)) = self.bank_bit(vcpu, intid) else { return };
            if bank.place_of(vcpu, bit) != vcpu {
                return;
            }
            if bank.deliverable(groups) & mask(bit) != 0 {
                self.load(machine, vcpu, free.trailing_zeros() as usize, intid);
                return;
            }
            if bank.pending() & mask(bit) & (bank.active | bank.resident) == 0 {
                return;
            }
        }
        self.fill(machine, vcpu);
    }

    /// The interrupts `changed` of shared bank `index` may no longer be where they are resident: have each such vCPU
    /// look again.
    fn recall<M: Machine>(&mut self, machine: &mut M, current: Option<usize>, index: usize, changed: u32) {
        for home in bits(self.homes(BankId::Shared(index), changed)) {
            self.resynchronize(machine, current, home);
        }
    }

    /// Has `vcpu` take its list registers back into the banks and fill them anew, here or by a kick.
    fn resynchronize<M: Machine>(&mut self, machine: &mut M, current: Option<usize>, vcpu: usize) {
        if current == Some(vcpu) {
            self.synchronize(machine, vcpu);
        } else if let Some(private) = self.vcpus.get_mut(vcpu).filter(|private| private.running) {
            private.resync = true;
            machine.kick(vcpu);
        }
    }

    /// An interrupt that is active in the banks comes to its end.
    fn end<M: Machine>(&mut self, machine: &mut M, vcpu: usize, intid: IntId) {
        if let Some((bank, bit)) = self.bank_bit(vcpu, intid) {
            if bank.active & mask(bit) == 0 {
                return;
            }
            bank.active &= !mask(bit);
            self.leave(machine, vcpu, intid);
        }
    }

    /// The list register in `slot` was found empty: its interrupt has been handled.
    #[inline(always)]
    fn reap<M: Machine>(&mut self, machine: &mut M, vcpu: usize, slot: Slot) {
        let Some((bank, bit)) = self.bank_bit(vcpu, slot.intid) else { return };
        bank.forget_residence(mask(bit));
        bank.cancel_pending &= !mask(bit);
        bank.cancel_active &= !mask(bit);
        if slot.has(Slot::HARDWARE) {
            bank.in_service &= !mask(bit) | bank.latched;
        }
        if bank.in_service & !bank.latched & mask(bit) != 0 || bank.place_of(vcpu, bit) != vcpu {
            self.leave(machine, vcpu, slot.intid);
        }
    }

    /// Notes which of the `empty` list registers the guest has emptied. True where EL2 asked to be told of such an end.
    #[inline(always)]
    fn reap_all<M: Machine>(&mut self, machine: &mut M, vcpu: usize, empty: u32) -> bool {
        let used = self.vcpus.get(vcpu).map_or(0, |private| private.used);
        let mut told = false;
        for n in bits(empty & used) {
            if let Some(slot) = self.take_slot(vcpu, n) {
                if slot.has(Slot::NOTIFY_END) {
                    // It asks for maintenance until it is cleared.
                    machine.write_list_register(n, None);
                    told = true;
                }
                self.reap(machine, vcpu, slot);
            }
        }
        told
    }

    /// The same of all that are empty now, where it need not be fast.
    #[inline(never)]
    fn reap_empty<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        let empty = machine.empty_list_registers();
        self.reap_all(machine, vcpu, empty);
    }

    #[inline(always)]
    fn take_slot(&mut self, vcpu: usize, n: usize) -> Option<Slot> {
        let private = self.vcpus.get_mut(vcpu).filter(|private| private.used & mask(n) != 0)?;
        private.used &= !mask(n);
        private.slots.get(n).copied()
    }

    /// Takes everything out of this CPU's list registers into the banks.
    fn unload<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        self.absorb_ends(machine, vcpu);
        let timer = self.virtual_timer;
        if let Some((bank, bit)) = self.bank_bit(vcpu, timer) {
            bank.forget_residence(mask(bit));
        }
        self.reap_empty(machine, vcpu);
        for n in bits(self.lists) {
            if let Some(entry) = machine.read_list_register(n) {
                self.take_out(machine, vcpu, n, entry);
            }
        }
        // What was to be cancelled is out of the list registers, or had left them before.
        if let Some(private) = self.vcpus.get_mut(vcpu) {
            private.bank.cancel_pending = 0;
            private.bank.cancel_active = 0;
        }
    }

    /// `entry` of list register `n` goes back to its bank.
    fn take_out<M: Machine>(&mut self, machine: &mut M, vcpu: usize, n: usize, entry: ListRegister) {
        machine.write_list_register(n, None);
        let slot = self.take_slot(vcpu, n);
        self.take_back(machine, vcpu, entry, slot.is_none_or(|slot| slot.has(Slot::LATCHED)));
    }

    /// What a list register held goes back to its bank; `latched` says whether pending must be remembered.
    fn take_back<M: Machine>(&mut self, machine: &mut M, vcpu: usize, entry: ListRegister, latched: bool) {
        let Some((bank, bit)) = self.bank_bit(vcpu, entry.intid) else { return };
        let bit_mask = mask(bit);
        bank.forget_residence(bit_mask);
        if entry.hardware {
            bank.in_service |= bit_mask;
        }
        if entry.active && bank.cancel_active & bit_mask == 0 {
            bank.active |= bit_mask;
            bank.set_home(bit, vcpu);
        }
        let pending = entry.pending && latched && bank.cancel_pending & bit_mask == 0;
        if pending {
            bank.latched |= bit_mask;
        }
        bank.cancel_active &= !bit_mask;
        bank.cancel_pending &= !bit_mask;
        self.leave(machine, vcpu, entry.intid);
        if pending && let Some(private) = self.private_with_senders(vcpu, entry.intid) {
            private.add_sender(entry.intid, entry.sender);
        }
    }

    /// `intid` has left `vcpu`: the physical interrupt ends with it, and what is pending for another vCPU is brought there.
    #[inline(never)]
    fn leave<M: Machine>(&mut self, machine: &mut M, vcpu: usize, intid: IntId) {
        let Some((bank, bit)) = self.bank_bit(vcpu, intid) else { return };
        if bank.in_service & !bank.active & !bank.latched & mask(bit) != 0 {
            bank.in_service &= !mask(bit);
            machine.deactivate(vcpu, intid);
        }
        let target = bank.place_of(vcpu, bit);
        if bank.pending() & mask(bit) != 0 && target != vcpu {
            self.deliver(machine, Some(vcpu), target, intid);
        }
    }

    /// What `vcpu` has to itself, if senders of `intid` count: of an SGI of a GICv2.
    fn private_with_senders(&mut self, vcpu: usize, intid: IntId) -> Option<&mut Private> {
        let counts = self.model == Model::V2 && (intid.raw() as usize) < SGIS;
        if counts { self.vcpus.get_mut(vcpu) } else { None }
    }

    /// The deliverable interrupt of the highest priority at `vcpu`.
    #[inline]
    fn best_pending(&self, vcpu: usize) -> Option<(IntId, u8)> {
        self.highest(vcpu, |bank| bank.deliverable(self.groups), Bank::target_of)
    }

    /// The active interrupt of the highest priority at `vcpu` that has no list register.
    fn spilled_active(&self, vcpu: usize) -> Option<(IntId, u8)> {
        self.highest(vcpu, |bank| bank.active & !bank.resident, Bank::home_of)
    }

    /// Of the private interrupts of `vcpu`, and the shared ones that `place` puts there, the one of the highest priority among
    /// `which`.
    #[inline]
    fn highest(
        &self,
        vcpu: usize,
        which: impl Fn(&Bank) -> u32,
        place: impl Fn(&Bank, usize) -> usize,
    ) -> Option<(IntId, u8)> {
        let private = self.vcpus.get(vcpu)?;
        let mut best: Option<(IntId, u8)> = None;
        for bank in core::iter::once(&private.bank).chain(&self.shared) {
            for bit in bits(which(bank)) {
                let priority = bank.priority_of(bit);
                if (bank.word() == 0 || place(bank, bit) == vcpu)
                    && best.is_none_or(|(_, other)| priority < other)
                    && let Some(intid) = bank.intid(bit)
                {
                    best = Some((intid, priority));
                }
            }
        }
        best
    }

    /// Puts what `vcpu` may take into this CPU's list registers, by priority.
    fn fill<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        if let Some(private) = self.vcpus.get_mut(vcpu) {
            private.inbox = 0;
            private.inbox_shared = false;
        }
        self.absorb_ends(machine, vcpu);
        self.reap_empty(machine, vcpu);
        self.repend_resident(machine, vcpu);
        let mut maintenance = Maintenance::default();
        // What is active needs a list register to be ended in, but never the last one.
        while let Some((intid, _)) = self.spilled_active(vcpu) {
            match self.free_slot(machine, vcpu, intid, 1) {
                Some(n) => self.load(machine, vcpu, n, intid),
                None => {
                    maintenance.active_spilled = true;
                    break;
                }
            }
        }
        while let Some((intid, priority)) = self.best_pending(vcpu) {
            let place = self
                .free_slot(machine, vcpu, intid, 0)
                .or_else(|| self.evict(machine, vcpu, intid, priority, &mut maintenance));
            match place {
                Some(n) => self.load(machine, vcpu, n, intid),
                None => {
                    maintenance.no_pending = true;
                    self.hold_timer(machine, vcpu, priority);
                    break;
                }
            }
        }
        if let Some(private) = self.vcpus.get_mut(vcpu)
            && private.maintenance != maintenance
        {
            private.maintenance = maintenance;
            machine.set_maintenance(maintenance);
        }
        self.publish_timer(machine, vcpu);
    }

    /// An interrupt that is pended again while a list register holds it active waits in its bank until its end, which EL2 is to
    /// see. Pending and active at once in a list register, it would come next after its end, whatever waits by then. EL2 is to see
    /// the end, too, of one whose line has risen since it was loaded.
    fn repend_resident<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        let Some((used, slots)) = self.vcpus.get(vcpu).map(|private| (private.used, private.slots)) else {
            return;
        };
        for n in bits(used) {
            let Some(mut slot) = slots.get(n).copied() else { continue };
            let Some((bank, bit)) = self.bank_bit(vcpu, slot.intid) else { continue };
            if bank.pending() & bank.resident & mask(bit) == 0 {
                continue;
            }
            let latched = bank.latched & mask(bit) != 0;
            let is_high = bank.line & !bank.edge & mask(bit) != 0;
            let Some(mut entry) = machine.read_list_register(n) else { continue };
            let mut see_end = true;
            if !entry.active && latched {
                // It is pending already: the two are one, unless another vCPU sent it.
                let others = self
                    .private_with_senders(vcpu, slot.intid)
                    .is_some_and(|private| private.merge_sender(slot.intid, entry.sender));
                if !others {
                    let Some((bank, _)) = self.bank_bit(vcpu, slot.intid) else { continue };
                    bank.latched &= !mask(bit);
                    // What was cancelled came before.
                    bank.cancel_pending &= !mask(bit);
                    slot.flags |= Slot::LATCHED;
                    // Hardware joined what software had made pending: the physical interrupt has an end, too.
                    see_end = is_high || (!entry.hardware && bank.in_service & mask(bit) != 0);
                }
            }
            if see_end && !entry.notify_end {
                // Without the hardware bit, EL2 deactivates the physical interrupt at the end.
                entry.hardware = false;
                entry.notify_end = true;
                machine.write_list_register(n, Some(entry));
                slot.flags = (slot.flags | Slot::NOTIFY_END) & !Slot::HARDWARE;
            }
            if let Some(place) = self.vcpus.get_mut(vcpu).and_then(|private| private.slots.get_mut(n)) {
                *place = slot;
            }
        }
    }

    /// A list register for `intid` that is free, leaving `spare` others free.
    fn free_slot<M: Machine>(
        &mut self,
        machine: &mut M,
        vcpu: usize,
        intid: IntId,
        spare: u32,
    ) -> Option<usize> {
        let used = self.vcpus.get(vcpu)?.used;
        let free = machine.empty_list_registers() & self.lists & !used;
        if intid == self.virtual_timer {
            return (free & 1 != 0).then_some(0);
        }
        let free = free & !1;
        (free.count_ones() > spare).then(|| free.trailing_zeros() as usize)
    }

    /// Makes room for a pending interrupt of `priority`: takes out the pending interrupt of the lowest priority if
    /// that is lower still, or, where none is pending, the active one of the lowest priority.
    fn evict<M: Machine>(
        &mut self,
        machine: &mut M,
        vcpu: usize,
        intid: IntId,
        priority: u8,
        maintenance: &mut Maintenance,
    ) -> Option<usize> {
        if intid == self.virtual_timer {
            // The short path filled its list register, and software pended it since: the bank is to know both.
            let entry = machine.read_list_register(0)?;
            machine.write_list_register(0, None);
            self.take_back(machine, vcpu, entry, true);
            return Some(0);
        }
        let mut pending: Option<(usize, ListRegister)> = None;
        let mut active: Option<(usize, ListRegister)> = None;
        for n in bits(self.lists & !1) {
            let Some(entry) = machine.read_list_register(n) else { continue };
            let lowest = if entry.active { &mut active } else { &mut pending };
            if lowest.is_none_or(|(_, other)| entry.priority > other.priority) {
                *lowest = Some((n, entry));
            }
        }
        let (n, entry) = match (pending, active) {
            (Some((n, entry)), _) if entry.priority > priority => (n, entry),
            (Some(_), _) | (None, None) => return None,
            (None, Some(lowest)) => {
                maintenance.active_spilled = true;
                lowest
            }
        };
        self.take_out(machine, vcpu, n, entry);
        Some(n)
    }

    /// Takes the timer's interrupt out of its list register if it is pending and of a lower priority than `priority`, for which
    /// there is no room: it would come first.
    fn hold_timer<M: Machine>(&mut self, machine: &mut M, vcpu: usize, priority: u8) {
        if let Some(entry) = machine.read_list_register(0)
            && !entry.active
            && entry.priority > priority
        {
            self.take_out(machine, vcpu, 0, entry);
        }
    }

    /// Moves `intid` from its bank into list register `n`.
    #[inline]
    fn load<M: Machine>(&mut self, machine: &mut M, vcpu: usize, n: usize, intid: IntId) {
        let (timer, model) = (self.virtual_timer, self.model);
        let Some(private) = self.vcpus.get_mut(vcpu) else { return };
        let bit = (intid.raw() & 31) as usize;
        let bank = if intid.is_private() {
            &mut private.bank
        } else {
            let Some(bank) = self.shared.get_mut(bank_index(intid)) else { return };
            bank
        };
        let bit_mask = mask(bit);
        let active = bank.active & bit_mask != 0;
        let pending = !active;
        let latched = bank.latched & bit_mask != 0;
        let in_service = bank.in_service & bit_mask != 0;
        // Pended again while active: see `repend_resident`.
        let mut again = active && latched;
        let mut sender = 0;
        if model == Model::V2
            && intid.is_private()
            && let Some((sender_of, senders)) = private.sender.get_mut(bit).zip(private.senders.get_mut(bit))
        {
            if pending {
                // The first of its senders. Each other is an interrupt of its own (IHI 0048, 3.3.2) and waits for its end.
                *sender_of = senders.trailing_zeros() as u8 & 7;
                *senders &= senders.wrapping_sub(1);
                again = *senders != 0;
            }
            sender = *sender_of;
        }
        let hardware = in_service && !again && machine.forwards_ends();
        let entry = ListRegister {
            intid,
            priority: bank.priority_of(bit),
            group1: bank.group1 & bit_mask != 0,
            pending,
            active,
            hardware,
            sender,
            // EL2 has something to do at the end: look at the line again, or deactivate the physical interrupt.
            notify_end: !hardware && (again || in_service || bank.line & bit_mask != 0),
        };
        bank.active &= !bit_mask;
        if active {
            bank.seen_active |= bit_mask;
        } else {
            bank.seen_pending |= bit_mask;
            if !again {
                bank.latched &= !bit_mask;
            }
        }
        machine.write_list_register(n, Some(entry));
        if intid == timer && hardware {
            // As the short path leaves it: the list register alone knows, so that the short path may go on.
            bank.in_service &= !bit_mask;
            return;
        }
        bank.resident |= bit_mask;
        bank.set_home(bit, vcpu);
        private.used |= mask(n);
        if let Some(slot) = private.slots.get_mut(n) {
            let flag = |flag, set| if set { flag } else { 0 };
            *slot = Slot {
                intid,
                flags: flag(Slot::HARDWARE, hardware)
                    | flag(Slot::LATCHED, latched)
                    | flag(Slot::NOTIFY_END, entry.notify_end),
            };
        }
    }

    /// Tells the machine what its short path may do when the virtual timer fires.
    fn publish_timer<M: Machine>(&mut self, machine: &mut M, vcpu: usize) {
        let groups = self.groups;
        let timer = self.virtual_timer;
        let Some(private) = self.vcpus.get(vcpu) else { return };
        let (bank, bit) = (&private.bank, timer.raw() as usize);
        let bit_mask = mask(bit);
        let group1 = bank.group1 & bit_mask != 0;
        let enabled = bank.enabled_in(groups) & bit_mask != 0;
        let idle = (bank.latched | bank.active | bank.resident | bank.in_service) & bit_mask == 0;
        // Where something waits already, the timer may have to.
        let crowded = private.maintenance.no_pending;
        let short = enabled && idle && !crowded && machine.forwards_ends();
        machine.set_timer_list_register(short.then(|| ListRegister {
            intid: timer,
            priority: bank.priority_of(bit),
            group1,
            pending: true,
            active: false,
            hardware: true,
            sender: 0,
            notify_end: false,
        }));
    }
}

/// Index into the shared banks.
fn bank_index(intid: IntId) -> usize {
    (intid.raw() as usize >> 5).wrapping_sub(1)
}
