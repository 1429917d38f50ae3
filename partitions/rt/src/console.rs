//! The PL011 as a printer (PrimeCell UART DDI 0183). Like many images it never programs the UART, it only
//! sends: firmware left it usable.

use core::fmt::{self, Write};

use spin::Mutex;

use crate::machine::machine;
use crate::mmio;

/// Address of the PL011.
#[must_use]
pub fn pl011() -> u64 {
    machine().uart
}

/// Offset of the data register.
pub const UARTDR: u64 = 0;
/// Offset of the flag register.
pub const UARTFR: u64 = 0x18;

const TRANSMIT_FIFO_FULL: u32 = 1 << 5;

struct Pl011;

impl Write for Pl011 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while mmio::read32(pl011() + UARTFR) & TRANSMIT_FIFO_FULL != 0 {
                core::hint::spin_loop();
            }
            mmio::write8(pl011() + UARTDR, byte);
        }
        Ok(())
    }
}

static CONSOLE: Mutex<Pl011> = Mutex::new(Pl011);

/// Prints one line; other CPUs' lines do not get into it. Not for interrupt handlers: they would wait for the
/// line that they interrupted.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    // A PL011 cannot fail.
    let _ = writeln!(CONSOLE.lock(), "{arguments}");
}

/// Prints one line whoever is printing: for the last words.
pub(crate) fn print_line_now(arguments: fmt::Arguments<'_>) {
    let _ = writeln!(Pl011, "{arguments}");
}

/// Prints one line on the console, formatted as by `format!`.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => {
        $crate::console::print_line(format_args!($($argument)*))
    };
}
