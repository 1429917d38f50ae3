//! What the language wants of a binary.

use core::panic::PanicInfo;

/// Nothing here can panic, but the language wants an answer.
#[panic_handler]
fn panic(_info: &PanicInfo<'_>) -> ! {
    loop {
        core::hint::spin_loop();
    }
}
