//! Cache maintenance by address, for memory that someone will see past the caches.

use core::arch::asm;

use crate::barrier;

/// Bytes of the smallest data cache line of any level (CTR_EL0.DminLine).
fn line_size() -> usize {
    let ctr = crate::sysreg::read_sysreg!("ctr_el0");
    4 << ((ctr >> 16) & 0xf)
}

/// Cleans and invalidates the line of `address`, which EL2 has mapped, to the point of coherency.
pub(crate) fn clean_and_invalidate(address: u64) {
    // SAFETY: this keeps the contents of memory as this CPU sees them.
    unsafe { asm!("dc civac, {}", "dsb sy", in(reg) address, options(nostack, preserves_flags)) };
}

/// Cleans and invalidates `bytes` to the point of coherency: no line of them is in a cache after this.
///
/// Before EL2 stores into a partition's memory through its window, which is Non-cacheable: a line that the firmware or the
/// partition's earlier life left would be written over it later, or hide it (Arm ARM DDI 0487, B2.8). Maintenance by VA acts on
/// all caches of the outer shareable domain, since the mapping is Non-cacheable (D7.5.9).
pub fn forget(bytes: &[u8]) {
    let line = line_size();
    let start = bytes.as_ptr() as usize;
    let end = start + bytes.len();
    let mut address = start & !(line - 1);
    while address < end {
        // SAFETY: cleaning and invalidating by VA to the point of coherency keeps the contents of memory as this CPU sees them.
        unsafe { asm!("dc civac, {}", in(reg) address, options(nostack, preserves_flags)) };
        address += line;
    }
    barrier::complete_all();
}

/// What was stored through a window is in memory for every observer, and no instruction cache holds what was there before
/// (DDI 0487, B2.4.4).
pub fn publish() {
    // SAFETY: invalidating instruction caches changes no memory.
    unsafe { asm!("dsb sy", "ic ialluis", "dsb ish", "isb", options(nostack, preserves_flags)) };
}
