//! What policy asks of the machine while it serves the interrupts of one partition.
//!
//! `arch` implements this over real registers; tests implement it over an array. All calls concern the
//! partition being served: vCPU numbers are its own, and the implementation maps them to physical CPUs.

use crate::irq::IntId;
use crate::vgic::list_register::ListRegister;

/// Events for which the virtual CPU interface is to raise its maintenance interrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Maintenance {
    /// No list register holds a pending interrupt: something waits for a place.
    pub no_pending: bool,
    /// An active interrupt has no list register: its end must be seen (EOI counted, DIR trapped).
    pub active_spilled: bool,
}

/// The interrupt hardware, seen by the CPU that runs the current vCPU.
pub trait Machine {
    /// How many list registers this CPU has, 1 to 16.
    fn list_registers(&self) -> usize;
    /// List register `n` of this CPU; `None` where its state is invalid.
    fn read_list_register(&mut self, n: usize) -> Option<ListRegister>;
    /// Writes list register `n` of this CPU; `None` makes it invalid.
    fn write_list_register(&mut self, n: usize, value: Option<ListRegister>);
    /// Bit `n` set: list register `n` of this CPU holds no interrupt, whether or not it asks for maintenance because of the end
    /// of the last (ICH_ELRSR_EL2 and ICH_EISR_EL2).
    fn empty_list_registers(&mut self) -> u32;
    /// Chooses the maintenance events of this CPU.
    fn set_maintenance(&mut self, events: Maintenance);
    /// Reads and clears the number of EOIs that found no list register (ICH_HCR_EL2.EOIcount).
    fn take_eoi_count(&mut self) -> u32;
    /// Whether the guest on this CPU ends and deactivates interrupts separately (ICH_VMCR_EL2.VEOIM).
    fn splits_deactivation(&mut self) -> bool;
    /// What this CPU's short path puts into list register 0 when the virtual timer fires; `None` sends the
    /// timer's interrupt through the long path.
    fn set_timer_list_register(&mut self, value: Option<ListRegister>);
    /// Makes the CPU of `vcpu` leave its guest and call [`crate::vgic::Vgic::refill`].
    fn kick(&mut self, vcpu: usize);
    /// Enables or disables the physical interrupts `32 * word + n` for each bit `n` of `mask`; those of word 0
    /// on the CPU of `vcpu`.
    fn set_enabled(&mut self, vcpu: usize, word: usize, mask: u32, enabled: bool);
    /// Routes a physical SPI to the CPU of `vcpu`.
    fn route(&mut self, intid: IntId, vcpu: usize);
    /// Whether the end of an interrupt in a list register with the hardware bit is as good as [`Self::deactivate`]. If not, EL2
    /// asks to be told of each end and deactivates the interrupt itself.
    fn forwards_ends(&self) -> bool;
    /// Deactivates a physical interrupt, a private one on the CPU of `vcpu`.
    fn deactivate(&mut self, vcpu: usize, intid: IntId);
    /// Pending bits of the physical interrupts of `word`, those of word 0 on the CPU of `vcpu`.
    fn physical_pending(&mut self, vcpu: usize, word: usize) -> u32;
}
