//! The source tree that the tool works on, and what cargo makes of it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use cargo_metadata::{Message, Metadata, MetadataCommand, Package};

/// The target triple of all that runs on the machine.
pub const TARGET: &str = "aarch64-unknown-none-softfloat";

/// Package and binary of the hypervisor.
pub const HYPERVISOR: &str = "bulkhead-el2";

/// The workspace that this tool was built from.
#[derive(Debug)]
pub struct Workspace {
    metadata: Metadata,
    /// Where cargo builds, if not where it usually does.
    target: Option<PathBuf>,
    /// Package of each binary that runs on the machine.
    bare_binaries: BTreeMap<String, String>,
}

/// Whether cargo shows what it does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Noise {
    /// Progress and warnings on standard error.
    Shown,
    /// Nothing unless it fails.
    Quiet,
}

impl Workspace {
    /// Reads the workspace.
    ///
    /// # Errors
    ///
    /// Where the source tree has gone or cargo cannot be run.
    pub fn load() -> Result<Self> {
        Self::at(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."), None)
    }

    /// Reads the workspace in the folder `root`, to be built in `target` or else where cargo usually does.
    ///
    /// # Errors
    ///
    /// As [`Workspace::load`].
    pub fn at(root: &Path, target: Option<PathBuf>) -> Result<Self> {
        let manifest = root.join("Cargo.toml");
        ensure!(
            manifest.exists(),
            "{} has gone: run the tool as `cargo bulkhead` inside its source tree",
            manifest.display()
        );
        let metadata = MetadataCommand::new()
            .manifest_path(manifest)
            .no_deps()
            .exec()
            .context("cannot read the workspace; does `cargo metadata` work here?")?;
        let host = metadata.workspace_default_packages();
        let bare_binaries = metadata
            .workspace_packages()
            .into_iter()
            .filter(|package| !host.contains(package))
            .flat_map(|package| package.targets.iter().map(move |target| (package, target)))
            .filter(|(_, target)| target.is_bin())
            .map(|(package, target)| (target.name.clone(), package.name.to_string()))
            .collect();
        Ok(Self { metadata, target, bare_binaries })
    }

    /// Its root directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        self.metadata.workspace_root.as_std_path()
    }

    /// Where the tool puts what it makes, the downloads aside.
    #[must_use]
    pub fn output(&self) -> PathBuf {
        self.metadata.target_directory.join("bulkhead").into()
    }

    /// Packages that run on the host.
    #[must_use]
    pub fn host_packages(&self) -> Vec<&Package> {
        self.metadata.workspace_default_packages()
    }

    /// Packages that run on the machine.
    #[must_use]
    pub fn bare_packages(&self) -> Vec<&Package> {
        let host = self.host_packages();
        self.metadata.workspace_packages().into_iter().filter(|package| !host.contains(package)).collect()
    }

    /// Names of the binaries that run on the machine, the hypervisor aside.
    pub fn guests(&self) -> impl Iterator<Item = &str> {
        self.bare_binaries.keys().map(String::as_str).filter(|&name| name != HYPERVISOR)
    }

    /// The binary of this name, with or without the project's prefix, that runs on the machine called `label`: of one that is built
    /// for each machine apart, that machine's.
    #[must_use]
    pub fn guest(&self, name: &str, label: &str) -> Option<&str> {
        let names = [
            format!("{name}-{label}"),
            format!("bulkhead-{name}-{label}"),
            name.to_owned(),
            format!("bulkhead-{name}"),
        ];
        names.iter().find_map(|name| self.guests().find(|guest| guest == name))
    }

    /// The version of the package that has this binary.
    #[must_use]
    pub fn version(&self, binary: &str) -> Option<String> {
        let package = self.bare_binaries.get(binary)?;
        let packages = self.metadata.workspace_packages();
        Some(packages.iter().find(|found| *found.name == *package)?.version.to_string())
    }

    /// A cargo command that runs in the workspace.
    #[must_use]
    pub fn cargo(&self) -> Command {
        // Under `cargo run` the variable names the very cargo that was called, toolchain included.
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.current_dir(self.root());
        if let Some(target) = &self.target {
            cargo.env("CARGO_TARGET_DIR", target);
        }
        cargo
    }

    /// Builds a binary for the machine and returns where its ELF file is.
    ///
    /// # Errors
    ///
    /// Where there is no such binary or it does not build.
    pub fn build(&self, binary: &str, noise: Noise) -> Result<PathBuf> {
        let package = self.bare_binaries.get(binary).with_context(|| {
            format!("no package for the machine has a binary called {binary}; add one or correct the name")
        })?;
        let mut cargo = self.cargo();
        cargo.args(["build", "--release", "--target", TARGET, "--package", package, "--bin", binary]);
        cargo.arg("--message-format=json-render-diagnostics");
        if noise == Noise::Quiet {
            cargo.arg("--quiet");
        }
        // Added to the flags of .cargo/config.toml: what is built is the same wherever its sources and the libraries' lie.
        let folders = [Some(self.root().to_owned()), registry_sources()];
        for folder in folders.iter().flatten() {
            let flag = format!("--remap-path-prefix={}=", folder.display());
            cargo.arg("--config").arg(format!("target.{TARGET}.rustflags=[{flag:?}]"));
        }
        // These would replace the flags of .cargo/config.toml, which the image depends on.
        cargo.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
        let output = cargo.stderr(Stdio::inherit()).output().context("cannot run cargo")?;
        if !output.status.success() {
            bail!("{binary} does not build; cargo's messages above say why");
        }
        Message::parse_stream(&output.stdout[..])
            .filter_map(|message| match message {
                Ok(Message::CompilerArtifact(artifact)) if artifact.target.name == binary => {
                    artifact.executable
                }
                _ => None,
            })
            .last()
            .map(Into::into)
            .with_context(|| format!("cargo built {binary} but names no executable"))
    }
}

/// Where cargo keeps the sources of libraries.
fn registry_sources() -> Option<PathBuf> {
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(std::env::home_dir()?.join(".cargo")))?;
    Some(home.join("registry/src"))
}
