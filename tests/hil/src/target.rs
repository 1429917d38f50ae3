//! A target that a test talks to: wait for what one source prints, type, see it end.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, Write};
use std::ops::Index;
use std::process::{Command, ExitStatus};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use regex::bytes::{Match as Group, Regex};

use crate::demux::{Demultiplexer, Source};
use crate::process::{Output, Process};
use crate::report::Report;

/// Moves the input to the next partition that has a console.
const NEXT_FOCUS: u8 = 0x1d;

/// How long the rest of an EL2 fault's report may take.
const FAULT_REPORT: Duration = Duration::from_millis(500);

/// How long the hypervisor may take to say whom the input goes to.
const FOCUS_ANSWER: Duration = Duration::from_secs(10);

/// Lines of the transcript that an error shows.
const TAIL: usize = 25;

/// One complete line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// When its end arrived, from the target's start.
    pub at: Duration,
    /// Who printed it.
    pub source: Source,
    /// Its text without the line end; bytes that are no UTF-8 replaced.
    pub text: String,
}

/// What a pattern matched: group 0 is the whole match.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Match(Vec<String>);

impl Index<usize> for Match {
    type Output = str;

    fn index(&self, group: usize) -> &str {
        &self.0[group]
    }
}

/// Why what was waited for did not come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reason {
    /// The time was up.
    Timeout(Duration),
    /// The target ended.
    Ended(ExitStatus),
    /// The hypervisor reported a fault of its own.
    Fault(String),
    /// The target could not be typed at or waited for.
    Io(String),
}

/// What was waited for did not come.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct WaitError {
    /// What was waited for.
    pub what: String,
    /// Why it did not come.
    pub reason: Reason,
    /// The last lines that the target printed.
    pub tail: String,
}

impl fmt::Display for WaitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.reason {
            Reason::Timeout(time) => write!(f, "no {} within {} s", self.what, time.as_secs_f32())?,
            Reason::Ended(status) => write!(f, "the target ended ({status}) before {}", self.what)?,
            Reason::Fault(line) => write!(f, "the hypervisor failed before {}: {line}", self.what)?,
            Reason::Io(error) => write!(f, "{error} while waiting for {}", self.what)?,
        }
        write!(f, "\nThe target's last lines:\n{}", self.tail)
    }
}

impl std::error::Error for WaitError {}

/// What one source has printed.
#[derive(Default)]
struct Channel {
    /// All bytes but carriage returns.
    text: Vec<u8>,
    /// Up to here a match has consumed the text.
    read: usize,
    /// Where the unfinished line begins.
    line_start: usize,
}

/// Called for each complete line as it arrives.
type LineObserver = Box<dyn FnMut(&Line) + Send>;

/// A running target; dropping it ends it.
pub struct Target {
    process: Process,
    output: Receiver<Output>,
    demux: Demultiplexer,
    channels: BTreeMap<Source, Channel>,
    lines: Vec<Line>,
    complaints: String,
    started: Instant,
    status: Option<ExitStatus>,
    fault: Option<String>,
    log: Option<Box<dyn Write + Send>>,
    observer: Option<LineObserver>,
    names: BTreeMap<String, Source>,
}

impl Target {
    /// Starts a process whose standard input and output are the target's serial line.
    ///
    /// # Errors
    ///
    /// Where the program cannot be started.
    pub fn start(command: Command) -> io::Result<Self> {
        let (sender, output) = mpsc::channel();
        Ok(Self {
            process: Process::start(command, sender)?,
            output,
            demux: Demultiplexer::default(),
            channels: BTreeMap::new(),
            lines: Vec::new(),
            complaints: String::new(),
            started: Instant::now(),
            status: None,
            fault: None,
            log: None,
            observer: None,
            names: BTreeMap::new(),
        })
    }

    /// Writes each complete line into `log`, with its time and source.
    pub fn log_to(&mut self, log: impl Write + Send + 'static) {
        self.log = Some(Box::new(log));
    }

    /// Calls `observer` with each complete line as it arrives.
    pub fn observe(&mut self, observer: impl FnMut(&Line) + Send + 'static) {
        self.observer = Some(Box::new(observer));
    }

    /// All complete lines so far.
    #[must_use]
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }

    /// All that `source` has printed, without carriage returns; bytes that are no UTF-8 replaced.
    #[must_use]
    pub fn text(&self, source: Source) -> String {
        self.channels
            .get(&source)
            .map_or_else(String::new, |channel| String::from_utf8_lossy(&channel.text).into_owned())
    }

    /// The partitions that the hypervisor has announced, by name.
    #[must_use]
    pub fn names(&self) -> &BTreeMap<String, Source> {
        &self.names
    }

    /// The source of the partition called `name`, once the hypervisor has announced it.
    ///
    /// # Errors
    ///
    /// Where the announcement does not come within `timeout`.
    pub fn partition(&mut self, name: &str, timeout: Duration) -> Result<Source, WaitError> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(&source) = self.names.get(name) {
                return Ok(source);
            }
            let what = || format!("partition called {name}");
            if let Err(reason) = self.pump(deadline, timeout) {
                return Err(self.error(what(), reason));
            }
        }
    }

    /// Waits until what `source` prints after the last match matches `pattern`, also in an unfinished line.
    /// `^` matches where a line begins; a line that is to be complete is matched up to its `\n`.
    ///
    /// # Errors
    ///
    /// Where the time is up, the target ends or the hypervisor reports a fault of its own.
    ///
    /// # Panics
    ///
    /// Where `pattern` is no regular expression.
    pub fn expect(&mut self, source: Source, pattern: &str, timeout: Duration) -> Result<Match, WaitError> {
        let regex = Regex::new(&format!("(?m){pattern}")).expect("a valid pattern");
        let deadline = Instant::now() + timeout;
        loop {
            let channel = self.channels.entry(source).or_default();
            if let Some(captures) = regex.captures(&channel.text[channel.read..]) {
                channel.read += captures.get(0).map_or(0, |whole| whole.end());
                let group = |group: Option<Group<'_>>| {
                    group.map_or_else(String::new, |text| {
                        String::from_utf8_lossy(text.as_bytes()).into_owned()
                    })
                };
                return Ok(Match(captures.iter().map(group).collect()));
            }
            if let Err(reason) = self.pump(deadline, timeout) {
                return Err(self.error(format!("\"{pattern}\" from {source}"), reason));
            }
        }
    }

    /// As [`Target::expect`], but passes over what has arrived already.
    ///
    /// # Errors
    ///
    /// As [`Target::expect`].
    ///
    /// # Panics
    ///
    /// As [`Target::expect`].
    pub fn expect_new(
        &mut self,
        source: Source,
        pattern: &str,
        timeout: Duration,
    ) -> Result<Match, WaitError> {
        let channel = self.channels.entry(source).or_default();
        channel.read = channel.text.len();
        self.expect(source, pattern, timeout)
    }

    /// What the emulator itself has complained about.
    #[must_use]
    pub fn complaints(&self) -> &str {
        &self.complaints
    }

    /// Lets the target run for `time` and keeps what it prints.
    ///
    /// # Errors
    ///
    /// Where it ends meanwhile or the hypervisor reports a fault of its own.
    pub fn run_for(&mut self, time: Duration) -> Result<(), WaitError> {
        let deadline = Instant::now() + time;
        loop {
            match self.pump(deadline, time) {
                Ok(()) => {}
                Err(Reason::Timeout(_)) => return Ok(()),
                Err(reason) => return Err(self.error(format!("{} s were over", time.as_secs_f32()), reason)),
            }
        }
    }

    /// Waits for the target to end and returns how it did.
    ///
    /// # Errors
    ///
    /// Where the time is up or the hypervisor reports a fault of its own.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus, WaitError> {
        let deadline = Instant::now() + timeout;
        loop {
            match self.pump(deadline, timeout) {
                Ok(()) => {}
                Err(Reason::Ended(status)) => return Ok(status),
                Err(reason) => return Err(self.error("end of the target".to_owned(), reason)),
            }
        }
    }

    /// Types `bytes`; they go to the partition in focus.
    ///
    /// # Errors
    ///
    /// Where the target has ended.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), WaitError> {
        self.process
            .send(bytes)
            .map_err(|error| self.error("the target to take input".to_owned(), Reason::Io(error.to_string())))
    }

    /// Moves the input on until it goes to the partition called `name`.
    ///
    /// # Errors
    ///
    /// Where the hypervisor does not answer, or names every partition but this one.
    pub fn focus(&mut self, name: &str) -> Result<(), WaitError> {
        for _ in 0..=self.names.len() {
            self.send(&[NEXT_FOCUS])?;
            let answer = self.expect(Source::HYPERVISOR, r"^input to (\S+)\n", FOCUS_ANSWER)?;
            if &answer[1] == name {
                return Ok(());
            }
        }
        let reason = Reason::Io("every other partition was offered".to_owned());
        Err(self.error(format!("the input to go to {name}"), reason))
    }

    /// Ends the target now.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Takes one piece of output, or says why there is none. `timeout` is for the message alone.
    fn pump(&mut self, deadline: Instant, timeout: Duration) -> Result<(), Reason> {
        if let Some(status) = self.status {
            return Err(self.fault.clone().map_or(Reason::Ended(status), Reason::Fault));
        }
        match self.output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(output) => self.take(output),
            Err(RecvTimeoutError::Timeout) => Err(Reason::Timeout(timeout)),
            Err(RecvTimeoutError::Disconnected) => self.take(Output::End),
        }?;
        let Some(fault) = self.fault.clone() else { return Ok(()) };
        let report = Instant::now() + FAULT_REPORT;
        while let Ok(output) = self.output.recv_timeout(report.saturating_duration_since(Instant::now())) {
            self.take(output)?;
        }
        Err(Reason::Fault(fault))
    }

    fn take(&mut self, output: Output) -> Result<(), Reason> {
        match output {
            Output::Console(bytes) => {
                let mut stretches = Vec::new();
                self.demux.feed(&bytes, |source, bytes| stretches.push((source, bytes.to_vec())));
                for (source, bytes) in stretches {
                    self.print(source, &bytes);
                }
            }
            Output::Error(bytes) => self.complaints.push_str(&String::from_utf8_lossy(&bytes)),
            Output::End => {
                let mut rest = None;
                self.demux.finish(|source, bytes| rest = Some((source, bytes.to_vec())));
                if let Some((source, bytes)) = rest {
                    self.print(source, &bytes);
                }
                self.status = Some(self.process.wait().map_err(|error| Reason::Io(error.to_string()))?);
            }
        }
        Ok(())
    }

    fn print(&mut self, source: Source, bytes: &[u8]) {
        let channel = self.channels.entry(source).or_default();
        let mut finished = Vec::new();
        for &byte in bytes.iter().filter(|&&byte| byte != b'\r') {
            if byte == b'\n' {
                let text = String::from_utf8_lossy(&channel.text[channel.line_start..]).into_owned();
                finished.push(Line { at: self.started.elapsed(), source, text });
                channel.line_start = channel.text.len() + 1;
            }
            channel.text.push(byte);
        }
        for line in finished {
            if source == Source::HYPERVISOR {
                self.read_report(&line.text);
            }
            if let Some(log) = &mut self.log {
                // A log that cannot be written must not fail the test that it is for.
                let _ = writeln!(log, "{line}");
            }
            if let Some(observer) = &mut self.observer {
                observer(&line);
            }
            self.lines.push(line);
        }
    }

    fn read_report(&mut self, text: &str) {
        match Report::parse(text) {
            Some(Report::Partition { source, name }) => {
                self.names.insert(name.to_owned(), source);
            }
            Some(Report::Fault) if self.fault.is_none() => self.fault = Some(text.to_owned()),
            _ => {}
        }
    }

    fn error(&self, what: String, reason: Reason) -> WaitError {
        let first = self.lines.len().saturating_sub(TAIL);
        let mut tail: String = self.lines[first..].iter().map(|line| format!("{line}\n")).collect();
        for (source, channel) in &self.channels {
            if channel.line_start < channel.text.len() {
                let rest = String::from_utf8_lossy(&channel.text[channel.line_start..]);
                tail.push_str(&format!("[unfinished] {source}: {rest}\n"));
            }
        }
        tail.push_str(&self.complaints);
        WaitError { what, reason, tail }
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:9.3}] {}: {}", self.at.as_secs_f64(), self.source, self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Target {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Target::start(command).expect("a shell")
    }

    /// A two-partition system that answers the focus key and echoes a line.
    const SYSTEM: &str = r#"
        printf 'partition 1 linux: cpus 0 1 2, 512 MiB\npartition 2 rtos: cpus 3, 16 MiB\r\n'
        printf '\033_B1\033\\login: \033_B2\033\\tick 1\r\n'
        dd bs=1 count=1 2>/dev/null >/dev/null
        printf '\033_B0\033\\input to rtos\n'
        read line
        printf '\033_B2\033\\you said %s\n' "$line"
    "#;

    #[test]
    fn a_conversation() {
        let mut target = shell(SYSTEM);
        let rtos = target.partition("rtos", SOON).unwrap();
        assert_eq!(rtos, Source(2));
        assert_eq!(&target.expect(Source(1), "^(lo)gin: $", SOON).unwrap()[1], "lo");
        assert_eq!(&target.expect(rtos, r"tick (\d+)", SOON).unwrap()[1], "1");
        target.focus("rtos").unwrap();
        target.send(b"hello\n").unwrap();
        target.expect(rtos, "^you said hello$", SOON).unwrap();
        assert!(target.wait(SOON).unwrap().success());
        assert_eq!(target.text(rtos), "tick 1\nyou said hello\n");
        let of_rtos = |line: &&Line| line.source == rtos;
        assert_eq!(target.lines().iter().filter(of_rtos).count(), 2);
    }

    #[test]
    fn a_match_is_consumed() {
        let mut target = shell("echo one; echo one");
        target.expect(Source::HYPERVISOR, "one", SOON).unwrap();
        target.expect(Source::HYPERVISOR, "one", SOON).unwrap();
        let error = target.expect(Source::HYPERVISOR, "one", SOON).unwrap_err();
        assert!(matches!(error.reason, Reason::Ended(status) if status.success()), "{error}");
        assert!(error.tail.contains("one"));
    }

    #[test]
    fn waiting_has_an_end() {
        let mut target = shell("echo -n half; echo bad >&2; exec sleep 60");
        target.expect(Source::HYPERVISOR, "half", SOON).unwrap();
        let error = target.expect(Source::HYPERVISOR, "whole", Duration::from_millis(300)).unwrap_err();
        assert!(matches!(error.reason, Reason::Timeout(_)), "{error}");
        assert!(error.tail.contains("half") && error.tail.contains("bad"), "{error}");
    }

    #[test]
    fn a_fault_of_the_hypervisor_ends_the_wait() {
        let mut target = shell("echo 'bulkhead: EL2 fault on cpu 1'; echo '  at 0x1000'; exec sleep 60");
        let error = target.expect(Source(1), "never", SOON).unwrap_err();
        assert!(matches!(error.reason, Reason::Fault(_)), "{error}");
        assert!(error.tail.contains("0x1000"), "{error}");
    }

    #[test]
    fn dropping_kills() {
        let mut target = shell("echo $$; exec sleep 60");
        let pid = target.expect(Source::HYPERVISOR, r"(\d+)\n", SOON).unwrap()[1].to_owned();
        let alive = || std::path::Path::new("/proc").join(&pid).exists();
        assert!(alive());
        drop(target);
        assert!(!alive());
    }
}
