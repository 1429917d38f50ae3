//! What there is: the partitions and which CPU runs which vCPU. Built once at boot (`bulkhead-el2`), then read by all CPUs.

use alloc::vec::Vec;
use core::ops::DerefMut;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bulkhead_arch::gic::{self, GicMachine};
use bulkhead_arch::mmu::Mmio;
use bulkhead_arch::once::Once;
use bulkhead_arch::percpu::PerCpu;
use bulkhead_policy::bundle::Bundle;
use bulkhead_policy::dispatch::{Direction, EmulatedDevices};
use bulkhead_policy::inventory::Inventory;
use bulkhead_policy::irq::IntId;
use bulkhead_policy::lifecycle::Lifecycle;
use bulkhead_policy::plan::{MAX_CPUS, PartitionPlan};
use bulkhead_policy::platform::Platform;
use bulkhead_policy::shared_page::Step;
use bulkhead_policy::stage2::Stage2;
use bulkhead_policy::tree::Tree;
use bulkhead_policy::vcpu::Exception;
use bulkhead_policy::vgic::Vgic;
use bulkhead_policy::vpl011::Vpl011;
use spin::Mutex;
use spin::mutex::TicketMutex;

use crate::console;

/// Everything that runs.
pub struct System {
    /// The firmware's tree.
    pub board: &'static Tree<'static>,
    /// The machine.
    pub platform: &'static Platform<'static>,
    /// Manifest and payloads.
    pub bundle: Bundle<'static>,
    /// What the bundle was when it was made.
    pub inventory: Inventory<'static>,
    /// The partitions, in the order of the manifest.
    pub partitions: &'static [Partition],
    /// For each CPU of the machine its partition and vCPU.
    pub roles: [Option<(&'static Partition, usize)>; MAX_CPUS],
    /// The console's interrupt.
    pub console_interrupt: Option<IntId>,
}

static SYSTEM: Once<System> = Once::new();

/// The system, once it is built.
#[inline]
pub fn system() -> Option<&'static System> {
    SYSTEM.get()
}

/// One partition. Everything it is while it runs is in here, and a restart rebuilds it from the plan.
pub struct Partition {
    /// Its number, from 0.
    pub index: usize,
    /// What it owns.
    pub plan: &'static PartitionPlan<'static>,
    /// What is emulated for it.
    pub devices: EmulatedDevices,
    /// The registers of `devices.shared_pages`: the only ones of guests' devices that EL2 maps.
    shared_registers: Vec<Mmio>,
    /// Its stage-2 tables.
    pub stage2: Stage2<'static>,
    /// Its interrupt controller.
    pub vgic: Mutex<Vgic>,
    /// Its power states.
    pub(crate) lifecycle: Mutex<Lifecycle>,
    /// Its vCPUs are to leave: a copy of the lifecycle's word that needs no lock.
    pub stopping: AtomicBool,
    /// It has been started before.
    pub started: AtomicBool,
    uart: Mutex<Vpl011>,
    /// The emulated UART's line may have changed.
    line_due: AtomicBool,
    /// The console found the emulated UART in use.
    console_due: AtomicBool,
    refused: [AtomicU64; 3],
}

/// Held while a register that several partitions have bits of is read and written back. In turns, so that nobody waits longer than
/// each of the others once.
static REGISTER_CHANGE: TicketMutex<()> = TicketMutex::new(());

impl System {
    /// Makes this what runs.
    pub fn publish(self) -> &'static Self {
        SYSTEM.set(self)
    }

    /// Partition `index`.
    #[inline]
    pub fn partition(&self, index: usize) -> Option<&Partition> {
        self.partitions.get(index)
    }

    /// The partition and the vCPU of the CPU that calls.
    #[inline]
    pub fn role(&self, cpu: usize) -> Option<(&'static Partition, usize)> {
        *self.roles.get(cpu)?
    }

    /// Whether the console found an emulated UART in use; who asks goes on with it instead of the partition's CPU.
    pub(crate) fn was_console_in_use(&self) -> bool {
        self.partitions.iter().any(|partition| partition.console_due.swap(false, Ordering::Acquire))
    }

    /// Whether no partition will ever run again.
    pub fn all_off(&self) -> bool {
        self.partitions.iter().all(|partition| partition.lifecycle().is_off())
    }
}

impl Partition {
    /// Partition `index` in power-on state.
    #[must_use]
    pub fn new(
        index: usize,
        plan: &'static PartitionPlan<'static>,
        devices: EmulatedDevices,
        shared_registers: Vec<Mmio>,
        stage2: Stage2<'static>,
        vgic: Vgic,
    ) -> Self {
        Self {
            index,
            plan,
            devices,
            shared_registers,
            stage2,
            vgic: Mutex::new(vgic),
            lifecycle: Mutex::new(Lifecycle::new(plan.cpus.len())),
            stopping: AtomicBool::new(false),
            started: AtomicBool::new(false),
            uart: Mutex::new(Vpl011::new()),
            line_due: AtomicBool::new(false),
            console_due: AtomicBool::new(false),
            refused: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// vCPU `vcpu` is about to run on this CPU.
    pub fn start_vcpu(&self, vcpu: usize) {
        self.vgic.lock().start_vcpu(&mut self.machine(), vcpu);
    }

    /// vCPU `vcpu` has left its guest.
    pub fn stop_vcpu(&self, vcpu: usize) {
        self.vgic.lock().stop_vcpu(&mut self.machine(), vcpu);
    }

    /// A load or store of the guest at `offset` of its shared page `page`; the value of a load.
    #[inline(never)]
    pub fn access_shared_page(&self, page: usize, offset: u64, direction: Direction) -> u64 {
        let (Some(registers), Some(rules)) =
            (self.shared_registers.get(page), self.plan.shared_pages.get(page))
        else {
            return 0;
        };
        let step = rules.decide(offset, direction);
        let offset = offset as usize;
        match step {
            Step::Nothing => {}
            Step::Read(mask) => return (registers.read32(offset) & mask).into(),
            Step::Write(value) => registers.write32(offset, value),
            Step::Change { mask, bits } => {
                let _turn = REGISTER_CHANGE.lock();
                registers.write32(offset, registers.read32(offset) & !mask | bits);
            }
        }
        0
    }

    /// Whether it has an emulated console.
    pub fn has_console(&self) -> bool {
        self.plan.console.is_some()
    }

    /// The GIC as its vGIC uses it.
    #[inline]
    pub fn machine(&self) -> GicMachine<'_> {
        GicMachine::new(&self.plan.cpus)
    }

    /// Its power states, for what is seldom done with them: out of line.
    #[inline(never)]
    pub fn lifecycle(&self) -> impl DerefMut<Target = Lifecycle> + '_ {
        self.lifecycle.lock()
    }

    /// Makes the CPUs of all its vCPUs but `except` look at its lifecycle.
    pub fn kick_others(&self, except: usize) {
        for (vcpu, &cpu) in self.plan.cpus.iter().enumerate() {
            if vcpu != except {
                gic::kick(cpu);
            }
        }
    }

    /// Back to power-on state, all vCPUs being off.
    pub fn reset(&self) {
        self.vgic.lock().reset(&mut self.machine());
        self.with_uart(Vpl011::reset);
        self.stopping.store(false, Ordering::Release);
    }

    /// Changes the emulated UART, and tells the vGIC if that changes the UART's interrupt line.
    #[inline]
    pub fn with_uart<R>(&self, change: impl FnOnce(&mut Vpl011) -> R) -> R {
        let mut uart = self.uart.lock();
        let before = uart.line();
        let result = change(&mut uart);
        let after = uart.line();
        if before != after {
            self.set_uart_line(after);
        }
        result
    }

    /// Tells the vGIC of the emulated UART's line, on a CPU of the partition. Under the UART's lock, so that lines change there in
    /// the order in which they changed here.
    #[inline(never)]
    fn set_uart_line(&self, level: bool) {
        let Some(console) = self.plan.console else { return };
        let vcpu = system().and_then(|system| system.role(PerCpu::current().cpu())).map(|(_, vcpu)| vcpu);
        self.vgic.lock().set_line(&mut self.machine(), vcpu, console.intid, level);
    }

    /// Changes the emulated UART from any CPU, without waiting for the partition's own: what the line comes to is told by the CPU of
    /// vCPU 0. `None` where the partition is just using it: the same CPU then goes on with the console, so that nobody else tries
    /// again and again what a partition makes fail by using its console all the time.
    fn try_with_uart<R>(&self, change: impl FnOnce(&mut Vpl011) -> R) -> Option<R> {
        let Some(mut uart) = self.uart.try_lock() else {
            self.console_due.store(true, Ordering::Release);
            self.kick_for_uart();
            return None;
        };
        let before = uart.line();
        let result = change(&mut uart);
        let after = uart.line();
        drop(uart);
        if before != after {
            self.kick_for_uart();
        }
        Some(result)
    }

    /// Has the CPU of vCPU 0 call [`Partition::refresh_uart_line`].
    #[inline(never)]
    fn kick_for_uart(&self) {
        if let Some(&cpu) = self.plan.cpus.first() {
            self.line_due.store(true, Ordering::Release);
            gic::kick(cpu);
        }
    }

    /// Does what `try_with_uart` left to vCPU `vcpu`.
    #[inline]
    pub fn refresh_uart_line(&self, vcpu: usize) {
        if vcpu == 0 && self.line_due.swap(false, Ordering::Acquire) {
            self.refresh_uart();
        }
    }

    #[inline(never)]
    fn refresh_uart(&self) {
        let uart = self.uart.lock();
        self.set_uart_line(uart.line());
        drop(uart);
        if self.console_due.swap(false, Ordering::Acquire) {
            console::resume(self.index + 1);
        }
    }

    /// The next byte that its console is to print; `None` where the partition is just using it.
    pub fn next_byte(&self) -> Option<Option<u8>> {
        self.try_with_uart(Vpl011::pop_transmitted)
    }

    /// A byte was typed for it. False where the partition is just using its console.
    pub fn receive(&self, byte: u8) -> bool {
        self.try_with_uart(|uart| uart.push_received(byte)).is_some()
    }

    /// Counts an exception given to the guest for something it may not touch; true for the first of its kind.
    pub fn count_refusal(&self, exception: Exception) -> bool {
        let kind = match exception {
            Exception::DataAbort => 0,
            Exception::InstructionAbort => 1,
            Exception::Undefined => 2,
        };
        self.refused[kind].fetch_add(1, Ordering::Relaxed) == 0
    }

    /// How many data aborts, instruction aborts and undefined instructions it was given.
    pub fn refusals(&self) -> [u64; 3] {
        [0, 1, 2].map(|kind| self.refused[kind].load(Ordering::Relaxed))
    }
}
