//! The vector table, exceptions that a test expects, and the interrupt handler of the day.

use core::arch::{asm, global_asm};
use core::mem::{offset_of, size_of};
use core::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};

use crate::cpu::{self, MAX_CPUS};
use crate::read_sysreg;

/// Registers of the interrupted code, as the vectors save them.
#[repr(C, align(16))]
struct Frame {
    x: [u64; 31],
    elr: u64,
    spsr: u64,
}

global_asm!(
    r#"
    .macro vector kind
    .balign 0x80
    sub     sp, sp, #{size}
    stp     x0, x1, [sp]
    mov     x0, #\kind
    b       exception_common
    .endm

    .text
    .balign 0x800
    .global exception_vectors
exception_vectors:
    .set    kind, 0
    .rept   16
    vector  kind
    .set    kind, kind + 1
    .endr

exception_common:
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    str     x30, [sp, #240]
    mrs     x2, elr_el1
    mrs     x3, spsr_el1
    str     x2, [sp, #{elr}]
    str     x3, [sp, #{spsr}]
    mov     x1, sp
    bl      rt_exception
    ldr     x2, [sp, #{elr}]
    ldr     x3, [sp, #{spsr}]
    msr     elr_el1, x2
    msr     spsr_el1, x3
    ldp     x2, x3, [sp, #16]
    ldp     x4, x5, [sp, #32]
    ldp     x6, x7, [sp, #48]
    ldp     x8, x9, [sp, #64]
    ldp     x10, x11, [sp, #80]
    ldp     x12, x13, [sp, #96]
    ldp     x14, x15, [sp, #112]
    ldp     x16, x17, [sp, #128]
    ldp     x18, x19, [sp, #144]
    ldp     x20, x21, [sp, #160]
    ldp     x22, x23, [sp, #176]
    ldp     x24, x25, [sp, #192]
    ldp     x26, x27, [sp, #208]
    ldp     x28, x29, [sp, #224]
    ldr     x30, [sp, #240]
    ldp     x0, x1, [sp]
    add     sp, sp, #{size}
    eret
    "#,
    size = const size_of::<Frame>(),
    elr = const offset_of!(Frame, elr),
    spsr = const offset_of!(Frame, spsr),
);

/// A synchronous exception that was expected.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1; meaningful for aborts and alignment faults.
    pub far: u64,
    /// ELR_EL1: the instruction, or the address of an instruction abort.
    pub elr: u64,
}

impl Fault {
    /// Exception class: ESR_EL1 bits 31–26.
    #[must_use]
    pub const fn class(self) -> u64 {
        self.esr >> 26 & 0x3f
    }

    /// Fault status code of an abort: ESR_EL1 bits 5–0.
    #[must_use]
    pub const fn status(self) -> u64 {
        self.esr & 0x3f
    }

    /// Whether it is a data abort taken from EL1 (exception class 0x25).
    #[must_use]
    pub const fn is_data_abort(self) -> bool {
        self.class() == 0x25
    }

    /// Whether it is an instruction abort taken from EL1 (exception class 0x21).
    #[must_use]
    pub const fn is_instruction_abort(self) -> bool {
        self.class() == 0x21
    }

    /// Whether the instruction was undefined or trapped as unknown (exception class 0).
    #[must_use]
    pub const fn is_undefined(self) -> bool {
        self.class() == 0
    }

    /// Whether a data abort was caused by a write (WnR, bit 6).
    #[must_use]
    pub const fn is_write(self) -> bool {
        self.esr & 1 << 6 != 0
    }
}

/// What [`catch`] waits for on one CPU.
struct Catcher {
    armed: AtomicBool,
    faults: AtomicU64,
    esr: AtomicU64,
    far: AtomicU64,
    elr: AtomicU64,
}

static CATCHERS: [Catcher; MAX_CPUS] = [const {
    Catcher {
        armed: AtomicBool::new(false),
        faults: AtomicU64::new(0),
        esr: AtomicU64::new(0),
        far: AtomicU64::new(0),
        elr: AtomicU64::new(0),
    }
}; MAX_CPUS];

/// Runs `probe` and returns the first synchronous exception that it caused on this CPU, if any.
///
/// A data abort or undefined instruction is skipped, an instruction abort returns through X30 as from a call.
/// The probe shall consist of functions of [`crate::mmio`] and the register macros, for which a skipped
/// instruction has a defined result.
pub fn catch<R>(probe: impl FnOnce() -> R) -> Result<R, Fault> {
    let catcher = &CATCHERS[cpu::id()];
    catcher.faults.store(0, Ordering::Relaxed);
    catcher.armed.store(true, Ordering::Release);
    let result = probe();
    // SAFETY: barriers only. An external abort of a store is taken before the catcher is disarmed.
    unsafe { asm!("dsb sy", "isb", options(nostack, preserves_flags)) };
    catcher.armed.store(false, Ordering::Release);
    if catcher.faults.load(Ordering::Relaxed) == 0 {
        return Ok(result);
    }
    Err(Fault {
        esr: catcher.esr.load(Ordering::Relaxed),
        far: catcher.far.load(Ordering::Relaxed),
        elr: catcher.elr.load(Ordering::Relaxed),
    })
}

static IRQ_HANDLER: AtomicPtr<()> = AtomicPtr::new(core::ptr::null_mut());

/// Makes `handler` take every IRQ of every CPU from now on: it acknowledges and ends interrupts itself.
///
/// It runs with interrupts masked, on the exception stack, and may unmask them to be preempted.
pub fn set_irq_handler(handler: fn()) {
    IRQ_HANDLER.store(handler as *mut (), Ordering::Release);
}

/// Unmasks IRQs on this CPU.
pub fn unmask_irqs() {
    // SAFETY: the vectors handle every interrupt that can arrive.
    unsafe { asm!("msr daifclr, #2", "isb", options(nostack)) };
}

/// Masks IRQs on this CPU.
pub fn mask_irqs() {
    // SAFETY: masking changes nothing but when interrupts arrive.
    unsafe { asm!("msr daifset, #2", "isb", options(nostack)) };
}

/// Runs `f` with IRQs unmasked; they are masked afterwards.
pub fn with_irqs<R>(f: impl FnOnce() -> R) -> R {
    unmask_irqs();
    let result = f();
    mask_irqs();
    result
}

/// Entries of the vector table that can be taken at EL1, two groups of four (DDI 0487, D1.3.1.2).
const SYNCHRONOUS: [u64; 2] = [0, 4];
const IRQ: [u64; 2] = [1, 5];

#[unsafe(no_mangle)]
extern "C" fn rt_exception(kind: u64, frame: &mut Frame) {
    if IRQ.contains(&kind) {
        let handler = IRQ_HANDLER.load(Ordering::Acquire);
        assert!(!handler.is_null(), "IRQ without a handler");
        // SAFETY: only `set_irq_handler` stores here, and it stores a `fn()`.
        let handler: fn() = unsafe { core::mem::transmute::<*mut (), fn()>(handler) };
        handler();
        return;
    }
    let fault = Fault { esr: read_sysreg!("esr_el1"), far: read_sysreg!("far_el1"), elr: frame.elr };
    let catcher = &CATCHERS[cpu::id()];
    if !SYNCHRONOUS.contains(&kind) || !catcher.armed.load(Ordering::Acquire) {
        panic!("exception {kind} from {:#x}: {fault:x?}, x30 {:#x}", frame.elr, frame.x[30]);
    }
    if catcher.faults.fetch_add(1, Ordering::Relaxed) == 0 {
        catcher.esr.store(fault.esr, Ordering::Relaxed);
        catcher.far.store(fault.far, Ordering::Relaxed);
        catcher.elr.store(fault.elr, Ordering::Relaxed);
    }
    /// Classes whose ELR is where the branch went: instruction aborts and PC alignment.
    const BRANCHES: [u64; 3] = [0x20, 0x21, 0x22];
    frame.elr = if BRANCHES.contains(&fault.class()) { frame.x[30] } else { frame.elr + 4 };
}
