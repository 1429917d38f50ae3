//! The report for people, in aligned columns that survive a mail or a log.

use std::fmt::Write;

use comfy_table::{CellAlignment, Table, presets};

use super::model::{Bytes, Holder, Portion, Report, Resource, ResourceKind, Window, WindowKind, range};

/// With more partitions than this the matrix has their numbers in place of their names.
const NAMED_COLUMNS: usize = 8;

/// The report as text.
#[must_use]
pub fn text(report: &Report) -> String {
    let mut text = String::new();
    let w = &mut text;
    let count = report.partitions.len();
    let plural = if count == 1 { "" } else { "s" };
    let _ = writeln!(w, "{} on {}: {count} partition{plural}", report.manifest, report.board);
    heading(w, "Partitions");
    partitions(w, report);
    heading(w, "Who owns what");
    matrix(w, report);
    for partition in &report.partitions {
        heading(w, &format!("What {} sees: intermediate physical addresses (IPA)", partition.name));
        map(w, &partition.map);
    }
    heading(w, "The machine: physical addresses (PA)");
    machine(w, report);
    heading(w, "Free RAM");
    let free = report.free;
    let _ = writeln!(w, "  {}, the largest piece {}", Bytes(free.total), Bytes(free.largest));
    heading(w, "Residual risks");
    for risk in &report.risks {
        let who = risk.partition.as_ref().map(|name| format!("{name}: ")).unwrap_or_default();
        let _ = writeln!(w, "  - {who}{}", risk.message);
    }
    text
}

fn heading(w: &mut String, title: &str) {
    let _ = writeln!(w, "\n{title}");
}

/// Rows without lines around them; `right` are the columns of numbers.
fn table(w: &mut String, header: Option<Vec<String>>, rows: Vec<Vec<String>>, right: &[usize]) {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).add_rows(rows);
    if let Some(header) = header {
        table.set_header(header);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((2, 0));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for line in table.lines() {
        let _ = writeln!(w, "{}", line.trim_end());
    }
}

fn names(header: &[&str]) -> Option<Vec<String>> {
    Some(header.iter().map(|&name| name.to_owned()).collect())
}

fn partitions(w: &mut String, report: &Report) {
    let mut rows = Vec::new();
    for partition in &report.partitions {
        let cpus: Vec<_> = partition.cpus.iter().map(ToString::to_string).collect();
        let ram = partition.map.iter().filter(|window| window.kind == WindowKind::Ram);
        let console = partition.map.iter().find(|window| window.kind == WindowKind::Console);
        rows.push(vec![
            partition.number.to_string(),
            partition.name.clone(),
            partition.os.clone(),
            cpus.join(" "),
            Bytes(ram.map(|window| window.size).sum()).to_string(),
            format!("{:#010x}", partition.entry),
            console.map(|window| format!("PL011 {:#010x}", window.ipa)).unwrap_or_default(),
            partition.bootargs.clone().unwrap_or_default(),
        ]);
    }
    let header = names(&["#", "name", "os,type", "CPUs", "RAM", "entry", "console", "bootargs"]);
    table(w, header, rows, &[0, 4]);
}

fn matrix(w: &mut String, report: &Report) {
    let holders = report.holders();
    let numbered = report.partitions.len() > NAMED_COLUMNS;
    let mut header = vec![String::new(), String::new()];
    for (index, holder) in holders.iter().enumerate() {
        header.push(match holder {
            Holder::Partition(_) if numbered => (index + 1).to_string(),
            _ => holder.to_string(),
        });
    }
    let mut rows = Vec::new();
    for resource in &report.resources {
        // A board has many devices, and a table that is mostly "nobody" hides the rest.
        if resource.is_nobodys() && matches!(resource.kind, ResourceKind::Device | ResourceKind::Interrupt) {
            continue;
        }
        let mut row = vec![resource.name.clone(), detail(resource)];
        row.extend(holders.iter().map(|holder| match resource.share_of(holder) {
            None => "-".to_owned(),
            Some(portion) if numbered => short(portion),
            Some(portion) => portion.to_string(),
        }));
        rows.push(row);
    }
    table(w, Some(header), rows, &[]);
    if numbered {
        let _ = writeln!(
            w,
            "\n  Partitions have their numbers. A CPU's entry is its vCPU; x all, r registers in a page with others', o one's \
             own, e emulated, p polled."
        );
    }
    for (kind, what) in [(ResourceKind::Device, "Devices"), (ResourceKind::Interrupt, "Interrupts")] {
        let nobodys: Vec<_> = report
            .resources
            .iter()
            .filter(|resource| resource.kind == kind && resource.is_nobodys())
            .map(|resource| resource.name.as_str())
            .collect();
        if !nobodys.is_empty() {
            let _ = writeln!(w, "\n  {what} that nobody has ({}):", nobodys.len());
            wrapped(w, &nobodys);
        }
    }
}

/// Words in lines of a terminal's width.
fn wrapped(w: &mut String, words: &[&str]) {
    const WIDTH: usize = 110;
    let mut line = String::new();
    for (index, word) in words.iter().enumerate() {
        let comma = if index + 1 < words.len() { ", " } else { "" };
        if line.len() + word.len() > WIDTH {
            let _ = writeln!(w, "    {}", line.trim_end());
            line.clear();
        }
        line.push_str(word);
        line.push_str(comma);
    }
    let _ = writeln!(w, "    {line}");
}

/// What there is to know of a resource beside its name.
fn detail(resource: &Resource) -> String {
    match (resource.size, resource.raised_by.as_slice()) {
        (Some(size), _) => Bytes(size).to_string(),
        (None, []) => String::new(),
        (None, [one]) => one.clone(),
        (None, [one, more @ ..]) => format!("{one} and {} more", more.len()),
    }
}

/// As narrow as it gets.
fn short(portion: &Portion) -> String {
    match portion {
        Portion::Whole => "x".to_owned(),
        Portion::Vcpu(number) => number.to_string(),
        Portion::Bytes(_) => portion.to_string().replace("iB", "").replace(' ', ""),
        Portion::Registers => "r".to_owned(),
        Portion::Units(_) => portion.to_string(),
        Portion::PerCpu => "o".to_owned(),
        Portion::Emulated => "e".to_owned(),
        Portion::Polled => "p".to_owned(),
    }
}

fn map(w: &mut String, windows: &[Window]) {
    let mut rows = Vec::new();
    for window in windows {
        let behind = match (window.pa, window.blocks) {
            (Some(pa), Some(blocks)) => format!("PA {pa:#010x}, {blocks}"),
            (Some(pa), None) => format!("PA {pa:#010x}, every access traps"),
            (None, _) => "emulated".to_owned(),
        };
        let size = Bytes(window.size).to_string();
        rows.push(vec![range(window.ipa, window.size), size, window.name.clone(), behind]);
        for content in &window.contents {
            let size = Bytes(content.size).to_string();
            let label = format!("  {}", content.label());
            rows.push(vec![format!("  {}", range(content.ipa, content.size)), size, label, String::new()]);
        }
    }
    table(w, None, rows, &[1]);
}

fn machine(w: &mut String, report: &Report) {
    let mut rows = Vec::new();
    for span in &report.machine {
        let what = if span.ram { "RAM" } else { "registers" };
        let holder = match &span.holder {
            Holder::Nobody => "free".to_owned(),
            holder => holder.to_string(),
        };
        let size = Bytes(span.size).to_string();
        rows.push(vec![range(span.pa, span.size), size, what.to_owned(), holder, span.name.clone()]);
    }
    table(w, None, rows, &[1]);
}
