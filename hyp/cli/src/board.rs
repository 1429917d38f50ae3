//! The machines that the tool can start: models of boards in QEMU.
//!
//! QEMU makes the device tree of `virt` itself. For a model of a real board it expects the tree that the board's firmware would
//! hand over, so there the tool plays the firmware.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bulkhead_policy::addr::{Pa, Region};
use dtoolkit::fdt::Fdt;
use dtoolkit::model::{DeviceTree, DeviceTreeProperty};

use crate::{bundle, linux, output, say, system};

/// The emulator.
pub const QEMU: &str = "qemu-system-aarch64";

/// What QEMU needs to know to be one machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Board {
    /// What `--board` calls it.
    pub name: &'static str,
    /// What tests and messages call it.
    pub label: &'static str,
    /// Value of `-machine`.
    pub machine: &'static str,
    /// Value of `-cpu`.
    pub cpu: &'static str,
    /// Number of CPUs.
    pub cpus: u32,
    /// RAM in MiB.
    pub memory: u32,
    /// Where its RAM starts.
    pub ram: u64,
    /// Where its device tree comes from.
    pub origin: Origin,
    /// Options beyond these.
    pub options: &'static [&'static str],
}

/// Where a machine's device tree comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Origin {
    /// QEMU makes it for the CPUs and the memory that it is told.
    Qemu,
    /// The real board's own, as Debian's kernel package has it: the model is like the board, and its CPUs and memory are not to
    /// be chosen.
    Firmware {
        /// The file's name.
        file: &'static str,
        /// The name of the file with what the firmware makes of it.
        patched: &'static str,
        /// Paths of the nodes that QEMU has no model of.
        lacks: &'static [&'static str],
        /// What the firmware changes as its configuration says: path of a node, name and value of a property.
        settings: &'static [(&'static str, &'static str, &'static str)],
    },
}

/// Names that `--board` takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum BoardName {
    /// QEMU's `virt` with 4 CPUs and 2 GiB of RAM
    QemuVirt,
    /// The Raspberry Pi 4 Model B; QEMU's `raspi4b` stands in for it
    Rpi4,
}

/// Options that choose the machine.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Choice {
    /// The board
    #[arg(long, value_enum, value_name = "NAME", default_value = "qemu-virt")]
    pub board: BoardName,
    /// The version of qemu-virt's interrupt controller [default: 3]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(2..=3))]
    pub gic: Option<u8>,
}

impl Choice {
    /// The board that was chosen.
    ///
    /// # Errors
    ///
    /// Where the board's interrupt controller is not to be chosen.
    pub fn board(self) -> Result<Board> {
        // Of the machines that suit, the list begins with the usual one.
        Ok(chosen(Some(self.board), self.gic)?[0])
    }

    /// The options as somebody types them.
    #[must_use]
    pub fn arguments(self) -> String {
        let board = clap::ValueEnum::to_possible_value(&self.board);
        let board = board.map_or_else(String::new, |board| format!("--board {}", board.get_name()));
        self.gic.map_or(board.clone(), |gic| format!("{board} --gic {gic}"))
    }
}

/// The machines that suit these options, all where there are none.
///
/// # Errors
///
/// Where the board's interrupt controller is not to be chosen.
pub fn chosen(board: Option<BoardName>, gic: Option<u8>) -> Result<Vec<Board>> {
    let virt: &[Board] = match gic {
        None => &[QEMU_VIRT, QEMU_VIRT_GICV2],
        Some(2) => &[QEMU_VIRT_GICV2],
        Some(_) => &[QEMU_VIRT],
    };
    match (board, gic) {
        (Some(BoardName::QemuVirt), _) | (None, Some(_)) => Ok(virt.to_vec()),
        (Some(BoardName::Rpi4), None) => Ok(vec![RPI4]),
        (None, None) => Ok(MACHINES.to_vec()),
        (Some(BoardName::Rpi4), Some(_)) => {
            bail!("rpi4 has a GIC-400 (GICv2) and no other; leave --gic out, or choose --board qemu-virt")
        }
    }
}

/// QEMU's `virt`: 4 CPUs, 2 GiB, GICv3.
pub const QEMU_VIRT: Board = Board {
    name: "qemu-virt",
    label: "virt-gicv3",
    machine: "virt,gic-version=3,virtualization=on",
    cpu: "cortex-a72",
    cpus: 4,
    memory: 2048,
    ram: 0x4000_0000,
    origin: Origin::Qemu,
    options: &[],
};

/// The same with a GICv2.
pub const QEMU_VIRT_GICV2: Board =
    Board { label: "virt-gicv2", machine: "virt,gic-version=2,virtualization=on", ..QEMU_VIRT };

/// What `dtoverlay=disable-bt` and `dtoverlay=bulkhead` change: the PL011, QEMU's first serial line, is the console.
const RPI4_PL011: [(&str, &str, &str); 2] = [
    ("/soc/serial@7e215040", "status", "disabled"),
    ("/chosen", "stdout-path", "/soc/serial@7e201000:115200n8"),
];

/// QEMU's `raspi4b`.
pub const RPI4: Board = Board {
    name: bulkhead_rpi4::BOARD.name,
    label: "rpi4",
    machine: "raspi4b",
    cpu: "cortex-a72",
    cpus: 4,
    memory: 2048,
    ram: 0,
    origin: Origin::Firmware {
        file: linux::RPI4_TREE,
        patched: "rpi4-qemu.dtb",
        lacks: &bulkhead_rpi4::QEMU_LACKS,
        settings: &RPI4_PL011,
    },
    options: &[],
};

/// The machines that the system tests run on.
pub const MACHINES: [Board; 3] = [QEMU_VIRT, QEMU_VIRT_GICV2, RPI4];

/// The machine of the benchmark: one tick of its counter is one instruction.
pub const BENCH: Board = Board {
    cpu: "cortex-a53,cntfrq=1000000000",
    cpus: 1,
    memory: 512,
    options: &["-icount", "shift=0,sleep=off"],
    ..QEMU_VIRT
};

/// What the boot loader puts into RAM beside the partitions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Occupied {
    /// The hypervisor, as far as its image header claims memory.
    pub hypervisor: Region<Pa>,
    /// The bundle.
    pub bundle: Region<Pa>,
    /// The tree of the firmware.
    pub tree: Region<Pa>,
}

impl Board {
    /// QEMU puts its own boot code at the start of RAM and an image without text offset behind it
    /// (`hw/arm/boot.c`, `load_aarch64_image`).
    const KERNEL_OFFSET: u64 = 2 << 20;
    /// The initrd lies half way up the RAM but no higher than this (`arm_setup_direct_kernel_boot`).
    const MAX_INITRD_OFFSET: u64 = 128 << 20;
    /// The tree follows the initrd at the next multiple of this.
    const TREE_ALIGNMENT: u64 = 2 << 20;

    /// The options that make QEMU this machine, its lines to the outside aside; `machine_suffix` is appended to the value of
    /// `-machine`.
    ///
    /// # Errors
    ///
    /// Where there is no tree to give it.
    pub fn options(&self, machine_suffix: &str) -> Result<Vec<String>> {
        let mut options = vec!["-machine".to_owned(), format!("{}{machine_suffix}", self.machine)];
        match self.origin {
            Origin::Qemu => {
                let (cpus, memory) = (self.cpus.to_string(), format!("{}M", self.memory));
                options.extend(["-cpu", self.cpu, "-smp", &cpus, "-m", &memory].map(str::to_owned));
            }
            Origin::Firmware { .. } => {
                options.extend(["-dtb".to_owned(), self.firmware_tree()?.display().to_string()]);
            }
        }
        // Without a network card QEMU asks for no boot ROM, which Debian packages apart.
        options.extend(["-nic", "none", "-display", "none"].map(str::to_owned));
        options.extend(self.options.iter().copied().map(str::to_owned));
        Ok(options)
    }

    /// Writes the tree that a real board's firmware would hand over if the board were as QEMU models it; returns its file.
    ///
    /// # Errors
    ///
    /// Where QEMU makes its tree itself, or the tree cannot be fetched or written.
    pub fn firmware_tree(&self) -> Result<PathBuf> {
        let Origin::Firmware { file, patched, lacks, settings } = self.origin else {
            bail!("{} has no tree of its own", self.label)
        };
        let parts = linux::fetch(&system::downloads()?, &mut |line| say::step("Debian", line))?;
        let source = parts.tree.with_file_name(file);
        let blob = std::fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
        let settings = lacks.iter().map(|&path| (path, "status", "disabled")).chain(settings.iter().copied());
        let tree = with_settings(&blob, settings).with_context(|| source.display().to_string())?;
        let path = source.with_file_name(patched);
        output::write_atomically(&path, &tree)?;
        Ok(path)
    }

    /// The device tree that this machine's firmware hands over. QEMU is asked once for each machine and each QEMU; the answer is kept
    /// among the downloads.
    ///
    /// # Errors
    ///
    /// Where QEMU cannot be run, there is no tree to give it, or its own cannot be kept.
    pub fn tree(&self) -> Result<Vec<u8>> {
        let kept = self.kept_tree()?;
        if let Some(tree) = kept.as_ref().and_then(|kept| std::fs::read(kept).ok()) {
            return Ok(tree);
        }
        let tree = self.dump_tree()?;
        if let Some(kept) = kept {
            output::write_atomically(&kept, &tree)?;
        }
        Ok(tree)
    }

    /// Whether [`Board::tree`] takes neither QEMU nor a download.
    #[must_use]
    pub fn has_tree(&self) -> bool {
        self.origin == Origin::Qemu && self.kept_tree().ok().flatten().is_some_and(|kept| kept.is_file())
    }

    /// Where the tree is kept: another QEMU, another option or another tree given to it make another file. `None` where there is no QEMU.
    fn kept_tree(&self) -> Result<Option<PathBuf>> {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let mut programs = std::env::split_paths(&folders).map(|folder| folder.join(QEMU));
        let Some(program) = programs.find(|program| program.is_file()) else { return Ok(None) };
        let found = program.metadata().with_context(|| format!("cannot read {}", program.display()))?;
        let version = (found.len(), found.modified()?);
        let given = match self.origin {
            Origin::Qemu => Vec::new(),
            Origin::Firmware { .. } => std::fs::read(self.firmware_tree()?)?,
        };
        let key = format!("{program:?} {version:?} {:?} {}", self.options("")?, bundle::sha256(&given));
        let name = format!("{}.dtb", bundle::sha256(key.as_bytes()));
        Ok(Some(system::downloads()?.join("trees").join(name)))
    }

    fn dump_tree(&self) -> Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        let suffix = format!(",dumpdtb={}", file.path().display());
        let output = Command::new(QEMU)
            .args(self.options(&suffix)?)
            .output()
            .with_context(|| format!("cannot run {QEMU}"))?;
        let complaint = String::from_utf8_lossy(&output.stderr);
        // It names itself, and what follows is for those who know its options.
        let complaint = complaint.lines().next().unwrap_or("it does not say why");
        ensure!(output.status.success(), "{QEMU} makes no device tree for {}: {complaint}", self.label);
        std::fs::read(file.path()).context("cannot read QEMU's device tree")
    }

    /// QEMU as this machine with its serial line on standard input and output; on a board with several it is the PL011.
    ///
    /// # Errors
    ///
    /// Where there is no tree to give it.
    pub fn command(&self) -> Result<Command> {
        // QEMU outlives whoever started it and was killed, unless the kernel is asked to tell it.
        let mut command = if cfg!(target_os = "linux") {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--pdeathsig", "KILL", QEMU]);
            setpriv
        } else {
            Command::new(QEMU)
        };
        command.args(self.options("")?).args(["-monitor", "none", "-serial", "stdio"]);
        Ok(command)
    }

    /// Where QEMU puts the hypervisor, the bundle and the tree, given their sizes in bytes.
    #[must_use]
    pub fn occupied(&self, hypervisor: u64, bundle: u64, tree: u64) -> Option<Occupied> {
        let (kernel, initrd) = self.kernel_and_initrd(hypervisor);
        let tree_start = (initrd + bundle).next_multiple_of(Self::TREE_ALIGNMENT);
        Some(Occupied {
            hypervisor: Region::new(Pa::new(kernel), hypervisor)?,
            bundle: Region::new(Pa::new(initrd), bundle)?,
            tree: Region::new(Pa::new(tree_start), tree)?,
        })
    }

    /// As [`Board::occupied`], for a hypervisor with the bundle inside and no initrd.
    #[must_use]
    pub fn occupied_by_single(&self, hypervisor: u64, bundle: u64, tree: u64) -> Option<Occupied> {
        let (kernel, initrd) = self.kernel_and_initrd(hypervisor + bundle);
        Some(Occupied {
            hypervisor: Region::new(Pa::new(kernel), hypervisor)?,
            bundle: Region::new(Pa::new(kernel + hypervisor), bundle)?,
            tree: Region::new(Pa::new(initrd.next_multiple_of(Self::TREE_ALIGNMENT)), tree)?,
        })
    }

    /// Where QEMU puts an image that claims so many bytes, and from where on an initrd.
    fn kernel_and_initrd(&self, image: u64) -> (u64, u64) {
        let half = (u64::from(self.memory) << 20) / 2;
        let kernel = self.ram + Self::KERNEL_OFFSET;
        (kernel, (self.ram + half.min(Self::MAX_INITRD_OFFSET)).max(kernel + image))
    }
}

/// The tree with these properties of these nodes set.
fn with_settings<'a>(
    blob: &[u8],
    settings: impl Iterator<Item = (&'a str, &'a str, &'a str)>,
) -> Result<Vec<u8>> {
    let tree = Fdt::new(blob).map_err(|error| anyhow::anyhow!("not a device tree: {error}"))?;
    let mut tree = DeviceTree::from_fdt(&tree);
    for (path, name, value) in settings {
        // Trees of other kernels may lack a node.
        if let Some(node) = tree.find_node_mut(path) {
            node.add_property(DeviceTreeProperty::new_unchecked(name, value));
        }
    }
    Ok(tree.to_dtb())
}

#[cfg(test)]
mod tests {
    use bulkhead_boards::BOARDS;
    use bulkhead_policy::tree::Tree;
    use clap::ValueEnum;

    use super::*;

    #[test]
    fn boards_have_one_name_each() {
        let names: Vec<_> =
            BoardName::value_variants().iter().filter_map(BoardName::to_possible_value).collect();
        let names: Vec<_> = names.iter().map(clap::builder::PossibleValue::get_name).collect();
        assert_eq!(names, BOARDS.each_ref().map(|board| board.name));
        assert!(MACHINES.iter().all(|machine| names.contains(&machine.name)));
    }

    #[test]
    fn the_usual_machine_comes_first() {
        let choose = |board, gic| Choice { board, gic }.board().map(|board| board.label);
        assert_eq!(choose(BoardName::QemuVirt, None).expect("a board"), "virt-gicv3");
        assert_eq!(choose(BoardName::QemuVirt, Some(2)).expect("a board"), "virt-gicv2");
        assert_eq!(choose(BoardName::Rpi4, None).expect("a board"), "rpi4");
        assert!(choose(BoardName::Rpi4, Some(2)).is_err());
        assert_eq!(chosen(None, None).expect("boards"), MACHINES);
        assert_eq!(chosen(None, Some(2)).expect("boards"), [QEMU_VIRT_GICV2]);
    }

    #[test]
    fn settings_leave_the_rest_of_a_tree() {
        let before = include_bytes!("../../../tests/manifests/boards/rpi4-qemu.dtb");
        let path = "/soc/hdmi@7ef00700";
        let settings = [(path, "status", "disabled"), ("/no/such/node", "status", "disabled")];
        let after = with_settings(before, settings.into_iter()).expect("a tree");
        let (before, after) = (Tree::new(before).expect("a tree"), Tree::new(&after).expect("a tree"));
        assert!(before.find(path).expect("there").is_enabled());
        assert!(!after.find(path).expect("there").is_enabled());
        assert!(before.nodes().map(|node| node.path()).eq(after.nodes().map(|node| node.path())));
        assert!(before.reservations().eq(after.reservations()));
    }
}
