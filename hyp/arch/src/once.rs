//! What is set once, at boot, and then read by all CPUs.
//!
//! One pointer, which costs a reader one load and a test. What it points to is leaked, so it stays.

use alloc::boxed::Box;
use core::ptr;
use core::sync::atomic::{AtomicPtr, Ordering};

/// A place that is empty until it is set, and then never changes.
pub struct Once<T> {
    value: AtomicPtr<T>,
}

impl<T: Send + Sync + 'static> Once<T> {
    /// An empty place.
    #[must_use]
    pub const fn new() -> Self {
        Self { value: AtomicPtr::new(ptr::null_mut()) }
    }

    /// What the place holds, which is `value` unless it was set before.
    pub fn set(&self, value: T) -> &'static T {
        let new = ptr::from_mut(Box::leak(Box::new(value)));
        match self.value.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked, and from here on there are shared references only.
            Ok(_) => unsafe { &*new },
            // SAFETY: not null, or the exchange would have succeeded; so it is what another call of `set` stored, which is leaked.
            Err(before) => unsafe { &*before },
        }
    }

    /// What it was set to.
    #[inline(always)]
    pub fn get(&self) -> Option<&'static T> {
        // SAFETY: null, or what `set` stored: a leaked `T` of which there are shared references only, complete by the pair of
        // Release and Acquire.
        unsafe { self.value.load(Ordering::Acquire).as_ref() }
    }
}

impl<T: Send + Sync + 'static> Default for Once<T> {
    fn default() -> Self {
        Self::new()
    }
}
