//! A vCPU's registers, and what an exception does to them.

/// General registers of a guest while it is stopped.
#[derive(Clone, Debug, Default)]
#[repr(C, align(16))]
pub struct Registers {
    /// x0 to x30.
    pub x: [u64; 31],
    reserved: u64,
}

impl Registers {
    /// Register `n`; 31 is the zero register.
    #[must_use]
    pub fn get(&self, n: u8) -> u64 {
        self.x.get(usize::from(n)).copied().unwrap_or(0)
    }

    /// Sets register `n`; 31 is the zero register.
    pub fn set(&mut self, n: u8, value: u64) {
        if let Some(register) = self.x.get_mut(usize::from(n)) {
            *register = value;
        }
    }
}

/// An exception for the guest to handle at EL1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exception {
    /// A load or store found nothing: a synchronous External abort.
    DataAbort,
    /// An instruction fetch found nothing: a synchronous External abort.
    InstructionAbort,
    /// The instruction does not exist.
    Undefined,
}

/// What the CPU held when the guest stopped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stopped {
    /// ESR_EL2.
    pub esr: u64,
    /// FAR_EL2.
    pub far: u64,
    /// ELR_EL2: where the guest was.
    pub pc: u64,
    /// SPSR_EL2: its PSTATE.
    pub pstate: u64,
    /// VBAR_EL1.
    pub vbar: u64,
    /// SCTLR_EL1.
    pub sctlr: u64,
}

/// What the CPU is to hold so that the guest takes an exception to EL1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Injected {
    /// ESR_EL1.
    pub esr: u64,
    /// FAR_EL1, where the exception has one.
    pub far: Option<u64>,
    /// ELR_EL2: the vector.
    pub pc: u64,
    /// SPSR_EL2: EL1h, all masked.
    pub pstate: u64,
}

const EL1H: u64 = 0b0101;
const MODE: u64 = 0xf;
const AARCH32: u64 = 1 << 4;
const DAIF: u64 = 0xf << 6;
const SSBS: u64 = 1 << 12;
const PAN: u64 = 1 << 22;
const DIT: u64 = 1 << 24;
const TCO: u64 = 1 << 25;
const NZCV: u64 = 0xf << 28;
const SCTLR_SPAN: u64 = 1 << 23;
const SCTLR_DSSBS: u64 = 1 << 44;

/// Takes `exception` to EL1 as the Arm ARM says (DDI 0487, AArch64.TakeException and D1.3): the guest's ELR_EL1 and SPSR_EL1 get
/// `stopped.pc` and `stopped.pstate`, the rest is returned.
#[must_use]
pub fn inject(exception: Exception, stopped: &Stopped) -> Injected {
    let from_el0 = stopped.pstate & (AARCH32 | MODE) == 0 || stopped.pstate & AARCH32 != 0;
    let offset = if stopped.pstate & AARCH32 != 0 {
        0x600
    } else {
        match stopped.pstate & MODE {
            0b0000 => 0x400,
            0b0100 => 0x000,
            _ => 0x200,
        }
    };
    let mut pstate = EL1H | DAIF | stopped.pstate & (NZCV | DIT | PAN | TCO);
    if stopped.sctlr & SCTLR_SPAN == 0 {
        pstate |= PAN;
    }
    if stopped.sctlr & SCTLR_DSSBS != 0 {
        pstate |= SSBS;
    }
    let same_level = u64::from(!from_el0);
    let length = stopped.esr & (1 << 25);
    // Fault status: synchronous External abort, or the same on a table walk at the level where stage 2 stopped it
    // (DDI 0487, D19.2.37, DFSC).
    let status = if stopped.esr & (1 << 7) != 0 { 0b01_0100 | stopped.esr & 3 } else { 0b01_0000 };
    let (esr, far) = match exception {
        Exception::DataAbort => {
            let write_and_maintenance = stopped.esr & (1 << 6 | 1 << 8);
            ((0x24 | same_level) << 26 | length | write_and_maintenance | status, Some(stopped.far))
        }
        Exception::InstructionAbort => ((0x20 | same_level) << 26 | length | status, Some(stopped.far)),
        Exception::Undefined => (1 << 25, None),
    };
    Injected { esr, far, pc: stopped.vbar.wrapping_add(offset), pstate }
}

/// The fields at these bits.
const fn fields(positions: &[u32]) -> u64 {
    let (mut mask, mut rest) = (0, positions);
    while let Some((at, others)) = rest.split_first() {
        mask |= 0xf_u64.wrapping_shl(*at);
        rest = others;
    }
    mask
}

/// The field of `value` at bit `at`, `most` at the most.
#[inline(always)]
fn at_most(value: u64, at: u32, most: u64) -> u64 {
    (value.wrapping_shr(at) & 0xf).min(most).wrapping_shl(at)
}

/// The value of an ID register as a guest sees it: only what it may use (DDI 0487, D19.2). `crm` and `op2` are those of the
/// encoding; registers without an entry read as zero.
///
/// Hidden: EL2 and EL3, SVE, SME, MTE, RAS, AMU, MPAM, nested virtualization, LOR, trace, SPE, BRBE and what else would
/// need state that a partition does not have.
#[must_use]
pub fn id_register(crm: u8, op2: u8, value: u64) -> u64 {
    let visible = match (crm, op2) {
        // AArch32 registers: EL0 may be AArch32.
        (1..=3, _) => return value,
        // ID_AA64PFR0: EL0, EL1, FP, AdvSIMD, GIC, DIT, CSV2, CSV3. EL1 is AArch64 only.
        // CSV2 above 1 promises SCXTNUM_ELx, which trap.
        (4, 0) => {
            return (value & const { fields(&[0, 16, 20, 24, 48, 60]) }) | at_most(value, 56, 1) | 1 << 4;
        }
        // ID_AA64PFR1: BT, SSBS.
        (4, 1) => const { fields(&[0, 4]) },
        // ID_AA64DFR0: DebugVer, PMUVer, BRPs, WRPs, CTX_CMPs, DoubleLock.
        (5, 0) => const { fields(&[0, 8, 12, 20, 28, 36]) },
        // ID_AA64ISAR0: all but TME; ISAR1: all but LS64 and SPECRES' later kin; ISAR2: WFxT, RPRES, PAuth, BC; MOPS
        // needs HCRX_EL2.
        (6, 0) => const { !fields(&[24]) },
        (6, 1) => const { !fields(&[60]) },
        (6, 2) => const { fields(&[0, 4, 8, 12, 20]) },
        // ID_AA64MMFR0: PARange, ASIDBits, BigEnd, SNSMem, BigEndEL0, granules (stage 1), ExS.
        (7, 0) => const { fields(&[0, 4, 8, 12, 16, 20, 24, 28, 44]) },
        // ID_AA64MMFR1: HAFDBS up to what TCR_EL1 controls, HPDS, PAN, SpecSEI, ETS, AFP.
        (7, 1) => return (value & const { fields(&[12, 20, 24, 36, 44]) }) | at_most(value, 0, 2),
        // ID_AA64MMFR2: CnP, UAO, IESB, VARange, CCIDX, ST, AT, IDS, TTL, BBM, EVT hidden, E0PD.
        (7, 2) => const { fields(&[0, 4, 12, 16, 20, 28, 32, 36, 48, 52, 60]) },
        _ => 0,
    };
    value & visible
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(pstate: u64, esr: u64) -> Stopped {
        Stopped { esr, far: 0xdead_0000, pc: 0x4008_0000, pstate, vbar: 0x4000_0000, sctlr: SCTLR_SPAN }
    }

    #[test]
    fn an_abort_names_where_it_came_from() {
        let write = 0x24 << 26 | 1 << 25 | 1 << 24 | 1 << 6 | 0x07;
        let injected = inject(Exception::DataAbort, &stopped(0b0101 | 1 << 31, write));
        assert_eq!(injected.esr, 0x25 << 26 | 1 << 25 | 1 << 6 | 0x10);
        assert_eq!((injected.far, injected.pc), (Some(0xdead_0000), 0x4000_0200));
        assert_eq!(injected.pstate, 0x8000_03c5);
        let from_el0 = inject(Exception::DataAbort, &stopped(0, write));
        assert_eq!((from_el0.esr >> 26, from_el0.pc), (0x24, 0x4000_0400));
        let from_aarch32 = inject(Exception::DataAbort, &stopped(AARCH32, write));
        assert_eq!((from_aarch32.esr >> 26, from_aarch32.pc), (0x24, 0x4000_0600));
        assert_eq!(inject(Exception::Undefined, &stopped(0b0100, 0)).pc, 0x4000_0000);
    }

    #[test]
    fn a_walk_that_stage_2_stopped_says_so() {
        let walk = 0x24 << 26 | 1 << 25 | 1 << 7 | 0x06;
        assert_eq!(inject(Exception::DataAbort, &stopped(0b0101, walk)).esr & 0x3f, 0x16);
    }

    #[test]
    fn privileged_access_never_is_set_where_the_guest_asks_for_it() {
        let mut state = stopped(0b0101, 0);
        state.sctlr = 0;
        assert_ne!(inject(Exception::Undefined, &state).pstate & PAN, 0);
    }

    #[test]
    fn el2_and_el3_do_not_exist() {
        assert_eq!(id_register(4, 0, 0x1111_0000_0100_2222), 0x1101_0000_0100_0012);
        assert_eq!(id_register(4, 4, !0), 0);
    }
}
