//! System registers by name.

/// Reads the system register `$name`, a string literal (or `concat!` of such) as the assembler knows it.
///
/// Where the read is undefined and caught, the value is all ones.
#[macro_export]
macro_rules! read_sysreg {
    ($name:expr) => {{
        let value: u64;
        // SAFETY: reading a system register changes no memory and no register that Rust knows of.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), inlateout(reg) u64::MAX => value, options(nostack));
        }
        value
    }};
}

/// Writes the system register `$name`, a string literal, and synchronizes.
///
/// Only registers of the interrupt controller (`icc_`), the timers (`cnt`), the performance monitor (`pm`) and
/// OS lock or debug (`os`, `md`, `db`) are accepted, at compile time: they can change neither memory nor the
/// program's flow behind Rust's back.
#[macro_export]
macro_rules! write_sysreg {
    ($name:expr, $value:expr) => {{
        const { assert!($crate::sysreg::is_harmless($name), "not a register for safe code") };
        let value: u64 = $value;
        // SAFETY: `is_harmless` accepted the register.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), "isb", in(reg) value, options(nostack));
        }
    }};
}

/// Whether [`write_sysreg!`](crate::write_sysreg) may write the register.
#[must_use]
pub const fn is_harmless(name: &str) -> bool {
    matches!(
        name.as_bytes(),
        [b'i', b'c', b'c', b'_', ..]
            | [b'c', b'n', b't', ..]
            | [b'p', b'm', ..]
            | [b'o', b's', ..]
            | [b'm', b'd', ..]
            | [b'd', b'b', ..]
    )
}
