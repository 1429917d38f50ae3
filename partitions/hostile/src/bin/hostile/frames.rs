//! Random loads and stores all over the frames of the interrupt controller and the console, from all CPUs at
//! once.

use core::sync::atomic::{AtomicU32, Ordering};

use bulkhead_rt::console::{UARTDR, pl011};
use bulkhead_rt::exception::catch;
use bulkhead_rt::gic::{self, GICR_STRIDE, gicd};
use bulkhead_rt::mmio::{read8, read16, read32, read64, write8, write16, write32, write64};
use bulkhead_rt::time::{delay, wait_until};
use bulkhead_rt::{Failure, Verdict, cpu, ensure, ensure_eq, smccc};

use crate::{PATIENCE, attack, still_works};
use bulkhead_rt::random::Random;

/// Accesses by each CPU.
const ACCESSES: u32 = 100_000;

/// Runs the attacks.
pub fn run(cpus: usize) {
    attack("frames-random", || together(cpus));
}

static FINISHED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);

/// All CPUs at it.
fn together(cpus: usize) -> Verdict {
    fn on_other_cpu(cpus: u64) {
        if random_accesses(cpus as usize).is_err() || still_works().is_err() {
            FAILED.fetch_add(1, Ordering::Relaxed);
        }
        FINISHED.fetch_add(1, Ordering::Release);
    }
    for target in 1..cpus {
        ensure_eq!(cpu::start(target, on_other_cpu, cpus as u64), 0, "CPU_ON of CPU {target}");
    }
    random_accesses(cpus)?;
    // The distributor was set to random values; the others need it to see that their CPUs still work.
    restore();
    let done = wait_until(6 * PATIENCE, || {
        bulkhead_rt::gic::init_distributor();
        delay(1000);
        FINISHED.load(Ordering::Acquire) as usize == cpus - 1
    });
    restore();
    ensure!(done, "another CPU did not finish");
    ensure_eq!(FAILED.load(Ordering::Relaxed), 0, "other CPUs that failed");
    Ok(())
}

fn restore() {
    bulkhead_rt::gic::init_distributor();
    for (register, value) in [(0x38, 0), (0x48, 0), (0x2c, 0x70), (0x30, 0x301), (0x44, 0x7ff)] {
        write32(pl011() + register, value);
    }
}

fn random_accesses(cpus: usize) -> Verdict {
    let mut random = Random::new(8 + cpu::id() as u64);
    // On the bare machine redistributors write to memory when told so: LPIs are left alone there.
    let on_bulkhead = smccc::on_bulkhead();
    for _ in 0..ACCESSES {
        let (frame, size) = match random.below(4) {
            0 if gic::is_v2() => (gicd(), 0x1000),
            1 | 2 if gic::is_v2() => (gic::cpu_interface(), 0x2000),
            0 => (gicd(), 0x1_0000),
            1 => (gic::redistributor(0), GICR_STRIDE * cpus as u64),
            2 => (gic::redistributor(cpu::id()) + gic::offset::SGI_FRAME, 0x1000),
            _ => (pl011(), 0x1000),
        };
        // Half of them where the registers are.
        let within = if random.below(2) == 0 { size } else { 0x1000 };
        let offset = random.below(within);
        let width = random.below(4);
        let aligned = random.below(16) != 0;
        let address = frame + if aligned { offset & !((1 << width) - 1) } else { offset };
        let lpis = (0x40..0xc0).contains(&(offset % 0x1_0000)) || offset % 0x1_0000 < 4;
        if !on_bulkhead && !gic::is_v2() && frame == gic::redistributor(0) && lpis {
            continue;
        }
        let mut value = random.argument();
        if (UARTDR..UARTDR + 4).contains(&address.wrapping_sub(pl011())) {
            value = u64::from(b'~'); // a line that can be read
        }
        let result = match (width, random.below(2)) {
            (0, 0) => catch(|| _ = read8(address)),
            (1, 0) => catch(|| _ = read16(address)),
            (2, 0) => catch(|| _ = read32(address)),
            (_, 0) => catch(|| _ = read64(address)),
            (0, _) => catch(|| write8(address, value as u8)),
            (1, _) => catch(|| write16(address, value as u16)),
            (2, _) => catch(|| write32(address, value as u32)),
            (_, _) => catch(|| write64(address, value)),
        };
        if let Err(fault) = result
            && !(fault.is_data_abort() && (address..address + 8).contains(&fault.far))
        {
            return Err(Failure::new(format_args!("{address:#x}: {fault:x?}")));
        }
    }
    Ok(())
}
