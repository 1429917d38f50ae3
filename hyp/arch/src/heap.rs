//! The boot heap: what the image leaves of its 2 MiB.
//!
//! Everything that lives as long as the machine runs is allocated before the first guest starts. Nothing is given
//! back: a boot leaves little behind that it does not keep, and code that frees would be a part of the image.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr;
use core::sync::atomic::{AtomicUsize, Ordering};

/// Hands out the heap from its start to its end.
struct BootHeap {
    /// Address of the first byte that nobody has; 0 before [`init`].
    next: AtomicUsize,
}

#[global_allocator]
static HEAP: BootHeap = BootHeap { next: AtomicUsize::new(0) };

impl BootHeap {
    /// The address of `size` bytes at a multiple of `align`, a power of two; 0 where the heap has none.
    #[inline(never)]
    fn take(&self, size: usize, align: usize) -> usize {
        let heap = crate::layout::heap();
        let place = |next: usize| next.checked_next_multiple_of(align).filter(|_| next != 0);
        let taken = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |next| {
            place(next)?.checked_add(size).filter(|&end| end <= heap.end)
        });
        taken.ok().and_then(place).unwrap_or(0)
    }
}

// SAFETY: each call moves `next`, in one atomic step, behind what it hands out, so that no byte of the heap is handed out
// twice; `layout::heap` is a range that the linker script keeps free and the boot code mapped.
unsafe impl GlobalAlloc for BootHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ptr::with_exposed_provenance_mut(self.take(layout.size(), layout.align()))
    }

    unsafe fn dealloc(&self, _: *mut u8, _: Layout) {}

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // What was handed out last grows where it is.
        let end = pointer.addr() + layout.size();
        if size > layout.size()
            && self.next.load(Ordering::Relaxed) == end
            && self.take(size - layout.size(), 1) == end
        {
            return pointer;
        }
        let moved: *mut u8 = ptr::with_exposed_provenance_mut(self.take(size, layout.align()));
        if !moved.is_null() {
            // SAFETY: the caller says that `pointer` has as many bytes as `layout`; `moved` has `size`, and nobody else has them.
            unsafe { ptr::copy_nonoverlapping(pointer, moved, layout.size().min(size)) };
        }
        moved
    }
}

/// Makes the heap usable. Once, before anything is allocated.
pub fn init() {
    let start = crate::layout::heap().start;
    let before = HEAP.next.swap(start, Ordering::Relaxed);
    assert!(before == 0);
}

/// `size` bytes at a multiple of `align`, for good and not zeroed; `None` where the heap is used up.
#[must_use]
pub fn allocate(size: usize, align: usize) -> Option<*mut u8> {
    let address = HEAP.take(size, align);
    (address != 0).then(|| ptr::with_exposed_provenance_mut(address))
}
