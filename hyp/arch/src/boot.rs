//! From the loader's jump to Rust with the MMU on.
//!
//! The loader leaves EL2 with MMU and caches off (Linux, Documentation/arch/arm64/booting.rst), at an address
//! of its choice. Atomics need Normal cacheable memory (Arm ARM DDI 0487, B2.12), so no Rust runs before the
//! MMU is on; the assembly here does only that: it maps the image at its link address with write xor
//! execute, and one identity page to survive the switch.

use alloc::boxed::Box;
use core::arch::global_asm;

use bulkhead_abi::psci;
use bulkhead_policy::addr::{Pa, Region};
use bulkhead_policy::platform::Conduit;

use crate::layout::{FOOTPRINT, HYP_VA};
use crate::{barrier, firmware, heap, mmu};

unsafe extern "C" {
    /// Where a secondary CPU starts, MMU off.
    static _start_secondary: u8;
}

/// What a secondary CPU finds through the context argument of its start.
#[repr(C)]
struct SecondaryStart {
    stack_top: u64,
    cpu: u64,
}

/// Bytes of a secondary CPU's stack, its guard page included, and its alignment.
pub(crate) const STACK: usize = 0x4000;
/// The most bytes that a firmware's tree may have.
const MAX_TREE: u32 = 4 << 20;
const FDT_MAGIC: u32 = 0xd00d_feed;

/// What comes before anything else on the boot CPU.
pub fn init() {
    heap::init();
}

/// The firmware's tree at physical address `tree`, as long as its header says. `None` where there is none.
#[must_use]
pub fn map_tree(tree: u64) -> Option<&'static [u8]> {
    // 8-byte alignment is the boot protocol's; a loader without a tree leaves something small and odd.
    if tree == 0 || !tree.is_multiple_of(8) {
        return None;
    }
    let header = mmu::map_firmware_data(Region::new(Pa::new(tree), 8)?)?;
    let word = |n: usize| header.get(n..n + 4)?.try_into().ok().map(u32::from_be_bytes);
    let size = word(4)?;
    if word(0)? != FDT_MAGIC || !(40..=MAX_TREE).contains(&size) {
        return None;
    }
    mmu::map_firmware_data(Region::new(Pa::new(tree), size.into())?)
}

/// Starts CPU number `cpu`, of affinity `mpidr`, by PSCI, in `secondary_main`. False where firmware or heap refuse.
#[must_use]
pub fn start_secondary(conduit: Conduit, cpu: usize, mpidr: u64) -> bool {
    let Some(stack) = heap::allocate(STACK, STACK) else { return false };
    mmu::make_guard_page(stack as u64);
    let start = SecondaryStart { stack_top: stack as u64 + STACK as u64, cpu: cpu as u64 };
    let context = core::ptr::from_ref(Box::leak(Box::new(start))) as u64;
    let entry = mmu::physical_address(&raw const _start_secondary as u64);
    barrier::complete_all();
    // SAFETY: the CPU starts in this image, on a stack of its own.
    unsafe { firmware::call(conduit, psci::CPU_ON, [mpidr, entry, context]) == psci::SUCCESS }
}

global_asm!(
    // arm64 Image header.
    ".pushsection .head, \"ax\"",
    ".global _start",
    "_start:",
    "    b       1f",
    "    .word   0",
    "    .quad   0",                            // text_offset
    "    .quad   {footprint}",                  // image_size: what belongs to the hypervisor
    "    .quad   0xa",                          // 4 KiB pages, anywhere in memory
    "    .quad   0, 0, 0",
    "    .ascii  \"ARM\\x64\"",
    "    .word   0",
    "1:",
    "    msr     daifset, #0xf",
    "    mrs     x1, CurrentEL",
    "    cmp     x1, #(2 << 2)",
    "    b.ne    park",
    "    mov     x19, x0",                      // the loader's device tree
    // Clear the tables. A line that the firmware left in the cache must neither be evicted over what is
    // written here with the cache off, nor be hit by the table walker: invalidate before and after
    // (DDI 0487, B2.8 on mismatched attributes).
    "    adrp    x20, __tables_start",
    "    adrp    x21, __tables_end",
    "    bl      invalidate",
    "    mov     x0, x20",
    "2:  stp     xzr, xzr, [x0]",
    "    stp     xzr, xzr, [x0, #16]",
    "    stp     xzr, xzr, [x0, #32]",
    "    stp     xzr, xzr, [x0, #48]",
    "    add     x0, x0, #64",
    "    cmp     x0, x21",
    "    b.lo    2b",
    // The image: one level-3 entry a page, by section.
    "    adrp    x22, _start",                  // PA of the image
    "    adrp    x0, __image_level3",
    "    mov     x1, x22",
    "    adrp    x2, __text_end",
    "    ldr     x3, ={page_rx}",
    "    bl      map_pages",
    "    adrp    x2, __rodata_end",
    "    ldr     x3, ={page_ro}",
    "    bl      map_pages",
    "    adrp    x2, __stack_guard",
    "    ldr     x3, ={page_rw}",
    "    bl      map_pages",
    "    add     x0, x0, #8",                   // the guard page stays unmapped
    "    add     x1, x1, #4096",
    "    mov     x4, #{footprint}",
    "    add     x2, x22, x4",
    "    bl      map_pages",
    // Root and level 2 of the fixed VA.
    "    mov     x4, #{table}",
    "    adrp    x5, __hyp_level2",
    "    adrp    x0, __image_level3",
    "    orr     x0, x0, x4",
    "    str     x0, [x5]",
    "    adrp    x0, __mmio_level3",
    "    orr     x0, x0, x4",
    "    str     x0, [x5, #8]",
    "    adrp    x6, __root_table",
    "    orr     x0, x5, x4",
    "    str     x0, [x6, #(511 * 8)]",
    // The identity page: the first of the image, read-only and executable.
    "    adrp    x0, __identity_level3",
    "    ubfx    x1, x22, #12, #9",
    "    ldr     x3, ={page_rx}",
    "    orr     x3, x3, x22",
    "    str     x3, [x0, x1, lsl #3]",
    "    orr     x0, x0, x4",
    "    adrp    x2, __identity_level2",
    "    ubfx    x1, x22, #21, #9",
    "    str     x0, [x2, x1, lsl #3]",
    "    lsr     x1, x22, #30",
    "    cmp     x1, #511",
    "    b.hs    park",                         // loaded where the fixed VA is, or beyond 39 bits
    "    orr     x0, x2, x4",
    "    str     x0, [x6, x1, lsl #3]",
    "    bl      invalidate",
    "    bl      mmu_on",
    // At the fixed VA from here.
    "    ldr     x1, =__stack_top",
    "    mov     sp, x1",
    "    ldr     x0, =__bss_start",
    "    ldr     x1, =__bss_end",
    "3:  cmp     x0, x1",
    "    b.hs    4f",
    "    stp     xzr, xzr, [x0], #16",
    "    b       3b",
    "4:  mov     x0, x19",
    "    mov     x1, x22",
    "    mov     x29, xzr",
    "    mov     x30, xzr",
    "    b       boot_main",

    ".global _start_secondary",
    "_start_secondary:",
    "    msr     daifset, #0xf",
    "    mov     x19, x0",
    "    bl      mmu_on",
    "    ldp     x1, x0, [x19]",
    "    mov     sp, x1",
    "    mov     x29, xzr",
    "    mov     x30, xzr",
    "    b       secondary_main",

    // x0: next level-3 entry, x1: next PA, x2: end PA, x3: attributes. Advances x0 and x1.
    "map_pages:",
    "1:  cmp     x1, x2",
    "    b.hs    2f",
    "    orr     x5, x1, x3",
    "    str     x5, [x0], #8",
    "    add     x1, x1, #4096",
    "    b       1b",
    "2:  ret",

    // Invalidates x20..x21 to the point of coherency, by the smallest line of any level (CTR_EL0.DminLine).
    "invalidate:",
    "    mrs     x1, ctr_el0",
    "    ubfx    x1, x1, #16, #4",
    "    mov     x2, #4",
    "    lsl     x2, x2, x1",
    "    mov     x0, x20",
    "    dmb     sy",                           // after the stores made with the cache off
    "1:  dc      ivac, x0",
    "    add     x0, x0, x2",
    "    cmp     x0, x21",
    "    b.lo    1b",
    "    dsb     sy",
    "    ret",

    // Turns the MMU on and returns to the fixed VA of the caller. Uses x0-x3; keeps x19-x22.
    "mmu_on:",
    // Neither firmware nor reset need have set these: no host extensions, whose TCR_EL2 differs, and SP_EL2 as the stack
    // (D19.2.48, C5.2.17).
    "    mov     x0, #{hcr}",
    "    msr     hcr_el2, x0",
    "    msr     spsel, #1",
    "    isb",
    "    ldr     x0, ={mair}",
    "    msr     mair_el2, x0",
    "    ldr     x0, ={tcr}",
    "    mrs     x1, id_aa64mmfr0_el1",         // PARange; PS has no encoding above 48 bits here
    "    and     x1, x1, #0xf",
    "    mov     x2, #5",
    "    cmp     x1, x2",
    "    csel    x1, x1, x2, lo",
    "    orr     x0, x0, x1, lsl #16",
    "    msr     tcr_el2, x0",
    "    adrp    x0, __root_table",
    "    msr     ttbr0_el2, x0",
    "    ldr     x1, =vector_table",
    "    msr     vbar_el2, x1",
    // No translation or instruction of an earlier life may be used (DDI 0487, D8.16).
    "    dsb     sy",
    "    isb",
    "    tlbi    alle2",
    "    ic      iallu",
    "    dsb     nsh",
    "    isb",
    "    ldr     x0, ={sctlr}",
    "    msr     sctlr_el2, x0",
    "    isb",
    "    adrp    x0, _start",
    "    sub     x30, x30, x0",
    "    ldr     x0, =_start",
    "    add     x30, x30, x0",
    "    ret",

    "park:",
    "    wfe",
    "    b       park",
    "    .ltorg",
    ".global head_end",
    "head_end:",
    ".popsection",
    footprint = const FOOTPRINT,
    page_rx = const mmu::PAGE_RX,
    page_ro = const mmu::PAGE_RO,
    page_rw = const mmu::PAGE_RW,
    table = const mmu::TABLE,
    mair = const mmu::MAIR,
    tcr = const mmu::TCR,
    sctlr = const mmu::SCTLR,
    hcr = const 1_u64 << 31,
);

const _: () = assert!(HYP_VA >> 30 == 511, "the boot code puts the image under the last root entry");
