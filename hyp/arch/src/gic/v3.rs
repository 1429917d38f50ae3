//! The physical GICv3 and its virtual CPU interface (IHI 0069), through redistributors and system registers.
//!
//! All interrupts are group 1.

use bulkhead_policy::addr::{PAGE_SIZE, Pa, Region};
use bulkhead_policy::irq::IntId;
use bulkhead_policy::plan::MAX_CPUS;
use bulkhead_policy::vgic::list_register::ListRegister;

use super::{GICD_ISENABLER, KICK, reset_word};
use crate::barrier;
use crate::mmu::Mmio;
use crate::once::Once;
use crate::sysreg::{read_sysreg, write_sysreg};

/// The group of EL2's interrupts, in GICD_IGROUPR.
pub(super) const GROUP: u32 = !0;
pub(super) const GICD_IROUTER: usize = 0x6000;
/// ARE_NS with EnableGrp1A and EnableGrp1 in the Non-secure view; ARE with both groups where there is one Security state.
pub(super) const GICD_CTLR_ON: u32 = 0x13;
pub(super) const GICD_CTLR_RWP: u32 = 1 << 31;

/// At the offset of GICD_CTLR.
const GICR_CTLR: usize = 0x0000;
pub(super) const GICR_CTLR_RWP: u32 = 1 << 3;
const GICR_TYPER: usize = 0x0008;
const GICR_TYPER_VLPIS: u64 = 1 << 1;
const GICR_TYPER_LAST: u64 = 1 << 4;
const GICR_WAKER: usize = 0x0014;
const GICR_WAKER_SLEEP: u32 = 1 << 1;
const GICR_WAKER_CHILDREN: u32 = 1 << 2;

static REDISTRIBUTORS: [Once<Redistributor>; MAX_CPUS] = [const { Once::new() }; MAX_CPUS];

pub(super) struct Redistributor {
    pub(super) control: Mmio,
    pub(super) private: Mmio,
    /// Affinity in the form of ICC_SGI1R_EL1 without the target list, and Aff0.
    sgi: u64,
    /// Affinity in the form of GICD_IROUTER.
    pub(super) route: u64,
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

#[inline]
pub(super) fn redistributor(cpu: usize) -> &'static Redistributor {
    REDISTRIBUTORS[cpu].get().expect("find_redistributors comes first")
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
    REDISTRIBUTORS[cpu].set(Redistributor { control, private, sgi, route });
}

/// Brings up the CPU interface and the redistributor of the CPU that calls, number `cpu`; `maintenance` is the PPI of the virtual
/// CPU interface.
pub(super) fn init_cpu(cpu: usize, maintenance: IntId) {
    let Redistributor { control, private, .. } = redistributor(cpu);
    control.write32(GICR_WAKER, control.read32(GICR_WAKER) & !GICR_WAKER_SLEEP);
    while control.read32(GICR_WAKER) & GICR_WAKER_CHILDREN != 0 {}
    reset_word(private, 0, GROUP);
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
}

/// The virtual CPU interface as at reset, enabled.
pub(super) fn reset_virtual_interface() {
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
        write_sysreg!("S3_4_C12_C11_0", u64::from(super::HCR_EN)); // ICH_HCR_EL2
        write_sysreg!("S3_0_C12_C12_5", 0b111); // ICC_SRE_EL1
    }
}

/// Traps the guest's writes of ICC_DIR_EL1.
pub(super) const ICH_HCR_TDIR: u64 = 1 << 14;

/// Acknowledges the interrupt of the highest priority.
#[inline(always)]
pub(super) fn acknowledge() -> u32 {
    read_sysreg!("S3_0_C12_C12_0") as u32
}

/// Drops the running priority that acknowledging raised.
#[inline(always)]
pub(super) fn drop_priority(acknowledged: u32) {
    // SAFETY: ICC_EOIR1_EL1 of the interrupt just acknowledged.
    unsafe { write_sysreg!("S3_0_C12_C12_1", u64::from(acknowledged)) };
}

/// Deactivates an interrupt of EL2's own.
#[inline(always)]
pub(super) fn deactivate(acknowledged: u32) {
    // SAFETY: ICC_DIR_EL1 of an interrupt acknowledged here.
    unsafe { write_sysreg!("S3_0_C12_C11_1", u64::from(acknowledged)) };
}

/// Sends [`KICK`] to CPU `cpu`, which has a redistributor.
#[inline(always)]
pub(super) fn kick(cpu: usize) {
    let Some(redistributor) = REDISTRIBUTORS[cpu].get() else { return };
    // SAFETY: ICC_SGI1R_EL1 with a target that runs Bulkhead. The barrier makes what the target will read visible first.
    unsafe {
        core::arch::asm!("dsb ishst", options(nostack, preserves_flags));
        write_sysreg!("S3_0_C12_C11_5", redistributor.sgi);
    }
    barrier::context_synchronization();
}

/// Encodes `ICH_LR<n>_EL2` (IHI 0069, 12.4.7).
#[inline(always)]
pub(super) fn encode(entry: ListRegister) -> u64 {
    let intid = u64::from(entry.intid.raw());
    let state = u64::from(entry.active) << 63 | u64::from(entry.pending) << 62;
    let physical = if entry.hardware { 1 << 61 | intid << 32 } else { u64::from(entry.notify_end) << 41 };
    state | u64::from(entry.group1) << 60 | u64::from(entry.priority) << 48 | physical | intid
}

pub(super) fn decode(value: u64) -> Option<ListRegister> {
    let (active, pending) = (value >> 63 != 0, value >> 62 & 1 != 0);
    let hardware = value >> 61 & 1 != 0;
    (active || pending).then_some(ListRegister {
        intid: IntId::new(value as u32)?,
        priority: (value >> 48) as u8,
        group1: value >> 60 & 1 != 0,
        pending,
        active,
        hardware,
        sender: 0,
        notify_end: !hardware && value >> 41 & 1 != 0,
    })
}

macro_rules! list_registers {
    ($($n:literal => $name:literal),*) => {
        pub(super) fn read_list_register(n: usize) -> u64 {
            match n {
                $($n => read_sysreg!($name),)*
                _ => 0,
            }
        }

        pub(super) fn write_list_register(n: usize, value: u64) {
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

#[inline]
pub(super) fn list_register_count() -> usize {
    (read_sysreg!("S3_4_C12_C11_1") as usize & 0x1f) + 1 // ICH_VTR_EL2.ListRegs
}

/// List registers without an interrupt: ICH_ELRSR_EL2 leaves out those whose end is to be noticed, ICH_EISR_EL2.
#[inline]
pub(super) fn empty_list_registers() -> u32 {
    (read_sysreg!("S3_4_C12_C11_5") | read_sysreg!("S3_4_C12_C11_3")) as u32
}

#[inline]
pub(super) fn read_hcr() -> u64 {
    read_sysreg!("S3_4_C12_C11_0")
}

#[inline]
pub(super) fn write_hcr(value: u64) {
    // SAFETY: ICH_HCR_EL2 acts on the vCPU of this CPU only.
    unsafe { write_sysreg!("S3_4_C12_C11_0", value) };
}

#[inline]
pub(super) fn read_vmcr() -> u64 {
    read_sysreg!("S3_4_C12_C11_7")
}
