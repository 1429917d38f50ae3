//! Several consoles on one terminal.
//!
//! Each line stands behind the name of the partition that printed it and in its colour. A line that is not
//! finished, such as a shell's prompt, is shown as soon as it is there; when another partition's line comes in
//! between, it makes room and is printed again below. Only the partition that has the input does so at once:
//! what the others have not finished waits for its end or for a quiet moment, or their lines would be torn
//! wherever the serial line's chunks happen to end.

use std::collections::BTreeMap;
use std::io::{self, Write};

use anstyle::{AnsiColor, Color, Style};
use bulkhead_hil::{Report, Source};

/// Colours of the partitions, in turn; the hypervisor has none.
const COLOURS: [AnsiColor; 6] = [
    AnsiColor::Green,
    AnsiColor::Cyan,
    AnsiColor::Yellow,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightRed,
];

/// What the hypervisor's lines stand behind.
const HYPERVISOR: &str = "bulkhead";

/// A prompt is shorter than this; the rest of a longer unfinished line is not printed again.
const MAX_UNFINISHED: usize = 4096;

/// Asks the terminal where the cursor is. Printed again it would be answered again.
const CURSOR_QUERY: &[u8] = b"\x1b[6n";

/// What the lines are printed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Surface {
    /// A file or a pipe: no colours, no cursor.
    Plain,
    /// A terminal in its usual mode, with colours.
    Cooked,
    /// A terminal in raw mode, with this many columns.
    Raw(usize),
}

/// Lets through what stays within a partition's line.
///
/// A partition's bytes must not reach beyond its own line: a string that a terminal swallows up to its end
/// would take the others' lines with it, a reset their colours. Text, tabs, backspaces and control sequences
/// (ECMA-48 5.4) pass, other escape sequences and control characters do not.
#[derive(Default)]
struct Filter {
    /// The beginning of a control sequence, or the first byte of a C1 control character in UTF-8.
    held: Vec<u8>,
}

impl Filter {
    /// Longer control sequences are dropped.
    const MAX: usize = 32;

    /// What there is to print once `byte` has come.
    fn pass(&mut self, byte: u8) -> Vec<u8> {
        match (&self.held[..], byte) {
            (_, 0x1b | 0xc2) => {
                self.held = vec![byte];
                vec![]
            }
            ([0x1b], b'[') => {
                self.held.push(byte);
                vec![]
            }
            ([0x1b, b'[', parameters @ ..], b' '..=b'?') if parameters.len() < Self::MAX => {
                self.held.push(byte);
                vec![]
            }
            ([0x1b, b'[', ..], b'@'..=b'~') | ([0xc2], 0xa0..) => {
                self.held.push(byte);
                std::mem::take(&mut self.held)
            }
            (held, _) => {
                // The byte that spoils a sequence is dropped with it, unless it is a control character.
                let spoils = !held.is_empty() && byte >= b' ';
                self.held.clear();
                let passes = matches!(byte, b'\n' | b'\r' | b'\t' | 8 | b' '..=b'~' | 0x80..);
                if passes && !spoils { vec![byte] } else { vec![] }
            }
        }
    }
}

/// A source's line that is not finished.
#[derive(Default)]
struct Unfinished {
    text: Vec<u8>,
    filter: Filter,
    /// A carriage return came last: the line ends or begins again.
    returned: bool,
}

/// Says more about a line of the hypervisor, in lines to be printed below it.
pub type Annotate = Box<dyn Fn(&str) -> Vec<String> + Send>;

/// The consoles on one surface.
pub struct Screen<W> {
    out: W,
    surface: Surface,
    annotate: Option<Annotate>,
    names: BTreeMap<Source, String>,
    lines: BTreeMap<Source, Unfinished>,
    /// Whose unfinished line stands in the cursor's row.
    row: Option<Source>,
    /// Who gets what is typed.
    focus: Option<Source>,
}

impl<W: Write> Screen<W> {
    /// Nothing printed yet.
    pub fn new(out: W, surface: Surface, annotate: Option<Annotate>) -> Self {
        let names = BTreeMap::from([(Source::HYPERVISOR, HYPERVISOR.to_owned())]);
        Self { out, surface, annotate, names, lines: BTreeMap::new(), row: None, focus: None }
    }

    /// Prints bytes of `source`.
    ///
    /// # Errors
    ///
    /// Where the surface takes no more.
    pub fn print(&mut self, source: Source, bytes: &[u8]) -> io::Result<()> {
        for &byte in bytes {
            let line = self.lines.entry(source).or_default();
            match &line.filter.pass(byte)[..] {
                [] => {}
                b"\n" => self.finish(source)?,
                b"\r" => line.returned = true,
                text => self.extend(source, text)?,
            }
        }
        self.show_focus()?;
        self.out.flush()
    }

    /// Continues the line of `source`.
    fn extend(&mut self, source: Source, text: &[u8]) -> io::Result<()> {
        let line = self.lines.entry(source).or_default();
        let again = std::mem::take(&mut line.returned);
        if again {
            line.text.clear();
        }
        if line.text.len() < MAX_UNFINISHED {
            line.text.extend_from_slice(text);
        }
        if self.row == Some(source) {
            if again {
                let start = if self.surface == Surface::Plain { "\n" } else { "\r" };
                self.out.write_all(start.as_bytes())?;
                self.write_prefix(source)?;
            }
            self.out.write_all(text)?;
        }
        Ok(())
    }

    /// Shows what is unfinished and has waited; to be called when nothing has come for a while.
    ///
    /// # Errors
    ///
    /// Where the surface takes no more.
    pub fn idle(&mut self) -> io::Result<()> {
        self.show_focus()?;
        if self.row.is_none() {
            let waiting = self.lines.iter().find(|(_, line)| !line.text.is_empty());
            if let Some((&source, _)) = waiting {
                self.show(source)?;
            }
        }
        self.out.flush()
    }

    /// Ends the row that the cursor stands in, so that other text can follow.
    ///
    /// # Errors
    ///
    /// Where the surface takes no more.
    pub fn close(&mut self) -> io::Result<()> {
        let unfinished: Vec<_> =
            self.lines.iter().filter(|(_, line)| !line.text.is_empty()).map(|(&source, _)| source).collect();
        for source in unfinished {
            self.finish(source)?;
        }
        self.out.flush()
    }

    /// Shows the prompt of whom the input goes to, unless it stands there already.
    fn show_focus(&mut self) -> io::Result<()> {
        let Some(focus) = self.focus else { return Ok(()) };
        if self.row != Some(focus) && self.lines.get(&focus).is_some_and(|line| !line.text.is_empty()) {
            self.make_room()?;
            self.show(focus)?;
        }
        Ok(())
    }

    /// Prints the unfinished line of `source` in an empty row.
    fn show(&mut self, source: Source) -> io::Result<()> {
        self.write_prefix(source)?;
        self.write_unfinished(source)?;
        self.row = Some(source);
        Ok(())
    }

    /// Makes the cursor's row empty.
    fn make_room(&mut self) -> io::Result<()> {
        let Some(source) = self.row.take() else { return Ok(()) };
        let mut length = self.prefix_width();
        if let Some(line) = self.lines.get_mut(&source) {
            line.text = without_queries(&line.text);
            length += columns(&line.text);
        }
        match self.surface {
            Surface::Raw(width) if length < width => self.out.write_all(b"\r\x1b[K\x1b[0m"),
            _ => self.end_row(),
        }
    }

    fn finish(&mut self, source: Source) -> io::Result<()> {
        if self.row == Some(source) {
            self.row = None;
        } else {
            self.make_room()?;
            self.write_prefix(source)?;
            self.write_unfinished(source)?;
        }
        self.end_row()?;
        let line = self.lines.remove(&source).unwrap_or_default();
        if source == Source::HYPERVISOR {
            self.read_report(&String::from_utf8_lossy(&line.text))?;
        }
        Ok(())
    }

    fn read_report(&mut self, line: &str) -> io::Result<()> {
        match Report::parse(line) {
            Some(Report::Partition { source, name }) => {
                self.names.insert(source, name.to_owned());
                self.focus.get_or_insert(source);
            }
            Some(Report::InputTo(name)) => {
                let named = self.names.iter().find(|(_, known)| *known == name);
                self.focus = named.map(|(&source, _)| source).or(self.focus);
            }
            _ => {}
        }
        for more in self.annotate.as_ref().map(|annotate| annotate(line)).unwrap_or_default() {
            self.write_prefix(Source::HYPERVISOR)?;
            self.out.write_all(more.as_bytes())?;
            self.end_row()?;
        }
        Ok(())
    }

    fn end_row(&mut self) -> io::Result<()> {
        self.out.write_all(match self.surface {
            Surface::Plain => b"\n",
            Surface::Cooked => b"\x1b[0m\n",
            Surface::Raw(_) => b"\x1b[0m\r\n",
        })
    }

    fn prefix_width(&self) -> usize {
        self.names.values().map(|name| name.chars().count()).max().unwrap_or(0) + " | ".len()
    }

    fn write_prefix(&mut self, source: Source) -> io::Result<()> {
        let width = self.prefix_width() - " | ".len();
        let name = self.names.get(&source).cloned().unwrap_or_else(|| source.0.to_string());
        if self.surface == Surface::Plain {
            return write!(self.out, "{name:width$} | ");
        }
        let colour = source.0.checked_sub(1).map(|n| Color::Ansi(COLOURS[n as usize % COLOURS.len()]));
        let style = Style::new().fg_color(colour);
        let bold = style.bold();
        write!(self.out, "{bold}{name:width$}{bold:#}{style} | ")
    }

    fn write_unfinished(&mut self, source: Source) -> io::Result<()> {
        self.lines.get(&source).map_or(Ok(()), |line| self.out.write_all(&line.text))
    }
}

/// `text` without what the terminal would answer.
fn without_queries(text: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(text.len());
    for &byte in text {
        kept.push(byte);
        if kept.ends_with(CURSOR_QUERY) {
            kept.truncate(kept.len() - CURSOR_QUERY.len());
        }
    }
    kept
}

/// Columns that `text` takes: characters outside of control sequences (ECMA-48 5.4).
fn columns(text: &[u8]) -> usize {
    let text = String::from_utf8_lossy(text);
    let mut characters = text.chars();
    let mut count: usize = 0;
    while let Some(character) = characters.next() {
        match character {
            '\x1b' => {
                if characters.next() == Some('[') {
                    characters.by_ref().find(|c| ('@'..='~').contains(c));
                }
            }
            '\x08' => count = count.saturating_sub(1),
            c if c.is_control() => {}
            _ => count += 1,
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINUX: Source = Source(1);
    const RTOS: Source = Source(2);
    const BOOT: &[u8] = b"partition 1 linux: cpus 0 1 2, 512 MiB\npartition 2 rtos: cpus 3, 16 MiB\n";

    fn screen(surface: Surface) -> Screen<Vec<u8>> {
        let mut screen = Screen::new(Vec::new(), surface, None);
        screen.print(Source::HYPERVISOR, BOOT).unwrap();
        screen.out.clear();
        screen
    }

    /// What a terminal would show: carriage return and erase applied, colours dropped.
    fn shown(screen: &Screen<Vec<u8>>) -> Vec<String> {
        let text = String::from_utf8(screen.out.clone()).unwrap();
        let mut rows = vec![String::new()];
        let mut rest = text.as_str();
        while let Some(character) = rest.chars().next() {
            rest = &rest[character.len_utf8()..];
            let row = rows.last_mut().unwrap();
            match character {
                '\n' => rows.push(String::new()),
                // Everything that returns also erases or ends the row, or prints the prefix again.
                '\r' if !rest.starts_with('\n') => row.clear(),
                '\r' => {}
                '\x1b' => {
                    let end = rest.find(|c: char| c.is_ascii_alphabetic()).unwrap();
                    rest = &rest[end + 1..];
                }
                _ => row.push(character),
            }
        }
        rows
    }

    #[test]
    fn lines_carry_the_name() {
        let mut screen = screen(Surface::Plain);
        screen.print(LINUX, b"[    0.0] Booting\r\n").unwrap();
        screen.print(RTOS, b"tick 1\n").unwrap();
        screen.print(Source(7), b"who?\n").unwrap();
        let text = String::from_utf8(screen.out).unwrap();
        assert_eq!(text, "linux    | [    0.0] Booting\nrtos     | tick 1\n7        | who?\n");
    }

    #[test]
    fn a_prompt_shows_at_once_and_comes_back() {
        let mut screen = screen(Surface::Raw(80));
        screen.print(LINUX, b"/ # ").unwrap();
        assert_eq!(shown(&screen), ["linux    | / # "]);
        screen.print(RTOS, b"tick 1\r\n").unwrap();
        assert_eq!(shown(&screen), ["rtos     | tick 1", "linux    | / # "]);
        screen.print(LINUX, b"ls").unwrap();
        screen.print(RTOS, b"ti").unwrap();
        screen.print(RTOS, b"ck 2\r\n").unwrap();
        assert_eq!(shown(&screen), ["rtos     | tick 1", "rtos     | tick 2", "linux    | / # ls"]);
        screen.print(LINUX, b"\r\nbin\r\n/ # ").unwrap();
        assert_eq!(shown(&screen)[2..], ["linux    | / # ls", "linux    | bin", "linux    | / # "]);
    }

    #[test]
    fn a_plain_surface_starts_a_new_line_instead() {
        let mut screen = screen(Surface::Plain);
        screen.print(LINUX, b"/ # ").unwrap();
        screen.print(RTOS, b"tick 1\n").unwrap();
        assert_eq!(shown(&screen), ["linux    | / # ", "rtos     | tick 1", "linux    | / # "]);
    }

    #[test]
    fn the_input_decides_whose_prompt_is_shown() {
        let mut screen = screen(Surface::Raw(80));
        screen.print(LINUX, b"/ # ").unwrap();
        screen.print(RTOS, b"> ").unwrap();
        screen.idle().unwrap();
        assert_eq!(shown(&screen), ["linux    | / # "]);
        screen.print(Source::HYPERVISOR, b"input to rtos\n").unwrap();
        assert_eq!(shown(&screen), ["bulkhead | input to rtos", "rtos     | > "]);
    }

    #[test]
    fn others_wait_for_a_quiet_moment() {
        let mut screen = screen(Surface::Raw(80));
        screen.print(RTOS, b"> ").unwrap();
        assert_eq!(shown(&screen), [""]);
        screen.idle().unwrap();
        assert_eq!(shown(&screen), ["rtos     | > "]);
        screen.print(LINUX, b"/ # ").unwrap();
        assert_eq!(shown(&screen), ["linux    | / # "]);
    }

    #[test]
    fn a_carriage_return_begins_the_line_again() {
        let mut screen = screen(Surface::Raw(80));
        screen.print(LINUX, b"10 %\r").unwrap();
        screen.print(LINUX, b"20 %").unwrap();
        assert_eq!(shown(&screen), ["linux    | 20 %"]);
        screen.print(LINUX, b"\r\r\n").unwrap();
        assert_eq!(shown(&screen), ["linux    | 20 %", ""]);
    }

    #[test]
    fn a_long_prompt_is_not_erased_by_half() {
        let mut screen = screen(Surface::Raw(20));
        screen.print(LINUX, b"a long prompt of a shell # ").unwrap();
        screen.print(RTOS, b"tick\n").unwrap();
        assert_eq!(shown(&screen).len(), 3);
    }

    #[test]
    fn the_terminal_is_asked_once() {
        let mut screen = screen(Surface::Raw(80));
        screen.print(LINUX, b"/ # \x1b[6n").unwrap();
        screen.print(RTOS, b"tick\n").unwrap();
        let text = String::from_utf8(screen.out).unwrap();
        assert_eq!(text.matches("\x1b[6n").count(), 1);
    }

    #[test]
    fn annotations_follow_their_line() {
        let annotate = |line: &str| line.strip_prefix("  at ").map(|at| format!("in {at}")).into_iter();
        let annotate: Annotate = Box::new(move |line| annotate(line).collect());
        let mut screen = Screen::new(Vec::new(), Surface::Plain, Some(annotate));
        screen.print(Source::HYPERVISOR, b"  at 0x10\nend\n").unwrap();
        let text = String::from_utf8(screen.out).unwrap();
        assert_eq!(text, "bulkhead |   at 0x10\nbulkhead | in 0x10\nbulkhead | end\n");
    }

    #[test]
    fn a_partition_stays_within_its_line() {
        let mut screen = screen(Surface::Plain);
        for bytes in [
            &b"\x1b_swallowed\n"[..],
            b"\x1bc\x0e\x7f\xc2\x9fa\x1b\n",
            b"\x1b[31mred\x1b[1\n",
            "caf\u{e9} \u{a0}\n".as_bytes(),
        ] {
            bytes.iter().for_each(|&byte| screen.print(LINUX, &[byte]).unwrap());
        }
        let text = String::from_utf8(screen.out).unwrap();
        let expected =
            ["swallowed", "a", "\x1b[31mred", "caf\u{e9} \u{a0}"].map(|text| format!("linux    | {text}\n"));
        assert_eq!(text, expected.concat());
    }

    #[test]
    fn control_sequences_take_no_columns() {
        assert_eq!(columns(b"\x1b[1;31mred\x1b[0m \x08x"), 4);
    }
}
