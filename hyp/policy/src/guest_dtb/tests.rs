//! Guests' trees, read back.

use std::format;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::string::String;
use std::vec;
use std::vec::Vec;

use super::*;
use crate::manifest::tests::{self, RPI4, RPI4_8G, SHARING, VIRT, VIRT_V2, Value};
use crate::plan::Plan;

/// The guests' trees of the demo, or of a manifest.
fn guests(board: &[u8], manifest: &[u8]) -> Vec<&'static Tree<'static>> {
    let board = tests::tree(board);
    let mut platform = tests::platform(board);
    let plan: Plan<'static> =
        crate::manifest::check(tests::tree(manifest), &mut platform, board, &tests::payload).expect("a plan");
    let mut out = vec![0xa5; crate::manifest::DTB_SPACE as usize];
    plan.partitions
        .iter()
        .map(|partition| {
            let size = generate(&mut out, board, &platform, partition, "1.2.3").expect("space enough");
            dtoolkit::fdt::Fdt::new(&out[..size]).expect("a tree for others too");
            tests::tree(&out[..size])
        })
        .collect()
}

fn text<'t>(tree: &'t Tree<'t>, path: &str, name: &str) -> Vec<&'t str> {
    let property = tree.find(path).and_then(|node| node.property(name));
    property.unwrap_or_else(|| panic!("no {name} in {path}")).strings().collect()
}

fn cells(tree: &Tree<'_>, path: &str, name: &str) -> Vec<u32> {
    let property = tree.find(path).and_then(|node| node.property(name));
    property.and_then(Property::u32s).unwrap_or_else(|| panic!("no {name} in {path}")).collect()
}

#[test]
fn linux_gets_what_it_needs() {
    let guests = guests(VIRT, &tests::demo());
    let tree = guests[0];
    assert_eq!(text(tree, "/", "compatible"), ["linux,dummy-virt"]);
    assert_eq!(text(tree, "/chosen", "bootargs"), ["console=ttyAMA0"]);
    assert_eq!(text(tree, "/chosen", "stdout-path"), ["/pl011@9000000"]);
    assert_eq!(cells(tree, "/chosen", "linux,initrd-start"), [0, 0x4fef_0000]);
    assert_eq!(cells(tree, "/chosen", "linux,initrd-end"), [0, 0x4fff_0000]);
    assert_eq!(text(tree, "/aliases", "serial0"), ["/pl011@9000000"]);
    assert_eq!(cells(tree, "/memory@40000000", "reg"), [0, 0x4000_0000, 0, 0x1000_0000]);
    assert_eq!(tree.cpus().count(), 3);
    assert_eq!(cells(tree, "/cpus/cpu@2", "reg"), [2]);
    assert_eq!(text(tree, "/cpus/cpu@2", "compatible"), ["arm,cortex-a72"]);
    assert_eq!(text(tree, "/cpus/cpu@2", "enable-method"), ["psci"]);
    assert_eq!(text(tree, "/psci", "method"), ["hvc"]);
    assert_eq!(cells(tree, "/timer", "interrupts"), [1, 13, 4, 1, 14, 4, 1, 11, 4, 1, 10, 4]);
    assert!(tree.find("/timer").expect("a timer").property("always-on").is_some());
    assert_eq!(cells(tree, "/pmu", "interrupts"), [1, 7, 4]);
    assert_eq!(text(tree, "/intc@8000000", "compatible"), ["arm,gic-v3"]);
    let frames = [0, 0x800_0000, 0, 0x1_0000, 0, 0x80a_0000, 0, 0x6_0000];
    assert_eq!(cells(tree, "/intc@8000000", "reg"), frames);
    assert!(tree.find("/intc@8000000/its").is_none());
    assert_eq!(tree.find("/timer").and_then(Node::interrupt_parent), tree.find("/intc@8000000"));
    assert_eq!(text(tree, "/hypervisor", "compatible"), ["bulkhead,bulkhead"]);
    assert_eq!(text(tree, "/hypervisor", "version"), ["1.2.3"]);
    // The emulated console and its clock.
    let console = tree.find("/pl011@9000000").expect("a console");
    assert_eq!(cells(tree, "/pl011@9000000", "interrupts"), [0, 1, 4]);
    let clock = cells(tree, "/pl011@9000000", "clocks")[0];
    assert_eq!(tree.by_phandle(clock), tree.find("/uart-clock"));
    assert!(console.is_compatible("arm,primecell"));
    // The device passed through, with its clock.
    assert_eq!(cells(tree, "/pl031@9010000", "reg"), [0, 0x901_0000, 0, 0x1000]);
    assert_eq!(cells(tree, "/pl031@9010000", "interrupts"), [0, 2, 4]);
    let clock = cells(tree, "/pl031@9010000", "clocks")[0];
    assert_eq!(tree.by_phandle(clock), tree.find("/apb-pclk"));
    // Nothing that it does not own.
    assert!(tree.nodes().all(|node| !node.name().starts_with("virtio") && !node.name().starts_with("pl061")));

    let platform = Platform::from_tree(tree, &[]).expect("a whole machine");
    assert_eq!((platform.cpus.len(), platform.psci), (3, Some(crate::platform::Conduit::Hvc)));
}

#[test]
fn gicv2_says_which_cpus_have_a_ppi() {
    let guests = guests(VIRT_V2, &tests::demo());
    assert_eq!(text(guests[0], "/intc@8000000", "compatible"), ["arm,gic-400", "arm,cortex-a15-gic"]);
    let frames = [0, 0x800_0000, 0, 0x1_0000, 0, 0x801_0000, 0, 0x2000];
    assert_eq!(cells(guests[0], "/intc@8000000", "reg"), frames);
    assert_eq!(cells(guests[0], "/timer", "interrupts")[..3], [1, 13, 0x704]);
    assert_eq!(cells(guests[1], "/timer", "interrupts")[..3], [1, 13, 0x104]);
}

#[test]
fn devices_leave_their_bus() {
    let manifest = tests::manifest(&[(
        "a",
        &[
            ("os,type", Value::Text("bare")),
            ("cpus", Value::Cells(&[0])),
            ("memory", Value::Numbers(&[0x4000_0000, 0x20_0000])),
            ("kernel", Value::Text("bare.bin")),
            ("access", Value::Text("i2c1\0/sensor@a004000\0/gpio@a001000\0/watchdog@a001100\0serial0")),
        ],
    )]);
    let guests = guests(SHARING, &manifest);
    let tree = guests[0];
    let path = "/i2c@fe205000";
    assert_eq!(cells(tree, path, "reg"), [0, 0xfe20_5000, 0, 0x200, 0, 0xfe20_6000, 0, 0x200]);
    assert_eq!(text(tree, "/aliases", "i2c1"), [path]);
    assert_eq!(text(tree, path, "clock-names"), ["osc"]);
    assert_eq!(tree.by_phandle(cells(tree, path, "clocks")[0]), tree.find("/clk-osc"));
    let device = tree.find(path).expect("the device");
    for gone in ["dmas", "dma-names", "pinctrl-0", "pinctrl-names"] {
        assert!(device.property(gone).is_none(), "{gone} is still there");
    }
    assert_eq!(cells(tree, "/i2c@fe205000/eeprom@50/nested/deep", "value"), [1]);
    assert_eq!(cells(tree, "/i2c@fe205000/rtc@68", "reg"), [0x68]);
    // Its clock is one that the partition does not have.
    let rtc = tree.find("/i2c@fe205000/rtc@68").expect("the device");
    assert!(rtc.property("clocks").is_none() && rtc.property("clock-names").is_none());
    let sensor = tree.find("/sensor@a004000").expect("the device");
    assert_eq!(sensor.interrupt_parent(), tree.find("/gpio@a001000"));
    // The board's console is the guest's, without an emulated one.
    assert_eq!(text(tree, "/aliases", "serial0"), ["/pl011@9000000"]);
    assert!(tree.find("/uart-clock").is_none());
}

/// A partition of a Raspberry Pi with these devices.
fn rpi4_guest(access: &str, unprotected: &str) -> Vec<u8> {
    tests::manifest(&[(
        "a",
        &[
            ("os,type", Value::Text("linux")),
            ("cpus", Value::Cells(&[0, 1])),
            ("memory", Value::Numbers(&[0x1000_0000, 0x1000_0000])),
            ("kernel", Value::Text("Image")),
            ("access", Value::Text(access)),
            ("unprotected-dma", Value::Text(unprotected)),
        ],
    )])
}

#[test]
fn dma_finds_memory_where_the_board_has_it() {
    let devices = "mmc0\0ethernet0";
    let guests = guests(RPI4_8G, &rpi4_guest(&format!("{devices}\0/soc/rng@7e104000"), devices));
    let tree = guests[0];
    let bus = "/emmc2bus-fe340000";
    assert_eq!(cells(tree, bus, "dma-ranges"), [0, 0xc000_0000, 0, 0, 0, 0x4000_0000]);
    assert_eq!(text(tree, "/aliases", "mmc0"), ["/emmc2bus-fe340000/mmc@fe340000"]);
    let mmc = tree.find("mmc0").expect("the SD host");
    assert_eq!(mmc.dma_range(0), tests::tree(RPI4_8G).find("mmc0").expect("the SD host").dma_range(0));
    assert_eq!(cells(tree, mmc.path(), "reg"), [0, 0xfe34_0000, 0, 0x100]);
    assert_eq!(mmc.interrupt_parent(), tree.find("/interrupt-controller@ff841000"));
    // The regulator stays behind, and without it no card may go down to 1.8 V.
    assert!(mmc.property("vqmmc-supply").is_none() && mmc.property("no-1-8-v").is_some());
    let ethernet = "/scb-fd580000/ethernet@fd580000";
    assert_eq!(text(tree, "/aliases", "ethernet0"), [ethernet]);
    assert_eq!(cells(tree, "/scb-fd580000", "dma-ranges"), [0, 0, 0, 0, 4, 0]);
    let mac = tree.find(ethernet).and_then(|node| node.property("local-mac-address")).expect("an address");
    assert_eq!(mac.value, [0xdc, 0xa6, 0x32, 1, 2, 3]);
    // What has no DMA stands below the root.
    assert!(tree.find("/rng@fe104000").is_some());
    // The firmware's marks of this board.
    assert_eq!(text(tree, "/", "serial-number"), ["10000000deadbeef"]);
    assert_eq!(cells(tree, "/system", "linux,revision"), [0xd0_3114]);
}

#[test]
#[cfg_attr(miri, ignore = "a minute of plain data")]
fn clocks_that_stay_as_they_are_have_stand_ins() {
    let uarts = ["1000", "1400", "1600", "1800", "1a00"].map(|at| format!("/soc/serial@7e20{at}"));
    let mmc = "/emmc2bus/mmc@7e340000";
    let guests = guests(RPI4, &rpi4_guest(&format!("{}\0{mmc}", uarts.join("\0")), mmc));
    let tree = guests[0];
    let clock = |path: &str, index: usize| {
        let phandles = cells(tree, path, "clocks");
        let node = tree.by_phandle(phandles[index]).expect("a clock");
        assert_eq!(text(tree, node.path(), "compatible"), ["fixed-clock"]);
        cells(tree, node.path(), "clock-frequency")[0]
    };
    for uart in ["/serial@fe201000", "/serial@fe201400"] {
        assert_eq!((clock(uart, 0), clock(uart, 1)), (48_000_000, 500_000_000));
        assert_eq!(cells(tree, uart, "clocks").len(), 2);
        assert_eq!(text(tree, uart, "clock-names"), ["uartclk", "apb_pclk"]);
    }
    assert_eq!(clock("/emmc2bus-fe340000/mmc@fe340000", 0), 100_000_000);
    // One for each clock, however many devices have it.
    assert_eq!(tree.nodes().filter(|node| node.is_compatible("fixed-clock")).count(), 3);
    // An overlay may enable it; until then nobody does.
    assert_eq!(text(tree, "/serial@fe201400", "status"), ["disabled"]);
}

#[test]
#[cfg_attr(miri, ignore = "a minute of plain data")]
fn the_raspberry_pi_has_what_a_kernel_looks_for() {
    let manifest = tests::manifest(&[(
        "a",
        &[
            ("os,type", Value::Text("linux")),
            ("cpus", Value::Cells(&[0, 1, 3])),
            ("memory", Value::Numbers(&[0x4000_0000, 0x1000_0000])),
            ("kernel", Value::Text("Image")),
            ("console", Value::Text("pl011")),
        ],
    )]);
    let guests = guests(RPI4, &manifest);
    let tree = guests[0];
    assert_eq!(text(tree, "/", "compatible"), ["raspberrypi,4-model-b", "brcm,bcm2711"]);
    assert_eq!(text(tree, "/chosen", "stdout-path"), ["/pl011@fe201000"]);
    assert_eq!(cells(tree, "/pl011@fe201000", "interrupts"), [0, 121, 4]);
    assert_eq!(text(tree, "/cpus/cpu@2", "enable-method"), ["psci"]);
    assert!(tree.find("/cpus/cpu@2").expect("a CPU").property("cpu-release-addr").is_none());
    assert_eq!(cells(tree, "/timer", "interrupts")[..3], [1, 13, 0x708]);
    let gic = "/interrupt-controller@ff841000";
    assert_eq!(text(tree, gic, "compatible"), ["arm,gic-400", "arm,cortex-a15-gic"]);
    assert_eq!(cells(tree, gic, "reg"), [0, 0xff84_1000, 0, 0x1000, 0, 0xff84_2000, 0, 0x2000]);
    // Nothing of the board that the partition does not have, and so nothing that QEMU lacks.
    let of_vendor = |node: &Node<'_>| node.compatible().any(|name| name.starts_with(b"brcm,"));
    assert!(!tree.nodes().skip(1).any(|node| of_vendor(&node)));
}

#[test]
fn too_little_space_is_an_error() {
    let board = tests::tree(VIRT);
    let (platform, plan) = (tests::platform(board), tests::demo_plan(board));
    let partition = &plan.partitions[0];
    let mut out = vec![0; 64 << 10];
    let size = generate(&mut out, board, &platform, partition, "1").expect("space enough");
    for space in (0..size).step_by(if cfg!(miri) { 997 } else { 1 }) {
        let result = generate(&mut out[..space], board, &platform, partition, "1");
        assert_eq!(result, Err(DtbError), "{space} bytes");
    }
}

#[test]
#[cfg_attr(miri, ignore = "runs dtc")]
fn dtc_has_nothing_to_say() {
    let devices = "mmc0\0ethernet0";
    let rpi4 = rpi4_guest(devices, devices);
    for (board, manifest) in [(VIRT, tests::demo()), (VIRT_V2, tests::demo()), (RPI4_8G, rpi4)] {
        let board = tests::tree(board);
        let mut platform = tests::platform(board);
        let plan = crate::manifest::check(tests::tree(&manifest), &mut platform, board, &tests::payload);
        for partition in plan.expect("a plan").partitions {
            let mut out = vec![0; 64 << 10];
            let size = generate(&mut out, board, &platform, &partition, "1").expect("space enough");
            let mut dtc = Command::new("dtc")
                .args(["-I", "dtb", "-O", "dts"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .expect("dtc is installed (package device-tree-compiler)");
            dtc.stdin.take().expect("a pipe").write_all(&out[..size]).expect("dtc reads");
            let output = dtc.wait_with_output().expect("dtc ends");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && said.is_empty(), "{said}");
        }
    }
}

#[test]
fn a_second_console_page_moves_the_node() {
    let manifest = tests::manifest(&[(
        "a",
        &[
            ("os,type", Value::Text("bare")),
            ("cpus", Value::Cells(&[3, 1])),
            ("memory", Value::Numbers(&[0x0, 0x20_0000, 0x8000_0000, 0x1000])),
            ("kernel", Value::Text("bare.bin")),
            ("console", Value::Text("pl011")),
            ("console-address", Value::Numbers(&[0x10_0000_0000])),
            ("console-interrupt", Value::Cells(&[255])),
        ],
    )]);
    let guests = guests(VIRT, &manifest);
    assert_eq!(cells(guests[0], "/pl011@1000000000", "reg"), [0x10, 0, 0, 0x1000]);
    assert_eq!(cells(guests[0], "/pl011@1000000000", "interrupts"), [0, 255, 4]);
    assert_eq!(cells(guests[0], "/memory@0", "reg"), [0, 0, 0, 0x20_0000]);
    assert_eq!(cells(guests[0], "/memory@80000000", "reg"), [0, 0x8000_0000, 0, 0x1000]);
}

#[test]
#[cfg_attr(miri, ignore = "runs dtc")]
fn parts_of_devices_are_told() {
    use Value::{Cells, Numbers, Text};
    let partition = |cpu, pins, device, last| {
        [
            ("os,type", Text("bare")),
            ("cpus", Cells(cpu)),
            ("memory", Numbers(&[0x4000_0000, 0x100_0000])),
            ("kernel", Text("bare.bin")),
            ("gpio-pins", Cells(pins)),
            ("access-registers", Text(device)),
            last,
        ]
    };
    let polled = ("polled", Text("/soc/gpio@7e200000\0/soc/spi@7e204800"));
    let manifest = tests::manifest(&[
        ("left", &partition(&[0], &[0, 4, 17], "/soc/spi@7e204600", ("bootargs", Text("quiet")))),
        ("right", &partition(&[1], &[5, 57], "/soc/spi@7e204800", polled)),
    ]);
    let guests = guests(&tests::rpi4(), &manifest);
    let reserved = |guest: usize| cells(guests[guest], "/gpio@fe200000", "gpio-reserved-ranges");
    assert_eq!(reserved(0), [1, 3, 5, 12, 18, 40]);
    assert_eq!(reserved(1), [0, 5, 6, 51]);
    assert_eq!(cells(guests[0], "/gpio@fe200000", "interrupts").len(), 12);
    assert_eq!(cells(guests[0], "/spi@fe204600", "reg"), [0, 0xfe20_4600, 0, 0x200]);
    assert_eq!(cells(guests[0], "/spi@fe204600", "interrupts"), [0, 118, 4]);
    for path in ["/gpio@fe200000", "/spi@fe204800"] {
        let node = guests[1].find(path).expect("the device");
        assert!(node.properties().all(|property| !property.name.starts_with("interrupt")));
    }
    // No groups of pins, of which some are another's.
    assert_eq!(guests[0].find("/gpio@fe200000").expect("the device").children().count(), 0);
    assert!(guests[0].find("/spi@fe204800").is_none());
}
