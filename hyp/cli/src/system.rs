//! From a manifest to the two files that a boot loader takes: the hypervisor's image and the bundle.
//!
//! Payloads are found by the names that the manifest gives them: beside it, in folders the user names, and
//! last among those that the tool makes itself. The manifest is checked here by the same code that checks it
//! at boot, against the tree of the very machine that is going to be started.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use bulkhead_boards::BOARDS;
use bulkhead_policy::manifest::{self, Finding, Rule, Value};
use bulkhead_policy::plan::{PartitionPlan, Plan};
use bulkhead_policy::platform::{BUNDLE as THE_BUNDLE, HYPERVISOR as THE_HYPERVISOR, Platform, Reservation};
use bulkhead_policy::tree::Tree;

use crate::board::{Board, Occupied};
use crate::bundle::{self, Payload};
use crate::diagnostic::Diagnostic;
use crate::elf::{Executable, Sizes};
use crate::findings::Findings;
use crate::import;
use crate::initramfs;
use crate::input;
use crate::linux::{self, LinuxParts};
use crate::output::{self, Medium, Output};
use crate::render;
use crate::report::{Bytes, trees};
use crate::rules;
use crate::say;
use crate::source::Source;
use crate::warnings;
use crate::workspace::{HYPERVISOR, Noise, Workspace};

/// Name of the hypervisor's flat image.
pub const IMAGE: &str = "bulkhead.img";
/// Name of the bundle.
pub const BUNDLE: &str = "bundle.cpio";

/// What holds the firmware's tree, from which guests' trees are made.
const THE_TREE: &str = "the firmware's tree";
/// Holders of memory that the boot loader fills and the hypervisor keeps.
pub const KEPT: [&str; 3] = [THE_HYPERVISOR, THE_BUNDLE, THE_TREE];

/// Payloads that the tool makes of what it downloads.
const KERNEL: &str = "Image";
const INITRAMFS: &str = "initramfs.cpio";

/// What a system is made of.
#[derive(Clone, Debug)]
pub struct Recipe {
    /// The manifest's source.
    pub manifest: PathBuf,
    /// Where payloads are looked for after the manifest's own folder.
    pub payloads: Vec<PathBuf>,
    /// Appended to every `bootargs` of the manifest.
    pub more_bootargs: Option<String>,
    /// The machine that it is for.
    pub board: Board,
    /// A device tree to check against, if not the one of the machine in QEMU.
    pub tree: Option<PathBuf>,
}

impl Recipe {
    /// The recipe of a manifest for a machine, with nothing changed.
    #[must_use]
    pub fn new(manifest: impl Into<PathBuf>, board: Board) -> Self {
        Self { manifest: manifest.into(), payloads: Vec::new(), more_bootargs: None, board, tree: None }
    }

    /// Where payloads are looked for: beside the manifest, then where the user says.
    fn folders(&self) -> Vec<PathBuf> {
        let beside = self.manifest.parent().filter(|folder| *folder != Path::new(""));
        let beside = beside.unwrap_or(Path::new(".")).to_owned();
        std::iter::once(beside).chain(self.payloads.iter().cloned()).collect()
    }

    /// What the manifest is called.
    #[must_use]
    pub fn name(&self) -> String {
        self.manifest.file_stem().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// A compiled manifest and the files that it names.
#[derive(Clone, Debug)]
pub struct Parts {
    tree: Vec<u8>,
    source: Source,
    files: BTreeMap<String, Payload>,
    /// Of files that are there and cannot be taken, why not.
    unusable: BTreeMap<String, String>,
    /// Where the files were looked for.
    folders: Vec<PathBuf>,
    /// Payloads that the tool makes itself.
    made: Vec<String>,
}

/// The hypervisor.
#[derive(Clone, Debug)]
pub struct Hypervisor {
    /// Its executable, for addresses and symbols.
    pub executable: PathBuf,
    /// The flat arm64 Image.
    pub image: Vec<u8>,
    /// Its sizes.
    pub sizes: Sizes,
}

/// A system that can be started.
#[derive(Clone, Debug)]
pub struct System {
    /// The hypervisor's executable.
    pub executable: PathBuf,
    /// The flat arm64 Image.
    pub image: PathBuf,
    /// The hypervisor's sizes.
    pub sizes: Sizes,
    /// SHA-256 of the image, in hexadecimal: the same for every board.
    pub sha256: String,
    /// Manifest and payloads.
    pub bundle: PathBuf,
    /// The machine that it was checked against.
    pub board: Board,
    /// More options for QEMU.
    pub options: Vec<String>,
}

impl System {
    /// A line that tells which hypervisor this is.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("sha256 {}  {IMAGE}", self.sha256)
    }

    /// QEMU, about to boot the system.
    ///
    /// # Errors
    ///
    /// As [`Board::command`].
    pub fn command(&self) -> Result<Command> {
        let mut command = self.board.command()?;
        command.arg("-kernel").arg(&self.image).arg("-initrd").arg(&self.bundle).args(&self.options);
        Ok(command)
    }
}

/// Builds the hypervisor.
///
/// # Errors
///
/// Where it does not build.
pub fn build_hypervisor(workspace: &Workspace, noise: Noise) -> Result<Hypervisor> {
    let executable = workspace.build(HYPERVISOR, noise)?;
    let elf = Executable::read(&executable)?;
    let sizes = elf.sizes();
    Ok(Hypervisor { image: elf.flatten()?, executable, sizes })
}

/// Compiles the manifest and finds or makes the files that it names.
///
/// # Errors
///
/// [`Findings`] where the manifest does not compile; anything else where a payload cannot be made.
pub fn gather(workspace: &Workspace, recipe: &Recipe, noise: Noise) -> Result<Parts> {
    let (tree, source) = compile(recipe)?;
    let pantry = Pantry { workspace, recipe, noise, linux: OnceCell::new() };
    let (mut files, mut unusable) = (BTreeMap::new(), BTreeMap::new());
    for name in payload_names(&tree) {
        match pantry.beside(&name).map(|path| input::payload(&path)) {
            Some(Ok(bytes)) => drop(files.insert(name, Payload::new(bytes))),
            Some(Err(why)) => drop(unusable.insert(name, format!("{why:#}"))),
            None => {
                if let Some(content) = pantry.make(&name)? {
                    files.insert(name, content);
                }
            }
        }
    }
    Ok(Parts { tree, source, files, unusable, folders: recipe.folders(), made: pantry.made() })
}

/// A checked manifest and the machine that it was checked against.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'c> {
    /// What each partition will own.
    pub plan: &'c Plan<'c>,
    /// The machine, with what the boot loader puts into its RAM.
    pub platform: &'c Platform<'c>,
    /// The machine's device tree.
    pub board: &'c Tree<'c>,
    /// What there is to warn of.
    pub warnings: &'c Findings,
}

/// Checks what was gathered against the recipe's machine, as the hypervisor will at boot. Returns a line for each partition.
///
/// # Errors
///
/// As [`checked`].
pub fn check(recipe: &Recipe, parts: &Parts, hypervisor: &Hypervisor) -> Result<String> {
    checked(recipe, parts, hypervisor, |checked| Ok(describe(checked.plan)))
}

/// Checks what was gathered against the recipe's machine, as the hypervisor will at boot, and passes on what was made of it.
///
/// # Errors
///
/// [`Findings`] with every fault; anything else where the check cannot be made, or what `with` says.
pub fn checked<T>(
    recipe: &Recipe,
    parts: &Parts,
    hypervisor: &Hypervisor,
    with: impl FnOnce(Checked<'_>) -> Result<T>,
) -> Result<T> {
    let claimed = hypervisor.sizes.claimed;
    let place = |_: &Platform<'_>, _: &Tree<'_>, bundle, tree| recipe.board.occupied(claimed, bundle, tree);
    checked_where(recipe, parts, place, with)
}

/// As [`checked`], where another boot loader than QEMU puts things: `place` takes the machine, the manifest, and the sizes of
/// bundle and tree.
///
/// # Errors
///
/// As [`checked`].
pub fn checked_where<T>(
    recipe: &Recipe,
    parts: &Parts,
    place: impl FnOnce(&Platform<'_>, &Tree<'_>, u64, u64) -> Option<Occupied>,
    with: impl FnOnce(Checked<'_>) -> Result<T>,
) -> Result<T> {
    let (blob, whose) = match &recipe.tree {
        Some(path) => (import::read_tree(path)?, path.display().to_string()),
        None => (recipe.board.tree()?, "QEMU's device tree".to_owned()),
    };
    let board = Tree::new(&blob).with_context(|| whose.clone())?;
    let tree = Tree::new(&parts.tree).with_context(|| recipe.manifest.display().to_string())?;
    let mut platform =
        Platform::from_tree(&board, &BOARDS).map_err(|error| anyhow::anyhow!("{whose}: {error}"))?;
    if let Some(known) = platform.board {
        let (name, title) = (known.name, known.title);
        ensure!(name == recipe.board.name, "{whose} describes a {title}; choose it with --board {name}");
    }
    let bundle_size = parts.bundle()?.len() as u64;
    let occupied = place(&platform, &tree, bundle_size, blob.len() as u64)
        .context("the bundle does not fit into the machine's memory; give the machine more")?;
    platform.reserved.extend([
        Reservation { region: occupied.hypervisor, holder: THE_HYPERVISOR },
        Reservation { region: occupied.bundle, holder: THE_BUNDLE },
        Reservation { region: occupied.tree, holder: THE_TREE },
    ]);
    let payload = |name: &str| parts.payload(name);
    let other_forms = parts.source.other_forms();
    match manifest::check(&tree, &mut platform, &board, &payload) {
        Ok(plan) => {
            let too_large = too_large_trees(&plan, &platform, &board);
            if !too_large.is_empty() {
                return Err(Findings::place(&parts.source, too_large).into());
            }
            if !other_forms.is_empty() {
                return Err(Findings::place(&parts.source, other_forms).into());
            }
            let found = warnings::warnings(&tree, &board, &platform, &plan, &payload);
            let warnings = &Findings::place(&parts.source, found);
            with(Checked { plan: &plan, platform: &platform, board: &board, warnings })
        }
        Err(findings) => {
            let explained = |(finding, more)| {
                let mut found = parts.explained(finding, &board);
                found.notes.extend::<Vec<String>>(more);
                found
            };
            let mut found: Vec<_> = rules::causes(&findings).into_iter().map(explained).collect();
            // What follows from the wrong form would only puzzle.
            let place = |found: &Diagnostic| (found.at.path.clone(), found.at.property.clone());
            found.retain(|found| !other_forms.iter().any(|other| place(other) == place(found)));
            found.extend(other_forms);
            Err(Findings::place(&parts.source, found).into())
        }
    }
}

/// The partitions whose device trees do not fit into the space kept for them: they would not start.
#[must_use]
pub fn too_large_trees(plan: &Plan<'_>, platform: &Platform<'_>, board: &Tree<'_>) -> Vec<Diagnostic> {
    let does_not_fit = |partition: &&PartitionPlan<'_>| trees::generate(partition, platform, board).is_err();
    plan.partitions
        .iter()
        .filter(does_not_fit)
        .map(|partition| rules::tree_too_large(partition.name))
        .collect()
}

/// Builds and checks a system and writes it into `folder`.
///
/// # Errors
///
/// As [`gather`], [`build_hypervisor`] and [`check`], or where the files cannot be written.
pub fn build(workspace: &Workspace, recipe: &Recipe, folder: &Path, noise: Noise) -> Result<System> {
    let hypervisor = build_hypervisor(workspace, noise)?;
    let parts = gather(workspace, recipe, noise)?;
    check_and_say(recipe, &parts, &hypervisor, noise)?;
    write(recipe, &parts, &hypervisor, folder)
}

/// As [`check`], but says what was found.
///
/// # Errors
///
/// As [`checked`].
pub fn check_and_say(recipe: &Recipe, parts: &Parts, hypervisor: &Hypervisor, noise: Noise) -> Result<()> {
    checked(recipe, parts, hypervisor, |checked| {
        if noise == Noise::Shown {
            render::show(checked.warnings);
            let plan = describe(checked.plan);
            say::step("Checked", format_args!("{}\n{}", recipe.manifest.display(), plan.trim_end()));
        }
        Ok(())
    })
}

/// Writes the hypervisor and the bundle into `folder`, checked or not.
///
/// # Errors
///
/// Where the files cannot be written.
pub fn write(recipe: &Recipe, parts: &Parts, hypervisor: &Hypervisor, folder: &Path) -> Result<System> {
    write_with(recipe, parts, hypervisor, folder, &[])
}

/// As [`write()`], with other files.
///
/// # Errors
///
/// As [`write()`].
pub fn write_with(
    recipe: &Recipe,
    parts: &Parts,
    hypervisor: &Hypervisor,
    folder: &Path,
    others: &[Output],
) -> Result<System> {
    let (image, bundle) = (folder.join(IMAGE), folder.join(BUNDLE));
    let mut files = vec![Output::new(&image, &*hypervisor.image), Output::new(&bundle, parts.bundle()?)];
    files.extend_from_slice(others);
    output::write_all(&files, Medium::Disk)?;
    Ok(System {
        executable: hypervisor.executable.clone(),
        sha256: bundle::sha256(&hypervisor.image),
        image,
        sizes: hypervisor.sizes,
        bundle,
        board: recipe.board,
        options: Vec::new(),
    })
}

impl Parts {
    /// Where the payloads were looked for, in words.
    #[must_use]
    pub fn searched(&self) -> String {
        let folders: Vec<_> = self.folders.iter().map(|folder| folder.display().to_string()).collect();
        format!("{}, and among what the tool makes itself: {}", folders.join(", "), self.made.join(", "))
    }

    /// What is in a payload.
    #[must_use]
    pub fn payload(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|payload| &*payload.bytes)
    }

    /// The names of all payloads that there are.
    #[must_use]
    pub fn offered(&self) -> Vec<String> {
        let entries = self.folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
        let files = entries.filter(|entry| entry.path().is_file());
        let files = files.map(|entry| entry.file_name().to_string_lossy().into_owned());
        files.chain(self.made.iter().cloned()).collect()
    }

    /// A finding of the policy's as the tool shows it; of a file that is there but cannot be taken, why.
    fn explained(&self, finding: &Finding<'_>, board: &Tree<'_>) -> Diagnostic {
        let found = rules::diagnostic(finding, self, board);
        let name = match finding.values[0] {
            Value::Text(name) if finding.rule == Rule::PayloadMissing => name,
            _ => return found,
        };
        let Some(why) = self.unusable.get(name) else { return found };
        Diagnostic { message: why.clone(), notes: Vec::new(), help: Some("name a file".to_owned()), ..found }
    }

    /// The bundle of them.
    pub(crate) fn bundle(&self) -> Result<Vec<u8>> {
        bundle::build(&self.tree, &self.files)
    }
}

/// The manifest as a blob, its `bootargs` extended where the recipe says so, and where everything in it stands.
fn compile(recipe: &Recipe) -> Result<(Vec<u8>, Source)> {
    Source::read(&recipe.manifest, &|source| match &recipe.more_bootargs {
        Some(more) => append_bootargs(&source, more),
        None => Ok(source),
    })
}

/// Appends `more` to the value of every `bootargs` in a manifest's source.
fn append_bootargs(source: &str, more: &str) -> Result<String> {
    let property = regex::Regex::new(r#"(\bbootargs\s*=\s*"[^"]*)""#)?;
    ensure!(
        property.is_match(source),
        "the manifest has no bootargs = \"...\" that \"{more}\" could be appended to"
    );
    Ok(property.replace_all(source, |found: &regex::Captures<'_>| format!("{} {more}\"", &found[1])).into())
}

/// The names of the files that a compiled manifest names.
fn payload_names(manifest: &[u8]) -> impl Iterator<Item = String> {
    let mut names: Vec<String> = Vec::new();
    // What is wrong with the tree or its properties is for the check to say.
    if let Ok(tree) = Tree::new(manifest)
        && let Some(partitions) = tree.root().child("partitions")
    {
        for partition in partitions.children() {
            for property in ["kernel", "ramdisk"] {
                let name = partition.property(property).and_then(|property| property.string());
                names.extend(name.map(str::to_owned));
            }
        }
    }
    names.sort();
    names.dedup();
    names.into_iter()
}

/// Where payloads come from.
struct Pantry<'a> {
    workspace: &'a Workspace,
    recipe: &'a Recipe,
    noise: Noise,
    /// The Linux partition's kernel and busybox, once one of them was asked for.
    linux: OnceCell<LinuxParts>,
}

impl Pantry<'_> {
    /// Where the user has something of this name.
    fn beside(&self, name: &str) -> Option<PathBuf> {
        let mut places = self.recipe.folders().into_iter().map(|folder| folder.join(name));
        places.find(|path| !name.is_empty() && (path.is_symlink() || path.exists()))
    }

    /// The content of a payload that the tool makes itself; `None` where there is none of this name.
    fn make(&self, name: &str) -> Result<Option<Payload>> {
        match name {
            "" => Ok(None),
            KERNEL => Ok(Some(Payload::new(read_file(&self.linux()?.kernel)?))),
            INITRAMFS => {
                let linux = self.linux()?;
                let bytes = initramfs::build(&read_file(&linux.busybox)?)?;
                Ok(Some(Payload { bytes, version: Some(format!("busybox {}", linux.busybox_version)) }))
            }
            _ => self.guest(name),
        }
    }

    /// The names of what the tool makes itself.
    fn made(&self) -> Vec<String> {
        let guests =
            self.workspace.guests().map(|name| format!("{}.bin", name.trim_start_matches("bulkhead-")));
        [KERNEL, INITRAMFS].map(str::to_owned).into_iter().chain(guests).collect()
    }

    fn linux(&self) -> Result<&LinuxParts> {
        if let Some(parts) = self.linux.get() {
            return Ok(parts);
        }
        let parts = linux::fetch(&downloads()?, &mut |line| say::step("Debian", line))?;
        if self.noise == Noise::Shown {
            let LinuxParts { kernel_version, busybox_version, .. } = &parts;
            say::step("Debian", format_args!("Linux {kernel_version} and busybox {busybox_version}"));
        }
        Ok(self.linux.get_or_init(|| parts))
    }

    /// A guest of the workspace: its ELF file under the binary's name, a flat image with `.bin` behind it.
    fn guest(&self, name: &str) -> Result<Option<Payload>> {
        let (binary, flat) = match name.strip_suffix(".bin") {
            Some(binary) => (binary, true),
            None => (name.strip_suffix(".elf").unwrap_or(name), false),
        };
        let Some(guest) = self.workspace.guest(binary, self.recipe.board.label) else { return Ok(None) };
        let path = self.workspace.build(guest, self.noise)?;
        let bytes = if flat { Executable::read(&path)?.flatten()? } else { read_file(&path)? };
        let version = self.workspace.version(guest).map(|version| format!("{guest} {version}"));
        Ok(Some(Payload { bytes, version }))
    }
}

/// Where downloads are kept: they outlive `cargo clean`.
///
/// # Errors
///
/// Where the user has no home.
pub fn downloads() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|path| !path.is_empty()).map(PathBuf::from);
    match cache.or_else(|| std::env::home_dir().map(|home| home.join(".cache"))) {
        Some(cache) => Ok(cache.join("bulkhead")),
        None => bail!("there is no place for downloads; set XDG_CACHE_HOME or HOME"),
    }
}

fn read_file(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// One line for each partition.
#[must_use]
pub fn describe(plan: &Plan<'_>) -> String {
    let mut text = String::new();
    for partition in &plan.partitions {
        let cpus: Vec<_> = partition.cpus.iter().map(ToString::to_string).collect();
        let memory: u64 = partition.memory.iter().map(|window| window.size).sum();
        let _ = writeln!(
            text,
            "{:>12} {}: cpus {}, {} at {}",
            "",
            partition.name,
            cpus.join(" "),
            Bytes(memory),
            partition.memory.iter().map(|window| window.pa.to_string()).collect::<Vec<_>>().join(", ")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bootargs_are_appended() {
        let source = "a { bootargs = \"console=ttyAMA0\"; }; b { bootargs=\"\"; };";
        let expected = "a { bootargs = \"console=ttyAMA0 x=1\"; }; b { bootargs=\" x=1\"; };";
        assert_eq!(append_bootargs(source, "x=1").unwrap(), expected);
        assert!(append_bootargs("a { };", "x=1").is_err());
    }
}
