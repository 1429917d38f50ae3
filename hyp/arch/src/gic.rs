//! The physical GICv3 and its virtual CPU interface (IHI 0069).
//!
//! All interrupts are group 1 and come to EL2 with priority drop and deactivation split, so that a guest's end
//! of an interrupt deactivates it through the list register's hardware bit.

use bulkhead_policy::addr::{PAGE_SIZE, Pa, Region};
use bulkhead_policy::irq::{IntId, Trigger};
use bulkhead_policy::machine::{Machine, Maintenance};
use bulkhead_policy::vgic::list_register::ListRegister;
use spin::Once;

use crate::barrier;
use crate::mmu::Mmio;
use crate::percpu::PerCpu;
use crate::sysreg::{read_sysreg, write_sysreg};

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
const GICD_IROUTER: usize = 0x6000;
/// ARE_NS with EnableGrp1A and EnableGrp1 in the Non-secure view; ARE with both groups where there is one Security state.
const GICD_CTLR_ON: u32 = 0x13;
const GICD_CTLR_RWP: u32 = 1 << 31;

/// At the offset of GICD_CTLR.
const GICR_CTLR: usize = 0x0000;
const GICR_CTLR_RWP: u32 = 1 << 3;
const GICR_TYPER: usize = 0x0008;
const GICR_TYPER_VLPIS: u64 = 1 << 1;
const GICR_TYPER_LAST: u64 = 1 << 4;
const GICR_WAKER: usize = 0x0014;
const GICR_WAKER_SLEEP: u32 = 1 << 1;
const GICR_WAKER_CHILDREN: u32 = 1 << 2;

/// Priority of every physical interrupt: none preempts another, the guests' priorities are virtual.
const PRIORITY: u32 = 0xa0a0_a0a0;

/// SGI by which CPUs call each other at EL2.
pub const KICK: IntId = IntId::sgi(0);

/// The distributor, and where each CPU's redistributor is.
pub struct Distributor {
    registers: Mmio,
    words: usize,
}

static DISTRIBUTOR: Once<Distributor> = Once::new();
static REDISTRIBUTORS: [Once<Redistributor>; bulkhead_policy::plan::MAX_CPUS] =
    [const { Once::new() }; bulkhead_policy::plan::MAX_CPUS];

struct Redistributor {
    control: Mmio,
    private: Mmio,
    /// Affinity in the form of ICC_SGI1R_EL1 without the target list, and Aff0.
    sgi: u64,
    /// Affinity in the form of GICD_IROUTER.
    route: u64,
}

/// GICR_TYPER.Affinity_Value of the CPU with this MPIDR.
fn affinity_value(mpidr: u64) -> u64 {
    (mpidr & 0xff_ffff) | ((mpidr >> 8) & 0xff00_0000)
}

/// Finds the redistributors in `region` and maps those of the CPUs with these MPIDRs, whose position is the CPU's number.
/// False where a register cannot be mapped.
#[must_use]
pub fn find_redistributors(region: Region<Pa>, mpidrs: impl Iterator<Item = u64> + Clone) -> bool {
    let mut offset = 0;
    while offset < region.size() {
        let frame = |at: u64| Region::new(Pa::new(region.start().raw() + offset + at), 0x1_0000);
        let first_page =
            |at: u64| frame(at).and_then(|frame| Region::new(frame.start(), PAGE_SIZE)).and_then(Mmio::map);
        let Some(control) = first_page(0) else { return false };
        let typer = control.read64(GICR_TYPER);
        let cpu = mpidrs.clone().position(|mpidr| affinity_value(mpidr) == typer >> 32);
        if let Some((cpu, mpidr)) = cpu.zip(cpu.and_then(|cpu| mpidrs.clone().nth(cpu))) {
            let Some(private) = first_page(0x1_0000) else { return false };
            add_redistributor(cpu, mpidr, control, private);
        }
        if typer & GICR_TYPER_LAST != 0 {
            break;
        }
        // GICv4 redistributors have two more frames (GICR_TYPER.VLPIS).
        offset += if typer & GICR_TYPER_VLPIS != 0 { 0x4_0000 } else { 0x2_0000 };
    }
    true
}

/// Brings up the distributor at `registers`: every SPI disabled, group 1, level, idle.
pub fn init_distributor(registers: Mmio) {
    registers.write32(GICD_CTLR, 0);
    wait_for_writes(&registers);
    let words = (registers.read32(GICD_TYPER) as usize & 0x1f) + 1;
    for word in 1..words {
        registers.write32(GICD_IGROUPR + 4 * word, !0);
        registers.write32(GICD_ICENABLER + 4 * word, !0);
        registers.write32(GICD_ICPENDR + 4 * word, !0);
        registers.write32(GICD_ICACTIVER + 4 * word, !0);
        for n in 0..8 {
            registers.write32(GICD_IPRIORITYR + 32 * word + 4 * n, PRIORITY);
        }
        registers.write32(GICD_ICFGR + 8 * word, 0);
        registers.write32(GICD_ICFGR + 8 * word + 4, 0);
    }
    registers.write32(GICD_CTLR, GICD_CTLR_ON);
    wait_for_writes(&registers);
    DISTRIBUTOR.call_once(|| Distributor { registers, words });
}

fn wait_for_writes(registers: &Mmio) {
    while registers.read32(GICD_CTLR) & GICD_CTLR_RWP != 0 {}
}

fn distributor() -> &'static Distributor {
    DISTRIBUTOR.get().expect("init_distributor comes first")
}

#[inline]
fn redistributor(cpu: usize) -> &'static Redistributor {
    REDISTRIBUTORS[cpu].get().expect("init_cpu comes first")
}

/// Number of 32-interrupt words that the distributor has, private ones included.
#[must_use]
pub fn words() -> usize {
    distributor().words
}

/// Makes the redistributor of CPU `cpu` known: its RD frame and its SGI frame.
fn add_redistributor(cpu: usize, mpidr: u64, control: Mmio, private: Mmio) {
    let aff = |n: u32| (mpidr >> if n == 3 { 32 } else { 8 * n }) & 0xff;
    // ICC_SGI1R_EL1: Aff3 55:48, RS 47:44, Aff2 39:32, INTID 27:24, Aff1 23:16, target list 15:0.
    let sgi = aff(3) << 48
        | (aff(0) >> 4) << 44
        | aff(2) << 32
        | aff(1) << 16
        | u64::from(KICK.raw()) << 24
        | 1 << (aff(0) & 0xf);
    let route = mpidr & 0xff_00ff_ffff;
    REDISTRIBUTORS[cpu].call_once(|| Redistributor { control, private, sgi, route });
}

/// Brings up the CPU interface and the redistributor of the CPU that calls, number `cpu`; `maintenance` is the PPI of the virtual
/// CPU interface.
pub fn init_cpu(cpu: usize, maintenance: IntId) {
    let Redistributor { control, private, .. } = redistributor(cpu);
    control.write32(GICR_WAKER, control.read32(GICR_WAKER) & !GICR_WAKER_SLEEP);
    while control.read32(GICR_WAKER) & GICR_WAKER_CHILDREN != 0 {}
    private.write32(GICD_ICENABLER, !0);
    private.write32(GICD_ICPENDR, !0);
    private.write32(GICD_ICACTIVER, !0);
    private.write32(GICD_IGROUPR, !0);
    for n in 0..8 {
        private.write32(GICD_IPRIORITYR + 4 * n, PRIORITY);
    }
    while control.read32(GICR_CTLR) & GICR_CTLR_RWP != 0 {}
    private.write32(GICD_ISENABLER, 1 << KICK.raw() | 1 << maintenance.raw());
    // SAFETY: EL2's own interrupt registers; EL2 runs with interrupts masked.
    unsafe {
        write_sysreg!("S3_4_C12_C9_5", 0b1111); // ICC_SRE_EL2: system registers, also at EL1
        barrier::context_synchronization();
        write_sysreg!("S3_0_C12_C12_4", 1 << 1); // ICC_CTLR_EL1.EOImode
        write_sysreg!("S3_0_C4_C6_0", 0xff); // ICC_PMR_EL1
        write_sysreg!("S3_0_C12_C12_3", 0); // ICC_BPR1_EL1
        write_sysreg!("S3_0_C12_C12_7", 1); // ICC_IGRPEN1_EL1
    }
    reset_virtual_interface();
}

/// The virtual CPU interface as at reset, enabled.
pub fn reset_virtual_interface() {
    // SAFETY: these registers act on the vCPU of this CPU, which is off.
    unsafe {
        write_sysreg!("S3_4_C12_C11_7", 0); // ICH_VMCR_EL2
        write_sysreg!("S3_4_C12_C8_0", 0); // ICH_AP0R0_EL2
        write_sysreg!("S3_4_C12_C9_0", 0); // ICH_AP1R0_EL2
        let priority_bits = (read_sysreg!("S3_4_C12_C11_1") >> 29) + 1; // ICH_VTR_EL2.PRIbits
        if priority_bits >= 6 {
            write_sysreg!("S3_4_C12_C8_1", 0);
            write_sysreg!("S3_4_C12_C9_1", 0);
        }
        if priority_bits >= 7 {
            write_sysreg!("S3_4_C12_C8_2", 0);
            write_sysreg!("S3_4_C12_C8_3", 0);
            write_sysreg!("S3_4_C12_C9_2", 0);
            write_sysreg!("S3_4_C12_C9_3", 0);
        }
        write_sysreg!("S3_4_C12_C11_0", ICH_HCR_EN); // ICH_HCR_EL2
        write_sysreg!("S3_0_C12_C12_5", 0b111); // ICC_SRE_EL1
    }
}

const ICH_HCR_EN: u64 = 1 << 0;
const ICH_HCR_LRENPIE: u64 = 1 << 2;
const ICH_HCR_NPIE: u64 = 1 << 3;
const ICH_HCR_TDIR: u64 = 1 << 14;
const ICH_HCR_EOI_COUNT: u64 = 0x1f << 27;

/// Acknowledges the interrupt of the highest priority: its INTID, 1020–1023 for none.
#[inline(always)]
#[must_use]
pub fn acknowledge() -> u32 {
    read_sysreg!("S3_0_C12_C12_0") as u32
}

/// Ends an interrupt that nobody has a use for: an LPI or an extended INTID that firmware left enabled.
pub fn discard(acknowledged: u32) {
    // 1020 to 1023 say that nothing was acknowledged (IHI 0069, 2.2.1).
    if acknowledged >= 1024 {
        // SAFETY: ICC_EOIR1_EL1 and ICC_DIR_EL1 of the interrupt just acknowledged.
        unsafe {
            write_sysreg!("S3_0_C12_C12_1", u64::from(acknowledged));
            write_sysreg!("S3_0_C12_C11_1", u64::from(acknowledged));
        }
    }
}

/// Kicks every CPU, for the last time.
pub fn kick_all() {
    for (cpu, redistributor) in REDISTRIBUTORS.iter().enumerate() {
        if redistributor.get().is_some() {
            kick(cpu);
        }
    }
}

/// Drops the running priority that acknowledging `intid` raised.
#[inline(always)]
pub fn drop_priority(intid: IntId) {
    // SAFETY: ICC_EOIR1_EL1 of the interrupt just acknowledged.
    unsafe { write_sysreg!("S3_0_C12_C12_1", u64::from(intid.raw())) };
}

/// Deactivates an interrupt of EL2's own.
#[inline(always)]
pub fn deactivate(intid: IntId) {
    // SAFETY: ICC_DIR_EL1 of an interrupt acknowledged here.
    unsafe { write_sysreg!("S3_0_C12_C11_1", u64::from(intid.raw())) };
}

/// Sends [`KICK`] to CPU `cpu`.
#[inline(always)]
pub fn kick(cpu: usize) {
    let value = redistributor(cpu).sgi;
    // SAFETY: ICC_SGI1R_EL1 with a target that runs Bulkhead. The barrier makes what the target will read visible first.
    unsafe {
        core::arch::asm!("dsb ishst", options(nostack, preserves_flags));
        write_sysreg!("S3_0_C12_C11_5", value);
    }
    barrier::context_synchronization();
}

/// Enables SPI `intid` for EL2 itself, on CPU `cpu`.
pub fn enable_for_el2(intid: IntId, cpu: usize) {
    let (word, bit) = (intid.raw() as usize / 32, intid.raw() % 32);
    distributor().registers.write64(GICD_IROUTER + 8 * intid.raw() as usize, redistributor(cpu).route);
    distributor().registers.write32(GICD_ISENABLER + 4 * word, 1 << bit);
}

/// Sets the trigger of SPI `intid`. Only at boot: the register is shared with other interrupts.
pub fn configure(intid: IntId, trigger: Trigger) {
    let (word, bit) = (intid.raw() as usize / 16, 2 * (intid.raw() % 16) + 1);
    let registers = &distributor().registers;
    let value = registers.read32(GICD_ICFGR + 4 * word) & !(1 << bit);
    let edge = if trigger == Trigger::Edge { 1 << bit } else { 0 };
    registers.write32(GICD_ICFGR + 4 * word, value | edge);
}

/// Encodes `ICH_LR<n>_EL2` (IHI 0069, 12.4.7).
#[inline(always)]
fn encode(entry: ListRegister) -> u64 {
    let intid = u64::from(entry.intid.raw());
    let state = u64::from(entry.active) << 63 | u64::from(entry.pending) << 62;
    let physical = if entry.hardware { 1 << 61 | intid << 32 } else { u64::from(entry.notify_end) << 41 };
    state | u64::from(entry.group1) << 60 | u64::from(entry.priority) << 48 | physical | intid
}

fn decode(value: u64) -> Option<ListRegister> {
    let (active, pending) = (value >> 63 != 0, value >> 62 & 1 != 0);
    let hardware = value >> 61 & 1 != 0;
    (active || pending).then_some(ListRegister {
        intid: IntId::new(value as u32)?,
        priority: (value >> 48) as u8,
        group1: value >> 60 & 1 != 0,
        pending,
        active,
        hardware,
        notify_end: !hardware && value >> 41 & 1 != 0,
    })
}

macro_rules! list_registers {
    ($($n:literal => $name:literal),*) => {
        fn read_list_register(n: usize) -> u64 {
            match n {
                $($n => read_sysreg!($name),)*
                _ => 0,
            }
        }

        fn write_list_register(n: usize, value: u64) {
            match n {
                // SAFETY: acts on the vCPU of this CPU only.
                $($n => unsafe { write_sysreg!($name, value) },)*
                _ => {}
            }
        }
    };
}

list_registers!(
    0 => "S3_4_C12_C12_0", 1 => "S3_4_C12_C12_1", 2 => "S3_4_C12_C12_2", 3 => "S3_4_C12_C12_3",
    4 => "S3_4_C12_C12_4", 5 => "S3_4_C12_C12_5", 6 => "S3_4_C12_C12_6", 7 => "S3_4_C12_C12_7",
    8 => "S3_4_C12_C13_0", 9 => "S3_4_C12_C13_1", 10 => "S3_4_C12_C13_2", 11 => "S3_4_C12_C13_3",
    12 => "S3_4_C12_C13_4", 13 => "S3_4_C12_C13_5", 14 => "S3_4_C12_C13_6", 15 => "S3_4_C12_C13_7"
);

/// Whether the vCPU of this CPU is offered an interrupt, which a WFI at EL2 does not see.
#[must_use]
pub fn offers_interrupt() -> bool {
    (0..list_register_count()).any(|n| decode(read_list_register(n)).is_some_and(|entry| entry.pending))
}

#[inline]
fn list_register_count() -> usize {
    (read_sysreg!("S3_4_C12_C11_1") as usize & 0x1f) + 1 // ICH_VTR_EL2.ListRegs
}

/// The GIC as the vGIC of one partition uses it, on the CPU that calls.
pub struct GicMachine<'a> {
    /// Physical CPU of each vCPU.
    pub cpus: &'a [usize],
}

impl GicMachine<'_> {
    fn bank(&self, vcpu: usize, word: usize) -> Option<&'static Mmio> {
        if word == 0 {
            self.cpus.get(vcpu).map(|&cpu| &redistributor(cpu).private)
        } else {
            Some(&distributor().registers)
        }
    }
}

impl Machine for GicMachine<'_> {
    #[inline]
    fn list_registers(&self) -> usize {
        list_register_count()
    }

    fn read_list_register(&mut self, n: usize) -> Option<ListRegister> {
        decode(read_list_register(n))
    }

    fn write_list_register(&mut self, n: usize, value: Option<ListRegister>) {
        write_list_register(n, value.map_or(0, encode));
    }

    #[inline]
    fn empty_list_registers(&mut self) -> u32 {
        // ICH_ELRSR_EL2 leaves out those whose end is to be noticed: ICH_EISR_EL2.
        (read_sysreg!("S3_4_C12_C11_5") | read_sysreg!("S3_4_C12_C11_3")) as u32
    }

    fn set_maintenance(&mut self, events: Maintenance) {
        let mut value = ICH_HCR_EN;
        if events.no_pending {
            value |= ICH_HCR_NPIE;
        }
        if events.active_spilled {
            value |= ICH_HCR_LRENPIE | ICH_HCR_TDIR;
        }
        // SAFETY: acts on the vCPU of this CPU only.
        unsafe { write_sysreg!("S3_4_C12_C11_0", value) };
    }

    fn take_eoi_count(&mut self) -> u32 {
        let value = read_sysreg!("S3_4_C12_C11_0");
        // SAFETY: as above.
        unsafe { write_sysreg!("S3_4_C12_C11_0", value & !ICH_HCR_EOI_COUNT) };
        (value & ICH_HCR_EOI_COUNT).wrapping_shr(27) as u32
    }

    fn splits_deactivation(&mut self) -> bool {
        read_sysreg!("S3_4_C12_C11_7") & (1 << 9) != 0 // ICH_VMCR_EL2.VEOIM
    }

    fn set_timer_list_register(&mut self, value: Option<ListRegister>) {
        PerCpu::current().timer_list_register.set(value.map_or(0, encode));
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
        if !enabled {
            // The interrupt may come until this is done (IHI 0069, 12.9.4 and 12.11.2: RWP).
            let control = if word == 0 {
                self.cpus.get(vcpu).map(|&cpu| &redistributor(cpu).control)
            } else {
                Some(registers)
            };
            let pending = if word == 0 { GICR_CTLR_RWP } else { GICD_CTLR_RWP };
            while control.is_some_and(|control| control.read32(GICD_CTLR) & pending != 0) {}
        }
    }

    fn route(&mut self, intid: IntId, vcpu: usize) {
        if let Some(&cpu) = self.cpus.get(vcpu) {
            let register = GICD_IROUTER + 8 * intid.raw() as usize;
            distributor().registers.write64(register, redistributor(cpu).route);
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
