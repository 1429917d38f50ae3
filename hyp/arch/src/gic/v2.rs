//! The physical GICv2 and its virtual CPU interface (IHI 0048), through memory. A Raspberry Pi 4 has a GIC-400 (DDI 0471).
//!
//! All interrupts are in the one group that EL2 sees: group 1 of a GIC with Security Extensions, whose firmware put them there and
//! whose bit 0 of both control registers is then group 1's; else group 0 (IHI 0048, 4.1.3 and 4.3.1).

use core::sync::atomic::{AtomicU8, Ordering};

use bulkhead_policy::irq::IntId;
use bulkhead_policy::plan::MAX_CPUS;
use bulkhead_policy::vgic::list_register::ListRegister;

use super::{GICD_ISENABLER, KICK, distributor, reset_word};
use crate::barrier;
use crate::mmu::Mmio;
use crate::once::Once;
use crate::percpu::PerCpu;

/// The group of EL2's interrupts, in GICD_IGROUPR.
pub(super) const GROUP: u32 = 0;
pub(super) const GICD_ITARGETSR: usize = 0x0800;
const GICD_SGIR: usize = 0x0f00;

const GICC_CTLR: usize = 0x0000;
const GICC_PMR: usize = 0x0004;
const GICC_BPR: usize = 0x0008;
/// Interrupt acknowledge. The assembly reads it, too.
pub(crate) const GICC_IAR: usize = 0x000c;
/// End of interrupt. The assembly writes it, too.
pub(crate) const GICC_EOIR: usize = 0x0010;
const GICC_IIDR: usize = 0x00fc;
const GICC_DIR: usize = 0x1000;
/// Enable, and EOImode: the end drops the priority only. Bit 9 is both that of a GIC without Security Extensions and
/// the Non-secure one of a GIC with them.
const GICC_CTLR_ON: u32 = 1 | 1 << 9;

const GICH_HCR: usize = 0x000;
const GICH_VTR: usize = 0x004;
const GICH_VMCR: usize = 0x008;
const GICH_EISR: usize = 0x020;
const GICH_ELRSR: usize = 0x030;
const GICH_APR: usize = 0x0f0;
/// List register 0. The assembly writes it, too.
pub(crate) const GICH_LR: usize = 0x100;

/// The registers beside the distributor's.
pub(super) struct Interface {
    cpu: Mmio,
    hypervisor: Mmio,
    /// QEMU 10 does not look at an interrupt's line again when the end of a virtual one deactivates it (`gic_complete_irq`), so a
    /// timer that is due again at that moment would be silent from then on. Its product ID is 0, a GIC-400's is not
    /// (GICC_IIDR, bits 31:20; IHI 0048, 4.4.15).
    pub(super) forwards_ends: bool,
}

static INTERFACE: Once<Interface> = Once::new();
/// The bit of each CPU in GICD_ITARGETSR and GICD_SGIR; 0 until it has told (IHI 0048, 4.3.12).
static TARGETS: [AtomicU8; MAX_CPUS] = [const { AtomicU8::new(0) }; MAX_CPUS];

/// The GICv2, where there is one.
#[inline(always)]
pub(super) fn interface() -> Option<&'static Interface> {
    INTERFACE.get()
}

/// Makes the frames known: two pages of GICC next to each other, GICH.
pub fn find_interface(cpu: Mmio, hypervisor: Mmio) {
    let forwards_ends = cpu.read32(GICC_IIDR) >> 20 != 0;
    INTERFACE.set(Interface { cpu, hypervisor, forwards_ends });
}

/// The bit of CPU `cpu`, 0 while it is not up.
pub(super) fn target(cpu: usize) -> u8 {
    TARGETS.get(cpu).map_or(0, |target| target.load(Ordering::Relaxed))
}

impl Interface {
    #[inline(never)]
    pub(super) fn init_cpu(&self, cpu: usize, maintenance: IntId) {
        // Each byte of the private interrupts' words is the reader's own bit; a uniprocessor's read as zero.
        let distributor = &distributor().registers;
        let target = distributor.read32(GICD_ITARGETSR) as u8;
        if let Some(slot) = TARGETS.get(cpu) {
            slot.store(target.max(1), Ordering::Relaxed);
        }
        // Whoever does not see the bit yet, and so sends no kick, has finished what this CPU looks at next.
        barrier::complete_all();
        reset_word(distributor, 0, GROUP);
        distributor.write32(GICD_ISENABLER, 1 << KICK.raw() | 1 << maintenance.raw());
        self.cpu.write32(GICC_PMR, 0xff);
        self.cpu.write32(GICC_BPR, 0);
        self.cpu.write32(GICC_CTLR, GICC_CTLR_ON);
        let this_cpu = PerCpu::current();
        this_cpu.gic_cpu_interface.set(self.cpu.address());
        this_cpu.gic_hypervisor_interface.set(self.hypervisor.address());
    }

    #[inline(never)]
    pub(super) fn reset_virtual_interface(&self) {
        self.hypervisor.write32(GICH_VMCR, 0);
        self.hypervisor.write32(GICH_APR, 0);
        self.write_hcr(super::HCR_EN);
    }

    #[inline(never)]
    pub(super) fn acknowledge(&self) -> u32 {
        self.cpu.read32(GICC_IAR)
    }

    #[inline(never)]
    pub(super) fn drop_priority(&self, acknowledged: u32) {
        self.cpu.write32(GICC_EOIR, acknowledged);
    }

    #[inline(never)]
    pub(super) fn deactivate(&self, acknowledged: u32) {
        self.cpu.write32(GICC_DIR, acknowledged);
    }

    /// Sends [`KICK`] to CPU `cpu`, if that is up: one that is not looks for itself when it comes.
    #[inline(never)]
    pub(super) fn kick(&self, cpu: usize) {
        // What the target will read is complete before the SGI is, and before this CPU looks whether the target is up.
        barrier::complete_all();
        let target = target(cpu);
        if target != 0 {
            distributor().registers.write32(GICD_SGIR, u32::from(target) << 16 | KICK.raw());
        }
    }

    #[inline(never)]
    pub(super) fn list_registers(&self) -> usize {
        (self.hypervisor.read32(GICH_VTR) as usize & 0x3f) + 1
    }

    #[inline(never)]
    pub(super) fn read_list_register(&self, n: usize) -> Option<ListRegister> {
        decode(self.hypervisor.read32(GICH_LR + 4 * n))
    }

    #[inline(never)]
    pub(super) fn write_list_register(&self, n: usize, value: u32) {
        self.hypervisor.write32(GICH_LR + 4 * n, value);
    }

    /// As [`super::v3::empty_list_registers`]; no GIC has more than 16.
    #[inline(never)]
    pub(super) fn empty_list_registers(&self) -> u32 {
        self.hypervisor.read32(GICH_ELRSR) | self.hypervisor.read32(GICH_EISR)
    }

    #[inline(never)]
    pub(super) fn read_hcr(&self) -> u32 {
        self.hypervisor.read32(GICH_HCR)
    }

    #[inline(never)]
    pub(super) fn write_hcr(&self, value: u32) {
        self.hypervisor.write32(GICH_HCR, value);
    }

    #[inline(never)]
    pub(super) fn read_vmcr(&self) -> u32 {
        self.hypervisor.read32(GICH_VMCR)
    }
}

/// Encodes `GICH_LR<n>` (IHI 0048, 5.3.10): bits 19:10 are the physical INTID with the hardware bit, else bit 19 asks for
/// maintenance at the end and bits 12:10 are the sender.
pub(super) fn encode(entry: ListRegister) -> u32 {
    let intid = entry.intid.raw();
    let state = u32::from(entry.active) << 29 | u32::from(entry.pending) << 28;
    let physical = if entry.hardware {
        1 << 31 | intid << 10
    } else {
        u32::from(entry.notify_end) << 19 | u32::from(entry.sender & 7) << 10
    };
    state | u32::from(entry.group1) << 30 | u32::from(entry.priority >> 3) << 23 | physical | intid
}

fn decode(value: u32) -> Option<ListRegister> {
    let (active, pending) = (value >> 29 & 1 != 0, value >> 28 & 1 != 0);
    let hardware = value >> 31 != 0;
    (active || pending).then_some(ListRegister {
        intid: IntId::new(value & 0x3ff)?,
        priority: (value >> 23 << 3) as u8,
        group1: value >> 30 & 1 != 0,
        pending,
        active,
        hardware,
        sender: if hardware { 0 } else { (value >> 10) as u8 & 7 },
        notify_end: !hardware && value >> 19 & 1 != 0,
    })
}
