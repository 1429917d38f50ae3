//! What each CPU has to itself, found through TPIDR_EL2.

use core::cell::Cell;
use core::sync::atomic::{AtomicBool, Ordering};

use bulkhead_policy::plan::MAX_CPUS;

use crate::sysreg::{read_sysreg, write_sysreg};

/// One CPU's data. The assembly of the short paths reads it by offset.
#[repr(C)]
pub struct PerCpu {
    /// Address of GICC where the GIC is a GICv2; else 0.
    pub(crate) gic_cpu_interface: Cell<u64>,
    /// What list register 0 becomes when the virtual timer fires; 0 sends that through the long path.
    pub timer_list_register: Cell<u64>,
    /// Address of GICH where the GIC is a GICv2; else 0.
    pub(crate) gic_hypervisor_interface: Cell<u64>,
    /// Number of the partition that the CPU belongs to, from 0.
    pub partition: Cell<u64>,
    /// Index of the CPU in the firmware's tree.
    cpu: Cell<usize>,
    /// The CPU has made its loading window.
    pub has_window: Cell<bool>,
    /// The CPU has been given to a vCPU.
    pub assigned: Cell<bool>,
}

struct All([PerCpu; MAX_CPUS]);

// SAFETY: `install` hands each element to one CPU only; nothing else refers to them.
unsafe impl Sync for All {}

static PER_CPU: All = All([const {
    PerCpu {
        gic_cpu_interface: Cell::new(0),
        timer_list_register: Cell::new(0),
        gic_hypervisor_interface: Cell::new(0),
        partition: Cell::new(0),
        cpu: Cell::new(0),
        has_window: Cell::new(false),
        assigned: Cell::new(false),
    }
}; MAX_CPUS]);

static TAKEN: [AtomicBool; MAX_CPUS] = [const { AtomicBool::new(false) }; MAX_CPUS];

/// Affinity of the CPU that calls, as a device tree's `reg` has it.
#[must_use]
pub fn mpidr() -> u64 {
    read_sysreg!("mpidr_el1") & 0xff_00ff_ffff
}

/// Gives the CPU that calls its data, as CPU number `cpu`, below [`MAX_CPUS`] and no other CPU's.
pub fn install(cpu: usize) {
    assert!(!TAKEN[cpu].swap(true, Ordering::Relaxed));
    let data = &PER_CPU.0[cpu];
    data.cpu.set(cpu);
    // SAFETY: TPIDR_EL2 is EL2's own, and the data lives for ever.
    unsafe { write_sysreg!("tpidr_el2", core::ptr::from_ref(data) as u64) };
}

impl PerCpu {
    /// The data of this CPU. Only after [`install`].
    #[inline(always)]
    #[must_use]
    pub fn current() -> &'static Self {
        let address = read_sysreg!("tpidr_el2");
        // SAFETY: `install` put the address of a `'static` there before anything on this CPU asks. The `Cell` is not shared:
        // no other CPU has this address.
        unsafe { &*(address as *const Self) }
    }

    /// Index of the CPU in the firmware's tree.
    #[inline(always)]
    #[must_use]
    pub fn cpu(&self) -> usize {
        self.cpu.get()
    }
}
