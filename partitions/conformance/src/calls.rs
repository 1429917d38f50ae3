//! The SMC Calling Convention over both conduits: what is known answers, what is not returns −1, and no call
//! changes more than X0–X3.

use bulkhead_abi::{hypercall, psci, smccc as ids};
use bulkhead_rt::exception::catch;
use bulkhead_rt::smccc::{self, Conduit, Registers, call, hvc_with_immediate, on_bulkhead};
use bulkhead_rt::{Verdict, ensure, ensure_eq, verdict};

/// The answer to an unknown call, all 64 bits of X0.
const UNKNOWN: u64 = u64::MAX;

/// Runs the tests.
pub fn run() {
    for (conduit, names) in [
        (Conduit::Hvc, ["hvc-psci-version", "hvc-unknown", "hvc-preserves"]),
        (Conduit::Smc, ["smc-psci-version", "smc-unknown", "smc-preserves"]),
    ] {
        if conduit == Conduit::Smc && !on_bulkhead() && catch(|| version(conduit)).is_err() {
            for name in names {
                verdict::skip(name, "SMC is undefined on this machine");
            }
            continue;
        }
        verdict::test(names[0], || {
            ensure_eq!(catch(|| version(conduit)), Ok(u64::from(psci::VERSION_1_1)), "PSCI_VERSION");
            Ok(())
        });
        verdict::test(names[1], || unknown(conduit));
        verdict::test(names[2], || preserves(conduit));
    }
    verdict::test("hvc-immediate", immediate);
    if on_bulkhead() {
        verdict::test("smc-immediate", smc_immediate);
        verdict::test("smccc-arch", arch);
        verdict::test("smccc-upper-half", upper_half);
        verdict::test("hypercalls", own);
    } else {
        for name in ["smc-immediate", "smccc-arch", "smccc-upper-half", "hypercalls"] {
            verdict::skip(name, "no Bulkhead below");
        }
    }
}

fn version(conduit: Conduit) -> u64 {
    call(conduit, arguments(u64::from(psci::PSCI_VERSION)))[0]
}

/// A call with a mark in each register after X0.
fn arguments(function: u64) -> Registers {
    let mut registers = [0; 18];
    for (number, register) in registers.iter_mut().enumerate() {
        *register = 0xabcd_0000_5a5a_0000 | number as u64;
    }
    registers[0] = function;
    registers
}

/// Identifiers that nobody implements, one or more of each service.
const UNLISTED: [u32; 16] = [
    0,
    0x3f00_0000,
    0x7fff_ffff,
    0x8000_0fff,
    0x8200_0000,
    0x8300_0001,
    0x8400_001f,
    0x8400_0050,
    0x8400_0100,
    0x8500_0000,
    0x8600_beef,
    0xc400_0000,
    0xc400_0008,
    0xc600_ffff,
    0xf200_0000,
    0xffff_ffff,
];

fn unknown(conduit: Conduit) -> Verdict {
    for function in UNLISTED {
        match catch(|| call(conduit, arguments(u64::from(function)))) {
            Ok(registers) => ensure_eq!(registers[0], UNKNOWN, "answer to {function:#x}"),
            Err(fault) => ensure!(false, "{function:#x}: {fault:x?}"),
        }
    }
    Ok(())
}

fn preserves(conduit: Conduit) -> Verdict {
    for function in [psci::PSCI_VERSION, ids::SMCCC_VERSION, hypercall::PARTITION_ID, UNLISTED[8]] {
        let before = arguments(u64::from(function));
        let after = call(conduit, before);
        ensure_eq!(&after[4..], &before[4..], "X4-X17 after {function:#x}");
    }
    Ok(())
}

fn immediate() -> Verdict {
    let before = arguments(u64::from(UNLISTED[8]));
    match catch(|| hvc_with_immediate(before)) {
        Ok(after) => {
            ensure_eq!(after[0], UNKNOWN, "X0");
            ensure_eq!(&after[4..], &before[4..], "X4-X17");
        }
        Err(fault) => ensure!(fault.is_undefined(), "{fault:x?}"),
    }
    Ok(())
}

fn smc_immediate() -> Verdict {
    let before = arguments(u64::from(UNLISTED[8]));
    match catch(|| smccc::smc_with_immediate(before)) {
        Ok(after) => {
            ensure_eq!(after[0], UNKNOWN, "X0");
            ensure_eq!(&after[4..], &before[4..], "X4-X17");
        }
        Err(fault) => ensure!(fault.is_undefined(), "{fault:x?}"),
    }
    Ok(())
}

fn arch() -> Verdict {
    let features = |function: u32| smccc::hvc(ids::SMCCC_ARCH_FEATURES, u64::from(function), 0, 0)[0];
    let version = smccc::hvc(ids::SMCCC_VERSION, 0, 0, 0)[0];
    ensure!((0x1_0001..0x2_0000).contains(&version), "SMCCC_VERSION is {version:#x}");
    ensure_eq!(features(ids::SMCCC_VERSION), 0, "ARCH_FEATURES of SMCCC_VERSION");
    ensure_eq!(features(ids::SMCCC_ARCH_FEATURES), 0, "ARCH_FEATURES of itself");
    ensure_eq!(features(0x8000_0fff), UNKNOWN, "ARCH_FEATURES of an unlisted call");
    ensure_eq!(features(ids::SMCCC_ARCH_SOC_ID), UNKNOWN, "ARCH_FEATURES of SOC_ID");
    ensure_eq!(smccc::hvc(ids::TRNG_VERSION, 0, 0, 0)[0], UNKNOWN, "TRNG_VERSION");
    let listed = smccc::hvc(psci::PSCI_FEATURES, u64::from(ids::SMCCC_VERSION), 0, 0)[0];
    ensure_eq!(listed, 0, "PSCI_FEATURES of SMCCC_VERSION");
    Ok(())
}

/// The identifier is W0: the upper half of X0 means nothing (DEN0028, 2.6).
fn upper_half() -> Verdict {
    for conduit in [Conduit::Hvc, Conduit::Smc] {
        let function = 0xdead_beef_0000_0000 | u64::from(psci::PSCI_VERSION);
        let answer = call(conduit, arguments(function))[0];
        ensure_eq!(answer, u64::from(psci::VERSION_1_1), "PSCI_VERSION by {conduit:?}");
    }
    Ok(())
}

fn own() -> Verdict {
    let by_smc = smccc::smc(hypercall::CALL_UID, 0, 0, 0);
    ensure_eq!(by_smc, hypercall::UID_WORDS.map(u64::from), "CALL_UID by SMC");
    let [major, minor, ..] = smccc::hvc(hypercall::CALL_REVISION, 0, 0, 0);
    ensure_eq!(major, u64::from(hypercall::REVISION_MAJOR), "major revision");
    ensure_eq!(minor, u64::from(hypercall::REVISION_MINOR), "minor revision");
    let partition = smccc::hvc(hypercall::PARTITION_ID, 0, 0, 0)[0];
    ensure!(partition < 32, "PARTITION_ID is {partition:#x}");
    Ok(())
}
