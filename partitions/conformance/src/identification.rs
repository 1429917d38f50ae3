//! Registers that say what the CPU is, and those of debug and performance monitoring that a guest may touch.

use core::arch::asm;

use bulkhead_rt::exception::{Fault, catch};
use bulkhead_rt::{Failure, Verdict, cpu, ensure, ensure_eq, gic, read_sysreg, verdict, write_sysreg};

use crate::harness::test_on_each_cpu;

/// Runs the tests.
pub fn run(cpus: usize) {
    test_on_each_cpu("id-mpidr", cpus, mpidr);
    test_on_each_cpu("id-registers", cpus, id_registers);
    verdict::test("id-features", features);
    verdict::test("id-caches", caches);
    test_on_each_cpu("pmu-cycles", cpus, cycles);
    verdict::test("debug-registers", debug);
    verdict::test("fp-simd", floating_point);
    verdict::test("hints", hints);
}

fn mpidr() -> Verdict {
    let mpidr = read_sysreg!("mpidr_el1");
    // Aff0 is what `id` reads, and stacks, PSCI and the GIC all agree on it or nothing works.
    ensure_eq!(mpidr & 0xff_00ff_ff00, 0, "Aff1 to Aff3");
    ensure!(mpidr & 1 << 31 != 0, "bit 31 of MPIDR_EL1 is RES1");
    ensure_eq!(read_sysreg!("currentel"), 1 << 2, "CurrentEL");
    Ok(())
}

/// Reads the 8 registers of one CRm of the identification space (op0 3, op1 0, CRn 0).
macro_rules! read_group {
    ($crm:literal) => {
        for result in [
            catch(|| read_sysreg!(concat!("s3_0_c0_c", $crm, "_0"))),
            catch(|| read_sysreg!(concat!("s3_0_c0_c", $crm, "_1"))),
            catch(|| read_sysreg!(concat!("s3_0_c0_c", $crm, "_2"))),
            catch(|| read_sysreg!(concat!("s3_0_c0_c", $crm, "_3"))),
            catch(|| read_sysreg!(concat!("s3_0_c0_c", $crm, "_4"))),
            catch(|| read_sysreg!(concat!("s3_0_c0_c", $crm, "_5"))),
            catch(|| read_sysreg!(concat!("s3_0_c0_c", $crm, "_6"))),
            catch(|| read_sysreg!(concat!("s3_0_c0_c", $crm, "_7"))),
        ] {
            if let Err(fault) = result {
                return Err(Failure::new(format_args!(concat!("c0, c", $crm, ": {:x?}"), fault)));
            }
        }
    };
}

/// The whole space can be read: what is not allocated reads as zero (Arm ARM DDI 0487, D18.3.1).
fn id_registers() -> Verdict {
    read_group!("1");
    read_group!("2");
    read_group!("3");
    read_group!("4");
    read_group!("5");
    read_group!("6");
    read_group!("7");
    for (name, result) in [
        ("midr", catch(|| read_sysreg!("midr_el1"))),
        ("revidr", catch(|| read_sysreg!("revidr_el1"))),
        ("aidr", catch(|| read_sysreg!("aidr_el1"))),
        ("ctr", catch(|| read_sysreg!("ctr_el0"))),
        ("dczid", catch(|| read_sysreg!("dczid_el0"))),
        ("actlr", catch(|| read_sysreg!("actlr_el1"))),
    ] {
        ensure!(result.is_ok(), "{name}: {:x?}", result);
    }
    Ok(())
}

fn features() -> Verdict {
    let pfr0 = read_sysreg!("id_aa64pfr0_el1");
    ensure!(pfr0 & 0xf != 0, "no AArch64 at EL0: {pfr0:#x}");
    ensure!(pfr0 >> 4 & 0xf != 0, "no AArch64 at EL1: {pfr0:#x}");
    ensure!(pfr0 >> 16 & 0xf != 0xf, "no floating point: {pfr0:#x}");
    ensure_eq!(pfr0 >> 24 & 0xf != 0, !gic::is_v2(), "GIC system registers in {pfr0:#x}");
    if bulkhead_rt::smccc::on_bulkhead() {
        ensure_eq!(pfr0 >> 8 & 0xf, 0, "EL2 in {pfr0:#x}");
        ensure_eq!(pfr0 >> 32 & 0xf, 0, "SVE in {pfr0:#x}");
    }
    ensure!(read_sysreg!("id_aa64mmfr0_el1") & 0xf <= 6, "PARange");
    ensure!(read_sysreg!("id_aa64dfr0_el1") >> 8 & 0xf != 0, "no PMU");
    Ok(())
}

/// Cache geometry as boot loaders read it, and the set/way operations they then use.
fn caches() -> Verdict {
    let clidr = read_sysreg!("clidr_el1");
    ensure!(clidr & 7 != 0, "CLIDR_EL1 is {clidr:#x}");
    for level in 0..clidr >> 24 & 7 {
        let geometry: u64;
        // SAFETY: selects a cache whose geometry is read; nobody else uses the selection.
        unsafe {
            asm!("msr csselr_el1, {}", "isb", "mrs {}, ccsidr_el1", in(reg) level << 1, out(reg) geometry)
        };
        ensure!(geometry != 0, "CCSIDR_EL1 of level {level} is 0");
    }
    let word = 0_u64;
    // SAFETY: cleaning and invalidating, not invalidating alone, loses no data.
    unsafe {
        asm!("dc civac, {0}", "dc cvau, {0}", "dc cisw, {1}", "dc csw, {1}", "ic iallu", "ic ialluis", "dsb sy", "isb",
            in(reg) &raw const word, in(reg) 0_u64);
    }
    ensure_eq!(word, 0, "a word after cache maintenance");
    Ok(())
}

fn cycles() -> Verdict {
    write_sysreg!("pmcr_el0", 1 | 1 << 2 | 1 << 6); // enable, reset the cycle counter, 64 bits of it
    write_sysreg!("pmccfiltr_el0", 0);
    write_sysreg!("pmcntenset_el0", 1 << 31);
    let first = read_sysreg!("pmccntr_el0");
    bulkhead_rt::time::delay(100);
    let second = read_sysreg!("pmccntr_el0");
    write_sysreg!("pmcntenclr_el0", 1 << 31);
    ensure!(second > first, "PMCCNTR_EL0 went from {first} to {second}");
    ensure_eq!(read_sysreg!("pmcntenset_el0") >> 31, 0, "bit 31 of PMCNTENSET_EL0 after it was cleared");
    Ok(())
}

/// Debug registers work or are undefined, but do not stop the machine.
fn debug() -> Verdict {
    let results: [(&str, Result<(), Fault>); 9] = [
        ("mdscr", catch(|| write_sysreg!("mdscr_el1", read_sysreg!("mdscr_el1")))),
        ("oslar", catch(|| write_sysreg!("oslar_el1", 0))),
        ("oslsr", catch(|| _ = read_sysreg!("oslsr_el1"))),
        ("osdlr", catch(|| write_sysreg!("osdlr_el1", 0))),
        ("dbgbvr0", catch(|| write_sysreg!("dbgbvr0_el1", 0))),
        ("dbgbcr0", catch(|| write_sysreg!("dbgbcr0_el1", 0))),
        ("dbgwvr0", catch(|| write_sysreg!("dbgwvr0_el1", 0))),
        ("dbgwcr0", catch(|| write_sysreg!("dbgwcr0_el1", 0))),
        ("mdrar", catch(|| _ = read_sysreg!("mdrar_el1"))),
    ];
    for (name, result) in results {
        if let Err(fault) = result {
            ensure!(fault.is_undefined(), "{name}: {fault:x?}");
        }
    }
    Ok(())
}

/// Floating-point registers are the guest's own: they compute, and calls and traps leave them alone.
fn floating_point() -> Verdict {
    const MARKS: [u64; 4] =
        [0x4008_0000_0000_0000, 0x1234_5678_9abc_def0, 0xdead_beef_0bad_cafe, 0x0102_0304_0506_0708];
    let product: u64;
    let (low, middle, high): (u64, u64, u64);
    // SAFETY: this program is compiled without floating point, so that nobody owns the registers; the call
    // changes X0–X3 at most, the load reads a register of the GIC.
    unsafe {
        asm!(
            ".arch_extension fp",
            ".arch_extension simd",
            "mrs x9, cpacr_el1",
            "orr x9, x9, #0x300000",
            "msr cpacr_el1, x9",
            "isb",
            "fmov d0, {three}",
            "fmul d1, d0, d0",
            "fmov d8, {a}",
            "ins v16.d[1], {b}",
            "fmov d31, {c}",
            "mov x0, #0x84000000",
            "hvc #0",
            "ldr w9, [{gicd}, #4]",
            "fmov {product}, d1",
            "fmov {low}, d8",
            "umov {middle}, v16.d[1]",
            "fmov {high}, d31",
            ".arch_extension nosimd",
            ".arch_extension nofp",
            three = in(reg) MARKS[0],
            a = in(reg) MARKS[1],
            b = in(reg) MARKS[2],
            c = in(reg) MARKS[3],
            gicd = in(reg) gic::gicd(),
            product = lateout(reg) product,
            low = lateout(reg) low,
            middle = lateout(reg) middle,
            high = lateout(reg) high,
            out("x0") _, out("x1") _, out("x2") _, out("x3") _, out("x9") _,
        );
    }
    ensure_eq!(product, 9.0_f64.to_bits(), "3.0 * 3.0");
    ensure_eq!(&[low, middle, high][..], &MARKS[1..], "D8, V16, D31 after a call and a trap");
    Ok(())
}

/// WFE after SEV, YIELD and a WFI that has something pending go on.
fn hints() -> Verdict {
    // SAFETY: hints only; the event register is set before the wait.
    unsafe { asm!("yield", "sevl", "wfe", "sev", "wfe", options(nostack, nomem)) };
    ensure_eq!(cpu::id(), 0, "this CPU");
    Ok(())
}
