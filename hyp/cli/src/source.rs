//! A manifest's source: compiled by dtc, and every place in it known by file, line and column.
//!
//! Nothing here reads device trees by itself. cpp expands what is written for cpp, as the Linux kernel's build does, and
//! dtc compiles and says where what came from. What cannot be compiled is found here, as [`SYNTAX`].

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use regex::Regex;

use crate::diagnostic::{Diagnostic, Location, Severity};
use crate::findings::{Findings, Placed};
use crate::input;

mod files;
mod hints;
mod includes;
mod spans;
mod tokens;

pub use files::{File, Files, Position, Span};
use includes::Includes;
use spans::Spans;
pub use spans::{Part, takes_64_bits};

/// Code of a source that does not compile.
pub const SYNTAX: &str = "BH0001";
/// Code of what dtc or cpp warns of.
pub const WARNED: &str = "BH0900";

/// The first bytes of a compiled tree (Devicetree Specification 0.4, 5.2).
pub const MAGIC: [u8; 4] = [0xd0, 0x0d, 0xfe, 0xed];
/// The C preprocessor that FreeRTOS's compiler brings.
const CPP: &str = "aarch64-linux-gnu-gcc";

/// A directive of cpp's at the start of a line; properties may begin with `#`, too.
static DIRECTIVE: LazyLock<Regex> = LazyLock::new(|| {
    let names = "include|define|undef|if|ifdef|ifndef|elif|else|endif|error|warning|pragma|line";
    Regex::new(&format!(r#"(?m)^[ \t]*#[ \t]*(?:{names})(?:[ \t"<(!]|\r?$)"#)).expect("a valid expression")
});

/// Where everything in a compiled manifest was written.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// The files that it was made of.
    pub files: Files,
    spans: Spans,
    /// What the compilers warned of.
    pub warnings: Vec<Placed>,
}

impl Source {
    /// Reads and compiles `path`; returns the blob, too. A compiled tree is taken as it is: of its source nothing is known but its name.
    /// `change` makes another text of what is in the file; places remain those of the file.
    ///
    /// # Errors
    ///
    /// [`Findings`] where it does not compile; anything else where the file cannot be read or a compiler cannot be run.
    pub fn read(path: &Path, change: &dyn Fn(String) -> Result<String>) -> Result<(Vec<u8>, Self)> {
        let bytes = input::bytes(path)?;
        if bytes.starts_with(&MAGIC) {
            let mut this = Self::default();
            this.files.add(path, b"");
            return Ok((bytes, this));
        }
        Compilation::new(path, &bytes)?.run(&bytes, change)
    }

    /// Where a place is; of a name that is given several times, the one with index `nth`, from 0.
    #[must_use]
    pub fn find(&self, at: &Location, nth: usize, part: Part) -> Option<Span> {
        self.spans.find(&self.files, at, nth, part)
    }

    /// Values of partitions' properties that are written in another form than the property has, though the bytes may pass for one:
    /// a compiled tree no longer tells `"0 1"` or `/bits/ 64 <2>` from cells.
    #[must_use]
    pub fn other_forms(&self) -> Vec<Diagnostic> {
        self.spans.other_forms()
    }

    /// Whether a value of 64-bit numbers is written as if they had 32 bits each.
    #[must_use]
    pub fn is_short(&self, at: &Location) -> bool {
        let whole = Location { entry: None, ..at.clone() };
        let span = self.find(&whole, 0, Part::Value);
        span.is_some_and(|span| hints::is_short(&self.files.get(span.file).text[span.range]))
    }
}

/// What is known while a source is being compiled.
struct Compilation {
    /// Where the compilers run, so that includes are found beside the manifest and nowhere else first.
    folder: PathBuf,
    /// How the compilers call the manifest.
    name: String,
    path: PathBuf,
    files: Files,
    placed: Vec<Placed>,
    /// An include that leads back to its own file.
    circle: Option<Span>,
}

impl Compilation {
    fn new(path: &Path, bytes: &[u8]) -> Result<Self> {
        let name = path.file_name().with_context(|| format!("{} is no file", path.display()))?;
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let mut files = Files::default();
        files.add(path, bytes);
        Ok(Self {
            folder: folder.to_owned(),
            name: name.to_string_lossy().replace(['"', '\\'], "_"),
            path: path.to_owned(),
            files,
            placed: Vec::new(),
            circle: None,
        })
    }

    fn run(mut self, bytes: &[u8], change: &dyn Fn(String) -> Result<String>) -> Result<(Vec<u8>, Source)> {
        let changed = match std::str::from_utf8(bytes) {
            Ok(text) => change(text.to_owned())?.into_bytes(),
            Err(_) => bytes.to_owned(),
        };
        let includes = Includes::read(&mut self.files, &self.folder);
        self.circle = includes.circle;
        for (span, message) in includes.no_files {
            self.add(Severity::Error, &message, Some(span));
            self.help("name a file");
        }
        if !self.placed.is_empty() {
            return Err(Findings::new(self.files, self.placed).into());
        }
        // Both compilers learn the name of what follows from this line.
        let mut text = format!("#line 1 \"{}\"\n", self.name).into_bytes();
        text.extend(changed);
        if DIRECTIVE.is_match(&self.files.get(0).text) {
            text = self.preprocess(&text)?;
        }
        // The tree with places is for people: where dtc wrote it in spite of errors, so it did the blob.
        let (blob, annotated) = std::thread::scope(|scope| {
            let annotated = scope.spawn(|| self.dtc(&text, &["-q", "-O", "dts", "-T", "-T"]));
            (self.dtc(&text, &["-O", "dtb"]), annotated.join())
        });
        let blob = blob?;
        let annotated = annotated.map_err(|_| anyhow::anyhow!("dtc cannot be run twice"))??;
        self.read_messages(&blob.stderr);
        self.drop_echoes();
        if !blob.status.success() && self.placed.iter().all(|placed| !placed.is_error()) {
            let message = format!("dtc ended with {}", blob.status);
            self.add(Severity::Error, &message, None);
        }
        if self.placed.iter().any(Placed::is_error) {
            return Err(Findings::new(self.files, self.placed).into());
        }
        self.warn_of_ignored();
        let text = String::from_utf8_lossy(&annotated.stdout).into_owned();
        let spans = Spans::read(&text, |name| self.load(name));
        Ok((blob.stdout, Source { files: self.files, spans, warnings: self.placed }))
    }

    /// The file that the compilers call so.
    fn load(&mut self, name: &str) -> Option<usize> {
        if name == self.name {
            return Some(0);
        }
        let folder = self.path.parent().unwrap_or(Path::new(""));
        self.files.load(&folder.join(name.strip_prefix("./").unwrap_or(name)))
    }

    /// Expands macros and includes, as the Linux kernel does for its device trees (`scripts/Makefile.dtbs`).
    fn preprocess(&mut self, text: &[u8]) -> Result<Vec<u8>> {
        let mut cpp = Command::new(CPP);
        cpp.args(["-E", "-nostdinc", "-undef", "-D__DTS__", "-x", "assembler-with-cpp"]);
        cpp.args(["-fno-diagnostics-show-caret", "-fdiagnostics-color=never", "-I", ".", "-"]);
        cpp.env("LC_ALL", "C");
        let missing = "the manifest is written for the C preprocessor, and aarch64-linux-gnu-gcc cannot be run; \
                       run: apt-get install gcc-aarch64-linux-gnu";
        let output = pipe(cpp.current_dir(&self.folder), text).context(missing)?;
        self.read_messages(&output.stderr);
        if !output.status.success() {
            if !self.placed.iter().any(Placed::is_error) {
                let message = format!("the C preprocessor ended with {}", output.status);
                self.add(Severity::Error, &message, None);
            }
            let (files, placed) = (std::mem::take(&mut self.files), std::mem::take(&mut self.placed));
            return Err(Findings::new(files, placed).into());
        }
        Ok(output.stdout)
    }

    fn dtc(&self, text: &[u8], options: &[&str]) -> Result<Output> {
        let mut dtc = Command::new("dtc");
        // Forced: what our own rules find wrong, they say better.
        dtc.args(["-f", "-I", "dts"]).args(options).arg("-").current_dir(&self.folder);
        pipe(&mut dtc, text).context("cannot run dtc; run: apt-get install device-tree-compiler")
    }

    /// Turns what a compiler wrote on its standard error into findings.
    fn read_messages(&mut self, text: &[u8]) {
        for line in String::from_utf8_lossy(text).lines() {
            let Some(message) = Message::parse(line) else { continue };
            let span = match &message.at {
                Some((name, place)) => {
                    let file = self.load(name);
                    let span = |file| place.span(&self.files, file).unwrap_or(Span { file, range: 0..0 });
                    file.map(span).map(|span| self.narrowed(span, message.text))
                }
                None if message.text.contains("nested") => self.circle.clone(),
                None => self.quoted(message.text),
            };
            self.add(message.severity, message.text, span);
        }
    }

    /// Drops what dtc says once more of a fault that it has named: where it stopped, or that it stopped.
    fn drop_echoes(&mut self) {
        let is_echo = |placed: &Placed| {
            ["Syntax error parsing input tree", "syntax error"].contains(&placed.diagnostic.message.as_str())
        };
        let named: Vec<_> =
            self.placed.iter().filter(|placed| placed.is_error() && !is_echo(placed)).cloned().collect();
        self.placed.retain(|placed| {
            let echoes = match placed.diagnostic.message.as_str() {
                "syntax error" => named.iter().any(|named| named.span == placed.span),
                _ => is_echo(placed) && !named.is_empty(),
            };
            !echoes
        });
    }

    /// Warns of directives that dtc takes and a manifest has no use for.
    fn warn_of_ignored(&mut self) {
        let ignored = [
            (
                "/memreserve/",
                "take it out: what a partition gets is its `memory`, and nothing else is given away",
            ),
            ("/plugin/", "take it out: a manifest is no overlay"),
        ];
        for (directive, help) in ignored {
            let found = self.files.iter().enumerate().find_map(|(file, found)| {
                let mut tokens = tokens::tokens(&found.text, 0);
                let range = tokens.find(|token| found.text[token.range.clone()] == *directive)?.range;
                Some(Span { file, range })
            });
            if let Some(span) = found {
                self.add(Severity::Warning, &format!("{directive} has no effect in a manifest"), Some(span));
                self.help(help);
            }
        }
    }

    /// The mend of what was added last.
    fn help(&mut self, help: &str) {
        if let Some(added) = self.placed.last_mut() {
            added.diagnostic.help = Some(help.to_owned());
        }
    }

    fn add(&mut self, severity: Severity, text: &str, span: Option<Span>) {
        let code = if severity == Severity::Error { SYNTAX } else { WARNED };
        // Whatever it is, it is about this manifest.
        let span = span.unwrap_or(Span { file: 0, range: 0..0 });
        let diagnostic = Diagnostic {
            code: code.to_owned(),
            severity,
            message: text.to_owned(),
            at: Location::node(""),
            other: None,
            notes: Vec::new(),
            help: self.hint(text, &span),
        };
        self.placed.push(Placed { diagnostic, span: Some(span), other: None });
    }

    /// The mend of what is wrong most often.
    fn hint(&self, message: &str, span: &Span) -> Option<String> {
        if message == "syntax error" {
            return hints::syntax(&self.files.get(span.file).text, span.range.start, span.file == 0);
        }
        let hints = [
            ("Character literal", "put strings between double quotation marks: `\"`"),
            ("Properties must precede subnodes", "move the property in front of the first node below"),
            ("No such file", "correct the name; what is included is looked for beside the manifest"),
            ("nested", "a file includes itself: take one of the includes out"),
            ("Label or path", "put the label before the node that is meant: `label: name {`"),
            (
                "non-existent node or label",
                "put a label before a node, or name hardware by a path or alias of the board",
            ),
        ];
        hints.iter().find(|(words, _)| message.contains(words)).map(|(_, hint)| (*hint).to_owned())
    }

    /// Of a place of many lines, the reference to the label that the message quotes, or else the first line.
    fn narrowed(&self, span: Span, message: &str) -> Span {
        let text = &self.files.get(span.file).text[span.range.clone()];
        let Some((first, _)) = text.split_once('\n') else { return span };
        let reference = message.split('"').nth(1).map(|label| format!("&{label}"));
        let found = reference.and_then(|reference| Some((text.find(&reference)?, reference.len())));
        let (offset, length) = found.unwrap_or((0, first.trim_end().len()));
        let start = span.range.start + offset;
        Span { file: span.file, range: start..start + length }
    }

    /// Where the manifest has the name that a message without a place quotes: a file that cannot be opened.
    fn quoted(&self, message: &str) -> Option<Span> {
        let start = message.find('"')?;
        let length = message[start + 1..].find('"')?;
        let name = &message[start..start + length + 2];
        self.files.iter().enumerate().find_map(|(file, found)| {
            let start = found.text.find(name)?;
            Some(Span { file, range: start..start + name.len() })
        })
    }
}

/// A place as a compiler names it: lines and columns from 1, the end behind the last column.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Place {
    start: (usize, usize),
    end: Option<(usize, usize)>,
}

impl Place {
    fn span(self, files: &Files, file: usize) -> Option<Span> {
        let (line, column) = self.start;
        let start = files.offset(file, line, column)?;
        let end = match self.end {
            Some((line, column)) => files.offset(file, line, column)?,
            None => files.line(file, line)?.end,
        };
        Some(Span { file, range: start..end.max(start) })
    }
}

/// A line of dtc's or cpp's that says something.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Message<'a> {
    severity: Severity,
    at: Option<(&'a str, Place)>,
    text: &'a str,
}

/// dtc: `Error: a.dts:3.10-11 text`, `a.dts:3.10-5.3: ERROR (check): text`; the end's line may be left out, all of the place may.
static DTC: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?x)^(?:(?<early>Error|Lexical\ error|Warning|FATAL\ ERROR):\ )?
        (?:(?<file>\S.*?):(?<line>\d+)\.(?<column>\d+)(?:-(?:(?<last>\d+)\.)?(?<end>\d+))?:?\ )?
        (?:(?<late>ERROR|Warning)\ \((?<check>\w+)\):\ )?(?<text>.+)$",
    )
    .expect("a valid expression")
});
/// cpp: `a.dts:3:10: error: text`.
static GCC: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^(?<file>.+?):(?<line>\d+):(?:(?<column>\d+):)? (?<kind>fatal error|error|warning): (?<text>.+)$",
    )
    .expect("a valid expression")
});

impl<'a> Message<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        if let Some(found) = GCC.captures(line) {
            let number = |name| found.name(name).and_then(|number| number.as_str().parse().ok());
            let place = Place { start: (number("line")?, number("column").unwrap_or(1)), end: None };
            let severity = if &found["kind"] == "warning" { Severity::Warning } else { Severity::Error };
            let file = found.name("file")?.as_str();
            return Some(Self { severity, at: Some((file, place)), text: found.name("text")?.as_str() });
        }
        let found = DTC.captures(line)?;
        // The rules NodeTwice and PropertyTwice find these, with both places, and UnknownProperty a `reg`: no node has one.
        let found_by_rules =
            ["duplicate_node_names", "duplicate_property_names", "avoid_default_addr_size", "reg_format"];
        if found.name("check").is_some_and(|check| found_by_rules.contains(&check.as_str()))
            || found["text"].contains("has a reg or ranges property")
        {
            return None;
        }
        let kind = found.name("early").or(found.name("late"))?.as_str();
        let text = found.name("text")?.as_str();
        if ["Unable to parse input tree", "Input tree has errors, output forced"].contains(&text) {
            return None;
        }
        let severity = if kind == "Warning" { Severity::Warning } else { Severity::Error };
        let number = |name| found.name(name).and_then(|number| number.as_str().parse().ok());
        let at = found.name("file").and_then(|file| {
            let start: (usize, usize) = (number("line")?, number("column")?);
            let end = number("end").map(|end| (number("last").unwrap_or(start.0), end));
            Some((file.as_str(), Place { start, end }))
        });
        Some(Self { severity, at, text })
    }
}

/// Longer than a compiler takes on any host. Only one that waits for what never comes takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a command with this input.
fn pipe(command: &mut Command, input: &[u8]) -> Result<Output> {
    pipe_within(PATIENCE, command, input)
}

/// As [`pipe`], but ends the command if it takes longer.
fn pipe_within(patience: Duration, command: &mut Command, input: &[u8]) -> Result<Output> {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("it has no standard input")?;
    let input = input.to_owned();
    // One that ends early takes no more input; its messages say why.
    thread::spawn(move || stdin.write_all(&input));
    let stdout = read_aside(child.stdout.take().context("it has no standard output")?);
    let stderr = read_aside(child.stderr.take().context("it has no standard error")?);
    let deadline = Instant::now() + patience;
    let rest = |from: &Receiver<_>| from.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    match (rest(&stdout), rest(&stderr)) {
        (Ok(stdout), Ok(stderr)) => Ok(Output { status: child.wait()?, stdout: stdout?, stderr: stderr? }),
        _ => {
            child.kill()?;
            child.wait()?;
            bail!("it did not end within {} s; it may wait for what the source includes", patience.as_secs())
        }
    }
}

/// All that can be read; what a command started may keep its outputs open when it has ended.
fn read_aside(mut from: impl Read + Send + 'static) -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read = from.read_to_end(&mut bytes).map(|_| bytes);
        // Whoever waited for it may have gone.
        let _ = sender.send(read);
    });
    receiver
}

/// What dtc makes of a text that is right.
#[cfg(test)]
pub fn compiled(text: &str) -> Vec<u8> {
    let (blob, messages) = dtc(text, Path::new(".")).expect("dtc runs");
    blob.unwrap_or_else(|| panic!("{messages}\n{text}"))
}

/// Compiles the source of a device tree, to be found in `folder`; returns the blob, if it compiles, and dtc's messages.
///
/// # Errors
///
/// Where dtc cannot be run.
pub fn dtc(source: &str, folder: &Path) -> Result<(Option<Vec<u8>>, String)> {
    let mut dtc = Command::new("dtc");
    dtc.args(["-I", "dts", "-O", "dtb", "-i"]).arg(folder).arg("-");
    let output = pipe(&mut dtc, source.as_bytes())
        .context("cannot run dtc; run: apt-get install device-tree-compiler")?;
    let messages = String::from_utf8_lossy(&output.stderr).into_owned();
    Ok((output.status.success().then_some(output.stdout), messages))
}

#[cfg(test)]
mod tests;
