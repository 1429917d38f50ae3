//! The policy's findings as the tool shows them: with what was probably meant, or with the mend where that of the rule's page is none.
//!
//! The hypervisor has neither: its image is small, and nobody mends a manifest at its console.

use std::path::Path;

use bulkhead_board::Board;
use bulkhead_boards::BOARDS;
use bulkhead_policy::addr::PAGE_SIZE;
use bulkhead_policy::manifest::{DTB_SPACE, Finding, Key, Place, Rule, Value};
use bulkhead_policy::tree::{Node, Tree};

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::kinds;
use crate::system::Parts;

/// Names less alike than this are not offered; 1 is the same.
const ALIKE: f64 = 0.6;

/// What other tools and trees call it.
const ELSEWHERE: [(&str, Key); 10] = [
    ("image", Key::Kernel),
    ("initrd", Key::Ramdisk),
    ("initramfs", Key::Ramdisk),
    ("cmdline", Key::Bootargs),
    ("command-line", Key::Bootargs),
    ("reg", Key::Memory),
    ("ram", Key::Memory),
    ("vcpus", Key::Cpus),
    ("os", Key::OsType),
    ("devices", Key::Access),
];

/// The code of a guest's device tree that is too large. At boot its partition does not start.
pub const TREE_TOO_LARGE: &str = "BH0002";

/// The finding that the device tree of `partition` does not fit into the space kept for it.
#[must_use]
pub fn tree_too_large(partition: &str) -> Diagnostic {
    Diagnostic {
        code: TREE_TOO_LARGE.to_owned(),
        severity: Severity::Error,
        message: format!("the device tree of {partition} does not fit into {} KiB", DTB_SPACE >> 10),
        at: Location { path: format!("/partitions/{partition}"), property: None, entry: None },
        other: None,
        notes: Vec::new(),
        help: None,
    }
}

/// Makes a finding of the policy's one of the tool's, with the name that was probably meant and what else there is to know.
#[must_use]
pub fn diagnostic(finding: &Finding<'_>, parts: &Parts, board: &Tree<'_>) -> Diagnostic {
    let mut notes = Vec::new();
    if finding.rule == Rule::PayloadMissing {
        notes.push(format!("looked for it in {}", parts.searched()));
    }
    if let (Rule::NotLinux, Value::Text(name)) = (finding.rule, finding.values[0])
        && let Some(kind) = parts.payload(name).and_then(kinds::of)
    {
        return Diagnostic {
            notes: vec![format!("it is {}", kind.what)],
            help: Some(kind.mend),
            ..plain(finding)
        };
    }
    if let (Rule::NoSuchPath | Rule::NoSuchAlias, Value::Text(name)) = (finding.rule, finding.values[0])
        && let Some(target) = lost(name, board)
    {
        notes.push(format!("the alias leads to {target}, which this board's tree lacks"));
    }
    if finding.rule == Rule::NoSuchAlias && aliases(board).next().is_none() {
        notes.push("the board's tree has no aliases at all: name the device by its path".to_owned());
    }
    let help = meant(finding, parts, board).or_else(|| mend(finding, board));
    Diagnostic { notes, help, ..plain(finding) }
}

/// The findings, one for each mistake, with notes of what else it leads to. The hypervisor tells all.
#[must_use]
pub fn causes<'f, 'a>(findings: &'f [Finding<'a>]) -> Vec<(&'f Finding<'a>, Vec<String>)> {
    let mut causes: Vec<(&Finding<'a>, Vec<String>)> = Vec::new();
    for finding in findings.iter().filter(|finding| !findings.iter().any(|cause| follows(finding, cause))) {
        match causes.iter_mut().find(|(cause, _)| repeats(finding, cause)) {
            Some((_, notes)) => notes.push(finding.message().to_string()),
            None => causes.push((finding, Vec::new())),
        }
    }
    causes
}

/// Whether it is the same of one more neighbour, or one more interrupt.
fn repeats(finding: &Finding<'_>, first: &Finding<'_>) -> bool {
    let with_many = [Rule::InterruptShared, Rule::PageOfNobody, Rule::RegistersOfNobody];
    with_many.contains(&finding.rule)
        && (finding.rule, finding.at, finding.other) == (first.rule, first.at, first.other)
}

/// Whether the finding is there only because of the other one.
fn follows(finding: &Finding<'_>, cause: &Finding<'_>) -> bool {
    let (at, name) = (finding.at, cause.values[0]);
    match (finding.rule, cause.rule, name) {
        // Of another kind of tree nothing else can be said.
        (rule, Rule::NotAManifest, _) => rule != Rule::NotAManifest && is_other_tree(cause.at.node),
        // What was meant is missing where its name is misspelt.
        (Rule::Missing, Rule::UnknownProperty, Value::Text(name)) => {
            at.node == cause.at.node && property(name, at.node.path()).as_deref() == Some(at.property)
        }
        (Rule::NoPartitions, Rule::UnknownNode, Value::Text(name)) => partitions(name).is_some(),
        // What would stand in it stands beside it.
        (Rule::UnknownNode, Rule::NoPartitions, _) => {
            is_partition(at.node) && partitions(at.node.name()).is_none()
        }
        // The emulated console stands where the real one is, which cannot be given away.
        (Rule::ConsoleOverDevice, Rule::ConsoleGivenAway, port) => {
            at.node == cause.at.node && finding.values[2] == port
        }
        (Rule::ConsoleInterruptTaken, Rule::ConsoleGivenAway, _) => {
            let chosen = at.node.property(Key::ConsoleInterrupt.name()).is_some();
            at.node == cause.at.node && !chosen
        }
        // A device is named in these lists because it is in `access`.
        (Rule::NoSuchPath | Rule::NoSuchAlias, rule, _) => {
            let repeats = [Key::Polled.name(), Key::UnprotectedDma.name()].contains(&at.property);
            repeats
                && finding.rule == rule
                && (at.node, finding.values[0]) == (cause.at.node, name)
                && [Key::Access.name(), Key::AccessRegisters.name()].contains(&cause.at.property)
        }
        _ => false,
    }
}

/// The mend where that of the rule's page is none in this case.
fn mend(finding: &Finding<'_>, board: &Tree<'_>) -> Option<String> {
    match (finding.rule, finding.values) {
        // Memory that is found where the partition sees it: no other place can be chosen for it.
        (
            Rule::NotRam
            | Rule::OverPartition
            | Rule::OverHypervisor
            | Rule::OverBundle
            | Rule::OverFirmware,
            _,
        ) if finding.at.property == Key::Memory.name() => Some(
            "the devices in `unprotected-dma` take these addresses for physical ones: move `memory` to free RAM"
                .to_owned(),
        ),
        (Rule::NoSuchPath | Rule::NoSuchAlias, [Value::Text(name), ..]) => lost(name, board).map(|_| {
            "take it out, or check with `--dtb` for the board that has it".to_owned()
        }),
        (Rule::NotAManifest, _) if is_other_tree(finding.at.node) && finding.at.node.child("cpus").is_some() => {
            Some("name a board's tree by `--dtb`, and a manifest beside it".to_owned())
        }
        (Rule::NothingToDivide, _) => {
            let property = finding.at.property;
            let has = |known: &&Board| known.divided.iter().any(|device| device.property == property);
            let known = BOARDS.iter().find(has)?;
            Some(format!("take it out, or choose the board that it is for, such as `--board {}`", known.name))
        }
        (Rule::UnknownNode, _) if is_partition(finding.at.node) => {
            Some("move it into the node `partitions`, where all partitions stand".to_owned())
        }
        (Rule::WrongForm, _) if finding.at.property == Key::Bootargs.name() => {
            Some("put all words into one string, parted by spaces".to_owned())
        }
        (Rule::InterruptShared, _) if finding.at.property == Key::GpioPins.name() => {
            let device = divided(finding.at.property, board)?;
            Some(format!("name {device} in `polled` of one of the two, which then has its pins without their interrupt"))
        }
        (Rule::UnitOwned, _) if finding.other.is_some_and(|other| other.node == finding.at.node) => {
            Some("take the second one out".to_owned())
        }
        (Rule::MemoryUnaligned, [Value::Number(start), Value::Number(size), _]) => {
            // As it looks, but with the `0x` that it lacks.
            let [start, size] = [start, size].map(|number| u64::from_str_radix(&number.to_string(), 16).ok());
            let (start, size) = (start?, size?);
            let meant = start.is_multiple_of(PAGE_SIZE) && size.is_multiple_of(PAGE_SIZE);
            meant.then(|| format!("numbers without `0x` are decimal: {start:#x} and {size:#x} are whole pages"))
        }
        (Rule::MemoryBeyond, [Value::Number(start), _, Value::Number(bits)]) => {
            let end = 1 << bits;
            (start < end).then(|| format!("make the size smaller: the range ends at {end:#x} at the latest"))
        }
        (Rule::DmaMaster | Rule::Bus, [Value::Text(path), ..]) if is_pci(board.find(path)?) => {
            Some("take it out: PCI and what is behind it is given to nobody".to_owned())
        }
        _ => None,
    }
}

/// Whether it is the root of a tree that is for something else, not of a manifest whose `compatible` is wrong.
fn is_other_tree(root: Node<'_>) -> bool {
    root.compatible().next().is_some() && root.compatible().all(|name| !name.starts_with(b"bulkhead"))
}

/// Whether a node has what a partition has.
fn is_partition(node: Node<'_>) -> bool {
    [Key::Cpus, Key::Memory, Key::Kernel].iter().any(|key| node.property(key.name()).is_some())
}

/// Path of the device whose units this property gives away.
fn divided<'t>(property: &str, board: &'t Tree<'t>) -> Option<&'t str> {
    let mut known = BOARDS.iter().flat_map(|board| board.divided);
    let device = known.find(|device| device.property == property)?;
    board.nodes().find(|node| node.is_compatible(device.compatible)).map(|node| node.path())
}

/// Where an alias leads that names nothing.
fn lost<'t>(alias: &str, board: &'t Tree<'t>) -> Option<&'t str> {
    let target = board.find("/aliases")?.property(alias)?.string()?;
    board.find(alias).is_none().then_some(target)
}

/// Whether it is a host bridge of PCI (IEEE 1275, PCI Bus Binding, 3.1.1).
fn is_pci(node: Node<'_>) -> bool {
    node.property("device_type").and_then(|kind| kind.string()) == Some("pci")
        || node.compatible().any(|name| name.starts_with(b"pci-host-"))
}

/// What a finding of the policy's says by itself.
#[must_use]
pub fn plain(finding: &Finding<'_>) -> Diagnostic {
    let at = location(finding.at);
    let other = match (finding.rule, finding.other) {
        (Rule::NodeTwice | Rule::PropertyTwice, _) => Some((at.clone(), "given here first".to_owned())),
        (Rule::CpuTwice | Rule::DeviceTwice, Some(other)) => {
            Some((location(other), "named here first".to_owned()))
        }
        (_, other) => other.map(|other| (location(other), other.node.path().to_owned())),
    };
    Diagnostic {
        code: format!("BH{}", finding.rule.code()),
        severity: Severity::Error,
        message: finding.message().to_string(),
        at,
        other,
        notes: Vec::new(),
        help: None,
    }
}

fn location(place: Place<'_>) -> Location {
    Location {
        path: place.node.path().to_owned(),
        property: (!place.property.is_empty()).then(|| place.property.to_owned()),
        entry: place.entry.map(usize::from),
    }
}

/// What was probably meant by a name that is wrong, as a question.
fn meant(finding: &Finding<'_>, parts: &Parts, board: &Tree<'_>) -> Option<String> {
    let Value::Text(wrong) = finding.values[0] else { return None };
    let name = match finding.rule {
        Rule::UnknownProperty => property(wrong, finding.at.node.path()),
        Rule::UnknownNode => partitions(wrong),
        Rule::NoSuchPath | Rule::NoSuchAlias => return device(wrong, board),
        Rule::UnknownValue => {
            // The text names all that it may be, each between quotation marks.
            let value = finding.at.node.property(finding.at.property)?.string()?;
            nearest(value, wrong.split('"').skip(1).step_by(2))
        }
        Rule::PayloadMissing => file(wrong, parts.offered().iter().map(String::as_str)),
        _ => None,
    };
    name.map(|name| question(&name))
}

/// The property of the node at `path` that was probably meant.
fn property(wrong: &str, path: &str) -> Option<String> {
    let keys = Key::ALL.iter().map(|key| key.name());
    // What the root has of its own.
    let in_root = ["compatible", "console"].into_iter();
    let elsewhere =
        || ELSEWHERE.iter().find(|(other, _)| *other == wrong).map(|(_, key)| key.name().to_owned());
    match path {
        "/" => nearest(wrong, in_root),
        "/partitions" => None,
        _ => elsewhere().or_else(|| nearest(wrong, keys)),
    }
}

fn partitions(wrong: &str) -> Option<String> {
    nearest(wrong, ["partitions"].into_iter())
}

fn question(name: &str) -> String {
    format!("did you mean \"{name}\"?")
}

/// The device that was probably meant: the node of that very name elsewhere, or a name with a slip in it. A device of another kind
/// at another address was not.
fn device(wrong: &str, board: &Tree<'_>) -> Option<String> {
    let parts = |path: &str| {
        let name = path.rsplit('/').next().unwrap_or_default();
        let (base, unit) = name.split_once('@').unwrap_or((name, ""));
        (base.to_owned(), unit.to_owned())
    };
    if wrong.contains([' ', ';']) {
        return Some("give each name between quotation marks of its own: \"...\", \"...\"".to_owned());
    }
    let (base, unit) = parts(wrong);
    let nodes = || board.nodes().filter(|node| node.path() != "/");
    let mut same = nodes().filter(|node| node.base_name() == base && !base.is_empty());
    if unit.is_empty() {
        match (same.next(), same.next()) {
            (Some(one), None) => return Some(question(one.path())),
            (Some(one), Some(_)) => {
                return Some(format!(
                    "several nodes are called so: give the one that is meant its address, such as \"{}\"",
                    one.path()
                ));
            }
            (None, _) => {}
        }
    } else if let Some(one) = same.find(|node| parts(node.path()).1 == unit) {
        return Some(question(one.path()));
    }
    let alike = nodes().map(|node| node.path()).filter(|path| {
        let (other, at) = parts(path);
        other == base || at == unit
    });
    let aliases = aliases(board).filter(|alias| board.find(alias).is_some());
    let name = if wrong.starts_with('/') { nearest(wrong, alike) } else { nearest(wrong, aliases) };
    name.map(|name| question(&name))
}

fn aliases<'t>(board: &'t Tree<'t>) -> impl Iterator<Item = &'t str> {
    board.find("/aliases").into_iter().flat_map(|node| node.properties()).map(|property| property.name)
}

/// As [`nearest`], of files: that two are of one kind makes them no more alike. The folder is not in a file's name.
fn file<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    let wrong = Path::new(wrong).file_name()?.to_str()?;
    let stem = |name| Path::new(name).file_stem().unwrap_or_default().to_string_lossy();
    nearest(wrong, names.filter(|name| nearest(&stem(wrong), std::iter::once(&*stem(name))).is_some()))
}

fn nearest<'n>(wrong: &str, names: impl Iterator<Item = &'n str>) -> Option<String> {
    // A transposition is one slip of the finger, capitals are none.
    let (wrong, small) = (wrong.to_lowercase(), str::to_lowercase);
    let rated = names.map(|name| (strsim::normalized_damerau_levenshtein(&wrong, &small(name)), name));
    let best = rated.filter(|(rate, _)| *rate >= ALIKE).max_by(|(one, _), (two, _)| one.total_cmp(two));
    best.map(|(_, name)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use bulkhead_policy::manifest;
    use bulkhead_policy::platform::Platform;

    use super::*;
    use crate::source::compiled;

    #[test]
    fn slips_are_recognised() {
        let keys = || Key::ALL.iter().map(|key| key.name());
        for (wrong, meant) in
            [("cpu", "cpus"), ("memroy", "memory"), ("acces", "access"), ("bootarg", "bootargs")]
        {
            assert_eq!(nearest(wrong, keys()).as_deref(), Some(meant));
        }
        assert_eq!(nearest("colour", keys()), None);
        let files = || ["storm.bin", "Image", "initramfs.cpio", "freertos.bin"].into_iter();
        for (wrong, meant) in [
            ("image", Some("Image")),
            ("initramfs.cpio.gz", Some("initramfs.cpio")),
            ("freetros.bin", Some("freertos.bin")),
            ("rtos.bin", None),
            ("guest.bin", None),
            ("boot/Image", Some("Image")),
        ] {
            assert_eq!(file(wrong, files()).as_deref(), meant, "{wrong}");
        }
    }

    #[test]
    fn a_device_of_another_kind_is_not_meant() {
        let virt = include_bytes!("../../../tests/manifests/boards/qemu-virt-gicv3.dtb");
        let virt = Tree::new(virt).expect("a tree");
        let said = |wrong| device(wrong, &virt);
        for wrong in ["pl031@9010000", "/soc/pl031@9010000", "/pl031", "/pl031@9010001", "/pl013@9010000"] {
            assert_eq!(said(wrong).as_deref(), Some("did you mean \"/pl031@9010000\"?"), "{wrong}");
        }
        assert!(said("/pl031, /pl061").is_some_and(|said| said.starts_with("give each name between")));
        assert!(said("/virtio_mmio").is_some_and(|said| said.starts_with("several nodes are called so")));
        let pi = include_bytes!("../../../tests/manifests/boards/rpi4-8g.dtb");
        let pi = Tree::new(pi).expect("a tree");
        for wrong in ["/soc/spi@7e204000", "serial@7e204001", "/", ""] {
            assert!(!device(wrong, &pi).is_some_and(|said| said.contains("gpio")), "{wrong}");
        }
    }

    /// What is said of the first fault of a partition with these properties on QEMU's virt.
    fn said(properties: &str) -> Option<String> {
        said_on(include_bytes!("../../../tests/manifests/boards/qemu-virt-gicv3.dtb"), properties)
    }

    fn said_on(board: &[u8], properties: &str) -> Option<String> {
        let guest = "os,type = \"bare\"; cpus = <0>; kernel = \"guest\";";
        let source = format!("partitions {{ a {{ {guest} {properties} }}; }};");
        with_faults(board, &source, |found, board| mend(&found[0], board))
    }

    /// The faults of a manifest with this in its root.
    fn with_faults<T>(board: &[u8], source: &str, then: impl FnOnce(&[Finding<'_>], &Tree<'_>) -> T) -> T {
        let blob = compiled(&format!("/dts-v1/; / {{ compatible = \"bulkhead,manifest-v1\"; {source} }};"));
        let (board, tree) = (Tree::new(board).expect("a tree"), Tree::new(&blob).expect("a tree"));
        let mut platform = Platform::from_tree(&board, &BOARDS).expect("a board");
        let found = manifest::check(&tree, &mut platform, &board, &|_| Some(&[0; 64]));
        then(&found.expect_err("a fault"), &board)
    }

    /// The rules that are told of a manifest, each with the number of its notes.
    fn told(board: &[u8], source: &str) -> Vec<(Rule, usize)> {
        with_faults(board, source, |found, _| {
            causes(found).into_iter().map(|(finding, notes)| (finding.rule, notes.len())).collect()
        })
    }

    #[test]
    fn a_mistake_is_told_once() {
        let virt = include_bytes!("../../../tests/manifests/boards/qemu-virt-gicv3.dtb");
        let guest =
            "os,type = \"bare\"; cpus = <0>; memory = /bits/ 64 <0x40000000 0x1000000>; kernel = \"guest\";";
        let one = |guest: &str| format!("partitions {{ a {{ {guest} }}; }};");
        for wrong in ["cpu", "CPUs", "vcpus"] {
            let wrong = one(&guest.replace("cpus", wrong));
            assert_eq!(told(virt, &wrong), [(Rule::UnknownProperty, 0)], "{wrong}");
        }
        // Of two that are wrong, each; what nothing is like is missing all the same.
        let both = one(&guest.replace("cpus", "cpu").replace("kernel", "kernal"));
        assert_eq!(told(virt, &both), [(Rule::UnknownProperty, 0); 2]);
        let other = one(&guest.replace("cpus", "colour"));
        assert_eq!(told(virt, &other), [(Rule::UnknownProperty, 0), (Rule::Missing, 0)]);
        assert_eq!(told(virt, &one(guest).replace("partitions", "partition")), [(Rule::UnknownNode, 0)]);
        assert_eq!(told(virt, &format!("a {{ {guest} }};")), [(Rule::NoPartitions, 0)]);
        assert_eq!(told(virt, &format!("partition {{ {guest} }};")), [(Rule::UnknownNode, 0)]);
        let console = format!("{guest} console = \"pl011\"; access = \"/pl011@9000000\";");
        assert_eq!(told(virt, &one(&console)), [(Rule::ConsoleGivenAway, 0)]);
        // Another device in the console's place is another mistake.
        let moved = "console-address = /bits/ 64 <0x9010000>;";
        let moved =
            format!("{guest} console = \"pl011\"; {moved} access = \"/pl011@9000000\", \"/pl031@9010000\";");
        let moved: Vec<_> = told(virt, &one(&moved)).into_iter().map(|(rule, _)| rule).collect();
        assert!(
            moved.contains(&Rule::ConsoleOverDevice) && moved.contains(&Rule::ConsoleGivenAway),
            "{moved:?}"
        );
        let lists = format!("{guest} access = \"/no\"; unprotected-dma = \"/no\";");
        let lists = told(virt, &one(&lists));
        assert_eq!(lists.iter().filter(|(rule, _)| *rule == Rule::NoSuchPath).count(), 1, "{lists:?}");
    }

    #[test]
    fn a_boards_tree_is_no_manifest_with_many_faults() {
        let virt = include_bytes!("../../../tests/manifests/boards/qemu-virt-gicv3.dtb");
        let tree = Tree::new(virt).expect("a tree");
        let mut platform = Platform::from_tree(&tree, &BOARDS).expect("a board");
        let found = manifest::check(&tree, &mut platform, &tree, &|_| None).expect_err("no manifest");
        let told = causes(&found);
        assert!(found.len() > 1 && told.len() == 1, "{found:?}");
        assert!(mend(told[0].0, &tree).is_some_and(|mend| mend.contains("--dtb")));
        // This is a manifest with a slip.
        let blob = compiled("/dts-v1/; / { compatible = \"bulkhead,manifest\"; colour; };");
        let slip = Tree::new(&blob).expect("a tree");
        let found = manifest::check(&slip, &mut platform, &tree, &|_| None).expect_err("faults");
        assert_eq!(causes(&found).len(), found.len());
    }

    #[test]
    fn what_is_for_another_board_says_so() {
        let mend = said("memory = /bits/ 64 <0x40000000 0x1000000>; gpio-pins = <4>;");
        assert!(mend.is_some_and(|mend| mend.ends_with("`--board rpi4`")));
    }

    #[test]
    fn what_many_neighbours_share_is_told_once() {
        let pi = include_bytes!("../../../tests/manifests/boards/rpi4-qemu.dtb");
        let guest = "os,type = \"bare\"; memory = /bits/ 64 <0x40000000 0x100000>; kernel = \"guest\";";
        let pins = format!(
            "partitions {{ a {{ {guest} cpus = <0>; gpio-pins = <4>; }}; b {{ {guest} cpus = <1>; gpio-pins = <5>; }}; }};"
        );
        assert_eq!(told(pi, &pins), [(Rule::InterruptShared, 3)]);
        let page = format!("partitions {{ a {{ {guest} cpus = <0>; access = \"serial1\"; }}; }};");
        assert_eq!(told(pi, &page), [(Rule::PageOfNobody, 2)]);
    }

    #[test]
    fn an_alias_that_leads_nowhere_is_not_offered() {
        let pi = include_bytes!("../../../tests/manifests/boards/rpi4-qemu.dtb");
        let mend = said_on(pi, "memory = /bits/ 64 <0x40000000 0x1000000>; access = \"ethernet0\";");
        assert!(mend.is_some_and(|mend| mend.contains("--dtb")));
        let pi = Tree::new(pi).expect("a tree");
        assert_eq!(lost("ethernet0", &pi), Some("/scb/ethernet@7d580000"));
        assert_eq!(lost("serial0", &pi), None);
        assert_eq!(device("ethernet0", &pi), None);
    }

    #[test]
    fn a_part_that_is_given_twice_is_taken_out_once() {
        let board = include_bytes!("../../../tests/manifests/boards/rpi4-qemu.dtb");
        let memory = "memory = /bits/ 64 <0x40000000 0x1000000>;";
        let mend = said_on(board, &format!("{memory} gpio-pins = <4 4>;"));
        assert_eq!(mend.as_deref(), Some("take the second one out"));
    }

    #[test]
    fn no_mend_leads_in_a_circle() {
        let memory = "memory = /bits/ 64 <0x40000000 0x1000000>;";
        let pci = "access = \"/pcie@10000000\";";
        let named = "unprotected-dma = \"/pcie@10000000\";";
        let given_to_nobody = "take it out: PCI and what is behind it is given to nobody";
        assert_eq!(said(&format!("{memory} {pci}")).as_deref(), Some(given_to_nobody));
        let at = "memory = /bits/ 64 <0x50000000 0x1000000>;";
        assert_eq!(said(&format!("{at} {pci} {named}")).as_deref(), Some(given_to_nobody));
        let large = said("memory = /bits/ 64 <0x40000000 0x8000000000>;").expect("a mend");
        assert!(large.starts_with("make the size smaller: the range ends at 0x8000000000"), "{large}");
        assert_eq!(said("memory = /bits/ 64 <0x8000000000 0x1000>;"), None);
        let decimal = said("memory = /bits/ 64 <40000000 20000000>;").expect("a mend");
        assert!(decimal.ends_with("0x40000000 and 0x20000000 are whole pages"), "{decimal}");
        assert_eq!(said("memory = /bits/ 64 <0x40000000 0x1000800>;"), None);
        let device = "access = \"/pl061@9030000\"; unprotected-dma = \"/pl061@9030000\";";
        let there = said(&format!("memory = /bits/ 64 <0x10000000 0x1000000>; {device}"));
        assert!(there.is_some_and(|said| said.ends_with("move `memory` to free RAM")));
    }
}
