//! CPUs: which one this is, and how the others are started and stopped.

use core::arch::asm;
use core::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use bulkhead_abi::psci;

use crate::{machine, read_sysreg, smccc, verdict};

/// CPUs that the run-time has stacks for.
pub const MAX_CPUS: usize = 8;
/// Bytes of each CPU's thread stack, and of its exception stack.
pub const STACK_SIZE: usize = 32 << 10;

/// The number of this CPU: Aff0 of MPIDR_EL1.
#[must_use]
pub fn id() -> usize {
    (read_sysreg!("mpidr_el1") & 0xff) as usize
}

static BOOT_TICKS: AtomicU64 = AtomicU64::new(0);

/// CNTVCT_EL0 at the first instruction after the image header, in ticks.
#[must_use]
pub fn boot_ticks() -> u64 {
    BOOT_TICKS.load(Ordering::Relaxed)
}

unsafe extern "Rust" {
    /// Defined by [`entry!`](macro@crate::entry).
    safe fn bulkhead_guest_main();
}

unsafe extern "C" {
    static secondary_entry: u8;
}

#[unsafe(no_mangle)]
extern "C" fn rt_boot(ticks: u64, tree: u64) -> ! {
    machine::read(tree);
    BOOT_TICKS.store(ticks, Ordering::Relaxed);
    bulkhead_guest_main();
    smccc::system_off()
}

static SECONDARIES: [AtomicPtr<()>; MAX_CPUS] = [const { AtomicPtr::new(core::ptr::null_mut()) }; MAX_CPUS];

#[unsafe(no_mangle)]
extern "C" fn rt_secondary(context: u64) -> ! {
    let main = SECONDARIES[id()].load(Ordering::Acquire);
    if main.is_null() {
        verdict::abandon(&format_args!("CPU {} started without being asked", id()));
    }
    // SAFETY: only `start` stores here, and it stores a `fn(u64)`.
    let main: fn(u64) = unsafe { core::mem::transmute::<*mut (), fn(u64)>(main) };
    main(context);
    off()
}

/// Address at which a CPU enters this image when PSCI starts it.
#[must_use]
pub fn entry_address() -> u64 {
    (&raw const secondary_entry) as u64
}

/// Says what CPU `cpu` shall run once somebody starts it at [`entry_address`].
///
/// # Panics
/// Where `cpu` is [`MAX_CPUS`] or more.
pub fn prepare(cpu: usize, main: fn(u64)) {
    SECONDARIES[cpu].store(main as *mut (), Ordering::Release);
}

/// Starts CPU `cpu` in `main` with `context`, interrupts masked; returns PSCI's answer. The CPU turns itself
/// off when `main` returns.
///
/// # Panics
/// Where `cpu` is [`MAX_CPUS`] or more.
pub fn start(cpu: usize, main: fn(u64), context: u64) -> i64 {
    prepare(cpu, main);
    smccc::hvc(psci::CPU_ON, cpu as u64, entry_address(), context)[0].cast_signed()
}

/// PSCI AFFINITY_INFO of CPU `cpu`, one of [`psci::affinity`] or an error.
#[must_use]
pub fn state(cpu: usize) -> i64 {
    smccc::hvc(psci::AFFINITY_INFO, cpu as u64, 0, 0)[0].cast_signed()
}

/// Turns this CPU off.
///
/// # Panics
/// Where PSCI refuses.
pub fn off() -> ! {
    let answer = smccc::hvc(psci::CPU_OFF, 0, 0, 0)[0].cast_signed();
    panic!("CPU_OFF returned {answer}");
}

/// How many CPUs there are, told by AFFINITY_INFO.
#[must_use]
pub fn count() -> usize {
    (0..MAX_CPUS).take_while(|&cpu| state(cpu) >= 0).count()
}

/// Waits for an interrupt, masked or not.
pub fn wait_for_interrupt() {
    // SAFETY: hints and barriers only.
    unsafe { asm!("dsb sy", "wfi", options(nostack, preserves_flags)) };
}
