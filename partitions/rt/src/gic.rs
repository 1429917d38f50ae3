//! The interrupt controller: GICv2 (IHI 0048) or GICv3 (IHI 0069), whichever the machine has.
//!
//! Kept bare on purpose: tests look at registers that a driver would hide. What both versions have in another
//! place is a function here; what one of them has alone is reached by its offset.
//!
//! A GICv2 without Security Extensions starts with all interrupts in group 0, and that is the group that its
//! users use; those of a GICv3 use group 1.

use core::sync::atomic::{AtomicU8, Ordering};

use crate::cpu::{self, MAX_CPUS};
use crate::machine::{Gic, machine};
use crate::{mmio, read_sysreg, write_sysreg};

/// Bytes from one CPU's redistributor to the next one's: an RD frame and an SGI frame.
pub const GICR_STRIDE: u64 = 0x2_0000;

/// Offsets in the distributor and, from `IGROUPR` to `ICFGR`, in a redistributor's SGI frame.
pub mod offset {
    /// GICD_CTLR; GICR_CTLR in an RD frame.
    pub const CTLR: u64 = 0x0;
    /// GICD_TYPER.
    pub const TYPER: u64 = 0x4;
    /// GICD_IIDR.
    pub const IIDR: u64 = 0x8;
    /// GICR_TYPER, 64 bits, in an RD frame.
    pub const GICR_TYPER: u64 = 0x8;
    /// GICR_WAKER in an RD frame.
    pub const GICR_WAKER: u64 = 0x14;
    /// Interrupt group.
    pub const IGROUPR: u64 = 0x80;
    /// Set-enable.
    pub const ISENABLER: u64 = 0x100;
    /// Clear-enable.
    pub const ICENABLER: u64 = 0x180;
    /// Set-pending.
    pub const ISPENDR: u64 = 0x200;
    /// Clear-pending.
    pub const ICPENDR: u64 = 0x280;
    /// Set-active.
    pub const ISACTIVER: u64 = 0x300;
    /// Clear-active.
    pub const ICACTIVER: u64 = 0x380;
    /// Priority, a byte each.
    pub const IPRIORITYR: u64 = 0x400;
    /// CPUs that get an SPI, a byte each, GICv2 only.
    pub const ITARGETSR: u64 = 0x800;
    /// Trigger, two bits each.
    pub const ICFGR: u64 = 0xc00;
    /// Sends SGIs, GICv2 only.
    pub const SGIR: u64 = 0xf00;
    /// Clear-pending of SGIs, a byte each with a bit for each sender, GICv2 only.
    pub const CPENDSGIR: u64 = 0xf10;
    /// Set-pending of SGIs, likewise.
    pub const SPENDSGIR: u64 = 0xf20;
    /// Peripheral ID 2 of a GICv2: architecture revision in bits 7–4.
    pub const ICPIDR2: u64 = 0xfe8;
    /// Routing of SPIs, 64 bits each, GICv3 only.
    pub const IROUTER: u64 = 0x6000;
    /// Peripheral ID 2 of a GICv3: architecture revision in bits 7–4.
    pub const PIDR2: u64 = 0xffe8;
    /// From an RD frame to its SGI frame.
    pub const SGI_FRAME: u64 = 0x1_0000;
}

/// Offsets in the CPU interface of a GICv2 (IHI 0048, 4.4).
pub mod gicc {
    /// GICC_CTLR.
    pub const CTLR: u64 = 0x0;
    /// Priority mask.
    pub const PMR: u64 = 0x4;
    /// Binary point.
    pub const BPR: u64 = 0x8;
    /// Interrupt acknowledge.
    pub const IAR: u64 = 0xc;
    /// End of interrupt.
    pub const EOIR: u64 = 0x10;
    /// Running priority.
    pub const RPR: u64 = 0x14;
    /// Highest priority pending.
    pub const HPPIR: u64 = 0x18;
    /// Binary point of group 1.
    pub const ABPR: u64 = 0x1c;
    /// Acknowledge of group 1.
    pub const AIAR: u64 = 0x20;
    /// End of group 1.
    pub const AEOIR: u64 = 0x24;
    /// Highest priority pending of group 1.
    pub const AHPPIR: u64 = 0x28;
    /// Active priorities, four words.
    pub const APR: u64 = 0xd0;
    /// Active priorities of group 1, four words.
    pub const NSAPR: u64 = 0xe0;
    /// Identification.
    pub const IIDR: u64 = 0xfc;
    /// Deactivate, in the second page.
    pub const DIR: u64 = 0x1000;

    /// CTLR: group 0 is signalled.
    pub const ENABLE_GROUP_0: u32 = 1 << 0;
    /// CTLR: group 1 is signalled.
    pub const ENABLE_GROUP_1: u32 = 1 << 1;
    /// CTLR: IAR acknowledges group 1, too.
    pub const ACK_CTL: u32 = 1 << 2;
    /// CTLR: group 0 is signalled as FIQ.
    pub const FIQ_EN: u32 = 1 << 3;
    /// CTLR: the end does not deactivate.
    pub const EOI_MODE: u32 = 1 << 9;
}

/// What an acknowledge returns where nothing is pending.
pub const SPURIOUS: u32 = 1023;
/// The priority that [`init_cpu`] and [`init_distributor`] give to every interrupt.
pub const DEFAULT_PRIORITY: u8 = 0xa0;

/// Whether the machine has a GICv2.
#[must_use]
pub fn is_v2() -> bool {
    matches!(machine().gic, Gic::V2 { .. })
}

/// Address of the distributor.
#[must_use]
pub fn gicd() -> u64 {
    machine().distributor
}

/// Address of the CPU interface of a GICv2.
///
/// # Panics
/// On a GICv3.
#[must_use]
pub fn cpu_interface() -> u64 {
    match machine().gic {
        Gic::V2 { cpu_interface } => cpu_interface,
        Gic::V3 { .. } => panic!("a GICv3 has no CPU interface in memory"),
    }
}

/// RD frame of a CPU's redistributor.
///
/// # Panics
/// On a GICv2.
#[must_use]
pub fn redistributor(cpu: usize) -> u64 {
    match machine().gic {
        Gic::V2 { .. } => panic!("a GICv2 has no redistributors"),
        Gic::V3 { redistributors } => redistributors + cpu as u64 * GICR_STRIDE,
    }
}

/// INTID of the PL011, an SPI.
#[must_use]
pub fn uart_intid() -> u32 {
    machine().uart_intid
}

/// The frame that holds this INTID's registers: the distributor, or this CPU's SGI frame.
#[must_use]
pub fn frame(intid: u32) -> u64 {
    match machine().gic {
        Gic::V3 { .. } if intid < 32 => redistributor(cpu::id()) + offset::SGI_FRAME,
        _ => gicd(),
    }
}

/// Address of the word that holds this INTID's bit in the bit register array at `register`.
#[must_use]
pub fn bit_word(register: u64, intid: u32) -> u64 {
    frame(intid) + register + u64::from(intid / 32 * 4)
}

/// Reads this INTID's bit of a bit register array.
#[must_use]
pub fn bit(register: u64, intid: u32) -> bool {
    mmio::read32(bit_word(register, intid)) >> (intid % 32) & 1 != 0
}

/// Writes 1 to this INTID's bit, 0 to the others: for set and clear registers.
pub fn set_bit(register: u64, intid: u32) {
    mmio::write32(bit_word(register, intid), 1 << (intid % 32));
}

/// Enables an interrupt.
pub fn enable(intid: u32) {
    set_bit(offset::ISENABLER, intid);
}

/// Disables an interrupt and waits until that has taken effect. A GICv2 may keep SGIs enabled for ever.
pub fn disable(intid: u32) {
    set_bit(offset::ICENABLER, intid);
    wait_for_write(intid);
}

/// Waits until register writes about this INTID have taken effect: RWP, bit 31 of GICD_CTLR, bit 3 of
/// GICR_CTLR. A GICv2 has none.
fn wait_for_write(intid: u32) {
    if !is_v2() {
        let (control, pending) =
            if intid < 32 { (redistributor(cpu::id()), 1 << 3) } else { (gicd(), 1 << 31) };
        while mmio::read32(control + offset::CTLR) & pending != 0 {}
    }
}

/// Sets an interrupt's priority.
pub fn set_priority(intid: u32, priority: u8) {
    mmio::write8(frame(intid) + offset::IPRIORITYR + u64::from(intid), priority);
}

/// Reads an interrupt's priority.
#[must_use]
pub fn priority(intid: u32) -> u8 {
    mmio::read8(frame(intid) + offset::IPRIORITYR + u64::from(intid))
}

/// Makes an interrupt pending that its source does not: an SGI of a GICv2 comes from this CPU.
pub fn set_pending(intid: u32) {
    if intid < 16 && is_v2() {
        set_pending_from(intid, cpu::id());
    } else {
        set_bit(offset::ISPENDR, intid);
    }
}

/// Makes an SGI of a GICv2 pending on this CPU as if CPU `sender` had sent it.
pub fn set_pending_from(intid: u32, sender: usize) {
    mmio::write8(gicd() + offset::SPENDSGIR + u64::from(intid), 1 << (sender & 7));
}

/// Takes back what is pending, from whatever CPU, a line that is up aside.
pub fn clear_pending(intid: u32) {
    if intid < 16 && is_v2() {
        mmio::write8(gicd() + offset::CPENDSGIR + u64::from(intid), 0xff);
    } else {
        set_bit(offset::ICPENDR, intid);
    }
}

/// Routes an SPI to a CPU.
pub fn route(intid: u32, cpu: usize) {
    if is_v2() {
        mmio::write8(gicd() + offset::ITARGETSR + u64::from(intid), 1 << cpu);
    } else {
        mmio::write64(gicd() + offset::IROUTER + u64::from(intid) * 8, cpu as u64);
    }
}

/// A word of IGROUPR with all interrupts in the group that this run-time uses.
#[must_use]
pub fn all_in_own_group() -> u32 {
    if is_v2() { 0 } else { u32::MAX }
}

/// Turns delivery by the distributor on or off.
pub fn set_distributor(on: bool) {
    /// EnableGrp1 or EnableGrp1A, in either security view (IHI 0069, 12.9.4).
    const ENABLE_GROUP_1: u32 = 1 << 1;
    /// ARE, which must not change while anything is enabled.
    const AFFINITY_ROUTING: u32 = 1 << 4;
    let control = match machine().gic {
        Gic::V2 { .. } => u32::from(on),
        Gic::V3 { .. } if on => AFFINITY_ROUTING | ENABLE_GROUP_1,
        Gic::V3 { .. } => AFFINITY_ROUTING,
    };
    mmio::write32(gicd() + offset::CTLR, control);
    wait_for_write(32);
}

/// Turns the distributor on, with affinity routing if it has it, all SPIs idle, disabled, at CPU 0, in the group
/// of this run-time, [`DEFAULT_PRIORITY`].
pub fn init_distributor() {
    set_distributor(false);
    for intid in (32..spi_end()).step_by(32) {
        mmio::write32(bit_word(offset::ICENABLER, intid), u32::MAX);
        mmio::write32(bit_word(offset::ICPENDR, intid), u32::MAX);
        mmio::write32(bit_word(offset::ICACTIVER, intid), u32::MAX);
        mmio::write32(bit_word(offset::IGROUPR, intid), all_in_own_group());
    }
    for intid in (32..spi_end()).step_by(4) {
        let register = gicd() + u64::from(intid);
        mmio::write32(register + offset::IPRIORITYR, u32::from_ne_bytes([DEFAULT_PRIORITY; 4]));
        if is_v2() {
            mmio::write32(register + offset::ITARGETSR, u32::from_ne_bytes([1; 4]));
        }
    }
    set_distributor(true);
}

/// One more than the largest SPI that the distributor implements.
#[must_use]
pub fn spi_end() -> u32 {
    (32 * ((mmio::read32(gicd() + offset::TYPER) & 0x1f) + 1)).min(1020)
}

/// Opens this CPU's interface for the group of this run-time, and wakes its redistributor if it has one, with all
/// private interrupts idle, disabled, in that group, [`DEFAULT_PRIORITY`].
pub fn init_cpu() {
    let private = frame(0);
    if !is_v2() {
        let redistributor = redistributor(cpu::id());
        mmio::write32(redistributor + offset::GICR_WAKER, 0);
        while mmio::read32(redistributor + offset::GICR_WAKER) & 1 << 2 != 0 {}
    }
    mmio::write32(private + offset::ICENABLER, u32::MAX);
    wait_for_write(0);
    mmio::write32(private + offset::ICPENDR, u32::MAX);
    if is_v2() {
        for word in 0..4 {
            mmio::write32(private + offset::CPENDSGIR + 4 * word, u32::MAX);
        }
    }
    mmio::write32(private + offset::ICACTIVER, u32::MAX);
    mmio::write32(private + offset::IGROUPR, all_in_own_group());
    for intid in (0..32).step_by(4) {
        mmio::write32(private + offset::IPRIORITYR + intid, u32::from_ne_bytes([DEFAULT_PRIORITY; 4]));
    }
    if !is_v2() {
        write_sysreg!("icc_sre_el1", read_sysreg!("icc_sre_el1") | 1);
    }
    set_split_end(false);
    set_binary_point(0);
    set_priority_mask(0xff);
    set_interface(true);
}

/// What differs between the CPU interfaces: a system register of one, a word of the other.
macro_rules! cpu_register {
    (read $icc:literal, $gicc:expr) => {
        match machine().gic {
            Gic::V2 { cpu_interface } => mmio::read32(cpu_interface + $gicc),
            Gic::V3 { .. } => read_sysreg!($icc) as u32,
        }
    };
    (write $icc:literal, $gicc:expr, $value:expr) => {
        match machine().gic {
            Gic::V2 { cpu_interface } => mmio::write32(cpu_interface + $gicc, $value),
            Gic::V3 { .. } => write_sysreg!($icc, u64::from($value)),
        }
    };
}

/// Opens or closes this CPU's interface for the group of this run-time.
pub fn set_interface(on: bool) {
    match machine().gic {
        Gic::V2 { cpu_interface } => {
            let control = mmio::read32(cpu_interface + gicc::CTLR) & gicc::EOI_MODE;
            mmio::write32(cpu_interface + gicc::CTLR, control | u32::from(on));
        }
        Gic::V3 { .. } => write_sysreg!("icc_igrpen1_el1", u64::from(on)),
    }
}

/// EOImode: whether the end drops the priority alone, and [`deactivate`] comes apart.
pub fn set_split_end(split: bool) {
    match machine().gic {
        Gic::V2 { cpu_interface } => {
            let control = mmio::read32(cpu_interface + gicc::CTLR) & gicc::ENABLE_GROUP_0;
            let mode = if split { gicc::EOI_MODE } else { 0 };
            mmio::write32(cpu_interface + gicc::CTLR, control | mode);
        }
        Gic::V3 { .. } => write_sysreg!("icc_ctlr_el1", u64::from(split) << 1),
    }
}

/// Reads back what [`set_split_end`] sets.
#[must_use]
pub fn split_end() -> bool {
    let mask = if is_v2() { gicc::EOI_MODE } else { 1 << 1 };
    cpu_register!(read "icc_ctlr_el1", gicc::CTLR) & mask != 0
}

/// Sets the priority mask: what is not more urgent is held back.
pub fn set_priority_mask(mask: u8) {
    cpu_register!(write "icc_pmr_el1", gicc::PMR, u32::from(mask));
}

/// Sets the binary point of this run-time's group.
pub fn set_binary_point(point: u8) {
    cpu_register!(write "icc_bpr1_el1", gicc::BPR, u32::from(point));
}

/// Reads back the binary point.
#[must_use]
pub fn binary_point() -> u32 {
    cpu_register!(read "icc_bpr1_el1", gicc::BPR)
}

/// The largest binary point that still tells two halves of the priorities apart: bit 7 alone is the group
/// priority (IHI 0048, table 3-2; IHI 0069, table 4-6).
#[must_use]
pub fn halving_binary_point() -> u8 {
    if is_v2() { 6 } else { 7 }
}

/// Forgets the active priorities of this CPU's interface, of both groups, whatever made them.
pub fn clear_active_priorities() {
    match machine().gic {
        Gic::V2 { cpu_interface } => {
            for register in 0..4 {
                mmio::write32(cpu_interface + gicc::APR + 4 * register, 0);
                mmio::write32(cpu_interface + gicc::NSAPR + 4 * register, 0);
            }
        }
        Gic::V3 { .. } => {
            write_sysreg!("icc_ap0r0_el1", 0);
            write_sysreg!("icc_ap1r0_el1", 0);
        }
    }
}

/// The running priority: that of the most urgent active interrupt, or [`IDLE`].
#[must_use]
pub fn running_priority() -> u32 {
    cpu_register!(read "icc_rpr_el1", gicc::RPR)
}

/// The running priority while nothing is active.
pub const IDLE: u32 = 0xff;

/// INTID of what the next acknowledge would return, or [`SPURIOUS`].
#[must_use]
pub fn highest_pending() -> u32 {
    let value = cpu_register!(read "icc_hppir1_el1", gicc::HPPIR);
    if is_v2() { value & 0x3ff } else { value }
}

/// For each CPU the sender of the active instance of each SGI, which a GICv2 wants back at its end.
static SENDERS: [[AtomicU8; 16]; MAX_CPUS] = [const { [const { AtomicU8::new(0) }; 16] }; MAX_CPUS];

/// Acknowledges the most urgent interrupt of this run-time's group: its INTID, or [`SPURIOUS`].
#[must_use]
pub fn acknowledge() -> u32 {
    acknowledge_from().0
}

/// The same with the CPU that sent an SGI, which only a GICv2 tells; 0 otherwise.
#[must_use]
pub fn acknowledge_from() -> (u32, usize) {
    let value = cpu_register!(read "icc_iar1_el1", gicc::IAR);
    // SAFETY: barriers only; the acknowledge takes effect before what the handler does next.
    unsafe { core::arch::asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
    if !is_v2() {
        return (value, 0);
    }
    let (intid, sender) = (value & 0x3ff, value >> 10 & 7);
    if let Some(place) = SENDERS[cpu::id()].get(intid as usize) {
        place.store(sender as u8, Ordering::Relaxed);
    }
    (intid, sender as usize)
}

/// The value that IAR gave for the active `intid` on this CPU.
fn as_acknowledged(intid: u32) -> u32 {
    match SENDERS[cpu::id()].get(intid as usize) {
        Some(sender) if is_v2() => intid | u32::from(sender.load(Ordering::Relaxed)) << 10,
        _ => intid,
    }
}

/// Drops the running priority and, with EOImode 0, deactivates the interrupt.
pub fn end(intid: u32) {
    cpu_register!(write "icc_eoir1_el1", gicc::EOIR, as_acknowledged(intid));
}

/// Deactivates the interrupt, with EOImode 1.
pub fn deactivate(intid: u32) {
    cpu_register!(write "icc_dir_el1", gicc::DIR, as_acknowledged(intid));
}

/// What [`send_sgi`] wants for SGI `intid` to CPU `cpu` (of cluster 0).
#[must_use]
pub fn sgi_to(intid: u32, cpu: usize) -> u64 {
    sgi_to_list(intid, 1 << (cpu & 15))
}

/// What [`send_sgi`] wants for SGI `intid` to the CPUs (of cluster 0) whose bits are set: GICD_SGIR (IHI 0048,
/// 4.3.15), of which 8 bits are targets, or ICC_SGI1R_EL1 (IHI 0069, 12.2.20), of which 16 are.
#[must_use]
pub fn sgi_to_list(intid: u32, cpus: u16) -> u64 {
    let (intid, cpus) = (u64::from(intid & 15), u64::from(cpus));
    if is_v2() { (cpus & 0xff) << 16 | intid } else { intid << 24 | cpus }
}

/// What [`send_sgi`] wants for SGI `intid` to all CPUs but this one.
#[must_use]
pub fn sgi_to_others(intid: u32) -> u64 {
    let intid = u64::from(intid & 15);
    if is_v2() { 1 << 24 | intid } else { 1 << 40 | intid << 24 }
}

/// Writes GICD_SGIR or ICC_SGI1R_EL1.
pub fn send_sgi(value: u64) {
    // SAFETY: a barrier only; what was written before is seen by the CPU that is interrupted.
    unsafe { core::arch::asm!("dsb ishst", options(nostack, preserves_flags)) };
    match machine().gic {
        Gic::V2 { .. } => mmio::write32(gicd() + offset::SGIR, value as u32),
        Gic::V3 { .. } => write_sysreg!("icc_sgi1r_el1", value),
    }
}
