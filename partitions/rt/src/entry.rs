//! From the first instruction to Rust, for the boot CPU and for those started by PSCI.
//!
//! The MMU comes on before the first Rust instruction: exclusives, and so every atomic, are only defined on
//! Normal memory (Arm ARM DDI 0487, B2.9), and with the MMU off all memory is Device.

use core::arch::global_asm;

use crate::cpu::{MAX_CPUS, STACK_SIZE};
use crate::memory;

/// SCTLR_EL1: MMU (bit 0), data and instruction caches (2, 12) and SP alignment check (3) on, the bits that
/// are RES1 in Armv8.0 set (DDI 0487, D19.2.118).
const SCTLR: u64 = 0x30d0_0800 | 1 << 12 | 1 << 3 | 1 << 2 | 1;

/// TCR_EL1 less IPS: 39-bit addresses in TTBR0 only, 4 KiB granule, walks inner-shareable and write-back.
const TCR: u64 = 25 | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23;

global_asm!(
    r#"
    .section .head, "ax"
    .global image_header
image_header:                           // arm64 Image header (Linux, Documentation/arch/arm64/booting.rst)
    b       boot_entry
    .long   0
    .quad   0x80000                     // text_offset
    .quad   __image_size
    .quad   2                           // little-endian, 4 KiB pages
    .quad   0, 0, 0
    .long   0x644d5241
    .long   0

    // MMU, vectors and stacks of this CPU; goes on in \next with X19, X20 untouched.
    .macro cpu_setup next
    ldr     x1, =exception_vectors
    msr     vbar_el1, x1
    ldr     x1, ={mair}
    msr     mair_el1, x1
    ldr     x1, ={tcr}
    mrs     x2, id_aa64mmfr0_el1        // IPS: the smaller of PARange and 48 bits
    and     x2, x2, #7
    mov     x3, #5
    cmp     x2, x3
    csel    x2, x2, x3, lo
    orr     x1, x1, x2, lsl #32
    msr     tcr_el1, x1
    ldr     x1, ={table}
    msr     ttbr0_el1, x1
    isb                                 // the tables' registers before the MMU uses them
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    ldr     x1, ={sctlr}
    msr     sctlr_el1, x1
    isb                                 // from here on the MMU is on
    mrs     x1, mpidr_el1
    and     x1, x1, #0xff
    cmp     x1, #{max_cpus}
    b.hs    park
    add     x1, x1, #1
    mov     x2, #{stack_size}
    msr     spsel, #1
    ldr     x3, =exception_stacks
    madd    x3, x1, x2, x3
    mov     sp, x3
    msr     spsel, #0
    ldr     x3, =thread_stacks
    madd    x3, x1, x2, x3
    mov     sp, x3
    mov     x29, xzr
    mov     x30, xzr
    b       \next
    .endm

boot_entry:
    mrs     x20, cntvct_el0
    mov     x19, x0                     // the device tree
    cpu_setup boot_continue
boot_continue:
    ldr     x1, =__bss_start
    ldr     x2, =__bss_end
1:  cmp     x1, x2
    b.hs    2f
    stp     xzr, xzr, [x1], #16
    b       1b
2:  mov     x0, x20
    mov     x1, x19
    bl      rt_boot

    .global secondary_entry
secondary_entry:
    mov     x19, x0
    cpu_setup secondary_continue
secondary_continue:
    mov     x0, x19
    bl      rt_secondary

park:
    wfi
    b       park

    .section .stacks, "aw", %nobits
    .balign 4096
exception_stacks:
    .skip   {max_cpus} * {stack_size}
thread_stacks:
    .skip   {max_cpus} * {stack_size}
    "#,
    mair = const memory::MAIR,
    tcr = const TCR,
    sctlr = const SCTLR,
    table = sym memory::IDENTITY_MAP,
    max_cpus = const MAX_CPUS,
    stack_size = const STACK_SIZE,
);
