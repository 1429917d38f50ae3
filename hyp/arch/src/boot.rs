//! From the loader's jump to Rust with the MMU on.
//!
//! The loader leaves EL2 with MMU and caches off (Linux, Documentation/arch/arm64/booting.rst), at an address
//! of its choice. Atomics need Normal cacheable memory (Arm ARM DDI 0487, B2.9), so no Rust runs before the
//! MMU is on; the assembly here does only that: it maps the image at its link address with write xor
//! execute, and one identity page to survive the switch.

use core::arch::global_asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bulkhead_abi::psci;
use bulkhead_policy::addr::{Address, Pa, Region};
use bulkhead_policy::plan::MAX_CPUS;
use bulkhead_policy::platform::{Conduit, EnableMethod};

use crate::layout::{FOOTPRINT, HYP_VA};
use crate::mmu::Mmio;
use crate::sysreg::read_sysreg;
use crate::{barrier, cache, firmware, heap, mmu};

unsafe extern "C" {
    /// Where a secondary CPU starts, MMU off.
    static _start_secondary: u8;
}

/// What a secondary CPU needs before it runs Rust. It knows itself by its affinity only, since a pen passes no argument, and
/// looks here with its MMU on, so that what other CPUs wrote through their caches is what it sees.
#[repr(C)]
struct SecondaryStart {
    mpidr: AtomicU64,
    /// 0 where the CPU is not to start.
    stack_top: AtomicU64,
}

/// By CPU number.
static SECONDARIES: [SecondaryStart; MAX_CPUS] =
    [const { SecondaryStart { mpidr: AtomicU64::new(0), stack_top: AtomicU64::new(0) } }; MAX_CPUS];

/// A board that has a PL011 for the trace of a boot. The boot code reads it with the MMU off.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct EarlyUart {
    /// The first bytes of one of the strings in the root's `compatible`, enough to tell the board.
    pub compatible: [u8; 16],
    /// Physical address of UARTDR; 0 ends the list.
    pub data_register: u64,
}

/// Bytes of a secondary CPU's stack, its guard page included, and its alignment.
pub(crate) const STACK: usize = 0x4000;
/// The most bytes that a firmware's tree may have.
const MAX_TREE: u32 = 4 << 20;
const FDT_MAGIC: u32 = 0xd00d_feed;
/// Bytes from the start of a tree's structure block that are searched for the board's name.
const TRACE_SCAN: usize = 256;

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

/// Gives CPU number `cpu`, of affinity `mpidr`, a stack to start on. Where the heap is used up it will not arrive.
pub fn prepare_secondary(cpu: usize, mpidr: u64) {
    let Some((stack, start)) = heap::allocate(STACK, STACK).zip(SECONDARIES.get(cpu)) else { return };
    mmu::make_guard_page(stack as u64);
    start.mpidr.store(mpidr, Ordering::Relaxed);
    start.stack_top.store(stack as u64 + STACK as u64, Ordering::Release);
}

/// Has the CPU of affinity `mpidr` start in `secondary_main`, with its number, if it is prepared; CPUs that share a release address
/// all come, and those that are not prepared wait for ever in the boot code. [`has_arrived`] tells whether it worked.
pub fn start_secondary(method: EnableMethod, conduit: Option<Conduit>, mpidr: u64) {
    let entry = mmu::physical_address(&raw const _start_secondary as u64);
    match (method, conduit) {
        (EnableMethod::Psci, Some(conduit)) => {
            barrier::complete_all();
            // SAFETY: the CPU starts in this image, on a stack of its own.
            unsafe { firmware::call(conduit, psci::CPU_ON, [mpidr, entry, 0]) };
        }
        (EnableMethod::Psci, None) => {}
        (EnableMethod::SpinTable { release }, _) => release_from_pen(release, entry),
    }
}

/// Writes `entry` where CPUs in a firmware's pen look for it (Linux, Documentation/arch/arm64/booting.rst).
///
/// They look with their caches off, that is as at Device memory. It is written as Device memory too, so that reader and
/// writer agree (DDI 0487, B2.8 on mismatched attributes) and nothing has to be cleaned afterwards. What a cache may
/// hold of the line from before goes first, lest it be written back over the address later.
fn release_from_pen(release: Pa, entry: u64) {
    let Some(word) = Region::new(release, 8).filter(|_| release.is_aligned(8)).and_then(Mmio::map) else {
        return;
    };
    cache::clean_and_invalidate(word.address());
    word.write64(0, entry);
    barrier::complete_all();
    barrier::send_event();
}

static ARRIVED: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// CPU number `cpu`, which calls, is ready for what other CPUs ask of it.
pub fn arrive(cpu: usize) {
    if let Some(arrived) = ARRIVED.get(cpu) {
        arrived.store(true, Ordering::Release);
    }
}

/// Waits until CPU number `cpu` has arrived, at most until the generic timer's `deadline`. Whether it has.
#[must_use]
pub fn has_arrived(cpu: usize, deadline: u64) -> bool {
    while !ARRIVED.get(cpu).is_some_and(|arrived| arrived.load(Ordering::Acquire)) {
        if is_past(deadline) {
            return false;
        }
    }
    true
}

/// Whether the generic timer has passed `deadline`.
#[must_use]
pub fn is_past(deadline: u64) -> bool {
    read_sysreg!("cntpct_el0") > deadline
}

/// The count of the generic timer in a second.
#[must_use]
pub fn in_a_second() -> u64 {
    read_sysreg!("cntpct_el0") + read_sysreg!("cntfrq_el0")
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
    "    mov     x19, x0",                      // the loader's device tree
    "    bl      find_early_uart",
    "    mrs     x0, CurrentEL",
    "    cmp     x0, #(2 << 2)",
    "    b.ne    wrong_level",
    "    mov     w0, #'B'",
    "    bl      trace",
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
    "    mov     w0, #'u'",
    "    bl      trace",
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
    "    mov     x2, x23",
    "    mov     x29, xzr",
    "    mov     x30, xzr",
    "    b       boot_main",

    ".global _start_secondary",
    "_start_secondary:",
    "    msr     daifset, #0xf",
    "    mrs     x0, CurrentEL",
    "    cmp     x0, #(2 << 2)",
    "    b.ne    park",
    "    bl      mmu_on",
    "    mrs     x1, mpidr_el1",
    "    and     x2, x1, #0xffffff",
    "    and     x1, x1, #0xff00000000",
    "    orr     x1, x1, x2",
    "    adrp    x2, {secondaries}",
    "    add     x2, x2, :lo12:{secondaries}",
    "    mov     x0, xzr",
    "1:  ldp     x3, x4, [x2], #16",
    "    cmp     x3, x1",
    "    ccmp    x4, #0, #4, eq",
    "    b.ne    2f",
    "    add     x0, x0, #1",
    "    cmp     x0, #{max_cpus}",
    "    b.lo    1b",
    "    b       park",
    "2:  mov     sp, x4",
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

    // x23: UARTDR of the board's early PL011, or 0. The board is known by the first words of the tree's structure block, which
    // has the root's properties at its start. The MMU is off, so no load may be unaligned.
    "find_early_uart:",
    "    mov     x23, xzr",
    "    cbz     x19, 4f",
    "    tst     x19, #7",
    "    b.ne    4f",
    "    ldp     w1, w2, [x19]",                // magic, totalsize
    "    ldr     w3, [x19, #8]",                // off_dt_struct
    "    ldr     w4, ={magic}",
    "    cmp     w1, w4",
    "    b.ne    4f",
    "    rev     w2, w2",
    "    rev     w3, w3",
    "    sub     x2, x2, x3",
    "    cmp     x2, #{scanned}",
    "    b.lt    4f",
    "    tst     x3, #3",
    "    b.ne    4f",
    "    add     x1, x19, x3",
    "    adrp    x2, EARLY_UARTS",
    "    add     x2, x2, :lo12:EARLY_UARTS",
    "1:  ldr     x3, [x2, #16]",
    "    cbz     x3, 4f",
    "    ldp     w4, w5, [x2], #8",
    "    ldp     w6, w7, [x2], #16",
    "    mov     x8, x1",
    "    mov     w9, #({scanned} / 4 - 3)",
    "2:  ldr     w10, [x8], #4",
    "    cmp     w10, w4",
    "    b.eq    5f",
    "3:  subs    w9, w9, #1",
    "    b.ne    2b",
    "    b       1b",
    "4:  ret",
    "5:  ldp     w10, w11, [x8]",
    "    ldr     w12, [x8, #8]",
    "    cmp     w10, w5",
    "    ccmp    w11, w6, #0, eq",
    "    ccmp    w12, w7, #0, eq",
    "    b.ne    3b",
    "    mov     x23, x3",
    "    ret",

    // Sends w0 on the early PL011, unless its FIFO stays full for long.
    "trace:",
    "    cbz     x23, 2f",
    "    mov     w2, #0x10000",
    "1:  ldr     w1, [x23, #0x18]",             // UARTFR
    "    tbz     w1, #5, 3f",                   // TXFF
    "    subs    w2, w2, #1",
    "    b.ne    1b",
    "2:  ret",
    "3:  str     w0, [x23]",
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

    // x0: CurrentEL. Sends its number.
    "wrong_level:",
    "    lsr     w0, w0, #2",
    "    add     w0, w0, #'0'",
    "    bl      trace",
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
    magic = const FDT_MAGIC.swap_bytes(),
    scanned = const TRACE_SCAN,
    secondaries = sym SECONDARIES,
    max_cpus = const MAX_CPUS,
);

const _: () = assert!(HYP_VA >> 30 == 511, "the boot code puts the image under the last root entry");
