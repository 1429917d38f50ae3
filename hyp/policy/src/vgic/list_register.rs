//! A list register as both GIC generations have it; `arch` encodes it.

use crate::irq::IntId;

/// One virtual interrupt offered to a vCPU (IHI 0069, `ICH_LR<n>_EL2`; IHI 0048, `GICH_LRn`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ListRegister {
    /// The virtual INTID, and the physical one where `hardware` is set: they are the same here.
    pub intid: IntId,
    /// Priority, 0 the highest.
    pub priority: u8,
    /// Group 1 (virtual IRQ) rather than group 0 (virtual FIQ).
    pub group1: bool,
    /// Pending.
    pub pending: bool,
    /// Active.
    pub active: bool,
    /// Deactivating it deactivates the physical interrupt of the same number.
    pub hardware: bool,
    /// The vCPU that sent it, of an SGI of a GICv2; else 0.
    pub sender: u8,
    /// Raise the maintenance interrupt when it is deactivated; only without `hardware`.
    pub notify_end: bool,
}
