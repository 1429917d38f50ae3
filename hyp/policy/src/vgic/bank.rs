//! The state of 32 interrupts as bit masks, so that one register write costs what changed and no loop.

use crate::irq::IntId;

/// 32 interrupts: one register word of the distributor, or the private interrupts of one vCPU.
#[derive(Clone, Debug)]
pub struct Bank {
    /// Number of the first INTID divided by 32.
    word: u16,
    /// Interrupts that the partition has; all other bits read as zero and ignore writes.
    pub owned: u32,
    /// Owned interrupts that come from hardware.
    pub hardware: u32,
    /// Forwarding to a vCPU is enabled.
    pub enabled: u32,
    /// Enabled for good.
    pub always_enabled: u32,
    /// Group 1.
    pub group1: u32,
    /// Edge-triggered.
    pub edge: u32,
    /// Edge-triggered at reset.
    pub wired_edge: u32,
    /// Pending and remembered: an edge, a software request, or a hardware interrupt acknowledged at EL2.
    pub latched: u32,
    /// The emulated device asserts its line.
    pub line: u32,
    /// Active while not in a list register.
    pub active: u32,
    /// The physical interrupt is active on the guest's behalf and must be deactivated once.
    pub in_service: u32,
    /// In a list register of vCPU `home`.
    pub resident: u32,
    /// Of those in list registers, the pending ones when they were last loaded.
    pub seen_pending: u32,
    /// Of those in list registers, the active ones when they were last loaded.
    pub seen_active: u32,
    /// Pending state to be dropped when it comes back from a list register.
    pub cancel_pending: u32,
    /// Active state to be dropped when it comes back from a list register.
    pub cancel_active: u32,
    /// Priorities, the low three bits zero: 5 bits is what every GIC's virtual interface has.
    pub priority: [u8; 32],
    /// Where an SPI goes.
    pub target: [u8; 32],
    /// What GICD_ITARGETSR of a GICv2 says of it: the vCPUs that it may go to.
    pub targets: [u8; 32],
    /// Where an interrupt that is resident or active is.
    pub home: [u8; 32],
}

/// `index` of an iterator over the bits of `mask`, lowest first.
pub fn bits(mut mask: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        if mask == 0 {
            return None;
        }
        let bit = mask.trailing_zeros();
        mask &= mask.wrapping_sub(1);
        Some(bit as usize)
    })
}

/// The mask with only `bit` (0–31) set.
#[must_use]
pub fn mask(bit: usize) -> u32 {
    1_u32.wrapping_shl(bit as u32)
}

impl Bank {
    /// Interrupts `32 * word` to `32 * word + 31`, none owned, reset state.
    #[must_use]
    pub fn new(word: u16) -> Self {
        Self {
            word,
            owned: 0,
            hardware: 0,
            enabled: 0,
            always_enabled: 0,
            group1: 0,
            edge: if word == 0 { 0xffff } else { 0 },
            wired_edge: if word == 0 { 0xffff } else { 0 },
            latched: 0,
            line: 0,
            active: 0,
            in_service: 0,
            resident: 0,
            seen_pending: 0,
            seen_active: 0,
            cancel_pending: 0,
            cancel_active: 0,
            priority: [0; 32],
            target: [0; 32],
            targets: [1; 32],
            home: [0; 32],
        }
    }

    /// Forgets everything but what is owned and which lines are asserted.
    pub fn reset(&mut self) {
        *self = Self {
            owned: self.owned,
            hardware: self.hardware,
            enabled: self.always_enabled,
            always_enabled: self.always_enabled,
            line: self.line,
            edge: self.wired_edge,
            wired_edge: self.wired_edge,
            ..Self::new(self.word)
        };
    }

    /// Register word that these interrupts belong to.
    #[must_use]
    pub fn word(&self) -> usize {
        usize::from(self.word)
    }

    /// The INTID of `bit`.
    #[must_use]
    pub fn intid(&self, bit: usize) -> Option<IntId> {
        IntId::new((u32::from(self.word) << 5) | (bit as u32 & 31))
    }

    /// Pending and not in a list register.
    #[must_use]
    #[inline(always)]
    pub fn pending(&self) -> u32 {
        self.latched | (self.line & !self.edge)
    }

    /// Interrupts that are enabled, themselves and by their group, `groups` being the two enables of GICD_CTLR (bit 0 group
    /// 0, bit 1 group 1).
    #[must_use]
    #[inline(always)]
    pub fn enabled_in(&self, groups: u32) -> u32 {
        let group_enabled =
            if groups & 1 != 0 { !self.group1 } else { 0 } | if groups & 2 != 0 { self.group1 } else { 0 };
        self.enabled & group_enabled
    }

    /// Pending interrupts that may go into a list register now.
    #[must_use]
    #[inline(always)]
    pub fn deliverable(&self, groups: u32) -> u32 {
        self.pending() & self.enabled_in(groups) & !self.active & !self.resident
    }

    /// Priority of `bit`.
    #[must_use]
    pub fn priority_of(&self, bit: usize) -> u8 {
        self.priority.get(bit).copied().unwrap_or(u8::MAX)
    }

    /// Target of `bit`.
    #[must_use]
    pub fn target_of(&self, bit: usize) -> usize {
        self.target.get(bit).copied().map_or(0, usize::from)
    }

    /// The vCPU that handles `bit` now: where it is resident or active, else where it goes; `owner` for a
    /// private interrupt.
    #[must_use]
    pub fn place_of(&self, owner: usize, bit: usize) -> usize {
        if self.word == 0 {
            owner
        } else if (self.resident | self.active) & mask(bit) != 0 {
            self.home_of(bit)
        } else {
            self.target_of(bit)
        }
    }

    /// The interrupts of `which` are in no list register.
    pub fn forget_residence(&mut self, which: u32) {
        self.resident &= !which;
        self.seen_pending &= !which;
        self.seen_active &= !which;
    }

    /// Where `bit` is while resident or active.
    #[must_use]
    pub fn home_of(&self, bit: usize) -> usize {
        self.home.get(bit).copied().map_or(0, usize::from)
    }

    /// Sets the priority of `bit`, keeping the bits that the hardware has.
    pub fn set_priority(&mut self, bit: usize, value: u8) {
        if let Some(priority) = self.priority.get_mut(bit) {
            *priority = value & 0xf8;
        }
    }

    /// Sends `bit` to `vcpu` from now on.
    pub fn set_target(&mut self, bit: usize, vcpu: u8) {
        if let Some(target) = self.target.get_mut(bit) {
            *target = vcpu;
        }
    }

    /// Notes that `bit` is at `vcpu`.
    pub fn set_home(&mut self, bit: usize, vcpu: usize) {
        if let Some(home) = self.home.get_mut(bit) {
            *home = vcpu as u8;
        }
    }
}
