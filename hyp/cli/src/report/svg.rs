//! The memory maps as a picture: the machine's addresses at the left, those of each partition beside them.
//!
//! A page of 4 KiB and a range of GiB have to be readable in one picture, so heights grow with the logarithm of the size and
//! gaps are cut out; sizes and addresses are written. Every text has a place of its own: widths are computed for a
//! monospaced font, and what is too long is shortened, with all of it in the tooltip. Colours are told apart by
//! colour-blind readers too (Okabe and Ito's set), and names are written wherever a colour is used. All is integers,
//! so that the same system gives the same file everywhere.

use std::fmt::Write;

use bulkhead_policy::addr::PAGE_SIZE;

use super::model::{Bytes, ContentKind, Holder, Partition, Report, Span, Window, WindowKind, range};

/// Size of the text.
const FONT: usize = 12;
/// Height of a line of text.
const LINE: usize = 15;
/// From the top of a line to the foot of its letters.
const BASELINE: usize = 14;
/// Space around the picture and between columns.
const MARGIN: usize = 20;
/// Width of the box that shows what is at addresses.
const BOX: usize = 236;
/// Width of the strip of full colour at the left of it.
const STRIP: usize = 9;
/// Between a text and what is beside it.
const PAD: usize = 6;
/// Height of what stands for addresses that nothing has.
const GAP: usize = 22;
/// Height of a page: two lines.
const SMALLEST: usize = 2 * LINE + 4;
/// What twice the size adds to the height.
const PER_DOUBLING: usize = 3;
/// Height of a column's head.
const HEAD: usize = 46;

/// Partitions' colours; more partitions have another pattern in the strip.
const COLOURS: [&str; 7] = ["#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#f0e442"];
const HYPERVISOR: &str = "#404040";
const FIRMWARE: &str = "#9a9a9a";
const FREE: &str = "#ffffff";
/// Fixed so that the picture can be read on any page.
const PAPER: &str = "#ffffff";
const INK: &str = "#1a1a1a";
const FAINT: &str = "#444444";

/// White patterns over the strip's colour, for the second, third and so on partition of a colour.
const PATTERNS: [&str; 4] = [
    r#"<path d="M-2 6L6 -2M0 12L12 0M6 14L14 6" stroke="white" stroke-width="2.5"/>"#,
    r#"<path d="M0 3H12M0 9H12" stroke="white" stroke-width="2.5"/>"#,
    r#"<path d="M3 0V12M6.5 0V12" stroke="white" stroke-width="1.5"/>"#,
    r#"<circle cx="4.5" cy="3" r="2" fill="white"/><circle cx="4.5" cy="9" r="2" fill="white"/>"#,
];

/// Pixels that this many characters take at most: fonts differ, and none is wider.
const fn width(characters: usize) -> usize {
    (characters * FONT * 62).div_ceil(100)
}

/// How what belongs to someone looks.
#[derive(Clone, Copy)]
struct Look {
    colour: &'static str,
    pattern: Option<usize>,
    fill: Fill,
}

#[derive(Clone, Copy, PartialEq)]
enum Fill {
    /// Nobody's.
    Empty,
    /// Not there, only imitated: a dashed edge.
    Emulated,
    /// Someone's.
    Light,
    /// What is put into someone's memory.
    Dark,
}

/// A run of addresses.
struct Band {
    start: u64,
    size: u64,
    label: String,
    /// Behind the size.
    more: String,
    /// All that is to be said, for the tooltip.
    title: String,
    look: Look,
    /// Lines beside the box, from here on.
    note: Vec<String>,
    height: usize,
}

/// One address space.
struct Column {
    title: String,
    subtitle: String,
    bands: Vec<Band>,
    /// Characters of an address.
    digits: usize,
    /// Width of the notes.
    notes: usize,
}

/// The picture.
#[must_use]
pub fn svg(report: &Report) -> String {
    let machine = machine_column(report);
    let maps: Vec<_> = report
        .partitions
        .iter()
        .enumerate()
        .map(|(index, partition)| partition_column(index, partition))
        .collect();
    // As many columns as make the picture about as wide as it is high.
    let lanes =
        (1..=maps.len()).find(|lanes| lanes * lanes >= maps.len()).unwrap_or(1).max(maps.len().min(2));
    let lane_width = maps.iter().map(Column::width).max().unwrap_or(0);
    let total = MARGIN + machine.width() + lanes * (MARGIN + lane_width) + MARGIN;
    let title =
        shorten(&format!("{} on {}", report.manifest, report.board), (total - 2 * MARGIN) / (width(3) / 2));

    let mut body = String::new();
    let w = &mut body;
    text(w, MARGIN, MARGIN + 18, &title, r#" font-size="18" font-weight="bold""#);
    let about = "Heights grow with the logarithm of sizes; addresses that nothing has are cut out.";
    let top = legend(w, report, total, MARGIN + 18 + 24);
    text(w, MARGIN, MARGIN + 18 + 20, &shorten(about, (total - 2 * MARGIN) / width(1)), &faint());
    let mut bottom = machine.draw(w, MARGIN, top);
    let mut lanes_end = vec![top; lanes];
    for map in &maps {
        // Into the column that is the least full, the first of several.
        let (lane, end) = lanes_end
            .iter_mut()
            .enumerate()
            .min_by_key(|(lane, end)| (**end, *lane))
            .unwrap_or((0, &mut bottom));
        let x = MARGIN + machine.width() + MARGIN + lane * (lane_width + MARGIN);
        *end = map.draw(w, x, *end) + MARGIN;
    }
    let height = lanes_end.into_iter().chain([bottom]).max().unwrap_or(top) + MARGIN;

    let mut svg = String::new();
    let w = &mut svg;
    let _ = writeln!(
        w,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{total}" height="{height}" viewBox="0 0 {total} {height}" font-family="'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace" font-size="{FONT}" fill="{INK}">"#
    );
    let _ = writeln!(w, "<title>Memory maps of {}</title>", escape(&report.manifest));
    if report.partitions.len() > COLOURS.len() {
        for (index, pattern) in PATTERNS.iter().enumerate() {
            let _ = writeln!(
                w,
                r#"<pattern id="p{index}" width="12" height="12" patternUnits="userSpaceOnUse">{pattern}</pattern>"#
            );
        }
    }
    let _ = writeln!(w, r#"<rect width="{total}" height="{height}" rx="8" fill="{PAPER}"/>"#);
    svg + &body + "</svg>\n"
}

/// What stands for whom; returns where the columns begin.
fn legend(w: &mut String, report: &Report, total: usize, y: usize) -> usize {
    const SWATCH: usize = 30;
    let mut entries: Vec<_> = report
        .holders()
        .iter()
        .map(|holder| match holder {
            Holder::Nobody => ("free".to_owned(), look(report, holder)),
            holder => (holder.to_string(), look(report, holder)),
        })
        .collect();
    let example = look_of_partition(0);
    entries.push(("put there at the start".to_owned(), Look { fill: Fill::Dark, ..example }));
    entries.push(("emulated, or each access traps".to_owned(), Look { fill: Fill::Emulated, ..example }));
    let (mut x, mut y) = (MARGIN, y + PAD);
    for (name, look) in entries {
        let name = shorten(&name, 40);
        let needed = SWATCH + PAD + width(name.chars().count()) + MARGIN;
        if x + needed > total && x > MARGIN {
            (x, y) = (MARGIN, y + LINE + PAD);
        }
        look.draw(w, (x, y), (SWATCH, LINE), &name);
        text(w, x + SWATCH + PAD, y + FONT, &name, "");
        x += needed;
    }
    y + LINE + MARGIN
}

fn look_of_partition(index: usize) -> Look {
    let pattern = (index / COLOURS.len()).checked_sub(1);
    Look {
        colour: COLOURS[index % COLOURS.len()],
        pattern: pattern.map(|p| p % PATTERNS.len()),
        fill: Fill::Light,
    }
}

fn look(report: &Report, holder: &Holder) -> Look {
    let plain = |colour, fill| Look { colour, pattern: None, fill };
    match holder {
        Holder::Partition(name) => {
            let index = report.partitions.iter().position(|partition| partition.name == *name);
            look_of_partition(index.unwrap_or(0))
        }
        Holder::Hypervisor => plain(HYPERVISOR, Fill::Light),
        Holder::Firmware => plain(FIRMWARE, Fill::Light),
        Holder::Nobody => plain(FREE, Fill::Empty),
    }
}

impl Look {
    /// A box that looks so, with a tooltip.
    fn draw(self, w: &mut String, (x, y): (usize, usize), (width, height): (usize, usize), title: &str) {
        let Self { colour, pattern, fill } = self;
        let style = match fill {
            Fill::Empty => format!(r##"fill="{PAPER}" stroke="#b0b0b0""##),
            Fill::Emulated => format!(r#"fill="{PAPER}" stroke="{colour}" stroke-dasharray="4 3""#),
            Fill::Light => format!(r#"fill="{colour}" fill-opacity="0.25" stroke="{colour}""#),
            Fill::Dark => format!(r#"fill="{colour}" fill-opacity="0.55" stroke="{colour}""#),
        };
        let title = escape(title);
        let _ = writeln!(
            w,
            r#"<rect x="{x}" y="{y}" width="{width}" height="{height}" {style}><title>{title}</title></rect>"#
        );
        if fill != Fill::Empty {
            let _ =
                writeln!(w, r#"<rect x="{x}" y="{y}" width="{STRIP}" height="{height}" fill="{colour}"/>"#);
            if let Some(pattern) = pattern {
                let _ = writeln!(
                    w,
                    r#"<rect x="{x}" y="{y}" width="{STRIP}" height="{height}" fill="url(#p{pattern})"/>"#
                );
            }
        }
    }
}

impl Band {
    fn new(start: u64, size: u64, label: String, look: Look) -> Self {
        let doublings = size.div_ceil(PAGE_SIZE).max(1).ilog2() as usize;
        let title = format!("{label}, {}, {}", range(start, size), Bytes(size));
        Self {
            start,
            size,
            label,
            more: String::new(),
            title,
            look,
            note: Vec::new(),
            height: SMALLEST + PER_DOUBLING * doublings,
        }
    }

    fn end(&self) -> u64 {
        self.start + self.size
    }
}

impl Column {
    fn new(title: String, subtitle: String, bands: Vec<Band>) -> Self {
        let last = bands.iter().map(|band| band.end() - 1).max().unwrap_or(0);
        let notes = bands.iter().flat_map(|band| &band.note).map(|note| note.chars().count()).max();
        let digits = format!("{last:#010x}").len();
        Self { title, subtitle, digits, notes: notes.map_or(0, |notes| width(notes) + 2 * PAD), bands }
    }

    fn gutter(&self) -> usize {
        width(self.digits) + PAD
    }

    fn width(&self) -> usize {
        self.gutter() + BOX + self.notes
    }

    /// Draws it with its upper left corner there; returns where it ends.
    fn draw(&self, w: &mut String, x: usize, y: usize) -> usize {
        let left = x + self.gutter();
        let room = self.width() / width(1);
        text(w, x, y + 14, &shorten(&self.title, room * 12 / 14), r#" font-size="14" font-weight="bold""#);
        text(w, x, y + 14 + LINE + 2, &shorten(&self.subtitle, room), &faint());
        let mut y = y + HEAD;
        let mut end = None;
        for (index, band) in self.bands.iter().enumerate() {
            if let Some(end) = end.filter(|end| *end != band.start) {
                y = gap(w, left, y, band.start - end);
            }
            band.look.draw(w, (left, y), (BOX, band.height), &band.title);
            text(w, left - PAD, y + BASELINE, &format!("{:#010x}", band.start), &end_anchored());
            let next = self.bands.get(index + 1);
            if next.is_none_or(|next| next.start != band.end()) {
                text(
                    w,
                    left - PAD,
                    y + band.height - (SMALLEST - LINE - BASELINE),
                    &format!("{:#010x}", band.end() - 1),
                    &end_anchored(),
                );
            }
            let (inner, room) = (left + STRIP + PAD, (BOX - STRIP - 2 * PAD) / width(1));
            text(w, inner, y + BASELINE, &shorten(&band.label, room), "");
            let size = format!("{}{}", Bytes(band.size), band.more);
            text(w, inner, y + BASELINE + LINE, &shorten(&size, room), &faint());
            for (line, note) in band.note.iter().enumerate() {
                text(w, left + BOX + PAD, y + BASELINE + line * LINE, note, &faint());
            }
            y += band.height;
            end = Some(band.end());
        }
        y
    }
}

/// Addresses that nothing has.
fn gap(w: &mut String, x: usize, y: usize, size: u64) -> usize {
    let middle = y + GAP / 2;
    let label = format!("gap of {}", Bytes(size));
    let text_width = width(label.len()) + 2 * PAD;
    let start = x + (BOX - text_width) / 2;
    for (from, to) in [(x, start), (start + text_width, x + BOX)] {
        let _ = writeln!(
            w,
            r#"<path d="M{from} {middle}H{to}" stroke="{FAINT}" stroke-dasharray="1 4" fill="none"/>"#
        );
    }
    text(w, x + BOX / 2, middle + 4, &label, &format!(r#" text-anchor="middle"{}"#, faint()));
    y + GAP
}

fn machine_column(report: &Report) -> Column {
    let band = |span: &Span| {
        let (label, more) = match &span.holder {
            Holder::Nobody => ("free".to_owned(), String::new()),
            Holder::Partition(name) if span.ram => (name.clone(), format!(", {}", span.name)),
            Holder::Hypervisor if span.ram => (span.name.clone(), String::new()),
            holder => (tail(&span.name), format!(", {holder}")),
        };
        let title =
            format!("{}: {}, {}, {}", span.holder, span.name, range(span.pa, span.size), Bytes(span.size));
        let look = look(report, &span.holder);
        Band { more, title, ..Band::new(span.pa, span.size, label, look) }
    };
    let bands = report.machine.iter().map(band).collect();
    Column::new("The machine".to_owned(), "physical addresses (PA)".to_owned(), bands)
}

/// The last part of the first path in a list, and how many more there are. What is no path stays.
fn tail(names: &str) -> String {
    let mut names = names.split(", ");
    let first = names.next().unwrap_or_default();
    let name = first.strip_prefix('/').and_then(|path| path.rsplit('/').next()).unwrap_or(first);
    match names.count() {
        0 => name.to_owned(),
        more => format!("{name} +{more}"),
    }
}

fn partition_column(index: usize, partition: &Partition) -> Column {
    let look = look_of_partition(index);
    let mut bands: Vec<Band> = Vec::new();
    for window in &partition.map {
        match bands.last_mut() {
            // Devices in the same page, or one that begins in another's last page.
            Some(last) if window.ipa < last.end() => {
                let end = last.end().max(window.ipa + window.size);
                let label = format!("{}, {}", last.title, window.name);
                let note = std::mem::take(&mut last.note);
                let (start, look) = (last.start, last.look);
                *last =
                    Band { note, title: label, ..Band::new(start, end - start, last.label.clone(), look) };
                last.label = merged(&last.label);
            }
            _ => bands.extend(window_bands(window, look)),
        }
    }
    let cpus: Vec<_> = partition.cpus.iter().map(ToString::to_string).collect();
    let plural = if cpus.len() == 1 { "" } else { "s" };
    Column::new(
        partition.name.clone(),
        format!("intermediate physical addresses (IPA); CPU{plural} {}", cpus.join(" ")),
        bands,
    )
}

/// The label of several devices after one more.
fn merged(label: &str) -> String {
    match label.rsplit_once(" +") {
        Some((name, more)) => format!("{name} +{}", more.parse::<usize>().unwrap_or(0) + 1),
        None => format!("{label} +1"),
    }
}

fn window_bands(window: &Window, look: Look) -> Vec<Band> {
    let pa =
        window.pa.map(|pa| if pa == window.ipa { "PA = IPA".to_owned() } else { format!("PA {pa:#010x}") });
    let fill = if window.blocks.is_some() { Fill::Light } else { Fill::Emulated };
    let look = Look { fill, ..look };
    if window.kind != WindowKind::Ram {
        let label = match (window.kind, window.pa) {
            (WindowKind::Gic, None) => format!("{} (emulated)", window.name),
            (WindowKind::Console, _) => format!("{} (console)", window.name),
            _ => tail(&window.name),
        };
        let band = Band::new(window.ipa, window.size, label, look);
        let note = match (window.kind, pa) {
            (WindowKind::SharedDevice, _) => vec!["traps".to_owned()],
            (_, Some(pa)) => vec![pa],
            (_, None) => Vec::new(),
        };
        let title = format!("{}, {}", window.name, range(window.ipa, window.size));
        return vec![Band { note, title, ..band }];
    }
    let mut bands = Vec::new();
    let mut at = window.ipa;
    let end = window.ipa + window.size;
    for content in &window.contents {
        let start = content.ipa.max(at);
        let stop = (content.ipa + content.size).min(end);
        if start >= stop {
            continue;
        }
        if at < start {
            bands.push(Band::new(at, start - at, "RAM".to_owned(), look));
        }
        let label = match content.kind {
            ContentKind::DeviceTree => "device tree".to_owned(),
            _ => content.label(),
        };
        bands.push(Band::new(start, stop - start, label, Look { fill: Fill::Dark, ..look }));
        at = stop;
    }
    if at < end {
        bands.push(Band::new(at, end - at, "RAM".to_owned(), look));
    }
    let mut note: Vec<_> = pa.into_iter().collect();
    if let Some(blocks) = window.blocks {
        note.extend(blocks.to_string().split(", ").map(str::to_owned));
    }
    let height: usize = bands.iter().map(|band| band.height).sum();
    if let Some(last) = bands.last_mut() {
        last.height += (note.len() * LINE + 2).saturating_sub(height);
    }
    if let Some(first) = bands.first_mut() {
        first.note = note;
    }
    bands
}

fn text(w: &mut String, x: usize, y: usize, text: &str, attributes: &str) {
    let text = escape(text);
    let _ = writeln!(w, r#"<text x="{x}" y="{y}"{attributes}>{text}</text>"#);
}

fn faint() -> String {
    format!(r#" fill="{FAINT}""#)
}

fn end_anchored() -> String {
    r#" text-anchor="end""#.to_owned()
}

/// At most this many characters: the beginning and the end, for names differ in either.
fn shorten(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    let keep = most.saturating_sub(1);
    let head: String = text.chars().take(keep / 2).collect();
    let tail: String = text.chars().skip(count - (keep - keep / 2)).collect();
    format!("{head}…{tail}")
}

/// Text for XML. What XML has no sign for, a manifest's strings can still hold.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            character if character.is_control() || matches!(character, '\u{fffe}' | '\u{ffff}') => {
                escaped.push('\u{fffd}')
            }
            character => escaped.push(character),
        }
    }
    escaped
}
