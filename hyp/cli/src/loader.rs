//! What `build` writes for each way of starting: two files for a loader that takes an initrd, one file for a loader that takes
//! only one, commands for U-Boot, and a command line for QEMU.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bulkhead_policy::addr::{Address, Pa, Region};
use bulkhead_policy::platform::Platform;
use bulkhead_policy::tree::Tree;

use crate::board::{Board, Occupied, Origin, QEMU};
use crate::output::Output;
use crate::say;
use crate::system::{self, BUNDLE, IMAGE, Recipe, System};
use crate::workspace::{Noise, Workspace};

/// Image and bundle in one file.
pub const SINGLE: &str = "bulkhead-single.img";
/// Starts the system in QEMU.
pub const RUN: &str = "run-qemu.sh";
/// U-Boot's commands, to be read.
pub const COMMANDS: &str = "boot.cmd";
/// U-Boot's commands, as U-Boot takes them.
pub const SCRIPT: &str = "boot.scr";
/// The tree that QEMU hands over, for a machine of which it does not make the tree itself.
pub const TREE: &str = "board.dtb";

/// What was built, and where it lies.
#[derive(Clone, Debug)]
pub struct Outputs {
    /// Image and bundle.
    pub system: System,
    /// What was written besides.
    pub others: Vec<PathBuf>,
    /// What could not be written and why, a line each.
    pub missing: Vec<String>,
}

/// Builds and checks a system and writes it into `folder` for all loaders that suit it.
///
/// # Errors
///
/// As [`system::build`].
pub fn build(workspace: &Workspace, recipe: &Recipe, folder: &Path, noise: Noise) -> Result<Outputs> {
    let hypervisor = system::build_hypervisor(workspace, noise)?;
    let parts = system::gather(workspace, recipe, noise)?;
    system::check_and_say(recipe, &parts, &hypervisor, noise)?;
    let (board, name, claimed) = (&recipe.board, recipe.name(), hypervisor.sizes.claimed);
    let mut others = vec![Output { executable: true, ..Output::new(folder.join(RUN), run(&name, board)?) }];
    if let Origin::Firmware { .. } = board.origin {
        others.push(Output::new(folder.join(TREE), board.tree()?));
    }
    let mut missing = Vec::new();

    // Other loaders put things elsewhere, where the manifest may want memory of its own.
    let of_single =
        |_: &Platform<'_>, _: &Tree<'_>, bundle, tree| board.occupied_by_single(claimed, bundle, tree);
    match system::checked_where(recipe, &parts, of_single, |_| single(&hypervisor.image, &parts.bundle()?)) {
        Ok(single) => others.push(Output::new(folder.join(SINGLE), single)),
        Err(error) => missing.push(format!("no {SINGLE}, which takes other memory: {error:#}")),
    }
    let mut at = None;
    let of_u_boot = |platform: &Platform<'_>, manifest: &Tree<'_>, bundle, _| {
        at = place(platform, manifest, claimed, bundle);
        at
    };
    let checked = system::checked_where(recipe, &parts, of_u_boot, |_| Ok(()));
    match checked.and_then(|()| at.context("there is no room")) {
        Ok(at) => {
            let commands = commands(&name, board, &at);
            others.push(Output::new(folder.join(SCRIPT), script(&commands)));
            others.push(Output::new(folder.join(COMMANDS), commands));
        }
        Err(error) => missing.push(format!("no {SCRIPT}, which takes other memory: {error:#}")),
    }

    let system = system::write_with(recipe, &parts, &hypervisor, folder, &others)?;
    let others: Vec<_> = others.into_iter().map(|output| output.path).collect();
    // What an earlier build left must not be taken for this one's.
    for name in [SINGLE, SCRIPT, COMMANDS, TREE] {
        let path = folder.join(name);
        if !others.contains(&path) && path.exists() {
            fs::remove_file(&path).with_context(|| format!("cannot remove {}", path.display()))?;
        }
    }
    Ok(Outputs { system, others, missing })
}

/// Where an arm64 Image header says how much memory belongs to the image (Linux, Documentation/arch/arm64/booting.rst).
const IMAGE_SIZE: std::ops::Range<usize> = 16..24;
/// What U-Boot places is aligned to this: `booti` moves a kernel that lies elsewhere.
const ALIGNMENT: u64 = 2 << 20;
/// Firmware keeps to the first megabytes of RAM: its tree, pens for CPUs, U-Boot before it moves itself to the top.
const FIRMWARE: u64 = 4 << 20;
/// Room for the firmware's tree and what U-Boot adds to it. A tree of QEMU's `virt` has 1 MiB.
const TREE_SPACE: u64 = 2 << 20;
/// What of that U-Boot is told; it takes a little more (CONFIG_SYS_FDT_PAD).
const TREE_SIZE: u64 = TREE_SPACE - (128 << 10);

/// The image with the bundle behind the memory that it claims, and claiming that too.
///
/// # Errors
///
/// Where the image is no arm64 Image or is larger than it says.
pub fn single(image: &[u8], bundle: &[u8]) -> Result<Vec<u8>> {
    let header = image.get(IMAGE_SIZE).and_then(|field| field.try_into().ok()).context("no arm64 Image")?;
    let claimed = usize::try_from(u64::from_le_bytes(header))?;
    ensure!(image.len() <= claimed, "the image is larger than its header says");
    let mut single = image.to_vec();
    single.resize(claimed, 0);
    single.extend_from_slice(bundle);
    let size = single.len() as u64;
    single[IMAGE_SIZE].copy_from_slice(&size.to_le_bytes());
    Ok(single)
}

/// Free places in RAM for hypervisor, tree and bundle, clear of what the manifest wants for itself.
#[must_use]
pub fn place(platform: &Platform<'_>, manifest: &Tree<'_>, hypervisor: u64, bundle: u64) -> Option<Occupied> {
    let mut taken: Vec<_> = platform.reserved.iter().map(|reservation| reservation.region).collect();
    taken.extend(wanted(manifest));
    taken.extend(platform.ram.first().and_then(|ram| Region::new(ram.start(), FIRMWARE)));
    let mut place = |size| {
        let region = free(&platform.ram, &taken, size)?;
        taken.push(region);
        Some(region)
    };
    Some(Occupied { hypervisor: place(hypervisor)?, tree: place(TREE_SPACE)?, bundle: place(bundle)? })
}

/// The lowest free place of `size` bytes.
fn free(ram: &[Region<Pa>], taken: &[Region<Pa>], size: u64) -> Option<Region<Pa>> {
    let starts =
        ram.iter().map(|ram| ram.start()).chain(taken.iter().filter_map(|taken| taken.last().checked_add(1)));
    starts
        .filter_map(|start| Region::new(Pa::new(start.raw().checked_next_multiple_of(ALIGNMENT)?), size))
        .filter(|place| {
            ram.iter().any(|ram| ram.encloses(*place)) && !taken.iter().any(|taken| taken.overlaps(*place))
        })
        .min_by_key(|place| place.start())
}

/// Memory that partitions want at a certain physical address: `physical-memory`, and all memory of one with `unprotected-dma`.
fn wanted(manifest: &Tree<'_>) -> Vec<Region<Pa>> {
    let mut wanted = Vec::new();
    for partition in manifest.root().child("partitions").iter().flat_map(|partitions| partitions.children()) {
        let numbers = |name| {
            let bytes = partition.property(name).map_or(&[][..], |property| property.value);
            bytes.as_chunks().0.iter().copied().map(u64::from_be_bytes).collect::<Vec<_>>()
        };
        let memory = numbers("memory");
        let mut starts = numbers("physical-memory");
        if partition.property("unprotected-dma").is_some() {
            starts.extend(memory.iter().step_by(2));
        }
        let sizes = memory.iter().skip(1).step_by(2).cycle();
        wanted
            .extend(starts.iter().zip(sizes).filter_map(|(&start, &size)| Region::new(Pa::new(start), size)));
    }
    wanted
}

/// U-Boot's commands that load the two files from where it found the script, and start them.
#[must_use]
pub fn commands(name: &str, board: &Board, at: &Occupied) -> String {
    let name = say::visible(name);
    let [kernel, tree, bundle] =
        [at.hypervisor, at.tree, at.bundle].map(|region| format!("{:#x}", region.start().raw()));
    format!(
        "\
# Bulkhead {version}: {name} for {label}. {SCRIPT} is this file with U-Boot's header.
# Put {SCRIPT}, {IMAGE} and {BUNDLE} into the root or into /boot of a boot partition, or name the place:
#   setenv devtype mmc; setenv devnum 0; setenv distro_bootpart 1; setenv prefix /
setenv fdt_high 0xffffffffffffffff
setenv initrd_high 0xffffffffffffffff
if test -z \"${{fdt_addr}}\"; then setenv fdt_addr ${{fdtcontroladdr}}; fi
fdt addr ${{fdt_addr}}
if fdt move ${{fdt_addr}} {tree} {TREE_SIZE:#x}; then
if load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {kernel} ${{prefix}}{IMAGE}; then
if load ${{devtype}} ${{devnum}}:${{distro_bootpart}} {bundle} ${{prefix}}{BUNDLE}; then
booti {kernel} {bundle}:${{filesize}} {tree}
fi
fi
fi
echo Bulkhead was not started
",
        version = env!("CARGO_PKG_VERSION"),
        label = board.label,
    )
}

/// A script with the header that U-Boot's `source` asks for (U-Boot, include/image.h, `legacy_img_hdr`). Its time is 0.
#[must_use]
pub fn script(commands: &str) -> Vec<u8> {
    const MAGIC: u32 = 0x2705_1956;
    const LINUX_ARM64_SCRIPT_UNCOMPRESSED: [u8; 4] = [5, 22, 6, 0];
    // A script is the first of a list of files that a zero ends.
    let size = (commands.len() as u32).to_be_bytes();
    let data = [&size[..], &[0; 4], commands.as_bytes()].concat();
    let header = |checksum: u32| {
        let words = [MAGIC, checksum, 0, data.len() as u32, 0, 0, crc32fast::hash(&data)];
        let mut header: Vec<u8> = words.iter().flat_map(|word| word.to_be_bytes()).collect();
        header.extend(LINUX_ARM64_SCRIPT_UNCOMPRESSED);
        header.extend(b"Bulkhead");
        header.resize(64, 0);
        header
    };
    [header(crc32fast::hash(&header(0))), data].concat()
}

/// A shell script that starts the files beside it in QEMU.
///
/// # Errors
///
/// As [`Board::options`].
pub fn run(name: &str, board: &Board) -> Result<String> {
    let name = say::visible(name);
    Ok(format!(
        "\
#!/bin/sh
# Bulkhead {version}: {name} on {label} in QEMU. Options for QEMU may follow; Ctrl-A X ends it.
cd \"$(dirname \"$0\")\" || exit 2
exec {} \"$@\"
",
        command_line(board)?,
        version = env!("CARGO_PKG_VERSION"),
        label = board.label,
    ))
}

/// QEMU's command line, in the folder of the files.
fn command_line(board: &Board) -> Result<String> {
    let mut options = board.options("")?;
    if matches!(board.origin, Origin::Firmware { .. })
        && let Some(tree) = options.iter().position(|option| option == "-dtb")
    {
        options[tree + 1] = TREE.to_owned();
    }
    options.extend(["-serial", "mon:stdio", "-kernel", IMAGE, "-initrd", BUNDLE].map(str::to_owned));
    let mut line = QEMU.to_owned();
    for option in options {
        let _ = write!(line, " {option}");
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use bulkhead_boards::BOARDS;

    use super::*;
    use crate::board::QEMU_VIRT;
    use crate::source::compiled;

    const TREE_OF_VIRT: &[u8] = include_bytes!("../../../tests/manifests/boards/qemu-virt-gicv3.dtb");

    fn placed(manifest: &str) -> Option<Occupied> {
        let board = Tree::new(TREE_OF_VIRT).expect("a tree");
        let platform = Platform::from_tree(&board, &BOARDS).expect("a platform");
        place(&platform, &Tree::new(&compiled(manifest)).expect("a tree"), 2 << 20, 35_000_000)
    }

    #[test]
    fn the_single_image_claims_the_bundle() {
        let mut image = vec![0; 4096];
        image[IMAGE_SIZE].copy_from_slice(&0x20_0000_u64.to_le_bytes());
        let single = single(&image, b"bundle").expect("an image");
        assert_eq!(single.len(), 0x20_0006);
        assert_eq!(&single[0x20_0000..], b"bundle");
        assert_eq!(single[IMAGE_SIZE], 0x20_0006_u64.to_le_bytes());
        image[IMAGE_SIZE].fill(0);
        super::single(&image, b"bundle").expect_err("it claims nothing");
        super::single(&[], b"bundle").expect_err("no header");
    }

    #[test]
    fn u_boot_keeps_clear_of_what_the_manifest_wants() {
        let starts = |at: Occupied| [at.hypervisor, at.tree, at.bundle].map(|region| region.start().raw());
        let manifest = |partition| format!("/dts-v1/; / {{ partitions {{ a {{ {partition} }}; }}; }};");
        let free = placed(&manifest("memory = /bits/ 64 <0x40000000 0x1000000>;")).expect("room");
        assert_eq!(starts(free), [0x4040_0000, 0x4060_0000, 0x4080_0000]);
        let fixed = placed(&manifest(
            "memory = /bits/ 64 <0 0x1000000 0x8000000 0x200000>; physical-memory = /bits/ 64 <0x40000000 0x41001000>;",
        ));
        assert_eq!(
            starts(fixed.expect("room")),
            [0x4120_2000_u64.next_multiple_of(ALIGNMENT), 0x4160_0000, 0x4180_0000]
        );
        let direct = placed(&manifest("memory = /bits/ 64 <0x40000000 0x3000000>; unprotected-dma = \"x\";"));
        assert_eq!(starts(direct.expect("room")), [0x4300_0000, 0x4320_0000, 0x4340_0000]);
        let all = placed(&manifest("memory = /bits/ 64 <0x40000000 0x7fffffff>; unprotected-dma = \"x\";"));
        assert_eq!(all, None);
    }

    #[test]
    fn a_script_has_its_header() {
        let script = script("echo hello\n");
        assert_eq!(script.len(), 64 + 8 + 11);
        assert_eq!(script[..4], [0x27, 5, 0x19, 0x56]);
        assert_eq!(script[12..16], [0, 0, 0, 19]);
        assert_eq!(script[28..40], *b"\x05\x16\x06\0Bulkhead");
        assert_eq!(&script[72..], b"echo hello\n");
        let mut header = script[..64].to_vec();
        header[4..8].fill(0);
        assert_eq!(script[4..8], crc32fast::hash(&header).to_be_bytes());
        assert_eq!(script[24..28], crc32fast::hash(&script[64..]).to_be_bytes());
    }

    #[test]
    fn a_name_adds_no_commands() {
        let at = placed("/dts-v1/; / { };").expect("room");
        let texts = |name| [commands(name, &QEMU_VIRT, &at), run(name, &QEMU_VIRT).expect("a script")];
        for (nasty, plain) in texts("a\nreboot").iter().zip(texts("a")) {
            assert_eq!(nasty.lines().count(), plain.lines().count(), "{nasty}");
        }
    }

    #[test]
    fn nothing_in_the_scripts_is_of_this_host() {
        let at = placed("/dts-v1/; / { };").expect("room");
        for text in [commands("demo", &QEMU_VIRT, &at), run("demo", &QEMU_VIRT).expect("a script")] {
            assert!(!text.contains(env!("CARGO_MANIFEST_DIR")) && !text.contains("/home"), "{text}");
        }
    }
}
