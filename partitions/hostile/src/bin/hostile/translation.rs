//! The guest's own MMU, abused: tables outside its memory, addresses wider than stage 2, garbage, and the MMU
//! switched off and on.

use core::arch::asm;

use bulkhead_abi::psci;
use bulkhead_rt::exception::catch;
use bulkhead_rt::gic::gicd;
use bulkhead_rt::memory::{self, Attributes, RAM_END, RAM_START, Table, identity_map};
use bulkhead_rt::smccc::on_bulkhead;
use bulkhead_rt::{Verdict, ensure, ensure_eq, mmio, read_sysreg, verdict};

use crate::attack;
use crate::outside::NOWHERE;
use bulkhead_rt::random::Random;

/// Runs the attacks.
pub fn run() {
    attack("translation-garbage", garbage);
    attack("mmu-off-and-on", off_and_on);
    attack("maintenance", maintenance);
    if on_bulkhead() {
        attack("tables-outside", tables_outside);
        attack("wide-addresses", wide_addresses);
    } else {
        verdict::skip("tables-outside", "no Bulkhead below");
        verdict::skip("wide-addresses", "no Bulkhead below");
    }
}

/// Runs `f` with another level-1 table.
pub fn with_table<R>(table: &'static Table, f: impl FnOnce() -> R) -> R {
    assert_eq!(table.0[RAM_GIGABYTE], memory::IDENTITY_MAP.0[RAM_GIGABYTE], "RAM is mapped otherwise");
    with_table_at(core::ptr::from_ref(table) as u64, f)
}

const RAM_GIGABYTE: usize = (RAM_START >> 30) as usize;

fn with_table_at<R>(table: u64, f: impl FnOnce() -> R) -> R {
    let old = read_sysreg!("ttbr0_el1");
    let switch = |table: u64| {
        // SAFETY: both tables map RAM in the same way, and that is all that the program itself uses.
        unsafe {
            asm!("dsb ish", "msr ttbr0_el1, {}", "isb", "tlbi vmalle1", "dsb nsh", "isb", in(reg) table, options(nostack));
        }
    };
    switch(table);
    let result = f();
    switch(old);
    result
}

/// A table in free RAM whose entries come from `entry`, but for the one that maps RAM.
fn build_table(mut entry: impl FnMut(usize) -> u64) -> u64 {
    const PLACE: u64 = RAM_END - (2 << 20);
    for gigabyte in 0..512 {
        let descriptor =
            if gigabyte == RAM_GIGABYTE { memory::IDENTITY_MAP.0[RAM_GIGABYTE] } else { entry(gigabyte) };
        memory::write(PLACE + 8 * gigabyte as u64, descriptor);
    }
    PLACE
}

/// Random descriptors: whatever a load through them finds, the guest goes on.
fn garbage() -> Verdict {
    let mut random = Random::new(2);
    for _ in 0..200 {
        let kind = random.next() & 3;
        let table = build_table(|_| random.next() & !3 | kind);
        with_table_at(table, || {
            for gigabyte in (0..512_u64).filter(|&gigabyte| gigabyte != RAM_GIGABYTE as u64).step_by(37) {
                let address = gigabyte << 30 | random.next() >> 34 & !3;
                // Loads only: a garbage block may well map this program's memory.
                let _ = catch(|| mmio::read32(address));
            }
        });
    }
    Ok(())
}

/// Tables that lie in an emulated device, in nothing, in the hypervisor's and the neighbours' memory: the walk
/// aborts.
fn tables_outside() -> Verdict {
    for place in
        [0, gicd(), bulkhead_rt::console::pl011(), NOWHERE, RAM_END, 0x6000_0000, 0x7000_0000, 0x40_0000_0000]
    {
        let table = build_table(|_| place | 3);
        for address in [0, 5 << 30 | 0x1234_5678, 511 << 30] {
            let result = with_table_at(table, || catch(|| mmio::read32(address)));
            let Err(fault) = result else {
                ensure!(false, "a walk through {place:#x} succeeds");
                continue;
            };
            ensure!(fault.is_data_abort(), "walk through {place:#x}: {fault:x?}");
            // Synchronous external abort, of the access or of a walk at some level.
            ensure!((0x10..0x18).contains(&fault.status()), "walk through {place:#x}: {fault:x?}");
            ensure_eq!(fault.far, address, "FAR of a walk through {place:#x}");
        }
    }
    Ok(())
}

/// Addresses that the partition's stage 2 may not even be able to express: FAR tells the virtual one.
fn wide_addresses() -> Verdict {
    static FLAT: Table = identity_map(Attributes::Device);
    for bit in 39..44 {
        let table = build_table(|gigabyte| FLAT.0[gigabyte] | 1 << bit);
        for address in [0, 0x4_1234_5678, 0x48_0000_0000] {
            let result = with_table_at(table, || catch(|| mmio::read32(address)));
            let Err(fault) = result else {
                ensure!(false, "bit {bit} of an address is ignored");
                continue;
            };
            ensure!(fault.is_data_abort(), "address with bit {bit}: {fault:x?}");
            ensure_eq!(fault.far, address, "FAR of an address with bit {bit}");
        }
    }
    Ok(())
}

/// MMU and caches off, a call and a device access in between.
fn off_and_on() -> Verdict {
    let sctlr = read_sysreg!("sctlr_el1");
    for _ in 0..1000 {
        let (version, typer): (u64, u64);
        // SAFETY: the mapping is flat, the block touches no memory but a register of the GIC, and leaves
        // SCTLR_EL1 as it was.
        unsafe {
            asm!(
                "dsb sy",
                "msr sctlr_el1, {off}",
                "isb",
                "hvc #0",
                "ldr w9, [{gicd}, #4]",
                "msr sctlr_el1, {on}",
                "isb",
                off = in(reg) sctlr & !(1 << 12 | 1 << 2 | 1),
                on = in(reg) sctlr,
                gicd = in(reg) gicd(),
                inout("x0") u64::from(psci::PSCI_VERSION) => version,
                out("x1") _, out("x2") _, out("x3") _,
                out("x9") typer,
                options(nostack),
            );
        }
        ensure_eq!(version, u64::from(psci::VERSION_1_1), "PSCI_VERSION with the MMU off");
        ensure_eq!(typer, u64::from(mmio::read32(gicd() + 4)), "GICD_TYPER with the MMU off");
    }
    Ok(())
}

/// Maintenance by set and way, and broadcast TLB maintenance, in a storm.
fn maintenance() -> Verdict {
    let mark = 0x0123_4567_89ab_cdef;
    let place = RAM_END - (3 << 20);
    memory::write(place, mark);
    for way in 0..5000_u64 {
        // SAFETY: below a hypervisor an invalidate by set and way also cleans (DDI 0487, D7.5.9.5), and on
        // the bare machine only the cleaning one is used.
        unsafe {
            asm!("dc cisw, {0}", "dc csw, {0}", "ic ialluis", "tlbi vmalle1is", "tlbi vaae1is, {0}", "dsb sy", "isb",
                in(reg) way << 6, options(nostack));
            if on_bulkhead() {
                asm!("dc isw, {0}", "dsb sy", in(reg) way << 6, options(nostack));
            }
        }
    }
    ensure_eq!(memory::read(place), mark, "a word after cache maintenance");
    Ok(())
}
