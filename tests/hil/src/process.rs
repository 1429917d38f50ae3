//! A target that is a process with its serial line on standard input and output.
//!
//! Its output goes into the caller's own channel, so that one loop can wait for the target, the keyboard and
//! a deadline at once.

use std::io::{self, Read, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::Sender;
use std::thread;

/// What a target puts out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Output {
    /// Bytes of the serial line.
    Console(Vec<u8>),
    /// Bytes of standard error: the emulator's own complaints.
    Error(Vec<u8>),
    /// The serial line is closed: the target has ended or is about to.
    End,
}

/// A running process; dropping it kills it.
#[derive(Debug)]
pub struct Process {
    child: Child,
    input: ChildStdin,
}

impl Process {
    /// Starts `command` and sends all that it puts out into `events`.
    ///
    /// # Errors
    ///
    /// Where the program cannot be started.
    pub fn start<E>(mut command: Command, events: Sender<E>) -> io::Result<Self>
    where
        E: From<Output> + Send + 'static,
    {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let (Some(input), Some(output), Some(error)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(io::Error::other("the process has no pipes"));
        };
        // Joined before the end is told, so that a complaint is never behind it.
        let complaints = thread::spawn({
            let events = events.clone();
            move || forward(error, &events, Output::Error)
        });
        thread::spawn(move || {
            forward(output, &events, Output::Console);
            let _ = complaints.join();
            let _ = events.send(Output::End.into());
        });
        Ok(Self { child, input })
    }

    /// Types `bytes` at the target.
    ///
    /// # Errors
    ///
    /// Where the target has ended.
    pub fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.input.write_all(bytes)?;
        self.input.flush()
    }

    /// Waits for the process to end.
    ///
    /// # Errors
    ///
    /// As [`Child::wait`].
    pub fn wait(&mut self) -> io::Result<ExitStatus> {
        self.child.wait()
    }

    /// Ends the process now.
    pub fn kill(&mut self) {
        // Both fail only where it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn forward<E: From<Output>>(mut from: impl Read, events: &Sender<E>, wrap: fn(Vec<u8>) -> Output) {
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if events.send(wrap(buffer[..count].to_vec()).into()).is_err() {
            return;
        }
    }
}
