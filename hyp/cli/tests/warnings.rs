//! Each warning comes where it should and nowhere else.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead::diagnostic::{Diagnostic, Location, Severity};
use bulkhead::explain::page_of;
use bulkhead::source::dtc;
use bulkhead::warnings::{CODES, warnings};
use bulkhead_boards::BOARDS;
use bulkhead_policy::manifest;
use bulkhead_policy::platform::Platform;
use bulkhead_policy::tree::Tree;

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/manifests")
}

fn compile(source: &str) -> Vec<u8> {
    let (blob, messages) = dtc(source, &manifests()).expect("dtc runs");
    blob.unwrap_or_else(|| panic!("{messages}\n{source}"))
}

/// The warnings of a manifest that is accepted on a board.
fn warn(source: &str, board: &[u8]) -> Vec<Diagnostic> {
    let good = Tree::new(board).expect("a tree");
    warn_of(source, board, &[&good]).remove(0)
}

/// The same for other trees than the one that the manifest was checked against.
fn warn_of(source: &str, board: &[u8], others: &[&Tree<'_>]) -> Vec<Vec<Diagnostic>> {
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&0x10_0000_u64.to_le_bytes());
    image[24] = 0xa;
    image[56..60].copy_from_slice(b"ARM\x64");
    let bare = vec![0xd5; 4096];
    let blob = compile(source);
    let (board, tree) = (Tree::new(board).expect("a tree"), Tree::new(&blob).expect("a tree"));
    let mut platform = Platform::from_tree(&board, &BOARDS).expect("a machine");
    let payload = |name: &str| match name {
        "Image" => Some(&image[..]),
        "packed.bin" => Some(&[0x1f, 0x8b, 8, 0][..]),
        _ => Some(&bare[..]),
    };
    let plan = manifest::check(&tree, &mut platform, &board, &payload);
    let plan = plan.unwrap_or_else(|findings| panic!("{findings:?}\n{source}"));
    others.iter().map(|other| warnings(&tree, other, &platform, &plan, &payload)).collect()
}

fn board(name: &str) -> Vec<u8> {
    let name = if name == "rpi4" { "rpi4-qemu" } else { name };
    fs::read(manifests().join(format!("boards/{name}.dtb"))).expect("the board's tree")
}

/// The line that `mark` stands at is about the place that was named.
fn assert_marked(source: &str, mark: &str, place: &Location) {
    let line = source.lines().find(|line| line.ends_with(&format!("// <- {mark}")));
    let line = line.unwrap_or_else(|| panic!("no line is marked {mark}"));
    let node = place.path.rsplit('/').next().expect("a name");
    assert_eq!(line.split_whitespace().next(), Some(place.property.as_deref().unwrap_or(node)), "{place:?}");
    let block = source.split(line).next().expect("what is above");
    assert!(block.lines().any(|above| above.trim() == format!("{node} {{")) || line.contains(node), "{node}");
}

#[test]
fn each_warning_comes_alone_and_not_to_its_neighbour() {
    for code in CODES {
        assert!(page_of(code).is_some(), "{code} has no page");
        for kind in ["invalid", "valid"] {
            let path = manifests().join("rules").join(code).join(format!("{kind}.dts"));
            let source =
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            let name =
                source.lines().find_map(|line| line.strip_prefix("// board: ")).unwrap_or("qemu-virt-gicv3");
            let found = warn(&source, &board(name));
            for one in &found {
                println!("{one}\n    {:?}\n    {:?} {:?}", one.other, one.notes, one.help);
            }
            let codes: Vec<_> = found.iter().map(|found| found.code.as_str()).collect();
            let expected: &[&str] = if kind == "valid" { &[] } else { &[code] };
            assert_eq!(codes, expected, "{code} {kind}");
            for found in &found {
                assert_eq!(found.severity, Severity::Warning);
                assert_marked(&source, code, &found.at);
                assert_eq!(found.other.is_some(), source.contains("// <- other"), "{code}");
                found.other.iter().for_each(|(other, _)| assert_marked(&source, "other", other));
            }
        }
    }
}

#[test]
fn the_board_with_dependencies_is_what_its_source_says() {
    let source = fs::read_to_string(manifests().join("boards/dependencies.dts")).expect("the source");
    assert!(compile(&source) == board("dependencies"), "run dtc on boards/dependencies.dts");
}

/// A manifest of two bare partitions with these devices.
fn pair(first: &str, second: &str) -> String {
    let partition = |name, cpu, access| {
        format!(
            "{name} {{ os,type = \"bare\"; cpus = <{cpu}>; memory = /bits/ 64 <0x40000000 0x1000000>; \
             kernel = \"bare.bin\"; console = \"pl011\"; access = {access}; }};"
        )
    };
    let (first, second) = (partition("one", 0, first), partition("two", 1, second));
    format!("/dts-v1/; / {{ compatible = \"bulkhead,manifest-v1\"; partitions {{ {first} {second} }}; }};")
}

/// What is said of it on the board with dependencies.
fn two(first: &str, second: &str) -> Vec<String> {
    let found = warn(&pair(first, second), &board("dependencies"));
    found.iter().map(ToString::to_string).collect()
}

#[test]
fn any_tree_gives_a_result() {
    let good = board("dependencies");
    let mut state = 1_u64;
    let mut random = |limit: usize| {
        state = state.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (state >> 33) as usize % limit
    };
    let blobs: Vec<_> = (0..3000)
        .map(|_| {
            let mut blob = good.clone();
            for _ in 0..=random(4) {
                let at = 0x38 + random(blob.len() - 0x38);
                blob[at] = if random(2) == 0 { random(0x20) as u8 } else { random(0x100) as u8 };
            }
            blob
        })
        .collect();
    let trees: Vec<_> = blobs.iter().filter_map(|blob| Tree::new(blob).ok()).collect();
    assert!(trees.len() > 500, "only {} of the mutants are trees", trees.len());
    let source = pair(
        "\"/timer@a010000\", \"/timer@a013000\", \"/adc@a020000\", \"/pwm@a030000\", \"/dsp@a040000\", \"/crc@a050000\"",
        "\"/timer@a011000\", \"/timer@a014000\", \"/adc@a021000\", \"/pwm@a031000\", \"/dsp@a041000\", \"/crc@a051000\"",
    );
    let found = warn_of(&source, &good, &trees.iter().collect::<Vec<_>>());
    assert!(found.iter().any(|found| found.len() == 5) && found.iter().any(|found| found.len() != 5));
}

#[test]
fn who_has_the_provider_can_hurt() {
    for (provider, device, expected) in [
        (
            "clock@a000000",
            "timer@a010000",
            "BH0903: /partitions/two: /timer@a010000 depends on clock 1 of /clock@a000000, which partition one has: it can change or stop it",
        ),
        (
            "pinctrl@a001000",
            "pwm@a030000",
            "BH0905: /partitions/two: /pwm@a030000 depends on pin controller /pinctrl@a001000, which partition one has: it can take the pins away",
        ),
        (
            "power@a002000",
            "dsp@a040000",
            "BH0906: /partitions/two: /dsp@a040000 depends on power domain 1 of /power@a002000, which partition one has: it can switch it off",
        ),
        (
            "reset@a003000",
            "crc@a050000",
            "BH0907: /partitions/two: /crc@a050000 depends on reset 3 of /reset@a003000, which partition one has: it can reset the device",
        ),
    ] {
        assert_eq!(two(&format!("\"/{provider}\""), &format!("\"/{device}\"")), [expected]);
        // Its own is nobody else's business.
        let both = format!("\"/{provider}\", \"/{device}\"");
        assert_eq!(two(&both, "\"/gpio@a004000\""), [""; 0]);
    }
}

#[test]
fn what_feeds_a_provider_counts() {
    // Through a divider that nobody can change.
    let found = two("\"/timer@a013000\"", "\"/timer@a014000\"");
    assert_eq!(
        found,
        [
            "BH0903: /partitions/two: /timer@a014000 of partition two depends on clock 7 of /clock@a000000, and so does /timer@a013000 of partition one"
        ]
    );
    // A supply that a pin switches, against the one that feeds it and cannot be switched.
    assert_eq!(two("\"/adc@a022000\"", "\"/adc@a023000\""), [""; 0]);
    // A list that makes no sense is no dependency.
    assert_eq!(two("\"/crc@a053000\"", "\"/crc@a052000\""), [""; 0]);
}

/// What is said of a Linux partition with these properties and bootargs.
fn linux(properties: &str, bootargs: &str) -> Vec<String> {
    let found = warn(&linux_source(properties, bootargs), &board("qemu-virt-gicv3"));
    found.into_iter().map(|found| found.message).collect()
}

fn linux_source(properties: &str, bootargs: &str) -> String {
    format!(
        "/dts-v1/; / {{ compatible = \"bulkhead,manifest-v1\"; partitions {{ linux {{ os,type = \"linux\"; cpus = <0>; \
         memory = /bits/ 64 <0x40000000 0x10000000>; kernel = \"Image\"; ramdisk = \"initramfs.cpio.gz\"; {properties} bootargs = \"{bootargs}\"; }}; }}; }};"
    )
}

#[test]
fn the_pins_of_the_console_are_known_where_the_tree_does_not_say() {
    let said = |tree: &str, console: &str, properties: &str| -> Vec<String> {
        let source = linux_source(&format!("console = \"pl011\"; {properties}"), "quiet");
        // More CPUs have list registers for the controller's interrupts.
        let source = source.replace("cpus = <0>", "cpus = <0 1>");
        let source = source.replace("partitions {", &format!("{console} partitions {{"));
        warn(&source, &board(tree)).into_iter().map(|found| found.message).collect()
    };
    let gpio = "of /soc/gpio@7e200000, over which the hypervisor's console goes:";
    // The tree connects this port with Bluetooth, which it is not when it is the console.
    let pl011 = "console = \"serial0\";";
    for (tree, console, pins, expected) in [
        ("rpi4", "", "<4 15 14>", "linux has pins 14 and 15 {gpio} /soc/serial@7e215040"),
        ("rpi4", pl011, "<15>", "linux has pin 15 {gpio} /soc/serial@7e201000"),
        ("rpi4-8g", pl011, "<14>", "linux has pin 14 {gpio} /soc/serial@7e201000"),
    ] {
        let found = said(tree, console, &format!("gpio-pins = {pins};"));
        assert_eq!(found, [expected.replace("{gpio}", gpio)], "{tree} {console} {pins}");
    }
    let whole = said("rpi4", pl011, "access = \"/soc/gpio@7e200000\";");
    let switches = "linux has /soc/gpio@7e200000, which switches the pins of the hypervisor's console: /soc/serial@7e201000";
    assert_eq!(whole, [switches]);
    assert_eq!(said("rpi4", pl011, "gpio-pins = <13 16 30 31 32 33>;"), [""; 0]);
    // Who has the port may have its pins.
    let source = linux_source("access = \"serial0\"; gpio-pins = <14 15>;", "quiet");
    assert!(warn(&source, &board("rpi4-8g")).iter().all(|found| found.code != "BH0912"));
}

#[test]
fn consoles_are_judged_by_their_drivers() {
    let (emulated, real) = ("console = \"pl011\";", "access = \"/pl011@9000000\";");
    let moved = "console = \"pl011\"; console-address = /bits/ 64 <0x1c090000>;";
    for (properties, bootargs) in [
        (emulated, "console=ttyAMA0"),
        (real, "console=ttyAMA0,115200n8 earlycon=pl011,mmio32,0x09000000"),
        (emulated, "quiet"),
        (emulated, "earlycon"),
        (emulated, "console=tty0 console=ttyAMA0"),
        (emulated, "console=ttyAMA0 console=ttyS0"),
        (emulated, "console=ttyUSB0"),
        (emulated, "console=ttyAMA0 -- console=ttyS0"),
        (moved, "earlycon=pl011,0x1c090000"),
    ] {
        assert_eq!(linux(properties, bootargs), [""; 0], "{properties} {bootargs}");
    }
    for (properties, bootargs, expected) in [
        (emulated, "console=ttyS0", "bootargs say console=ttyS0, but linux has no 8250 or mini-UART"),
        (
            real,
            "console=ttyS1,115200",
            "bootargs say console=ttyS1,115200, but linux has no 8250 or mini-UART",
        ),
        (emulated, "console=hvc0", "bootargs say console=hvc0, but linux has no virtio device"),
        (
            emulated,
            "console=ttymxc0",
            "bootargs say console=ttymxc0, but linux has no serial port of that kind",
        ),
        (
            moved,
            "console=ttyAMA0 earlycon=pl011,0x9000000",
            "bootargs say earlycon=pl011,0x9000000, but linux has no PL011 at 0x9000000: the emulated one is at 0x1c090000",
        ),
        (
            emulated,
            "earlycon=uart8250,mmio32,0x9000000",
            "bootargs say earlycon=uart8250,mmio32,0x9000000, but linux has a PL011 at 0x9000000, which is nothing for uart8250",
        ),
        (
            emulated,
            "earlycon=uart8250,mmio32,0xfe215040",
            "bootargs say earlycon=uart8250,mmio32,0xfe215040, but linux has no serial port at 0xfe215040",
        ),
    ] {
        assert_eq!(linux(properties, bootargs), [expected], "{properties} {bootargs}");
    }
    for (properties, bootargs, expected) in [
        (
            emulated,
            "console=ttyAMA1",
            "bootargs say console=ttyAMA1, but linux has one PL011, ttyAMA0, and no other",
        ),
        (emulated, "console=tty0", "bootargs say console=tty0, but linux has no screen"),
        (
            emulated,
            "console=serial0,115200",
            "bootargs say console=serial0,115200, but linux has no console of that name: a Raspberry Pi's firmware puts Linux's \
             name in its place, Bulkhead does not",
        ),
    ] {
        assert_eq!(linux(properties, bootargs), [expected], "{properties} {bootargs}");
    }
    // What helps is what the word that is wrong is for.
    for (bootargs, expected) in [
        ("earlycon=pl011,0x9001000", "the emulated PL011 is earlycon=pl011,0x1c090000"),
        ("console=ttyS0", "the emulated PL011 is console=ttyAMA0"),
    ] {
        let found = warn(&linux_source(moved, bootargs), &board("qemu-virt-gicv3"));
        assert_eq!(found[0].help.as_deref(), Some(expected), "{bootargs}");
    }
    // Nothing to speak through at all.
    assert_eq!(
        linux("", "console=ttyAMA0"),
        [
            "linux has no console and no serial port: nothing that it prints can be seen",
            "bootargs say console=ttyAMA0, but linux has no PL011"
        ]
    );
}

#[test]
fn memory_whose_place_was_chosen_is_helped_by_its_own_address() {
    let source = |more: &str| {
        format!(
            "/dts-v1/; / {{ compatible = \"bulkhead,manifest-v1\"; partitions {{ \
             a {{ os,type = \"bare\"; cpus = <0>; kernel = \"a\"; console = \"pl011\"; \
             memory = /bits/ 64 <0x40000000 0x3fc00000>; physical-memory = /bits/ 64 <0x40400000>; }}; \
             b {{ os,type = \"bare\"; cpus = <1>; kernel = \"b\"; console = \"pl011\"; \
             memory = /bits/ 64 <0x40001000 0x400000>; {more} }}; }}; }};"
        )
    };
    for (more, expected) in [
        ("", "begin memory at a multiple of 0x200000, or make it smaller"),
        (
            "physical-memory = /bits/ 64 <0x40000000>;",
            "give a physical-memory with the same lowest 21 bits, such as 0x40001000",
        ),
    ] {
        let found = warn(&source(more), &board("qemu-virt-gicv3"));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].code.as_str(), found[0].help.as_deref()), ("BH0908", Some(expected)));
    }
}

#[test]
fn the_systems_that_are_shipped_have_no_warnings() {
    for (name, tree) in [
        ("demo", "qemu-virt-gicv3"),
        ("pair", "qemu-virt-gicv3"),
        ("demo", "rpi4-qemu"),
        ("hostile", "rpi4-qemu"),
    ] {
        let path = manifests().join(format!("../../partitions/systems/{name}.dts"));
        let source = fs::read_to_string(path).expect("a system");
        assert_eq!(warn(&source, &board(tree)), [], "{name}");
    }
}
