//! The package around the demo's FreeRTOS: everything that runs is C, in `board/` and `app/`.
//!
//! Rust gives what cargo wants of a binary, and the C code its `memcpy` and `memset` from
//! `compiler_builtins`. The image is linked for a bare board and knows nothing of Bulkhead; there is a binary for
//! each board, as FreeRTOS has its addresses compiled in. This one is for QEMU `virt` with a GICv3.
#![no_std]
#![no_main]

mod panic;
