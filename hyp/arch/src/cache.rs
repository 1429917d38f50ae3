//! Cache maintenance by address, for memory that someone will see past the caches.

use core::arch::asm;

/// Bytes of the smallest data cache line of any level (CTR_EL0.DminLine).
fn line_size() -> usize {
    let ctr = crate::sysreg::read_sysreg!("ctr_el0");
    4 << ((ctr >> 16) & 0xf)
}

/// Cleans and invalidates `bytes` to the point of coherency, and the instruction caches of this partition's future CPUs to the
/// point of unification.
///
/// A guest starts with MMU and caches off: it fetches and loads from memory, so what EL2 wrote must be there, and no
/// line may be left that a guest's own uncached write would later be hidden by (Arm ARM DDI 0487, B2.8.2 and D7.5). The
/// instruction cache is invalidated because the same memory may have held other instructions (B2.4.4).
pub fn publish_to_guest(bytes: &[u8]) {
    let line = line_size();
    let start = bytes.as_ptr() as usize;
    let end = start + bytes.len();
    let mut address = start & !(line - 1);
    while address < end {
        // SAFETY: cleaning and invalidating by VA to the point of coherency keeps the contents of memory as this CPU sees them.
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) };
        address += line;
    }
    // SAFETY: as above; the barriers order the maintenance before what follows.
    unsafe { asm!("dsb sy", "ic ialluis", "dsb ish", "isb", options(nostack, preserves_flags)) };
}
