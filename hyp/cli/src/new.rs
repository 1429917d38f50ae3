//! A first manifest for a board, made by asking the board's tree and nobody else.
//!
//! What it holds has passed the check for that very board, and so has every line that it only suggests: the check is asked of
//! each device whether it can be given away. A starter that does not start teaches nothing.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bulkhead_boards::BOARDS;
use bulkhead_policy::manifest::{self, COMPATIBLE};
use bulkhead_policy::plan::MAX_VCPUS;
use bulkhead_policy::platform::{Gic, Platform, Reservation};
use bulkhead_policy::tree::{Node, Tree};

use crate::board::{Board, Choice, MACHINES, Origin};
use crate::dts::{self, Source};
use crate::import::read_tree;
use crate::output::write_new;
use crate::setup::{self, Need};
use crate::warnings::wires;
use crate::{say, source};

/// Options of `new`.
#[derive(clap::Args)]
pub struct New {
    #[command(flatten)]
    machine: Choice,
    /// The board's device tree, source or blob, taken from a real board
    #[arg(long, value_name = "FILE", conflicts_with_all = ["board", "gic"])]
    dtb: Option<PathBuf>,
    /// Where the manifest goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite it
    #[arg(long, requires = "out")]
    force: bool,
}

/// Makes a manifest and writes it.
///
/// # Errors
///
/// Where the board's tree cannot be had, Bulkhead does not run on the board, or the manifest cannot be written.
pub fn run(options: &New) -> Result<()> {
    let (source, title, choice) = match &options.dtb {
        Some(path) => {
            setup::ensure(&[Need::Dtc])?;
            let title = path.display().to_string();
            let tree = read_tree(path)?;
            (starter(&tree, None).context(title.clone())?, title, choice(path, &tree)?)
        }
        None => {
            let board = options.machine.board()?;
            setup::ensure(&[Need::Dtc, Need::Qemu])?;
            if board.origin != Origin::Qemu {
                // Its tree is in Debian's kernel package.
                setup::ensure(&[Need::Apt])?;
            }
            let choice = options.machine.arguments();
            (starter(&board.tree()?, Some(&board))?, board.label.to_owned(), choice)
        }
    };
    let Some(out) = &options.out else { return say::print(&source) };
    write_new(out, source.as_bytes(), options.force)?;
    say::step("Wrote", format_args!("{} for {title}", out.display()));
    if source.contains(&format!("kernel = \"{RTOS_KERNEL}\"")) {
        say::note(format_args!(
            "{RTOS_KERNEL} is yours to supply, beside the manifest or in a folder of --payloads"
        ));
    }
    say::note(format_args!("next: cargo bulkhead check {} {choice}", say::word(out)));
    Ok(())
}

/// The options with which the manifest is checked for the board whose tree is in `path`.
fn choice(path: &Path, tree: &[u8]) -> Result<String> {
    let board = Tree::new(tree)?;
    let platform = Platform::from_tree(&board, &BOARDS).map_err(|error| anyhow::anyhow!("{error}"))?;
    let name = platform.board.map_or_else(String::new, |board| format!(" --board {}", board.name));
    Ok(format!("--dtb {}{name}", say::word(path)))
}

/// The amounts of memory that are tried for Linux.
const LINUX_MEMORY: [u64; 4] = [512 << 20, 256 << 20, 128 << 20, 64 << 20];
const RTOS_MEMORY: u64 = 16 << 20;
/// Where both see their memory: many images take everything below for I/O.
const MEMORY: u64 = 0x4000_0000;
/// What the image of the other partition is called where the tool makes none.
const RTOS_KERNEL: &str = "rtos.bin";
/// What Linux claims of its memory, with room for growth: Debian's kernel needs half of it.
const KERNEL: u64 = 48 << 20;
/// What a boot loader puts into RAM for it: kernel and initramfs.
const BUNDLE: u64 = 64 << 20;
/// What the hypervisor claims (hyp/docs/memory-layout.md).
const HYPERVISOR: u64 = 2 << 20;
/// GICv2 has 8 CPU interfaces (IHI 0048, 1.1).
const MAX_VCPUS_V2: usize = 8;
/// So many devices are offered.
const OFFERS: usize = 4;
/// Names of devices that people give away, in this order before all others.
const COMMON: [&str; 9] = ["serial", "mmc", "spi", "i2c", "ethernet", "gpio", "rtc", "pl031", "pl061"];
/// For boards without a PL011: where an emulated one goes, and its interrupt.
const PL011: (u64, u32) = (0x2200_0000, 0);

/// The manifest for the board with the tree `blob`, which QEMU starts as `machine` if there is one.
///
/// # Errors
///
/// Where Bulkhead does not run on the board, or nothing that is tried fits.
pub fn starter(blob: &[u8], machine: Option<&Board>) -> Result<String> {
    let board = Tree::new(blob)?;
    let platform = Platform::from_tree(&board, &BOARDS).map_err(|error| anyhow::anyhow!("{error}"))?;
    let most = if matches!(platform.gic, Gic::V2 { .. }) { MAX_VCPUS_V2 } else { MAX_VCPUS };
    let known = platform.board.filter(|known| MACHINES.iter().any(|machine| machine.name == known.name));
    let draft = Draft {
        cpus: platform.cpus.len(),
        linux_cpus: (platform.cpus.len() - 1).clamp(1, most),
        memory_at: MEMORY,
        memory: LINUX_MEMORY[0],
        title: platform.board.map_or_else(
            || board.root().property("model").and_then(|model| model.string()).unwrap_or("a board"),
            |board| board.title,
        ),
        rtos_kernel: if known.is_some() { "freertos.bin" } else { RTOS_KERNEL },
        has_pl011: platform.pl011.is_some(),
    };
    let judge = Judge { board: &board, blob_size: blob.len() as u64, machine };
    let draft = LINUX_MEMORY.into_iter().map(|memory| Draft { memory, ..draft });
    let mut last = String::new();
    for draft in draft {
        match judge.place(&draft, Vec::new())? {
            Ok(place) => return Ok(draft.source(&judge.extras(&draft, place)?)),
            Err(fault) => last = fault,
        }
    }
    bail!("no partition fits on this board: {last}")
}

/// What is decided before anything is written.
#[derive(Clone, Copy)]
struct Draft<'a> {
    cpus: usize,
    linux_cpus: usize,
    /// Of Linux: where it sees its memory, and how much.
    memory_at: u64,
    memory: u64,
    title: &'a str,
    rtos_kernel: &'a str,
    has_pl011: bool,
}

/// What the check lets pass besides.
#[derive(Default)]
struct Extras {
    /// Properties as they are written, each by itself, with what there is to say of them.
    suggestions: Vec<(&'static str, String, String)>,
    /// Whether they are comments.
    live: bool,
}

impl Draft<'_> {
    fn source(&self, extras: &Extras) -> String {
        let mut source = Source::default();
        source.blank();
        source.comment(&format!(
            "Who owns what on {}. What this file does not give to a partition, that partition cannot reach. Numbers of CPUs, \
             paths and aliases are those of the board's device tree. Reference: hyp/docs/manifest.md.",
            self.title
        ));
        source.open("/");
        source.property("compatible", &dts::strings([COMPATIBLE]));
        source.blank();
        source.open("partitions");
        source.comment("A node is a partition; its name is the partition's. Add more as you like.");
        source.open("linux");
        source.property("os,type", &dts::strings(["linux"]));
        source.blank();
        let all = u32::try_from(self.linux_cpus).unwrap_or(u32::MAX);
        source.comment(
            "Numbers of the board's CPUs. The partition counts its own from 0; nobody else runs on them.",
        );
        source.property("cpus", &dts::cells(0..all));
        source.blank();
        source.comment(&format!(
            "Pairs of address, as the partition sees it, and size: {} MiB. Where in the board's RAM that is, is chosen.",
            self.memory >> 20
        ));
        source.property("memory", &dts::numbers([self.memory_at, self.memory]));
        source.blank();
        source.comment(
            "Files beside this one or in a folder named with --payloads. If there are none of these names, the tool takes \
             Debian's kernel, and an initramfs with a shell.",
        );
        source.property("kernel", &dts::strings(["Image"]));
        source.property("ramdisk", &dts::strings(["initramfs.cpio"]));
        source.property("bootargs", &dts::strings(["console=ttyAMA0 quiet"]));
        source.blank();
        source.comment(
            "An emulated serial port. Its output appears on the board's own, marked with the partition.",
        );
        self.console(&mut source);
        for (name, value, comment) in &extras.suggestions {
            if extras.live {
                source.property(name, value);
            } else {
                source.blank();
                source.comment(comment);
                source.suggestion(name, value);
            }
        }
        source.close();
        if self.cpus > self.linux_cpus {
            source.blank();
            source.open("rtos");
            source.property("os,type", &dts::strings(["freertos"]));
            source.property("cpus", &dts::cells([all]));
            source.comment("The same address as above and yet other memory.");
            source.property("memory", &dts::numbers([MEMORY, RTOS_MEMORY]));
            if self.rtos_kernel == "freertos.bin" {
                source.comment("The tool builds it; name your own image instead.");
            } else {
                source.comment(
                    "An image of yours: an ELF file, or a raw binary that starts at its first byte.",
                );
            }
            source.property("kernel", &dts::strings([self.rtos_kernel]));
            self.console(&mut source);
            source.close();
        }
        source.close();
        source.close();
        source.finish()
    }

    fn console(&self, source: &mut Source) {
        source.property("console", &dts::strings(["pl011"]));
        if !self.has_pl011 {
            let (address, interrupt) = PL011;
            source.property("console-address", &dts::numbers([address]));
            source.property("console-interrupt", &dts::cells([interrupt]));
        }
    }
}

/// The check, with stand-ins for the files.
struct Judge<'a> {
    board: &'a Tree<'a>,
    blob_size: u64,
    machine: Option<&'a Board>,
}

impl Judge<'_> {
    /// Where the first partition's memory is, or else the first fault of the manifest.
    fn place(
        &self,
        draft: &Draft<'_>,
        suggestions: Vec<(&'static str, String, String)>,
    ) -> Result<Result<u64, String>> {
        self.place_of(&draft.source(&Extras { suggestions, live: true }))
    }

    fn place_of(&self, source: &str) -> Result<Result<u64, String>> {
        let (blob, messages) = source::dtc(source, Path::new("."))?;
        let blob = blob.with_context(|| format!("dtc does not compile what was made: {messages}"))?;
        let tree = Tree::new(&blob)?;
        let mut platform =
            Platform::from_tree(self.board, &BOARDS).map_err(|error| anyhow::anyhow!("{error}"))?;
        if let Some(machine) = self.machine {
            let occupied = machine
                .occupied(HYPERVISOR, BUNDLE, self.blob_size)
                .context("the machine has too little RAM")?;
            platform.reserved.extend([
                Reservation { region: occupied.hypervisor, holder: "the hypervisor" },
                Reservation { region: occupied.bundle, holder: "the bundle" },
                Reservation { region: occupied.tree, holder: "the firmware's tree" },
            ]);
        }
        let (kernel, other) = (image_header(), [0; 4096]);
        let payload = |name: &str| Some(if name == "Image" { &kernel[..] } else { &other[..] });
        Ok(match manifest::check(&tree, &mut platform, self.board, &payload) {
            Ok(plan) => Ok(plan
                .partitions
                .iter()
                .flat_map(|one| &one.memory)
                .next()
                .map_or(0, |window| window.pa.raw())),
            Err(faults) => Err(faults.first().map_or_else(String::new, ToString::to_string)),
        })
    }

    fn passes(&self, draft: &Draft<'_>, properties: &[(&'static str, String)]) -> Result<bool> {
        let suggestions =
            properties.iter().map(|(name, value)| (*name, value.clone(), String::new())).collect();
        Ok(self.place(draft, suggestions)?.is_ok())
    }

    /// What this board's Linux, whose memory is at `place`, could have besides.
    fn extras(&self, draft: &Draft<'_>, place: u64) -> Result<Extras> {
        let mut whole = Vec::new();
        let mut part = None;
        let mut master = None;
        let devices = self.board.nodes().filter(|node| node.property("reg").is_some() && node.is_enabled());
        let mut devices: Vec<_> = devices.filter(|node| node.property("interrupts").is_some()).collect();
        let rank = |node: &Node<'_>| COMMON.iter().position(|name| *name == node.base_name());
        devices.sort_by_key(|node| rank(node).unwrap_or(COMMON.len()));
        let platform =
            Platform::from_tree(self.board, &BOARDS).map_err(|error| anyhow::anyhow!("{error}"))?;
        let wires = wires::controller(&platform, self.board);
        // Who has its pins can silence the hypervisor.
        for node in devices.into_iter().filter(|node| Some(node.path()) != wires) {
            // Nobody starts with the display's timing generators.
            let wanted = whole.len() < OFFERS && (rank(&node).is_some() || whole.is_empty());
            let path = node.path();
            let value = dts::strings([path]);
            if wanted && self.passes(draft, &[("access", value.clone())])? {
                whole.push(path);
            } else if part.is_none() && self.passes(draft, &[("access-registers", value.clone())])? {
                part = Some(path);
            } else if master.is_none() {
                // Such a device takes the addresses of its partition for those of the machine.
                let identical = Draft { memory_at: place, ..*draft };
                let both = [("access", value.clone()), ("unprotected-dma", value)];
                master = self.passes(&identical, &both)?.then_some(path);
            }
        }
        let mut suggestions = Vec::new();
        if !whole.is_empty() {
            suggestions.push((
                "access",
                dts::strings(whole),
                "Devices that it gets for itself, with registers and interrupts. Of this board's, for example:".to_owned(),
            ));
        }
        if let Some(path) = part {
            suggestions.push((
                "access-registers",
                dts::strings([path]),
                "A device that shares a page with others. It gets the registers, and each access traps:"
                    .to_owned(),
            ));
        }
        let pins = dts::cells([5, 6]);
        if self.passes(draft, &[("gpio-pins", pins.clone())])? {
            suggestions.push(("gpio-pins", pins, "Some pins of the GPIO controller:".to_owned()));
        }
        if let Some(path) = master {
            suggestions.push((
                "unprotected-dma",
                dts::strings([path]),
                format!(
                    "A device that reads and writes memory by itself reaches everybody's. It is named here as well as in access, \
                     and memory has to be where the partition sees it, at {place:#x} for example:"
                ),
            ));
        }
        Ok(Extras { suggestions, live: false })
    }
}

/// The first bytes of a Linux Image (Linux, Documentation/arch/arm64/booting.rst).
fn image_header() -> [u8; 64] {
    let mut header = [0; 64];
    header[16..24].copy_from_slice(&KERNEL.to_le_bytes());
    header[56..60].copy_from_slice(b"ARM\x64");
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::board::{QEMU_VIRT, QEMU_VIRT_GICV2, RPI4};

    const BOARDS: [(&[u8], Option<&Board>); 6] = [
        (include_bytes!("../../../tests/manifests/boards/qemu-virt-gicv3.dtb"), Some(&QEMU_VIRT)),
        (include_bytes!("../../../tests/manifests/boards/qemu-virt-gicv2.dtb"), Some(&QEMU_VIRT_GICV2)),
        (include_bytes!("../../../tests/manifests/boards/qemu-virt-gicv3-4g.dtb"), None),
        (include_bytes!("../../../tests/manifests/boards/rpi4-qemu.dtb"), Some(&RPI4)),
        (include_bytes!("../../../tests/manifests/boards/rpi4-8g.dtb"), None),
        (include_bytes!("../../../tests/manifests/boards/sharing.dtb"), None),
    ];

    #[test]
    fn what_is_written_is_accepted_and_so_is_each_suggestion() {
        for (blob, machine) in BOARDS {
            let source = starter(blob, machine).expect("a starter");
            let board = Tree::new(blob).expect("a tree");
            let judge = Judge { board: &board, blob_size: blob.len() as u64, machine };
            assert!(judge.place_of(&source).expect("it compiles").is_ok(), "{source}");
            let mut suggestions = 0;
            for line in source.lines().filter(|line| line.ends_with("; */")) {
                let live = line.trim().trim_start_matches("/* ").trim_end_matches(" */");
                let changed = source.replace(line, live);
                if live.starts_with("unprotected-dma") {
                    let access = live.replace("unprotected-dma", "access");
                    let (_, place) = source.split_once("sees it, at ").expect("an address");
                    let place = place.split_whitespace().next().expect("an address");
                    let changed = changed.replace(live, &format!("{live} {access}")).replacen(
                        "<0x40000000 ",
                        &format!("<{place} "),
                        1,
                    );
                    assert_eq!(judge.place_of(&changed).expect("it compiles").err(), None, "{changed}");
                } else {
                    assert_eq!(judge.place_of(&changed).expect("it compiles").err(), None, "{changed}");
                }
                suggestions += 1;
            }
            assert!(suggestions > 0, "{source}");
            assert!(!source.contains("/soc/gpio@"), "it has the pins of the console:\n{source}");
        }
    }

    #[test]
    fn what_is_said_to_come_next_names_the_board() {
        let folder = tempfile::tempdir().expect("a folder");
        let boards = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/manifests/boards");
        let said = |name: &str| {
            let path = folder.path().join(name);
            std::fs::copy(boards.join(name), &path).expect("copied");
            let choice = choice(&path, &read_tree(&path).expect("a tree")).expect("a board");
            choice.replace(&format!("{}/", folder.path().display()), "")
        };
        assert_eq!(said("rpi4-8g.dtb"), "--dtb rpi4-8g.dtb --board rpi4");
        assert_eq!(said("sharing.dtb"), "--dtb sharing.dtb");
        assert_eq!(said("sharing.dts"), "--dtb sharing.dts");
    }

    #[test]
    fn no_board_is_an_error() {
        let error = starter(&source::compiled("/dts-v1/; / { };"), None).expect_err("no board");
        assert_eq!(error.to_string(), "/: there is no memory node");
        assert!(starter(b"no tree", None).is_err());
    }
}
