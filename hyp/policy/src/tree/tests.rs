//! This reader against two others, and against bytes that are no tree.

use alloc::format;
use alloc::string::ToString;
use std::vec;

use dtoolkit::{Node as _, Property as _};

use super::*;
use crate::guest_dtb::writer::Writer;
use crate::manifest::tests::{Random, SHARING, VIRT, VIRT_4G, VIRT_V2};

/// Miri takes minutes for the large ones.
const BOARDS: &[&[u8]] = if cfg!(miri) { &[SHARING] } else { &[SHARING, VIRT, VIRT_4G, VIRT_V2] };

fn write(content: impl FnOnce(&mut Writer<'_>)) -> Vec<u8> {
    let mut blob = vec![0; 64 << 10];
    let mut writer = Writer::new(&mut blob);
    writer.begin(format_args!(""));
    content(&mut writer);
    writer.end();
    let size = writer.finish().expect("a small tree");
    blob.truncate(size);
    blob
}

/// Compares with dtoolkit's reading of the same blob.
fn agree(tree: &Tree<'_>, other: dtoolkit::fdt::Fdt<'_>) {
    fn visit<'t>(node: dtoolkit::fdt::FdtNode<'_>, ours: &mut impl Iterator<Item = Node<'t>>) {
        let our = ours.next().expect("as many nodes");
        assert_eq!(our.name(), node.name());
        let theirs: Vec<_> = node.properties().map(|p| (p.name().to_string(), p.value().to_vec())).collect();
        let mine: Vec<_> = our.properties().map(|p| (p.name.to_string(), p.value.to_vec())).collect();
        assert_eq!(mine, theirs);
        for child in node.children() {
            visit(child, ours);
        }
    }
    let mut ours = tree.nodes();
    visit(other.root(), &mut ours);
    assert!(ours.next().is_none());
    let theirs: Vec<_> = other.memory_reservations().map(|r| (r.address(), r.size())).collect();
    assert_eq!(tree.reservations().collect::<Vec<_>>(), theirs);
}

#[test]
fn reads_what_dtoolkit_reads() {
    for &blob in BOARDS {
        agree(&Tree::new(blob).expect("a tree"), dtoolkit::fdt::Fdt::new(blob).expect("a tree"));
    }
}

#[test]
fn reads_what_fdt_reads() {
    for &blob in BOARDS {
        let tree = Tree::new(blob).expect("a tree");
        let other = fdt::Fdt::new(blob).expect("a tree");
        let mut theirs = other.all_nodes();
        for node in tree.nodes() {
            let their = theirs.next().expect("as many nodes");
            assert_eq!(if node.name().is_empty() { "/" } else { node.name() }, their.name);
            let mine = node.properties().map(|property| (property.name, property.value));
            assert!(mine.eq(their.properties().map(|property| (property.name, property.value))));
            let found = tree.find(node.path()).expect("a node has a path");
            assert!(found == node, "{found:?} is not {node:?}");
        }
        assert!(theirs.next().is_none());
        for node in tree.nodes().filter(|node| node.phandle().is_some()) {
            let phandle = node.phandle().expect("a phandle");
            assert_eq!(tree.by_phandle(phandle), Some(node));
            assert_eq!(other.find_phandle(phandle).map(|other| other.name), Some(node.name()));
        }
    }
}

#[test]
fn mutants_are_refused_or_read_alike() {
    let rounds = if cfg!(miri) { 2 } else { 20_000 };
    let mut random = Random(0x7ee);
    let (mut accepted, mut compared) = (0, 0);
    for round in 0..rounds {
        let mut blob = BOARDS[round % BOARDS.len()].to_vec();
        random.mutate(&mut blob);
        let Ok(tree) = Tree::new(&blob) else { continue };
        accepted += 1;
        // Reading everything is safe, whatever the values are.
        for node in tree.nodes() {
            let _ = (node.reg().count(), node.raw_reg().count(), node.interrupts().count());
            let _ = (node.path(), node.parent(), node.children().count(), node.is_enabled());
        }
        let _ = (tree.stdout(), tree.cpus().count(), tree.reservations().count());
        if let Ok(other) = dtoolkit::fdt::Fdt::new(&blob) {
            compared += 1;
            agree(&tree, other);
        }
    }
    assert!(cfg!(miri) || compared > rounds / 4, "{accepted} accepted, {compared} compared");
}

#[test]
fn paths_and_aliases_are_found() {
    let tree = Tree::new(SHARING).expect("a tree");
    let path = |name: &str| tree.find(name).map(Node::path);
    assert_eq!(path("/"), Some("/"));
    assert_eq!(path("/soc/i2c@7e205000"), Some("/soc/i2c@7e205000"));
    assert_eq!(path("/soc/i2c"), Some("/soc/i2c@7e205000"));
    assert_eq!(path("i2c1"), Some("/soc/i2c@7e205000"));
    assert_eq!(path("i2c1/rtc"), Some("/soc/i2c@7e205000/rtc@68"));
    // Three nodes have this name, one of them without an address.
    assert_eq!(path("/timer"), Some("/timer"));
    assert_eq!(path("/uart"), None);
    assert_eq!(path("/soc/nothing"), None);
    assert_eq!(path("i2c2"), None);
    assert_eq!(path(""), None);
    let node = tree.find("i2c1/eeprom/nested/deep").expect("a node");
    assert_eq!(node.parent().map(Node::path), Some("/soc/i2c@7e205000/eeprom@50/nested"));
    assert!(tree.find("i2c1").expect("a node").is_above(node) && !node.is_above(tree.root()));
}

#[test]
fn addresses_are_translated() {
    let tree = Tree::new(SHARING).expect("a tree");
    let regions = |path: &str| -> Vec<_> { tree.find(path).expect("a node").reg().collect() };
    let region = |start, size| Region::new(Pa::new(start), size);
    assert_eq!(regions("i2c1"), [region(0xfe20_5000, 0x200), region(0xfe20_6000, 0x200)]);
    assert_eq!(regions("/pl011"), [region(0x900_0000, 0x1000)]);
    // An I2C address is no address of a CPU, and /cpus passes nothing on.
    assert_eq!(regions("i2c1/rtc"), [None]);
    assert_eq!(regions("/cpus/cpu@1"), [None]);
    assert_eq!(tree.find("/cpus/cpu@1").and_then(|node| node.raw_reg().next()), Some((1, 0)));
    let interrupts: Vec<_> = tree.find("/timer").expect("a node").interrupts().flatten().collect();
    assert_eq!(interrupts.len(), 4);
    assert_eq!(interrupts[2].1.gic(), Some(GicInterrupt::Ppi(11, Trigger::Level)));
    assert_eq!(interrupts[2].0.path(), "/intc@8000000");
}

#[test]
fn odd_cells_end() {
    let blob = write(|w| {
        w.cells("#address-cells", &[0]);
        w.cells("#size-cells", &[0]);
        w.begin(format_args!("bus"));
        w.cells("#address-cells", &[0]);
        w.cells("#size-cells", &[0]);
        w.cells("ranges", &[1, 2, 3]);
        w.cells("reg", &[1, 2, 3]);
        w.cells("phandle", &[1]);
        w.cells("#interrupt-cells", &[0]);
        w.cells("interrupt-parent", &[1]);
        w.cells("interrupts", &[1, 2]);
        w.begin(format_args!("device"));
        w.cells("reg", &[1, 2, 3]);
        w.cells("interrupts-extended", &[1, 1, 7]);
        w.end();
        w.end();
        w.begin(format_args!("wide"));
        w.cells("#address-cells", &[u32::MAX]);
        w.cells("ranges", &[1, 2, 3]);
        w.begin(format_args!("device"));
        w.cells("reg", &[1, 2, 3]);
        w.end();
        w.end();
    });
    let tree = Tree::new(&blob).expect("a tree");
    for node in tree.nodes() {
        assert!(node.reg().take(10).count() < 4 && node.raw_reg().take(10).count() < 4);
        assert!(node.interrupts().take(10).count() < 4);
    }
}

#[test]
fn values_are_read() {
    let blob = write(|w| {
        w.cells("one", &[7]);
        w.number("two", 1 << 32);
        w.bytes("strings", b"a\0bc\0");
        w.bytes("open", b"a");
        w.bytes("empty", b"");
        w.bytes("nul", b"\0");
    });
    let tree = Tree::new(&blob).expect("a tree");
    let property = |name: &str| tree.root().property(name).expect("a property");
    assert_eq!((property("one").u32(), property("one").u64()), (Some(7), None));
    assert_eq!((property("two").u32(), property("two").u64()), (None, Some(1 << 32)));
    assert_eq!(property("two").u32s().expect("cells").collect::<Vec<_>>(), [1, 0]);
    assert_eq!(property("two").u64s().expect("numbers").collect::<Vec<_>>(), [1 << 32]);
    assert!(property("one").u64s().is_none() && property("open").u32s().is_none());
    assert_eq!(property("strings").strings().collect::<Vec<_>>(), ["a", "bc"]);
    assert_eq!(property("strings").string(), None);
    assert_eq!(property("open").string(), None);
    assert_eq!(property("empty").string(), None);
    assert_eq!(property("nul").string(), Some(""));
}

#[test]
fn faults_are_named() {
    let fault = |blob: &[u8]| Tree::new(blob).expect_err("a fault").to_string();
    let prefix = "not a valid device tree: ";
    assert_eq!(fault(&[]), format!("{prefix}the blob is shorter than its header says at byte 0x0"));
    assert_eq!(fault(&[0; 64]), format!("{prefix}no magic number at byte 0x0"));
    assert_eq!(
        fault(&VIRT[..VIRT.len() - 1]),
        format!("{prefix}the blob is shorter than its header says at byte 0x0")
    );
    let mut endless = write(|_| {});
    // Behind the last 16 bytes there is no entry.
    let last = endless.len() as u32 - 8;
    endless[16..20].copy_from_slice(&last.to_be_bytes());
    assert!(fault(&endless).starts_with(&format!("{prefix}the reservations do not end")));
    let deep = write(|w| {
        for _ in 0..40 {
            w.begin(format_args!("a"));
        }
        for _ in 0..40 {
            w.end();
        }
    });
    assert!(fault(&deep).starts_with(&format!("{prefix}nodes are nested too deep")), "{}", fault(&deep));
    let late = write(|w| {
        w.begin(format_args!("a"));
        w.end();
        w.cells("late", &[1]);
    });
    assert!(fault(&late).starts_with(&format!("{prefix}an unexpected token")), "{}", fault(&late));
    let name = write(|w| {
        w.begin(format_args!("a b"));
        w.end();
    });
    assert!(fault(&name).starts_with(&format!("{prefix}a node's name is malformed")));
    let open = write(|w| w.begin(format_args!("a")));
    assert!(fault(&open).starts_with(&format!("{prefix}an unexpected token")), "{}", fault(&open));
}

#[test]
fn bytes_behind_the_tree_are_ignored() {
    let mut blob = VIRT.to_vec();
    blob.resize(blob.len() + 4096, 0xa5);
    assert_eq!(Tree::new(&blob).expect("a tree").size(), VIRT.len());
}
