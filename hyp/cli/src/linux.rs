//! The demo's Linux: an unmodified Debian kernel and busybox, fetched by the host's own apt.
//!
//! apt resolves, verifies and downloads; it does so for arm64 in a private root below the cache, with its
//! own package lists and an empty package database, so that the host's packages and architectures stay as
//! they are. The archive's address comes from the host's own apt sources: whoever uses a mirror keeps it.
//!
//! What was fetched once is used from then on, without a network, until [`refresh`] is called: a demo must
//! not change under its user because an archive moved on.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::output::write_atomically;

/// Always depends on Debian's current arm64 kernel.
const METAPACKAGE: &str = "linux-image-arm64";
const BUSYBOX: &str = "busybox-static";
const U_BOOT: &str = "u-boot-qemu";
const U_BOOT_FILE: &str = "u-boot.bin";
/// Where Debian keeps the keys of its archive; the name changed with Debian 13.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];
/// The tree of the Raspberry Pi 4, as the kernel's package calls it.
pub const RPI4_TREE: &str = "bcm2711-rpi-4-b.dtb";
/// Names, in the cache, the files of the last complete download.
const CURRENT: &str = "current";
/// How often a running download is looked at.
const POLL: Duration = Duration::from_millis(250);

/// The files that a Linux partition is made of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinuxParts {
    /// The kernel, a raw arm64 `Image`.
    pub kernel: PathBuf,
    /// The Raspberry Pi 4's device tree of the same package.
    pub tree: PathBuf,
    /// Name and version of the kernel's package.
    pub kernel_version: String,
    /// A static arm64 busybox.
    pub busybox: PathBuf,
    /// Version of the busybox package.
    pub busybox_version: String,
}

/// The kernel and busybox below `cache`, downloaded if they are not there yet.
///
/// `progress` is told what is being done, one line at a time.
///
/// # Errors
/// Whatever keeps apt from downloading; the message says what to do.
pub fn fetch(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<LinuxParts> {
    cached(cache).map_or_else(|| refresh(cache, progress), Ok)
}

/// As [`fetch`], but asks the archive for its current versions, and downloads those that the cache lacks.
///
/// # Errors
/// As [`fetch`].
pub fn refresh(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<LinuxParts> {
    // apt resolves relative paths in its configuration against its own directories.
    fs::create_dir_all(cache).with_context(|| cannot("create", cache))?;
    let cache = &cache.canonicalize().with_context(|| cannot("find", cache))?;

    progress("looking for the Debian archive in the host's apt sources");
    let apt = Apt::new(cache)?;
    progress("reading Debian's arm64 package lists");
    apt.run("apt-get", &["update"]).context("cannot read Debian's package lists: is the network up?")?;

    let metapackage = apt.package(METAPACKAGE)?;
    let kernel_package = metapackage
        .depends
        .iter()
        .find(|name| name.starts_with("linux-image-"))
        .with_context(|| format!("{METAPACKAGE} {} depends on no kernel", metapackage.version))?;
    let kernel_package = apt.package(kernel_package)?;
    let busybox_package = apt.package(BUSYBOX)?;

    let kernel_folder =
        apt.extract(cache, &kernel_package, &[("Image", is_kernel), (RPI4_TREE, is_rpi4_tree)], progress)?;
    apt.extract(cache, &busybox_package, &[("busybox", is_busybox)], progress)?;
    let kernel = kernel_folder.join("Image");
    ensure!(
        starts_as_image(&kernel).with_context(|| cannot("read", &kernel))?,
        "{} holds a kernel that is no raw arm64 Image",
        kernel_package.name
    );

    let current =
        [&kernel_package.name, &kernel_package.version, &busybox_package.name, &busybox_package.version];
    write_atomically(&cache.join(CURRENT), current.map(|field| format!("{field}\n")).concat().as_bytes())?;
    cached(cache).context("the cache changed while it was being filled: try again")
}

/// U-Boot for QEMU's `virt`, from the cache or downloaded into it.
///
/// # Errors
/// As [`fetch`].
pub fn u_boot(cache: &Path, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
    let is_ours =
        |path: &PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(U_BOOT));
    let mut cached: Vec<_> = files(cache).filter(is_ours).map(|folder| folder.join(U_BOOT_FILE)).collect();
    cached.retain(|path| path.is_file());
    if let Some(newest) = cached.into_iter().max() {
        return Ok(newest);
    }
    fs::create_dir_all(cache).with_context(|| cannot("create", cache))?;
    let cache = &cache.canonicalize().with_context(|| cannot("find", cache))?;
    let apt = Apt::new(cache)?;
    apt.run("apt-get", &["update"]).context("cannot read Debian's package lists: is the network up?")?;
    let folder = apt.extract(cache, &apt.package(U_BOOT)?, &[(U_BOOT_FILE, is_u_boot)], progress)?;
    Ok(folder.join(U_BOOT_FILE))
}

/// The parts of the last complete download, if all of them are still there.
#[must_use]
pub fn cached(cache: &Path) -> Option<LinuxParts> {
    let current = fs::read_to_string(cache.join(CURRENT)).ok()?;
    let [kernel, kernel_version, busybox, busybox_version] = current.lines().collect::<Vec<_>>()[..] else {
        return None;
    };
    let kernel_folder = cache.join(folder(kernel, kernel_version));
    let parts = LinuxParts {
        kernel: kernel_folder.join("Image"),
        tree: kernel_folder.join(RPI4_TREE),
        kernel_version: format!("{kernel} {kernel_version}"),
        busybox: cache.join(folder(busybox, busybox_version)).join("busybox"),
        busybox_version: busybox_version.to_owned(),
    };
    [&parts.kernel, &parts.tree, &parts.busybox].iter().all(|path| path.is_file()).then_some(parts)
}

/// The cache's folder for one version of a package.
fn folder(package: &str, version: &str) -> String {
    // The epoch's colon is the one character of a Debian version that some file systems refuse.
    format!("{package}_{}", version.replace(':', "%3a"))
}

/// Whether a path inside a package is that of the wanted file.
type Condition = fn(&str) -> bool;

/// Whether this path inside the kernel's package is the kernel.
fn is_kernel(path: &str) -> bool {
    path.starts_with("boot/vmlinuz-")
}

/// Whether this path inside the kernel's package is the Raspberry Pi 4's tree.
fn is_rpi4_tree(path: &str) -> bool {
    path.starts_with("usr/lib/linux-image-") && path.ends_with(RPI4_TREE)
}

/// Whether this path inside the busybox package is the program; Debian 13 moved it below `usr`.
fn is_busybox(path: &str) -> bool {
    path == "bin/busybox" || path == "usr/bin/busybox"
}

/// Whether this path inside U-Boot's package is the one for arm64.
fn is_u_boot(path: &str) -> bool {
    path == "usr/lib/u-boot/qemu_arm64/u-boot.bin"
}

/// Whether the file has the magic number of an arm64 Image (Linux, Documentation/arch/arm64/booting.rst).
fn starts_as_image(path: &Path) -> io::Result<bool> {
    let mut header = [0; 64];
    File::open(path)?.read_exact(&mut header)?;
    Ok(header[56..60] == *b"ARM\x64")
}

/// A package as the archive lists it.
#[derive(PartialEq, Eq, Debug)]
struct Package {
    name: String,
    version: String,
    /// Size of the `.deb`, bytes.
    size: u64,
    /// Names of the packages it depends on, without versions; of alternatives the first.
    depends: Vec<String>,
}

impl Package {
    /// Reads a stanza of `apt-cache show`.
    fn parse(stanza: &str) -> Option<Self> {
        let field = |name: &str| stanza.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let depends = field("Depends").unwrap_or_default();
        Some(Self {
            name: field("Package")?.to_owned(),
            version: field("Version")?.to_owned(),
            size: field("Size")?.parse().ok()?,
            depends: depends
                .split(',')
                .filter_map(|entry| Some(entry.split_whitespace().next()?.to_owned()))
                .collect(),
        })
    }
}

/// An apt with a root of its own.
struct Apt {
    configuration: PathBuf,
    downloads: PathBuf,
}

impl Apt {
    fn new(cache: &Path) -> Result<Self> {
        let root = cache.join("apt");
        let lists = root.join("lists");
        let archives = root.join("archives");
        let downloads = root.join("downloads");
        for folder in [&lists.join("partial"), &archives.join("partial"), &downloads] {
            fs::create_dir_all(folder).with_context(|| cannot("create", folder))?;
        }
        let keyring = KEYRINGS.iter().find(|path| Path::new(path).exists()).context(
            "the keys of the Debian archive are missing; run: apt-get install debian-archive-keyring",
        )?;

        let mut sources = String::new();
        for Source { uri, suite } in host_sources(&root)? {
            writeln!(sources, "deb [arch=arm64 signed-by={keyring}] {uri} {suite} main")?;
        }
        write_atomically(&root.join("sources.list"), sources.as_bytes())?;
        write_atomically(&root.join("status"), b"")?;

        // Read after the host's configuration, whose proxies and time-outs stay in force; its hooks and pins
        // are about the host's packages.
        let root_path = root.display();
        let configuration = root.join("apt.conf");
        let text = format!(
            r#"#clear APT::Update;
#clear DPkg::Pre-Invoke;
#clear DPkg::Post-Invoke;
#clear APT::Architectures;
#clear APT::Default-Release;
APT::Architecture "arm64";
APT::Architectures {{ "arm64"; }};
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
Acquire::Languages "none";
Dir::State "{root_path}";
Dir::State::lists "{root_path}/lists";
Dir::State::status "{root_path}/status";
Dir::Cache "{root_path}";
Dir::Cache::archives "{root_path}/archives";
Dir::Etc::SourceList "{root_path}/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::Etc::Preferences "/dev/null";
Dir::Etc::PreferencesParts "/dev/null";
"#
        );
        write_atomically(&configuration, text.as_bytes())?;
        Ok(Self { configuration, downloads })
    }

    /// `tool` with the private root.
    fn command(&self, tool: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(tool);
        command.arg("-c").arg(&self.configuration).arg("-q").args(arguments).current_dir(&self.downloads);
        command
    }

    fn run(&self, tool: &str, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(tool, arguments))
    }

    fn package(&self, name: &str) -> Result<Package> {
        let stanza = self.run("apt-cache", &["show", "--no-all-versions", name]).with_context(|| {
            format!("the Debian archive that this host uses has no package {name} for arm64")
        })?;
        Package::parse(&stanza)
            .with_context(|| format!("`apt-cache show {name}` prints no package:\n{stanza}"))
    }

    /// Makes sure that the cache has a folder for this version with these files: each under its name the one that its condition
    /// accepts. Returns the folder.
    fn extract(
        &self,
        cache: &Path,
        package: &Package,
        files: &[(&str, Condition)],
        progress: &mut dyn FnMut(&str),
    ) -> Result<PathBuf> {
        let folder = cache.join(folder(&package.name, &package.version));
        let missing: Vec<_> = files.iter().filter(|(name, _)| !folder.join(name).is_file()).collect();
        if missing.is_empty() {
            return Ok(folder);
        }
        let archive = self.download(package, progress)?;
        fs::create_dir_all(&folder).with_context(|| cannot("create", &folder))?;
        for (name, wanted) in missing {
            let bytes = unpack(&archive, *wanted)
                .with_context(|| format!("unpacking {} {}", package.name, package.version))?;
            write_atomically(&folder.join(name), &bytes)?;
        }
        fs::remove_file(&archive).with_context(|| cannot("remove", &archive))?;
        Ok(folder)
    }

    fn download(&self, package: &Package, progress: &mut dyn FnMut(&str)) -> Result<PathBuf> {
        let Package { name, version, size, .. } = package;
        let folder = self.downloads.join(folder(name, version));
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| cannot("remove", &folder))?;
        }
        fs::create_dir_all(&folder).with_context(|| cannot("create", &folder))?;

        progress(&format!("downloading {name} {version}, {}", megabytes(*size)));
        let mut child = self
            .command("apt-get", &["download", &format!("{name}={version}")])
            .current_dir(&folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("apt-get does not start")?;
        let mut tenths = 0;
        while child.try_wait().context("waiting for apt-get")?.is_none() {
            let done = bytes_in(&folder);
            let now = done.saturating_mul(10).checked_div(*size).unwrap_or(0);
            if now > tenths && now < 10 {
                tenths = now;
                progress(&format!("downloading {name}: {} of {}", megabytes(done), megabytes(*size)));
            }
            std::thread::sleep(POLL);
        }
        let result = child.wait_with_output().context("waiting for apt-get")?;
        ensure!(
            result.status.success(),
            "apt-get could not download {name}; is the network up?\n{}",
            String::from_utf8_lossy(&result.stderr).trim()
        );
        let archive =
            files(&folder).find(|path| path.extension().is_some_and(|extension| extension == "deb"));
        archive.with_context(|| format!("apt-get put no package into {}", folder.display()))
    }
}

/// One line of a sources list.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Source {
    uri: String,
    suite: String,
}

/// What the host's apt calls Debian: archive and suites, security updates included, backports not.
fn host_sources(root: &Path) -> Result<Vec<Source>> {
    let sources = parse_targets(&output(Command::new("apt-get").args(TARGETS))?);
    if !sources.is_empty() {
        return Ok(sources);
    }
    // The host's package lists are not there, as in many containers: read them, but not into the host.
    let lists = root.join("host-lists");
    fs::create_dir_all(lists.join("partial")).with_context(|| cannot("create", &lists))?;
    let private_lists = format!("Dir::State::lists={}", lists.display());
    let private = ["-o", &private_lists, "-o", "APT::Sandbox::User=root"];
    // A third party's source that fails is no reason to stop.
    let update = output(Command::new("apt-get").args(private).args([
        "-q",
        "-o",
        "APT::Update::Error-Mode=any",
        "update",
    ]));
    let sources = parse_targets(&output(Command::new("apt-get").args(private).args(TARGETS))?);
    if sources.is_empty() {
        update.context("cannot read the host's package lists: is the network up?")?;
        bail!(
            "no source of this host's apt is a Debian archive; \
             add one (man sources.list), for example with the suite bookworm, and run: apt-get update"
        );
    }
    Ok(sources)
}

/// Makes `apt-get` print what [`parse_targets`] reads.
const TARGETS: [&str; 3] =
    ["indextargets", "--format", "$(CREATED_BY)|$(ORIGIN)|$(COMPONENT)|$(REPO_URI)|$(RELEASE)"];

fn parse_targets(text: &str) -> Vec<Source> {
    let mut sources: Vec<Source> = text
        .lines()
        .filter_map(|line| {
            let ["Packages", "Debian", "main", uri, suite] = line.split('|').collect::<Vec<_>>()[..] else {
                return None;
            };
            (!uri.starts_with("cdrom:")).then(|| Source { uri: uri.to_owned(), suite: suite.to_owned() })
        })
        .collect();
    sources.sort();
    sources.dedup();
    sources
}

/// The first file of a `.deb` whose path `wanted` accepts.
fn unpack(archive: &Path, wanted: Condition) -> Result<Vec<u8>> {
    let mut child = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(archive)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("dpkg-deb does not start; run: apt-get install dpkg")?;
    let mut bytes = None;
    if let Some(stdout) = child.stdout.take() {
        bytes = find_in_tar(stdout, wanted)?;
    }
    // It ends with a broken pipe when the file was found before the end.
    child.wait().context("waiting for dpkg-deb")?;
    bytes.context("the package lacks the file that Bulkhead needs")
}

fn find_in_tar(tar: impl Read, wanted: Condition) -> Result<Option<Vec<u8>>> {
    for entry in tar::Archive::new(tar).entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().trim_start_matches("./").to_owned();
        if entry.header().entry_type().is_file() && wanted(&path) {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes)?;
            return Ok(Some(bytes));
        }
    }
    Ok(None)
}

/// What a command prints.
fn output(command: &mut Command) -> Result<String> {
    let tool = command.get_program().to_string_lossy().into_owned();
    let result = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{tool} does not start: this needs a Debian host with apt"))?;
    ensure!(
        result.status.success(),
        "{tool} failed with {}:\n{}",
        result.status,
        String::from_utf8_lossy(&result.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&result.stdout).into_owned())
}

fn cannot(what: &str, path: &Path) -> String {
    format!("cannot {what} {}", path.display())
}

fn files(folder: &Path) -> impl Iterator<Item = PathBuf> {
    fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn bytes_in(folder: &Path) -> u64 {
    files(folder).filter_map(|path| Some(path.metadata().ok()?.len())).sum()
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes / 100_000 % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_are_those_of_debian_itself() {
        let targets = "\
Packages|Debian|main|http://mirror.example/debian/|trixie
Translations|Debian|main|http://mirror.example/debian/|trixie
Packages|Debian|main|http://mirror.example/debian-security/|trixie-security
Packages|Debian|contrib|http://mirror.example/debian/|trixie
Packages|Debian Backports|main|http://mirror.example/debian/|trixie-backports
Packages|Docker|stable|https://third-party.example/debian/|trixie
Packages|Debian|main|cdrom:[Debian 13]/|trixie
Packages|Debian|main|http://mirror.example/debian/|trixie
";
        let sources = parse_targets(targets);
        let suites: Vec<_> = sources.iter().map(|source| source.suite.as_str()).collect();
        assert_eq!(suites, ["trixie-security", "trixie"]);
    }

    #[test]
    fn a_package_is_read_from_its_stanza() {
        let stanza = "\
Package: linux-image-arm64
Source: linux-signed-arm64 (6.1.2+1)
Version: 6.1.2-1
Depends: linux-image-6.1.0-2-arm64 (= 6.1.2-1), foo | bar
Description: Linux
 Version: not this one
Size: 1480
";
        let package = Package::parse(stanza).expect("a package");
        assert_eq!(package.version, "6.1.2-1");
        assert_eq!(package.size, 1480);
        assert_eq!(package.depends, ["linux-image-6.1.0-2-arm64", "foo"]);
    }

    #[test]
    fn a_half_filled_cache_is_no_cache() {
        let cache = std::env::temp_dir().join(format!("bulkhead-linux-{}", std::process::id()));
        let kernel = cache.join("linux-image-1_1-1");
        let busybox = cache.join("busybox-static_1%3a2-1");
        for folder in [&kernel, &busybox] {
            fs::create_dir_all(folder).expect("a folder");
        }
        fs::write(cache.join(CURRENT), "linux-image-1\n1-1\nbusybox-static\n1:2-1\n").expect("a file");
        fs::write(kernel.join("Image"), "").expect("a file");
        assert_eq!(cached(&cache), None);
        fs::write(busybox.join("busybox"), "").expect("a file");
        assert_eq!(cached(&cache), None);
        fs::write(kernel.join(RPI4_TREE), "").expect("a file");
        let parts = fetch(&cache, &mut |_| ()).expect("the cache is complete");
        assert_eq!(parts.kernel, kernel.join("Image"));
        assert_eq!(parts.kernel_version, "linux-image-1 1-1");
        assert_eq!(parts.busybox_version, "1:2-1");
        fs::remove_dir_all(cache).expect("removed");
    }
}
