//! Reports on systems that are made here, so that nothing depends on a download.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use bulkhead_boards::BOARDS;
use bulkhead_policy::addr::{BLOCK_1G, BLOCK_2M, Pa, Region};
use bulkhead_policy::manifest;
use bulkhead_policy::platform::{Platform, Reservation};
use bulkhead_policy::tree::Tree;

use super::*;
use crate::findings::Findings;
use crate::source::compiled;
use crate::system::{Checked, KEPT};

const VIRT: &[u8] = include_bytes!("../../../../tests/manifests/boards/qemu-virt-gicv3.dtb");
const VIRT_4G: &[u8] = include_bytes!("../../../../tests/manifests/boards/qemu-virt-gicv3-4g.dtb");
const VIRT_V2: &[u8] = include_bytes!("../../../../tests/manifests/boards/qemu-virt-gicv2.dtb");
const RPI4: &[u8] = include_bytes!("../../../../tests/manifests/boards/rpi4-qemu.dtb");
const RPI4_8G: &[u8] = include_bytes!("../../../../tests/manifests/boards/rpi4-8g.dtb");
const DEMO: &str = include_str!("../../../../partitions/systems/demo.dts");

/// An arm64 Image that claims so many bytes.
fn image(text_offset: u64, image_size: u64) -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[8..16].copy_from_slice(&text_offset.to_le_bytes());
    image[16..24].copy_from_slice(&image_size.to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

fn payloads() -> BTreeMap<&'static str, Vec<u8>> {
    [
        ("Image", image(0, 32 << 20)),
        ("freertos.bin", image(0x8_0000, 312 << 10)),
        ("bare.bin", vec![0xd5; 8192]),
        ("initramfs.cpio", vec![0; 1_800_000]),
        ("initramfs.cpio.gz", vec![0x1f; 1 << 20]),
    ]
    .into()
}

/// Checks a manifest against a board where the boot loader puts things as QEMU does.
fn with_checked<T>(board: &[u8], source: &str, then: impl FnOnce(Checked<'_>) -> T) -> T {
    let (board, tree) = (Tree::new(board).expect("a board"), compiled(source));
    let tree = Tree::new(&tree).expect("a manifest");
    let mut platform = Platform::from_tree(&board, &BOARDS).expect("a complete board");
    let ram = platform.ram[0].start().raw();
    for (holder, start, size) in
        [(KEPT[0], 2 << 20, 2 << 20), (KEPT[1], 128 << 20, 34_800_000), (KEPT[2], 162 << 20, 1 << 20)]
    {
        let region = Region::new(Pa::new(ram + start), size).expect("a region");
        platform.reserved.push(Reservation { region, holder });
    }
    let files = payloads();
    let payload = |name: &str| files.get(name).map(Vec::as_slice);
    match manifest::check(&tree, &mut platform, &board, &payload) {
        Ok(plan) => {
            let warnings = &Findings::default();
            then(Checked { plan: &plan, platform: &platform, board: &board, warnings })
        }
        Err(findings) => {
            panic!("{}", findings.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))
        }
    }
}

fn report(board: &[u8], source: &str) -> Report {
    with_checked(board, source, |checked| Report::new(checked, "test.dts"))
}

fn manifest_of(partitions: &str) -> String {
    format!("/dts-v1/;\n/ {{ compatible = \"bulkhead,manifest-v1\"; partitions {{ {partitions} }}; }};")
}

/// A partition that starts a raw image.
fn bare(name: &str, cpu: u32, more: &str) -> String {
    format!("{name} {{ os,type = \"bare\"; cpus = <{cpu}>; kernel = \"bare.bin\"; {more} }};")
}

/// A board with so many CPUs.
fn with_cpus(board: &[u8], cpus: u32) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("board.dtb");
    std::fs::write(&path, board).expect("written");
    let output = std::process::Command::new("dtc").args(["-q", "-I", "dtb", "-O", "dts"]).arg(&path).output();
    let mut source = String::from_utf8(output.expect("dtc runs").stdout).expect("text");
    source.push_str("/ { cpus {\n");
    for cpu in 4..cpus {
        let reg = ((cpu / 16) << 8) | (cpu % 16);
        let _ = writeln!(
            source,
            "cpu@{reg:x} {{ device_type = \"cpu\"; compatible = \"arm,cortex-a53\"; reg = <{reg}>; \
             enable-method = \"psci\"; }};"
        );
    }
    source.push_str("}; };\n");
    compiled(&source)
}

/// The Raspberry Pi 4 with some more of its UARTs and SPI switched on.
fn rpi4_with_more() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("board.dtb");
    std::fs::write(&path, RPI4).expect("written");
    let output = std::process::Command::new("dtc").args(["-q", "-I", "dtb", "-O", "dts"]).arg(&path).output();
    let mut source = String::from_utf8(output.expect("dtc runs").stdout).expect("text");
    for device in ["serial@7e201400", "serial@7e201600", "spi@7e204600", "spi@7e204800"] {
        let _ = writeln!(source, "&{{/soc/{device}}} {{ status = \"okay\"; }};");
    }
    compiled(&source)
}

fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/manifests").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Large and small memory, and some that cannot be mapped in blocks.
fn ranges() -> String {
    manifest_of(
        &(bare(
            "all-sizes",
            0,
            "memory = /bits/ 64 <0x40000000 0x400000  0x50000000 0x1000  0x100000000 0x40000000>; console = \"pl011\";",
        ) + &bare(
            "crooked",
            1,
            "memory = /bits/ 64 <0x40000000 0x400000>; physical-memory = /bits/ 64 <0x60001000>; \
         access = \"/pl031@9010000\", \"/pl061@9030000\";",
        )),
    )
}

fn many(partitions: u32) -> String {
    let one = |index: u32| {
        let size = 0x1000_u64 << (index % 12 + 4);
        let more = format!("memory = /bits/ 64 <0x40000000 {:#x}>; console = \"pl011\";", size.max(0x20000));
        bare(&format!("partition-with-a-long-name-{index}"), index, &more)
    };
    manifest_of(&(0..partitions).map(one).collect::<String>())
}

/// Every kind of system that a picture or a table has to cope with.
fn systems() -> Vec<(&'static str, Report)> {
    vec![
        ("demo", report(VIRT, DEMO)),
        ("demo-gicv2", report(VIRT_V2, DEMO)),
        ("one", report(VIRT, &many(1))),
        ("three", report(VIRT, &many(3))),
        ("sixteen", report(&with_cpus(VIRT_4G, 16), &many(16))),
        ("thirty-two", report(&with_cpus(VIRT_4G, 32), &many(32))),
        ("ranges", report(VIRT_4G, &ranges())),
        ("virtio", report(VIRT, &fixture("valid-dma-virtio.dts"))),
        ("dma", report(RPI4_8G, &fixture("valid-dma.dts"))),
        ("parts", report(&rpi4_with_more(), &fixture("parts-valid.dts"))),
        ("channels", report(RPI4, &fixture("parts-valid-channels.dts"))),
        ("i2c", report(RPI4, &fixture("valid-rpi4-page-of-disabled.dts"))),
    ]
}

/// A text of a picture: its box, left, top, right and bottom.
struct Label {
    text: String,
    sides: [f64; 4],
}

/// All texts of a picture, as wide as they are in the widest of the usual monospaced fonts.
fn labels(svg: &str) -> (Vec<Label>, f64, f64) {
    let document = roxmltree::Document::parse(svg).expect("well-formed XML");
    let number = |node: roxmltree::Node<'_, '_>, name: &str| -> Option<f64> {
        Some(node.attribute(name)?.parse().expect("a number"))
    };
    let root = document.root_element();
    let usual = number(root, "font-size").expect("a font size");
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    let labels = texts.map(|node| {
        let text = node.text().unwrap_or_default().to_owned();
        let size = number(node, "font-size").unwrap_or(usual);
        let (x, y) = (number(node, "x").expect("x"), number(node, "y").expect("y"));
        let width = text.chars().count() as f64 * size * 0.62;
        let left = match node.attribute("text-anchor") {
            None => x,
            Some("middle") => x - width / 2.0,
            Some("end") => x - width,
            Some(other) => panic!("text-anchor {other}"),
        };
        Label { text, sides: [left, y - 0.8 * size, left + width, y + 0.25 * size] }
    });
    let labels = labels.collect();
    (labels, number(root, "width").expect("a width"), number(root, "height").expect("a height"))
}

#[test]
fn no_text_of_a_picture_touches_another_or_leaves_it() {
    for (name, report) in systems() {
        let svg = svg(&report);
        if let Some(folder) = std::env::var_os("BULKHEAD_PICTURES") {
            let path = Path::new(&folder).join(name);
            std::fs::write(path.with_extension("svg"), &svg).expect("written");
            std::fs::write(path.with_extension("txt"), text(&report)).expect("written");
        }
        let (labels, width, height) = labels(&svg);
        assert!(labels.len() > 20, "{name} has {} texts", labels.len());
        for (index, label) in labels.iter().enumerate() {
            let [left, top, right, bottom] = label.sides;
            let inside = left >= 0.0 && top >= 0.0 && right <= width && bottom <= height;
            assert!(inside, "{name}: {:?} leaves the picture", label.text);
            for other in &labels[..index] {
                let [other_left, other_top, other_right, other_bottom] = other.sides;
                let apart =
                    right <= other_left || other_right <= left || bottom <= other_top || other_bottom <= top;
                assert!(apart, "{name}: {:?} touches {:?}", label.text, other.text);
            }
        }
    }
}

#[test]
fn a_picture_stands_alone_and_shows_every_address() {
    for (name, report) in systems() {
        let svg = svg(&report);
        for foreign in ["<script", "href", "http://", "https://", "@import", "<image"] {
            let own = svg.replace("http://www.w3.org/2000/svg", "");
            assert!(!own.contains(foreign), "{name} contains {foreign}");
        }
        let (labels, ..) = labels(&svg);
        let shown = |address: u64| labels.iter().any(|label| label.text == format!("{address:#010x}"));
        for span in &report.machine {
            assert!(shown(span.pa), "{name}: PA {:#x}", span.pa);
        }
        for partition in &report.partitions {
            for window in &partition.map {
                assert!(shown(window.ipa), "{name}: {} {:#x}", partition.name, window.ipa);
            }
        }
    }
}

#[test]
fn names_that_mean_something_in_xml_are_harmless() {
    let mut report = report(VIRT, DEMO);
    report.manifest = "a<b>&\"c\u{1}\u{ffff}.dts".to_owned();
    report.partitions[0].name = "<script>".to_owned();
    let svg = svg(&report);
    let document = roxmltree::Document::parse(&svg).expect("well-formed XML");
    assert!(document.descendants().all(|node| !node.has_tag_name("script")));
}

#[test]
fn json_says_all() {
    for (name, report) in systems() {
        let text = json(&report).expect("JSON");
        let back: Report = serde_json::from_str(&text).expect("a report");
        assert!(back == report, "{name}");
        assert!(Diff::new(&back, &report).changes.is_empty(), "{name}");
    }
}

/// All names of fields and kinds in some data.
fn words(value: &serde_json::Value, found: &mut std::collections::BTreeSet<String>) {
    match value {
        serde_json::Value::Object(fields) => {
            for (name, field) in fields {
                found.insert(name.clone());
                if let ("kind" | "portion" | "holder", Some(word)) = (name.as_str(), field.as_str()) {
                    found.insert(word.to_owned());
                }
                words(field, found);
            }
        }
        serde_json::Value::Array(values) => values.iter().for_each(|value| words(value, found)),
        _ => {}
    }
}

#[test]
fn the_book_names_every_field() {
    let book = include_str!("../../../docs/report.md");
    let mut found = std::collections::BTreeSet::new();
    let old = report(VIRT, DEMO);
    for (_, report) in systems() {
        words(&serde_json::to_value(&report).expect("data"), &mut found);
        words(&serde_json::to_value(Diff::new(&old, &report)).expect("data"), &mut found);
    }
    assert!(found.len() > 50, "{found:?}");
    let named = |word: &String| {
        ["", "?"].iter().any(|optional| {
            let stops = ["`", "[", "\"", ":"];
            stops.iter().any(|stop| {
                ["`", "\"", "."].iter().any(|start| book.contains(&format!("{start}{word}{optional}{stop}")))
            })
        })
    };
    let missing: Vec<_> = found.iter().filter(|word| !named(word)).collect();
    assert!(missing.is_empty(), "hyp/docs/report.md says nothing of {missing:?}");
}

#[test]
fn ram_is_somebodys_or_free_and_once() {
    for (name, report) in systems() {
        for pair in report.machine.windows(2) {
            assert!(pair[0].pa + pair[0].size <= pair[1].pa, "{name}: {pair:?}");
        }
        let banks = report.resources.iter().filter(|resource| resource.kind == ResourceKind::Ram);
        let mut ram = 0;
        for bank in banks {
            let portions = bank.shares.iter().map(|share| match share.portion {
                Portion::Bytes(bytes) => bytes,
                ref portion => panic!("{portion}"),
            });
            assert_eq!(portions.sum::<u64>(), bank.size.expect("a size"), "{name}: {}", bank.name);
            ram += bank.size.expect("a size");
        }
        let spans = report.machine.iter().filter(|span| span.ram);
        assert_eq!(spans.map(|span| span.size).sum::<u64>(), ram, "{name}");
        for partition in &report.partitions {
            let holder = Holder::Partition(partition.name.clone());
            let spans = report.machine.iter().filter(|span| span.ram && span.holder == holder);
            let windows = partition.map.iter().filter(|window| window.kind == WindowKind::Ram);
            let (pa, ipa) = (spans.map(|span| span.size), windows.map(|window| window.size));
            assert_eq!(pa.sum::<u64>(), ipa.sum::<u64>(), "{name}: {}", partition.name);
        }
    }
}

/// Who has a resource, and what of it, in words.
fn shares(report: &Report, name: &str) -> Vec<(String, String)> {
    let resource = report.resources.iter().find(|resource| resource.name == name);
    let resource = resource.unwrap_or_else(|| panic!("{name} is not there"));
    resource.shares.iter().map(|share| (share.holder.to_string(), share.portion.to_string())).collect()
}

fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(holder, portion)| ((*holder).to_owned(), (*portion).to_owned())).collect()
}

#[test]
fn who_owns_what_in_the_demo() {
    let report = report(VIRT, DEMO);
    for (resource, expected) in [
        ("CPU 0", &[("linux", "vCPU 0")][..]),
        ("CPU 2", &[("linux", "vCPU 2")]),
        ("CPU 3", &[("rtos", "vCPU 0")]),
        (
            "RAM 0x40000000",
            &[("linux", "512 MiB"), ("rtos", "16 MiB"), ("hypervisor", "36.2 MiB"), ("nobody", "459.8 MiB")],
        ),
        ("/pl011@9000000", &[("hypervisor", "all")]),
        ("/pl031@9010000", &[("nobody", "all")]),
        ("/intc@8000000", &[("linux", "emulated"), ("rtos", "emulated"), ("hypervisor", "all")]),
        ("PPI 11", &[("linux", "own"), ("rtos", "own")]),
        ("PPI 9", &[("hypervisor", "own")]),
        ("SPI 1", &[("linux", "emulated"), ("rtos", "emulated"), ("hypervisor", "all")]),
        ("SPI 2", &[("nobody", "all")]),
    ] {
        assert_eq!(shares(&report, resource), pairs(expected), "{resource}");
    }
    let text = text(&report);
    assert!(text.contains("CPU 3                            -         vCPU 0"), "{text}");
    let linux = &report.partitions[0];
    let ram = linux.map.iter().find(|window| window.kind == WindowKind::Ram).expect("RAM");
    assert_eq!(ram.blocks, Some(Blocks { gib_1: 0, mib_2: 256, kib_4: 0 }));
    let contents: Vec<_> = ram.contents.iter().map(|content| (content.label(), content.ipa)).collect();
    let expected = [
        ("kernel Image", 0x4000_0000),
        ("ramdisk initramfs.cpio", 0x5fe3_8000),
        ("device tree", 0x5fff_0000),
    ];
    assert_eq!(contents, expected.map(|(label, ipa)| (label.to_owned(), ipa)));
}

#[test]
fn blocks_are_those_of_stage_2() {
    let report = report(VIRT_4G, &ranges());
    let blocks = |partition: usize| -> Vec<_> {
        let map = report.partitions[partition].map.iter();
        map.filter(|window| window.kind == WindowKind::Ram)
            .map(|window| window.blocks.expect("mapped"))
            .collect()
    };
    assert_eq!(
        blocks(0),
        [
            Blocks { gib_1: 0, mib_2: 2, kib_4: 0 },
            Blocks { gib_1: 0, mib_2: 0, kib_4: 1 },
            Blocks { gib_1: 1, mib_2: 0, kib_4: 0 },
        ]
    );
    assert_eq!(blocks(1), [Blocks { gib_1: 0, mib_2: 0, kib_4: 1024 }]);
    let small: Vec<_> = report.risks.iter().filter(|risk| risk.kind == RiskKind::SmallPages).collect();
    assert_eq!(small.len(), 1);
    assert_eq!(small[0].partition.as_deref(), Some("crooked"));
    assert_eq!((BLOCK_1G, BLOCK_2M), (1 << 30, 2 << 20));
}

#[test]
fn risks_are_those_of_the_plan() {
    let kinds = |report: &Report, kind| report.risks.iter().filter(|risk| risk.kind == kind).count();
    let dma = report(RPI4_8G, &fixture("valid-dma.dts"));
    assert_eq!(kinds(&dma, RiskKind::UnprotectedDma), 3);
    assert_eq!(kinds(&dma, RiskKind::ListRegisters), 1);
    // The SD host's line is that of the wireless chip's, too.
    assert_eq!(kinds(&dma, RiskKind::SharedInterrupt), 1);
    let parts = report(&rpi4_with_more(), &fixture("parts-valid.dts"));
    assert_eq!(kinds(&parts, RiskKind::SharedPage), 3);
    let polled = parts.risks.iter().filter(|risk| risk.kind == RiskKind::PolledInterrupt);
    let mut polled: Vec<_> = polled.map(|risk| risk.message.as_str()).collect();
    polled.sort_unstable();
    assert_eq!(
        polled,
        [
            "/soc/gpio@7e200000 is polled: its interrupts go to left: SPI 113, SPI 114, SPI 115, SPI 116",
            "/soc/serial@7e201400 is polled: its interrupts go to nobody: SPI 121",
            "/soc/serial@7e201600 is polled: its interrupts go to nobody: SPI 121",
            "/soc/spi@7e204800 is polled: its interrupts go to left: SPI 118",
        ]
    );
    assert_eq!(shares(&parts, "/soc/gpio@7e200000"), pairs(&[("left", "4 17 22 57"), ("right", "5 16 23")]));
    assert_eq!(shares(&parts, "SPI 118"), pairs(&[("left", "all"), ("right", "polled")]));
    let demo = report(VIRT, DEMO);
    assert_eq!(kinds(&demo, RiskKind::UnprotectedDma), 0);
    assert_eq!(kinds(&demo, RiskKind::NoSmmu), 1);
}

#[test]
fn a_difference_is_what_differs() {
    let old = report(VIRT, DEMO);
    assert!(Diff::new(&old, &old).changes.is_empty());
    let changed = DEMO
        .replace("cpus = <0 1 2>", "cpus = <0 1>")
        .replace("cpus = <3>", "cpus = <3 2>")
        .replace("0x01000000>", "0x02000000>; access = \"/pl031@9010000\"");
    let new = report(VIRT, &changed);
    let text = Diff::new(&old, &new).to_string();
    for line in [
        "  - CPU 2: vCPU 2 (now rtos's)",
        "  + CPU 2: vCPU 1 (was linux's)",
        "  + device /pl031@9010000: all (was nobody's)",
        "  + SPI 2: all (was nobody's)",
        "  ~ RAM at IPA 0x40000000: 16 MiB at PA 0x40400000, 8 × 2 MiB → 32 MiB at PA 0x40400000, 16 × 2 MiB",
    ] {
        assert!(text.lines().any(|found| found == line), "no {line:?} in\n{text}");
    }
    assert!(!text.contains("CPU 0") && !text.contains("bootargs") && !text.contains("PPI"), "{text}");
    // And back.
    let back = Diff::new(&new, &old).to_string();
    assert!(back.contains("  - SPI 2: all (now nobody's)"), "{back}");
    // A partition that is new brings all it has.
    let more = DEMO.replace(
        "/* A partition that owns real devices",
        "third { os,type = \"bare\"; cpus = <2>; kernel = \"bare.bin\"; memory = /bits/ 64 <0 0x200000>; };
         /* A partition that owns real devices",
    );
    let more = report(VIRT, &more.replace("cpus = <0 1 2>", "cpus = <0 1>"));
    let diff = Diff::new(&old, &more);
    let third = Holder::Partition("third".to_owned());
    let added: Vec<_> = diff.changes.iter().filter(|change| change.holder == Some(third.clone())).collect();
    assert!(added.iter().all(|change| change.before.is_none()), "{added:?}");
    let cpu = added.iter().find(|change| change.subject == "CPU 2").expect("its CPU");
    assert_eq!(cpu.from, [Holder::Partition("linux".to_owned())]);
}

#[test]
fn another_machine_is_another() {
    let source = manifest_of(&bare("a", 0, "memory = /bits/ 64 <0x40000000 0x200000>;"));
    let (old, new) = (report(VIRT, &source), report(VIRT_V2, &source));
    let text = Diff::new(&old, &new).to_string();
    assert!(text.contains("\nmachine\n") && text.contains("~ has /intc@8000000"), "{text}");
}

#[test]
fn interrupts_of_a_bus_are_listed() {
    let report = report(VIRT, &manifest_of(&bare("a", 0, "memory = /bits/ 64 <0x40000000 0x200000>;")));
    let of_bus =
        report.resources.iter().filter(|row| row.raised_by.iter().any(|path| path.starts_with("/pcie@")));
    let names: Vec<_> = of_bus.map(|row| row.name.as_str()).collect();
    assert_eq!(names, ["SPI 3", "SPI 4", "SPI 5", "SPI 6"]);
}

#[test]
fn trees_are_source() {
    with_checked(RPI4_8G, &fixture("valid-dma.dts"), |checked| {
        let trees = trees(checked).expect("trees");
        assert_eq!(trees.len(), 2);
        for (tree, partition) in trees.iter().zip(&checked.plan.partitions) {
            assert_eq!(tree.partition, partition.name);
            let blob = compiled(&tree.source);
            let compiled = Tree::new(&blob).expect("a tree");
            let cpus = compiled.cpus().count();
            assert_eq!(cpus, partition.cpus.len());
        }
        assert!(trees[0].source.contains("mmc@fe340000"), "{}", trees[0].source);
    });
}

#[test]
fn the_picture_in_the_book_is_that_of_the_demo() {
    let mut report = report(VIRT, DEMO);
    report.manifest = "demo.dts".to_owned();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pictures/demo-memory.svg");
    let svg = svg(&report);
    if std::fs::read_to_string(&path).ok().as_ref() != Some(&svg) {
        let new = std::env::temp_dir().join("bulkhead-demo-memory.svg");
        std::fs::write(&new, svg).expect("written");
        panic!(
            "the picture has changed: look at {}, and if it is right copy it to {}",
            new.display(),
            path.display()
        );
    }
}
