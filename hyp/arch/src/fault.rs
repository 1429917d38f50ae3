//! What is known about a fault of EL2 itself, for the last message.

use core::sync::atomic::{AtomicBool, Ordering};

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, Readable, SPSR_EL2};

use bulkhead_policy::addr::PAGE_SIZE;
use bulkhead_policy::plan::MAX_CPUS;

use crate::boot::STACK;
use crate::gic;

static HALTED: AtomicBool = AtomicBool::new(false);

/// Has every CPU stop at its next interrupt: none may go on under a hypervisor that has failed.
pub fn halt_others() {
    if !HALTED.swap(true, Ordering::SeqCst) {
        gic::kick_others(MAX_CPUS, MAX_CPUS);
    }
}

/// Whether a CPU that is kicked is to stop.
#[must_use]
pub fn is_halted() -> bool {
    HALTED.load(Ordering::Relaxed)
}

/// The registers that say what happened.
#[derive(Debug)]
pub struct Report {
    /// ESR_EL2.
    pub esr: u64,
    /// ELR_EL2.
    pub elr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// SPSR_EL2.
    pub spsr: u64,
}

/// Reads them.
#[must_use]
pub fn report() -> Report {
    Report { esr: ESR_EL2.get(), elr: ELR_EL2.get(), far: FAR_EL2.get(), spsr: SPSR_EL2.get() }
}

unsafe extern "C" {
    static __image_start: u8;
    static __text_end: u8;
    static __stack_bottom: u8;
    static __stack_top: u8;
}

/// Addresses of calls that have not returned, innermost first: every word of the stack from `sp` up that is the return
/// address of a call instruction. Frame pointers would be exact, but cost a tenth of the image; now and then a word is
/// left from an earlier call.
pub fn backtrace(sp: u64) -> impl Iterator<Item = u64> {
    let boot_stack = &raw const __stack_bottom as u64..&raw const __stack_top as u64;
    let heap = crate::layout::heap();
    let words = if boot_stack.contains(&sp) || sp >= boot_stack.start - PAGE_SIZE && sp < boot_stack.start {
        sp.max(boot_stack.start)..boot_stack.end
    } else if (heap.start as u64..heap.end as u64).contains(&sp) {
        // Secondary stacks are blocks of their own alignment; the first page is the guard.
        let block = sp & !(STACK as u64 - 1);
        sp.max(block + PAGE_SIZE)..block + STACK as u64
    } else {
        0..0
    };
    let words = words.start.next_multiple_of(8)..words.end;
    // SAFETY: aligned words of this CPU's stack, from the stack pointer or the end of the guard page to the stack's end.
    words
        .step_by(8)
        .map(|word| unsafe { (word as *const u64).read_volatile() })
        .filter_map(call_before)
        .take(32)
}

/// The address of the call that returns to `address`, if there is one (DDI 0487, C6.2: BL and BLR).
fn call_before(address: u64) -> Option<u64> {
    let text = &raw const __image_start as u64 + 4..&raw const __text_end as u64;
    if !text.contains(&address) || !address.is_multiple_of(4) {
        return None;
    }
    // SAFETY: an aligned word of the image's text.
    let instruction = unsafe { ((address - 4) as *const u32).read_volatile() };
    let call = instruction & 0xfc00_0000 == 0x9400_0000 || instruction & 0xffff_fc1f == 0xd63f_0000;
    call.then_some(address - 4)
}

/// The stack pointer of the caller.
#[inline(always)]
#[must_use]
pub fn stack_pointer() -> u64 {
    let value: u64;
    // SAFETY: reads a register.
    unsafe { core::arch::asm!("mov {}, sp", out(reg) value, options(nomem, nostack, preserves_flags)) };
    value
}
