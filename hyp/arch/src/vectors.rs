//! EL2's exception vectors, and the way into a guest and back.
//!
//! [`enter`] is a call that returns when the vCPU leaves its guest for good; in between, exits are served on the
//! same stack. EL2 runs with all interrupts masked, so an exception taken from EL2 itself is a fault of ours: it goes to a
//! stack of its own, prints, and stops.
//!
//! Two short paths never reach Rust: the virtual timer's interrupt, and the calls that ask for a constant.
//!
//! A synchronous exit saves all of x0–x30, because emulation may need any; an interrupt saves what the calling convention
//! lets Rust clobber. FP and SIMD registers are never touched at EL2.

use core::arch::global_asm;
use core::mem::{offset_of, size_of};

use bulkhead_abi::{hypercall, psci};
use bulkhead_policy::vcpu::Registers;

use crate::gic;
use crate::percpu::PerCpu;

unsafe extern "C" {
    fn guest_enter(registers: *const Registers) -> u64;
}

/// Enters the guest whose EL1 state, ELR_EL2 and SPSR_EL2 this CPU holds, with these general registers. Returns what a
/// handler of exits returned, if not 0.
///
/// # Safety
/// HCR_EL2, VTTBR_EL2 and ELR_EL2 are those of a partition's vCPU that runs on no other CPU.
pub unsafe fn enter(registers: &Registers) -> u64 {
    // SAFETY: see this function's contract; the assembly keeps the callee-saved registers.
    unsafe { guest_enter(registers) }
}

/// Registers at an EL2 fault.
#[repr(C)]
#[derive(Debug)]
pub struct FaultFrame {
    /// x0 to x30.
    pub x: [u64; 31],
    /// The stack pointer.
    pub sp: u64,
    /// Which vector.
    pub vector: u64,
    reserved: u64,
}

/// INTID of the EL1 virtual timer on every machine that follows the Base System Architecture (DEN0094, 3.8).
pub const VIRTUAL_TIMER: u32 = 27;

const FRAME: usize = size_of::<Registers>();
const FAULT_FRAME: usize = size_of::<FaultFrame>();
const _: () = assert!(FRAME == 256 && FAULT_FRAME.is_multiple_of(16));
const _: () = assert!(offset_of!(PerCpu, timer_list_register) == offset_of!(PerCpu, gic_cpu_interface) + 8);
const _: () = assert!(offset_of!(Registers, x) == 0 && offset_of!(FaultFrame, x) == 0);

global_asm!(
    // x0 and x1 are saved already, which made room for the rest.
    ".macro save_caller_saved",
    "    stp     x2, x3, [sp, #16]",
    "    stp     x4, x5, [sp, #32]",
    "    stp     x6, x7, [sp, #48]",
    "    stp     x8, x9, [sp, #64]",
    "    stp     x10, x11, [sp, #80]",
    "    stp     x12, x13, [sp, #96]",
    "    stp     x14, x15, [sp, #112]",
    "    stp     x16, x17, [sp, #128]",
    "    stp     x18, x19, [sp, #144]",
    "    stp     x29, x30, [sp, #232]",
    ".endm",
    ".macro save_callee_saved",
    "    stp     x20, x21, [sp, #160]",
    "    stp     x22, x23, [sp, #176]",
    "    stp     x24, x25, [sp, #192]",
    "    stp     x26, x27, [sp, #208]",
    "    str     x28, [sp, #224]",
    ".endm",
    ".macro restore_callee_saved",
    "    ldp     x20, x21, [sp, #160]",
    "    ldp     x22, x23, [sp, #176]",
    "    ldp     x24, x25, [sp, #192]",
    "    ldp     x26, x27, [sp, #208]",
    "    ldr     x28, [sp, #224]",
    ".endm",
    // No instruction after ERET may be speculated into with the guest's registers (DDI 0487, straight-line speculation).
    ".macro restore_caller_saved_and_return",
    "    ldp     x2, x3, [sp, #16]",
    "    ldp     x4, x5, [sp, #32]",
    "    ldp     x6, x7, [sp, #48]",
    "    ldp     x8, x9, [sp, #64]",
    "    ldp     x10, x11, [sp, #80]",
    "    ldp     x12, x13, [sp, #96]",
    "    ldp     x14, x15, [sp, #112]",
    "    ldp     x16, x17, [sp, #128]",
    "    ldp     x18, x19, [sp, #144]",
    "    ldp     x29, x30, [sp, #232]",
    "    ldp     x0, x1, [sp], #{frame}",
    "    eret",
    "    dsb     nsh",
    "    isb",
    ".endm",
    ".macro fault_vector number",
    "    .balign 128",
    "    msr     tpidrro_el0, x0",              // the guest's, lost: this machine stops
    "    mov     x0, #\\number",
    "    b       fault_common",
    ".endm",

    ".pushsection .vectors, \"ax\"",
    ".global vector_table",
    ".balign 2048",
    "vector_table:",
    // A vector has 128 bytes (DDI 0487, D1.3.2). What those of EL2's own faults leave holds the rest of the others.
    "fault_vector 0",
    // HVC #0: the calls that ask for a constant. x1 and x2 are free; policy's `dispatch` answers the same.
    "exit_hvc:",
    "    mov     w2, #{partition_id}",
    "    cmp     w0, w2",
    "    b.eq    1f",
    "    mov     w2, #{psci_version}",
    "    cmp     w0, w2",
    "    b.eq    2f",
    "    ldr     x2, [sp, #16]",
    "    b       exit_saved",
    "1:  mrs     x1, tpidr_el2",
    "    ldr     x0, [x1, #{partition}]",
    "    b       3f",
    "2:  mov     w0, #{psci_version_1_1_high}",
    "    add     w0, w0, #{psci_version_1_1_low}",
    "3:  ldr     x2, [sp, #16]",
    "    ldr     x1, [sp, #8]",
    "    add     sp, sp, #{frame}",
    "    eret",
    "    dsb     nsh",
    "    isb",
    "fault_vector 1",
    // x0: GICC, x1: the timer's list register.
    "exit_irq_v2:",
    "    str     x2, [sp, #16]",
    "    ldr     w2, [x0, #{gicc_iar}]",
    "    cmp     w2, #{virtual_timer}",
    "    b.ne    1f",
    "    cbz     x1, 1f",
    "    mrs     x2, tpidr_el2",
    "    ldr     x2, [x2, #{gic_hypervisor_interface}]",
    "    str     w1, [x2, #{gich_lr}]",
    "    mov     w2, #{virtual_timer}",
    "    str     w2, [x0, #{gicc_eoir}]",
    "    ldr     x2, [sp, #16]",
    "    ldp     x0, x1, [sp], #{frame}",
    "    eret",
    "    dsb     nsh",
    "    isb",
    "1:  mov     w0, w2",
    "    ldr     x2, [sp, #16]",
    "    b       exit_irq_saved",
    "fault_vector 2",
    // x0: what was acknowledged.
    "exit_irq_saved:",
    "    save_caller_saved",
    "    mov     x29, xzr",
    "    bl      handle_irq",
    "    cbnz    x0, guest_leave",
    "    restore_caller_saved_and_return",
    "fault_vector 3",
    "exit_serror:",
    "    stp     x0, x1, [sp, #-{frame}]!",
    "    save_caller_saved",
    "    mov     x29, xzr",
    "    bl      handle_serror",
    "    restore_caller_saved_and_return",
    "fault_vector 4",
    "exit_synchronous:",
    "    bl      handle_synchronous",
    "    cbnz    x0, guest_leave",
    "    restore_callee_saved",
    "    restore_caller_saved_and_return",
    "fault_vector 5",
    // Back to the caller of `guest_enter` with x0.
    "guest_leave:",
    "    add     sp, sp, #{frame}",
    "    ldp     x19, x20, [sp, #16]",
    "    ldp     x21, x22, [sp, #32]",
    "    ldp     x23, x24, [sp, #48]",
    "    ldp     x25, x26, [sp, #64]",
    "    ldp     x27, x28, [sp, #80]",
    "    ldp     x29, x30, [sp], #96",
    "    ret",
    "fault_vector 6",
    ".global guest_enter",
    "guest_enter:",
    "    stp     x29, x30, [sp, #-96]!",
    "    stp     x19, x20, [sp, #16]",
    "    stp     x21, x22, [sp, #32]",
    "    stp     x23, x24, [sp, #48]",
    "    stp     x25, x26, [sp, #64]",
    "    stp     x27, x28, [sp, #80]",
    "    ldp     x2, x3, [x0, #16]",
    "    ldp     x4, x5, [x0, #32]",
    "    ldp     x6, x7, [x0, #48]",
    "    ldp     x8, x9, [x0, #64]",
    "    ldp     x10, x11, [x0, #80]",
    "    ldp     x12, x13, [x0, #96]",
    "    ldp     x14, x15, [x0, #112]",
    "    ldp     x16, x17, [x0, #128]",
    "    ldp     x18, x19, [x0, #144]",
    "    ldp     x20, x21, [x0, #160]",
    "    ldp     x22, x23, [x0, #176]",
    "    ldp     x24, x25, [x0, #192]",
    "    ldp     x26, x27, [x0, #208]",
    "    ldp     x28, x29, [x0, #224]",
    "    ldr     x30, [x0, #240]",
    "    ldp     x0, x1, [x0]",
    "    eret",
    "    dsb     nsh",
    "    isb",
    "fault_vector 7",
    // From a lower level in AArch64.
    "    .balign 128",
    "    stp     x0, x1, [sp, #-{frame}]!",
    "    str     x2, [sp, #16]",
    "    mrs     x1, esr_el2",
    "    mov     w2, #{hvc_0}",
    "    cmp     x1, x2",
    "    b.eq    exit_hvc",
    "    ldr     x2, [sp, #16]",
    "exit_saved:",
    "    save_caller_saved",
    "    save_callee_saved",
    "    mov     x0, sp",
    "    mov     x29, xzr",
    "    b       exit_synchronous",
    // The virtual timer, if the policy lets it: acknowledge, list register, drop priority. The guest's end of it
    // deactivates the physical one. A GICv2 and everything else go on at `exit_irq_v2` and `exit_irq_saved`.
    "    .balign 128",
    "exit_irq:",
    "    stp     x0, x1, [sp, #-{frame}]!",
    "    mrs     x1, tpidr_el2",
    "    ldp     x0, x1, [x1, #{irq}]",         // a GICv2's GICC, the timer's list register
    "    cbnz    x0, exit_irq_v2",
    "    mrs     x0, S3_0_C12_C12_0",           // ICC_IAR1_EL1
    "    cmp     x0, #{virtual_timer}",
    "    b.ne    exit_irq_saved",
    "    cbz     x1, exit_irq_saved",
    "    msr     S3_4_C12_C12_0, x1",           // ICH_LR0_EL2
    "    msr     S3_0_C12_C12_1, x0",           // ICC_EOIR1_EL1
    "    ldp     x0, x1, [sp], #{frame}",
    "    eret",
    "    dsb     nsh",
    "    isb",
    "    .balign 128",
    "    b       exit_irq",
    "    .balign 128",
    "    b       exit_serror",
    // From EL0 in AArch32.
    "    .balign 128",
    "    stp     x0, x1, [sp, #-{frame}]!",
    "    b       exit_saved",
    "    .balign 128",
    "    b       exit_irq",
    "    .balign 128",
    "    b       exit_irq",
    "    .balign 128",
    "    b       exit_serror",
    // No vector has outgrown its place, or this would go back.
    "    .org    vector_table + 2048",

    // x0: the vector; its value before is in TPIDRRO_EL0. The stack may be the cause, so another is used. The report
    // has x2 and x3 as the lock left them.
    "fault_common:",
    "    msr     tpidr_el0, x1",
    "    mov     x1, sp",
    "    msr     sp_el0, x1",
    "    ldr     x1, =fault_taken",
    "1:  ldaxr   w2, [x1]",
    "    cbnz    w2, fault_park",               // one report is enough
    "    mov     w2, #1",
    "    stlxr   w3, w2, [x1]",
    "    cbnz    w3, 1b",
    "    ldr     x1, =__fault_stack_top",
    "    mov     sp, x1",
    "    sub     sp, sp, #{fault_frame}",
    "    str     x0, [sp, #{fault_vector}]",
    "    mrs     x0, tpidrro_el0",
    "    mrs     x1, tpidr_el0",
    "    stp     x0, x1, [sp]",
    "    stp     x2, x3, [sp, #16]",
    "    stp     x4, x5, [sp, #32]",
    "    stp     x6, x7, [sp, #48]",
    "    stp     x8, x9, [sp, #64]",
    "    stp     x10, x11, [sp, #80]",
    "    stp     x12, x13, [sp, #96]",
    "    stp     x14, x15, [sp, #112]",
    "    stp     x16, x17, [sp, #128]",
    "    stp     x18, x19, [sp, #144]",
    "    stp     x20, x21, [sp, #160]",
    "    stp     x22, x23, [sp, #176]",
    "    stp     x24, x25, [sp, #192]",
    "    stp     x26, x27, [sp, #208]",
    "    stp     x28, x29, [sp, #224]",
    "    mrs     x0, sp_el0",
    "    stp     x30, x0, [sp, #240]",
    "    mov     x0, sp",
    "    bl      handle_fault",
    "fault_park:",
    "    wfe",
    "    b       fault_park",
    ".popsection",

    ".pushsection .data.fault_taken, \"aw\"",
    ".balign 4",
    "fault_taken:",
    "    .word   0",
    ".popsection",
    frame = const FRAME,
    fault_frame = const FAULT_FRAME,
    fault_vector = const offset_of!(FaultFrame, vector),
    hvc_0 = const 0x16_u32 << 26 | 1 << 25,
    partition_id = const hypercall::PARTITION_ID,
    psci_version = const psci::PSCI_VERSION,
    psci_version_1_1_high = const psci::VERSION_1_1 & 0xffff_0000,
    psci_version_1_1_low = const psci::VERSION_1_1 & 0xffff,
    partition = const offset_of!(PerCpu, partition),
    virtual_timer = const VIRTUAL_TIMER,
    irq = const offset_of!(PerCpu, gic_cpu_interface),
    gic_hypervisor_interface = const offset_of!(PerCpu, gic_hypervisor_interface),
    gicc_iar = const gic::GICC_IAR,
    gicc_eoir = const gic::GICC_EOIR,
    gich_lr = const gic::GICH_LR,
);
