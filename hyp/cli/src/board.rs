//! The machines that the tool can start: QEMU's `virt`, so far.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use bulkhead_policy::addr::{Pa, Region};

/// The emulator.
pub const QEMU: &str = "qemu-system-aarch64";

/// What QEMU needs to know to be one machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Board {
    /// Value of `-machine`.
    pub machine: &'static str,
    /// Value of `-cpu`.
    pub cpu: &'static str,
    /// Number of CPUs.
    pub cpus: u32,
    /// RAM in MiB.
    pub memory: u32,
    /// Options beyond these.
    pub options: &'static [&'static str],
}

/// Names that `--board` takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum BoardName {
    /// QEMU's `virt` with 4 CPUs, 2 GiB of RAM and a GICv3.
    QemuVirt,
}

impl BoardName {
    /// The board of this name.
    #[must_use]
    pub const fn board(self) -> Board {
        match self {
            Self::QemuVirt => QEMU_VIRT,
        }
    }
}

/// QEMU's `virt`: 4 CPUs, 2 GiB.
pub const QEMU_VIRT: Board = Board {
    machine: "virt,gic-version=3,virtualization=on",
    cpu: "cortex-a72",
    cpus: 4,
    memory: 2048,
    options: &[],
};

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
    /// Start of the RAM of `virt`.
    const RAM: u64 = 0x4000_0000;
    /// QEMU puts its own boot code at the start of RAM and an image without text offset behind it
    /// (`hw/arm/boot.c`, `load_aarch64_image`).
    const KERNEL_OFFSET: u64 = 2 << 20;
    /// The initrd lies half way up the RAM but no higher than this (`arm_setup_direct_kernel_boot`).
    const MAX_INITRD_OFFSET: u64 = 128 << 20;
    /// The tree follows the initrd at the next multiple of this.
    const TREE_ALIGNMENT: u64 = 2 << 20;

    /// The options that make QEMU this machine; `machine_suffix` is appended to the value of `-machine`.
    fn options(&self, machine_suffix: &str) -> Vec<String> {
        let machine = format!("{}{machine_suffix}", self.machine);
        let (cpus, memory) = (self.cpus.to_string(), format!("{}M", self.memory));
        let fixed = ["-machine", &machine, "-cpu", self.cpu, "-smp", &cpus, "-m", &memory];
        // Without a network card QEMU asks for no boot ROM, which Debian packages apart.
        let fixed = fixed.into_iter().chain(["-nic", "none", "-display", "none"]);
        fixed.chain(self.options.iter().copied()).map(str::to_owned).collect()
    }

    /// The device tree that this machine's firmware hands over.
    ///
    /// # Errors
    ///
    /// Where QEMU cannot be run.
    pub fn tree(&self) -> Result<Vec<u8>> {
        let file = tempfile::NamedTempFile::new().context("cannot make a temporary file")?;
        let suffix = format!(",dumpdtb={}", file.path().display());
        let output = Command::new(QEMU)
            .args(self.options(&suffix))
            .output()
            .with_context(|| format!("cannot run {QEMU}"))?;
        ensure!(
            output.status.success(),
            "{QEMU} does not write its device tree:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        std::fs::read(file.path()).context("cannot read QEMU's device tree")
    }

    /// QEMU as this machine with its serial line on standard input and output.
    #[must_use]
    pub fn command(&self) -> Command {
        // QEMU outlives whoever started it and was killed, unless the kernel is asked to tell it.
        let mut command = if cfg!(target_os = "linux") {
            let mut setpriv = Command::new("setpriv");
            setpriv.args(["--pdeathsig", "KILL", QEMU]);
            setpriv
        } else {
            Command::new(QEMU)
        };
        command.args(self.options("")).args(["-monitor", "none", "-serial", "stdio"]);
        command
    }

    /// Where QEMU puts the hypervisor, the bundle and the tree, given their sizes in bytes.
    #[must_use]
    pub fn occupied(&self, hypervisor: u64, bundle: u64, tree: u64) -> Option<Occupied> {
        let half = (u64::from(self.memory) << 20) / 2;
        let kernel = Self::RAM + Self::KERNEL_OFFSET;
        let initrd = (Self::RAM + half.min(Self::MAX_INITRD_OFFSET)).max(kernel + hypervisor);
        let tree_start = (initrd + bundle).next_multiple_of(Self::TREE_ALIGNMENT);
        Some(Occupied {
            hypervisor: Region::new(Pa::new(kernel), hypervisor)?,
            bundle: Region::new(Pa::new(initrd), bundle)?,
            tree: Region::new(Pa::new(tree_start), tree)?,
        })
    }
}
