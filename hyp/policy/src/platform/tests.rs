//! Boards as they are, and with something missing.

use alloc::format;
use alloc::string::ToString;
use std::vec;

use bulkhead_boards::BOARDS;

use super::*;
use crate::guest_dtb::writer::Writer;
use crate::manifest::tests::{RPI4, RPI4_8G, SHARING, VIRT, VIRT_4G, VIRT_V2, tree};

fn platform(blob: &[u8]) -> Platform<'static> {
    Platform::from_tree(tree(blob), &[]).expect("a complete board")
}

fn region(start: u64, size: u64) -> Region<Pa> {
    Region::new(Pa::new(start), size).expect("a region")
}

#[test]
fn qemu_virt_is_understood() {
    let platform = platform(VIRT);
    assert_eq!(platform.ram, [region(0x4000_0000, 1 << 30)]);
    assert_eq!(platform.reserved, []);
    let cpu = |mpidr| PlatformCpu { mpidr, enable_method: Some(EnableMethod::Psci) };
    assert_eq!(platform.cpus, [cpu(0), cpu(1), cpu(2), cpu(3)]);
    let gic = Gic::V3 {
        distributor: region(0x800_0000, 0x1_0000),
        redistributors: vec![region(0x80a_0000, 0xf6_0000)],
    };
    assert_eq!((platform.gic, platform.gic_path), (gic, "/intc@8000000"));
    assert_eq!(platform.maintenance, IntId::ppi(9));
    assert_eq!((platform.physical_timer, platform.virtual_timer), (IntId::ppi(14), IntId::ppi(11)));
    assert_eq!(platform.pmu, Some(IntId::ppi(7)));
    let uart = platform.uart.expect("a UART");
    assert_eq!((uart.path, uart.registers), ("/pl011@9000000", region(0x900_0000, 0x1000)));
    assert_eq!(uart.intid, IntId::spi(1));
    assert_eq!(platform.psci, Some(Conduit::Smc));
}

#[test]
fn gicv2_is_understood() {
    let gic = Gic::V2 {
        distributor: region(0x800_0000, 0x1_0000),
        cpu_interface: region(0x801_0000, 0x1_0000),
        hypervisor_interface: region(0x803_0000, 0x1_0000),
        virtual_interface: region(0x804_0000, 0x1_0000),
    };
    let platform = platform(VIRT_V2);
    assert_eq!((platform.gic, platform.maintenance), (gic, IntId::ppi(9)));
}

#[test]
fn other_boards_are_understood() {
    assert_eq!(platform(VIRT_4G).ram, [region(0x4000_0000, 4 << 30)]);
    let sharing = platform(SHARING);
    // Neither stdout-path nor a maintenance interrupt nor a PMU.
    assert_eq!(sharing.uart.map(|uart| uart.path), Some("/pl011@9000000"));
    assert_eq!((sharing.maintenance, sharing.pmu), (IntId::ppi(9), None));
}

/// The page of the addresses 0xd8 to 0xf0.
fn spin_table() -> Reservation<'static> {
    Reservation { region: region(0, 0x1000), holder: "the firmware's spin table" }
}

#[test]
fn the_raspberry_pi_is_understood() {
    let holder = "the firmware (/memreserve/)";
    let stub = Reservation { region: region(0, 0x1000), holder };
    for (blob, ram, reserved) in [
        (RPI4, vec![region(0, 0x3c00_0000)], vec![stub, spin_table()]),
        (
            RPI4_8G,
            // Without the VideoCore's part, and without what lies under the registers below 4 GiB.
            vec![region(0, 0x3b40_0000), region(0x4000_0000, 0xbc00_0000), region(1 << 32, 1 << 32)],
            vec![
                stub,
                Reservation { region: region(0x2eff_2e00, 0xd100), holder },
                Reservation { region: region(0x3b30_0000, 0x212), holder: "/reserved-memory/nvram@3b300000" },
                spin_table(),
            ],
        ),
    ] {
        let platform = Platform::from_tree(tree(blob), &bulkhead_boards::BOARDS).expect("a complete board");
        assert_eq!(platform.board.map(|board| board.name), Some("rpi4"));
        assert_eq!(platform.ram, ram);
        assert_eq!(platform.reserved, reserved);
        let released_at = |release| Some(EnableMethod::SpinTable { release: Pa::new(release) });
        let cpus: vec::Vec<_> = platform.cpus.iter().map(|cpu| (cpu.mpidr, cpu.enable_method)).collect();
        let expected = [0xd8, 0xe0, 0xe8, 0xf0].map(released_at);
        assert_eq!(cpus, [(0, expected[0]), (1, expected[1]), (2, expected[2]), (3, expected[3])]);
        let gic = Gic::V2 {
            distributor: region(0xff84_1000, 0x1000),
            cpu_interface: region(0xff84_2000, 0x2000),
            hypervisor_interface: region(0xff84_4000, 0x2000),
            virtual_interface: region(0xff84_6000, 0x2000),
        };
        assert_eq!((platform.gic, platform.maintenance), (gic, IntId::ppi(9)));
        assert_eq!((platform.physical_timer, platform.virtual_timer), (IntId::ppi(14), IntId::ppi(11)));
        // The PMU's interrupts are SPIs, one for each CPU.
        assert_eq!((platform.pmu, platform.psci), (None, None));
    }
}

#[test]
fn what_is_missing_is_named() {
    let without = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let mut blob = SHARING.to_vec();
        while let Some(at) = blob.windows(from.len()).position(|window| window == from.as_bytes()) {
            blob[at..at + to.len()].copy_from_slice(to.as_bytes());
        }
        Platform::from_tree(tree(&blob), &[]).expect_err("something is missing").to_string()
    };
    assert_eq!(without("memory\0", "memxry\0"), "/: there is no memory node");
    assert_eq!(without("arm,gic-v3\0", "arm,gic-v9\0"), "/: there is no GICv3 and no GICv2");
    assert_eq!(without("arm,armv8-timer", "arm,armv9-timer"), "/: there is no arm,armv8-timer");
    assert_eq!(without("cpus\0", "cpux\0"), "/: there is no CPU node");
}

/// What the trees of other boards have: several memory nodes, a spin table, reservations.
#[test]
fn a_spin_table_and_reservations_are_understood() {
    let mut blob = vec![0; 32 << 10];
    let mut writer = Writer::new(&mut blob);
    let w = &mut writer;
    w.begin(format_args!(""));
    w.cells("#address-cells", &[2]);
    w.cells("#size-cells", &[1]);
    for (start, size) in [(0x8000_0000_u32, 0x1000_0000), (0, 0x3c00_0000), (0x3c00_0000, 0x100_0000)] {
        w.begin(format_args!("memory@{start:x}"));
        w.string("device_type", "memory");
        w.cells("reg", &[0, start, size]);
        w.end();
    }
    w.begin(format_args!("reserved-memory"));
    w.cells("#address-cells", &[1]);
    w.cells("#size-cells", &[1]);
    w.bytes("ranges", b"");
    for (name, start, size, status) in [
        ("firmware", 0x10_0000, 0x1000, "okay"),
        ("off", 0x20_0000, 0x1000, "disabled"),
        ("none", 0, 0, "okay"),
    ] {
        w.begin(format_args!("{name}"));
        w.cells("reg", &[start, size]);
        w.string("status", status);
        w.end();
    }
    w.begin(format_args!("dynamic"));
    w.cells("size", &[0x10_0000]);
    w.end();
    w.end();
    w.begin(format_args!("cpus"));
    w.cells("#address-cells", &[1]);
    w.cells("#size-cells", &[0]);
    for (reg, release) in [(0, 0xd8), (1, 0xe0), (0x100, 0xe8)] {
        w.begin(format_args!("cpu@{reg:x}"));
        w.cells("reg", &[reg]);
        w.string("enable-method", "spin-table");
        w.number("cpu-release-addr", release);
        w.end();
    }
    w.end();
    // Nobody listens to it where CPUs are in a pen.
    w.begin(format_args!("psci"));
    w.string("compatible", "arm,psci-1.0");
    w.string("method", "smc");
    w.end();
    w.begin(format_args!("soc"));
    w.cells("#address-cells", &[1]);
    w.cells("#size-cells", &[1]);
    w.cells("ranges", &[0x4000_0000, 0, 0xff80_0000, 0x80_0000]);
    w.begin(format_args!("gic@40041000"));
    w.cells("phandle", &[1]);
    w.cells("interrupt-parent", &[1]);
    w.cells("#interrupt-cells", &[3]);
    w.bytes("compatible", b"arm,gic-400\0");
    w.cells("reg", &[0x4004_1000, 0x1000, 0x4004_2000, 0x2000, 0x4004_4000, 0x2000, 0x4004_6000, 0x2000]);
    w.cells("interrupts", &[1, 9, 0xf04]);
    w.end();
    w.end();
    w.begin(format_args!("timer"));
    w.cells("interrupt-parent", &[1]);
    w.bytes("compatible", b"arm,armv8-timer\0");
    w.cells("interrupts", &[1, 13, 8, 1, 14, 8, 1, 11, 8, 1, 10, 8]);
    w.end();
    w.end();
    let size = writer.finish().expect("a small tree");
    let platform = platform(&blob[..size]);
    assert_eq!(platform.ram, [region(0, 0x3d00_0000), region(0x8000_0000, 0x1000_0000)]);
    let holder = "/reserved-memory/firmware";
    let firmware = Reservation { region: region(0x10_0000, 0x1000), holder };
    assert_eq!(platform.reserved, [firmware, spin_table()]);
    let release = |cpu: &PlatformCpu| (cpu.mpidr, cpu.enable_method);
    let table = |address| Some(EnableMethod::SpinTable { release: Pa::new(address) });
    let cpus: vec::Vec<_> = platform.cpus.iter().map(release).collect();
    assert_eq!(cpus, [(0, table(0xd8)), (1, table(0xe0)), (0x100, table(0xe8))]);
    let Gic::V2 { distributor, virtual_interface, .. } = platform.gic else { panic!("a GICv2") };
    assert_eq!(distributor, region(0xff84_1000, 0x1000));
    assert_eq!(virtual_interface, region(0xff84_6000, 0x2000));
    assert_eq!((platform.uart, platform.psci, platform.pmu), (None, None, None));
    let frames: vec::Vec<_> =
        Platform::from_tree(tree(VIRT), &[]).expect("a board").gic.guest_frames(2).collect();
    assert_eq!(
        format!("{frames:?}"),
        "[(\"GICD\", Region { start: Ipa(0x8000000), size: 65536 }), (\"GICR\", Region { start: Ipa(0x80a0000), size: 262144 })]"
    );
}

#[test]
fn a_cpu_interface_of_repeated_pages_is_found() {
    let region = |start, size| Region::new(Pa::new(start), size).expect("a region");
    let gic = |size| Gic::V2 {
        distributor: region(0x100_0000, 0x1000),
        cpu_interface: region(0x200_0000, size),
        hypervisor_interface: region(0x300_0000, size),
        virtual_interface: region(0x400_0000, size),
    };
    for (size, stride) in [(0x2000, 0x1000), (0x1_0000, 0x1000), (0x2_0000, 0x1_0000)] {
        let gic = gic(size);
        // The second page, with GICC_DIR, follows the first one's last repetition.
        assert_eq!(gic.adjacent_cpu_interface(), Some(region(0x200_0000 + stride - 0x1000, 0x2000)));
        let guest = gic.guest_cpu_interface().expect("a GICv2");
        assert_eq!(
            (guest.pa, guest.mapped.start(), guest.mapped.size()),
            (Pa::new(0x400_0000), Ipa::new(0x200_0000), stride)
        );
        assert_eq!(
            (guest.deactivate.start(), guest.deactivate.size()),
            (Ipa::new(0x200_0000 + stride), stride)
        );
        let frames: vec::Vec<_> = gic.guest_frames(2).map(|(name, region)| (name, region.size())).collect();
        assert_eq!(frames, [("GICD", 0x1000), ("GICC", 2 * stride)]);
    }
}

#[test]
fn the_raspberry_pi_4_is_understood() {
    let platform = Platform::from_tree(tree(RPI4), &BOARDS).expect("a complete board");
    let uart = |uart: Option<Uart<'_>>| {
        uart.map(|uart| (uart.model, uart.registers.start().raw(), uart.intid.map(IntId::raw)))
    };
    // What stdout-path names by an alias with options; Bluetooth is wired to the PL011, but guests imitate it.
    assert_eq!(uart(platform.uart), Some((UartModel::MiniUart, 0xfe21_5040, Some(32 + 93))));
    assert_eq!(uart(platform.pl011), Some((UartModel::Pl011, 0xfe20_1000, Some(32 + 121))));
    assert_eq!(platform.power, Some((PowerModel::Bcm2835Pm, region(0xfe10_0000, 0x114))));
    let releases =
        [0xd8, 0xe0, 0xe8, 0xf0].map(|release| EnableMethod::SpinTable { release: Pa::new(release) });
    assert!(platform.cpus.iter().map(|cpu| cpu.enable_method).eq(releases.map(Some)));
    assert_eq!(platform.psci, None);

    let edited = |from: &[u8], to: &[u8]| {
        let mut blob = RPI4.to_vec();
        let at = blob.windows(from.len()).position(|window| window == from).expect("what is to change");
        blob[at..at + to.len()].copy_from_slice(to);
        Platform::from_tree(tree(&blob), &BOARDS).expect("a complete board")
    };
    // Without stdout-path: the first port that nothing is wired to.
    assert_eq!(edited(b"serial1:115200n8", b"serial9").uart, platform.uart);
    assert_eq!(edited(b"serial1:115200n8", b"serial0").uart, platform.pl011);
    // Where stdout-path names a port that is off and Bluetooth is off, too: the one that is left.
    let card = Platform::from_tree(tree(RPI4_8G), &BOARDS).expect("a complete board");
    assert_eq!(uart(card.uart), Some((UartModel::Pl011, 0xfe20_1000, Some(32 + 121))));
}
