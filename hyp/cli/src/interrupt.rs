//! Ctrl-C at a moment when the tool has something to put in order first.
//!
//! Once a program has caught a signal, nothing gives it the default action back but itself. So the signals that end the
//! tool are caught once and do what they always do, except while a [`Postponed`] lives.

use std::ffi::c_int;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

/// What a terminal or a service manager ends a program with.
pub const SIGNALS: [c_int; 3] = [SIGHUP, SIGINT, SIGTERM];

#[derive(Default)]
struct Caught {
    /// Whether a signal does what it always does.
    acts: Arc<AtomicBool>,
    /// The last signal, 0 if none came.
    last: Arc<AtomicUsize>,
}

static CAUGHT: OnceLock<Caught> = OnceLock::new();

/// While it lives, signals that end the tool are noted and nothing more.
#[derive(Debug)]
pub struct Postponed(());

impl Postponed {
    /// From now on.
    ///
    /// # Errors
    ///
    /// Where signals cannot be caught.
    pub fn new() -> io::Result<Self> {
        if CAUGHT.get().is_none() {
            let caught = Caught::default();
            for signal in SIGNALS {
                flag::register_conditional_default(signal, Arc::clone(&caught.acts))?;
                flag::register_usize(signal, Arc::clone(&caught.last), usize::try_from(signal).unwrap_or(0))?;
            }
            let _ = CAUGHT.set(caught);
        }
        if let Some(caught) = CAUGHT.get() {
            // Of an earlier time, when it did what it always does or somebody else saw to it.
            caught.last.store(0, Ordering::SeqCst);
        }
        set(false);
        Ok(Self(()))
    }

    /// Whether a signal has come.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        CAUGHT.get().is_some_and(|caught| caught.last.load(Ordering::SeqCst) != 0)
    }

    /// Ends the tool by the signal that has come, if one has.
    pub fn settle(self) {
        let last = CAUGHT.get().map_or(0, |caught| caught.last.swap(0, Ordering::SeqCst));
        drop(self);
        if let Ok(signal) = c_int::try_from(last)
            && signal != 0
        {
            // It fails for numbers that are no signals.
            let _ = low_level::emulate_default_handler(signal);
        }
    }
}

impl Drop for Postponed {
    fn drop(&mut self) {
        set(true);
    }
}

fn set(acts: bool) {
    if let Some(caught) = CAUGHT.get() {
        caught.acts.store(acts, Ordering::SeqCst);
    }
}
