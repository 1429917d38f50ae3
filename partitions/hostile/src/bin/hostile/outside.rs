//! Everything that is not the partition's: each access aborts, in this guest, with a syndrome that tells why.

use bulkhead_rt::exception::{Fault, catch};
use bulkhead_rt::memory::{Attributes, RAM_END, RAM_START, Table, identity_map};
use bulkhead_rt::mmio::{execute, read8, read16, read32, read64, write8, write16, write32, write64};
use bulkhead_rt::smccc::on_bulkhead;
use bulkhead_rt::{Failure, Verdict, ensure, ensure_eq, gic, verdict};

use crate::attack;
use crate::random::Random;
use crate::translation::with_table;

/// Nothing is here, on the bare machine neither.
pub const NOWHERE: u64 = 0x0f00_0000;

/// Synchronous external abort, not on a translation table walk (Arm ARM DDI 0487, D19.2.37).
const EXTERNAL_ABORT: u64 = 0x10;

/// Runs the attacks.
pub fn run(cpus: usize) {
    attack("nowhere", || each_access(NOWHERE));
    const NAMES: [&str; 5] =
        ["outside-named", "outside-sweep", "outside-random", "outside-fetch", "outside-sp"];
    if !on_bulkhead() {
        for name in NAMES {
            verdict::skip(name, "no Bulkhead below: everything is owned");
        }
        return;
    }
    attack(NAMES[0], || named(cpus));
    attack(NAMES[1], sweep);
    attack(NAMES[2], random);
    attack(NAMES[3], fetch);
    attack(NAMES[4], stack);
}

/// Neighbours of what the partition has, and what the board has and the partition has not.
const UNOWNED: [u64; 28] = [
    RAM_START - 8,
    RAM_START - 4096,
    RAM_END,
    RAM_END + 4096,
    0,           // flash, and where a null pointer goes
    0x0400_0000, // second flash
    0x0801_0000, // GICC
    0x0802_0000, // GICv2m
    0x0803_0000, // GICH
    0x0804_0000, // GICV
    0x0808_0000, // ITS
    0x0809_0000, // ITS translation
    0x0900_1000, // the page after the PL011
    0x0901_0000, // RTC
    0x0902_0000, // fw_cfg
    0x0903_0000, // GPIO
    0x0904_0000, // secure PL011
    0x0905_0000, // SMMU
    0x0a00_0000, // virtio-mmio
    0x0a00_3e00,
    0x0c00_0000,    // platform bus
    0x0e00_0000,    // secure RAM
    0x1000_0000,    // PCIe memory
    0x3eff_0000,    // PCIe I/O
    0x3f00_0000,    // PCIe configuration
    0x40_0000_0000, // redistributors above 4 GiB
    0x40_1000_0000, // PCIe configuration above 4 GiB
    0x7f_ffff_fff8,
];

fn named(cpus: usize) -> Verdict {
    for address in UNOWNED {
        each_access(address)?;
    }
    // Redistributors of CPUs that the partition has not got.
    for cpu in cpus..8 {
        each_access(gic::redistributor(cpu))?;
        each_access(gic::redistributor(cpu) + gic::offset::SGI_FRAME + gic::offset::ISENABLER)?;
    }
    Ok(())
}

/// Loads and stores of every size abort.
fn each_access(address: u64) -> Verdict {
    expect_abort(address, false, catch(|| _ = read8(address)))?;
    expect_abort(address, false, catch(|| _ = read16(address)))?;
    expect_abort(address, false, catch(|| _ = read32(address)))?;
    expect_abort(address, false, catch(|| _ = read64(address)))?;
    expect_abort(address, true, catch(|| write8(address, 0)))?;
    expect_abort(address, true, catch(|| write16(address, 0)))?;
    expect_abort(address, true, catch(|| write32(address, 0)))?;
    expect_abort(address, true, catch(|| write64(address, 0)))
}

/// Checks class, status, direction, length bit and address of the abort.
fn expect_abort(address: u64, write: bool, result: Result<(), Fault>) -> Verdict {
    let Err(fault) = result else {
        return Err(Failure::new(format_args!("{address:#x} can be accessed, write: {write}")));
    };
    ensure!(fault.is_data_abort(), "{address:#x}: {fault:x?}");
    ensure_eq!(fault.status(), EXTERNAL_ABORT, "status at {address:#x}");
    ensure_eq!(fault.is_write(), write, "WnR at {address:#x}");
    ensure_eq!(fault.esr >> 25 & 1, 1, "IL at {address:#x}");
    ensure_eq!(fault.esr >> 10 & 1, 0, "FnV at {address:#x}");
    ensure_eq!(fault.far, address, "FAR");
    Ok(())
}

/// Whether a page that the partition owns, or a device emulated for it, is at or near `address`.
fn owned(address: u64) -> bool {
    (RAM_START..RAM_END).contains(&address)
        || (0x0800_0000..0x0820_0000).contains(&address)
        || (0x0900_0000..0x0900_1000).contains(&address)
}

/// Every 2 MiB of the first 64 GiB, where all RAM and devices of the board are, and every GiB above.
fn sweep() -> Verdict {
    let low = (0..64_u64 << 30).step_by(2 << 20);
    let high = (64_u64 << 30..512 << 30).step_by(1 << 30);
    for address in low.chain(high).filter(|&address| !owned(address)) {
        expect_abort(address, false, catch(|| _ = read32(address)))?;
        expect_abort(address, true, catch(|| write32(address, 0)))?;
    }
    Ok(())
}

/// Words anywhere in the first 4 GiB and in 512 GiB.
fn random() -> Verdict {
    let mut random = Random::new(1);
    for _ in 0..20_000 {
        let address = random.next() >> if random.next() & 1 == 0 { 32 } else { 25 } & !3;
        if !owned(address) {
            expect_abort(address, false, catch(|| _ = read32(address)))?;
        }
    }
    Ok(())
}

static EXECUTABLE: Table = identity_map(Attributes::NonCacheable);

/// Fetches from nowhere, from other owners' memory and from emulated devices are instruction aborts.
fn fetch() -> Verdict {
    let devices = [gic::GICD, gic::GICR, bulkhead_rt::console::PL011];
    for address in UNOWNED.into_iter().map(|address| address & !3).chain(devices) {
        let result = with_table(&EXECUTABLE, || catch(|| execute(address)));
        let Err(fault) = result else {
            return Err(Failure::new(format_args!("{address:#x} can be executed")));
        };
        ensure!(fault.is_instruction_abort(), "{address:#x}: {fault:x?}");
        ensure_eq!(fault.status(), EXTERNAL_ABORT, "status at {address:#x}");
        ensure_eq!([fault.far, fault.elr], [address; 2], "FAR and ELR");
    }
    Ok(())
}

/// A stack that runs over either edge of memory.
fn stack() -> Verdict {
    for top in [RAM_START, RAM_END + 64] {
        let result = catch(|| {
            // SAFETY: SP_EL0 is restored before anything else uses it; exceptions use SP_EL1.
            unsafe {
                core::arch::asm!(
                    "mov {old}, sp",
                    "mov sp, {top}",
                    "str xzr, [sp, #-16]!",
                    "mov sp, {old}",
                    top = in(reg) top,
                    old = out(reg) _,
                );
            }
        });
        ensure!(result.is_err_and(Fault::is_data_abort), "stack at {top:#x}: {result:x?}");
    }
    Ok(())
}
