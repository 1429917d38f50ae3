//! Reads a report off a checked plan: everything that the machine has, and whose it is.

use std::collections::BTreeMap;

use bulkhead_board::devices::Class;
use bulkhead_policy::addr::{Ipa, PAGE_SIZE, Pa, Region};
use bulkhead_policy::irq::IntId;
use bulkhead_policy::plan::{DevicePart, DeviceWindow, OsType, PartitionPlan};
use bulkhead_policy::tree::{GicInterrupt, Node, Property};

use super::model::*;
use super::risks::risks;
use crate::system::{Checked, KEPT};

impl Report {
    /// The report of a checked manifest; `manifest` is its file's name.
    #[must_use]
    pub fn new(checked: Checked<'_>, manifest: &str) -> Self {
        let machine = machine(checked);
        let resources = resources(checked, &machine);
        let free = machine.iter().filter(|span| span.holder == Holder::Nobody).map(|span| span.size);
        let model = checked.board.root().property("model").and_then(|model| model.string());
        let board = checked.platform.board.map(|board| board.title).or(model);
        Self {
            format: FORMAT.to_owned(),
            manifest: manifest.to_owned(),
            board: board.unwrap_or("an unknown board").to_owned(),
            partitions: checked
                .plan
                .partitions
                .iter()
                .enumerate()
                .map(|(index, plan)| partition(index, plan, checked))
                .collect(),
            free: Free { total: free.clone().sum(), largest: free.max().unwrap_or(0) },
            risks: risks(checked, &resources),
            resources,
            machine,
        }
    }
}

fn partition(index: usize, plan: &PartitionPlan<'_>, checked: Checked<'_>) -> Partition {
    let os = match plan.os {
        OsType::Linux => "linux",
        OsType::FreeRtos => "freertos",
        OsType::Bare => "bare",
    };
    Partition {
        name: plan.name.to_owned(),
        number: index + 1,
        os: os.to_owned(),
        cpus: plan.cpus.clone(),
        entry: plan.entry.raw(),
        bootargs: plan.bootargs.map(str::to_owned),
        map: windows(plan, checked),
    }
}

/// Everything at a partition's addresses.
fn windows(plan: &PartitionPlan<'_>, checked: Checked<'_>) -> Vec<Window> {
    let window = |region: Region<Ipa>, kind, name: &str| Window {
        ipa: region.start().raw(),
        size: region.size(),
        kind,
        name: name.to_owned(),
        pa: None,
        blocks: None,
        contents: Vec::new(),
    };
    let mapped = |window: Window, pa: Pa| Window {
        blocks: Some(Blocks::of(Ipa::new(window.ipa), pa, window.size)),
        pa: Some(pa.raw()),
        ..window
    };
    let mut windows = Vec::new();
    let gic = &checked.platform.gic;
    let mut frames: Vec<_> = gic.guest_frames(plan.cpus.len()).collect();
    if let Some(interface) = gic.guest_cpu_interface() {
        // The second frame of a GICv2 is this one: a page of hardware, a page of emulation.
        frames.truncate(1);
        windows.push(mapped(window(interface.mapped, WindowKind::Gic, "GICC"), interface.pa));
        windows.push(window(interface.deactivate, WindowKind::Gic, "GICC_DIR"));
    }
    windows.extend(frames.into_iter().map(|(name, region)| window(region, WindowKind::Gic, name)));
    windows.extend(plan.console.map(|console| window(console.registers, WindowKind::Console, "PL011")));
    for device in &plan.devices {
        let Some(region) = Region::new(device.ipa, device.size) else { continue };
        windows.push(match device.part {
            None => mapped(window(region, WindowKind::Device, device.path), device.pa),
            Some(_) => {
                let window = window(region, WindowKind::SharedDevice, device.path);
                Window { pa: Some(device.pa.raw()), ..window }
            }
        });
    }
    for memory in &plan.memory {
        let Some(region) = Region::new(memory.ipa, memory.size) else { continue };
        let contents = contents(plan, region);
        windows.push(Window { contents, ..mapped(window(region, WindowKind::Ram, "RAM"), memory.pa) });
    }
    windows.sort_by(|one, two| (one.ipa, one.size, &one.name).cmp(&(two.ipa, two.size, &two.name)));
    windows
}

/// What is put into a range of RAM.
fn contents(plan: &PartitionPlan<'_>, memory: Region<Ipa>) -> Vec<Content> {
    let mut contents: Vec<_> = plan
        .segments
        .iter()
        .map(|segment| {
            let ramdisk = plan.ramdisk.is_some_and(|ramdisk| ramdisk.start() == segment.ipa);
            let kind = if ramdisk { ContentKind::Ramdisk } else { ContentKind::Kernel };
            let (ipa, size) = (segment.ipa.raw(), segment.memory_size);
            Content { ipa, size, kind, payload: segment.payload.to_owned() }
        })
        .collect();
    let (ipa, size) = (plan.dtb.start().raw(), plan.dtb.size());
    contents.push(Content { ipa, size, kind: ContentKind::DeviceTree, payload: String::new() });
    contents.retain(|content| content.size != 0 && memory.contains(Ipa::new(content.ipa)));
    contents.sort_by_key(|content| content.ipa);
    contents
}

/// A claim to physical addresses, before claims to the same ones are put together.
struct Claim {
    first: u64,
    end: u64,
    ram: bool,
    holder: Holder,
    name: String,
}

impl Claim {
    /// To all pages that the region touches.
    fn new(region: Region<Pa>, ram: bool, holder: Holder, name: &str) -> Self {
        let first = region.start().raw() & !(PAGE_SIZE - 1);
        // The last page of the address space is nobody's.
        let end = (region.last().raw() | (PAGE_SIZE - 1)).saturating_add(1);
        Self { first, end, ram, holder, name: name.to_owned() }
    }
}

/// The machine's addresses, each with its holder.
fn machine(checked: Checked<'_>) -> Vec<Span> {
    let Checked { plan, platform, .. } = checked;
    let mut claims = Vec::new();
    for reservation in &platform.reserved {
        let holder = if KEPT.contains(&reservation.holder) { Holder::Hypervisor } else { Holder::Firmware };
        claims.push(Claim::new(reservation.region, true, holder, reservation.holder));
    }
    for partition in &plan.partitions {
        for memory in &partition.memory {
            let Some(region) = Region::new(memory.pa, memory.size) else { continue };
            let name = format!("IPA {:#010x}", memory.ipa.raw());
            claims.push(Claim::new(region, true, Holder::partition(partition.name), &name));
        }
        for device in &partition.devices {
            let Some(region) = Region::new(device.pa, device.size) else { continue };
            // Of a page with several owners only the hypervisor touches the registers.
            let holder = match device.part {
                None => Holder::partition(partition.name),
                Some(_) => Holder::Hypervisor,
            };
            claims.push(Claim::new(region, false, holder, device.path));
        }
    }
    for node in hypervisor_devices(checked) {
        for region in node.reg().flatten() {
            claims.push(Claim::new(region, false, Holder::Hypervisor, node.path()));
        }
    }
    put_together(&claims, platform.ram.iter().copied())
}

/// The claims cut at each other's ends, with the names of all that meet in one place, and the RAM between them.
fn put_together(claims: &[Claim], ram: impl Iterator<Item = Region<Pa>>) -> Vec<Span> {
    // RAM counts in whole pages, as it is given away.
    let ram: Vec<_> = ram
        .map(|bank| {
            let end = (bank.last().raw().wrapping_add(1)) & !(PAGE_SIZE - 1);
            (bank.start().raw().next_multiple_of(PAGE_SIZE), end)
        })
        .collect();
    let mut cuts: Vec<u64> = claims.iter().flat_map(|claim| [claim.first, claim.end]).collect();
    cuts.extend(ram.iter().flat_map(|&(first, end)| [first, end]));
    cuts.sort_unstable();
    cuts.dedup();
    let mut spans: Vec<Span> = Vec::new();
    for cut in cuts.windows(2) {
        let &[first, end] = cut else { continue };
        let in_ram = ram.iter().any(|&(bank, bank_end)| bank <= first && end <= bank_end);
        let here: Vec<_> = claims
            .iter()
            .filter(|claim| claim.first <= first && end <= claim.end && (in_ram || !claim.ram))
            .collect();
        let (holder, name) = match here.first() {
            None if in_ram => (Holder::Nobody, String::new()),
            None => continue,
            Some(claim) => {
                let mut names: Vec<_> = here.iter().map(|claim| claim.name.as_str()).collect();
                names.dedup();
                (claim.holder.clone(), names.join(", "))
            }
        };
        match spans.last_mut() {
            Some(last)
                if last.pa + last.size == first
                    && last.ram == in_ram
                    && last.holder == holder
                    && last.name == name =>
            {
                last.size += end - first;
            }
            _ => spans.push(Span { pa: first, size: end - first, ram: in_ram, holder, name }),
        }
    }
    spans
}

/// The devices that the hypervisor keeps for itself.
fn hypervisor_devices<'c>(checked: Checked<'c>) -> impl Iterator<Item = Node<'c>> {
    let Checked { plan, platform, board, .. } = checked;
    let given = |path: &str| {
        plan.partitions.iter().any(|partition| partition.devices.iter().any(|device| device.path == path))
    };
    let uart = platform.uart.filter(|uart| !given(uart.path)).and_then(|uart| board.find(uart.path));
    let power = platform.board.and_then(|board| board.power).filter(|_| platform.power.is_some());
    let power = power.and_then(|power| board.nodes().find(|node| node.is_compatible(power.compatible)));
    [board.find(platform.gic_path), uart, power].into_iter().flatten()
}

/// Nodes of the board that are devices with registers which the CPUs reach.
fn devices<'c>(checked: Checked<'c>) -> impl Iterator<Item = Node<'c>> {
    let owned = move |path: &str| {
        let mut partitions = checked.plan.partitions.iter();
        partitions.any(|partition| partition.devices.iter().any(|device| device.path == path))
    };
    checked.board.nodes().filter(move |node| {
        let is_memory = node.is_memory() || node.path().starts_with("/reserved-memory/");
        let class = checked.platform.board.and_then(|board| board.class(node.compatible()));
        !is_memory
            && class != Some(Class::Shadow)
            && (node.is_enabled() || owned(node.path()))
            && node.reg().flatten().next().is_some()
    })
}

fn resources(checked: Checked<'_>, machine: &[Span]) -> Vec<Resource> {
    let Checked { plan, platform, .. } = checked;
    let mut resources = Vec::new();
    for cpu in 0..platform.cpus.len() {
        let shares = plan.partitions.iter().filter_map(|partition| {
            let vcpu = partition.cpus.iter().position(|&owned| owned == cpu)?;
            Some(Share { holder: Holder::partition(partition.name), portion: Portion::Vcpu(vcpu) })
        });
        resources.push(Resource::new(ResourceKind::Cpu, format!("CPU {cpu}"), None, shares.collect()));
    }
    for bank in &platform.ram {
        let mut shares: BTreeMap<&Holder, u64> = BTreeMap::new();
        for span in machine.iter().filter(|span| span.ram && bank.contains(Pa::new(span.pa))) {
            *shares.entry(&span.holder).or_default() += span.size;
        }
        let shares = shares
            .into_iter()
            .map(|(holder, size)| Share { holder: holder.clone(), portion: Portion::Bytes(size) });
        let name = format!("RAM {:#010x}", bank.start().raw());
        resources.push(Resource::new(ResourceKind::Ram, name, Some(bank.size()), shares.collect()));
    }
    let kept: Vec<_> = hypervisor_devices(checked).map(Node::path).collect();
    for node in devices(checked) {
        let path = node.path();
        let mut shares = Vec::new();
        for partition in &plan.partitions {
            let own = partition.devices.iter().find(|device| device.path == path).map(portion);
            // The GIC as each partition sees it.
            let portion = own.or((path == platform.gic_path).then_some(Portion::Emulated));
            let holder = Holder::partition(partition.name);
            shares.extend(portion.map(|portion| Share { holder, portion }));
        }
        if kept.contains(&path) {
            shares.push(Share { holder: Holder::Hypervisor, portion: Portion::Whole });
        }
        let size = node.reg().flatten().map(|block| block.size()).sum();
        resources.push(Resource::new(ResourceKind::Device, path.to_owned(), Some(size), shares));
    }
    resources.extend(interrupts(checked));
    resources
}

fn portion(device: &DeviceWindow<'_>) -> Portion {
    match device.part {
        None => Portion::Whole,
        Some(DevicePart { units: None, .. }) => Portion::Registers,
        Some(DevicePart { units: Some((_, units)), .. }) => {
            Portion::Units((0..64).filter(|unit| units >> unit & 1 != 0).collect())
        }
    }
}

impl Resource {
    /// A row; without shares it is nobody's.
    fn new(kind: ResourceKind, name: String, size: Option<u64>, mut shares: Vec<Share>) -> Self {
        if shares.is_empty() {
            shares.push(Share { holder: Holder::Nobody, portion: Portion::Whole });
        }
        Self { kind, name, size, raised_by: Vec::new(), shares }
    }
}

/// The interrupts of devices with the paths of those.
fn lines<'c>(checked: Checked<'c>) -> BTreeMap<IntId, Vec<&'c str>> {
    let mut lines: BTreeMap<IntId, Vec<&str>> = BTreeMap::new();
    for node in devices(checked) {
        let own =
            node.interrupts().flatten().filter_map(|(controller, specifier)| match specifier.gic()? {
                GicInterrupt::Spi(number, _) if controller.path() == checked.platform.gic_path => {
                    Some(number)
                }
                _ => None,
            });
        for intid in own.chain(mapped(node, checked)).filter_map(IntId::spi) {
            let devices = lines.entry(intid).or_default();
            if !devices.contains(&node.path()) {
                devices.push(node.path());
            }
        }
    }
    lines
}

/// The SPIs that the `interrupt-map` of a bus leads to (Devicetree Specification 0.4, 2.4.3). Ends at an entry that is cut off.
fn mapped(bus: Node<'_>, checked: Checked<'_>) -> Vec<u32> {
    let number = |node: Node<'_>, name| node.property(name).and_then(Property::u32).unwrap_or(0) as usize;
    let map: Vec<_> = bus.property("interrupt-map").and_then(Property::u32s).into_iter().flatten().collect();
    let child = (bus.cells().0 as usize).saturating_add(number(bus, "#interrupt-cells"));
    let mut spis = Vec::new();
    let mut rest = &map[..];
    while let Some((&phandle, behind)) = rest.get(child..).and_then(<[u32]>::split_first)
        && let Some(parent) = checked.board.by_phandle(phandle)
        && let Some(behind) = behind.get(number(parent, "#address-cells")..)
        && let Some((specifier, behind)) = behind.split_at_checked(number(parent, "#interrupt-cells"))
    {
        if parent.path() == checked.platform.gic_path
            && let &[0, number, _] = specifier
        {
            spis.push(number);
        }
        rest = behind;
    }
    spis
}

fn interrupts(checked: Checked<'_>) -> Vec<Resource> {
    let Checked { plan, platform, .. } = checked;
    let row = |intid: IntId, raised_by: Vec<String>, shares: Vec<Share>| {
        let row = Resource::new(ResourceKind::Interrupt, intid.to_string(), None, shares);
        Resource { raised_by, ..row }
    };
    let mut rows = Vec::new();
    let private = [
        (Some(platform.virtual_timer), "virtual timer"),
        (Some(platform.physical_timer), "physical timer"),
        (platform.pmu, "PMU"),
    ];
    for (intid, name) in private {
        let each = plan.partitions.iter().map(|partition| Holder::partition(partition.name));
        let shares = each.map(|holder| Share { holder, portion: Portion::PerCpu });
        rows.extend(intid.map(|intid| row(intid, vec![name.to_owned()], shares.collect())));
    }
    let share = Share { holder: Holder::Hypervisor, portion: Portion::PerCpu };
    rows.push(row(platform.maintenance, vec!["GIC maintenance".to_owned()], vec![share]));

    let mut lines = lines(checked);
    for partition in &plan.partitions {
        for intid in partition.console.iter().map(|console| console.intid) {
            lines.entry(intid).or_default();
        }
        for owned in &partition.interrupts {
            lines.entry(owned.intid).or_default();
        }
    }
    let keeps = |path: &str| hypervisor_devices(checked).any(|node| node.path() == path);
    let uart = platform.uart.filter(|uart| keeps(uart.path)).and_then(|uart| uart.intid);
    for (intid, mut devices) in lines {
        let mut shares = Vec::new();
        for partition in &plan.partitions {
            let polled = |device: &DeviceWindow<'_>| {
                device.part.is_some_and(|part| part.polled) && devices.contains(&device.path)
            };
            let portion = if partition.interrupts.iter().any(|owned| owned.intid == intid) {
                Portion::Whole
            } else if partition.console.is_some_and(|console| console.intid == intid) {
                Portion::Emulated
            } else if partition.devices.iter().any(polled) {
                Portion::Polled
            } else {
                continue;
            };
            shares.push(Share { holder: Holder::partition(partition.name), portion });
        }
        if uart == Some(intid) {
            shares.push(Share { holder: Holder::Hypervisor, portion: Portion::Whole });
        }
        // Whose interrupt it is comes first.
        devices.sort_by_key(|path| {
            let mut owners = plan
                .partitions
                .iter()
                .filter(|partition| partition.interrupts.iter().any(|owned| owned.intid == intid));
            !owners.any(|partition| partition.devices.iter().any(|device| device.path == *path))
        });
        rows.push(row(intid, devices.into_iter().map(str::to_owned).collect(), shares));
    }
    rows
}
