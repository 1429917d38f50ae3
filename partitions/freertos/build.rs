//! Compiles the FreeRTOS kernel, one of its ports and this partition's C into an archive for each board.
//!
//! The compiler is Debian's cross compiler for Linux: FreeRTOS needs no C library beyond the few functions
//! in `libc/`, so a bare-metal tool chain would add nothing.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const COMPILER: &str = "aarch64-linux-gnu-gcc";
const ARCHIVER: &str = "aarch64-linux-gnu-ar";

/// Kernel sources, relative to the kernel's directory.
const KERNEL: [&str; 4] = ["list.c", "queue.c", "tasks.c", "portable/MemMang/heap_4.c"];

/// Our sources, relative to this package.
const OURS: [&str; 9] = [
    "board/start.S",
    "board/pl011.c",
    "board/system.c",
    "board/tick.c",
    "app/console.c",
    "app/control.c",
    "app/main.c",
    "app/monitor.c",
    "app/shell.c",
];

/// What differs from board to board.
struct Board {
    /// The binary that is for it.
    binary: &'static str,
    /// Its folder in `board/`, with its addresses.
    folder: &'static str,
    /// The driver of its interrupt controller, in `board/`.
    gic: &'static str,
    /// The kernel's port for that controller, in `portable/GCC/`.
    port: &'static str,
}

const BOARDS: [Board; 3] = [
    Board { binary: "bulkhead-freertos", folder: "virt-gicv3", gic: "gicv3.c", port: "ARM_AARCH64_SRE" },
    Board {
        binary: "bulkhead-freertos-virt-gicv2",
        folder: "virt-gicv2",
        gic: "gicv2.c",
        port: "ARM_AARCH64",
    },
    Board { binary: "bulkhead-freertos-rpi4", folder: "rpi4", gic: "gicv2.c", port: "ARM_AARCH64" },
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

    let out = PathBuf::from(variable("OUT_DIR")?);
    for board in BOARDS {
        let port = kernel.join("portable/GCC").join(board.port);
        let folder = out.join(board.folder);
        compiler(&kernel, &package, &board, &folder)
            .warnings(false)
            .files(KERNEL.map(|file| kernel.join(file)))
            .files(["port.c", "portASM.S"].map(|file| port.join(file)))
            .try_compile("freertos-kernel")
            .map_err(|error| format!("compiling the FreeRTOS kernel: {error}"))?;
        compiler(&kernel, &package, &board, &folder)
            .warnings(true)
            .extra_warnings(true)
            .files(OURS.map(|file| package.join(file)))
            .file(package.join("board").join(board.gic))
            .try_compile("freertos-app")
            .map_err(|error| format!("compiling the FreeRTOS application: {error}"))?;
        // Each binary has archives of its own, so they are no libraries of the package.
        for archive in ["libfreertos-app.a", "libfreertos-kernel.a"] {
            println!("cargo::rustc-link-arg-bin={}={}", board.binary, folder.join(archive).display());
        }
    }
    println!("cargo::rustc-link-arg-bins=-T{}", package.join("freertos.ld").display());
    Ok(())
}

fn compiler(kernel: &Path, package: &Path, board: &Board, out: &Path) -> cc::Build {
    let mut build = cc::Build::new();
    build
        .out_dir(out)
        .cargo_metadata(false)
        .compiler(COMPILER)
        .archiver(ARCHIVER)
        .opt_level(2)
        .pic(false)
        .include(package.join("libc"))
        .include(package.join("board"))
        .include(package.join("board").join(board.folder))
        .include(package.join("app"))
        .include(kernel.join("include"))
        .include(kernel.join("portable/GCC").join(board.port))
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
