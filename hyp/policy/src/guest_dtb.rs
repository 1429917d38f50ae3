//! The device tree that a guest gets: the board's, cut down to what its partition owns, plus what Bulkhead
//! gives it.
//!
//! It is written straight into the guest's memory, front to back, without allocating: a partition that restarts
//! gets a fresh one. Devices stand below the root at their CPU addresses, whatever buses they have on the board,
//! with their properties as they are; phandles stay the board's, so references between them hold. What refers
//! to something that the partition does not have (a reset, a regulator, a DMA channel) is left out. Two things a driver
//! cannot do without: where a clock runs as the firmware set it, and the board's data know how fast, a fixed
//! clock stands in; and a device that reads and writes memory by itself has a bus above it that says at which addresses.
//!
//! References are to the Devicetree Specification, release 0.4.

use core::fmt;

use crate::irq::{IntId, Trigger};
use crate::manifest::MAX_DMA_RANGES;
use crate::plan::PartitionPlan;
use crate::platform::{Gic, Platform, is_pmu};
use crate::tree::{Node, Property, Tree};

#[cfg(test)]
mod tests;
pub(crate) mod writer;

use writer::Writer;

/// The space for the tree is too small.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DtbError;

impl fmt::Display for DtbError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guest's device tree does not fit in the space kept for it")
    }
}

impl core::error::Error for DtbError {}

/// Clock of the emulated PL011 in Hz, as on QEMU virt. Nothing depends on it but a guest's divisor.
const UART_CLOCK: u32 = 24_000_000;
/// What the emulated PL011 says of its line, in bits per second.
const UART_SPEED: u32 = 115_200;
/// Name of that clock's node.
const UART_CLOCK_NODE: &str = "uart-clock";
/// Pins of a GPIO controller that are not to be used.
const RESERVED_PINS: &str = "gpio-reserved-ranges";
/// The property that lists a device's clocks.
const CLOCKS: &str = "clocks";
/// The most clocks of passed-through devices; what needs more goes without.
const MAX_CLOCKS: usize = 16;

/// Writes the tree of a partition to the start of `out` and returns its size in bytes.
///
/// `board` is the tree that `platform` and `partition` were made from.
///
/// # Errors
///
/// Fails if the tree does not fit in `out`.
pub fn generate(
    out: &mut [u8],
    board: &Tree<'_>,
    platform: &Platform<'_>,
    partition: &PartitionPlan<'_>,
    hypervisor_version: &str,
) -> Result<usize, DtbError> {
    let mut guest = Guest::new(board, platform, partition);
    let mut writer = Writer::new(out);
    let w = &mut writer;
    w.begin(format_args!(""));
    w.cells("#address-cells", &[2]);
    w.cells("#size-cells", &[2]);
    w.cells("interrupt-parent", &[guest.gic_phandle]);
    for name in ["model", "compatible", "serial-number"] {
        w.copy(board.root().property(name));
    }
    // The board's revision and serial number once more, as its firmware words them for Linux.
    if let Some(system) = board.root().child("system") {
        w.begin(format_args!("system"));
        system.properties().for_each(|property| w.copy(Some(property)));
        w.end();
    }
    guest.chosen(w);
    guest.aliases(w);
    guest.memory(w);
    guest.cpus(w);
    w.begin(format_args!("psci"));
    w.bytes("compatible", b"arm,psci-1.0\0arm,psci-0.2\0");
    w.string("method", "hvc");
    w.end();
    w.begin(format_args!("hypervisor"));
    w.string("compatible", "bulkhead,bulkhead");
    w.string("version", hypervisor_version);
    w.end();
    guest.private_devices(w);
    guest.gic(w);
    guest.console(w);
    guest.devices(w);
    w.end();
    writer.finish()
}

/// What the parts of the tree need to know of each other.
struct Guest<'t> {
    board: &'t Tree<'t>,
    platform: &'t Platform<'t>,
    partition: &'t PartitionPlan<'t>,
    /// The board's GIC node.
    gic_node: Option<Node<'t>>,
    gic_phandle: u32,
    uart_clock: u32,
    /// The clocks that devices refer to.
    clocks: [Option<FixedClock<'t>>; MAX_CLOCKS],
}

/// A clock whose rate does not change while guests run.
#[derive(Clone, Copy, PartialEq)]
struct FixedClock<'t> {
    /// A fixed clock of the board, or a controller.
    node: Node<'t>,
    /// Which of the controller's clocks it is, and its rate.
    stands_for: Option<(u32, u32)>,
}

impl<'t> Guest<'t> {
    fn new(board: &'t Tree<'t>, platform: &'t Platform<'t>, partition: &'t PartitionPlan<'t>) -> Self {
        let gic_node = board.find(platform.gic_path);
        let uart_clock = board.free_phandle();
        let gic_phandle = gic_node.and_then(Node::phandle).unwrap_or(uart_clock.saturating_add(1));
        Self { board, platform, partition, gic_node, gic_phandle, uart_clock, clocks: [None; MAX_CLOCKS] }
    }

    /// The partition's devices with the address in their names, each once.
    fn owned(&self) -> impl Iterator<Item = (Node<'t>, u64)> + use<'t> {
        let (board, devices) = (self.board, &self.partition.devices);
        devices.iter().enumerate().filter_map(move |(index, window)| {
            if devices.iter().take(index).any(|earlier| earlier.path == window.path) {
                return None;
            }
            let node = board.find(window.path)?;
            Some((node, node.reg().next()??.start().raw()))
        })
    }

    /// The device that is `node`, with the address in its name.
    fn owner_of(&self, node: Node<'_>) -> Option<(Node<'t>, u64)> {
        self.owned().find(|(owned, _)| owned.path() == node.path())
    }

    /// The bus whose `dma-ranges` say at which addresses a device finds memory that it reads and writes by itself.
    fn dma_bus(&self, node: Node<'t>) -> Option<&'t str> {
        self.partition.unprotected.iter().find(|risk| risk.path == node.path())?;
        node.dma_range(0)?;
        Some(node.parent()?.base_name())
    }

    /// A property with the path of one of the partition's devices.
    fn path(&self, w: &mut Writer<'_>, property: &str, node: Node<'t>, address: u64) {
        let name = node.base_name();
        match self.dma_bus(node) {
            Some(bus) => w.text(property, format_args!("/{bus}-{address:x}/{name}@{address:x}")),
            None => w.text(property, format_args!("/{name}@{address:x}")),
        }
    }

    fn chosen(&self, w: &mut Writer<'_>) {
        w.begin(format_args!("chosen"));
        if let Some(bootargs) = self.partition.bootargs {
            w.string("bootargs", bootargs);
        }
        if let Some(console) = &self.partition.console {
            w.text("stdout-path", format_args!("/pl011@{:x}", console.registers.start().raw()));
        } else if let Some((node, address)) = self.board.stdout().and_then(|node| self.owner_of(node)) {
            self.path(w, "stdout-path", node, address);
        }
        if let Some(ramdisk) = self.partition.ramdisk {
            w.number("linux,initrd-start", ramdisk.start().raw());
            w.number("linux,initrd-end", ramdisk.start().raw().saturating_add(ramdisk.size()));
        }
        w.end();
    }

    /// The board's aliases of what the partition has. The emulated console is the first serial port.
    fn aliases(&self, w: &mut Writer<'_>) {
        const FIRST_SERIAL: &str = "serial0";
        w.begin(format_args!("aliases"));
        if let Some(console) = &self.partition.console {
            w.text(FIRST_SERIAL, format_args!("/pl011@{:x}", console.registers.start().raw()));
        }
        let aliases = self.board.root().child("aliases").map(Node::properties);
        for alias in aliases.into_iter().flatten() {
            if alias.name == FIRST_SERIAL && self.partition.console.is_some() {
                continue;
            }
            let target = alias.string().and_then(|path| self.board.find(path));
            if let Some((node, address)) = target.and_then(|node| self.owner_of(node)) {
                self.path(w, alias.name, node, address);
            }
        }
        w.end();
    }

    fn memory(&self, w: &mut Writer<'_>) {
        for window in &self.partition.memory {
            w.begin(format_args!("memory@{:x}", window.ipa.raw()));
            w.string("device_type", "memory");
            w.begin_property("reg");
            w.value_number(window.ipa.raw());
            w.value_number(window.size);
            w.end_property();
            w.end();
        }
    }

    /// vCPUs are numbered from 0 in affinity level 0, whatever the physical CPUs are (3.8).
    fn cpus(&self, w: &mut Writer<'_>) {
        w.begin(format_args!("cpus"));
        w.cells("#address-cells", &[1]);
        w.cells("#size-cells", &[0]);
        for (number, &cpu) in self.partition.cpus.iter().enumerate() {
            w.begin(format_args!("cpu@{number:x}"));
            w.string("device_type", "cpu");
            w.copy(self.board.cpus().nth(cpu).and_then(|node| node.property("compatible")));
            w.cells("reg", &[number as u32]);
            w.string("enable-method", "psci");
            w.end();
        }
        w.end();
    }

    /// The generic timer and the PMU, of which every vCPU has its own.
    fn private_devices(&self, w: &mut Writer<'_>) {
        for node in self.board.nodes() {
            let pmu = self.platform.pmu.is_some();
            for name in node.compatible().filter(|name| name.starts_with(b"arm,")) {
                let name = match name {
                    b"arm,armv8-timer" => "timer",
                    name if pmu && is_pmu(name) => "pmu",
                    _ => continue,
                };
                self.private_device(w, node, name);
                break;
            }
        }
    }

    fn private_device(&self, w: &mut Writer<'_>, node: Node<'_>, name: &str) {
        w.begin(format_args!("{name}"));
        for property in node.properties() {
            let renewed =
                ["interrupts", "interrupts-extended", "interrupt-parent", "phandle", "linux,phandle"];
            if !renewed.contains(&property.name) {
                w.copy(Some(property));
            }
        }
        w.begin_property("interrupts");
        for (_, specifier) in node.interrupts().flatten() {
            for (index, &cell) in specifier.cells().iter().enumerate() {
                w.value_cell(if index == 2 { self.private_flags(cell) } else { cell });
            }
        }
        w.end_property();
        w.end();
    }

    /// The flags of a PPI. On a GICv2 bits 15:8 say which CPUs have it (Linux binding `arm,gic`).
    fn private_flags(&self, flags: u32) -> u32 {
        match self.platform.gic {
            Gic::V3 { .. } => flags,
            Gic::V2 { .. } => {
                let vcpus = u32::try_from(self.partition.cpus.len()).unwrap_or(8).min(8);
                let mask = 1_u32.wrapping_shl(vcpus).wrapping_sub(1);
                flags & 0xff | mask << 8
            }
        }
    }

    fn gic(&self, w: &mut Writer<'_>) {
        let mut frames = self.platform.gic.guest_frames(self.partition.cpus.len());
        let Some((_, distributor)) = frames.next() else { return };
        let name = self.gic_node.map_or("intc", Node::base_name);
        w.begin(format_args!("{name}@{:x}", distributor.start().raw()));
        match self.platform.gic {
            Gic::V3 { .. } => w.string("compatible", "arm,gic-v3"),
            // Many small kernels look for the second alone.
            Gic::V2 { .. } => w.bytes("compatible", b"arm,gic-400\0arm,cortex-a15-gic\0"),
        }
        w.begin_property("reg");
        for region in core::iter::once(distributor).chain(frames.map(|(_, region)| region)) {
            w.value_number(region.start().raw());
            w.value_number(region.size());
        }
        w.end_property();
        w.bytes("interrupt-controller", b"");
        w.cells("#address-cells", &[0]);
        let cells = self.gic_node.and_then(|node| node.property("#interrupt-cells")?.u32());
        w.cells("#interrupt-cells", &[cells.unwrap_or(3)]);
        w.cells("phandle", &[self.gic_phandle]);
        w.end();
    }

    fn console(&self, w: &mut Writer<'_>) {
        let Some(console) = &self.partition.console else { return };
        fixed_clock(w, format_args!("{UART_CLOCK_NODE}"), UART_CLOCK, self.uart_clock);
        w.begin(format_args!("pl011@{:x}", console.registers.start().raw()));
        w.bytes("compatible", b"arm,pl011\0arm,primecell\0");
        w.region("reg", console.registers);
        w.cells("interrupts", &spi_cells(console.intid, Trigger::Level));
        w.cells("clocks", &[self.uart_clock, self.uart_clock]);
        w.bytes("clock-names", b"uartclk\0apb_pclk\0");
        w.cells("current-speed", &[UART_SPEED]);
        w.end();
    }

    /// The devices passed through, and the fixed clocks that they refer to.
    fn devices(&mut self, w: &mut Writer<'_>) {
        for (device, address) in self.owned() {
            let bus = self.dma_bus(device);
            if let Some(bus) = bus {
                w.begin(format_args!("{bus}-{address:x}"));
                w.string("compatible", "simple-bus");
                w.cells("#address-cells", &[2]);
                w.cells("#size-cells", &[2]);
                w.bytes("ranges", b"");
                w.begin_property("dma-ranges");
                for (on_bus, memory) in (0..MAX_DMA_RANGES).map_while(|entry| device.dma_range(entry)) {
                    let Some(memory) = memory else { continue };
                    w.value_number(on_bus);
                    w.value_number(memory.start().raw());
                    w.value_number(memory.size());
                }
                w.end_property();
            }
            w.begin(format_args!("{}@{address:x}", device.base_name()));
            w.begin_property("reg");
            for region in device.reg().flatten() {
                w.value_number(region.start().raw());
                w.value_number(region.size());
            }
            w.end_property();
            let part = self.partition.devices.iter().find(|window| window.path == device.path());
            let part = part.and_then(|window| window.part);
            let polled = part.is_some_and(|part| part.polled);
            let units = part.and_then(|part| part.units);
            // The GIC is the root's already.
            if !polled
                && let Some(phandle) = device.interrupt_parent().and_then(Node::phandle)
                && phandle != self.gic_phandle
            {
                w.cells("interrupt-parent", &[phandle]);
            }
            let renewed = units.map_or(RESERVED_PINS, |(divided, _)| divided.usable.unwrap_or(RESERVED_PINS));
            for property in device.properties() {
                let replaced = property.name == "reg"
                    || property.name == "interrupt-parent"
                    // The manifest names it for use, although the board's firmware may not.
                    || part.is_some() && property.name == "status"
                    || polled && property.name.starts_with("interrupt")
                    || units.is_some() && property.name == renewed;
                if !replaced {
                    self.copy_property(w, device, property);
                }
            }
            if let Some((divided, units)) = units {
                // Below it are groups of pins that are not all the partition's.
                match divided.usable {
                    Some(name) => w.cells(name, &[units as u32]),
                    None => reserved_pins(w, divided.units, units),
                }
            }
            let added = self.platform.board.map_or([].as_slice(), |board| board.added);
            for (_, name) in added.iter().filter(|(compatible, _)| device.is_compatible(compatible)) {
                w.bytes(name, b"");
            }
            // What is below keeps its own addressing.
            let below = if units.is_some() { 0 } else { usize::MAX };
            let mut open = device;
            for node in device.subtree().skip(1).take(below) {
                close(w, &mut open, node.parent());
                w.begin(format_args!("{}", node.name()));
                for property in node.properties() {
                    self.copy_property(w, node, property);
                }
                open = node;
            }
            close(w, &mut open, Some(device));
            w.end();
            if bus.is_some() {
                w.end();
            }
        }
        for (slot, clock) in self.clocks.iter().enumerate() {
            let Some(clock) = clock else { continue };
            match clock.stands_for {
                Some((index, hertz)) => {
                    let name = format_args!("{}-{}", clock.node.base_name(), u64::from(index));
                    fixed_clock(w, name, hertz, self.stand_in(slot));
                }
                None => {
                    w.begin(format_args!("{}", clock.node.name()));
                    clock.node.properties().for_each(|property| w.copy(Some(property)));
                    w.end();
                }
            }
        }
    }

    /// phandle of the fixed clock that stands in for a controller's: behind those of the GIC and of the emulated PL011's.
    fn stand_in(&self, slot: usize) -> u32 {
        self.uart_clock.saturating_add(2).saturating_add(slot as u32)
    }

    /// Copies a property unless it refers to something that the partition does not have.
    fn copy_property(&mut self, w: &mut Writer<'_>, node: Node<'t>, property: Property<'_>) {
        let kept = match references(property.name) {
            Reference::None => true,
            Reference::To(cells) => self.refer(property, cells, None),
            Reference::NamesOf(list) => node.property(list).is_none_or(|list| match references(list.name) {
                Reference::To(cells) => self.refer(list, cells, None),
                _ => true,
            }),
            Reference::Never => false,
        };
        if kept && property.name == CLOCKS {
            w.begin_property(CLOCKS);
            self.refer(property, Some("#clock-cells"), Some(w));
            w.end_property();
        } else if kept {
            w.copy(Some(property));
        }
    }

    /// Whether the guest's tree holds every node of a list of phandles with arguments, or something that stands in for it. Writes the list
    /// as it is there, if told to.
    fn refer(&mut self, list: Property<'_>, cells: Option<&str>, mut w: Option<&mut Writer<'_>>) -> bool {
        let (mut rest, odd) = list.value.as_chunks();
        while let Some((phandle, arguments)) = rest.split_first() {
            let phandle = u32::from_be_bytes(*phandle);
            let Some(target) = self.board.by_phandle(phandle) else { return false };
            let count = cells.map_or(Some(0), |cells| target.property(cells)?.u32());
            let Some((arguments, behind)) =
                count.and_then(|count| arguments.split_at_checked(count as usize))
            else {
                return false;
            };
            rest = behind;
            let mut clock = None;
            if !self.provides(target, phandle) {
                let index = arguments.first().map_or(0, |index| u32::from_be_bytes(*index));
                clock = if list.name == CLOCKS { self.rate(target, index) } else { None };
                if clock.is_none() {
                    return false;
                }
            }
            if let Some(w) = &mut w {
                w.value_cell(clock.map_or(phandle, |slot| self.stand_in(slot)));
                for argument in arguments.iter().filter(|_| clock.is_none()) {
                    w.value_cell(u32::from_be_bytes(*argument));
                }
            }
        }
        odd.is_empty()
    }

    /// Whether a node will be in the guest's tree. Fixed clocks are added as they are asked for.
    fn provides(&mut self, node: Node<'t>, phandle: u32) -> bool {
        phandle == self.gic_phandle
            || self.owned().any(|(owned, _)| owned.is_above(node))
            || node.is_compatible("fixed-clock")
                && self.clock(FixedClock { node, stands_for: None }).is_some()
    }

    /// The fixed clock that stands in for a controller's, if the board's data know the rate.
    fn rate(&mut self, node: Node<'t>, index: u32) -> Option<usize> {
        let mut clocks = self.platform.board?.clocks.iter();
        let clock = clocks.find(|clock| clock.index == index && node.is_compatible(clock.controller))?;
        self.clock(FixedClock { node, stands_for: Some((index, clock.hertz)) })
    }

    /// The place of a clock, which is a new one where nothing referred to it before.
    fn clock(&mut self, clock: FixedClock<'t>) -> Option<usize> {
        let slot = self.clocks.iter().position(|slot| slot.is_none_or(|other| other == clock))?;
        *self.clocks.get_mut(slot)? = Some(clock);
        Some(slot)
    }
}

/// Writes a fixed clock.
fn fixed_clock(w: &mut Writer<'_>, name: fmt::Arguments<'_>, hertz: u32, phandle: u32) {
    w.begin(name);
    w.string("compatible", "fixed-clock");
    w.cells("#clock-cells", &[0]);
    w.cells("clock-frequency", &[hertz]);
    w.cells("phandle", &[phandle]);
    w.end();
}

/// The pins that are not in `owned` (Linux binding `gpio`).
fn reserved_pins(w: &mut Writer<'_>, count: u8, owned: u64) {
    w.begin_property(RESERVED_PINS);
    let mut next = 0;
    for pin in (0..count).filter(|&pin| owned.wrapping_shr(pin.into()) & 1 != 0).chain([count]) {
        if pin > next {
            w.value_cell(next.into());
            w.value_cell(pin.saturating_sub(next).into());
        }
        next = pin.saturating_add(1);
    }
    w.end_property();
}

/// Ends the nodes from `open` up to below `parent`.
fn close<'t>(w: &mut Writer<'_>, open: &mut Node<'t>, parent: Option<Node<'t>>) {
    while Some(*open) != parent
        && let Some(above) = open.parent()
    {
        w.end();
        *open = above;
    }
}

/// An SPI as a GIC's interrupt specifier (Linux binding `arm,gic-v3`).
fn spi_cells(intid: IntId, trigger: Trigger) -> [u32; 3] {
    let flags = match trigger {
        Trigger::Edge => 1,
        Trigger::Level => 4,
    };
    [0, intid.raw().saturating_sub(32), flags]
}

/// What a property's value refers to.
enum Reference {
    /// Nothing.
    None,
    /// Nodes by phandle, each followed by as many cells as that node's property of this name says.
    To(Option<&'static str>),
    /// The entries of another property of the same node, to which it gives names.
    NamesOf(&'static str),
    /// Something that no guest has.
    Never,
}

/// Bindings that refer by phandle, as far as devices use them that can be passed through.
fn references(name: &str) -> Reference {
    match name {
        CLOCKS | "assigned-clocks" | "assigned-clock-parents" => Reference::To(Some("#clock-cells")),
        "clock-names" => Reference::NamesOf(CLOCKS),
        "assigned-clock-rates" => Reference::NamesOf("assigned-clocks"),
        "resets" => Reference::To(Some("#reset-cells")),
        "reset-names" => Reference::NamesOf("resets"),
        "power-domains" => Reference::To(Some("#power-domain-cells")),
        "power-domain-names" => Reference::NamesOf("power-domains"),
        "phys" => Reference::To(Some("#phy-cells")),
        "phy-names" => Reference::NamesOf("phys"),
        "mboxes" => Reference::To(Some("#mbox-cells")),
        "mbox-names" => Reference::NamesOf("mboxes"),
        "interrupts-extended" => Reference::To(Some("#interrupt-cells")),
        "gpios" => Reference::To(Some("#gpio-cells")),
        // No DMA without an SMMU, no interrupts by message, and pins are the board's.
        "dmas" | "dma-names" | "msi-parent" | "memory-region" | "pinctrl-names" => Reference::Never,
        name if name.starts_with("pinctrl-") => Reference::Never,
        name if name.ends_with("-gpios") || name.ends_with("-gpio") => Reference::To(Some("#gpio-cells")),
        name if name.ends_with("-supply") || name == "mmc-pwrseq" => Reference::To(None),
        _ => Reference::None,
    }
}
