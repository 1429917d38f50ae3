//! Verdict lines, the same on every machine, for a host that reads the console.
//!
//! `TEST <name> ok`, `TEST <name> FAIL <why>`, `SKIP <name> <why>`, and at the end
//! `DONE <passed> passed, <failed> failed`.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU32, Ordering};

use heapless::String;
use spin::Mutex;

use crate::console::print_line_now;
use crate::{println, smccc};

/// Why a test failed.
#[derive(Debug)]
pub struct Failure(String<112>);

impl Failure {
    /// A failure with this reason, cut off where it is long.
    #[must_use]
    pub fn new(reason: fmt::Arguments<'_>) -> Self {
        let mut text = String::new();
        // What does not fit is cut off.
        let _ = text.write_fmt(reason);
        Self(text)
    }

    /// The same failure, seen on another CPU.
    #[must_use]
    pub fn on(self, cpu: usize) -> Self {
        Self::new(format_args!("on CPU {cpu}: {}", self.0))
    }
}

/// What a test returns.
pub type Verdict = Result<(), Failure>;

/// Ends the test with a failure unless the condition holds; the rest is a reason as for `format!`.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::Failure::new(format_args!($($reason)+)));
        }
    };
}

/// Ends the test with a failure that shows both values unless they are equal; the rest says what they are.
#[macro_export]
macro_rules! ensure_eq {
    ($left:expr, $right:expr, $($what:tt)+) => {
        match ($left, $right) {
            (left, right) => $crate::ensure!(
                left == right, "{} is {left:#x?}, not {right:#x?}", format_args!($($what)+)
            ),
        }
    };
}

static PASSED: AtomicU32 = AtomicU32::new(0);
static FAILED: AtomicU32 = AtomicU32::new(0);
static CURRENT: Mutex<&str> = Mutex::new("start");

/// Runs a test and prints its verdict.
pub fn test(name: &'static str, body: impl FnOnce() -> Verdict) {
    *CURRENT.lock() = name;
    match body() {
        Ok(()) => {
            PASSED.fetch_add(1, Ordering::Relaxed);
            println!("TEST {name} ok");
        }
        Err(Failure(why)) => {
            FAILED.fetch_add(1, Ordering::Relaxed);
            println!("TEST {name} FAIL {why}");
        }
    }
    *CURRENT.lock() = "after the last test";
}

/// Says that a test makes no sense here.
pub fn skip(name: &str, why: &str) {
    println!("SKIP {name} {why}");
}

/// Prints the sum and switches the machine off.
pub fn done() -> ! {
    println!("{}", Sum);
    smccc::system_off()
}

struct Sum;

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [passed, failed] = [&PASSED, &FAILED].map(|count| count.load(Ordering::Relaxed));
        write!(f, "DONE {passed} passed, {failed} failed")
    }
}

/// Fails the running test for good: prints the verdict and the sum and switches the machine off.
pub(crate) fn abandon(why: &dyn fmt::Display) -> ! {
    FAILED.fetch_add(1, Ordering::Relaxed);
    let name = CURRENT.try_lock().map_or("?", |name| *name);
    print_line_now(format_args!("\nTEST {name} FAIL {why}"));
    print_line_now(format_args!("{Sum}"));
    smccc::system_off()
}
