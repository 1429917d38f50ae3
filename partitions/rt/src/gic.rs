//! GICv3 as on QEMU `virt` (GIC specification IHI 0069): distributor, redistributors, CPU interface.
//!
//! Kept bare on purpose: tests look at registers that a driver would hide.

use crate::{cpu, mmio, read_sysreg, write_sysreg};

/// Address of the distributor.
pub const GICD: u64 = 0x0800_0000;
/// Address of CPU 0's redistributor.
pub const GICR: u64 = 0x080a_0000;
/// Bytes from one CPU's redistributor to the next one's: an RD frame and an SGI frame.
pub const GICR_STRIDE: u64 = 0x2_0000;

/// Offsets in the distributor and, from `IGROUPR` to `ICFGR`, in a redistributor's SGI frame.
pub mod offset {
    /// GICD_CTLR; GICR_CTLR in an RD frame.
    pub const CTLR: u64 = 0x0;
    /// GICD_TYPER.
    pub const TYPER: u64 = 0x4;
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
    /// Trigger, two bits each.
    pub const ICFGR: u64 = 0xc00;
    /// Routing of SPIs, 64 bits each, distributor only.
    pub const IROUTER: u64 = 0x6000;
    /// Peripheral ID 2: architecture revision in bits 7–4.
    pub const PIDR2: u64 = 0xffe8;
    /// From an RD frame to its SGI frame.
    pub const SGI_FRAME: u64 = 0x1_0000;
}

/// INTID of the PL011: SPI 1.
pub const UART_INTID: u32 = 33;
/// What an acknowledge returns where nothing is pending.
pub const SPURIOUS: u32 = 1023;
/// The priority that [`init_cpu`] and [`init_distributor`] give to every interrupt.
pub const DEFAULT_PRIORITY: u8 = 0xa0;

/// RD frame of a CPU's redistributor.
#[must_use]
pub const fn redistributor(cpu: usize) -> u64 {
    GICR + cpu as u64 * GICR_STRIDE
}

/// The frame that holds this INTID's registers: the distributor, or this CPU's SGI frame.
#[must_use]
pub fn frame(intid: u32) -> u64 {
    if intid < 32 { redistributor(cpu::id()) + offset::SGI_FRAME } else { GICD }
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

/// Disables an interrupt and waits until that has taken effect.
pub fn disable(intid: u32) {
    set_bit(offset::ICENABLER, intid);
    wait_for_write(intid);
}

/// Waits until register writes about this INTID have taken effect: RWP, bit 31 of GICD_CTLR, bit 3 of
/// GICR_CTLR.
fn wait_for_write(intid: u32) {
    let (control, pending) = if intid < 32 { (redistributor(cpu::id()), 1 << 3) } else { (GICD, 1 << 31) };
    while mmio::read32(control + offset::CTLR) & pending != 0 {}
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

/// Routes an SPI to a CPU.
pub fn route(intid: u32, cpu: usize) {
    mmio::write64(GICD + offset::IROUTER + u64::from(intid) * 8, cpu as u64);
}

/// Turns the distributor on with affinity routing, all SPIs idle, disabled, group 1, [`DEFAULT_PRIORITY`].
pub fn init_distributor() {
    /// EnableGrp1 or EnableGrp1A, and ARE, in either security view (IHI 0069, 12.9.4).
    const ENABLE: u32 = 1 << 4 | 1 << 1;
    mmio::write32(GICD + offset::CTLR, 1 << 4);
    wait_for_write(32);
    for intid in (32..spi_end()).step_by(32) {
        mmio::write32(bit_word(offset::ICENABLER, intid), u32::MAX);
        mmio::write32(bit_word(offset::ICPENDR, intid), u32::MAX);
        mmio::write32(bit_word(offset::ICACTIVER, intid), u32::MAX);
        mmio::write32(bit_word(offset::IGROUPR, intid), u32::MAX);
    }
    for intid in (32..spi_end()).step_by(4) {
        mmio::write32(
            GICD + offset::IPRIORITYR + u64::from(intid),
            u32::from_ne_bytes([DEFAULT_PRIORITY; 4]),
        );
    }
    mmio::write32(GICD + offset::CTLR, ENABLE);
    wait_for_write(32);
}

/// One more than the largest SPI that the distributor implements.
#[must_use]
pub fn spi_end() -> u32 {
    (32 * ((mmio::read32(GICD + offset::TYPER) & 0x1f) + 1)).min(1020)
}

/// Wakes this CPU's redistributor, with all private interrupts idle, disabled, group 1, [`DEFAULT_PRIORITY`], and
/// opens the CPU interface for group 1.
pub fn init_cpu() {
    let redistributor = redistributor(cpu::id());
    let sgi_frame = redistributor + offset::SGI_FRAME;
    mmio::write32(redistributor + offset::GICR_WAKER, 0);
    while mmio::read32(redistributor + offset::GICR_WAKER) & 1 << 2 != 0 {}
    mmio::write32(sgi_frame + offset::ICENABLER, u32::MAX);
    wait_for_write(0);
    mmio::write32(sgi_frame + offset::ICPENDR, u32::MAX);
    mmio::write32(sgi_frame + offset::ICACTIVER, u32::MAX);
    mmio::write32(sgi_frame + offset::IGROUPR, u32::MAX);
    for intid in (0..32).step_by(4) {
        mmio::write32(sgi_frame + offset::IPRIORITYR + intid, u32::from_ne_bytes([DEFAULT_PRIORITY; 4]));
    }
    write_sysreg!("icc_sre_el1", read_sysreg!("icc_sre_el1") | 1);
    write_sysreg!("icc_ctlr_el1", 0);
    write_sysreg!("icc_bpr1_el1", 0);
    write_sysreg!("icc_pmr_el1", 0xff);
    write_sysreg!("icc_igrpen1_el1", 1);
}

/// Acknowledges the most urgent group 1 interrupt: its INTID, or [`SPURIOUS`].
#[must_use]
pub fn acknowledge() -> u32 {
    let intid = read_sysreg!("icc_iar1_el1") as u32;
    // SAFETY: barriers only; the acknowledge takes effect before what the handler does next.
    unsafe { core::arch::asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
    intid
}

/// Drops the running priority and, with EOImode 0, deactivates the interrupt.
pub fn end(intid: u32) {
    write_sysreg!("icc_eoir1_el1", u64::from(intid));
}

/// Deactivates the interrupt, with EOImode 1.
pub fn deactivate(intid: u32) {
    write_sysreg!("icc_dir_el1", u64::from(intid));
}

/// The value of ICC_SGI1R_EL1 for SGI `intid` to CPU `cpu` of cluster 0 (IHI 0069, 12.2.20).
#[must_use]
pub const fn sgi_to(intid: u32, cpu: usize) -> u64 {
    ((intid & 15) as u64) << 24 | 1 << (cpu & 15)
}

/// The value of ICC_SGI1R_EL1 for SGI `intid` to all CPUs but this one.
#[must_use]
pub const fn sgi_to_others(intid: u32) -> u64 {
    1 << 40 | ((intid & 15) as u64) << 24
}

/// Writes ICC_SGI1R_EL1.
pub fn send_sgi(value: u64) {
    // SAFETY: a barrier only; what was written before is seen by the CPU that is interrupted.
    unsafe { core::arch::asm!("dsb ishst", options(nostack, preserves_flags)) };
    write_sysreg!("icc_sgi1r_el1", value);
}
