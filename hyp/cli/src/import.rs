//! Manifests made of what other hypervisors are configured with.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use bulkhead_policy::tree::Tree;
use regex::Regex;

use crate::output::write_new;
use crate::{input, say, source};

use self::xen::Imported;

pub mod xen;

/// What a manifest is made of.
#[derive(clap::Subcommand)]
pub enum Format {
    /// A dom0less device tree of Xen
    #[command(after_help = "Examples:\n  cargo bulkhead import xen xen.dts --out mine.dts\n  \
        cargo bulkhead import xen xen.dtb --payload 0x4a000000=boot/Image --payload 0x4b000000=boot/initrd\n  \
        cargo bulkhead import xen xen.dtb --imagebuilder config --dtb board.dtb\n\n\
        Xen's tree names its files by their addresses in memory. --payload says which file was at which, and \
        --imagebuilder takes DOMU_KERNEL, DOMU_RAMDISK and DOMU_PASSTHROUGH_DTB from ImageBuilder's configuration, where \
        domain N is called domUN. What is said of neither gets a usual name.\n\n\
        Exit codes: 0 the manifest is complete, 1 it is not, as the messages say, 2 there is none.")]
    Xen(Xen),
}

/// Options of `import xen`.
#[derive(clap::Args)]
pub struct Xen {
    /// The tree, source or blob
    file: PathBuf,
    /// The board's own tree, source or blob, if it is not the same
    #[arg(long, value_name = "FILE")]
    dtb: Option<PathBuf>,
    /// The file that was at an address; may be given more than once
    #[arg(long = "payload", value_name = "ADDRESS=FILE")]
    payloads: Vec<String>,
    /// The configuration of Xen's ImageBuilder
    #[arg(long, value_name = "FILE")]
    imagebuilder: Option<PathBuf>,
    /// Where the manifest goes [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Overwrite it
    #[arg(long, requires = "out")]
    force: bool,
}

/// Makes a manifest; whether it is complete.
///
/// # Errors
///
/// Where something cannot be read or written, or has nothing to import.
pub fn run(format: &Format) -> Result<bool> {
    let Format::Xen(options) = format;
    let payloads = Payloads::read(&options.payloads, options.imagebuilder.as_deref())?;
    let imported = from_xen(&options.file, options.dtb.as_deref(), &payloads)?;
    match &options.out {
        Some(out) => write_new(out, imported.source.as_bytes(), options.force)?,
        None => say::print(&imported.source)?,
    }
    for remark in &imported.remarks {
        let text = format!("{}: {}", remark.path, remark.text);
        if remark.open { say::error(text) } else { say::note(text) }
    }
    if let Some(out) = &options.out {
        let folders =
            payloads.folders().into_iter().map(|folder| format!(" --payloads {}", say::word(&folder)));
        let folders: String = folders.collect();
        say::step("Wrote", format_args!("{}", out.display()));
        say::note(format_args!("next: cargo bulkhead check {}{folders}", say::word(out)));
    }
    Ok(!imported.remarks.iter().any(|remark| remark.open))
}

/// Converts Xen's tree in `file`, for the board whose tree is in `board`, if not in `file` too.
///
/// # Errors
///
/// Where one cannot be read or has nothing to import.
pub fn from_xen(file: &Path, board: Option<&Path>, payloads: &Payloads) -> Result<Imported> {
    let blob = read_tree(file)?;
    let tree = Tree::new(&blob).with_context(|| file.display().to_string())?;
    let board_blob = board.map(read_tree).transpose()?;
    let board = board_blob.as_deref().map(Tree::new).transpose().context("the board's tree")?;
    // Boot loaders add the domains to the board's tree.
    let board = board.as_ref().or((tree.cpus().count() > 0).then_some(&tree));
    xen::convert(&tree, board, payloads, &file.file_name().unwrap_or_default().to_string_lossy())
}

/// A file of a domain.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Payload {
    /// Where it is.
    pub path: PathBuf,
    /// Its first bytes, all of them where it is a tree.
    pub head: Vec<u8>,
}

impl Payload {
    /// More than a device tree fragment ever has.
    const HEAD: u64 = 4 << 20;

    fn read(path: PathBuf) -> Result<Self> {
        let head = input::head(&path, Self::HEAD)?;
        Ok(Self { path, head })
    }

    /// What the manifest calls it.
    #[must_use]
    pub fn name(&self) -> String {
        self.path.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }
}

/// The files behind the addresses of a boot loader's memory.
#[derive(Clone, Default, Debug)]
pub struct Payloads {
    by_address: BTreeMap<u64, Payload>,
    /// By the name of the domain and by ImageBuilder's name of the kind.
    by_domain: BTreeMap<(String, String), Payload>,
}

impl Payloads {
    /// From arguments like `0x4a000000=boot/Image` and from a configuration of Xen's ImageBuilder.
    ///
    /// # Errors
    ///
    /// Where an argument is malformed, a file cannot be read, or two files in different folders have the same name:
    /// in a bundle they would be one.
    pub fn read(arguments: &[String], imagebuilder: Option<&Path>) -> Result<Self> {
        let mut this = Self::default();
        for argument in arguments {
            let (address, path) = argument.split_once('=').unwrap_or((argument, ""));
            let digits = address.strip_prefix("0x").or_else(|| address.strip_prefix("0X"));
            let address =
                u64::from_str_radix(digits.unwrap_or(address), if digits.is_some() { 16 } else { 10 });
            let (Ok(address), false) = (address, path.is_empty()) else {
                bail!("--payload {argument}: write ADDRESS=FILE, for example 0x4a000000=Image");
            };
            this.by_address.insert(address, Payload::read(path.into())?);
        }
        if let Some(config) = imagebuilder {
            this.read_imagebuilder(config)?;
        }
        let mut folders = BTreeMap::new();
        for payload in this.all() {
            let other = folders.entry(payload.name()).or_insert(&payload.path);
            if *other != &payload.path {
                bail!(
                    "{} and {} have the same name, which in a bundle are one file; rename one of them",
                    other.display(),
                    payload.path.display()
                );
            }
        }
        Ok(this)
    }

    /// The assignments to `DOMU_...[N]` in the shell script that ImageBuilder's configuration is. Domain N is called `domUN`.
    fn read_imagebuilder(&mut self, config: &Path) -> Result<()> {
        let text = input::text(config)?;
        let line =
            Regex::new(r#"(?m)^\s*DOMU_(KERNEL|RAMDISK|PASSTHROUGH_DTB)\[(\d+)\]=["']?([^"'#\s]+)["']?"#)?;
        let folder = config.parent().unwrap_or(Path::new("."));
        for found in line.captures_iter(&text) {
            let payload = Payload::read(folder.join(&found[3]))
                .with_context(|| format!("{}: {}", config.display(), &found[0].trim()))?;
            self.by_domain.insert((format!("domU{}", &found[2]), found[1].to_owned()), payload);
        }
        Ok(())
    }

    fn all(&self) -> impl Iterator<Item = &Payload> {
        self.by_address.values().chain(self.by_domain.values())
    }

    /// Addresses that no module of the tree has are most likely mistyped.
    pub fn addresses(&self) -> impl Iterator<Item = u64> {
        self.by_address.keys().copied()
    }

    /// The file at an address, or else the domain's of this kind.
    #[must_use]
    pub fn find(&self, address: Option<u64>, domain: &str, kind: &str) -> Option<&Payload> {
        let at = address.and_then(|address| self.by_address.get(&address));
        at.or_else(|| self.by_domain.get(&(domain.to_owned(), kind.to_owned())))
    }

    /// The folders that hold them, each once.
    #[must_use]
    pub fn folders(&self) -> Vec<PathBuf> {
        let folder = |payload: &Payload| match payload.path.parent() {
            Some(folder) if folder != Path::new("") => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut folders: Vec<_> = self.all().map(folder).collect();
        folders.sort();
        folders.dedup();
        folders
    }
}

/// Reads a device tree, source or blob.
///
/// # Errors
///
/// Where it cannot be read or is neither.
pub fn read_tree(path: &Path) -> Result<Vec<u8>> {
    let bytes = input::bytes(path)?;
    if bytes.starts_with(&source::MAGIC) {
        Tree::new(&bytes).with_context(|| path.display().to_string())?;
        return Ok(bytes);
    }
    let Ok(source) = String::from_utf8(bytes) else {
        bail!("{} is no device tree, neither source nor blob", path.display())
    };
    let (blob, messages) = source::dtc(&source, path.parent().unwrap_or(Path::new(".")))?;
    let Some(blob) = blob else {
        // The first says what is wrong.
        let first = messages.lines().find(|line| !line.is_empty()).unwrap_or("dtc does not say why");
        bail!(
            "{} does not compile: {}",
            path.display(),
            first.replace("<stdin>", &path.display().to_string())
        )
    };
    Tree::new(&blob).with_context(|| path.display().to_string())?;
    Ok(blob)
}
