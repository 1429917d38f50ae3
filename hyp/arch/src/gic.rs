//! The physical GIC and its virtual CPU interface: GICv3 (IHI 0069) and GICv2 (IHI 0048).
//!
//! Interrupts come to EL2 with priority drop and deactivation split, so that a guest's end of an interrupt deactivates it through the
//! list register's hardware bit. What the two generations do in the same way, the distributor above all, is here; the CPU
//! interfaces are in `v3` and `v2`. Which one there is shows by whether the GICv2's frames have been made known.

mod v2;
mod v3;

use bulkhead_policy::irq::{IntId, Trigger};
use bulkhead_policy::machine::{Machine, Maintenance};
use bulkhead_policy::plan::MAX_CPUS;
use bulkhead_policy::vgic::Model;
use bulkhead_policy::vgic::list_register::ListRegister;
pub use v2::find_interface;
pub(crate) use v2::{GICC_EOIR, GICC_IAR, GICH_LR};
pub use v3::find_redistributors;

use crate::mmu::Mmio;
use crate::once::Once;
use crate::percpu::PerCpu;

const GICD_CTLR: usize = 0x0000;
const GICD_TYPER: usize = 0x0004;
const GICD_IGROUPR: usize = 0x0080;
const GICD_ISENABLER: usize = 0x0100;
const GICD_ICENABLER: usize = 0x0180;
const GICD_ISPENDR: usize = 0x0200;
const GICD_ICPENDR: usize = 0x0280;
const GICD_ICACTIVER: usize = 0x0380;
const GICD_IPRIORITYR: usize = 0x0400;
const GICD_ICFGR: usize = 0x0c00;

/// ICH_HCR_EL2 and GICH_HCR: enable, maintenance when a list register is missing, and when none is pending.
const HCR_EN: u32 = 1 << 0;
const HCR_LRENPIE: u32 = 1 << 2;
const HCR_NPIE: u32 = 1 << 3;
const HCR_EOI_COUNT: u32 = 0x1f << 27;

/// Priority of every physical interrupt: none preempts another, the guests' priorities are virtual.
const PRIORITY: u32 = 0xa0a0_a0a0;

/// SGI by which CPUs call each other at EL2.
pub const KICK: IntId = IntId::sgi(0);

struct Distributor {
    registers: Mmio,
    words: usize,
}

static DISTRIBUTOR: Once<Distributor> = Once::new();

/// How many SPIs the distributor at `registers` has (GICD_TYPER.ITLinesNumber; IHI 0069, 12.9.38).
#[must_use]
pub fn spis(registers: &Mmio) -> u32 {
    (registers.read32(GICD_TYPER) & 0x1f) * 32
}

/// Brings up the distributor at `registers`: every SPI disabled, level, idle. A GICv2's frames are known by now.
pub fn init_distributor(registers: Mmio) {
    registers.write32(GICD_CTLR, 0);
    wait_for_writes(&registers);
    let words = spis(&registers) as usize / 32 + 1;
    let v2 = v2::interface().is_some();
    let group = if v2 { v2::GROUP } else { v3::GROUP };
    for word in 1..words {
        reset_word(&registers, word, group);
        if v2 {
            for n in 0..8 {
                registers.write32(v2::GICD_ITARGETSR + 32 * word + 4 * n, 0);
            }
        }
        registers.write32(GICD_ICFGR + 8 * word, 0);
        registers.write32(GICD_ICFGR + 8 * word + 4, 0);
    }
    registers.write32(GICD_CTLR, if v2 { 1 } else { v3::GICD_CTLR_ON });
    wait_for_writes(&registers);
    DISTRIBUTOR.set(Distributor { registers, words });
}

/// Interrupts `32 * word` onwards, in the distributor or in a redistributor's SGI frame: disabled, idle, of one priority, in the
/// group that `group` has for each.
#[inline]
fn reset_word(registers: &Mmio, word: usize, group: u32) {
    registers.write32(GICD_ICENABLER + 4 * word, !0);
    registers.write32(GICD_ICPENDR + 4 * word, !0);
    registers.write32(GICD_ICACTIVER + 4 * word, !0);
    registers.write32(GICD_IGROUPR + 4 * word, group);
    for n in 0..8 {
        registers.write32(GICD_IPRIORITYR + 32 * word + 4 * n, PRIORITY);
    }
}

/// GICD_CTLR.RWP, which a GICv2 does not have: it reads as zero there.
fn wait_for_writes(registers: &Mmio) {
    while registers.read32(GICD_CTLR) & v3::GICD_CTLR_RWP != 0 {}
}

fn distributor() -> &'static Distributor {
    DISTRIBUTOR.get().expect("init_distributor comes first")
}

/// Number of 32-interrupt words that the distributor has, private ones included.
#[must_use]
pub fn words() -> usize {
    distributor().words
}

/// Which GIC there is, and so which one guests see.
#[must_use]
pub fn model() -> Model {
    if v2::interface().is_some() { Model::V2 } else { Model::V3 }
}

/// Brings up the CPU interface of the CPU that calls, number `cpu`, and its private interrupts; `maintenance` is the PPI of the
/// virtual CPU interface.
pub fn init_cpu(cpu: usize, maintenance: IntId) {
    match v2::interface() {
        Some(v2) => v2.init_cpu(cpu, maintenance),
        None => v3::init_cpu(cpu, maintenance),
    }
    // List registers are UNKNOWN at reset, and one that seems to have ended would ask for maintenance without end.
    let mut machine = GicMachine::new(&[]);
    (0..machine.list_registers()).for_each(|n| machine.write_list_register(n, None));
    reset_virtual_interface();
}

/// The virtual CPU interface as at reset, enabled. A vCPU that starts clears its list registers.
pub fn reset_virtual_interface() {
    match v2::interface() {
        Some(v2) => v2.reset_virtual_interface(),
        None => v3::reset_virtual_interface(),
    }
}

/// What an acknowledge register said: an INTID, with the sender's number of a GICv2's SGI, which ends have to repeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Acknowledged(u32);

impl Acknowledged {
    /// What the assembly read.
    #[must_use]
    #[inline(always)]
    pub fn from_raw(raw: u64) -> Self {
        Self(raw as u32)
    }

    /// The interrupt, unless there was none or nobody has a use for it.
    #[must_use]
    #[inline(always)]
    pub fn intid(self) -> Option<IntId> {
        IntId::new(if v2::interface().is_some() { self.0 & 0x3ff } else { self.0 })
    }

    /// Drops the running priority that acknowledging raised.
    #[inline(always)]
    pub fn drop_priority(self) {
        match v2::interface() {
            Some(v2) => v2.drop_priority(self.0),
            None => v3::drop_priority(self.0),
        }
    }

    /// Deactivates an interrupt of EL2's own.
    #[inline(always)]
    pub fn deactivate(self) {
        match v2::interface() {
            Some(v2) => v2.deactivate(self.0),
            None => v3::deactivate(self.0),
        }
    }

    /// Ends an interrupt that nobody has a use for: an LPI or an extended INTID that firmware left enabled.
    pub fn discard(self) {
        // 1020 to 1023 say that nothing was acknowledged (IHI 0069, 2.2.1). A GICv2 has nothing else without an IntId.
        if self.0 >= 1024 {
            self.drop_priority();
            self.deactivate();
        }
    }
}

/// Acknowledges the interrupt of the highest priority.
#[inline(always)]
#[must_use]
pub fn acknowledge() -> Acknowledged {
    Acknowledged(match v2::interface() {
        Some(v2) => v2.acknowledge(),
        None => v3::acknowledge(),
    })
}

/// Sends [`KICK`] to CPU `cpu`.
#[inline(always)]
pub fn kick(cpu: usize) {
    match v2::interface() {
        Some(v2) => v2.kick(cpu),
        None => v3::kick(cpu),
    }
}

/// Kicks CPUs 0 to `cpus` but number `own`, as far as they are known.
#[inline(never)]
pub fn kick_others(own: usize, cpus: usize) {
    if DISTRIBUTOR.get().is_some() {
        (0..cpus.min(MAX_CPUS)).filter(|&cpu| cpu != own).for_each(kick);
    }
}

/// Enables SPI `intid` for EL2 itself, on CPU `cpu`, which calls.
pub fn enable_for_el2(intid: IntId, cpu: usize) {
    let (word, bit) = (intid.raw() as usize / 32, intid.raw() % 32);
    route(intid, cpu);
    distributor().registers.write32(GICD_ISENABLER + 4 * word, 1 << bit);
}

/// Routes SPI `intid` to CPU `cpu`. Nowhere on a GICv2 whose CPU is not up: that routes what is its own when it comes.
fn route(intid: IntId, cpu: usize) {
    let registers = &distributor().registers;
    let n = intid.raw() as usize;
    match v2::interface() {
        Some(_) => registers.write8(v2::GICD_ITARGETSR + n, v2::target(cpu)),
        None => registers.write64(v3::GICD_IROUTER + 8 * n, v3::redistributor(cpu).route),
    }
}

/// Sets the trigger of SPI `intid`. Only at boot: the register is shared with other interrupts.
pub fn configure(intid: IntId, trigger: Trigger) {
    let (word, bit) = (intid.raw() as usize / 16, 2 * (intid.raw() % 16) + 1);
    let registers = &distributor().registers;
    let value = registers.read32(GICD_ICFGR + 4 * word) & !(1 << bit);
    let edge = if trigger == Trigger::Edge { 1 << bit } else { 0 };
    registers.write32(GICD_ICFGR + 4 * word, value | edge);
}

/// Whether the vCPU of this CPU is offered an interrupt, which a WFI at EL2 does not see.
#[must_use]
pub fn offers_interrupt() -> bool {
    let mut machine = GicMachine::new(&[]);
    (0..machine.list_registers()).any(|n| machine.read_list_register(n).is_some_and(|entry| entry.pending))
}

/// The GIC as the vGIC of one partition uses it, on the CPU that calls.
pub struct GicMachine<'a> {
    /// Physical CPU of each vCPU.
    cpus: &'a [usize],
    v2: Option<&'static v2::Interface>,
}

impl<'a> GicMachine<'a> {
    /// That of a partition whose vCPUs have these physical CPUs.
    #[must_use]
    #[inline]
    pub fn new(cpus: &'a [usize]) -> Self {
        Self { cpus, v2: v2::interface() }
    }

    /// Where interrupts of `word` are programmed. On a GICv2 a CPU reaches its own private interrupts only; those of
    /// another are reset there when its vCPU stops.
    fn bank(&self, vcpu: usize, word: usize) -> Option<&'static Mmio> {
        if word != 0 {
            return Some(&distributor().registers);
        }
        let &cpu = self.cpus.get(vcpu)?;
        match self.v2 {
            Some(_) => (cpu == PerCpu::current().cpu()).then_some(&distributor().registers),
            None => Some(&v3::redistributor(cpu).private),
        }
    }
}

impl Machine for GicMachine<'_> {
    #[inline]
    fn list_registers(&self) -> usize {
        match self.v2 {
            Some(v2) => v2.list_registers(),
            None => v3::list_register_count(),
        }
    }

    fn read_list_register(&mut self, n: usize) -> Option<ListRegister> {
        match self.v2 {
            Some(v2) => v2.read_list_register(n),
            None => v3::decode(v3::read_list_register(n)),
        }
    }

    fn write_list_register(&mut self, n: usize, value: Option<ListRegister>) {
        match self.v2 {
            Some(v2) => v2.write_list_register(n, value.map_or(0, v2::encode)),
            None => v3::write_list_register(n, value.map_or(0, v3::encode)),
        }
    }

    #[inline]
    fn empty_list_registers(&mut self) -> u32 {
        match self.v2 {
            Some(v2) => v2.empty_list_registers(),
            None => v3::empty_list_registers(),
        }
    }

    fn set_maintenance(&mut self, events: Maintenance) {
        let mut value = HCR_EN;
        if events.no_pending {
            value |= HCR_NPIE;
        }
        if events.active_spilled {
            value |= HCR_LRENPIE;
        }
        match self.v2 {
            // GICC_DIR of a GICv2 always traps: it is not mapped.
            Some(v2) => v2.write_hcr(value),
            None if events.active_spilled => v3::write_hcr(u64::from(value) | v3::ICH_HCR_TDIR),
            None => v3::write_hcr(value.into()),
        }
    }

    fn take_eoi_count(&mut self) -> u32 {
        let value = match self.v2 {
            Some(v2) => {
                let value = v2.read_hcr();
                v2.write_hcr(value & !HCR_EOI_COUNT);
                value
            }
            None => {
                let value = v3::read_hcr();
                v3::write_hcr(value & !u64::from(HCR_EOI_COUNT));
                value as u32
            }
        };
        value >> 27
    }

    fn splits_deactivation(&mut self) -> bool {
        let value = match self.v2 {
            Some(v2) => v2.read_vmcr(),
            None => v3::read_vmcr() as u32,
        };
        value & (1 << 9) != 0 // VEOIM
    }

    fn forwards_ends(&self) -> bool {
        self.v2.is_none_or(|v2| v2.forwards_ends)
    }

    fn set_timer_list_register(&mut self, value: Option<ListRegister>) {
        let encoded = match self.v2 {
            Some(_) => value.map_or(0, |entry| v2::encode(entry).into()),
            None => value.map_or(0, v3::encode),
        };
        PerCpu::current().timer_list_register.set(encoded);
    }

    fn kick(&mut self, vcpu: usize) {
        if let Some(&cpu) = self.cpus.get(vcpu) {
            kick(cpu);
        }
    }

    fn set_enabled(&mut self, vcpu: usize, word: usize, mask: u32, enabled: bool) {
        let Some(registers) = self.bank(vcpu, word) else { return };
        let base = if enabled { GICD_ISENABLER } else { GICD_ICENABLER };
        registers.write32(base + 4 * word, mask);
        if !enabled && self.v2.is_none() {
            // The interrupt may come until this is done (IHI 0069, 12.9.4 and 12.11.2: RWP).
            let control = if word == 0 {
                self.cpus.get(vcpu).map(|&cpu| &v3::redistributor(cpu).control)
            } else {
                Some(registers)
            };
            let pending = if word == 0 { v3::GICR_CTLR_RWP } else { v3::GICD_CTLR_RWP };
            while control.is_some_and(|control| control.read32(GICD_CTLR) & pending != 0) {}
        }
    }

    fn route(&mut self, intid: IntId, vcpu: usize) {
        if let Some(&cpu) = self.cpus.get(vcpu) {
            route(intid, cpu);
        }
    }

    fn deactivate(&mut self, vcpu: usize, intid: IntId) {
        let word = intid.raw() as usize / 32;
        let mask = 1 << (intid.raw() % 32);
        let Some(registers) = self.bank(vcpu, word) else { return };
        registers.write32(GICD_ICACTIVER + 4 * word, mask);
    }

    fn physical_pending(&mut self, vcpu: usize, word: usize) -> u32 {
        self.bank(vcpu, word).map_or(0, |registers| registers.read32(GICD_ISPENDR + 4 * word))
    }
}
