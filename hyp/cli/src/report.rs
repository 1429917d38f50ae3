//! What a system will be, before it runs: who owns what, at which addresses, and what remains to be thought of.
//!
//! All forms are made of one [`Report`], which is made of the checked plan: what a report says is what the hypervisor will
//! do. A saved JSON form can be compared with later ones.

mod diff;
mod model;
mod risks;
mod survey;
mod svg;
#[cfg(test)]
mod tests;
mod text;
pub mod trees;

use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

pub use diff::{Change, Diff};
pub use model::*;
pub use svg::svg;
pub use text::text;
pub use trees::{GuestTree, trees};

use crate::output::{self, Medium, Output};
use crate::system::{self, Hypervisor, Recipe};
use crate::workspace::{Noise, Workspace};
use crate::{input, say};

/// A form of the report.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Format {
    /// Tables for people
    Text,
    /// The same data for programs
    Json,
    /// The memory maps as a picture
    Svg,
}

/// Options of `report`.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct Options {
    /// The form [default: text]
    #[arg(long, value_enum)]
    format: Option<Format>,
    /// A folder for all forms, or with --format, --diff or --trees a file [default: standard output]
    #[arg(long, value_name = "DIR|FILE")]
    out: Option<PathBuf>,
    /// Show only what is other than in this manifest, or in this saved JSON report
    #[arg(long, value_name = "OLD")]
    diff: Option<PathBuf>,
    /// Show the partitions' device trees as source
    #[arg(long, conflicts_with_all = ["format", "diff"])]
    trees: bool,
}

/// Makes the report and writes or prints it.
///
/// # Errors
///
/// [`crate::findings::Findings`] where a manifest is refused; anything else where the report cannot be made or written.
pub fn run(workspace: &Workspace, recipe: &Recipe, options: &Options) -> Result<()> {
    let hypervisor = system::build_hypervisor(workspace, Noise::Shown)?;
    let (report, trees) = examine(workspace, recipe, &hypervisor, &recipe.manifest)?;
    let document = match (&options.diff, options.trees) {
        (Some(old), _) => {
            let diff = Diff::new(&older(workspace, recipe, &hypervisor, old)?, &report);
            match options.format {
                None | Some(Format::Text) => diff.to_string(),
                Some(Format::Json) => json(&diff)?,
                Some(Format::Svg) => bail!("a comparison is no picture; leave --format svg out"),
            }
        }
        (None, true) => {
            trees.iter().map(|tree| format!("/* {} */\n{}", tree.partition, tree.source)).collect()
        }
        (None, false) => match options.format {
            None | Some(Format::Text) => text(&report),
            Some(Format::Json) => json(&report)?,
            Some(Format::Svg) => svg(&report),
        },
    };
    let Some(out) = &options.out else { return say::print(&document) };
    if options.format.is_some() || options.diff.is_some() || options.trees {
        output::write_atomically(out, document.as_bytes())?;
    } else {
        output::write_all(&files(out, &report, &trees)?, Medium::Disk)?;
    }
    say::step("Wrote", out.display());
    Ok(())
}

/// All forms of the report in a folder.
fn files(folder: &Path, report: &Report, trees: &[GuestTree]) -> Result<Vec<Output>> {
    let mut files = vec![
        Output::new(folder.join("report.txt"), text(report)),
        Output::new(folder.join("report.json"), json(report)?),
        Output::new(folder.join("memory.svg"), svg(report)),
    ];
    for tree in trees {
        files.push(Output::new(folder.join(format!("{}.dts", tree.partition)), tree.source.clone()));
    }
    Ok(files)
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// The report of a recipe's manifest under this name, and its guests' trees.
fn examine(
    workspace: &Workspace,
    recipe: &Recipe,
    hypervisor: &Hypervisor,
    name: &Path,
) -> Result<(Report, Vec<GuestTree>)> {
    let parts = system::gather(workspace, recipe, Noise::Shown)?;
    let name = name.file_name().unwrap_or(name.as_os_str()).to_string_lossy();
    let name = say::visible(&name);
    system::checked(recipe, &parts, hypervisor, |checked| Ok((Report::new(checked, &name), trees(checked)?)))
}

/// The report to compare with: a saved one, or that of another manifest for the same machine.
fn older(workspace: &Workspace, recipe: &Recipe, hypervisor: &Hypervisor, old: &Path) -> Result<Report> {
    let content = input::text(old)?;
    if !content.trim_start().starts_with('{') {
        // A pipe, as from `git show`, gives its content once.
        let mut copy = None;
        if !old.is_file() {
            let mut file = tempfile::Builder::new().suffix(".dts").tempfile()?;
            file.write_all(content.as_bytes()).context("cannot make a temporary file")?;
            copy = Some(file);
        }
        let manifest = copy.as_ref().map_or(old, |file| file.path()).to_owned();
        // What it names is looked for beside the newer one, too.
        let beside = recipe.manifest.parent().map(Path::to_owned);
        let payloads = recipe.payloads.iter().cloned().chain(beside).collect();
        let recipe = Recipe { manifest, payloads, ..recipe.clone() };
        return examine(workspace, &recipe, hypervisor, old).map(|(report, _)| report);
    }
    let cannot = || format!("{} is no report", old.display());
    let data: serde_json::Value = serde_json::from_str(&content).with_context(cannot)?;
    if let Some(form) = data.get("format").filter(|&form| form != FORMAT) {
        bail!(
            "{} has the form {form}, and this tool compares {FORMAT:?}; make the report again",
            old.display()
        );
    }
    serde_json::from_value(data).with_context(cannot)
}
