//! Compiles the FreeRTOS kernel, its GICv3 port and this partition's C into one archive.
//!
//! The compiler is Debian's cross compiler for Linux: FreeRTOS needs no C library beyond the few functions
//! in `libc/`, so a bare-metal tool chain would add nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const COMPILER: &str = "aarch64-linux-gnu-gcc";
const ARCHIVER: &str = "aarch64-linux-gnu-ar";

/// Kernel sources, relative to the kernel's directory.
const KERNEL: [&str; 6] = [
    "list.c",
    "queue.c",
    "tasks.c",
    "portable/MemMang/heap_4.c",
    "portable/GCC/ARM_AARCH64_SRE/port.c",
    "portable/GCC/ARM_AARCH64_SRE/portASM.S",
];

/// Our sources, relative to this package.
const OURS: [&str; 10] = [
    "board/start.S",
    "board/gic.c",
    "board/pl011.c",
    "board/system.c",
    "board/tick.c",
    "app/console.c",
    "app/control.c",
    "app/main.c",
    "app/monitor.c",
    "app/shell.c",
];

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    for path in ["build.rs", "freertos.ld", "board", "app", "libc"] {
        println!("cargo::rerun-if-changed={path}");
    }
    let target = variable("TARGET")?;
    if target != "aarch64-unknown-none-softfloat" {
        return Err(format!(
            "bulkhead-freertos is a guest and cannot be built for {target}: \
             add --target aarch64-unknown-none-softfloat"
        ));
    }
    if Command::new(COMPILER).arg("--version").output().is_err() {
        return Err(format!("{COMPILER} not found; run: apt-get install gcc-aarch64-linux-gnu"));
    }
    let kernel = PathBuf::from(variable("DEP_FREERTOS_KERNEL")?);
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?);

    compiler(&kernel, &package)
        .warnings(false)
        .files(KERNEL.map(|file| kernel.join(file)))
        .try_compile("freertos-kernel")
        .map_err(|error| format!("compiling the FreeRTOS kernel: {error}"))?;
    compiler(&kernel, &package)
        .warnings(true)
        .extra_warnings(true)
        .files(OURS.map(|file| package.join(file)))
        .try_compile("freertos-app")
        .map_err(|error| format!("compiling the FreeRTOS application: {error}"))?;

    println!("cargo::rustc-link-arg-bins=-T{}", package.join("freertos.ld").display());
    Ok(())
}

fn compiler(kernel: &Path, package: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .compiler(COMPILER)
        .archiver(ARCHIVER)
        .opt_level(2)
        .pic(false)
        .include(package.join("libc"))
        .include(package.join("board"))
        .include(package.join("app"))
        .include(kernel.join("include"))
        .include(kernel.join("portable/GCC/ARM_AARCH64_SRE"))
        // The port runs at EL1 instead of EL3.
        .define("GUEST", None)
        .flag("-std=gnu11")
        .flag("-ffreestanding")
        .flag("-fno-pie")
        .flag("-fno-stack-protector")
        .flag("-fno-asynchronous-unwind-tables")
        .flag("-ffunction-sections")
        .flag("-fdata-sections")
        // No task has a floating-point context unless it asks for one, and interrupt handlers save none.
        .flag("-mgeneral-regs-only")
        .flag("-mstrict-align")
        // configASSERT prints __FILE__, which must not depend on who built the image.
        .flag(format!("-ffile-prefix-map={}=FreeRTOS-Kernel", kernel.display()))
        .flag(format!("-ffile-prefix-map={}=freertos", package.display()));
    build
}

fn variable(name: &str) -> Result<String, String> {
    env::var(name).map_err(|error| format!("{name}: {error}"))
}
