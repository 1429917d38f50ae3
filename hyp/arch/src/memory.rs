//! What the compiler calls to copy and to fill memory.
//!
//! Its own functions never access memory unaligned, since the target's code may run with the MMU off. None of Rust's does here, all
//! memory that it copies is Normal, and SCTLR_EL2.A is 0, so the hardware takes any alignment (Arm ARM DDI 0487, B2.9 on
//! unaligned accesses). Payloads in a bundle lie as their neighbours leave them, and copying them is half of loading a partition.

use core::arch::global_asm;

global_asm!(
    ".pushsection .text.memory, \"ax\"",
    // x0: destination, kept; x1: source; x2: bytes.
    ".global memcpy",
    "memcpy:",
    "    mov     x3, x0",
    "    subs    x2, x2, #32",
    "    b.lo    2f",
    "1:  ldp     x4, x5, [x1], #16",
    "    ldp     x6, x7, [x1], #16",
    "    subs    x2, x2, #32",
    "    stp     x4, x5, [x3], #16",
    "    stp     x6, x7, [x3], #16",
    "    b.hs    1b",
    // The lower bits are those of what is left.
    "2:  tbz     w2, #4, 3f",
    "    ldp     x4, x5, [x1], #16",
    "    stp     x4, x5, [x3], #16",
    "3:  tbz     w2, #3, 4f",
    "    ldr     x4, [x1], #8",
    "    str     x4, [x3], #8",
    "4:  tbz     w2, #2, 5f",
    "    ldr     w4, [x1], #4",
    "    str     w4, [x3], #4",
    "5:  tbz     w2, #1, 6f",
    "    ldrh    w4, [x1], #2",
    "    strh    w4, [x3], #2",
    "6:  tbz     w2, #0, 7f",
    "    ldrb    w4, [x1]",
    "    strb    w4, [x3]",
    "7:  ret",
    // The same for what may overlap. A copy upwards loads before it stores, so that only a destination within the source's bytes
    // has to be filled from its end.
    ".global memmove",
    "memmove:",
    "    sub     x3, x0, x1",
    "    cmp     x3, x2",
    "    b.hs    memcpy",
    "1:  cbz     x2, 2f",
    "    sub     x2, x2, #1",
    "    ldrb    w4, [x1, x2]",
    "    strb    w4, [x0, x2]",
    "    b       1b",
    "2:  ret",
    // x0: destination, kept; w1: byte; x2: bytes.
    ".global memset",
    "memset:",
    "    and     x1, x1, #0xff",
    "    mov     x3, #0x0101010101010101",
    "    mul     x1, x1, x3",
    "    mov     x3, x0",
    "    subs    x2, x2, #32",
    "    b.lo    2f",
    "1:  stp     x1, x1, [x3], #16",
    "    subs    x2, x2, #32",
    "    stp     x1, x1, [x3], #16",
    "    b.hs    1b",
    "2:  tbz     w2, #4, 3f",
    "    stp     x1, x1, [x3], #16",
    "3:  tbz     w2, #3, 4f",
    "    str     x1, [x3], #8",
    "4:  tbz     w2, #2, 5f",
    "    str     w1, [x3], #4",
    "5:  tbz     w2, #1, 6f",
    "    strh    w1, [x3], #2",
    "6:  tbz     w2, #0, 7f",
    "    strb    w1, [x3]",
    "7:  ret",
    ".popsection",
);
