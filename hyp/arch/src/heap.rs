//! The boot heap: what the image leaves of its 2 MiB.
//!
//! Everything that lives as long as the machine runs is allocated before the first guest starts.

use core::alloc::{GlobalAlloc, Layout};
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use buddy_system_allocator::Heap;
use spin::Mutex;

struct BootHeap(Mutex<Heap<22>>);

#[global_allocator]
static HEAP: BootHeap = BootHeap(Mutex::new(Heap::new()));
/// Something asked for more than is left.
static USED_UP: AtomicBool = AtomicBool::new(false);

// SAFETY: forwards to a buddy allocator under a lock, which upholds the contract.
unsafe impl GlobalAlloc for BootHeap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        self.0.lock().alloc(layout).map_or_else(
            |()| {
                USED_UP.store(true, Ordering::Relaxed);
                core::ptr::null_mut()
            },
            NonNull::as_ptr,
        )
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if let Some(pointer) = NonNull::new(pointer) {
            // SAFETY: the caller says that `pointer` came from `alloc` with this layout.
            unsafe { self.0.lock().dealloc(pointer, layout) };
        }
    }
}

/// Makes the heap usable. Once, before anything is allocated.
pub fn init() {
    let range = crate::layout::heap();
    let mut heap = HEAP.0.lock();
    assert!(heap.stats_total_bytes() == 0);
    // SAFETY: the linker script keeps the range free, the boot code mapped it, and the assertion says that the heap has
    // not been given it before.
    unsafe { heap.add_to_heap(range.start, range.end) };
}

/// Whether a panic is for want of memory: what was handed over at boot is larger than the hypervisor can hold.
#[must_use]
pub fn is_used_up() -> bool {
    USED_UP.load(Ordering::Relaxed)
}

/// `size` bytes at a multiple of `align`, for good and not zeroed; `None` where the heap is used up.
#[must_use]
pub fn allocate(size: usize, align: usize) -> Option<*mut u8> {
    HEAP.0.lock().alloc(Layout::from_size_align(size, align).ok()?).ok().map(NonNull::as_ptr)
}
