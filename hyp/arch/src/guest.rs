//! EL1 and EL0 as a partition's vCPU has them: what EL2 configures once, and what a reset of the vCPU sets.

use aarch64_cpu::registers::{
    CNTHCTL_EL2, CNTVOFF_EL2, CPTR_EL2, ELR_EL1, ELR_EL2, ESR_EL1, ESR_EL2, FAR_EL1, FAR_EL2, HPFAR_EL2,
    ID_AA64MMFR0_EL1, ID_AA64PFR0_EL1, MIDR_EL1, Readable, SCTLR_EL1, SPSR_EL1, SPSR_EL2, VBAR_EL1, VTCR_EL2,
    VTTBR_EL2, Writeable,
};
use bulkhead_policy::addr::Ipa;
use bulkhead_policy::stage2::{self, Stage2};
use bulkhead_policy::syndrome::{self, Exit};
use bulkhead_policy::vcpu::{Exception, Registers, Stopped, inject};

use crate::barrier;
use crate::percpu::PerCpu;
use crate::sysreg::{read_sysreg, write_sysreg};
use crate::vectors;

/// HCR_EL2 while a guest runs (Arm ARM DDI 0487, D19.2.48): stage 2 on; set/way maintenance made harmless; interrupts and
/// SErrors to EL2; SMC, ID registers, ACTLR_EL1, implementation defined registers, LOR and error records trapped;
/// pointer authentication the guest's own; EL1 in AArch64.
const HCR: u64 = VM | SWIO | FMO | IMO | AMO | TID3 | TSC | TIDCP | TACR | RW | TLOR | TERR | APK | API;
const VM: u64 = 1 << 0;
const SWIO: u64 = 1 << 1;
const FMO: u64 = 1 << 3;
const IMO: u64 = 1 << 4;
const AMO: u64 = 1 << 5;
/// A virtual SError is pending.
const VSE: u64 = 1 << 8;
const TID3: u64 = 1 << 18;
const TSC: u64 = 1 << 19;
const TIDCP: u64 = 1 << 20;
const TACR: u64 = 1 << 21;
const RW: u64 = 1 << 31;
const TLOR: u64 = 1 << 35;
const TERR: u64 = 1 << 36;
const APK: u64 = 1 << 40;
const API: u64 = 1 << 41;

/// CPTR_EL2: FP and SIMD are the guest's; SVE, SME, trace and activity monitors trap (D19.2.34).
pub(crate) const CPTR: u64 = 0x33ff | (1 << 20) | (1 << 30);

/// MDCR_EL2: debug ROM address and OS lock registers trap (D19.3.17).
const MDCR_TDRA: u64 = 1 << 11;
const MDCR_TDOSA: u64 = 1 << 10;

/// SCTLR_EL1 at reset: RES1 bits, everything off.
const SCTLR_EL1_RESET: u64 = 0x30d0_0800;
/// PSTATE.nRW: the guest was in AArch32, which only its EL0 can be.
const PSTATE_AARCH32: u64 = 1 << 4;
/// PSTATE at the first instruction: EL1h, all masked.
const PSTATE_RESET: u64 = 0x3c5;

/// Gives this CPU for good to vCPU `vcpu` of partition number `partition`: stage 2, traps and identity. `tables` are complete
/// and never change.
pub fn assign_cpu(tables: &'static Stage2<'static>, partition: usize, vcpu: usize) {
    let this_cpu = PerCpu::current();
    assert!(!this_cpu.assigned.replace(true));
    this_cpu.partition.set(partition as u64);
    // VMID 0 is nobody's, so that a VTTBR_EL2 that was never set matches no partition's translations.
    let vmid = partition as u64 + 1;
    let root = tables.root();
    VTCR_EL2.set(stage2::vtcr(ID_AA64MMFR0_EL1.get()));
    VTTBR_EL2.set((vmid << 48) | root.raw());
    CPTR_EL2.set(CPTR);
    CNTHCTL_EL2.set(0b11);
    CNTVOFF_EL2.set(0);
    // SAFETY: these registers act on EL1 and EL0 only, where nothing runs on this CPU yet.
    unsafe {
        write_sysreg!("hstr_el2", 0);
        write_sysreg!("vpidr_el2", MIDR_EL1.get());
        write_sysreg!("vmpidr_el2", (1 << 31) | vcpu as u64);
        // All counters of the PMU are the guest's (MDCR_EL2.HPMN); no debug exception goes to EL2. The OS lock is not the
        // guest's: with it set, MDSCR_EL1 is a way to an external debugger's registers, which may halt EL2.
        let counters = if has_pmu() { (read_sysreg!("pmcr_el0") >> 11) & 0x1f } else { 0 };
        write_sysreg!("mdcr_el2", MDCR_TDRA | MDCR_TDOSA | counters);
        write_sysreg!("oslar_el1", 0);
        // Fine-grained traps and HCRX_EL2 reset to unknown values where they exist.
        if (ID_AA64MMFR0_EL1.get() >> 56) & 0xf != 0 {
            write_sysreg!("S3_4_C1_C1_4", 0); // HFGRTR_EL2
            write_sysreg!("S3_4_C1_C1_5", 0); // HFGWTR_EL2
            write_sysreg!("S3_4_C1_C1_6", 0); // HFGITR_EL2
            write_sysreg!("S3_4_C3_C1_4", 0); // HDFGRTR_EL2
            write_sysreg!("S3_4_C3_C1_5", 0); // HDFGWTR_EL2
        }
        if (read_sysreg!("id_aa64mmfr1_el1") >> 40) & 0xf != 0 {
            write_sysreg!("S3_4_C1_C2_2", 0); // HCRX_EL2
        }
        write_sysreg!("hcr_el2", HCR);
    }
    barrier::context_synchronization();
    invalidate_stage1_and_2();
}

/// Forgets every translation of this partition's guests, stage 1 and 2, on this CPU, and its instructions (DDI 0487, D8.16):
/// what an earlier life of the vCPU left must not serve the next.
fn invalidate_stage1_and_2() {
    // SAFETY: invalidating TLBs and instruction caches changes no memory.
    unsafe {
        core::arch::asm!(
            "dsb nshst",
            "tlbi vmalls12e1",
            "ic iallu",
            "dsb nsh",
            "isb",
            options(nostack, preserves_flags)
        );
    }
}

/// Resets the EL1 state of this CPU's vCPU (DDI 0487, D1.4; what is architecturally unknown at reset is zeroed, so that
/// nothing of an earlier life is left), and runs it from `entry` with `context` in x0. Returns what a handler of
/// exits returned when the vCPU left its guest. Only after [`assign_cpu`].
pub fn run(entry: Ipa, context: u64) -> u64 {
    assert!(PerCpu::current().assigned.get());
    // SAFETY: EL1 and EL0 registers of a CPU whose vCPU is off.
    unsafe {
        write_sysreg!("hcr_el2", HCR);
        write_sysreg!("sctlr_el1", SCTLR_EL1_RESET);
        write_sysreg!("actlr_el1", read_sysreg!("actlr_el1"));
        write_sysreg!("cpacr_el1", 0);
        write_sysreg!("ttbr0_el1", 0);
        write_sysreg!("ttbr1_el1", 0);
        write_sysreg!("tcr_el1", 0);
        write_sysreg!("mair_el1", 0);
        write_sysreg!("amair_el1", 0);
        write_sysreg!("vbar_el1", 0);
        write_sysreg!("esr_el1", 0);
        write_sysreg!("far_el1", 0);
        write_sysreg!("afsr0_el1", 0);
        write_sysreg!("afsr1_el1", 0);
        write_sysreg!("par_el1", 0);
        write_sysreg!("elr_el1", 0);
        write_sysreg!("spsr_el1", 0);
        write_sysreg!("sp_el0", 0);
        write_sysreg!("sp_el1", 0);
        write_sysreg!("tpidr_el0", 0);
        write_sysreg!("tpidrro_el0", 0);
        write_sysreg!("tpidr_el1", 0);
        write_sysreg!("contextidr_el1", 0);
        write_sysreg!("csselr_el1", 0);
        write_sysreg!("cntkctl_el1", 0);
        write_sysreg!("cntv_ctl_el0", 0);
        write_sysreg!("cntp_ctl_el0", 0);
        write_sysreg!("cntv_cval_el0", 0);
        write_sysreg!("cntp_cval_el0", 0);
        write_sysreg!("mdscr_el1", 0);
        if (ID_AA64PFR0_EL1.get() >> 28) & 0xf != 0 {
            write_sysreg!("S3_4_C12_C1_1", 0); // VDISR_EL2
            write_sysreg!("S3_4_C5_C2_3", 0); // VSESR_EL2
        }
        if has_pmu() {
            // Counters stopped and reset, no overflow interrupt.
            write_sysreg!("pmcr_el0", 0b110);
            write_sysreg!("pmcntenclr_el0", u64::from(u32::MAX));
            write_sysreg!("pmintenclr_el1", u64::from(u32::MAX));
            write_sysreg!("pmovsclr_el0", u64::from(u32::MAX));
            write_sysreg!("pmuserenr_el0", 0);
        }
    }
    ELR_EL2.set(entry.raw());
    SPSR_EL2.set(PSTATE_RESET);
    barrier::context_synchronization();
    // Only now can no walk with the old life's tables begin any more.
    invalidate_stage1_and_2();
    let mut registers = Registers::default();
    registers.set(0, context);
    // SAFETY: `assign_cpu` has given this CPU to a vCPU, which runs nowhere else.
    unsafe { vectors::enter(&registers) }
}

/// Why the guest stopped.
#[inline(always)]
#[must_use]
pub fn read_exit() -> Exit {
    let mut exit = syndrome::decode(ESR_EL2.get(), FAR_EL2.get(), HPFAR_EL2.get());
    if let Exit::DataAbort(abort) = &mut exit
        && SPSR_EL2.get() & PSTATE_AARCH32 != 0
    {
        // A T32 instruction may be 2 bytes long and in an IT block: not emulated, since no driver is AArch32 EL0.
        abort.access = None;
    }
    exit
}

/// Whether there is a PMUv3; 0xf in ID_AA64DFR0_EL1.PMUVer is another kind.
fn has_pmu() -> bool {
    !matches!((read_sysreg!("id_aa64dfr0_el1") >> 8) & 0xf, 0 | 0xf)
}

/// Where the guest stopped.
#[must_use]
pub fn read_pc() -> u64 {
    ELR_EL2.get()
}

/// Address of the access that stopped it.
#[must_use]
pub fn read_far() -> u64 {
    FAR_EL2.get()
}

/// Lets the guest go on at the next instruction. A trapped instruction is always an A64 one of 4 bytes: EL1 is AArch64, and
/// what AArch32 EL0 traps here is answered by an exception (see [`read_exit`]).
#[inline(always)]
pub fn advance() {
    ELR_EL2.set(ELR_EL2.get() + 4);
}

/// Lets the guest go on with an exception taken to EL1.
pub fn take_exception(exception: Exception) {
    let stopped = Stopped {
        esr: ESR_EL2.get(),
        far: FAR_EL2.get(),
        pc: ELR_EL2.get(),
        pstate: SPSR_EL2.get(),
        vbar: VBAR_EL1.get(),
        sctlr: SCTLR_EL1.get(),
    };
    let injected = inject(exception, &stopped);
    ELR_EL1.set(stopped.pc);
    SPSR_EL1.set(stopped.pstate);
    ESR_EL1.set(injected.esr);
    if let Some(far) = injected.far {
        FAR_EL1.set(far);
    }
    ELR_EL2.set(injected.pc);
    SPSR_EL2.set(injected.pstate);
}

/// Makes an SError pending for the guest: its own access caused one that hardware reported late.
pub fn take_serror() {
    // SAFETY: VSE concerns EL1 only.
    unsafe { write_sysreg!("hcr_el2", read_sysreg!("hcr_el2") | VSE) };
}

/// Whether the CPU has GICv3's system registers.
#[must_use]
pub fn has_gic_system_registers() -> bool {
    (ID_AA64PFR0_EL1.get() >> 24) & 0xf != 0
}

/// The CPU's own ID register with these fields of its encoding (Op0 3, Op1 0, CRn 0); zero for those of which no guest sees
/// anything (`policy::vcpu::id_register`).
#[must_use]
pub fn read_id_register(crm: u8, op2: u8) -> u64 {
    macro_rules! by_encoding {
        ($($crm:literal: $($op2:literal)*;)*) => {
            match (crm, op2) {
                $($(($crm, $op2) => read_sysreg!(concat_register!($crm, $op2)),)*)*
                _ => 0,
            }
        };
    }
    macro_rules! concat_register {
        ($crm:literal, $op2:literal) => {
            concat!("S3_0_C0_C", $crm, "_", $op2)
        };
    }
    by_encoding! {
        1: 0 1 2 3 4 5 6 7;
        2: 0 1 2 3 4 5 6 7;
        3: 0 1 2 3 4 5 6 7;
        4: 0 1;
        5: 0;
        6: 0 1 2;
        7: 0 1 2;
    }
}
