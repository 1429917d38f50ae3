//! What a manifest may say but hardly means: the desk's warnings, BH0901 and those that follow.
//!
//! They are about a manifest that is accepted, so the hypervisor knows none of them. Each names what somebody would otherwise look for
//! for hours; whatever is merely unusual gets no warning. A warning without a mend of its own leaves `help` empty: the rule's page has it.

mod consoles;
mod dependencies;
pub mod wires;

use bulkhead_policy::addr::{BLOCK_2M, PAGE_SIZE};
use bulkhead_policy::plan::{OsType, PartitionPlan, Plan};
use bulkhead_policy::platform::Platform;
use bulkhead_policy::tree::{Node, Tree};

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::kinds;

/// The codes of all warnings.
pub const CODES: [&str; 13] = [
    "BH0901", "BH0902", "BH0903", "BH0904", "BH0905", "BH0906", "BH0907", "BH0908", "BH0909", "BH0910",
    "BH0911", "BH0912", "BH0913",
];

/// All warnings about a manifest that made this plan on this machine; `payload` is what is in a file of the bundle.
#[must_use]
pub fn warnings<'p>(
    manifest: &Tree<'_>,
    board: &Tree<'_>,
    platform: &Platform<'_>,
    plan: &Plan<'_>,
    payload: &dyn Fn(&str) -> Option<&'p [u8]>,
) -> Vec<Diagnostic> {
    let all: Vec<_> =
        plan.partitions.iter().filter_map(|plan| Partition::new(manifest, board, plan)).collect();
    let mut found = Vec::new();
    for partition in &all {
        found.extend(consoles::silent(partition));
        found.extend(consoles::bootargs(partition));
        found.extend(small_pages(partition));
        found.extend(list_registers(partition, platform));
        found.extend(unprotected(partition, board));
        found.extend(rootless(partition));
        found.extend(wrapped(partition, payload));
    }
    found.extend(dependencies::shared(&all, board));
    found.extend(wires::of_console(&all, platform, board));
    found
}

/// A partition as the manifest names it and as it was planned.
struct Partition<'a> {
    node: Node<'a>,
    plan: &'a PartitionPlan<'a>,
    devices: Vec<Device<'a>>,
}

/// A device that a partition has.
struct Device<'a> {
    /// Its node in the board's tree.
    node: Node<'a>,
    /// Where the manifest names it.
    at: Location,
    /// The partition has all of it, not only some units.
    whole: bool,
}

impl<'a> Partition<'a> {
    fn new(manifest: &'a Tree<'a>, board: &'a Tree<'a>, plan: &'a PartitionPlan<'a>) -> Option<Self> {
        let node = manifest.find("/partitions")?.children().find(|node| node.name() == plan.name)?;
        let mut devices: Vec<Device<'a>> = Vec::new();
        for window in &plan.devices {
            let units = window.part.and_then(|part| part.units);
            if devices.iter().all(|known| known.node.path() != window.path)
                && let Some(device) = board.find(window.path)
            {
                let at = match units {
                    Some((divided, _)) => Location::property(node.path(), divided.property),
                    None => named(node, board, &["access", "access-registers"], device),
                };
                devices.push(Device { node: device, at, whole: units.is_none() });
            }
        }
        Some(Self { node, plan, devices })
    }
}

/// Where one of the lists of a partition names a device.
fn named(partition: Node<'_>, board: &Tree<'_>, lists: &[&str], device: Node<'_>) -> Location {
    let place = lists.iter().find_map(|list| {
        let mut names = partition.property(list)?.strings();
        let entry =
            names.position(|name| board.find(name).is_some_and(|node| node.path() == device.path()))?;
        Some(Location::entry(partition.path(), *list, entry))
    });
    place.unwrap_or_else(|| Location::node(partition.path()))
}

/// A warning without a second party.
fn warning(code: &str, at: Location, message: String) -> Diagnostic {
    Diagnostic {
        code: code.to_owned(),
        severity: Severity::Warning,
        message,
        at,
        other: None,
        notes: Vec::new(),
        help: None,
    }
}

/// Memory that could be mapped in blocks of 2 MiB, were it elsewhere.
fn small_pages(partition: &Partition<'_>) -> Vec<Diagnostic> {
    let within = BLOCK_2M - 1;
    let windows = partition.plan.memory.iter().enumerate();
    let scattered = windows.filter(|(_, window)| {
        let first = window.ipa.raw().next_multiple_of(BLOCK_2M);
        let has_block = window.ipa.raw() + window.size >= first + BLOCK_2M;
        has_block && (window.ipa.raw() ^ window.pa.raw()) & within != 0
    });
    scattered
        .map(|(index, window)| {
            let path = partition.node.path();
            let (at, help) = if partition.node.property("physical-memory").is_some() {
                let better = (window.pa.raw() & !within) | (window.ipa.raw() & within);
                let help =
                    format!("give a physical-memory with the same lowest 21 bits, such as {better:#x}");
                (Location::entry(path, "physical-memory", index), help)
            } else {
                // Nowhere in the RAM is there as much at such an address.
                let help = "begin memory at a multiple of 0x200000, or make it smaller".to_owned();
                (Location::entry(path, "memory", 2 * index), help)
            };
            let pages = window.size / PAGE_SIZE;
            let message = format!(
                "memory {} is found at {}: the two differ in their lowest 21 bits, so it is mapped in {pages} pages of 4 KiB \
                 and not in blocks of 2 MiB",
                window.ipa, window.pa
            );
            Diagnostic { help: Some(help), ..warning("BH0908", at, message) }
        })
        .collect()
}

/// More interrupts than the CPU keeps ready.
fn list_registers(partition: &Partition<'_>, platform: &Platform<'_>) -> Option<Diagnostic> {
    let cpus = partition.plan.cpus.len();
    // One of each CPU's belongs to the virtual timer. A guest with several CPUs can spread its interrupts.
    let registers = usize::from(platform.board?.list_registers).checked_sub(1)? * cpus;
    let interrupts = partition.plan.interrupts.len() + usize::from(partition.plan.console.is_some());
    (interrupts > registers).then(|| {
        let message = format!(
            "{interrupts} interrupts of devices share {registers} list registers: when more are pending at once, the rest wait \
             in memory, and each that moves up costs a maintenance interrupt"
        );
        let access = ["access", "access-registers", "gpio-pins", "dma-channels"];
        let list = access.into_iter().find(|list| partition.node.property(list).is_some());
        let path = partition.node.path();
        let at = list.map_or_else(|| Location::node(path), |list| Location::property(path, list));
        warning("BH0909", at, message)
    })
}

/// Devices that reach memory past the walls.
fn unprotected(partition: &Partition<'_>, board: &Tree<'_>) -> Vec<Diagnostic> {
    let risks = partition.plan.unprotected.iter().filter_map(|risk| Some((risk, board.find(risk.path)?)));
    risks
        .map(|(risk, device)| {
            let at = named(partition.node, board, &["unprotected-dma"], device);
            warning("BH0910", at, risk.to_string())
        })
        .collect()
}

/// A Linux that finds no file system to go on with.
fn rootless(partition: &Partition<'_>) -> Option<Diagnostic> {
    let plan = partition.plan;
    let named = plan.bootargs.is_some_and(|bootargs| {
        // "rdinit=" is for an initramfs that is built into the kernel.
        bootargs.split_whitespace().any(|word| word.starts_with("root=") || word.starts_with("rdinit="))
    });
    (plan.os == OsType::Linux && plan.ramdisk.is_none() && !named).then(|| {
        let message = format!(
            "{} has no ramdisk, and its bootargs have no root=: unless the kernel has an initramfs built in, it stops for want of a \
             root file system",
            plan.name
        );
        warning("BH0911", Location::node(partition.node.path()), message)
    })
}

/// A raw binary that is none: its first byte is no instruction's. Of Linux's kernel a rule says so.
fn wrapped<'p>(partition: &Partition<'_>, payload: &dyn Fn(&str) -> Option<&'p [u8]>) -> Option<Diagnostic> {
    let kernel =
        Some(partition.node).filter(|_| partition.plan.os != OsType::Linux)?.property("kernel")?.string()?;
    let what = kinds::of_raw(payload(kernel)?)?;
    let message = format!("{} starts at the first byte of {kernel}, but that is {what}", partition.plan.name);
    Some(warning("BH0913", Location::property(partition.node.path(), "kernel"), message))
}
