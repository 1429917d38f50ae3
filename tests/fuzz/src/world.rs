//! Boards, payloads and the check of a manifest, and what has to be true of every plan.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use arbitrary::Unstructured;
use bulkhead_boards::BOARDS;
use bulkhead_policy::addr::{Address, Ipa, PAGE_SIZE, Pa, Region};
use bulkhead_policy::dispatch::Direction;
use bulkhead_policy::guest_dtb;
use bulkhead_policy::manifest::{self, DTB_SPACE};
use bulkhead_policy::plan::{PartitionPlan, Plan};
use bulkhead_policy::platform::{Gic, Platform, Reservation};
use bulkhead_policy::shared_page::Step;
use bulkhead_policy::stage2::{Kind, Stage2, Table};
use bulkhead_policy::tree::{Node, Tree};

use crate::blob::Blob;

/// Trees of boards. The first two are made up and small, for Miri's sake.
pub(crate) static TREES: [&[u8]; 7] = [
    include_bytes!("../seeds/firmware_tree/tiny-gicv3"),
    include_bytes!("../seeds/firmware_tree/tiny-gicv2"),
    include_bytes!("../../manifests/boards/qemu-virt-gicv3.dtb"),
    include_bytes!("../../manifests/boards/sharing.dtb"),
    include_bytes!("../../manifests/boards/rpi4-8g.dtb"),
    include_bytes!("../../manifests/boards/qemu-virt-gicv2.dtb"),
    include_bytes!("../../manifests/boards/qemu-virt-gicv3-4g.dtb"),
];
/// A made-up board.
pub(crate) const TINY: usize = 0;
/// The board that most fixtures are for.
pub(crate) const VIRT: usize = 2;

/// Plans with more tables than this are not built: the hypervisor has no room for them either.
const MOST_TABLES: usize = 512;

fn choose<T>(choices: &mut Unstructured<'_>, from: &[T]) -> usize {
    choices.arbitrary::<u8>().map_or(0, |choice| usize::from(choice) % from.len())
}

/// One of the boards' trees, to be changed.
pub(crate) fn chosen_blob(choices: &mut Unstructured<'_>) -> Blob {
    Blob::read(TREES[choose(choices, &TREES)])
}

/// The files of every bundle.
fn payload(name: &str) -> Option<&'static [u8]> {
    static FILES: OnceLock<BTreeMap<&str, Vec<u8>>> = OnceLock::new();
    let files = FILES.get_or_init(|| {
        [
            ("Image", arm64_image(2 << 20)),
            ("big.Image", arm64_image(1 << 30)),
            ("bare.bin", vec![0xd5; 256]),
            ("bare.elf", elf()),
            ("cut.elf", elf()[..100].to_vec()),
            ("empty", Vec::new()),
        ]
        .into()
    });
    files.get(name).map(Vec::as_slice)
}

fn arm64_image(image_size: u64) -> Vec<u8> {
    let mut image = vec![0; 64];
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// One segment of 256 bytes at 0x40080000, whose virtual address is a kernel's.
fn elf() -> Vec<u8> {
    let mut file = vec![0; 0x200];
    file[..6].copy_from_slice(b"\x7fELF\x02\x01");
    let mut put = |offset: usize, value: u64, size: usize| {
        file[offset..offset + size].copy_from_slice(&value.to_le_bytes()[..size]);
    };
    let fields = [
        (16, 2, 2),
        (18, 183, 2),
        (24, 0xffff_0000_4008_0040, 8),
        (32, 64, 8),
        (54, 56, 2),
        (56, 1, 2),
        (64, 1, 4),
        (72, 0x100, 8),
        (80, 0xffff_0000_4008_0000, 8),
        (88, 0x4008_0000, 8),
        (96, 0x100, 8),
        (104, 0x4000, 8),
    ];
    fields.into_iter().for_each(|(offset, value, size)| put(offset, value, size));
    file
}

/// A board, as the hypervisor finds it at boot.
pub(crate) struct World<'a> {
    tree: &'a Tree<'a>,
    platform: Platform<'a>,
}

impl World<'static> {
    /// A good board.
    pub(crate) fn fixed(index: usize) -> &'static Self {
        static WORLDS: [OnceLock<World<'static>>; TREES.len()] = [const { OnceLock::new() }; TREES.len()];
        WORLDS[index].get_or_init(|| {
            let tree = Box::leak(Box::new(Tree::new(TREES[index]).expect("a board's tree")));
            Self::new(tree).expect("a complete board")
        })
    }

    pub(crate) fn chosen(choices: &mut Unstructured<'_>) -> &'static Self {
        Self::fixed(choose(choices, &TREES))
    }
}

impl<'a> World<'a> {
    /// The board of this tree with hypervisor and bundle in its memory, if it is complete.
    pub(crate) fn new(tree: &'a Tree<'a>) -> Option<Self> {
        let mut platform = Platform::from_tree(tree, &BOARDS).ok()?;
        sound_platform(&platform);
        let start = platform.ram.first().map_or(0, |ram| ram.start().raw());
        for (offset, size, holder) in [(0, 2 << 20, "the hypervisor"), (128 << 20, 14 << 20, "the bundle")] {
            let region = start.checked_add(offset).and_then(|start| Region::new(Pa::new(start), size));
            platform.reserved.extend(region.map(|region| Reservation { region, holder }));
        }
        Some(Self { tree, platform })
    }

    pub(crate) fn board(&self) -> &'a Tree<'a> {
        self.tree
    }

    /// Checks a manifest with the usual files.
    pub(crate) fn check(&self, manifest: &[u8], with: impl FnOnce(&Tree<'_>, &Platform<'_>, &Plan<'_>)) {
        self.check_with(manifest, &|name| payload(name), with);
    }

    /// Checks a manifest. What is refused has findings that can be read, and a plan keeps what is promised; it goes to `with`.
    pub(crate) fn check_with<'f>(
        &self,
        manifest: &'f [u8],
        payload: &dyn Fn(&str) -> Option<&'f [u8]>,
        with: impl FnOnce(&Tree<'_>, &Platform<'_>, &Plan<'_>),
    ) where
        'a: 'f,
    {
        let tree = match Tree::new(manifest) {
            Ok(tree) => tree,
            Err(error) => return assert!(!error.to_string().is_empty()),
        };
        checked(&tree, self.platform.clone(), self.tree, &|name| payload(name), with);
    }
}

fn checked<'c>(
    manifest: &'c Tree<'c>,
    mut platform: Platform<'c>,
    board: &'c Tree<'c>,
    payload: &dyn Fn(&str) -> Option<&'c [u8]>,
    with: impl FnOnce(&Tree<'_>, &Platform<'_>, &Plan<'_>),
) {
    match manifest::check(manifest, &mut platform, board, payload) {
        Ok(plan) => {
            sound(&plan, &platform);
            with(board, &platform, &plan);
        }
        Err(findings) => {
            assert!(
                !findings.is_empty() && findings.len() <= manifest::MAX_FINDINGS,
                "{} findings",
                findings.len()
            );
            for finding in findings {
                let line = finding.to_string();
                assert!(!line.is_empty() && !line.contains(char::is_control), "{line:?}");
            }
        }
    }
}

/// RAM is sorted and in pieces apart, and there is a CPU.
pub(crate) fn sound_platform(platform: &Platform<'_>) {
    assert!(!platform.cpus.is_empty());
    for pair in platform.ram.windows(2) {
        assert!(pair[0].last() < pair[1].start(), "{pair:?}");
    }
}

fn region<A: Address>(start: A, size: u64) -> Region<A> {
    Region::new(start, size).expect("not empty and within the address space")
}

/// Every two things of one partition or of two are apart.
fn apart<A: Address + core::fmt::Debug>(regions: &[(Region<A>, usize)], what: &str) {
    for (index, (one, owner)) in regions.iter().enumerate() {
        for (other, other_owner) in &regions[..index] {
            assert!(!one.overlaps(*other), "{what}: {one:?} of {owner} and {other:?} of {other_owner}");
        }
    }
}

fn unique<T: Ord + core::fmt::Debug>(things: impl Iterator<Item = T>, what: &str) {
    let mut all: Vec<_> = things.collect();
    all.sort_unstable();
    assert!(all.windows(2).all(|pair| pair[0] != pair[1]), "{what} has two owners: {all:?}");
}

/// Registers of the interrupt controller that no guest may have.
fn gic_frames(gic: &Gic) -> Vec<Region<Pa>> {
    match gic {
        Gic::V3 { distributor, redistributors } => {
            core::iter::once(*distributor).chain(redistributors.iter().copied()).collect()
        }
        Gic::V2 { distributor, cpu_interface, hypervisor_interface, virtual_interface } => {
            vec![*distributor, *cpu_interface, *hypervisor_interface, *virtual_interface]
        }
    }
}

/// What every plan keeps: partitions are apart, and the tables reach what the plan says.
fn sound(plan: &Plan<'_>, platform: &Platform<'_>) {
    let partitions = &plan.partitions;
    unique(partitions.iter().flat_map(|partition| &partition.cpus), "a CPU");
    unique(
        partitions.iter().flat_map(|partition| &partition.interrupts).map(|owned| owned.intid),
        "an interrupt",
    );
    unique(partitions.iter().map(|partition| partition.name), "a name");
    let frames = gic_frames(&platform.gic);
    let mut owned: Vec<(Region<Pa>, usize)> = Vec::new();
    for (number, partition) in partitions.iter().enumerate() {
        assert!(!partition.cpus.is_empty() && partition.cpus.iter().all(|&cpu| cpu < platform.cpus.len()));
        for window in &partition.memory {
            let memory = region(window.pa, window.size);
            assert!(partition.unprotected.is_empty() || window.ipa.raw() == window.pa.raw());
            assert!(memory.is_aligned(PAGE_SIZE) && window.ipa.raw().is_multiple_of(PAGE_SIZE));
            assert!(platform.ram.iter().any(|ram| ram.encloses(memory)), "{memory} is not RAM");
            assert!(
                !platform.reserved.iter().any(|taken| taken.region.overlaps(memory)),
                "{memory} is taken"
            );
            owned.push((memory, number));
        }
        for window in partition.devices.iter().filter(|window| window.part.is_none()) {
            let pages = region(window.pa, window.size);
            assert!(pages.is_aligned(PAGE_SIZE) && window.ipa.raw() == window.pa.raw());
            assert!(!platform.ram.iter().any(|ram| ram.overlaps(pages)), "{pages} is RAM");
            assert!(
                !frames.iter().any(|frame| frame.overlaps(pages)),
                "{pages} is the interrupt controller's"
            );
            // One partition's devices may share a page.
            if !owned.contains(&(pages, number)) {
                owned.push((pages, number));
            }
        }
        sound_images(partition);
        sound_tables(partition, &platform.gic);
        if let Some(console) = &partition.console {
            assert!(partition.interrupts.iter().all(|owned| owned.intid != console.intid));
        }
    }
    for (index, (one, owner)) in owned.iter().enumerate() {
        for (other, other_owner) in &owned[..index] {
            assert!(
                owner == other_owner || !one.overlaps(*other),
                "{one} of {owner} and {other} of {other_owner}"
            );
        }
    }
    sound_parts(partitions, &owned);
}

/// No bit of a register in a shared page belongs to two partitions, and nobody has such a page mapped.
fn sound_parts(partitions: &[PartitionPlan<'_>], owned: &[(Region<Pa>, usize)]) {
    for (index, partition) in partitions.iter().enumerate() {
        unique(partition.shared_pages.iter().map(|page| page.page), "a shared page");
        for page in &partition.shared_pages {
            let whole = region(page.page, PAGE_SIZE);
            assert!(!owned.iter().any(|(other, _)| other.overlaps(whole)), "{whole} is mapped");
            let others = partitions[..index].iter().flat_map(|other| &other.shared_pages);
            for other in others.filter(|other| other.page == page.page) {
                let bits = |step| match step {
                    Step::Nothing | Step::Read(_) => 0,
                    Step::Write(bits) => bits,
                    Step::Change { mask, .. } => mask,
                };
                for offset in (0..PAGE_SIZE).step_by(4) {
                    let written = Direction::Store(u64::MAX);
                    let both = bits(page.decide(offset, written)) & bits(other.decide(offset, written));
                    assert_eq!(both, 0, "bits of {:#x} in {whole} have two owners", offset);
                }
            }
        }
    }
}

/// All that is loaded lies in the partition's memory, in different places.
fn sound_images(partition: &PartitionPlan<'_>) {
    let mut loaded: Vec<_> =
        partition.segments.iter().map(|segment| (region(segment.ipa, segment.memory_size), 0)).collect();
    assert!(loaded.iter().any(|(segment, _)| segment.contains(partition.entry)));
    assert_eq!(partition.dtb.size(), DTB_SPACE);
    loaded.push((partition.dtb, 1));
    apart(&loaded, "loaded");
    for (place, _) in &loaded {
        let room = partition.locate(place.start()).expect("loaded into memory");
        assert!(room.size() >= place.size(), "{place} leaves its memory");
    }
    assert!(partition.ramdisk.is_none_or(|ramdisk| loaded.iter().any(|(place, _)| *place == ramdisk)));
}

/// The tables translate the edges of every mapping as the plan says, and nothing beside them.
fn sound_tables(partition: &PartitionPlan<'_>, gic: &Gic) {
    let mappings = partition.mappings(gic);
    let ipas: Vec<_> = mappings.iter().map(|&(ipa, _, size, _)| (region(ipa, size), 0)).collect();
    apart(&ipas, "mapped");
    let count = Stage2::tables_for(&mappings);
    if count > if cfg!(miri) { 8 } else { MOST_TABLES } {
        return;
    }
    let mut pool = vec![Table::EMPTY; count];
    let mut tables = Stage2::new(&mut pool, Pa::new(0x1_0000_0000)).expect("a pool");
    for &(ipa, pa, size, kind) in &mappings {
        tables.map(ipa, pa, size, kind).expect("the number of tables suffices");
    }
    let expected = |at: u64| -> Option<(Pa, Kind)> {
        let holds = |&&(ipa, _, size, _): &&(Ipa, Pa, u64, Kind)| {
            at.checked_sub(ipa.raw()).is_some_and(|offset| offset < size)
        };
        mappings.iter().find(holds).map(|&(ipa, pa, _, kind)| (Pa::new(pa.raw() + (at - ipa.raw())), kind))
    };
    for &(ipa, _, size, _) in &mappings {
        let last = ipa.raw() + size - PAGE_SIZE;
        let middle = ipa.raw() + ((size / 2) & !(PAGE_SIZE - 1));
        for at in [ipa.raw().wrapping_sub(PAGE_SIZE), ipa.raw(), middle, last, last + PAGE_SIZE] {
            assert_eq!(tables.translate(Ipa::new(at)), expected(at), "{at:#x}");
        }
    }
}

/// Whether a node's name is as the specification wants it (2.2.1): the other reader is strict, and a board's names stay what they are.
fn has_common_name(node: Node<'_>) -> bool {
    let (base, address) = node.name().split_once('@').unwrap_or((node.name(), "0"));
    (1..=31).contains(&base.len())
        && base.starts_with(|first: char| first.is_ascii_alphabetic())
        && !address.is_empty()
        && !address.contains('@')
}

/// The tree of one guest: well-formed for two readers, and its memory and devices are what the partition has.
pub(crate) fn sound_guest_tree(board: &Tree<'_>, platform: &Platform<'_>, partition: &PartitionPlan<'_>) {
    let mut out = vec![0; DTB_SPACE as usize];
    let Ok(size) = guest_dtb::generate(&mut out, board, platform, partition, "0") else { return };
    let tree = Tree::new(&out[..size]).expect("the guest's tree is well-formed");
    if tree.nodes().skip(1).all(has_common_name) {
        dtoolkit::fdt::Fdt::new(&out[..size]).expect("another reader takes it");
    }
    let memory: Vec<_> =
        tree.root().children().filter(|node| node.is_memory() && node.base_name() == "memory").collect();
    assert_eq!(memory.len(), partition.memory.len());
    for (node, window) in memory.iter().zip(&partition.memory) {
        assert!(node.raw_reg().eq([(window.ipa.raw(), window.size)]));
    }
    let cpus: Vec<_> = tree.cpus().filter_map(|cpu| cpu.raw_reg().next()).map(|(number, _)| number).collect();
    assert!(cpus.into_iter().eq(0..partition.cpus.len() as u64));
    // Whatever has an address below the root or a bus is the partition's.
    let own: Vec<Region<Ipa>> = partition
        .devices
        .iter()
        .map(|window| region(window.ipa, window.size))
        .chain(partition.memory.iter().map(|window| region(window.ipa, window.size)))
        .chain(partition.console.map(|console| console.registers))
        .chain(platform.gic.guest_frames(partition.cpus.len()).map(|(_, frame)| frame))
        .collect();
    let top = tree.root().children();
    let buses = top.clone().filter(|node| node.is_compatible("simple-bus"));
    for node in top.chain(buses.flat_map(|bus| bus.children())).filter(|node| node.name().contains('@')) {
        for block in node.reg().flatten() {
            let block = region(Ipa::new(block.start().raw()), block.size());
            assert!(own.iter().any(|own| own.encloses(block)), "{node:?} has {block}");
        }
    }
}
