//! EL2's own translation tables: what the boot code did not map.
//!
//! The level-2 table of the fixed VA is shared by all CPUs. Entries go from invalid to valid without ceremony but
//! a barrier, and from valid to invalid with a TLB invalidation before the VA is used again (Arm ARM DDI
//! 0487, D8.16.1), so no live entry is ever changed into another.

use core::arch::asm;

use bulkhead_policy::addr::{BLOCK_2M, PAGE_SIZE, Pa, Region};
use spin::Mutex;

use crate::barrier;
use crate::heap;
use crate::layout::{FOOTPRINT, HYP_VA, MMIO_VA, WINDOW_SIZE, WINDOW_VA, is_foreign};
use crate::percpu::PerCpu;

const VALID: u64 = 1;
/// [`PAGE_SIZE`] in the type of an allocation's size.
pub const PAGE: usize = PAGE_SIZE as usize;

/// Level-3 page or next-level table.
pub const TABLE: u64 = 0b11;
const AF: u64 = 1 << 10;
const INNER_SHAREABLE: u64 = 0b11 << 8;
/// AP[1] is RES1 in a regime with one privilege level.
const AP_RES1: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 7;
const XN: u64 = 1 << 54;
const ATTR_NORMAL: u64 = 1 << 2;
const ATTR_NON_CACHEABLE: u64 = 2 << 2;

const NORMAL: u64 = VALID | AF | INNER_SHAREABLE | AP_RES1 | ATTR_NORMAL;
/// What the firmware left: constants.
const FIRMWARE: u64 = NORMAL | READ_ONLY | XN;
/// A partition's memory while it is loaded (see [`Window`]). Non-cacheable memory is outer shareable whatever SH says.
const LOADING: u64 = VALID | AF | AP_RES1 | ATTR_NON_CACHEABLE | XN;
/// A level-3 page that is executed.
pub const PAGE_RX: u64 = NORMAL | TABLE | READ_ONLY;
/// A level-3 page of constants.
pub const PAGE_RO: u64 = PAGE_RX | XN;
/// A level-3 page of data.
pub const PAGE_RW: u64 = NORMAL | TABLE | XN;
const PAGE_DEVICE: u64 = TABLE | AF | AP_RES1 | XN;

/// MAIR_EL2: attribute 0 Device-nGnRE, attribute 1 Normal write-back, attribute 2 Normal Non-cacheable.
pub const MAIR: u64 = 0x44_ff04;
/// TCR_EL2: 39-bit VA, 4 KiB granule, walks write-back and inner shareable; PS is added at run time.
pub const TCR: u64 = (1 << 31) | (1 << 23) | (0b11 << 12) | (1 << 10) | (1 << 8) | 25;
/// SCTLR_EL2: RES1 bits, MMU, data and instruction caches, SP alignment check, write implies execute-never.
pub const SCTLR: u64 = 0x30c5_0830 | (1 << 19) | (1 << 12) | (1 << 3) | (1 << 2) | 1;

/// Level-2 entries between the loading windows and the firmware's data.
const FIRMWARE_FIRST: usize = 128;
const LEVEL2_END: usize = 512;

#[repr(C, align(4096))]
struct Table([u64; 512]);

unsafe extern "C" {
    static mut __hyp_level2: Table;
    static mut __mmio_level3: Table;
    static mut __image_level3: Table;
}

/// What has been handed out of the VA space.
struct Used {
    mmio_pages: usize,
    firmware: usize,
}

static USED: Mutex<Used> = Mutex::new(Used { mmio_pages: 0, firmware: FIRMWARE_FIRST });

/// Writes entry `index` of a live table.
///
/// # Safety
/// `table` is one of EL2's tables, and the change maps no memory that Rust uses otherwise.
unsafe fn write_entry(table: *mut Table, index: usize, entry: u64) {
    assert!(index < 512);
    // SAFETY: the index is within the table; the store is volatile because the walker reads it.
    unsafe { (&raw mut (*table).0).cast::<u64>().add(index).write_volatile(entry) };
}

/// Registers of a device, mapped for good.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: *mut u8,
}

/// No offset reaches further, so that no access leaves the VA space for registers: as much of its end stays unmapped. An
/// offset beyond the device faults, or reaches the registers of another; no Rust object has either.
const MMIO_REACH: usize = 0x1_0000;
const MMIO_PAGES: usize = (BLOCK_2M as usize - MMIO_REACH) / PAGE;

// SAFETY: an `Mmio` is an address; each access is a single volatile load or store.
unsafe impl Send for Mmio {}
// SAFETY: as above.
unsafe impl Sync for Mmio {}

impl Mmio {
    /// Maps `region`, widened to whole pages, as Device-nGnRE. `None` where the VA space for registers is used up.
    #[must_use]
    pub fn map(region: Region<Pa>) -> Option<Self> {
        let within = region.start().raw() & (PAGE_SIZE - 1);
        let first = region.start().raw() - within;
        let pages = (within + region.size()).div_ceil(PAGE_SIZE) as usize;
        let mut used = USED.lock();
        let slot = used.mmio_pages;
        if pages > MMIO_PAGES - slot || !is_foreign(region) {
            return None;
        }
        used.mmio_pages += pages;
        for page in 0..pages {
            let pa = first + page as u64 * PAGE_SIZE;
            // SAFETY: the slots were free, so nothing that Rust uses changes; the memory is a device's.
            unsafe { write_entry(&raw mut __mmio_level3, slot + page, pa | PAGE_DEVICE) };
        }
        barrier::complete_stores();
        barrier::context_synchronization();
        let va = MMIO_VA + slot as u64 * PAGE_SIZE + within;
        Some(Self { base: va as *mut u8 })
    }

    /// Where the register of `size` bytes at `offset` is.
    #[inline(always)]
    fn register(&self, offset: usize, size: usize) -> *mut u8 {
        if offset > MMIO_REACH - size {
            no_such_register();
        }
        self.base.wrapping_add(offset)
    }

    /// Reads the 32-bit register at `offset`.
    #[inline(always)]
    #[must_use]
    pub fn read32(&self, offset: usize) -> u32 {
        let value: u32;
        // SAFETY: see `MMIO_REACH`. A plain `ldr` carries a syndrome, should a hypervisor run below.
        unsafe {
            asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) self.register(offset, 4), options(nostack, preserves_flags))
        };
        value
    }

    /// Writes the 32-bit register at `offset`.
    #[inline(always)]
    pub fn write32(&self, offset: usize, value: u32) {
        // SAFETY: see `MMIO_REACH`.
        unsafe {
            asm!("str {0:w}, [{1}]", in(reg) value, in(reg) self.register(offset, 4), options(nostack, preserves_flags))
        };
    }

    /// Writes the byte at `offset`.
    #[inline(always)]
    pub fn write8(&self, offset: usize, value: u8) {
        // SAFETY: as in `write32`.
        unsafe {
            asm!("strb {0:w}, [{1}]", in(reg) value, in(reg) self.register(offset, 1), options(nostack, preserves_flags))
        };
    }

    /// Where EL2 sees the registers, for the assembly.
    pub(crate) fn address(&self) -> u64 {
        self.base as u64
    }

    /// Reads the 64-bit register at `offset`.
    #[inline(always)]
    #[must_use]
    pub fn read64(&self, offset: usize) -> u64 {
        let value: u64;
        // SAFETY: as in `read32`.
        unsafe {
            asm!("ldr {0}, [{1}]", out(reg) value, in(reg) self.register(offset, 8), options(nostack, preserves_flags))
        };
        value
    }

    /// Writes the 64-bit register at `offset`.
    #[inline(always)]
    pub fn write64(&self, offset: usize, value: u64) {
        // SAFETY: as in `write32`.
        unsafe {
            asm!("str {0}, [{1}]", in(reg) value, in(reg) self.register(offset, 8), options(nostack, preserves_flags))
        };
    }
}

/// One place for all of them: each access stays small.
#[cold]
#[inline(never)]
fn no_such_register() -> ! {
    panic!("an access beyond a device's registers");
}

/// Maps what firmware or loader left in memory, for good and read-only: its device tree, the bundle.
///
/// The level-3 tables for the two ends come from the boot heap. `None` where `region` is larger than the VA space for it or
/// the heap is used up.
/// The caller reserves the region, so that no partition gets it: as long as EL2 runs nobody writes it.
#[must_use]
pub fn map_firmware_data(region: Region<Pa>) -> Option<&'static [u8]> {
    if !is_foreign(region) {
        return None;
    }
    let start = region.start().raw();
    let first_block = start & !(BLOCK_2M - 1);
    let blocks = ((start - first_block) + region.size()).div_ceil(BLOCK_2M) as usize;
    let mut used = USED.lock();
    let index = used.firmware;
    if blocks > LEVEL2_END - index {
        return None;
    }
    used.firmware += blocks;
    let last = region.last().raw();
    for block in 0..blocks {
        let pa = first_block + block as u64 * BLOCK_2M;
        let from = pa.max(start & !(PAGE_SIZE - 1));
        let to = (pa + BLOCK_2M - 1).min(last);
        let level3 = if to - from + 1 == BLOCK_2M { None } else { Some(new_table()?) };
        // SAFETY: the entry was free; the memory is not EL2's; `level3` is a new table.
        unsafe { map_block(index + block, pa, from..=to, level3, FIRMWARE) };
    }
    barrier::complete_stores();
    barrier::context_synchronization();
    let va = HYP_VA + index as u64 * BLOCK_2M + (start - first_block);
    // SAFETY: just mapped, and reserved: nobody writes it.
    Some(unsafe { core::slice::from_raw_parts(va as *const u8, region.size() as usize) })
}

/// Maps the part `range` of the 2 MiB block at `pa` by level-2 entry `index` with these attributes: by a block descriptor where no
/// `level3` is given.
///
/// # Safety
/// The entry is free, `level3` is an empty table that nothing else uses, and the memory may be mapped.
unsafe fn map_block(
    index: usize,
    pa: u64,
    range: core::ops::RangeInclusive<u64>,
    level3: Option<*mut Table>,
    attributes: u64,
) {
    // SAFETY: see this function's contract.
    unsafe {
        match level3 {
            None => write_entry(&raw mut __hyp_level2, index, pa | attributes),
            Some(table) => {
                for page in pages_of(pa, &range) {
                    write_entry(table, page, (pa + page as u64 * PAGE_SIZE) | TABLE | attributes);
                }
                barrier::complete_stores();
                write_entry(&raw mut __hyp_level2, index, physical_address(table as u64) | TABLE);
            }
        }
    }
}

/// The pages of the 2 MiB block at `pa` that `range`, which lies within it, touches.
fn pages_of(pa: u64, range: &core::ops::RangeInclusive<u64>) -> core::ops::Range<usize> {
    let page = |address: u64| ((address - pa) / PAGE_SIZE) as usize;
    page(*range.start())..page(*range.end()) + 1
}

/// An empty table from the boot heap.
fn new_table() -> Option<*mut Table> {
    let table = heap::allocate(PAGE, PAGE)?;
    // SAFETY: a page of its own, just allocated.
    unsafe { table.write_bytes(0, PAGE) };
    Some(table.cast())
}

/// The physical address of something in the image or the boot heap.
#[must_use]
pub fn physical_address(va: u64) -> u64 {
    assert!((HYP_VA..HYP_VA + FOOTPRINT).contains(&va));
    let par: u64;
    // SAFETY: AT and reading PAR_EL1 change no memory; PAR_EL1 is not live in any guest while EL2 runs this, because
    // it is called at boot and from a CPU that runs no guest.
    unsafe {
        asm!("at s1e2r, {0}", "isb", "mrs {1}, par_el1", in(reg) va, out(reg) par, options(nostack, preserves_flags));
    }
    assert!(par & 1 == 0);
    (par & 0x0000_ffff_ffff_f000) | (va & 0xfff)
}

/// Unmaps the page at `va` of the boot heap, so that a stack that grows into it faults.
pub fn make_guard_page(va: u64) {
    assert!((HYP_VA..HYP_VA + FOOTPRINT).contains(&va));
    // SAFETY: the caller allocated this page to be a guard; no Rust object is in it.
    unsafe {
        write_entry(&raw mut __image_level3, ((va - HYP_VA) / PAGE_SIZE) as usize, 0);
        asm!("dsb ishst", "tlbi vae2is, {}", "dsb ish", "isb", in(reg) va >> 12, options(nostack, preserves_flags));
    }
}

/// This CPU's view of memory that it is loading: at most one 2 MiB block at a time.
///
/// Non-cacheable, because the guest starts without caches: what is stored here is in memory, and no line of it is in a
/// cache, also none that speculation brought in, to hide later what the guest itself stores uncached (Arm ARM DDI
/// 0487, B2.8 on mismatched attributes). What was cached before is the loader's to clean first (see [`crate::cache`]).
pub struct Window {
    index: usize,
    va: u64,
    level3: *mut Table,
}

impl Window {
    /// The window of the CPU that calls; it has one. `None` where there is no heap for its table.
    #[must_use]
    pub fn new() -> Option<Self> {
        let this_cpu = PerCpu::current();
        assert!(!this_cpu.has_window.replace(true));
        let level3 = new_table()?;
        let first = (WINDOW_VA - HYP_VA) / WINDOW_SIZE;
        let index = first as usize + this_cpu.cpu();
        assert!(index < FIRMWARE_FIRST);
        Some(Self { index, va: WINDOW_VA + this_cpu.cpu() as u64 * WINDOW_SIZE, level3 })
    }

    /// Shows `region`, which lies within one 2 MiB block of a partition's RAM while none of its vCPUs runs, to `with`.
    pub fn with<R>(&mut self, region: Region<Pa>, with: impl FnOnce(&mut [u8]) -> R) -> R {
        let (start, last) = (region.start().raw(), region.last().raw());
        let block = start & !(BLOCK_2M - 1);
        assert!(last - block < BLOCK_2M && is_foreign(region));
        let whole = region.size() == BLOCK_2M;
        // SAFETY: the entry is this window's own and free, because it is cleared below; the memory is not EL2's.
        unsafe { map_block(self.index, block, start..=last, (!whole).then_some(self.level3), LOADING) };
        barrier::complete_stores();
        barrier::context_synchronization();
        let va = self.va + (start - block);
        // SAFETY: mapped until the end of this function, and only this CPU has this VA. The RAM belongs to a partition that
        // does not run and is loaded by one CPU.
        let result = with(unsafe { core::slice::from_raw_parts_mut(va as *mut u8, region.size() as usize) });
        // SAFETY: the entry is this CPU's window, and nothing refers to it any more. Other CPUs walk the same table and may have
        // cached the translation speculatively, so all of EL2's entries go everywhere (DDI 0487, D8.16).
        unsafe {
            write_entry(&raw mut __hyp_level2, self.index, 0);
            if !whole {
                for page in pages_of(block, &(start..=last)) {
                    write_entry(self.level3, page, 0);
                }
            }
            asm!("dsb ishst", "tlbi alle2is", "dsb ish", "isb", options(nostack, preserves_flags));
        }
        result
    }
}
