//! The machine as its firmware describes it: what there is to be divided.
//!
//! Made once from the firmware's device tree, at boot by the hypervisor and on the desk by the host tool,
//! so that both check a manifest against the same facts.

use alloc::vec::Vec;
use core::fmt;

use bulkhead_board::Board;
use bulkhead_board::power::PowerModel;

use crate::addr::{Ipa, PAGE_SIZE, Pa, Region};
use crate::irq::IntId;
use crate::stage2::IPA_BITS;
use crate::tree::{GicInterrupt, Node, Tree};
use crate::vgic::redistributor;

#[cfg(test)]
mod tests;

/// One physical CPU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlatformCpu {
    /// Affinity fields of MPIDR_EL1, as in the node's `reg` (Arm ARM DDI 0487, D19.2.100).
    pub mpidr: u64,
    /// How it is started; `None` where the tree names no method that Bulkhead knows.
    pub enable_method: Option<EnableMethod>,
}

/// How a secondary CPU is started (device-tree specification 3.8).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum EnableMethod {
    /// PSCI CPU_ON through the platform's conduit.
    Psci,
    /// Write the entry address to this location and send an event.
    SpinTable {
        /// `cpu-release-addr`.
        release: Pa,
    },
}

/// The instruction that reaches PSCI firmware.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Conduit {
    /// `SMC #0`.
    Smc,
    /// `HVC #0`: a hypervisor runs below this one.
    Hvc,
}

/// The interrupt controller.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gic {
    /// GICv3 or later in GICv3 mode.
    V3 {
        /// GICD frame.
        distributor: Region<Pa>,
        /// GICR regions, each an array of redistributors.
        redistributors: Vec<Region<Pa>>,
    },
    /// GICv2 with virtualization extensions.
    V2 {
        /// GICD frame.
        distributor: Region<Pa>,
        /// GICC frame.
        cpu_interface: Region<Pa>,
        /// GICH frame.
        hypervisor_interface: Region<Pa>,
        /// GICV frame, which a guest gets as its GICC.
        virtual_interface: Region<Pa>,
    },
}

/// How a guest of a GICv2 gets its CPU interface.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GuestCpuInterface {
    /// What is mapped: GICV without GICV_DIR.
    pub pa: Pa,
    /// Where the guest sees it: where the board has its GICC.
    pub mapped: Region<Ipa>,
    /// The rest of it: GICC_DIR and nothing else. Not mapped, because an interrupt without a list register may have to be
    /// deactivated and GICH_HCR has no trap for that.
    pub deactivate: Region<Ipa>,
}

/// Bytes from one page of a GICC or GICV to the next: 4 KiB, or 64 KiB where each page repeats 16 times, so that an operating
/// system with 64 KiB pages can map it (IHI 0048, 4.1.4 leaves that to the board).
fn cpu_interface_stride(frame: Region<Pa>) -> u64 {
    if frame.size() >= 0x2_0000 { 0x1_0000 } else { 0x1000 }
}

impl Gic {
    /// The two pages of GICC next to each other, for EL2. `None` on a GICv3.
    #[must_use]
    pub fn adjacent_cpu_interface(&self) -> Option<Region<Pa>> {
        let Self::V2 { cpu_interface, .. } = *self else { return None };
        // The last repetition of the first page is the neighbour of the first one of the second.
        let offset = cpu_interface_stride(cpu_interface).wrapping_sub(0x1000);
        Region::new(Pa::new(cpu_interface.start().raw().checked_add(offset)?), 0x2000)
    }

    /// What a guest gets as its GICC. `None` on a GICv3.
    #[must_use]
    pub fn guest_cpu_interface(&self) -> Option<GuestCpuInterface> {
        let Self::V2 { cpu_interface, virtual_interface, .. } = *self else { return None };
        let size = cpu_interface_stride(cpu_interface).min(cpu_interface_stride(virtual_interface));
        let start = cpu_interface.start().raw();
        Some(GuestCpuInterface {
            pa: virtual_interface.start(),
            mapped: Region::new(Ipa::new(start), size)?,
            deactivate: Region::new(Ipa::new(start.checked_add(size)?), size)?,
        })
    }

    /// The frames that a guest with this many vCPUs sees, where the board has its own: GICD, then GICR (one
    /// region for all) or GICC.
    pub fn guest_frames(&self, vcpus: usize) -> impl Iterator<Item = (&'static str, Region<Ipa>)> + use<> {
        let (distributor, name, second, size) = match self {
            Self::V3 { distributor, redistributors } => {
                let first = redistributors.first().map_or(distributor.start(), |region| region.start());
                (distributor, "GICR", first, redistributor::STRIDE.saturating_mul(vcpus as u64))
            }
            Self::V2 { distributor, cpu_interface, virtual_interface, .. } => {
                let stride =
                    cpu_interface_stride(*cpu_interface).min(cpu_interface_stride(*virtual_interface));
                (distributor, "GICC", cpu_interface.start(), stride.saturating_mul(2))
            }
        };
        let frames = [("GICD", distributor.start(), distributor.size()), (name, second, size)];
        let region = |start: Pa, size| Region::new(Ipa::new(start.raw()), size);
        frames.into_iter().filter_map(move |(name, start, size)| Some((name, region(start, size)?)))
    }
}

/// A serial port that the hypervisor can print on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Uart<'a> {
    /// Path of its node.
    pub path: &'a str,
    /// Which programming model it has.
    pub model: UartModel,
    /// Its registers.
    pub registers: Region<Pa>,
    /// Its interrupt.
    pub intid: Option<IntId>,
}

/// Programming model of a serial port.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UartModel {
    /// Arm PrimeCell PL011 (DDI 0183).
    Pl011,
    /// The mini-UART of the BCM2835 and its successors (BCM2711 ARM Peripherals, chapter 2).
    MiniUart,
}

/// [`Reservation::holder`] of the hypervisor's own memory.
pub const HYPERVISOR: &str = "the hypervisor";
/// [`Reservation::holder`] of the bundle.
pub const BUNDLE: &str = "the bundle";

/// Memory that no partition may get, and why.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reservation<'a> {
    /// The memory.
    pub region: Region<Pa>,
    /// What it holds, for messages: a node's path, [`HYPERVISOR`], [`BUNDLE`] or another name.
    pub holder: &'a str,
}

/// The machine.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Platform<'a> {
    /// The board, where it is known beyond its tree.
    pub board: Option<&'static Board>,
    /// RAM, sorted by address, without overlap.
    pub ram: Vec<Region<Pa>>,
    /// What of the RAM is taken: `/memreserve/`, `/reserved-memory`, and what the caller added.
    pub reserved: Vec<Reservation<'a>>,
    /// CPUs in the order of the tree; a CPU number in a manifest is an index into this.
    pub cpus: Vec<PlatformCpu>,
    /// Interrupt controller.
    pub gic: Gic,
    /// How many SPIs it has; the most that a GIC can have where the board is not known. At boot the hardware says it.
    pub spis: u32,
    /// Path of the interrupt controller's node.
    pub gic_path: &'a str,
    /// The GIC's maintenance interrupt, a PPI.
    pub maintenance: IntId,
    /// The EL1 virtual timer's interrupt, a PPI.
    pub virtual_timer: IntId,
    /// The EL1 physical timer's interrupt, a PPI.
    pub physical_timer: IntId,
    /// The PMU's overflow interrupt where it is a PPI.
    pub pmu: Option<IntId>,
    /// The serial port named by `/chosen/stdout-path`, or else the first known one that nothing is wired to.
    pub uart: Option<Uart<'a>>,
    /// The PL011 whose place emulated ones take: [`Platform::uart`] or else the first one.
    pub pl011: Option<Uart<'a>>,
    /// How PSCI firmware is called, where there is any.
    pub psci: Option<Conduit>,
    /// Registers of what turns the machine off where no PSCI firmware does.
    pub power: Option<(PowerModel, Region<Pa>)>,
}

/// What the firmware's tree lacks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PlatformError<'a> {
    /// Path of the node that is incomplete; the root's where a node is missing.
    pub path: &'a str,
    /// What is wrong with it.
    pub message: &'static str,
}

impl fmt::Display for PlatformError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl core::error::Error for PlatformError<'_> {}

/// The most pieces of RAM, and the most reservations in it. Each is compared with each, and one more would be as long.
const MAX_RAM: usize = 128;
const MAX_RESERVED: usize = 512;
const TOO_MANY: &str = "there are too many ranges of memory";

/// PPIs by their number in a device tree, where the tree does not name them (Base System Architecture,
/// DEN 0094, "Interrupts"): GIC maintenance (INTID 25).
const MAINTENANCE_PPI: u8 = 9;

/// What a device is.
#[derive(Clone, Copy)]
enum Kind {
    Gic { v3: bool },
    Timer,
    Psci,
    Uart(UartModel),
}

/// The `compatible` strings that matter. A GICv2 has virtualization extensions under all of these names.
static KINDS: [(&str, Kind); 9] = [
    ("arm,gic-v3", Kind::Gic { v3: true }),
    ("arm,gic-400", Kind::Gic { v3: false }),
    ("arm,cortex-a15-gic", Kind::Gic { v3: false }),
    ("arm,cortex-a7-gic", Kind::Gic { v3: false }),
    ("arm,armv8-timer", Kind::Timer),
    ("arm,psci-0.2", Kind::Psci),
    ("arm,psci-1.0", Kind::Psci),
    ("arm,pl011", Kind::Uart(UartModel::Pl011)),
    ("brcm,bcm2835-aux-uart", Kind::Uart(UartModel::MiniUart)),
];

impl Kind {
    fn of(compatible: &[u8]) -> Option<Self> {
        // Many nodes, few of them of interest.
        if !matches!(compatible, [b'a' | b'b', b'r', ..]) {
            return None;
        }
        KINDS.iter().find(|(name, _)| name.as_bytes() == compatible).map(|(_, kind)| *kind)
    }
}

/// The nodes that matter, found in one pass.
#[derive(Default)]
struct Found<'a> {
    gic: Option<(Node<'a>, bool)>,
    timer: Option<Node<'a>>,
    pmu: Option<Node<'a>>,
    psci: Option<Node<'a>>,
    pl011: Option<Node<'a>>,
    /// A serial port that nothing is wired to.
    uart: Option<Node<'a>>,
}

impl<'a> Found<'a> {
    fn new(tree: &'a Tree<'a>) -> Self {
        let mut found = Self::default();
        for node in tree.nodes() {
            for name in node.compatible() {
                let slot = match Kind::of(name) {
                    Some(Kind::Gic { v3 }) => {
                        found.gic.get_or_insert((node, v3));
                        continue;
                    }
                    Some(Kind::Timer) => &mut found.timer,
                    Some(Kind::Psci) => &mut found.psci,
                    Some(Kind::Uart(model)) if node.is_enabled() => {
                        if !node.children().any(Node::is_enabled) {
                            found.uart.get_or_insert(node);
                        }
                        if model != UartModel::Pl011 {
                            continue;
                        }
                        &mut found.pl011
                    }
                    None if is_pmu(name) => &mut found.pmu,
                    _ => continue,
                };
                slot.get_or_insert(node);
            }
        }
        found
    }
}

/// Whether a `compatible` string is that of a core's PMU, such as arm,cortex-a72-pmu (Linux binding `arm,pmu`).
pub(crate) fn is_pmu(compatible: &[u8]) -> bool {
    compatible.starts_with(b"arm,")
        && (*compatible == b"arm,armv8-pmuv3"[..] || compatible.ends_with(b"-pmu"))
}

/// The PPI with this position among the node's interrupts.
fn ppi(node: Node<'_>, position: usize) -> Option<IntId> {
    match node.interrupts().nth(position)??.1.gic()? {
        GicInterrupt::Ppi(number, _) if number < 16 => Some(IntId::ppi(number as u8)),
        _ => None,
    }
}

impl<'a> Platform<'a> {
    /// Whether the GIC has this interrupt.
    #[must_use]
    pub fn has(&self, intid: IntId) -> bool {
        intid.raw() < self.spis.saturating_add(32)
    }

    /// Reads the machine from its firmware's tree, and finds it among `boards`. The caller adds to [`Platform::reserved`] what it knows
    /// itself: the hypervisor, the bundle, the tree.
    ///
    /// # Errors
    ///
    /// Names the node that is missing or incomplete: memory, CPUs, a GIC that Bulkhead knows or the timer.
    #[inline(never)]
    pub fn from_tree(tree: &'a Tree<'a>, boards: &'static [Board]) -> Result<Self, PlatformError<'a>> {
        let missing = |message| PlatformError { path: "/", message };
        let found = Found::new(tree);
        let ram = ram(tree)?;
        if ram.is_empty() {
            return Err(missing("there is no memory node"));
        }
        let (gic_node, v3) = found.gic.ok_or(missing("there is no GICv3 and no GICv2"))?;
        let gic = gic(gic_node, v3)?;
        let maintenance = if gic_node.property("interrupts").is_none() {
            IntId::ppi(MAINTENANCE_PPI)
        } else {
            let message = "its maintenance interrupt is no PPI";
            ppi(gic_node, 0).ok_or(PlatformError { path: gic_node.path(), message })?
        };
        let timer = found.timer.ok_or(missing("there is no arm,armv8-timer"))?;
        // Secure physical, non-secure physical, virtual, hypervisor (Linux binding `arm,arch_timer`).
        let timer_ppi =
            |position, message| ppi(timer, position).ok_or(PlatformError { path: timer.path(), message });
        let conduit = |node: Node<'_>| match node.property("method")?.string()? {
            "smc" => Some(Conduit::Smc),
            "hvc" => Some(Conduit::Hvc),
            _ => None,
        };
        let cpus = cpus(tree)?;
        if cpus.is_empty() {
            return Err(missing("there is no CPU node"));
        }
        let in_pen = |cpu: &PlatformCpu| matches!(cpu.enable_method, Some(EnableMethod::SpinTable { .. }));
        let board = Board::find(boards, tree.root().compatible());
        let power = board.and_then(|board| board.power).and_then(|power| {
            let node = tree.nodes().find(|node| node.is_compatible(power.compatible))?;
            Some((power.model, node.reg().next()??))
        });
        let stdout = tree.stdout().and_then(uart);
        Ok(Self {
            board,
            reserved: reserved(tree, &ram, &cpus)?,
            ram,
            gic,
            spis: board.map_or(IntId::SPIS, |board| board.spis),
            gic_path: gic_node.path(),
            maintenance,
            virtual_timer: timer_ppi(2, "its third interrupt, the virtual timer's, is no PPI")?,
            physical_timer: timer_ppi(1, "its second interrupt, the physical timer's, is no PPI")?,
            pmu: found.pmu.and_then(|node| ppi(node, 0)),
            uart: stdout.or_else(|| uart(found.uart?)),
            pl011: stdout.filter(|uart| uart.model == UartModel::Pl011).or_else(|| uart(found.pl011?)),
            // Where CPUs wait in a pen nobody answers a call, whatever a psci node says: an SMC could lose the CPU.
            psci: found.psci.filter(|_| !cpus.iter().any(in_pen)).and_then(conduit),
            power,
            cpus,
        })
    }
}

/// All memory nodes (3.4), sorted; what touches or overlaps becomes one.
fn ram<'a>(tree: &'a Tree<'a>) -> Result<Vec<Region<Pa>>, PlatformError<'a>> {
    let mut ram: Vec<Region<Pa>> = Vec::new();
    for node in tree.root().children() {
        if !node.is_memory() || !node.is_enabled() {
            continue;
        }
        for (address, size) in node.raw_reg().filter(|&(_, size)| size != 0) {
            // What stage 2 can lead to (Arm ARM DDI 0487, D8.1.6).
            let message = "its reg goes beyond 48 address bits";
            let region = Region::new(Pa::new(address), size).filter(|region| region.last().raw() >> 48 == 0);
            let mut region = region.ok_or(PlatformError { path: node.path(), message })?;
            for other in &mut ram {
                if region < *other {
                    core::mem::swap(other, &mut region);
                }
            }
            if ram.len() >= MAX_RAM {
                return Err(PlatformError { path: node.path(), message: TOO_MANY });
            }
            ram.push(region);
        }
    }
    let mut merged: Vec<Region<Pa>> = Vec::with_capacity(ram.len());
    for region in ram {
        if let Some(last) = merged.last_mut()
            && region.start().raw() <= last.last().raw().saturating_add(1)
        {
            let end = region.last().raw().max(last.last().raw());
            let size = end.wrapping_sub(last.start().raw()).saturating_add(1);
            *last = Region::new(last.start(), size).unwrap_or(*last);
        } else {
            merged.push(region);
        }
    }
    Ok(merged)
}

/// `/memreserve/` entries, the fixed regions of `/reserved-memory` (3.5) and the pages in which CPUs wait for their
/// release, as far as they lie in RAM. One that cannot be read is an error: passing it over would give away what the firmware
/// still uses.
fn reserved<'a>(
    tree: &'a Tree<'a>,
    ram: &[Region<Pa>],
    cpus: &[PlatformCpu],
) -> Result<Vec<Reservation<'a>>, PlatformError<'a>> {
    let mut reserved = Vec::new();
    let mut reserve = |region: Region<Pa>, holder: &'a str| {
        let entry = Reservation { region, holder };
        if ram.iter().any(|ram| ram.overlaps(region)) && !reserved.contains(&entry) {
            if reserved.len() >= MAX_RESERVED {
                return Err(PlatformError { path: "/", message: TOO_MANY });
            }
            reserved.push(entry);
        }
        Ok(())
    };
    for (address, size) in tree.reservations() {
        if let Some(region) = Region::new(Pa::new(address), size) {
            reserve(region, "the firmware (/memreserve/)")?;
        }
    }
    let nodes = tree.root().child("reserved-memory").map(Node::children);
    for node in nodes.into_iter().flatten() {
        if !node.is_enabled() {
            continue;
        }
        let mut raw = node.raw_reg();
        for region in node.reg() {
            match (raw.next(), region) {
                (Some((_, 0)), _) => {}
                (_, Some(region)) => reserve(region, node.path())?,
                (_, None) => {
                    let message = "its reg cannot be read, so what it reserves is not known";
                    return Err(PlatformError { path: node.path(), message });
                }
            }
        }
    }
    for cpu in cpus {
        let Some(EnableMethod::SpinTable { release }) = cpu.enable_method else { continue };
        let page = Region::new(Pa::new(release.raw() & !PAGE_SIZE.wrapping_sub(1)), PAGE_SIZE);
        if let Some(region) = page {
            reserve(region, "the firmware's spin table")?;
        }
    }
    Ok(reserved)
}

fn cpus<'a>(tree: &'a Tree<'a>) -> Result<Vec<PlatformCpu>, PlatformError<'a>> {
    let mut cpus = Vec::new();
    for node in tree.cpus() {
        let message = "it has no reg";
        let (mpidr, _) = node.raw_reg().next().ok_or(PlatformError { path: node.path(), message })?;
        cpus.push(PlatformCpu { mpidr, enable_method: enable_method(node) });
    }
    Ok(cpus)
}

fn enable_method(node: Node<'_>) -> Option<EnableMethod> {
    // The method may stand in /cpus for all of them (3.8.1).
    let method = node.property("enable-method").or_else(|| node.parent()?.property("enable-method"))?;
    match method.string()? {
        "psci" => Some(EnableMethod::Psci),
        "spin-table" => {
            let address = node.property("cpu-release-addr")?;
            // 64 bits by the specification; Linux takes 32 too.
            let release = address.u64().or_else(|| address.u32().map(u64::from))?;
            Some(EnableMethod::SpinTable { release: Pa::new(release) })
        }
        _ => None,
    }
}

/// Frames by their order in `reg` (Linux bindings `arm,gic-v3` and `arm,gic`).
fn gic(node: Node<'_>, v3: bool) -> Result<Gic, PlatformError<'_>> {
    let error = |message| PlatformError { path: node.path(), message };
    // Guests have the frames where the board has them.
    let in_reach = |frame: Region<Pa>| {
        frame.start().raw().is_multiple_of(PAGE_SIZE) && frame.last().raw() < 1 << IPA_BITS
    };
    if !node.reg().flatten().all(in_reach) {
        return Err(error("its reg has a frame that is not 4 KiB aligned or not within 39 address bits"));
    }
    let mut frames = node.reg();
    let mut frame = |message| frames.next().flatten().ok_or(error(message));
    let distributor = frame("its reg has no GICD frame")?;
    if !v3 {
        let cpu_interface = frame("its reg has no GICC frame")?;
        let hypervisor_interface = frame("its reg has no GICH frame; it cannot be virtualized")?;
        let virtual_interface = frame("its reg has no GICV frame; it cannot be virtualized")?;
        if cpu_interface.size() < 0x2000 || virtual_interface.size() < 0x2000 {
            return Err(error("its GICC or GICV frame is smaller than 8 KiB"));
        }
        return Ok(Gic::V2 { distributor, cpu_interface, hypervisor_interface, virtual_interface });
    }
    let count = node.property("#redistributor-regions").and_then(|count| count.u32()).unwrap_or(1);
    let redistributors: Vec<_> = frames.map_while(|frame| frame).take(count as usize).collect();
    if redistributors.is_empty() {
        return Err(error("its reg has no GICR region"));
    }
    Ok(Gic::V3 { distributor, redistributors })
}

/// `node` as a serial port, if it is one that is known and enabled.
#[must_use]
pub fn uart(node: Node<'_>) -> Option<Uart<'_>> {
    let model = node.compatible().find_map(|name| match Kind::of(name)? {
        Kind::Uart(model) => Some(model),
        _ => None,
    })?;
    if !node.is_enabled() {
        return None;
    }
    let intid = node.interrupts().next().flatten().and_then(|(_, cells)| match cells.gic()? {
        GicInterrupt::Spi(number, _) => IntId::spi(number),
        GicInterrupt::Ppi(..) => None,
    });
    Some(Uart { path: node.path(), model, registers: node.reg().next()??, intid })
}
