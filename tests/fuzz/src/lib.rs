//! What is promised of bytes that come from outside, one function for each kind: a result or an error, never a panic, in bounded
//! time and memory.
//!
//! Each function is the whole of a fuzz target and takes what the fuzzer invents. That they are plain functions lets a test run every
//! seed through them, under Miri too. `hyp/docs/fuzzing.md` says how to run them.

mod blob;
#[cfg(test)]
mod bounds;
mod edit;
mod manifests;
mod world;

use std::hint::black_box;

use arbitrary::Unstructured;
use bulkhead_policy::bundle::Bundle;
use bulkhead_policy::image::Image;
use bulkhead_policy::inventory::{self, Inventory, compress_in_software};
use bulkhead_policy::platform::Platform;
use bulkhead_policy::tree::{Node, Tree};

use world::World;

/// A name and the function that it stands for.
pub type Target = (&'static str, fn(&[u8]));

/// All targets. Their seeds are in the folders of these names.
pub const TARGETS: [Target; 6] = [
    ("firmware_tree", firmware_tree),
    ("manifest", manifest),
    ("board_and_manifest", board_and_manifest),
    ("bundle", bundle),
    ("image", image),
    ("guest_tree", guest_tree),
];

/// Any bytes as the firmware's tree: the gate, all that can be asked of a tree, and the platform.
///
/// What passes the gate reads the same with another reader, if that one accepts it.
pub fn firmware_tree(bytes: &[u8]) {
    let Ok(tree) = Tree::new(bytes) else { return };
    read_everything(&tree);
    if let Ok(other) = dtoolkit::fdt::Fdt::new(bytes) {
        agree(&tree, other);
    }
    match Platform::from_tree(&tree, &bulkhead_boards::BOARDS) {
        Ok(platform) => world::sound_platform(&platform),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// Any bytes as a manifest for a good board, and manifests that are put together from what could stand there.
pub fn manifest(bytes: &[u8]) {
    if bytes.starts_with(&blob::MAGIC) {
        return World::fixed(world::VIRT).check(bytes, |_, _, _| {});
    }
    let mut choices = Unstructured::new(bytes);
    let world = World::chosen(&mut choices);
    let mut manifest = manifests::compose(&mut choices, world.board());
    edit::some(&mut manifest, &mut choices);
    world.check(&manifest.finish(), |_, _, _| {});
}

/// A board's tree with changes, and a manifest that would be valid on many boards.
pub fn board_and_manifest(bytes: &[u8]) {
    let mut choices = Unstructured::new(bytes);
    let manifest = choices.arbitrary().unwrap_or(0_u8);
    let mut board = world::chosen_blob(&mut choices);
    edit::many(&mut board, &mut choices);
    let board = board.finish();
    let Ok(tree) = Tree::new(&board) else { return };
    let Some(world) = World::new(&tree) else { return };
    let manifest = if manifest.is_multiple_of(4) {
        manifests::compose(&mut choices, &tree)
    } else {
        manifests::typical(manifest, &mut choices, &tree)
    };
    world.check(&manifest.finish(), |_, _, _| {});
}

/// Any bytes as a bundle.
pub fn bundle(bytes: &[u8]) {
    let bundle = match Bundle::new(bytes) {
        Ok(bundle) => bundle,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    let mut total = 0;
    for entry in bundle.entries() {
        total += entry.name.len() + entry.data.len();
        let found = bundle.find(entry.name).expect("what is listed is found");
        let first = bundle.entries().find(|other| other.name == entry.name);
        assert_eq!(first.map(|first| first.data), Some(found));
    }
    assert!(total <= bytes.len());
    // As at boot.
    if let Some(list) = bundle.find(inventory::ENTRY)
        && let Some(inventory) = Inventory::new(list, compress_in_software)
    {
        for entry in bundle.entries() {
            let verdict = inventory.verify(entry.name, entry.data, compress_in_software);
            assert!(!verdict.to_string().is_empty());
        }
    }
    if let Some(blob) = bundle.find(bulkhead_policy::manifest::BUNDLE_ENTRY) {
        World::fixed(world::TINY).check_with(blob, &|name| bundle.find(name), |_, _, _| {});
    }
}

/// Any bytes as a kernel, loaded as different manifests say.
pub fn image(bytes: &[u8]) {
    let mut choices = Unstructured::new(bytes);
    let kernel = match Image::parse(bytes) {
        // A manifest with it is refused as well.
        Err(_) => bytes,
        // What a raw binary holds decides nothing, so it says how it is loaded.
        Ok(Image::Raw) => bytes,
        // The header is at the front; choices are taken from the end.
        Ok(_) => {
            choices = Unstructured::new(bytes.last_chunk::<48>().map_or(&[], |last| &last[..]));
            bytes
        }
    };
    let world = World::fixed(world::TINY);
    let manifest = manifests::one_kernel(&mut choices).finish();
    world.check_with(
        &manifest,
        &|name| match name {
            "kernel" => Some(kernel),
            "ramdisk" => bytes.get(..bytes.len() / 2),
            _ => None,
        },
        |_, _, plan| {
            for segment in plan.partitions.iter().flat_map(|partition| &partition.segments) {
                let source = if segment.payload == "kernel" { kernel.len() } else { bytes.len() / 2 };
                let end = segment.offset.checked_add(segment.file_size).expect("a segment ends");
                assert!(end <= source as u64 && segment.file_size <= segment.memory_size);
            }
        },
    );
}

/// The trees of the guests of any plan: they fit or there is an error, are well formed for two readers, and name no address that the
/// partition does not have.
pub fn guest_tree(bytes: &[u8]) {
    let mut choices = Unstructured::new(bytes);
    let mut board = world::chosen_blob(&mut choices);
    let kind = choices.arbitrary().unwrap_or(0_u8);
    edit::some(&mut board, &mut choices);
    let board = board.finish();
    let Ok(tree) = Tree::new(&board) else { return };
    let Some(world) = World::new(&tree) else { return };
    let manifest = manifests::typical(kind, &mut choices, &tree).finish();
    world.check(&manifest, |board, platform, plan| {
        plan.partitions.iter().for_each(|partition| world::sound_guest_tree(board, platform, partition));
    });
}

/// Asks all that can be asked of a tree and holds some answers against each other.
fn read_everything(tree: &Tree<'_>) {
    for node in tree.nodes() {
        read_node(tree, node);
    }
    black_box((tree.stdout(), tree.cpus().count(), tree.free_phandle(), tree.size()));
    assert!(tree.reservations().count() <= tree.size() / 16);
    let aliases = tree.root().child("aliases").map(Node::properties);
    for alias in aliases.into_iter().flatten() {
        if let Some(node) = tree.find(alias.name) {
            assert!(tree.root().is_above(node));
        }
    }
}

fn read_node<'t>(tree: &'t Tree<'t>, node: Node<'t>) {
    assert!(tree.root().is_above(node));
    assert!(node.parent().is_none_or(|parent| parent.is_above(node) && parent != node));
    assert!(node.path().ends_with(node.name()) && node.name().starts_with(node.base_name()));
    assert_eq!(node.reg().count(), node.reg().take(1 << 20).count());
    black_box((node.raw_reg().count(), node.is_enabled(), node.is_memory(), node.phandle(), node.cells()));
    black_box((node.compatible().count(), node.children().count(), node.interrupt_parent()));
    for (controller, specifier) in node.interrupts().flatten() {
        black_box((controller.path(), specifier.cells(), specifier.gic()));
    }
    for entry in (0..64).map_while(|index| node.dma_range(index)) {
        black_box(entry);
    }
    for property in node.properties() {
        assert!(node.property(property.name).is_some(), "{} of {node:?}", property.name);
        black_box((property.u32(), property.u64(), property.string(), property.strings().count()));
        black_box((property.u32s().map(Iterator::count), property.u64s().map(Iterator::count)));
    }
}

/// Both readers see the same nodes and properties.
fn agree(tree: &Tree<'_>, other: dtoolkit::fdt::Fdt<'_>) {
    use dtoolkit::{Node as _, Property as _};

    fn walk<'t>(mine: Node<'t>, theirs: dtoolkit::fdt::FdtNode<'_>) {
        let mut properties = theirs.properties();
        for property in mine.properties() {
            let other = properties.next().expect("as many properties");
            assert_eq!((property.name, property.value), (other.name(), other.value()));
        }
        assert!(properties.next().is_none());
        let mut children = theirs.children();
        for child in mine.children() {
            let other = children.next().expect("as many nodes");
            assert_eq!(child.name(), other.name());
            walk(child, other);
        }
        assert!(children.next().is_none());
    }
    walk(tree.root(), other.root());
}
