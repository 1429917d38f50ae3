//! The hypervisor's own address space: one 39-bit map, the same on every board.
//!
//! | VA | what |
//! |---|---|
//! | `HYP_VA` | image, stacks and boot heap, 2 MiB, by section |
//! | `MMIO_VA` | registers of the GIC, the console and what else EL2 uses, and the words for which CPUs wait in a pen, page by page |
//! | `WINDOW_VA` + 2 MiB × CPU | what this CPU is loading, nothing at other times |
//! | PA of the image's first page | the identity page of the boot code, read-only and executable |

use bulkhead_policy::addr::{Pa, Region};

/// Where the image runs: the last GiB of the 39-bit space. `linker/hyp.ld` has the same figure.
pub const HYP_VA: u64 = 0x7f_c000_0000;
/// Bytes from the image's first byte that belong to the hypervisor.
pub const FOOTPRINT: u64 = 0x20_0000;
/// Where registers are mapped.
pub const MMIO_VA: u64 = HYP_VA + 0x20_0000;
/// Where loading windows are mapped.
pub const WINDOW_VA: u64 = HYP_VA + 0x40_0000;
/// Bytes of one CPU's window.
pub const WINDOW_SIZE: u64 = 0x20_0000;

unsafe extern "C" {
    static __image_start: u8;
    static __heap_start: u8;
}

/// VA range of the boot heap: what the image leaves of its footprint.
#[must_use]
pub fn heap() -> core::ops::Range<usize> {
    let start = &raw const __heap_start as usize;
    let image = &raw const __image_start as usize;
    start..image + FOOTPRINT as usize
}

/// What follows the hypervisor's 2 MiB in an image at `image` that claims more: the bundle, where a loader takes one file only.
#[must_use]
pub fn appended(image: u64) -> Option<Region<Pa>> {
    // SAFETY: the image begins with its header, whose third field is image_size (Linux, Documentation/arch/arm64/booting.rst).
    // The tool may have changed it, so the compiler must not take what it sees for it.
    let claimed = unsafe { (&raw const __image_start).cast::<u64>().add(2).read_volatile() };
    Region::new(Pa::new(image + FOOTPRINT), claimed.checked_sub(FOOTPRINT)?)
}

/// Whether a region has nothing of the hypervisor's 2 MiB in it, so that neither mapping it nor giving it to a guest touches
/// what Rust owns.
#[must_use]
pub fn is_foreign(region: Region<Pa>) -> bool {
    let image = Pa::new(crate::mmu::physical_address(HYP_VA));
    Region::new(image, FOOTPRINT).is_some_and(|own| !own.overlaps(region))
}
