//! The boot heap: what the image leaves of its 2 MiB.
//!
//! Everything is allocated before the first guest starts, most of it for good. So memory is handed out front to back and never
//! taken back: what is freed during a boot is little, and where freeing does nothing the compiler leaves out all that leads to it.

use core::alloc::{GlobalAlloc, Layout};
use core::ops::Range;
use core::ptr;

use spin::Mutex;

/// Addresses that are still free.
struct BootHeap(Mutex<Range<usize>>);

#[global_allocator]
static HEAP: BootHeap = BootHeap(Mutex::new(0..0));

// SAFETY: `take` gives each byte of the heap away once.
unsafe impl GlobalAlloc for BootHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.take(layout).unwrap_or(ptr::null_mut())
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}
}

impl BootHeap {
    #[inline(never)]
    fn take(&self, layout: Layout) -> Option<*mut u8> {
        let mut free = self.0.lock();
        let start = free.start.checked_next_multiple_of(layout.align())?;
        let end = start.checked_add(layout.size()).filter(|&end| end <= free.end)?;
        free.start = end;
        Some(ptr::with_exposed_provenance_mut(start))
    }
}

/// Makes the heap usable. Once, before anything is allocated.
pub fn init() {
    let mut free = HEAP.0.lock();
    assert!(free.end == 0);
    // The linker script keeps the range free, and the boot code mapped it.
    *free = crate::layout::heap();
}

/// `size` bytes at a multiple of `align`, for good and not zeroed; `None` where the heap is used up.
#[must_use]
pub fn allocate(size: usize, align: usize) -> Option<*mut u8> {
    HEAP.take(Layout::from_size_align(size, align).ok()?)
}
