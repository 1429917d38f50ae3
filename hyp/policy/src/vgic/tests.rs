//! The vGIC against a machine that is an array, and a guest that is a model.
//!
//! The model knows what architected interrupts do: nothing is lost, nothing comes twice, and what is
//! acknowledged is always the pending interrupt of the highest priority.

use std::collections::BTreeSet;
use std::vec;
use std::vec::Vec;

use proptest::prelude::*;

use super::bank::{Bank, bits, mask};
use super::list_register::ListRegister;
use super::redistributor::STRIDE;
use super::{Access, Model, Vgic};
use crate::irq::{IntId, Trigger};
use crate::machine::{Machine, Maintenance};

const TIMER: IntId = IntId::ppi(11);
const PHYSICAL_TIMER: IntId = IntId::ppi(14);
const SPI: IntId = match IntId::new(40) {
    Some(intid) => intid,
    None => unreachable!(),
};
const UART: IntId = match IntId::new(33) {
    Some(intid) => intid,
    None => unreachable!(),
};
const LISTS: usize = 4;

#[derive(Clone, Default)]
struct Cpu {
    lists: [Option<ListRegister>; LISTS],
    maintenance: Maintenance,
    eoi_count: u32,
    /// List registers that ask for maintenance because their interrupt has ended (ICH_EISR_EL2).
    ended: u32,
    timer: Option<ListRegister>,
    enabled: u32,
}

/// A machine of two CPUs that is an array.
struct Fake {
    cpus: Vec<Cpu>,
    current: usize,
    kicked: u32,
    /// Active physical interrupts, by CPU for private ones.
    active: BTreeSet<(usize, u32)>,
    enabled_spis: [u32; 4],
    routes: Vec<(IntId, usize)>,
    split: bool,
    keeps_ends: bool,
}

impl Fake {
    fn cpu(&mut self) -> &mut Cpu {
        let current = self.current;
        &mut self.cpus[current]
    }

    fn key(&self, intid: IntId) -> (usize, u32) {
        (if intid.is_private() { self.current } else { 0 }, intid.raw())
    }
}

impl Machine for Fake {
    fn list_registers(&self) -> usize {
        LISTS
    }

    fn read_list_register(&mut self, n: usize) -> Option<ListRegister> {
        self.cpu().lists[n]
    }

    fn write_list_register(&mut self, n: usize, value: Option<ListRegister>) {
        if let Some(value) = value {
            assert!(value.pending || value.active);
            assert!(!(value.hardware && value.notify_end), "the EOI bit is part of the physical INTID");
            assert!(!(value.pending && value.active), "after its end it would come before what waits");
            let twin = self
                .cpu()
                .lists
                .iter()
                .enumerate()
                .any(|(m, other)| m != n && other.is_some_and(|other| other.intid == value.intid));
            assert!(!twin, "{} is in two list registers", value.intid);
        }
        self.cpu().lists[n] = value;
        self.cpu().ended &= !mask(n);
    }

    fn empty_list_registers(&mut self) -> u32 {
        self.cpu()
            .lists
            .iter()
            .enumerate()
            .fold(0, |empty, (n, entry)| if entry.is_none() { empty | mask(n) } else { empty })
    }

    fn set_maintenance(&mut self, events: Maintenance) {
        self.cpu().maintenance = events;
    }

    fn take_eoi_count(&mut self) -> u32 {
        core::mem::take(&mut self.cpu().eoi_count)
    }

    fn splits_deactivation(&mut self) -> bool {
        self.split
    }

    fn forwards_ends(&self) -> bool {
        !self.keeps_ends
    }

    fn set_timer_list_register(&mut self, value: Option<ListRegister>) {
        self.cpu().timer = value;
    }

    fn kick(&mut self, vcpu: usize) {
        self.kicked |= mask(vcpu);
    }

    fn set_enabled(&mut self, vcpu: usize, word: usize, mask: u32, enabled: bool) {
        let register = if word == 0 { &mut self.cpus[vcpu].enabled } else { &mut self.enabled_spis[word] };
        *register = if enabled { *register | mask } else { *register & !mask };
    }

    fn route(&mut self, intid: IntId, vcpu: usize) {
        self.routes.push((intid, vcpu));
    }

    fn deactivate(&mut self, vcpu: usize, intid: IntId) {
        self.active.remove(&(if intid.is_private() { vcpu } else { 0 }, intid.raw()));
    }

    fn physical_pending(&mut self, _vcpu: usize, _word: usize) -> u32 {
        0
    }
}

/// A partition of two vCPUs, both on, everything in group 1 and enabled.
struct World {
    vgic: Vgic,
    machine: Fake,
    /// Running priorities and interrupts of each vCPU, the innermost last.
    running: [Vec<(u8, IntId)>; 2],
    /// Who sent what was acknowledged last.
    sender: u8,
    /// Kicks and maintenance interrupts are on the way.
    lazy: bool,
    /// No end may deactivate a physical interrupt that is inactive. (Harmless in hardware: what software pends after an end that EL2
    /// has not seen does it.)
    strict: bool,
}

const GICD_CTLR: u64 = 0;
const GICD_IROUTER: u64 = 0x6000;
const SGI_FRAME: u64 = 0x1_0000;
const IGROUPR: u64 = 0x80;
const ISENABLER: u64 = 0x100;
const ICENABLER: u64 = 0x180;
const ISPENDR: u64 = 0x200;
const ICPENDR: u64 = 0x280;
const ISACTIVER: u64 = 0x300;
const ICACTIVER: u64 = 0x380;
const IPRIORITYR: u64 = 0x400;
const ITARGETSR: u64 = 0x800;
const GICD_SGIR: u64 = 0xf00;
const CPENDSGIR: u64 = 0xf10;
const SPENDSGIR: u64 = 0xf20;

impl World {
    fn new() -> Self {
        Self::of(Model::V3)
    }

    fn of(model: Model) -> Self {
        let mut vgic = Vgic::new(model, 4, 2, mask(27) | mask(30), TIMER);
        vgic.own_hardware(SPI, Trigger::Level);
        vgic.own_emulated(UART);
        let machine = Fake {
            cpus: std::vec![Cpu::default(); 2],
            current: 0,
            kicked: 0,
            active: BTreeSet::new(),
            enabled_spis: [0; 4],
            routes: Vec::new(),
            split: false,
            keeps_ends: false,
        };
        let mut world =
            Self { vgic, machine, running: [Vec::new(), Vec::new()], sender: 0, lazy: false, strict: true };
        world.vgic.reset(&mut world.machine);
        assert_eq!(core::mem::take(&mut world.machine.routes), [(SPI, 0)]);
        for vcpu in 0..2 {
            world.machine.current = vcpu;
            world.vgic.start_vcpu(&mut world.machine, vcpu);
            if model == Model::V2 {
                assert_eq!(core::mem::take(&mut world.machine.routes), [(SPI, 0)][vcpu..]);
            }
            world.write_private(vcpu, vcpu, IGROUPR, u32::MAX);
            world.write_private(vcpu, vcpu, ISENABLER, u32::MAX);
        }
        world.write(0, GICD_CTLR, 0b10);
        world.write(0, IGROUPR + 4, u32::MAX);
        world.write(0, ISENABLER + 4, u32::MAX);
        world
    }

    fn on(&mut self, vcpu: usize) -> (&mut Vgic, &mut Fake) {
        self.machine.current = vcpu;
        (&mut self.vgic, &mut self.machine)
    }

    /// Lets the CPUs that were kicked, or whose maintenance interrupt is asserted, do their part.
    fn settle(&mut self) {
        if self.lazy {
            return;
        }
        for _ in 0..64 {
            let mut quiet = true;
            for vcpu in 0..2 {
                let cpu = &self.machine.cpus[vcpu];
                let no_pending =
                    cpu.lists.iter().all(|entry| entry.is_none_or(|entry| !entry.pending || entry.active));
                let due = (cpu.maintenance.no_pending && no_pending)
                    || (cpu.maintenance.active_spilled && cpu.eoi_count != 0)
                    || cpu.ended != 0
                    || self.machine.kicked & mask(vcpu) != 0;
                if due {
                    quiet = false;
                    self.machine.kicked &= !mask(vcpu);
                    let (vgic, machine) = self.on(vcpu);
                    vgic.refill(machine, vcpu);
                }
            }
            if quiet {
                return;
            }
        }
        panic!("the maintenance interrupt never goes quiet");
    }

    fn write(&mut self, vcpu: usize, offset: u64, value: u32) {
        let (vgic, machine) = self.on(vcpu);
        vgic.write_distributor(machine, vcpu, offset, 4, value.into());
        self.settle();
    }

    fn read(&mut self, vcpu: usize, offset: u64) -> u32 {
        for _ in 0..8 {
            let (vgic, machine) = self.on(vcpu);
            match vgic.read_distributor(machine, vcpu, offset, 4) {
                Access::Value(value) => return value as u32,
                Access::Retry => self.settle(),
            }
        }
        panic!("a read is retried for ever");
    }

    /// A write of `vcpu` to the private interrupts of `owner`, who on a GICv2 makes it itself.
    fn write_private(&mut self, vcpu: usize, owner: usize, offset: u64, value: u32) {
        if self.vgic.model == Model::V2 {
            return self.write(owner, offset, value);
        }
        let offset = owner as u64 * STRIDE + SGI_FRAME + offset;
        let (vgic, machine) = self.on(vcpu);
        vgic.write_redistributor(machine, vcpu, offset, 4, value.into());
        self.settle();
    }

    fn read_private(&mut self, vcpu: usize, owner: usize, offset: u64) -> u32 {
        if self.vgic.model == Model::V2 {
            return self.read(owner, offset);
        }
        let offset = owner as u64 * STRIDE + SGI_FRAME + offset;
        for _ in 0..8 {
            let (vgic, machine) = self.on(vcpu);
            match vgic.read_redistributor(machine, vcpu, offset, 4) {
                Access::Value(value) => return value as u32,
                Access::Retry => self.settle(),
            }
        }
        panic!("a read is retried for ever");
    }

    fn sgi(&mut self, from: usize, targets: u16, intid: u8) {
        if self.vgic.model == Model::V2 {
            return self.write(from, GICD_SGIR, u32::from(targets) << 16 | u32::from(intid));
        }
        let value = u64::from(targets) | u64::from(intid) << 24;
        let (vgic, machine) = self.on(from);
        vgic.send_sgi(machine, from, value, true);
        self.settle();
    }

    /// Sets the priority of a private interrupt of vCPU 0.
    fn set_priority(&mut self, intid: u64, priority: u8) {
        let v2 = self.vgic.model == Model::V2;
        let (vgic, machine) = self.on(0);
        if v2 {
            vgic.write_distributor(machine, 0, IPRIORITYR + intid, 1, priority.into());
        } else {
            vgic.write_redistributor(machine, 0, SGI_FRAME + IPRIORITYR + intid, 1, priority.into());
        }
        self.settle();
    }

    /// A physical interrupt fires on the CPU of `vcpu`, if it is enabled and inactive there.
    fn fire(&mut self, vcpu: usize, intid: IntId) -> bool {
        self.machine.current = vcpu;
        let word = intid.raw() as usize / 32;
        let enabled =
            if word == 0 { self.machine.cpus[vcpu].enabled } else { self.machine.enabled_spis[word] };
        let key = self.machine.key(intid);
        if enabled & mask(intid.raw() as usize & 31) == 0 || !self.machine.active.insert(key) {
            return false;
        }
        if intid == TIMER
            && let Some(entry) = self.machine.cpus[vcpu].timer
        {
            // What the assembly does.
            assert!(self.machine.cpus[vcpu].lists[0].is_none(), "the short path overwrites an interrupt");
            self.machine.cpus[vcpu].lists[0] = Some(entry);
        } else {
            let (vgic, machine) = self.on(vcpu);
            vgic.hardware_interrupt(machine, vcpu, intid);
        }
        self.settle();
        true
    }

    /// The guest acknowledges: the hardware gives it the highest-priority pending entry, if that preempts.
    fn acknowledge(&mut self, vcpu: usize) -> Option<IntId> {
        let running = self.running[vcpu].last().map_or(0x100, |&(priority, _)| u32::from(priority));
        let lists = &mut self.machine.cpus[vcpu].lists;
        let best = lists
            .iter_mut()
            .flatten()
            .filter(|entry| entry.pending && !entry.active)
            .min_by_key(|entry| (entry.priority, entry.intid))?;
        if u32::from(best.priority) >= running {
            return None;
        }
        best.pending = false;
        best.active = true;
        let (priority, intid) = (best.priority, best.intid);
        self.sender = best.sender;
        self.running[vcpu].push((priority, intid));
        self.settle();
        Some(intid)
    }

    /// The guest ends the interrupt that it acknowledged last.
    fn end(&mut self, vcpu: usize) -> Option<IntId> {
        let (_, intid) = self.running[vcpu].pop()?;
        self.machine.current = vcpu;
        let found = self.machine.cpus[vcpu]
            .lists
            .iter()
            .position(|entry| entry.is_some_and(|e| e.intid == intid && e.active));
        match found {
            Some(n) => {
                let entry = self.machine.cpus[vcpu].lists[n].take().expect("found");
                if entry.notify_end {
                    self.machine.cpus[vcpu].ended |= mask(n);
                }
                if entry.hardware {
                    let key = self.machine.key(intid);
                    let was_active = self.machine.active.remove(&key);
                    assert!(was_active || !self.strict, "{intid} is deactivated twice");
                }
            }
            None => self.machine.cpus[vcpu].eoi_count += 1,
        }
        self.settle();
        Some(intid)
    }

    fn take(&mut self, vcpu: usize) -> Option<IntId> {
        let intid = self.acknowledge(vcpu)?;
        assert_eq!(self.end(vcpu), Some(intid));
        Some(intid)
    }
}

#[test]
fn an_sgi_reaches_its_targets_and_nobody_else() {
    let mut world = World::new();
    world.sgi(0, 0b10, 3);
    assert_eq!((world.take(0), world.take(1)), (None, Some(IntId::sgi(3))));
    world.sgi(0, 0b01, 4);
    assert_eq!((world.take(0), world.take(1)), (Some(IntId::sgi(4)), None));
    // Targets that do not exist, another cluster, another range of Aff0, another group.
    world.sgi(0, 0b1100, 5);
    let (vgic, machine) = world.on(0);
    vgic.send_sgi(machine, 0, 0b11 | 1 << 16 | 5 << 24, true);
    vgic.send_sgi(machine, 0, 0b11 | 1 << 44 | 5 << 24, true);
    vgic.send_sgi(machine, 0, 0b11 | 5 << 24, false);
    world.settle();
    assert_eq!((world.take(0), world.take(1)), (None, None));
    // To all but itself.
    let (vgic, machine) = world.on(1);
    vgic.send_sgi(machine, 1, 1 << 40 | 6 << 24, true);
    world.settle();
    assert_eq!((world.take(0), world.take(1)), (Some(IntId::sgi(6)), None));
}

#[test]
fn an_sgi_that_comes_again_while_active_is_taken_again() {
    let mut world = World::new();
    world.sgi(0, 1, 2);
    assert_eq!(world.acknowledge(0), Some(IntId::sgi(2)));
    world.sgi(0, 1, 2);
    world.sgi(1, 1, 2);
    assert_eq!(world.end(0), Some(IntId::sgi(2)));
    assert_eq!(world.take(0), Some(IntId::sgi(2)));
    assert_eq!(world.take(0), None);
}

#[test]
fn the_timer_waits_for_what_is_more_urgent() {
    for early in [true, false] {
        let mut world = World::new();
        world.set_priority(27, 0xf0);
        if early {
            assert!(world.fire(0, TIMER));
        }
        for intid in 0..8 {
            world.set_priority(intid, 0x10 * intid as u8);
            world.sgi(0, 1, intid as u8);
        }
        if !early {
            assert!(world.fire(0, TIMER));
        }
        for intid in 0..8 {
            assert_eq!(world.take(0), Some(IntId::sgi(intid)));
        }
        assert_eq!(world.take(0), Some(TIMER));
        assert_eq!(world.take(0), None);
        assert!(world.machine.active.is_empty() && world.machine.cpus[0].timer.is_some());
    }
}

#[test]
fn the_timer_keeps_its_short_path() {
    let mut world = World::new();
    for _ in 0..3 {
        assert!(world.machine.cpus[0].timer.is_some());
        assert!(world.fire(0, TIMER));
        assert!(!world.fire(0, TIMER), "active until the guest ends it");
        assert_eq!(world.take(0), Some(TIMER));
    }
    world.write_private(0, 0, ICENABLER, mask(27));
    assert!(world.machine.cpus[0].timer.is_none() && !world.fire(0, TIMER));
    world.write_private(0, 0, ISENABLER, mask(27));
    assert!(world.fire(0, TIMER));
    // Disabled while offered: taken back, and offered again when enabled.
    world.write_private(0, 0, ICENABLER, mask(27));
    assert_eq!(world.take(0), None);
    assert_eq!(world.read_private(1, 0, ISPENDR) & mask(27), mask(27));
    world.write_private(1, 0, ISENABLER, mask(27));
    assert_eq!(world.take(0), Some(TIMER));
    assert!(world.machine.active.is_empty());
    assert!(world.fire(0, TIMER) && world.machine.cpus[0].lists[0].is_some_and(|entry| entry.hardware));
}

#[test]
fn an_active_timer_is_deactivated_by_register() {
    for writer in 0..2 {
        let mut world = World::new();
        assert!(world.fire(0, TIMER));
        assert_eq!(world.acknowledge(0), Some(TIMER));
        assert_eq!(world.read_private(writer, 0, ISACTIVER) & mask(27), mask(27));
        world.write_private(writer, 0, ICACTIVER, mask(27));
        assert_eq!(world.read_private(writer, 0, ISACTIVER) & mask(27), 0);
        world.running[0].clear();
        assert!(world.machine.active.is_empty());
        assert!(world.fire(0, TIMER));
        assert_eq!(world.take(0), Some(TIMER));
    }
}

#[test]
fn a_pending_interrupt_is_cancelled_by_register() {
    for writer in 0..2 {
        let mut world = World::new();
        assert!(world.fire(0, PHYSICAL_TIMER) && world.fire(0, SPI) && world.fire(0, TIMER));
        world.write_private(writer, 0, ICPENDR, mask(30) | mask(27));
        world.write(writer, ICPENDR + 4, mask(8));
        assert_eq!(world.take(0), None);
        assert!(world.machine.active.is_empty());
        assert!(world.fire(0, PHYSICAL_TIMER));
        assert_eq!(world.take(0), Some(PHYSICAL_TIMER));
    }
}

#[test]
fn a_line_interrupts_for_as_long_as_it_is_high() {
    let mut world = World::new();
    let set = |world: &mut World, current, level| {
        world.vgic.set_line(&mut world.machine, current, UART, level);
        world.settle();
    };
    set(&mut world, None, true);
    assert_eq!(world.take(0), Some(UART));
    assert_eq!(world.acknowledge(0), Some(UART));
    set(&mut world, Some(0), false);
    assert_eq!(world.end(0), Some(UART));
    assert_eq!(world.take(0), None);
    // Falls and rises again while it is handled.
    for (first, second) in [(None, None), (Some(0), None), (None, Some(0)), (Some(0), Some(0))] {
        set(&mut world, None, true);
        assert_eq!(world.acknowledge(0), Some(UART));
        set(&mut world, first, false);
        set(&mut world, second, true);
        assert_eq!(world.end(0), Some(UART));
        assert_eq!(world.take(0), Some(UART));
        set(&mut world, None, false);
    }
    // Falls while offered.
    set(&mut world, None, true);
    set(&mut world, None, false);
    assert_eq!(world.take(0), None);
    // Pended by software: once, whatever the line.
    world.write(0, ISPENDR + 4, mask(1));
    assert_eq!((world.take(0), world.take(0)), (Some(UART), None));
}

#[test]
fn an_spi_follows_its_route() {
    let mut world = World::new();
    assert!(world.fire(0, SPI));
    let (vgic, machine) = world.on(0);
    vgic.write_distributor(machine, 0, GICD_IROUTER + 8 * 40, 8, 1);
    world.settle();
    assert_eq!(world.machine.routes, [(SPI, 1)]);
    assert_eq!((world.take(0), world.take(1)), (None, Some(SPI)));
    assert!(world.machine.active.is_empty());
    // Nobody has this affinity: it waits.
    let (vgic, machine) = world.on(0);
    vgic.write_distributor(machine, 0, GICD_IROUTER + 8 * 40, 8, 7);
    assert!(world.fire(1, SPI));
    assert_eq!((world.take(0), world.take(1)), (None, None));
    assert_eq!(world.read(0, ISPENDR + 4), mask(8));
    let (vgic, machine) = world.on(0);
    vgic.write_distributor(machine, 0, GICD_IROUTER + 8 * 40, 8, 0);
    world.settle();
    assert_eq!(world.take(0), Some(SPI));
}

#[test]
fn foreign_bits_read_as_zero_and_ignore_writes() {
    let mut world = World::new();
    for register in [IGROUPR, ISENABLER, ISPENDR, ISACTIVER] {
        for word in 0..32 {
            world.write(0, register + 4 * word, u32::MAX);
            let expected = if word == 1 { mask(1) | mask(8) } else { 0 };
            let value = world.read(0, register + 4 * word);
            assert_eq!(value & !expected, 0, "register {register:#x}, word {word}");
        }
    }
    world.write(0, IPRIORITYR + 32, u32::MAX);
    assert_eq!(world.read(0, IPRIORITYR + 32), 0x0000_f800);
    assert_eq!(world.machine.enabled_spis[1], mask(8), "the emulated UART has no physical interrupt");
    world.write_private(0, 1, ISENABLER, u32::MAX);
    assert_eq!(world.read_private(0, 1, ISENABLER), 0xffff | mask(27) | mask(30));
}

#[test]
fn more_active_interrupts_than_list_registers_all_end() {
    let mut world = World::new();
    // Priorities 0x78, 0x70, …: each preempts the one before.
    for n in 0..15_u8 {
        world.write_private(0, 0, IPRIORITYR + u64::from(n & !3), {
            let at = |m: u8| u32::from(0x78 - 8 * (m & 0xf)) << (8 * (m & 3));
            at(n & !3) | at((n & !3) + 1) | at((n & !3) + 2) | if n & !3 == 12 { 0 } else { at((n & !3) + 3) }
        });
    }
    for n in 0..15 {
        world.sgi(1, 1, n);
        assert_eq!(world.acknowledge(0), Some(IntId::sgi(n)));
    }
    assert_eq!(world.read_private(0, 0, ISACTIVER) & 0x7fff, 0x7fff);
    for n in (0..15).rev() {
        assert_eq!(world.end(0), Some(IntId::sgi(n)));
    }
    assert_eq!(world.read_private(0, 0, ISACTIVER), 0);
    world.sgi(1, 1, 3);
    assert_eq!(world.take(0), Some(IntId::sgi(3)));
}

#[test]
fn a_stopped_vcpu_leaves_nothing_behind() {
    let mut world = World::new();
    assert!(world.fire(1, PHYSICAL_TIMER) && world.fire(1, TIMER));
    assert_eq!(world.acknowledge(1), Some(TIMER));
    let (vgic, machine) = world.on(1);
    vgic.stop_vcpu(machine, 1);
    assert_eq!(world.machine.cpus[1].enabled, 0);
    let (vgic, machine) = world.on(1);
    vgic.start_vcpu(machine, 1);
    world.running[1].clear();
    assert!(world.machine.active.is_empty());
    assert_eq!(world.take(1), None);
    // RWP does not wait for a CPU that is off.
    let (vgic, machine) = world.on(1);
    vgic.stop_vcpu(machine, 1);
    world.write(0, GICD_CTLR, 0);
    assert_eq!(world.read(0, GICD_CTLR) >> 31, 0);
    // Nor does a read of its registers.
    assert_eq!(world.read_private(0, 1, ISPENDR), 0);
    world.sgi(0, 0b10, 1);
    assert_eq!(world.machine.kicked, 0);
}

#[test]
fn an_end_that_was_to_be_noticed_is_noticed_by_whoever_comes_first() {
    let mut world = World::new();
    world.vgic.set_line(&mut world.machine, None, UART, true);
    world.settle();
    assert_eq!(world.acknowledge(0), Some(UART));
    // The guest ends it with the line still high; a kick comes before the maintenance interrupt.
    let (_, intid) = world.running[0].pop().unwrap();
    let n = world.machine.cpus[0].lists.iter().position(|e| e.is_some_and(|e| e.intid == intid)).unwrap();
    world.machine.cpus[0].lists[n] = None;
    world.machine.cpus[0].ended |= mask(n);
    let (vgic, machine) = world.on(1);
    vgic.send_sgi(machine, 1, 1 | 3 << 24, true);
    world.settle();
    assert_eq!((world.take(0), world.take(0)), (Some(IntId::sgi(3)), Some(UART)));
}

#[test]
fn the_timer_of_another_cpu_is_deactivated_there() {
    let mut world = World::new();
    assert!(world.fire(0, PHYSICAL_TIMER) && world.fire(1, PHYSICAL_TIMER));
    assert_eq!(world.acknowledge(0), Some(PHYSICAL_TIMER));
    world.write_private(1, 0, ICACTIVER, mask(30));
    assert_eq!(world.machine.active, BTreeSet::from([(1, 30)]));
}

#[test]
fn the_timer_pended_by_another_cpu_while_active_comes_again() {
    let mut world = World::new();
    assert!(world.fire(0, TIMER));
    assert_eq!(world.acknowledge(0), Some(TIMER));
    world.write_private(1, 0, ISPENDR, mask(27));
    assert_eq!(world.end(0), Some(TIMER));
    assert_eq!((world.take(0), world.take(0)), (Some(TIMER), None));
    assert!(world.machine.active.is_empty());
    assert!(world.fire(0, TIMER));
}

#[test]
fn what_waits_for_a_vcpu_is_there_when_it_starts() {
    let mut world = World::new();
    let (vgic, machine) = world.on(0);
    vgic.write_distributor(machine, 0, GICD_IROUTER + 8 * 40, 8, 1);
    world.settle();
    let (vgic, machine) = world.on(0);
    vgic.send_sgi(machine, 0, 0b10 | 1 << 24, true);
    let (vgic, machine) = world.on(1);
    vgic.stop_vcpu(machine, 1);
    assert!(world.fire(0, SPI));
    world.write_private(0, 1, IGROUPR, u32::MAX);
    world.write_private(0, 1, ISENABLER, u32::MAX);
    world.sgi(0, 0b10, 5);
    let (vgic, machine) = world.on(1);
    vgic.start_vcpu(machine, 1);
    assert_eq!((world.take(1), world.take(1), world.take(1)), (Some(IntId::sgi(5)), Some(SPI), None));
}

#[test]
fn every_sender_of_an_sgi_counts() {
    let mut world = World::of(Model::V2);
    let sgi = IntId::sgi(5);
    let take = |world: &mut World| world.take(0).map(|intid| (intid, world.sender));
    // Twice the same sender is once.
    for from in [1, 0, 1] {
        world.sgi(from, 1, 5);
    }
    assert_eq!(world.read(0, SPENDSGIR + 4), 0b11 << 8);
    assert_eq!(
        [take(&mut world), take(&mut world), take(&mut world)],
        [Some((sgi, 0)), Some((sgi, 1)), None]
    );
    // While active, too.
    world.sgi(1, 1, 5);
    assert_eq!((world.acknowledge(0), world.sender), (Some(sgi), 1));
    world.sgi(1, 1, 5);
    world.sgi(0, 1, 5);
    assert_eq!(world.acknowledge(0), None);
    assert_eq!(world.read(0, ISACTIVER), mask(5));
    assert_eq!(world.end(0), Some(sgi));
    assert_eq!(
        [take(&mut world), take(&mut world), take(&mut world)],
        [Some((sgi, 0)), Some((sgi, 1)), None]
    );
    // Cleared and set by register, each vCPU its own; SGIs have no GICD_ISPENDR.
    world.sgi(0, 0b11, 5);
    world.write(0, CPENDSGIR + 4, 1 << 8);
    assert_eq!((take(&mut world), world.take(1)), (None, Some(sgi)));
    world.write(1, SPENDSGIR + 4, 0xff << 8);
    world.write(1, ISPENDR, mask(6));
    assert_eq!(world.read(1, CPENDSGIR + 4), 0b11 << 8);
    assert_eq!((world.take(1), world.take(1), world.take(1)), (Some(sgi), Some(sgi), None));
    // To all others, to itself, and never disabled.
    world.write(0, ICENABLER, u32::MAX);
    world.write(0, GICD_SGIR, 1 << 24 | 7);
    world.write(0, GICD_SGIR, 2 << 24 | 8);
    world.write(0, GICD_SGIR, 3 << 24 | 9);
    assert_eq!((world.take(1), world.take(1)), (Some(IntId::sgi(7)), None));
    assert_eq!((world.take(0), world.take(0)), (Some(IntId::sgi(8)), None));
    assert_eq!(world.read(0, ISENABLER), 0xffff);
}

#[test]
fn targets_are_the_vcpus_that_exist() {
    let mut world = World::of(Model::V2);
    assert_eq!((world.read(0, ITARGETSR), world.read(1, ITARGETSR + 28)), (0x0101_0101, 0x0202_0202));
    world.write(0, ITARGETSR + 40, u32::MAX);
    assert_eq!(world.read(1, ITARGETSR + 40), 0b11, "SPI 8 of four is its own");
    world.write(0, ITARGETSR + 40, 0b10);
    assert_eq!(world.machine.routes, [(SPI, 0), (SPI, 1)]);
    assert!(world.fire(1, SPI));
    assert_eq!((world.take(0), world.take(1)), (None, Some(SPI)));
    world.write(0, ITARGETSR + 40, 0);
    assert!(world.fire(1, SPI));
    assert_eq!((world.take(0), world.take(1)), (None, None));
    world.write(0, ITARGETSR + 40, 0b01);
    assert_eq!(world.take(0), Some(SPI));
    // GICD_TYPER: two CPUs, 128 INTIDs; no affinity routing.
    assert_eq!((world.read(0, 4), world.read(0, GICD_CTLR)), (1 << 5 | 3, 0b10));
}

#[test]
fn bits_come_lowest_first() {
    assert_eq!(bits(0x8000_0101).collect::<Vec<_>>(), [0, 8, 31]);
    assert_eq!(Bank::new(3).intid(5), IntId::new(101));
}

#[test]
fn hardware_and_software_pend_at_once() {
    for model in [Model::V2, Model::V3] {
        for intid in [SPI, PHYSICAL_TIMER, TIMER] {
            let mut world = World::of(model);
            let bit = mask(intid.raw() as usize & 31);
            if intid.is_private() {
                world.write_private(0, 0, ISPENDR, bit);
            } else {
                world.write(0, ISPENDR + 4, bit);
            }
            assert!(world.fire(0, intid));
            assert_eq!((world.take(0), world.take(0)), (Some(intid), None));
            assert!(world.fire(0, intid), "{model:?}: {intid} is active for ever");
        }
    }
}

#[test]
fn a_stopped_vcpu_asks_for_no_maintenance() {
    let mut world = World::new();
    for n in 0..8 {
        world.sgi(0, 0b10, n);
    }
    assert!(world.machine.cpus[1].maintenance.no_pending);
    let (vgic, machine) = world.on(1);
    vgic.stop_vcpu(machine, 1);
    assert_eq!(world.machine.cpus[1].maintenance, Maintenance::default());
    // An end may be seen by a read before its maintenance interrupt comes.
    world.vgic.set_line(&mut world.machine, None, UART, true);
    world.settle();
    assert_eq!(world.acknowledge(0), Some(UART));
    world.vgic.set_line(&mut world.machine, None, UART, false);
    let n = world.machine.cpus[0].lists.iter().position(Option::is_some).unwrap();
    world.machine.cpus[0].lists[n] = None;
    world.machine.cpus[0].ended |= mask(n);
    let (vgic, machine) = world.on(0);
    vgic.synchronize(machine, 0);
    assert_eq!(world.machine.cpus[0].ended, 0);
}

#[test]
fn a_deactivation_before_a_kick_keeps_what_was_loaded() {
    let mut world = World::of(Model::V2);
    world.machine.split = true;
    world.sgi(0, 1, 5);
    assert_eq!(world.acknowledge(0), Some(IntId::sgi(5)));
    assert!(world.fire(0, PHYSICAL_TIMER));
    // vCPU 1 has sent an SGI; its kick is on the way.
    let (vgic, machine) = world.on(1);
    vgic.write_distributor(machine, 1, GICD_SGIR, 4, 1 << 16 | 6);
    let (vgic, machine) = world.on(0);
    vgic.deactivate(machine, 0, IntId::sgi(9));
    assert_eq!(world.machine.cpus[0].lists.iter().flatten().count(), 3);
}

#[derive(Clone, Debug)]
enum Step {
    Sgi(u8, bool),
    Timer,
    PhysicalTimer,
    Spi,
    /// The line of the emulated device, and whether it changes on the CPU of vCPU 0.
    Line(bool, bool),
    /// Software pends that device's interrupt.
    Pend,
    Acknowledge,
    End,
    Disable(u8),
    Enable(u8),
    Priority(u8, u8),
    ReadPending,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..16_u8, any::<bool>()).prop_map(|(intid, other)| Step::Sgi(intid, other)),
        1 => Just(Step::Timer),
        1 => Just(Step::PhysicalTimer),
        1 => Just(Step::Spi),
        3 => (any::<bool>(), any::<bool>()).prop_map(|(level, here)| Step::Line(level, here)),
        1 => Just(Step::Pend),
        4 => Just(Step::Acknowledge),
        4 => Just(Step::End),
        1 => (0..16_u8).prop_map(Step::Disable),
        1 => (0..16_u8).prop_map(Step::Enable),
        1 => (0..16_u8, 0..16_u8).prop_map(|(intid, priority)| Step::Priority(intid, priority << 4)),
        1 => Just(Step::ReadPending),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 2 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// On one vCPU with four list registers: what the guest acknowledges is what an ideal interrupt controller
    /// would give it.
    #[test]
    fn it_is_an_ideal_interrupt_controller(
        priorities in prop::array::uniform16(0..31_u8),
        steps in prop::collection::vec(step(), 1..200),
        v2 in any::<bool>(),
    ) {
        let mut world = World::of(if v2 { Model::V2 } else { Model::V3 });
        let (mut pending, mut active, mut enabled) = (BTreeSet::<(IntId, u8)>::new(), Vec::<IntId>::new(), u32::MAX);
        let mut priority = [0_u8; 64];
        let (mut line, mut pended) = (false, false);
        for (n, value) in priorities.into_iter().enumerate() {
            priority[n] = value << 3;
            world.set_priority(n as u64, value << 3);
        }
        for step in steps {
            match step {
                Step::Sgi(n, other) => {
                    world.sgi(other.into(), 1, n);
                    pending.insert((IntId::sgi(n), (v2 && other).into()));
                }
                Step::Timer | Step::PhysicalTimer | Step::Spi => {
                    let intid = match step {
                        Step::Timer => TIMER,
                        Step::PhysicalTimer => PHYSICAL_TIMER,
                        _ => SPI,
                    };
                    let fired = world.fire(0, intid);
                    prop_assert_eq!(fired, !pending.contains(&(intid, 0)) && !active.contains(&intid));
                    if fired {
                        pending.insert((intid, 0));
                    }
                }
                Step::Line(level, here) => {
                    line = level;
                    let (vgic, machine) = world.on(usize::from(!here));
                    vgic.set_line(machine, Some(usize::from(!here)), UART, level);
                    world.settle();
                    if level {
                        pending.insert((UART, 0));
                    } else if !pended {
                        pending.remove(&(UART, 0));
                    }
                }
                Step::Pend => {
                    pended = true;
                    world.write(1, ISPENDR + 4, mask(1));
                    pending.insert((UART, 0));
                }
                Step::Acknowledge => {
                    let running = active.last().map_or(0x100, |intid| u32::from(priority[intid.raw() as usize]));
                    let best = pending
                        .iter()
                        .map(|(intid, _)| intid)
                        .filter(|intid| !active.contains(intid))
                        .filter(|intid| !intid.is_private() || (v2 && intid.raw() < 16) || enabled & mask(intid.raw() as usize) != 0)
                        .min_by_key(|intid| priority[intid.raw() as usize])
                        .map(|intid| priority[intid.raw() as usize])
                        .filter(|&priority| u32::from(priority) < running);
                    let taken = world.acknowledge(0);
                    prop_assert_eq!(taken.map(|intid| priority[intid.raw() as usize]), best);
                    if let Some(intid) = taken {
                        prop_assert!(pending.remove(&(intid, world.sender)), "{} came from nowhere", intid);
                        if intid == UART {
                            pended = false;
                            if line {
                                pending.insert((UART, 0));
                            }
                        }
                        active.push(intid);
                    }
                }
                Step::End => {
                    prop_assert_eq!(world.end(0), active.pop());
                }
                Step::Disable(n) => {
                    world.write_private(0, 0, ICENABLER, mask(n.into()));
                    enabled &= !mask(n.into());
                }
                Step::Enable(n) => {
                    world.write_private(1, 0, ISENABLER, mask(n.into()));
                    enabled |= mask(n.into());
                }
                // Changing the priority of an active interrupt is UNPREDICTABLE for its running priority.
                Step::Priority(n, value) if !active.contains(&IntId::sgi(n)) => {
                    world.set_priority(n.into(), value);
                    priority[usize::from(n)] = value;
                }
                Step::Priority(..) => {}
                Step::ReadPending => {
                    let expected = pending.iter().map(|(i, _)| i).filter(|i| i.is_private()).fold(0, |all, i| all | mask(i.raw() as usize));
                    prop_assert_eq!(world.read_private(0, 0, ISPENDR), expected);
                    let expected = active.iter().filter(|i| i.is_private()).fold(0, |all, i| all | mask(i.raw() as usize));
                    prop_assert_eq!(world.read_private(1, 0, ISACTIVER), expected);
                    if v2 {
                        for word in 0..4 {
                            let expected = pending.iter().filter(|(i, _)| i.raw() / 4 == word).fold(0, |all, (i, sender)| {
                                all | mask(usize::from(*sender)) << (8 * (i.raw() % 4))
                            });
                            prop_assert_eq!(world.read(0, SPENDSGIR + 4 * u64::from(word)), expected);
                        }
                    }
                }
            }
        }
    }

    /// Whatever a guest writes and reads anywhere in the frames: no panic, and the retries end.
    #[test]
    fn any_access_has_an_answer(
        accesses in prop::collection::vec((0..2_usize, 0..0x6_0000_u64, 0..4_u32, any::<u64>(), any::<bool>(), any::<bool>()), 1..100),
        v2 in any::<bool>(),
    ) {
        let mut world = World::of(if v2 { Model::V2 } else { Model::V3 });
        for (vcpu, offset, size, value, write, distributor) in accesses {
            let size = 1 << size;
            for _ in 0..8 {
                let (vgic, machine) = world.on(vcpu);
                let answer = match (write, distributor) {
                    (true, true) => {
                        vgic.write_distributor(machine, vcpu, offset & 0xffff, size, value);
                        Access::Value(0)
                    }
                    (false, true) => vgic.read_distributor(machine, vcpu, offset & 0xffff, size),
                    (true, false) => {
                        vgic.write_redistributor(machine, vcpu, offset, size, value);
                        Access::Value(0)
                    }
                    (false, false) => vgic.read_redistributor(machine, vcpu, offset, size),
                };
                world.settle();
                if answer != Access::Retry {
                    break;
                }
            }
        }
    }
}

/// A physical interrupt that is active while its route changes comes on its new CPU, and is not lost.
#[test]
fn an_spi_follows_a_route_that_changes_while_it_is_active() {
    let mut world = World::new();
    assert!(world.fire(0, SPI));
    assert_eq!(world.acknowledge(0), Some(SPI));
    let (vgic, machine) = world.on(1);
    vgic.write_distributor(machine, 1, GICD_IROUTER + 8 * 40, 8, 1);
    world.settle();
    assert_eq!(world.end(0), Some(SPI));
    // Level, and still or again high: the new CPU acknowledges it.
    assert!(world.fire(1, SPI));
    assert_eq!((world.take(0), world.take(1)), (None, Some(SPI)));
}

/// The same of an emulated line, by the end of the interrupt and by the end of the vCPU.
#[test]
fn a_line_follows_a_route_that_changes_while_it_is_active() {
    for off in [false, true] {
        let mut world = World::new();
        world.vgic.set_line(&mut world.machine, None, UART, true);
        world.settle();
        assert_eq!(world.acknowledge(0), Some(UART));
        let (vgic, machine) = world.on(1);
        vgic.write_distributor(machine, 1, GICD_IROUTER + 8 * 33, 8, 1);
        world.settle();
        if off {
            let (vgic, machine) = world.on(0);
            vgic.stop_vcpu(machine, 0);
            world.settle();
        } else {
            assert_eq!(world.end(0), Some(UART));
        }
        assert_eq!(world.take(1), Some(UART), "off {off}");
    }
}

/// What comes after a cancellation that is still on its way is not cancelled.
#[test]
fn what_comes_after_its_cancellation_is_kept() {
    let mut world = World::new();
    world.write(0, ISPENDR + 4, mask(1));
    let (vgic, machine) = world.on(1);
    vgic.write_distributor(machine, 1, ICPENDR + 4, 4, mask(1).into());
    let (vgic, machine) = world.on(0);
    vgic.write_distributor(machine, 0, ISPENDR + 4, 4, mask(1).into());
    world.settle();
    assert_eq!((world.take(0), world.take(0)), (Some(UART), None));
}

/// Edge-triggered by GICD_ICFGR, an emulated line interrupts when it rises, once.
#[test]
fn an_emulated_line_interrupts_also_as_edge() {
    let mut world = World::new();
    world.write(0, 0xc00 + 8, 0b10 << 2);
    for _ in 0..2 {
        world.vgic.set_line(&mut world.machine, None, UART, true);
        world.settle();
        assert_eq!((world.take(0), world.take(0)), (Some(UART), None));
        world.vgic.set_line(&mut world.machine, None, UART, false);
        world.settle();
    }
    // It has risen, and has fallen before it is looked at.
    world.vgic.set_line(&mut world.machine, None, UART, true);
    world.settle();
    world.vgic.set_line(&mut world.machine, None, UART, false);
    world.settle();
    assert_eq!((world.take(0), world.take(0)), (Some(UART), None));
}

/// What happens to two vCPUs. Of registers, the first number is the vCPU that writes them, the first bool whether it is the
/// emulated device's interrupt or the physical one.
#[derive(Clone, Debug)]
enum Shared {
    Sgi(u8, usize, usize),
    Spi,
    /// The emulated line changes, on the CPU of a vCPU or elsewhere.
    Line(bool, Option<usize>),
    Pend(usize, bool),
    Unpend(usize, bool),
    Enable(usize, bool, bool),
    /// To vCPU 2: to nobody.
    Route(usize, bool, u8),
    Priority(usize, bool, u8),
    Acknowledge(usize),
    End(usize),
    Off(usize),
    On(usize),
    Read(usize),
    /// Kicks and maintenance interrupts are on the way until somebody acknowledges or reads.
    Lazy,
    Ctlr(usize, bool),
    Deactivate(usize, bool),
    /// A kick that nobody sent.
    Refill(usize),
}

fn shared_step() -> impl Strategy<Value = Shared> {
    let v = 0..2_usize;
    prop_oneof![
        3 => (0..6_u8, v.clone(), v.clone()).prop_map(|(n, f, t)| Shared::Sgi(n, f, t)),
        2 => Just(Shared::Spi),
        4 => (any::<bool>(), prop::option::of(v.clone())).prop_map(|(l, c)| Shared::Line(l, c)),
        2 => (v.clone(), any::<bool>()).prop_map(|(a, b)| Shared::Pend(a, b)),
        1 => (v.clone(), any::<bool>()).prop_map(|(a, b)| Shared::Unpend(a, b)),
        3 => (v.clone(), any::<bool>(), any::<bool>()).prop_map(|(a, b, c)| Shared::Enable(a, b, c)),
        3 => (v.clone(), any::<bool>(), 0..3_u8).prop_map(|(a, b, c)| Shared::Route(a, b, c)),
        1 => (v.clone(), any::<bool>(), 0..16_u8).prop_map(|(a, b, c)| Shared::Priority(a, b, c << 4)),
        6 => v.clone().prop_map(Shared::Acknowledge),
        6 => v.clone().prop_map(Shared::End),
        1 => v.clone().prop_map(Shared::Off),
        2 => v.clone().prop_map(Shared::On),
        1 => v.clone().prop_map(Shared::Read),
        4 => Just(Shared::Lazy),
        1 => (v.clone(), prop::bool::weighted(0.7)).prop_map(|(a, b)| Shared::Ctlr(a, b)),
        1 => (v.clone(), any::<bool>()).prop_map(|(a, b)| Shared::Deactivate(a, b)),
        2 => v.prop_map(Shared::Refill),
    ]
}

fn shared(uart: bool) -> IntId {
    if uart { UART } else { SPI }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// On two vCPUs, on and off, whose interrupts change route and state under each other's hands, with kicks on the way.
    #[test]
    fn it_is_an_ideal_interrupt_controller_for_two(
        steps in prop::collection::vec(shared_step(), 1..120),
        v2 in any::<bool>(),
        keeps in any::<bool>(),
    ) {
        let mut world = World::of(if v2 { Model::V2 } else { Model::V3 });
        world.machine.keeps_ends = keeps && v2;
        world.strict = false;
        let mut private = [BTreeSet::<(IntId, u8)>::new(), BTreeSet::new()];
        let mut active = [Vec::<IntId>::new(), Vec::new()];
        let mut latched = BTreeSet::<IntId>::new();
        let mut enabled = BTreeSet::from([UART, SPI]);
        let mut target = std::collections::BTreeMap::from([(UART, 0_usize), (SPI, 0)]);
        let mut wire = 0;
        let mut priority: [u8; 64] = core::array::from_fn(|n| if n < 16 { (n as u8) << 4 } else { 0x20 });
        let mut line = false;
        let mut on = [true, true];
        let mut forwarding = true;
        let program = |world: &mut World, v: usize| {
            world.write_private(v, v, IGROUPR, u32::MAX);
            world.write_private(v, v, ISENABLER, u32::MAX);
            for n in 0..16_u64 {
                let (vgic, machine) = world.on(v);
                if v2 { vgic.write_distributor(machine, v, IPRIORITYR + n, 1, n << 4); }
                else { vgic.write_redistributor(machine, v, v as u64 * STRIDE + SGI_FRAME + IPRIORITYR + n, 1, n << 4); }
                world.settle();
            }
        };
        program(&mut world, 0); program(&mut world, 1);
        for n in [33_u64, 40] {
            let (vgic, machine) = world.on(0);
            vgic.write_distributor(machine, 0, IPRIORITYR + n, 1, 0x20);
            world.settle();
        }
        for step in steps {
            match step {
                Shared::Sgi(n, from, to) if on[from] && on[to] => {
                    world.sgi(from, 1 << to, n);
                    private[to].insert((IntId::sgi(n), if v2 { from as u8 } else { 0 }));
                }
                Shared::Spi => {
                    // The physical CPU takes it, its guest on or off.
                    let was = latched.contains(&SPI) || active.iter().any(|a| a.contains(&SPI));
                    let fired = world.fire(wire, SPI);
                    if !world.lazy && !was {
                        prop_assert_eq!(fired, enabled.contains(&SPI), "stuck physically");
                    }
                    if fired { latched.insert(SPI); }
                }
                Shared::Line(level, current) => {
                    line = level;
                    world.machine.current = current.unwrap_or(0);
                    // set_line without a current vCPU touches no list register
                    world.vgic.set_line(&mut world.machine, current, UART, level);
                    world.settle();
                }
                Shared::Pend(v, uart) if on[v] => {
                    world.write(v, ISPENDR + 4, mask(shared(uart).raw() as usize & 31));
                    latched.insert(shared(uart));
                }
                Shared::Unpend(v, uart) if on[v] => {
                    world.write(v, ICPENDR + 4, mask(shared(uart).raw() as usize & 31));
                    latched.remove(&shared(uart));
                }
                Shared::Enable(v, uart, yes) if on[v] => {
                    let i = shared(uart);
                    world.write(v, if yes { ISENABLER } else { ICENABLER } + 4, mask(i.raw() as usize & 31));
                    if yes { enabled.insert(i); } else { enabled.remove(&i); }
                }
                Shared::Route(v, uart, to) if on[v] => {
                    let i = shared(uart);
                    let to = usize::from(to);
                    if v2 {
                        let (vgic, machine) = world.on(v);
                        vgic.write_distributor(machine, v, ITARGETSR + u64::from(i.raw()), 1, [1, 2, 0][to]);
                    } else {
                        let (vgic, machine) = world.on(v);
                        vgic.write_distributor(machine, v, GICD_IROUTER + 8 * u64::from(i.raw()), 8, to as u64);
                    }
                    world.settle();
                    target.insert(i, to);
                    if !uart && to < 2 { wire = to; }
                }
                Shared::Priority(v, uart, p) if on[v] && !active.iter().any(|a| a.contains(&shared(uart))) => {
                    let i = shared(uart);
                    let (vgic, machine) = world.on(v);
                    vgic.write_distributor(machine, v, IPRIORITYR + u64::from(i.raw()), 1, p.into());
                    world.settle();
                    priority[i.raw() as usize] = p;
                }
                Shared::Acknowledge(v) if on[v] => {
                    world.lazy = false;
                    world.settle();
                    let pending = |i: IntId| latched.contains(&i) || (i == UART && line);
                    let running = active[v].last().map_or(0x100, |i| u32::from(priority[i.raw() as usize]));
                    let best = private[v].iter().map(|p| p.0).filter(|i| !active[v].contains(i))
                        .chain([UART, SPI].into_iter().filter(|i| pending(*i) && enabled.contains(i) && target[i] == v && !active.iter().any(|a| a.contains(i))))
                        .filter(|_| forwarding).map(|i| priority[i.raw() as usize]).min().filter(|p| u32::from(*p) < running);
                    let taken = world.acknowledge(v);
                    prop_assert_eq!(taken.map(|i| priority[i.raw() as usize]), best, "{:?}", taken);
                    if let Some(i) = taken {
                        if i.is_private() {
                            prop_assert!(private[v].remove(&(i, world.sender)), "{} from nowhere", i);
                        } else {
                            prop_assert!(pending(i) && target[&i] == v, "{} from nowhere", i);
                            latched.remove(&i);
                        }
                        active[v].push(i);
                    }
                }
                Shared::End(v) if on[v] => {
                    prop_assert_eq!(world.end(v), active[v].pop());
                }
                Shared::Off(v) if on[v] => {
                    let (vgic, machine) = world.on(v);
                    vgic.stop_vcpu(machine, v);
                    world.running[v].clear();
                    private[v].clear();
                    active[v].clear();
                    on[v] = false;
                    world.settle();
                }
                Shared::On(v) if !on[v] => {
                    let (vgic, machine) = world.on(v);
                    machine.cpus[v].enabled = 0;
                    vgic.start_vcpu(machine, v);
                    world.settle();
                    on[v] = true;
                    program(&mut world, v);
                }
                Shared::Read(v) if on[v] => {
                    world.lazy = false;
                    world.settle();
                    let p = [UART, SPI].into_iter().filter(|i| latched.contains(i) || (*i == UART && line)).fold(0, |all, i| all | mask(i.raw() as usize & 31));
                    prop_assert_eq!(world.read(v, ISPENDR + 4), p);
                    let a = [UART, SPI].into_iter().filter(|i| active.iter().any(|a| a.contains(i))).fold(0, |all, i| all | mask(i.raw() as usize & 31));
                    prop_assert_eq!(world.read(v, ISACTIVER + 4), a);
                }
                Shared::Lazy => world.lazy = true,
                Shared::Ctlr(v, yes) if on[v] => {
                    world.write(v, GICD_CTLR, if yes { 0b10 } else { 0 });
                    forwarding = yes;
                }
                Shared::Deactivate(v, uart) if on[v] => {
                    let i = shared(uart);
                    for (w, active) in active.iter_mut().enumerate() {
                        if active.last() == Some(&i) {
                            active.pop();
                            world.running[w].pop();
                            world.write(v, ICACTIVER + 4, mask(i.raw() as usize & 31));
                        }
                    }
                }
                Shared::Refill(v) => {
                    world.machine.kicked &= !mask(v);
                    let (vgic, machine) = world.on(v);
                    vgic.refill(machine, v);
                }
                _ => {}
            }
        }
    }
}
