//! System registers that `aarch64-cpu` lacks, or that this crate wants by number.

/// Reads the system register of this assembler name.
macro_rules! read_sysreg {
    ($name:expr) => {{
        #[inline(always)]
        fn read() -> u64 {
            let value: u64;
            // SAFETY: reading this register changes no state that Rust knows of.
            unsafe {
                core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags))
            };
            value
        }
        read()
    }};
}

/// Writes the system register of this assembler name. The caller says in a comment why that is sound.
macro_rules! write_sysreg {
    ($name:literal, $value:expr) => {{
        let value: u64 = $value;
        core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags))
    }};
}

pub(crate) use {read_sysreg, write_sysreg};
