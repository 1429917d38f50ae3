//! Separation, from the manifest to the last descriptor.
//!
//! Random manifests for a real board's tree go through the same check that the hypervisor makes at boot, and what it lets
//! through is mapped as the hypervisor maps it. Then the tables alone are asked what each partition reaches.

use std::collections::BTreeMap;

use bulkhead_policy::addr::{BLOCK_1G, BLOCK_2M, Ipa, PAGE_SIZE, Pa, Region};
use bulkhead_policy::manifest;
use bulkhead_policy::plan::Plan;
use bulkhead_policy::platform::{Platform, Reservation};
use bulkhead_policy::stage2::{Kind, Mapping, Stage2, Table};
use bulkhead_policy::tree::Tree;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use proptest::prelude::*;

/// QEMU virt with GICv3, 4 CPUs and 1 GiB of RAM at 0x40000000.
const BOARD: &[u8] = include_bytes!("../../manifests/boards/qemu-virt-gicv3.dtb");
/// Devices that a partition may be given, and some that it may not.
const DEVICES: [&str; 4] = ["/pl031@9010000", "/pl061@9030000", "/pl011@9000000", "/fw-cfg@9020000"];
const TABLES_AT: Pa = Pa::new(0x1_0000_0000);

#[derive(Clone, Debug)]
struct Random {
    cpus: Vec<u32>,
    /// IPA, size, and PA where it is given.
    memory: Vec<(u64, u64, Option<u64>)>,
    console: bool,
    devices: Vec<usize>,
}

/// Multiples of 4 KiB, most of them of something larger.
fn aligned(range: core::ops::Range<u64>) -> impl Strategy<Value = u64> {
    let unit = prop_oneof![1 => Just(PAGE_SIZE), 4 => Just(BLOCK_2M), 1 => Just(BLOCK_1G / 4)];
    (range, unit).prop_map(|(value, unit)| value / unit * unit)
}

fn memory() -> impl Strategy<Value = Vec<(u64, u64, Option<u64>)>> {
    let at = || prop_oneof![4 => Just(0x4000_0000), 1 => aligned(0x4000_0000..0x80_0000_0000)];
    // Every page is looked at; Miri takes its time for each.
    let size = || aligned(0x10_0000..if cfg!(miri) { 0x60_0000 } else { 0x1000_0000 });
    let pa = prop::option::weighted(0.3, aligned(0x3f00_0000..0x8100_0000));
    prop_oneof![
        4 => prop::collection::vec((at(), size(), Just(None)), 1..3),
        1 => prop::collection::vec((at(), size(), pa), 1..2),
    ]
}

fn partition() -> impl Strategy<Value = Random> {
    let cpus = prop::collection::vec(0..4_u32, 1..3);
    let devices = prop_oneof![4 => Just(Vec::new()), 1 => prop::collection::vec(0..DEVICES.len(), 1..3)];
    (cpus, memory(), any::<bool>(), devices).prop_map(|(cpus, memory, console, devices)| Random {
        cpus,
        memory,
        console,
        devices,
    })
}

fn property(name: &str, value: &[u8]) -> DeviceTreeProperty {
    DeviceTreeProperty::new(name, value).expect("a valid name")
}

/// The manifest as `dtc` would compile it.
fn compile(partitions: &[Random]) -> Vec<u8> {
    let mut all = DeviceTreeNode::builder("partitions").expect("a valid name");
    for (number, random) in partitions.iter().enumerate() {
        let cells = |words: &[u32]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        let wide = |words: &[u64]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<_>>();
        let memory: Vec<u64> = random.memory.iter().flat_map(|&(ipa, size, _)| [ipa, size]).collect();
        let mut node = DeviceTreeNode::builder(format!("p{number}"))
            .expect("a valid name")
            .property(property("os,type", b"bare\0"))
            .property(property("cpus", &cells(&random.cpus)))
            .property(property("memory", &wide(&memory)))
            .property(property("kernel", b"kernel.bin\0"));
        if random.memory.iter().any(|(_, _, pa)| pa.is_some()) {
            let pas: Vec<u64> = random.memory.iter().map(|(_, _, pa)| pa.unwrap_or(0x5000_0000)).collect();
            node = node.property(property("physical-memory", &wide(&pas)));
        }
        if random.console {
            node = node.property(property("console", b"pl011\0"));
        }
        if !random.devices.is_empty() {
            let names = random
                .devices
                .iter()
                .flat_map(|&n| [DEVICES[n].as_bytes(), b"\0"])
                .collect::<Vec<_>>()
                .concat();
            node = node.property(property("access", &names));
        }
        all = all.child(node.build());
    }
    let mut tree = DeviceTree::new();
    tree.root.add_property(property("compatible", b"bulkhead,manifest-v1\0"));
    tree.root.add_child(all.build());
    tree.to_dtb()
}

fn hypervisor() -> Region<Pa> {
    Region::new(Pa::new(0x4020_0000), 0x20_0000).expect("a valid region")
}

/// Checks `partitions` against the board; the plan goes to `with`.
fn check(partitions: &[Random], with: impl FnOnce(&Plan<'_>, &Platform<'_>)) -> bool {
    let board = Tree::new(BOARD).expect("the board's tree");
    let mut platform = Platform::from_tree(&board, &[]).expect("the board");
    platform.reserved.push(Reservation { region: hypervisor(), holder: "the hypervisor" });
    let blob = compile(partitions);
    let tree = Tree::new(&blob).expect("what dtoolkit writes is a tree");
    let kernel = [0; 4096];
    match manifest::check(&tree, &mut platform, &board, &|name| (name == "kernel.bin").then_some(&kernel[..]))
    {
        Ok(plan) => {
            with(&plan, &platform);
            true
        }
        Err(findings) => {
            assert!(!findings.is_empty());
            false
        }
    }
}

/// The tables of a partition, as the hypervisor builds them.
fn tables<'a>(pool: &'a mut Vec<Table>, mappings: &[Mapping]) -> Stage2<'a> {
    *pool = vec![Table::EMPTY; Stage2::tables_for(mappings)];
    let mut tables = Stage2::new(pool, TABLES_AT).expect("a pool");
    for &(ipa, pa, size, kind) in mappings {
        tables.map(ipa, pa, size, kind).expect("the number of tables suffices");
    }
    tables
}

/// Every page of the PA space that the tables reach, by asking for every page that could be mapped: all of the IPA space in
/// steps of 4 KiB would be 2^27 questions, so whole unmapped GiB are left out by what the tables themselves say.
fn reached(mappings: &[Mapping], tables: &Stage2<'_>) -> BTreeMap<u64, (u64, Kind)> {
    let mut reached = BTreeMap::new();
    for &(ipa, _, size, _) in mappings {
        // A page on either side as well: nothing may be mapped beyond the edges.
        let first = ipa.raw().saturating_sub(PAGE_SIZE);
        let mut at = first;
        while at <= ipa.raw() + size && at < 1 << 39 {
            if let Some((pa, kind)) = tables.translate(Ipa::new(at)) {
                reached.insert(at, (pa.raw(), kind));
            }
            at += PAGE_SIZE;
        }
    }
    // Elsewhere: a sample of every 2 MiB.
    for at in (0..1_u64 << 39).step_by(if cfg!(miri) { BLOCK_1G as usize } else { BLOCK_2M as usize }) {
        if let Some((pa, kind)) = tables.translate(Ipa::new(at)) {
            reached.insert(at, (pa.raw(), kind));
        }
    }
    reached
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 1 } else { 128 }, failure_persistence: None, ..ProptestConfig::default() })]

    /// `translate(build(manifest)) == manifest`, and no page is reached twice.
    #[test]
    fn what_the_manifest_says_is_what_the_tables_reach(partitions in prop::collection::vec(partition(), 1..4)) {
        check(&partitions, |plan, platform| {
            let mut owners = BTreeMap::new();
            for (number, (partition, random)) in plan.partitions.iter().zip(&partitions).enumerate() {
                // What was asked for, where it was asked for.
                for (window, &(ipa, size, pa)) in partition.memory.iter().zip(&random.memory) {
                    assert_eq!((window.ipa.raw(), window.size), (ipa, size));
                    assert!(pa.is_none_or(|pa| window.pa.raw() == pa));
                }
                assert_eq!(partition.memory.len(), random.memory.len());
                assert_eq!(partition.cpus, random.cpus.iter().map(|&cpu| cpu as usize).collect::<Vec<_>>());

                let mappings = partition.mappings(&platform.gic);
                let mut expected = BTreeMap::new();
                for &(ipa, pa, size, kind) in &mappings {
                    for page in (0..size).step_by(PAGE_SIZE as usize) {
                        let twice = expected.insert(ipa.raw() + page, (pa.raw() + page, kind));
                        assert!(twice.is_none(), "IPA {:#x} is mapped twice", ipa.raw() + page);
                    }
                }
                let mut pool = Vec::new();
                let tables = tables(&mut pool, &mappings);
                let reached = reached(&mappings, &tables);
                assert_eq!(&reached, &expected);

                for &(pa, kind) in reached.values() {
                    let other = owners.insert(pa, number);
                    assert!(other.is_none(), "PA {pa:#x} belongs to {other:?} and {number}");
                    let at = Pa::new(pa);
                    assert!(!hypervisor().contains(at), "PA {pa:#x} is the hypervisor's");
                    let in_ram = platform.ram.iter().any(|ram| ram.contains(at));
                    assert_eq!(in_ram, kind == Kind::Memory);
                    assert!(!platform.reserved.iter().any(|reserved| reserved.region.contains(at)));
                }
            }
            let mut cpus: Vec<usize> = plan.partitions.iter().flat_map(|partition| &partition.cpus).copied().collect();
            let count = cpus.len();
            cpus.sort_unstable();
            cpus.dedup();
            assert_eq!(cpus.len(), count, "a CPU is owned twice");
            let mut interrupts: Vec<u32> =
                plan.partitions.iter().flat_map(|partition| &partition.interrupts).map(|i| i.intid.raw()).collect();
            let count = interrupts.len();
            interrupts.sort_unstable();
            interrupts.dedup();
            assert_eq!(interrupts.len(), count, "an interrupt is owned twice");
        });
    }

    /// Whatever is loaded lies in the partition's memory, and nothing overlaps the device tree or the ramdisk.
    #[test]
    fn what_is_loaded_is_its_own(partitions in prop::collection::vec(partition(), 1..4)) {
        check(&partitions, |plan, _| {
            for partition in &plan.partitions {
                let mut regions: Vec<Region<Ipa>> = partition
                    .segments
                    .iter()
                    .map(|segment| Region::new(segment.ipa, segment.memory_size).expect("a segment is not empty"))
                    .collect();
                regions.push(partition.dtb);
                for (n, region) in regions.iter().enumerate() {
                    let room = partition.locate(region.start()).expect("loaded into memory");
                    assert!(room.size() >= region.size());
                    assert!(regions.iter().skip(n + 1).all(|other| !other.overlaps(*region)));
                }
            }
        });
    }
}

/// The properties above would hold of a check that refuses everything.
#[test]
fn some_random_manifests_are_accepted() {
    let simple = |cpu, devices| Random {
        cpus: vec![cpu],
        memory: vec![(0x4000_0000, 0x800_0000, None)],
        console: false,
        devices,
    };
    assert!(check(&[simple(0, vec![]), simple(1, vec![0]), simple(3, vec![1])], |plan, _| {
        assert_eq!(plan.partitions.len(), 3);
        assert_eq!(plan.partitions[1].devices.len(), 1);
        assert_eq!(plan.partitions[1].interrupts.len(), 1);
    }));
    assert!(!check(&[simple(0, vec![]), simple(0, vec![])], |_, _| {}));
    assert!(!check(&[simple(0, vec![0]), simple(1, vec![0])], |_, _| {}));
}
