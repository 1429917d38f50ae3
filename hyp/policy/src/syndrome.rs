//! Why a guest stopped: ESR_EL2 decoded once, into an enum whose unknown case is a variant.
//!
//! Field positions are those of the Arm ARM DDI 0487, D19.2.37 (ESR_EL2 and its ISS encodings).

use crate::addr::Ipa;

/// What made the guest leave.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exit {
    /// HVC with this immediate.
    Hvc(u16),
    /// SMC with this immediate.
    Smc(u16),
    /// A load or store that stage 2 did not let through.
    DataAbort(DataAbort),
    /// An instruction fetch that stage 2 did not let through.
    InstructionAbort,
    /// A trapped MSR, MRS or system instruction.
    SystemRegister(SystemRegisterAccess),
    /// Anything else, with its exception class.
    Other(u8),
}

/// A stage-2 data abort.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataAbort {
    /// Where, if the hardware says so.
    pub ipa: Option<Ipa>,
    /// How, if the syndrome says so (ISV): plain loads and stores of one general register.
    pub access: Option<DataAccess>,
    /// A cache maintenance or address translation instruction made it.
    pub cache_maintenance: bool,
    /// It was a write.
    pub write: bool,
    /// It happened on a stage-1 table walk.
    pub on_walk: bool,
}

/// A load or store of one general register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataAccess {
    /// Bytes: 1, 2, 4 or 8.
    pub size: u64,
    /// The register, 0–30, or 31 for the zero register.
    pub register: u8,
    /// The loaded value is sign-extended.
    pub sign_extend: bool,
    /// The register is an X register.
    pub wide: bool,
}

/// A trapped access to a system register.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemRegisterAccess {
    /// Which.
    pub register: SystemRegister,
    /// The general register, 31 for the zero register.
    pub rt: u8,
    /// MRS rather than MSR.
    pub read: bool,
}

/// A system register by its encoding: Op0, Op1, CRn, CRm, Op2 in bits 15:14, 13:11, 10:7, 6:3, 2:0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SystemRegister(pub u16);

impl SystemRegister {
    /// The register with this encoding.
    #[must_use]
    pub const fn new(op0: u16, op1: u16, crn: u16, crm: u16, op2: u16) -> Self {
        Self((op0 << 14) | (op1 << 11) | (crn << 7) | (crm << 3) | op2)
    }

    /// ICC_SGI1R_EL1.
    pub const ICC_SGI1R: Self = Self::new(3, 0, 12, 11, 5);
    /// ICC_ASGI1R_EL1.
    pub const ICC_ASGI1R: Self = Self::new(3, 0, 12, 11, 6);
    /// ICC_SGI0R_EL1.
    pub const ICC_SGI0R: Self = Self::new(3, 0, 12, 11, 7);
    /// ICC_DIR_EL1.
    pub const ICC_DIR: Self = Self::new(3, 0, 12, 11, 1);
    /// ICC_SRE_EL1.
    pub const ICC_SRE: Self = Self::new(3, 0, 12, 12, 5);
    /// OSLAR_EL1.
    pub const OSLAR: Self = Self::new(2, 0, 1, 0, 4);
    /// OSLSR_EL1.
    pub const OSLSR: Self = Self::new(2, 0, 1, 1, 4);
    /// OSDLR_EL1.
    pub const OSDLR: Self = Self::new(2, 0, 1, 3, 4);
    /// DBGPRCR_EL1.
    pub const DBGPRCR: Self = Self::new(2, 0, 1, 4, 4);
    /// MDRAR_EL1.
    pub const MDRAR: Self = Self::new(2, 0, 1, 0, 0);
    /// ACTLR_EL1.
    pub const ACTLR: Self = Self::new(3, 0, 1, 0, 1);

    /// CRm and Op2 of an AArch64 ID register (Op0 3, Op1 0, CRn 0, CRm 1–7), which HCR_EL2.TID3 traps.
    #[must_use]
    pub const fn id_register(self) -> Option<(u8, u8)> {
        let crm = (self.0 >> 3) & 0xf;
        if self.0 & !0x7f == Self::new(3, 0, 0, 0, 0).0 && crm >= 1 && crm <= 7 {
            Some((crm as u8, (self.0 & 7) as u8))
        } else {
            None
        }
    }
}

/// Decodes an exception from a lower Exception level.
#[must_use]
pub fn decode(esr: u64, far: u64, hpfar: u64) -> Exit {
    let class = ((esr >> 26) & 0x3f) as u8;
    match class {
        0x16 => Exit::Hvc(esr as u16),
        0x17 => Exit::Smc(esr as u16),
        0x18 => Exit::SystemRegister(SystemRegisterAccess {
            // ISS: Op0 21:20, Op2 19:17, Op1 16:14, CRn 13:10, Rt 9:5, CRm 4:1, read 0.
            register: SystemRegister::new(
                (esr >> 20) as u16 & 3,
                (esr >> 14) as u16 & 7,
                (esr >> 10) as u16 & 0xf,
                (esr >> 1) as u16 & 0xf,
                (esr >> 17) as u16 & 7,
            ),
            rt: (esr >> 5) as u8 & 0x1f,
            read: esr & 1 != 0,
        }),
        0x20 => Exit::InstructionAbort,
        0x24 => Exit::DataAbort(data_abort(esr, far, hpfar)),
        other => Exit::Other(other),
    }
}

fn data_abort(esr: u64, far: u64, hpfar: u64) -> DataAbort {
    let status = esr & 0x3f;
    let on_walk = esr & (1 << 7) != 0;
    // HPFAR_EL2 is valid for translation and access flag faults (DDI 0487, D19.2.61); FAR_EL2 unless FnV.
    let located = matches!(status, 0x04..=0x0b) && esr & (1 << 10) == 0;
    DataAbort {
        ipa: located.then(|| Ipa::new(((hpfar & 0xf_ffff_ffff_fff0) << 8) | (far & 0xfff))),
        access: (esr & (1 << 24) != 0 && !on_walk).then(|| DataAccess {
            size: 1 << ((esr >> 22) & 3),
            register: (esr >> 16) as u8 & 0x1f,
            sign_extend: esr & (1 << 21) != 0,
            wide: esr & (1 << 15) != 0,
        }),
        cache_maintenance: esr & (1 << 8) != 0,
        write: esr & (1 << 6) != 0,
        on_walk,
    }
}

impl DataAccess {
    /// What the register holds after loading `value` (DDI 0487, ISS fields SSE and SF).
    #[must_use]
    pub fn extend(self, value: u64) -> u64 {
        let unused = 64_u64.saturating_sub(self.size.wrapping_mul(8)) as u32 & 63;
        let extended = if self.sign_extend {
            ((value << unused) as i64 >> unused) as u64
        } else {
            (value << unused) >> unused
        };
        if self.wide { extended } else { extended & 0xffff_ffff }
    }

    /// The part of `register` that a store of this size writes.
    #[must_use]
    pub fn truncate(self, register: u64) -> u64 {
        let unused = 64_u64.saturating_sub(self.size.wrapping_mul(8)) as u32 & 63;
        (register << unused) >> unused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trapped_sgi_is_recognised() {
        // MSR ICC_SGI1R_EL1, x3: Op0 3, Op2 5, Op1 0, CRn 12, Rt 3, CRm 11, write.
        let esr = (0x18 << 26) | (1 << 25) | (3 << 20) | (5 << 17) | (12 << 10) | (3 << 5) | (11 << 1);
        let expected = SystemRegisterAccess { register: SystemRegister::ICC_SGI1R, rt: 3, read: false };
        assert_eq!(decode(esr, 0, 0), Exit::SystemRegister(expected));
    }

    #[test]
    fn id_registers_are_recognised() {
        assert_eq!(SystemRegister::new(3, 0, 0, 7, 0).id_register(), Some((7, 0)));
        assert_eq!(SystemRegister::new(3, 0, 0, 0, 5).id_register(), None);
        assert_eq!(SystemRegister::new(3, 0, 0, 8, 0).id_register(), None);
        assert_eq!(SystemRegister::new(3, 0, 1, 4, 0).id_register(), None);
    }

    #[test]
    fn a_load_is_located_and_extended() {
        // ldrsb w7, [x1]: ISV, byte, SSE, SRT 7, translation fault level 3.
        let esr = (0x24 << 26) | (1 << 25) | (1 << 24) | (1 << 21) | (7 << 16) | 0x07;
        let Exit::DataAbort(abort) = decode(esr, 0xffff_0000_0900_0018, 0x0000_0900_0000 >> 8) else {
            panic!()
        };
        assert_eq!(abort.ipa, Some(Ipa::new(0x0900_0018)));
        let access = abort.access.unwrap();
        assert_eq!((access.size, access.register), (1, 7));
        assert_eq!(access.extend(0x80), 0xffff_ff80);
        assert_eq!(access.truncate(0x1ff), 0xff);
    }

    #[test]
    fn a_permission_fault_has_no_ipa() {
        let Exit::DataAbort(abort) = decode((0x24 << 26) | 0x0f, 0, 0) else { panic!() };
        assert_eq!((abort.ipa, abort.access), (None, None));
    }
}
