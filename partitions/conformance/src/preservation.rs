//! A trap changes nothing but its result: every general register and the flags are looked at after each kind
//! of exit, because a hypervisor's short paths save only what they use.

use core::arch::global_asm;

use bulkhead_abi::psci;
use bulkhead_rt::console::{UARTFR, pl011};
use bulkhead_rt::exception::catch;
use bulkhead_rt::gic::{self, gicd, offset, uart_intid};
use bulkhead_rt::time::{Timer, ticks};
use bulkhead_rt::{Failure, Verdict, smccc, verdict};

use crate::harness;

global_asm!(
    r#"
    // \name(x0, x1, *state): fills X2-X30 and NZCV, does the operation, stores X0-X30 and NZCV.
    .macro probe name, operation:vararg
    .global \name
\name:
    sub     sp, sp, #368
    stp     x19, x20, [sp, #256]
    stp     x21, x22, [sp, #272]
    stp     x23, x24, [sp, #288]
    stp     x25, x26, [sp, #304]
    stp     x27, x28, [sp, #320]
    stp     x29, x30, [sp, #336]
    str     x2, [sp, #352]
    .irp    n, 2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    mov     x\n, #0xa500
    movk    x\n, #\n, lsl #48
    .endr
    mov     x2, #0xa0000000             // N and C
    msr     nzcv, x2
    \operation
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30
    str     x\n, [sp, #8 * \n]
    .endr
    mrs     x1, nzcv
    str     x1, [sp, #248]
    ldr     x2, [sp, #352]
    .irp    n, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31
    ldr     x1, [sp, #8 * \n]
    str     x1, [x2, #8 * \n]
    .endr
    ldp     x19, x20, [sp, #256]
    ldp     x21, x22, [sp, #272]
    ldp     x23, x24, [sp, #288]
    ldp     x25, x26, [sp, #304]
    ldp     x27, x28, [sp, #320]
    ldp     x29, x30, [sp, #336]
    add     sp, sp, #368
    ret
    .endm

    .text
    probe   probe_hvc, hvc #0
    probe   probe_smc, smc #0
    probe   probe_load, ldr w0, [x0]
    probe   probe_store, str w1, [x0]
    probe   probe_store_byte, strb w1, [x0]
    probe   probe_sgi, msr icc_sgi1r_el1, x0
    probe   probe_id, mrs x0, id_aa64mmfr0_el1
    probe   probe_wait, .Lwait: mrs x1, cntvct_el0; subs x1, x1, x0; tbnz x1, #63, .Lwait; msr nzcv, x2
    "#
);

/// X0–X30 and NZCV.
type State = [u64; 32];
type Probe = unsafe extern "C" fn(u64, u64, *mut State);

unsafe extern "C" {
    fn probe_hvc(x0: u64, x1: u64, state: *mut State);
    fn probe_smc(x0: u64, x1: u64, state: *mut State);
    fn probe_load(x0: u64, x1: u64, state: *mut State);
    fn probe_store(x0: u64, x1: u64, state: *mut State);
    fn probe_store_byte(x0: u64, x1: u64, state: *mut State);
    fn probe_sgi(x0: u64, x1: u64, state: *mut State);
    fn probe_id(x0: u64, x1: u64, state: *mut State);
    fn probe_wait(x0: u64, x1: u64, state: *mut State);
}

/// Runs the tests.
pub fn run() {
    harness::fresh();
    verdict::test("keeps-hvc", || {
        check(probe_hvc, psci::PSCI_VERSION.into(), 0, 4)?;
        check(probe_hvc, 0xc600_ffff, 0, 4)
    });
    if catch(|| smccc::smc(psci::PSCI_VERSION, 0, 0, 0)).is_ok() {
        verdict::test("keeps-smc", || {
            check(probe_smc, psci::PSCI_VERSION.into(), 0, 4)?;
            check(probe_smc, 0xc600_ffff, 0, 4)
        });
    } else {
        verdict::skip("keeps-smc", "SMC is undefined on this machine");
    }
    verdict::test("keeps-gicd", || {
        check(probe_load, gicd() + offset::TYPER, 0, 1)?;
        check(probe_store_byte, gicd() + offset::IPRIORITYR + u64::from(uart_intid()), 0xa0, 0)?;
        let bit = 1 << (uart_intid() % 32);
        check(probe_store, gic::bit_word(offset::ISENABLER, uart_intid()), bit, 0)?;
        check(probe_store, gic::bit_word(offset::ICENABLER, uart_intid()), bit, 0)
    });
    verdict::test("keeps-private", || {
        let register = if gic::is_v2() {
            gicd() + offset::ITARGETSR
        } else {
            gic::redistributor(0) + offset::GICR_TYPER
        };
        check(probe_load, register, 0, 1)?;
        check(probe_store, gic::bit_word(offset::ISENABLER, 1), 2, 0)?;
        check(probe_store, gic::bit_word(offset::ICENABLER, 1), 2, 0)
    });
    verdict::test("keeps-pl011", || {
        check(probe_load, pl011() + UARTFR, 0, 1)?;
        check(probe_store, crate::uart::imsc(), 0, 0)
    });
    verdict::test("keeps-sgi", || {
        for value in [gic::sgi_to(1, 0), gic::sgi_to_others(1)] {
            if gic::is_v2() {
                check(probe_store, gicd() + offset::SGIR, value, 0)?;
            } else {
                check(probe_sgi, value, 0, 0)?;
            }
            gic::clear_pending(1);
        }
        Ok(())
    });
    verdict::test("keeps-id", || check(probe_id, 0, 0, 1));
    verdict::test("keeps-interrupt", interrupted);
}

/// Runs a probe and checks that registers from `first` on are as they were; X0 and X1 are the arguments.
fn check(probe: Probe, x0: u64, x1: u64, first: usize) -> Verdict {
    let mut expected: State = core::array::from_fn(|n| 0xa500 | (n as u64) << 48);
    expected[0] = x0;
    expected[1] = x1;
    expected[2] = 0xa000_0000;
    expected[31] = 0xa000_0000;
    let mut state: State = [0; 32];
    // SAFETY: the probe keeps the C convention, and `state` is what it may write.
    unsafe { probe(x0, x1, &raw mut state) };
    for n in first..32 {
        if state[n] != expected[n] {
            let [is, was] = [state[n], expected[n]];
            return Err(Failure::new(format_args!("x{n} (31: flags) is {is:#x}, was {was:#x}, for {x0:#x}")));
        }
    }
    Ok(())
}

/// A physical interrupt that arrives for the guest while it has interrupts masked.
fn interrupted() -> Verdict {
    gic::enable(Timer::Virtual.intid());
    for _ in 0..20 {
        let due = Timer::Virtual.now() + ticks(50);
        Timer::Virtual.fire_at(due);
        check(probe_wait, due + ticks(200), 0, 2)?;
        Timer::Virtual.stop();
    }
    gic::disable(Timer::Virtual.intid());
    Ok(())
}
