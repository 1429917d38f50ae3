//! Calls with random identifiers and arguments, and CPUs that the partition has not got.

use core::sync::atomic::{AtomicU64, Ordering};

use bulkhead_abi::psci;
use bulkhead_rt::exception::catch;
use bulkhead_rt::smccc::{Conduit, call, hvc, hvc_with_immediate, on_bulkhead, smc_with_immediate};
use bulkhead_rt::time::wait_until;
use bulkhead_rt::{Verdict, cpu, ensure, ensure_eq, verdict};

use crate::{PATIENCE, attack};
use bulkhead_rt::random::Random;

/// Calls of each kind.
const CALLS: u32 = 100_000;

/// Runs the attacks.
pub fn run(cpus: usize) {
    attack("hvc-random", || random_calls(Conduit::Hvc));
    attack("smc-random", || random_calls(Conduit::Smc));
    attack("call-immediates", immediates);
    attack("cpu-on-absent", || absent(cpus));
    if cpus > 1 {
        attack("cpu-on-storm", start_and_stop);
    } else {
        verdict::skip("cpu-on-storm", "one CPU only");
    }
}

/// Calls that do what they say: stop this CPU, the partition, or the test.
const EFFECTIVE: [u32; 15] = [
    psci::CPU_SUSPEND_32,
    psci::CPU_SUSPEND,
    psci::CPU_OFF,
    psci::CPU_ON_32,
    psci::CPU_ON,
    psci::SYSTEM_OFF,
    psci::SYSTEM_RESET,
    psci::CPU_FREEZE,
    psci::CPU_DEFAULT_SUSPEND_32,
    psci::CPU_DEFAULT_SUSPEND,
    psci::SYSTEM_SUSPEND_32,
    psci::SYSTEM_SUSPEND,
    psci::SYSTEM_RESET2_32,
    psci::SYSTEM_RESET2,
    psci::MEM_PROTECT,
];

/// All bits random, or a small number within a random service.
fn random_function(random: &mut Random) -> u64 {
    loop {
        let function = if random.below(2) == 0 {
            random.next()
        } else {
            random.next() & 0xff00_0000 | random.below(0x120)
        };
        if !EFFECTIVE.contains(&(function as u32)) {
            return function;
        }
    }
}

fn random_calls(conduit: Conduit) -> Verdict {
    let mut random = Random::new(4 + conduit as u64);
    for _ in 0..CALLS {
        let mut before = [0; 18];
        for register in &mut before {
            *register = random.argument();
        }
        before[0] = random_function(&mut random);
        match catch(|| call(conduit, before)) {
            Ok(after) => {
                let kept = after[4..] == before[4..];
                ensure!(kept, "X4-X17 changed by {:#x} over {conduit:?}", before[0]);
            }
            Err(fault) => ensure!(!on_bulkhead() && fault.is_undefined(), "{:#x}: {fault:x?}", before[0]),
        }
    }
    Ok(())
}

fn immediates() -> Verdict {
    let mut random = Random::new(6);
    for _ in 0..1000 {
        let mut registers = [0; 18];
        registers[0] = random_function(&mut random);
        for result in [catch(|| hvc_with_immediate(registers)), catch(|| smc_with_immediate(registers))] {
            if let Err(fault) = result {
                ensure!(fault.is_undefined(), "{:#x}: {fault:x?}", registers[0]);
            }
        }
    }
    Ok(())
}

/// CPU_ON and AFFINITY_INFO of every affinity but the partition's own.
fn absent(cpus: usize) -> Verdict {
    let mut random = Random::new(7);
    for _ in 0..10_000 {
        let target = random.argument();
        if target < cpus as u64 {
            continue;
        }
        let on = hvc(psci::CPU_ON, target, cpu::entry_address(), 0)[0].cast_signed();
        ensure_eq!(on, psci::INVALID_PARAMETERS, "CPU_ON of {target:#x}");
        let info = hvc(psci::AFFINITY_INFO, target, 0, 0)[0].cast_signed();
        ensure_eq!(info, psci::INVALID_PARAMETERS, "AFFINITY_INFO of {target:#x}");
    }
    Ok(())
}

fn start_and_stop() -> Verdict {
    static CAME: AtomicU64 = AtomicU64::new(0);
    for round in 1..=500 {
        let start = cpu::start(1, |round| CAME.store(round, Ordering::Release), round);
        ensure_eq!(start, psci::SUCCESS, "CPU_ON, round {round}");
        let came = wait_until(PATIENCE, || CAME.load(Ordering::Acquire) == round);
        ensure!(came, "CPU 1 does not come in round {round}");
        let off = wait_until(PATIENCE, || cpu::state(1) == psci::affinity::OFF);
        ensure!(off, "CPU 1 is not off in round {round}");
    }
    Ok(())
}
