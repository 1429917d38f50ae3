//! Every system register and system instruction that the encoding has room for.

use bulkhead_rt::smccc::on_bulkhead;
use bulkhead_rt::{Failure, Verdict, ensure, println};

use crate::attack;
use crate::code::{Encoding, execute};
use bulkhead_rt::random::Random;

/// Runs the attacks.
pub fn run() {
    attack("register-reads", reads);
    attack("register-writes", writes);
    attack("system-instructions", instructions);
}

/// Unknown reason, or a trapped system instruction that was reported to EL1 as such (which nothing does).
fn check(encoding: Encoding, result: Result<u64, bulkhead_rt::exception::Fault>) -> Result<bool, Failure> {
    match result {
        Ok(_) => Ok(true),
        Err(fault) if fault.is_undefined() => Ok(false),
        Err(fault) => Err(Failure::new(format_args!("{encoding:?}: {fault:x?}"))),
    }
}

fn reads() -> Verdict {
    let mut readable = 0;
    for encoding in Encoding::all(2..=3) {
        // SAFETY: a read of a register changes nothing but X0 and the state of the interrupt controller.
        let result = unsafe { execute(encoding.read(), 0) };
        readable += u32::from(check(encoding, result)?);
        // Registers of EL2 and EL3 do not exist here (op1 4 and 6; 5 is EL1's alias for VHE).
        let beyond = encoding.op0 == 3 && matches!(encoding.op1, 4..=6) && on_bulkhead();
        ensure!(!beyond || result.is_err(), "{encoding:?} can be read");
    }
    println!("{readable} registers can be read");
    Ok(())
}

/// Registers whose change would pull the rug from under this program itself.
fn is_vital(encoding: Encoding) -> bool {
    let Encoding { op0, op1, crn, crm, op2 } = encoding;
    op0 == 3
        && match (op1, crn) {
            (0, 1) => (crm, op2) != (0, 1),  // SCTLR, CPACR; ACTLR is fair game
            (0, 2) => true,                  // translation
            (0, 4) => crm != 6,              // SPSR, ELR, SP_EL0, PAN; ICC_PMR is fair game
            (3, 4) => true,                  // DAIF, NZCV, SPSel
            (0, 10) => matches!(crm, 2 | 3), // MAIR, AMAIR
            (3, 14) => (crm, op2) == (0, 0), // CNTFRQ, which the highest level may write
            (0, 12) => crm == 0,             // VBAR, RMR
            _ => false,
        }
}

fn writes() -> Verdict {
    let mut random = Random::new(3);
    let mut writable = 0;
    // Zeros last, so that no breakpoint, counter or timer stays on.
    for round in 0..3 {
        for encoding in Encoding::all(2..=3).filter(|&encoding| !is_vital(encoding)) {
            let value = match round {
                0 => u64::MAX,
                // All ones in the lowest bits: QEMU 10 dies of an assertion when ICC_BPR becomes 0.
                1 => random.next() | 7,
                _ => 0,
            };
            // SAFETY: what remains are registers of interrupts, timers, debug and performance monitoring,
            // whose exceptions are masked, and what this level has no right to.
            let result = unsafe { execute(encoding.write(), value) };
            writable += u32::from(check(encoding, result)?);
            let beyond = encoding.op0 == 3 && matches!(encoding.op1, 4..=6) && on_bulkhead();
            ensure!(!beyond || result.is_err(), "{encoding:?} can be written");
        }
    }
    println!("{} registers can be written", writable / 3);
    Ok(())
}

/// Cache, TLB and address translation instructions with addresses of free memory and of nothing.
fn instructions() -> Verdict {
    for encoding in Encoding::all(1..=1) {
        for x0 in [bulkhead_rt::memory::RAM_END - (4 << 20), u64::MAX] {
            // Invalidating by set and way without cleaning loses data on the bare machine.
            let loses = matches!((encoding.op1, encoding.crn, encoding.crm, encoding.op2), (0, 7, 6, 2));
            if loses && !on_bulkhead() {
                continue;
            }
            // SAFETY: maintenance and translation instructions change no memory but DC ZVA's, which is free.
            let result = unsafe { execute(encoding.write(), x0) };
            if let Err(fault) = result {
                let known = fault.is_undefined() || fault.is_data_abort();
                ensure!(known, "{encoding:?}: {fault:x?}");
            }
        }
    }
    Ok(())
}
