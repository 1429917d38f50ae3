//! The package around the demo's FreeRTOS: everything that runs is C, in `board/` and `app/`.
//!
//! Rust gives what cargo wants of a binary, and the C code its `memcpy` and `memset` from
//! `compiler_builtins`. The image is linked for bare QEMU `virt` and knows nothing of Bulkhead.
#![no_std]
#![no_main]

use core::panic::PanicInfo;

/// Nothing here can panic, but the language wants an answer.
#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
