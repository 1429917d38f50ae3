//! The largest manifest that there can be is accepted.

use std::fs;
use std::path::{Path, PathBuf};

use bulkhead::source::dtc;
use bulkhead_boards::BOARDS;
use bulkhead_policy::manifest;
use bulkhead_policy::plan::{MAX_CPUS, MAX_PARTITIONS};
use bulkhead_policy::platform::Platform;
use bulkhead_policy::tree::Tree;

fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/manifests")
}

fn compile(source: &str) -> Vec<u8> {
    let (blob, messages) = dtc(source, &manifests()).expect("dtc runs");
    blob.unwrap_or_else(|| panic!("{messages}"))
}

#[test]
fn thirty_two_partitions_on_64_cpus_are_accepted() {
    let board = fs::read(manifests().join("boards/qemu-virt-gicv3-64.dtb")).expect("the board's tree");
    let source = fs::read_to_string(manifests().join("scale/thirty-two.dts")).expect("the manifest");
    let guest = vec![0xd5; 64 << 10];
    let blob = compile(&source);
    let (board, tree) = (Tree::new(&board).expect("a tree"), Tree::new(&blob).expect("a tree"));
    let mut platform = Platform::from_tree(&board, &BOARDS).expect("a machine");
    let plan =
        manifest::check(&tree, &mut platform, &board, &|name| (name == "tenant").then_some(&guest[..]));
    let plan = plan.unwrap_or_else(|findings| panic!("{findings:?}"));
    assert_eq!(plan.partitions.len(), MAX_PARTITIONS);
    assert_eq!(plan.partitions.iter().map(|partition| partition.cpus.len()).sum::<usize>(), MAX_CPUS);
}
