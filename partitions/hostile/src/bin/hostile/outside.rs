//! Everything that is not the partition's: each access aborts, in this guest, with a syndrome that tells why.

use bulkhead_rt::console::pl011;
use bulkhead_rt::exception::{Fault, catch};
use bulkhead_rt::memory::{Attributes, RAM_END, RAM_START, Table, identity_map};
use bulkhead_rt::mmio::{execute, read8, read16, read32, read64, write8, write16, write32, write64};
use bulkhead_rt::smccc::on_bulkhead;
use bulkhead_rt::{Failure, Verdict, ensure, ensure_eq, gic, verdict};

use crate::attack;
use crate::translation::with_table;
use bulkhead_rt::random::Random;

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

/// Neighbours of what the partition has, and what boards have and the partition has not.
const UNOWNED: [u64; 25] = [
    RAM_START - 8,
    RAM_START - 4096,
    RAM_END,
    RAM_END + 4096,
    0,           // where a null pointer goes; on virt flash, on the Pi the firmware's vectors and spin table
    0x0400_0000, // second flash
    0x0802_0000, // GICv2m
    0x0803_0000, // GICH
    0x0804_0000, // GICV
    0x0808_0000, // ITS
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

/// The same on a board with a GICv3.
const UNOWNED_V3: [u64; 2] = [
    0x0801_0000, // GICC
    0x0809_0000, // ITS translation
];

/// The same on the Raspberry Pi 4.
const UNOWNED_PI: [u64; 16] = [
    0xd8,          // the spin table
    0x8_0000,      // where the hypervisor is loaded
    0xfe00_3000,   // system timer
    0xfe00_7000,   // DMA channels
    0xfe00_b880,   // mailbox to the VideoCore
    0xfe10_0000,   // power management and watchdog
    0xfe10_1000,   // clock manager
    0xfe20_0000,   // GPIO
    0xfe20_4000,   // SPI 0
    0xfe21_5000,   // auxiliaries, the mini-UART among them
    0xfd50_0000,   // PCIe
    0xff80_0000,   // local peripherals, the spin-table wake-ups of older boards
    0xff84_0000,   // the page before the distributor
    0xff84_4000,   // GICH
    0xff84_6000,   // GICV
    0x6_0000_0000, // PCIe memory
];

/// All that this machine has and the partition has not.
fn unowned() -> impl Iterator<Item = u64> {
    let v3 = UNOWNED_V3.into_iter().filter(|_| !gic::is_v2());
    let pi = UNOWNED_PI.into_iter().filter(|_| gic::gicd() == 0xff84_1000);
    let page_after_uart = core::iter::once(pl011() + 0x1000);
    UNOWNED.into_iter().chain(page_after_uart).chain(v3).chain(pi)
}

fn named(cpus: usize) -> Verdict {
    for address in unowned() {
        each_access(address)?;
    }
    if gic::is_v2() {
        return Ok(());
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

/// Whether a page that the partition owns, or a device emulated for it, is at or near `address`: the parts of the
/// interrupt controller lie in 2 MiB.
fn owned(address: u64) -> bool {
    (RAM_START..RAM_END).contains(&address)
        || (gic::gicd() >> 21 == address >> 21)
        || (pl011() >> 12 == address >> 12)
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
    let second = if gic::is_v2() { gic::cpu_interface() } else { gic::redistributor(0) };
    let devices = [gic::gicd(), second, pl011()];
    for address in unowned().map(|address| address & !3).chain(devices) {
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
