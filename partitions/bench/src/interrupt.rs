//! Interrupts: from what causes one to the first instruction of the guest's vector.
//!
//! The vectors keep their results in registers that the measuring code gives up (X21, X22), so that nothing
//! stands before the counter read. X21 is the counter, X22 the INTID, which must not be 0. A GICv2 is found by its
//! address, for which the measuring code sets X23.

use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};

use bulkhead_rt::gic::{self, SPURIOUS, gicc, offset};
use bulkhead_rt::time::{Timer, ticks};
use bulkhead_rt::{Failure, Verdict, cpu, ensure, ensure_eq, read_sysreg, verdict};

use crate::RUNS;
use crate::sample::Samples;

global_asm!(
    r#"
    .macro acknowledge_v2
    ldr     w22, [x23, #{iar}]
    .endm

    .macro acknowledge_v3
    mrs     x22, icc_iar1_el1
    .endm

    .macro end_v2
    str     w22, [x23, #{eoir}]
    .endm

    .macro end_v3
    msr     icc_eoir1_el1, x22
    .endm

    .macro bench_vectors name, counter, control, acknowledge, end
    .balign 0x800
\name:
    mrs     x22, elr_el1                // synchronous, SP_EL0: skip the instruction
    add     x22, x22, #4
    msr     elr_el1, x22
    eret
    .balign 0x80
    mrs     x21, \counter               // IRQ, SP_EL0
    \acknowledge
    msr     \control, xzr
    isb
    \end
    isb
    eret
    .balign 0x80
    .set    rest, 0x100                 // everything else as ever
    .rept   14
    b       exception_vectors + rest
    .balign 0x80
    .set    rest, rest + 0x80
    .endr
    .endm

    .text
    .irp    n, 2,3
    bench_vectors bench_virtual_vectors_v\n, cntvct_el0, cntv_ctl_el0, acknowledge_v\n, end_v\n
    bench_vectors bench_physical_vectors_v\n, cntpct_el0, cntp_ctl_el0, acknowledge_v\n, end_v\n
    .endr
    "#,
    iar = const gicc::IAR,
    eoir = const gicc::EOIR,
);

unsafe extern "C" {
    static bench_virtual_vectors_v2: u8;
    static bench_virtual_vectors_v3: u8;
    static bench_physical_vectors_v2: u8;
    static bench_physical_vectors_v3: u8;
}

/// X23 for the vectors: the CPU interface of a GICv2.
fn interface() -> u64 {
    if gic::is_v2() { gic::cpu_interface() } else { 0 }
}

/// Where the register is that sends SGIs, on a GICv2.
fn sgi_register() -> u64 {
    gic::gicd() + offset::SGIR
}

/// One of this module's vector tables.
#[derive(Clone, Copy)]
pub enum Vectors {
    /// Reads CNTVCT and stops the virtual timer.
    Virtual,
    /// Reads CNTPCT and stops the physical timer.
    Physical,
}

/// Runs `f` with one of this module's vector tables on this CPU.
pub fn with_vectors<R>(vectors: Vectors, f: impl FnOnce() -> R) -> R {
    let table = match (vectors, gic::is_v2()) {
        (Vectors::Virtual, true) => &raw const bench_virtual_vectors_v2,
        (Vectors::Virtual, false) => &raw const bench_virtual_vectors_v3,
        (Vectors::Physical, true) => &raw const bench_physical_vectors_v2,
        (Vectors::Physical, false) => &raw const bench_physical_vectors_v3,
    };
    let old = read_sysreg!("vbar_el1");
    // SAFETY: both tables skip or end what they take and change only X21 and X22, which every asm block of
    // this crate that can be interrupted declares; interrupts are masked outside those.
    unsafe { asm!("msr vbar_el1, {}", "isb", in(reg) table, options(nostack)) };
    let result = f();
    // SAFETY: the table that was there before.
    unsafe { asm!("msr vbar_el1, {}", "isb", in(reg) old, options(nostack)) };
    result
}

/// The SGI of all measurements; 0 would look like no interrupt.
const SGI: u32 = 1;

/// Measures and prints all of them.
pub fn measure() -> Verdict {
    gic::enable(SGI);
    with_vectors(Vectors::Virtual, sgi_to_self)?.print("sgi-self");
    for (name, vectors, timer) in [
        ("virtual-timer", Vectors::Virtual, Timer::Virtual),
        ("physical-timer", Vectors::Physical, Timer::Physical),
    ] {
        gic::enable(timer.intid());
        with_vectors(vectors, || timer_to_vector(timer))?.print(name);
        gic::disable(timer.intid());
    }
    gic::enable(Timer::Virtual.intid());
    wake_by_timer()?.print("wfi-wake");
    gic::disable(Timer::Virtual.intid());
    if cpu::count() > 1 {
        sgi_to_other()?.print("sgi-other");
    } else {
        verdict::skip("sgi-other", "one CPU only");
    }
    Ok(())
}

/// Sends an SGI to this CPU by the given instruction; returns both counters and the INTID.
macro_rules! sgi_to_self {
    ($send:literal) => {{
        let (start, end, intid): (u64, u64, u64);
        // SAFETY: the vector changes X21 and X22 only.
        unsafe {
            asm!(
                "mov x22, #0",
                "msr daifclr, #2",
                "isb",
                "mrs x20, cntvct_el0",
                concat!($send, " // {sgi} {register}"),
                "2: cbz x22, 2b",
                "msr daifset, #2",
                sgi = in(reg) gic::sgi_to(SGI, cpu::id()),
                register = in(reg) sgi_register(),
                in("x23") interface(),
                out("x20") start,
                out("x21") end,
                out("x22") intid,
            );
        }
        (start, end, intid)
    }};
}

/// Less the write that sends the SGI and the counter read itself.
fn sgi_to_self() -> Result<Samples, Failure> {
    let mut samples = Samples::new();
    for _ in 0..RUNS {
        let (start, end, intid) = if gic::is_v2() {
            sgi_to_self!("str {sgi:w}, [{register}]")
        } else {
            sgi_to_self!("msr icc_sgi1r_el1, {sgi}")
        };
        ensure_eq!(intid, u64::from(SGI), "INTID");
        samples.add((end - start).cast_signed() - 2);
    }
    Ok(samples)
}

/// From the timer's compare value, while the guest runs.
fn timer_to_vector(timer: Timer) -> Result<Samples, Failure> {
    let mut samples = Samples::new();
    for _ in 0..RUNS {
        let due = timer.now() + ticks(10);
        let (end, intid): (u64, u64);
        timer.fire_at(due);
        // SAFETY: the vector changes X21 and X22 only.
        unsafe {
            asm!(
                "mov x22, #0",
                "msr daifclr, #2",
                "2: cbz x22, 2b",
                "msr daifset, #2",
                in("x23") interface(),
                out("x21") end,
                out("x22") intid,
            );
        }
        ensure_eq!(intid, u64::from(timer.intid()), "INTID");
        samples.add((end - due).cast_signed());
    }
    Ok(samples)
}

/// Sleeps until the virtual timer's interrupt is pending, looked up by the given instruction; returns the counter
/// right after.
macro_rules! sleep_until_timer {
    ($look:literal) => {{
        let end: u64;
        // SAFETY: no memory is changed; the loop ends when the timer's interrupt is pending.
        unsafe {
            asm!(
                "2: wfi",
                "mrs x21, cntvct_el0",
                $look,
                "cmp x22, {timer}",
                "b.ne 2b",
                timer = in(reg) u64::from(Timer::Virtual.intid()),
                in("x23") interface(),
                out("x21") end,
                out("x22") _,
            );
        }
        end
    }};
}

/// From the virtual timer's compare value to the instruction after a WFI, interrupts masked.
fn wake_by_timer() -> Result<Samples, Failure> {
    let mut samples = Samples::new();
    for _ in 0..RUNS {
        let due = Timer::Virtual.now() + ticks(10);
        Timer::Virtual.fire_at(due);
        let end = if gic::is_v2() {
            sleep_until_timer!("ldr w22, [x23, #0x18] // GICC_HPPIR")
        } else {
            sleep_until_timer!("mrs x22, icc_hppir1_el1")
        };
        let intid = gic::acknowledge();
        Timer::Virtual.stop();
        ensure_eq!(intid, Timer::Virtual.intid(), "INTID");
        gic::end(intid);
        samples.add((end - due).cast_signed());
    }
    Ok(samples)
}

/// When CPU 1 took its SGI; 0 while it has not.
static ARRIVED: AtomicU64 = AtomicU64::new(0);
const ANSWER: u32 = 2;

/// Sends an SGI to CPU 1 by the given instruction and sleeps; returns the counter before.
macro_rules! sgi_and_sleep {
    ($send:literal) => {{
        let start: u64;
        // SAFETY: no memory is changed.
        unsafe {
            asm!(
                "dsb ish",
                "isb",
                "mrs {start}, cntvct_el0",
                concat!($send, " // {sgi} {register}"),
                "isb",
                "wfi",
                sgi = in(reg) gic::sgi_to(SGI, 1),
                register = in(reg) sgi_register(),
                start = out(reg) start,
            );
        }
        start
    }};
}

/// From the write to the first instruction of another CPU's vector, while the sender sleeps; less what both
/// guests execute themselves.
fn sgi_to_other() -> Result<Samples, Failure> {
    /// The write, barrier and WFI here, unmasking and the counter read there.
    const OWN: i64 = 5;
    gic::enable(ANSWER);
    let answer = cpu::start(1, answer_sgis, 0);
    ensure_eq!(answer, 0, "CPU_ON");
    wait_for_answer();
    let mut samples = Samples::new();
    for _ in 0..RUNS {
        ARRIVED.store(0, Ordering::Relaxed);
        let start = if gic::is_v2() {
            sgi_and_sleep!("str {sgi:w}, [{register}]")
        } else {
            sgi_and_sleep!("msr icc_sgi1r_el1, {sgi}")
        };
        wait_for_answer();
        let end = ARRIVED.load(Ordering::Acquire);
        ensure!(end >= start, "CPU 1 took the SGI {} ticks early", start - end);
        samples.add((end - start).cast_signed() - OWN);
    }
    Ok(samples)
}

fn wait_for_answer() {
    loop {
        let intid = gic::acknowledge();
        if intid != SPURIOUS {
            gic::end(intid);
            return;
        }
        cpu::wait_for_interrupt();
    }
}

/// CPU 1: sleeps until an SGI comes, notes when it came, answers; never returns.
fn answer_sgis(_: u64) {
    gic::init_cpu();
    gic::enable(SGI);
    with_vectors(Vectors::Virtual, || {
        loop {
            gic::send_sgi(gic::sgi_to(ANSWER, 0));
            let end: u64;
            // SAFETY: the vector changes X21 and X22 only.
            unsafe {
                asm!(
                    "mov x22, #0",
                    "2: wfi", // masked: what comes before it still ends it
                    "msr daifclr, #2",
                    "isb",
                    "msr daifset, #2",
                    "cbz x22, 2b",
                    in("x23") interface(),
                    out("x21") end,
                    out("x22") _,
                );
            }
            ARRIVED.store(end, Ordering::Release);
        }
    });
}
