//! Builds what the plan says: stage-2 tables, interrupt controllers, who runs where.

use alloc::vec;
use alloc::vec::Vec;

use bulkhead_arch::gic;
use bulkhead_arch::mmu::{self, Mmio};
use bulkhead_exits::system::{Partition, System};
use bulkhead_policy::addr::{PAGE_SIZE, Pa, Region};
use bulkhead_policy::bundle::Bundle;
use bulkhead_policy::dispatch::EmulatedDevices;
use bulkhead_policy::inventory::Inventory;
use bulkhead_policy::irq::IntId;
use bulkhead_policy::plan::{MAX_CPUS, PartitionPlan, Plan};
use bulkhead_policy::platform::Platform;
use bulkhead_policy::stage2::{Stage2, Table};
use bulkhead_policy::tree::Tree;
use bulkhead_policy::vgic::Vgic;

/// Builds the partitions of `plan`: tables, interrupt controllers, roles.
///
/// # Errors
/// Says what does not fit.
pub fn build(
    board: &'static Tree<'static>,
    platform: &'static Platform<'static>,
    bundle: Bundle<'static>,
    inventory: Inventory<'static>,
    plan: &'static Plan<'static>,
    console_interrupt: Option<IntId>,
) -> Result<&'static System, &'static str> {
    let mut partitions = Vec::with_capacity(plan.partitions.len());
    for (index, plan) in plan.partitions.iter().enumerate() {
        partitions.push(partition(index, plan, platform)?);
    }
    let partitions: &'static [Partition] = partitions.leak();
    let mut roles = [None; MAX_CPUS];
    for partition in partitions {
        for (vcpu, &cpu) in partition.plan.cpus.iter().enumerate() {
            roles[cpu] = Some((partition, vcpu));
        }
    }
    Ok(System { board, platform, bundle, inventory, partitions, roles, console_interrupt }.publish())
}

/// The partition of `plan`, in power-on state.
#[inline(never)]
fn partition(
    index: usize,
    plan: &'static PartitionPlan<'static>,
    platform: &Platform<'_>,
) -> Result<Partition, &'static str> {
    let cpu_interface = platform.gic.guest_cpu_interface();
    let mappings = plan.mappings(&platform.gic);
    let pool = vec![Table::EMPTY; Stage2::tables_for(&mappings)].leak();
    let base = Pa::new(mmu::physical_address(pool.as_ptr() as u64));
    let mut stage2 = Stage2::new(pool, base).map_err(|_| "no stage-2 tables")?;
    for (ipa, pa, size, kind) in mappings {
        stage2.map(ipa, pa, size, kind).map_err(|_| "the stage-2 tables cannot be built")?;
    }
    bulkhead_arch::barrier::complete_stores();

    let mut frames = platform.gic.guest_frames(plan.cpus.len()).map(|(_, region)| region);
    let distributor = frames.next().ok_or("the GIC's frames leave the address space")?;
    let devices = EmulatedDevices {
        distributor,
        redistributors: frames.next().filter(|_| cpu_interface.is_none()),
        deactivate: cpu_interface.map(|frame| frame.deactivate),
        uart: plan.console.map(|console| console.registers),
        shared_pages: &plan.shared_pages,
    };
    let mut shared_registers = Vec::with_capacity(plan.shared_pages.len());
    for shared in &plan.shared_pages {
        let registers = Region::new(shared.page, PAGE_SIZE).and_then(Mmio::map);
        shared_registers.push(registers.ok_or("there are too many shared pages of registers")?);
    }
    let ppis = [Some(platform.virtual_timer), Some(platform.physical_timer), platform.pmu];
    let ppis = ppis.iter().flatten().fold(0, |mask, intid| mask | 1 << intid.raw());
    let mut vgic = Vgic::new(gic::model(), gic::words(), plan.cpus.len(), ppis, platform.virtual_timer);
    // Disabled, inactive and routed to vCPU 0 from the start.
    for interrupt in &plan.interrupts {
        vgic.own_hardware(interrupt.intid, interrupt.trigger);
        gic::configure(interrupt.intid, interrupt.trigger);
    }
    if let Some(console) = plan.console {
        vgic.own_emulated(console.intid);
    }
    let partition = Partition::new(index, plan, devices, shared_registers, stage2, vgic);
    partition.reset();
    Ok(partition)
}
