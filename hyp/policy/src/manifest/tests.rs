//! Fixtures and invariants of the check.
//!
//! `tests/manifests/rules` holds two manifests for each rule. Those beside it have several faults or none; their first lines say what is
//! found.

use alloc::collections::BTreeMap;
use std::boxed::Box;
use std::format;
use std::path::Path;
use std::string::{String, ToString};
use std::sync::OnceLock;
use std::{fs, println, vec};

use bulkhead_boards::BOARDS;
pub(crate) use bulkhead_fixtures::payload;
use bulkhead_fixtures::{Manifest, OTHER, Rule as Fixture, dtc};
use proptest::prelude::*;

use super::*;
use crate::addr::{PAGE_SIZE, Pa};
use crate::dispatch::Direction;
use crate::guest_dtb;
use crate::guest_dtb::writer::Writer;
use crate::irq::IntId;
use crate::plan::OsType;
use crate::platform::Reservation;
use crate::shared_page::Step;

pub(crate) const VIRT: &[u8] = include_bytes!("../../../../tests/manifests/boards/qemu-virt-gicv3.dtb");
pub(crate) const VIRT_4G: &[u8] = include_bytes!("../../../../tests/manifests/boards/qemu-virt-gicv3-4g.dtb");
pub(crate) const VIRT_V2: &[u8] = include_bytes!("../../../../tests/manifests/boards/qemu-virt-gicv2.dtb");
pub(crate) const RPI4: &[u8] = include_bytes!("../../../../tests/manifests/boards/rpi4-qemu.dtb");
pub(crate) const RPI4_8G: &[u8] = include_bytes!("../../../../tests/manifests/boards/rpi4-8g.dtb");
pub(crate) const SHARING: &[u8] = include_bytes!("../../../../tests/manifests/boards/sharing.dtb");

/// A tree that lives as long as the test needs it.
pub(crate) fn tree(blob: &[u8]) -> &'static Tree<'static> {
    let blob: &'static [u8] = Box::leak(Box::from(blob));
    Box::leak(Box::new(Tree::new(blob).expect("a well-formed tree")))
}

/// The machine, with the hypervisor and the bundle in it.
pub(crate) fn platform(board: &'static Tree<'static>) -> Platform<'static> {
    let mut platform = Platform::from_tree(board, &BOARDS).expect("a complete board");
    let mut reserve = |start, size, holder| {
        let region = Region::new(Pa::new(start), size).expect("a region");
        platform.reserved.push(Reservation { region, holder });
    };
    reserve(0x4000_0000, 2 << 20, "the hypervisor");
    reserve(0x4800_0000, 14 << 20, "the bundle");
    platform
}

/// One property of a manifest that is made here.
pub(crate) enum Value<'v> {
    Text(&'v str),
    Cells(&'v [u32]),
    Numbers(&'v [u64]),
}

/// Makes a manifest without `dtc`.
pub(crate) fn manifest(partitions: &[(&str, &[(&str, Value<'_>)])]) -> Vec<u8> {
    let mut blob = vec![0; 32 << 10];
    let mut writer = Writer::new(&mut blob);
    let w = &mut writer;
    w.begin(format_args!(""));
    w.string("compatible", COMPATIBLE);
    w.begin(format_args!("partitions"));
    for (name, properties) in partitions {
        w.begin(format_args!("{name}"));
        for (name, value) in *properties {
            match value {
                Value::Text(text) => w.string(name, text),
                Value::Cells(cells) => w.cells(name, cells),
                Value::Numbers(numbers) => {
                    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_be_bytes()).collect();
                    w.bytes(name, &bytes);
                }
            }
        }
        w.end();
    }
    w.end();
    w.end();
    let size = writer.finish().expect("a small tree");
    blob.truncate(size);
    blob
}

/// Linux on three CPUs beside an RTOS on the fourth.
pub(crate) fn demo() -> Vec<u8> {
    use Value::{Cells, Numbers, Text};
    manifest(&[
        (
            "linux",
            &[
                ("os,type", Text("linux")),
                ("cpus", Cells(&[0, 1, 2])),
                ("memory", Numbers(&[0x4000_0000, 0x1000_0000])),
                ("kernel", Text("Image")),
                ("ramdisk", Text("initramfs.cpio.gz")),
                ("bootargs", Text("console=ttyAMA0")),
                ("console", Text("pl011")),
                ("access", Text("/pl031@9010000")),
            ],
        ),
        (
            "rtos",
            &[
                ("os,type", Text("freertos")),
                ("cpus", Cells(&[3])),
                ("memory", Numbers(&[0x4000_0000, 0x100_0000])),
                ("kernel", Text("bare.bin")),
                ("console", Text("pl011")),
                ("access", Text("/pl061@9030000")),
            ],
        ),
    ])
}

pub(crate) fn demo_plan(board: &'static Tree<'static>) -> Plan<'static> {
    check(tree(&demo()), &mut platform(board), board, &payload).expect("a valid manifest")
}

/// Compiles a tree's source.
fn compile(source: &Path) -> Vec<u8> {
    dtc(&["-I", "dts", "-O", "dtb"], source)
}

/// The Raspberry Pi's tree after `dtoverlay=uart2` and so on: these nodes are disabled without.
pub(crate) fn rpi4() -> Vec<u8> {
    let blob = bulkhead_fixtures::folder().join("boards/rpi4-qemu.dtb");
    let mut source = dtc(&["-I", "dtb", "-O", "dts"], &blob);
    for device in ["serial@7e201400", "serial@7e201600", "spi@7e204600", "spi@7e204800"] {
        source.extend(format!("&{{/soc/{device}}} {{ status = \"okay\"; }};\n").bytes());
    }
    let path = std::env::temp_dir().join(format!(
        "bulkhead-rpi4-{}-{:?}.dts",
        std::process::id(),
        std::thread::current().id()
    ));
    fs::write(&path, source).expect("a place for temporary files");
    let tree = compile(&path);
    fs::remove_file(&path).expect("the file just written");
    tree
}

/// What the policy says of a manifest for its board.
fn verdict(manifest: &Manifest) -> Result<Plan<'static>, Vec<Finding<'static>>> {
    let board = match manifest.board() {
        "rpi4" => tree(&rpi4()),
        name => tree(&bulkhead_fixtures::board(name)),
    };
    check(tree(&manifest.compile()), &mut platform(board), board, &payload)
}

/// Whether a line gives this property, or, where there is none, a node.
fn names(line: &str, property: &str) -> bool {
    match property {
        "" => line.contains('{'),
        _ => line.trim_start().strip_prefix(property).is_some_and(|rest| rest.starts_with([' ', ';'])),
    }
}

/// What is wrong with a finding in the light of its manifest's marks.
fn misplaced(finding: &Finding<'_>, manifest: &Manifest) -> Option<String> {
    let code = format!("BH{}", finding.rule.code());
    let text = finding.message().to_string();
    // What is missing leaves the blank in front of it.
    if text.contains(['{', '}']) || text.contains(" ,") || text.ends_with(' ') {
        return Some(format!("the text is not filled in: {text}"));
    }
    for (mark, place) in [(code.as_str(), Some(finding.at)), (OTHER, finding.other)] {
        // The one that was first can be told from the second by its place in the file alone.
        let Some(line) = manifest.marked(mark) else {
            if place.is_some() {
                return Some(format!("no line is marked {mark}"));
            }
            continue;
        };
        let Some(place) = place else {
            let is_told = finding.rule == Rule::PropertyTwice;
            return (!is_told).then(|| format!("it knows of no other party, but line {} does", line.number));
        };
        let is_named = finding.rule == Rule::Missing || names(line.text, place.property);
        if line.node != place.node.path() || !is_named {
            return Some(format!("{mark} is at {:?}, not in line {} of {}", place, line.number, line.node));
        }
    }
    None
}

#[test]
#[cfg_attr(miri, ignore = "runs dtc")]
fn each_rule_is_broken_by_its_manifest_alone() {
    let fixtures = bulkhead_fixtures::rules();
    // BH000x and BH09xx are found on the desk only.
    let is_shared = |code: &str| !code.starts_with("BH000") && !code.starts_with("BH09");
    let codes: Vec<_> =
        fixtures.iter().map(|rule| rule.code.clone()).filter(|code| is_shared(code)).collect();
    let expected: Vec<_> = Rule::ALL.iter().map(|rule| format!("BH{}", rule.code())).collect();
    assert_eq!(codes, expected, "a folder in tests/manifests/rules for each rule");
    let mut faults = Vec::new();
    for Fixture { code, invalid, valid } in fixtures.iter().filter(|rule| is_shared(&rule.code)) {
        let findings = verdict(invalid).err().unwrap_or_default();
        findings.iter().for_each(|finding| println!("{finding}"));
        let found: Vec<_> = findings.iter().map(|finding| format!("BH{}", finding.rule.code())).collect();
        if found != [code.as_str()] {
            faults.push(format!("{code}: the invalid one breaks {found:?}"));
        }
        faults.extend(
            findings.iter().filter_map(|finding| Some(format!("{code}: {}", misplaced(finding, invalid)?))),
        );
        for finding in verdict(valid).err().unwrap_or_default() {
            faults.push(format!("{code}: the valid one is refused: {finding}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
#[cfg_attr(miri, ignore = "runs dtc")]
fn what_belongs_together_is_found_together() {
    let entries = fs::read_dir(bulkhead_fixtures::folder()).expect("the fixtures");
    let paths = entries.map(|entry| entry.expect("an entry").path());
    let mut fixtures: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|extension| extension == "dts")).collect();
    fixtures.sort();
    assert!(fixtures.len() > 30, "the fixtures are not all there");
    let mut faults = Vec::new();
    for manifest in fixtures.into_iter().map(Manifest::read) {
        let name = manifest.path.file_name().expect("a name").to_string_lossy();
        let findings = verdict(&manifest).err().unwrap_or_default();
        let found: Vec<_> = findings
            .iter()
            .map(|finding| format!("BH{} {}", finding.rule.code(), finding.at.node.path()))
            .collect();
        findings.iter().for_each(|finding| println!("{name}: {finding}"));
        let expected: Vec<_> = manifest.remarks("expect").filter(|&line| line != "valid").collect();
        if found != expected {
            faults.push(format!("{name}: found {found:?}, not {expected:?}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
#[cfg_attr(miri, ignore = "runs dtc")]
fn the_boards_made_here_are_what_their_sources_say() {
    for name in ["odd", "poor", "rpi4-8g", "sharing"] {
        let source = bulkhead_fixtures::folder().join(format!("boards/{name}.dts"));
        assert!(compile(&source) == bulkhead_fixtures::board(name), "run dtc on boards/{name}.dts");
    }
}

#[test]
fn the_demo_is_laid_out() {
    let plan = demo_plan(tree(VIRT));
    let [linux, rtos] = plan.partitions.as_slice() else { panic!("{plan:?}") };
    assert_eq!((linux.name, linux.os, linux.cpus.as_slice()), ("linux", OsType::Linux, [0, 1, 2].as_slice()));
    // The first 256 MiB that have the same place in a 2 MiB block and neither hypervisor nor bundle.
    let memory = MemoryWindow { ipa: Ipa::new(0x4000_0000), pa: Pa::new(0x48e0_0000), size: 0x1000_0000 };
    assert_eq!(linux.memory, [memory]);
    assert_eq!(linux.entry, Ipa::new(0x4000_0000));
    assert_eq!(linux.dtb, Region::new(Ipa::new(0x4fff_0000), DTB_SPACE).expect("a region"));
    assert_eq!(linux.ramdisk, Region::new(Ipa::new(0x4fef_0000), 1 << 20));
    assert_eq!(linux.segments.len(), 2);
    assert_eq!(linux.segments[0].memory_size, 32 << 20);
    assert_eq!(linux.segments[1].ipa, Ipa::new(0x4fef_0000));
    assert_eq!(linux.bootargs, Some("console=ttyAMA0"));
    assert_eq!(linux.devices.len(), 1);
    assert_eq!((linux.devices[0].path, linux.devices[0].pa), ("/pl031@9010000", Pa::new(0x901_0000)));
    assert_eq!(linux.interrupts[0].intid, IntId::spi(2).expect("an SPI"));
    let console = linux.console.expect("a console");
    assert_eq!(
        (console.registers.start(), console.intid),
        (Ipa::new(0x900_0000), IntId::spi(1).expect("an SPI"))
    );

    assert_eq!((rtos.name, rtos.os, rtos.cpus.as_slice()), ("rtos", OsType::FreeRtos, [3].as_slice()));
    let memory = MemoryWindow { ipa: Ipa::new(0x4000_0000), pa: Pa::new(0x4020_0000), size: 0x100_0000 };
    assert_eq!(rtos.memory, [memory]);
    assert_eq!(rtos.segments[0].file_size, 8192);
    assert_eq!(rtos.interrupts[0].intid, IntId::spi(7).expect("an SPI"));
}

#[test]
fn unprotected_dma_is_told() {
    use Value::{Cells, Numbers, Text};
    let board = tree(RPI4_8G);
    let devices = "mmc0\0ethernet0\0/soc/usb@7e980000";
    let blob = manifest(&[(
        "a",
        &[
            ("os,type", Text("bare")),
            ("cpus", Cells(&[0])),
            ("memory", Numbers(&[0x1000_0000, 0x1000_0000, 0x3000_0000, 0x10_0000])),
            ("kernel", Text("bare.bin")),
            ("access", Text(devices)),
            ("unprotected-dma", Text(devices)),
        ],
    )]);
    let plan = check(tree(&blob), &mut platform(board), board, &payload).expect("a valid manifest");
    sound(&plan, &platform(board));
    let risks: Vec<_> = plan.partitions[0].unprotected.iter().map(ToString::to_string).collect();
    let tail = ", that of the hypervisor and of other partitions too: no SMMU confines it";
    let said = |device: &str, memory: &str| format!("{device} can read and write all memory{memory}{tail}");
    let expected = [
        said("/emmc2bus/mmc@7e340000", " below 0x40000000"),
        // The bus above it, which leads to 16 GiB, can be programmed.
        said("/scb/ethernet@7d580000", ""),
        said("/soc/usb@7e980000", " below 0x40000000"),
    ];
    assert_eq!(risks, expected);
}

/// The nodes of a board with registers of their own, which the CPUs reach.
fn with_registers<'t>(board: &'t Tree<'t>) -> impl Iterator<Item = Node<'t>> {
    let is_memory = |node: Node<'_>| node.is_memory() || node.path().starts_with("/reserved-memory/");
    board.nodes().filter(move |&node| !is_memory(node) && node.reg().flatten().next().is_some())
}

#[test]
#[cfg_attr(miri, ignore = "a minute of plain data")]
fn no_device_of_the_raspberry_pi_is_forgotten() {
    let rpi4 = &bulkhead_rpi4::BOARD;
    for board in [tree(RPI4), tree(RPI4_8G)] {
        for node in with_registers(board) {
            // The interrupt controller is the hypervisor's.
            let known = rpi4.class(node.compatible()).is_some() || node.is_compatible("arm,gic-400");
            assert_eq!(known, !node.is_compatible("test,unknown"), "{node:?} is not in the board's data");
        }
    }
    // All that a partition may have without more ado is marked by no tree.
    for node in with_registers(tree(RPI4)) {
        let plain = rpi4.class(node.compatible()) == Some(bulkhead_board::devices::Class::Plain);
        assert!(!plain || node.property("#dma-cells").is_none() && node.property("iommus").is_none());
    }
}

#[test]
#[cfg_attr(miri, ignore = "a minute of plain data")]
fn what_the_raspberry_pi_shares_is_in_its_tree() {
    use bulkhead_rpi4::sharing::{Group, INTERRUPTS, PAGES};
    let board = tree(RPI4);
    let mut found: [BTreeMap<u64, Vec<&str>>; 2] = Default::default();
    for node in with_registers(board).filter(|node| !node.is_compatible("arm,gic-400")) {
        let mut note = |kind: usize, at| {
            let members = found[kind].entry(at).or_default();
            if !members.contains(&node.name()) {
                members.push(node.name());
            }
        };
        for block in node.reg().flatten() {
            let pages = block.start().raw() / PAGE_SIZE..=block.last().raw() / PAGE_SIZE;
            pages.for_each(|page| note(0, page * PAGE_SIZE));
        }
        for (controller, cells) in node.interrupts().flatten() {
            if let Some(crate::tree::GicInterrupt::Spi(number, _)) = cells.gic()
                && controller.is_compatible("arm,gic-400")
            {
                note(1, number.into());
            }
        }
    }
    for (found, facts) in found.iter_mut().zip([&PAGES[..], &INTERRUPTS[..]]) {
        found.retain(|_, members| members.len() > 1);
        found.values_mut().for_each(|members| members.sort_unstable());
        let facts: BTreeMap<_, _> =
            facts.iter().map(|Group { at, members }| (*at, members.to_vec())).collect();
        assert_eq!(*found, facts);
    }
}

#[test]
fn large_memory_gets_large_blocks() {
    use Value::{Cells, Numbers, Text};
    let board = tree(VIRT_4G);
    let blob = manifest(&[(
        "a",
        &[
            ("os,type", Text("bare")),
            ("cpus", Cells(&[0])),
            ("memory", Numbers(&[0x4000_0000, 0x4000_0000, 0x1_0000_0000, 0x1000])),
            ("kernel", Text("bare.bin")),
        ],
    )]);
    let plan = check(tree(&blob), &mut platform(board), board, &payload).expect("a valid manifest");
    // 1 GiB on a 1 GiB boundary; the single page takes the first free one.
    assert_eq!(plan.partitions[0].memory[0].pa, Pa::new(0x8000_0000));
    assert_eq!(plan.partitions[0].memory[1].pa, Pa::new(0x4020_0000));
}

#[test]
fn findings_do_not_pile_up() {
    let names: Vec<_> = (0..500).map(|n| format!("p{n}")).collect();
    let partitions: Vec<(&str, &[(&str, Value<'_>)])> =
        names.iter().map(|name| (name.as_str(), [].as_slice())).collect();
    let board = tree(VIRT);
    let findings =
        check(tree(&manifest(&partitions)), &mut platform(board), board, &payload).expect_err("faults");
    assert_eq!(findings.len(), MAX_FINDINGS);
}

#[test]
fn rules_are_in_order_and_their_texts_complete() {
    let board = tree(VIRT);
    for pair in Rule::ALL.windows(2) {
        assert!(pair[0].code() < pair[1].code(), "{:?}", pair);
    }
    for (index, &rule) in Rule::ALL.iter().enumerate() {
        assert_eq!(rule as usize, index);
        assert!(rule.code().len() == 4 && rule.code().bytes().all(|byte| byte.is_ascii_digit()));
        let values = ["one", "two", "three"].map(rules::Value::Text);
        let place = Place { node: board.root(), property: "property", entry: None };
        let finding = Finding { rule, at: place, other: Some(place), values };
        let text = finding.message().to_string();
        assert!(!text.is_empty() && !text.contains(['{', '}']), "{rule:?}: {text}");
    }
}

/// A small generator, so that a failing run can be repeated (xorshift64).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }

    /// Changes a few bytes or words, or cuts the end off.
    pub(crate) fn mutate(&mut self, blob: &mut Vec<u8>) {
        for _ in 0..=self.below(2) {
            let at = self.below(blob.len());
            match self.below(8) {
                0 => blob[at] ^= 1 << self.below(8),
                1 => blob[at] = self.below(256) as u8,
                2 => blob[at] = 0,
                3 => blob[at] = 0xff,
                4 => {
                    let word = [0, 1, 2, 3, 4, 9, 0xffff_ffff, 0x8000_0000_u32][self.below(8)];
                    let at = at & !3;
                    if let Some(place) = blob.get_mut(at..at + 4) {
                        place.copy_from_slice(&word.to_be_bytes());
                    }
                }
                5 => {
                    let from = self.below(blob.len());
                    let length = self.below(64).min(blob.len() - at.max(from));
                    blob.copy_within(from..from + length, at);
                }
                6 if self.below(16) == 0 => blob.truncate(at.max(1)),
                _ => blob[at] = blob[at].wrapping_add(1),
            }
        }
    }
}

/// Whatever the two trees hold: an error or a sound plan, never a panic.
fn survive(board: &[u8], manifest: &[u8]) -> (bool, bool) {
    let (Ok(board), Ok(manifest)) = (Tree::new(board), Tree::new(manifest)) else { return (false, false) };
    let Ok(mut platform) = Platform::from_tree(&board, &BOARDS) else { return (true, false) };
    let payloads = |name: &str| payload(name);
    let Ok(plan) = check(&manifest, &mut platform, &board, &payloads) else { return (true, false) };
    sound(&plan, &platform);
    let mut out = vec![0; DTB_SPACE as usize];
    for partition in &plan.partitions {
        if let Ok(size) = guest_dtb::generate(&mut out, &board, &platform, partition, "0") {
            Tree::new(&out[..size]).expect("the guest's tree is well-formed");
        }
    }
    (true, true)
}

/// What every plan keeps, by a second way of counting.
pub(crate) fn sound(plan: &Plan<'_>, platform: &Platform<'_>) {
    let mut owned: Vec<(Region<Pa>, usize)> = Vec::new();
    let mut cpus: Vec<usize> = Vec::new();
    let mut interrupts = Vec::new();
    for (number, partition) in plan.partitions.iter().enumerate() {
        cpus.extend(&partition.cpus);
        interrupts.extend(partition.interrupts.iter().map(|owned| owned.intid));
        for window in &partition.memory {
            assert!(partition.unprotected.is_empty() || window.ipa.raw() == window.pa.raw());
            let region = Region::new(window.pa, window.size).expect("not empty");
            assert!(region.is_aligned(PAGE_SIZE) && window.ipa.raw() % PAGE_SIZE == 0);
            assert!(platform.ram.iter().any(|ram| ram.encloses(region)), "{region} is not RAM");
            assert!(!platform.reserved.iter().any(|taken| taken.region.overlaps(region)));
            owned.push((region, number));
        }
        for window in &partition.devices {
            let region = Region::new(window.pa, window.size).expect("not empty");
            assert!(region.is_aligned(PAGE_SIZE));
            assert!(!platform.ram.iter().any(|ram| ram.overlaps(region)));
            owned.push((region, number));
        }
        let memory: Vec<_> = partition.memory.iter().filter_map(|w| Region::new(w.ipa, w.size)).collect();
        let loaded: Vec<_> =
            partition.segments.iter().filter_map(|s| Region::new(s.ipa, s.memory_size)).collect();
        for (index, region) in loaded.iter().chain([&partition.dtb]).enumerate() {
            assert!(memory.iter().any(|window| window.encloses(*region)), "{region} lies outside of memory");
            assert!(
                loaded.iter().enumerate().all(|(other, place)| other == index || !place.overlaps(*region))
            );
        }
        assert!(loaded.iter().any(|region| region.contains(partition.entry)));
    }
    for (index, (region, owner)) in owned.iter().enumerate() {
        for (other, other_owner) in &owned[..index] {
            assert!(owner == other_owner || !region.overlaps(*other), "{region} has two owners");
        }
    }
    let count = cpus.len();
    cpus.sort_unstable();
    cpus.dedup();
    assert_eq!(cpus.len(), count, "a CPU has two owners");
    let count = interrupts.len();
    interrupts.sort_unstable();
    interrupts.dedup();
    assert_eq!(interrupts.len(), count, "an interrupt has two owners");
}

#[test]
fn mutated_trees_do_no_harm() {
    // Miri takes some seconds for each.
    let rounds = if cfg!(miri) { 2 } else { 10_000 };
    let demo = demo();
    let mut random = Random(0x5eed_0001);
    let mut counts = [0; 3];
    for round in 0..rounds {
        for (index, (board, mutate_board)) in
            [(VIRT, true), (VIRT, false), (SHARING, true), (VIRT_V2, true), (RPI4_8G, true)]
                .into_iter()
                .enumerate()
        {
            if index > 1 && round % 4 != 0 {
                continue;
            }
            let (mut board, mut manifest) = (board.to_vec(), demo.clone());
            random.mutate(if mutate_board { &mut board } else { &mut manifest });
            let (gate, valid) = survive(&board, &manifest);
            counts[0] += 1;
            counts[1] += usize::from(gate);
            counts[2] += usize::from(valid);
        }
    }
    println!("{} trees, {} through the gate, {} made a plan", counts[0], counts[1], counts[2]);
    assert!(cfg!(miri) || (counts[1] > counts[0] / 3 && counts[2] > counts[0] / 8), "{counts:?}");
}

/// The bits of the register at `address` that a partition changes.
fn reached_bits(partition: &PartitionPlan<'_>, address: u64) -> u32 {
    let page =
        partition.shared_pages.iter().find_map(|page| Some((page, page.offset_of(Ipa::new(address))?)));
    page.map_or(0, |(page, offset)| match page.decide(offset, Direction::Store(u64::MAX)) {
        Step::Nothing | Step::Read(_) => 0,
        Step::Write(bits) => bits,
        Step::Change { mask, .. } => mask,
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Whatever two partitions ask for: where both get it, no bit of any register is both's, and no such page is mapped for anyone.
    #[test]
    #[cfg_attr(miri, ignore = "runs dtc")]
    fn no_bit_of_a_register_has_two_owners(
        pins in prop::array::uniform2(prop::collection::btree_set(0..58_u32, 1..5)),
        devices in prop::array::uniform2(0..6_usize),
        whole in prop::array::uniform2(prop::bool::weighted(0.1)),
    ) {
        const DEVICES: [&str; 6] = [
            "/soc/serial@7e201000", "/soc/serial@7e201400", "/soc/serial@7e201600",
            "/soc/spi@7e204600", "/soc/spi@7e204800", "/soc/spi@7e215080",
        ];
        static BOARD: OnceLock<&Tree<'_>> = OnceLock::new();
        let board = BOARD.get_or_init(|| tree(&rpi4()));
        let pins: [Vec<u32>; 2] = pins.map(|set| set.into_iter().collect());
        let polled = format!("{}\0/soc/gpio@7e200000", DEVICES[devices[1]]);
        let partition = |index: usize| {
            let access = if whole[index] { "access" } else { "access-registers" };
            [
                ("os,type", Value::Text("bare")),
                ("cpus", Value::Cells([&[0], &[1]][index])),
                ("memory", Value::Numbers(&[0x4000_0000, 0x10_0000])),
                ("kernel", Value::Text("bare.bin")),
                ("gpio-pins", Value::Cells(&pins[index])),
                (access, Value::Text(DEVICES[devices[index]])),
                if index == 0 { ("bootargs", Value::Text("")) } else { ("polled", Value::Text(&polled)) },
            ]
        };
        let blob = manifest(&[("left", &partition(0)), ("right", &partition(1))]);
        let mut platform = platform(board);
        let Ok(plan) = check(tree(&blob), &mut platform, board, &payload) else { return Ok(()) };
        let [left, right] = plan.partitions.as_slice() else { panic!("{plan:?}") };
        let polled = board.find(DEVICES[devices[1]]).expect("a device");
        let registers = polled.reg().next().flatten().expect("registers").start().raw();
        for enable in BOARDS.iter().flat_map(|board| board.interrupt_enables) {
            if polled.is_compatible(enable.compatible) {
                prop_assert_eq!(reached_bits(right, registers + u64::from(enable.offset)) & enable.bits, 0);
            }
        }
        for page in left.shared_pages.iter().chain(&right.shared_pages).map(|page| page.page.raw()) {
            for address in (page..page + PAGE_SIZE).step_by(4) {
                prop_assert_eq!(reached_bits(left, address) & reached_bits(right, address), 0, "{:#x}", address);
            }
            for (_, pa, size, _) in [left, right].into_iter().flat_map(|side| side.mappings(&platform.gic)) {
                prop_assert!(page < pa.raw() || pa.raw() + size <= page);
            }
        }
    }
}

#[test]
#[cfg_attr(miri, ignore = "the same code as in other tests, four times")]
fn a_damaged_kernel_stops_its_partition_alone() {
    let board = tree(VIRT);
    let manifest = tree(&demo());
    let broken = |name: &str| if name == "Image" { Some(&b"no Image"[..]) } else { payload(name) };
    let findings = check(manifest, &mut platform(board), board, &broken).expect_err("no Image");
    assert_eq!(findings.iter().map(|finding| finding.rule).collect::<Vec<_>>(), [Rule::NotLinux]);
    let is_damaged = |name: &str| name == "Image";
    let plan = check_with(manifest, &mut platform(board), board, &broken, &is_damaged).expect("a plan");
    assert_eq!(
        plan.partitions[0].segments.iter().map(|segment| segment.payload).collect::<Vec<_>>(),
        ["Image"]
    );
    assert_eq!(plan.partitions[1], demo_plan(board).partitions[1]);
    // What is wrong with the manifest itself is a finding as ever.
    let fault = super::tests::manifest(&[(
        "a",
        &[("os,type", Value::Text("linux")), ("kernel", Value::Text("Image"))],
    )]);
    assert!(check_with(tree(&fault), &mut platform(board), board, &broken, &is_damaged).is_err());
}
