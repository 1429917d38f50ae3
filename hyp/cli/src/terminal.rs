//! The user's terminal while a machine runs in it.
//!
//! Every key goes to the machine but the one that quits, so the terminal is in raw mode, and it leaves raw
//! mode however the tool ends: normally, by a signal or by a panic.

use std::io::{self, IsTerminal, Read, Write};
use std::process::{Command, ExitStatus};
use std::sync::Once;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use bulkhead_hil::{Demultiplexer, Output, Process};
use crossterm::terminal;
use signal_hook::iterator::Signals;

use crate::interrupt::{Postponed, SIGNALS};

use crate::say;
use crate::screen::{Annotate, Screen, Surface};

/// Ctrl-\ ends the session.
const QUIT: u8 = 0x1c;

/// No output for so long is a quiet moment.
const QUIET: Duration = Duration::from_millis(50);

/// Columns of a terminal that does not say how many it has.
const COLUMNS: u16 = 80;

/// How a session ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum End {
    /// The user quit.
    Quit,
    /// The machine ended.
    Machine(ExitStatus),
    /// A signal of this number ended the tool's work.
    Signal(i32),
}

enum Event {
    Output(Output),
    Typed(Vec<u8>),
    Signal(i32),
}

impl From<Output> for Event {
    fn from(output: Output) -> Self {
        Self::Output(output)
    }
}

/// Raw mode for as long as it lives.
struct RawMode;

impl RawMode {
    fn enter() -> Result<Self> {
        // A panic aborts without unwinding, so that nothing is dropped.
        static HOOK: Once = Once::new();
        HOOK.call_once(|| {
            let report = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                leave_raw_mode();
                report(panic);
            }));
        });
        terminal::enable_raw_mode().context("cannot put the terminal into raw mode")?;
        Ok(Self)
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        leave_raw_mode();
    }
}

fn leave_raw_mode() {
    // A terminal that has gone needs no restoring.
    let _ = terminal::disable_raw_mode();
    let _ = io::stdout().write_all(b"\x1b[0m");
    let _ = io::stdout().flush();
}

/// Runs a machine with the user's terminal as its serial line until either ends.
///
/// # Errors
///
/// Where the machine cannot be started or the terminal cannot be used.
pub fn run(command: Command, annotate: Option<Annotate>) -> Result<End> {
    let program = command.get_program().to_owned();
    let (events, incoming) = mpsc::channel();
    let mut process = Process::start(command, events.clone())
        .with_context(|| format!("cannot start {}", program.display()))?;
    let _postponed = Postponed::new().context("cannot catch signals")?;
    let mut signals = Signals::new(SIGNALS).context("cannot catch signals")?;
    thread::spawn({
        let events = events.clone();
        move || signals.forever().try_for_each(|signal| events.send(Event::Signal(signal)))
    });
    thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok(count @ 1..) = io::stdin().read(&mut buffer) {
            if events.send(Event::Typed(buffer[..count].to_vec())).is_err() {
                return;
            }
        }
    });
    say::note("Ctrl-] moves the input to the next partition, Ctrl-\\ quits");
    let interactive = io::stdin().is_terminal() && io::stdout().is_terminal();
    let raw = if interactive { Some(RawMode::enter()?) } else { None };
    let surface = match (interactive, io::stdout().is_terminal()) {
        (true, _) => Surface::Raw(terminal::size().map_or(COLUMNS, |(columns, _)| columns).into()),
        (false, true) => Surface::Cooked,
        (false, false) => Surface::Plain,
    };
    let mut screen = Screen::new(io::stdout().lock(), surface, annotate);
    let mut demux = Demultiplexer::default();
    let mut complaints = Vec::new();
    let end = loop {
        let event = match incoming.recv_timeout(QUIET) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) => {
                screen.idle()?;
                continue;
            }
            Err(RecvTimeoutError::Disconnected) => Event::Output(Output::End),
        };
        match event {
            Event::Output(Output::Console(bytes)) => {
                let mut printed = Ok(());
                demux.feed(&bytes, |source, bytes| {
                    if printed.is_ok() {
                        printed = screen.print(source, bytes);
                    }
                });
                printed?;
            }
            Event::Output(Output::Error(bytes)) => complaints.extend(bytes),
            Event::Output(Output::End) => break End::Machine(process.wait()?),
            Event::Typed(bytes) if interactive && bytes.contains(&QUIT) => break End::Quit,
            // A machine that is just ending takes no input, and its end is the next event.
            Event::Typed(bytes) => drop(process.send(&bytes)),
            Event::Signal(signal) => break End::Signal(signal),
        }
    };
    process.kill();
    screen.close()?;
    drop(raw);
    if !complaints.is_empty() {
        say::note(format_args!("the emulator said:\n{}", String::from_utf8_lossy(&complaints).trim_end()));
    }
    Ok(end)
}
