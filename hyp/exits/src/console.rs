//! One serial line for all partitions and the hypervisor.
//!
//! Bytes of each source are preceded by a tag when the source changes (`policy::console`), so that a host can take
//! the line apart; a plain terminal ignores the tags. A guest's CPU sends its own bytes while the line takes them and never
//! waits: what is left goes out on the transmit interrupt, which one CPU takes.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use bulkhead_arch::boot;
use bulkhead_arch::mmu::Mmio;
use bulkhead_arch::once::Once;
use bulkhead_arch::uart::Uart;
use bulkhead_policy::console::{Bytes, FOCUS_NEXT, LOG, Log, Tag, defuse};
use bulkhead_policy::platform::UartModel;
use heapless::Deque;
use spin::Mutex;

use crate::system::{Partition, System, system};

/// Bytes sent or taken in one go: at least the depth of a port's FIFO, so that the transmit interrupt follows.
const BURST: usize = 32;

/// [`print`] waits until at most this much of the log is left to send.
const ROOM: usize = LOG / 2;
/// [`try_print`] finds room while at most this much is left to send. The rest is kept for [`print`]: no guest's doing fills the log.
const MORE_ROOM: usize = LOG / 4 * 3;

struct Console {
    uart: Uart,
    /// Whose bytes the host takes what comes next for.
    source: Option<usize>,
    /// The last byte of a source that was sent.
    last: u8,
    /// What was typed and not yet taken.
    typed: Deque<u8, BURST>,
    /// A tag and a byte that wait for room.
    out: Deque<u8, 16>,
    /// There was no room for all that was typed. What is left in the FIFO does not interrupt again by itself.
    unread: bool,
}

static CONSOLE: Once<Mutex<Console>> = Once::new();
/// The same port for the last message of a machine that stops.
static LAST: Mutex<Option<(UartModel, Mmio)>> = Mutex::new(None);
/// The hypervisor's own lines.
static LINES: Mutex<Log> = Mutex::new(Log::new());
/// The last line waited for room in vain. The next ones do not, so that a port which never sends costs a second in all.
static IN_VAIN: AtomicBool = AtomicBool::new(false);
/// Somebody found the console locked and has bytes to send or to hand on.
static WANTED: AtomicBool = AtomicBool::new(false);
/// A partition owns the serial port.
static GIVEN_AWAY: AtomicBool = AtomicBool::new(false);
/// The partition that gets what is typed.
static FOCUS: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Makes the port at `registers` the console, after what has been printed so far.
pub fn init(model: UartModel, registers: Mmio) {
    flush();
    init_last(Some((model, registers)));
    let new = Uart::new(model, registers);
    if let Some(console) = CONSOLE.get() {
        let mut console = console.lock();
        console.uart = new;
        console.source = None;
        return;
    }
    CONSOLE.set(Mutex::new(Console {
        uart: new,
        source: None,
        last: b'\n',
        typed: Deque::new(),
        out: Deque::new(),
        unread: false,
    }));
}

/// Makes this the port for the last message of a machine that stops.
pub fn init_last(port: Option<(UartModel, Mmio)>) {
    *LAST.lock() = port;
}

/// Prints a line of the hypervisor's, as [`print`] does.
#[macro_export]
macro_rules! println {
    ($($argument:tt)*) => { $crate::console::print(format_args!("{}\n", format_args!($($argument)*))) };
}

/// Prints a line of the hypervisor's, as [`try_print`] does.
#[macro_export]
macro_rules! try_println {
    ($($argument:tt)*) => { $crate::console::try_print(format_args!("{}\n", format_args!($($argument)*))) };
}

/// Queues a line of the hypervisor's and sends what the port takes. Waits for room, a second at most: not where a guest waits for it.
pub fn print(line: fmt::Arguments<'_>) {
    let deadline = boot::in_a_second();
    let mut limit = ROOM;
    while !queue(line, limit) && limit == ROOM {
        if IN_VAIN.load(Ordering::Relaxed) || console().is_none() || boot::is_past(deadline) {
            limit = LOG;
        }
    }
    IN_VAIN.store(limit == LOG, Ordering::Relaxed);
}

/// Queues a line of the hypervisor's and sends what the port takes. Where there is no room, it is lost.
pub fn try_print(line: fmt::Arguments<'_>) {
    queue(line, MORE_ROOM);
}

/// False where there is no room; only [`print`] then tries again.
fn queue(line: fmt::Arguments<'_>, limit: usize) -> bool {
    let mut log = LINES.lock();
    let queued = log.push(line, limit);
    if !queued && limit != ROOM {
        log.lose();
    }
    drop(log);
    send(0, true);
    queued
}

/// Waits until everything queued is on the line, a second at most: a port that its firmware has left without a clock never sends.
pub fn flush() {
    if let Some(console) = console() {
        let mut locked = console.lock();
        let deadline = boot::in_a_second();
        while (locked.pump_all(system())
            || system().is_some_and(System::was_console_in_use)
            || locked.uart.is_busy())
            && !boot::is_past(deadline)
        {}
    }
}

/// Prints at once, whoever holds what lock: this machine stops.
pub fn print_last(text: fmt::Arguments<'_>) {
    let last = LAST.try_lock().and_then(|last| *last);
    if let Some((model, registers)) = last {
        let mut uart = Uart::new(model, registers);
        let last = &mut |byte| {
            if byte == b'\n' {
                uart.send(b'\r');
            }
            uart.send(byte);
        };
        let _ = write!(Bytes(last), "{}{text}", Tag(0));
    }
}

/// Sends what `source` has queued, as far as the line takes it: 0 the hypervisor, `n` partition `n - 1`. Unless `urgent`, it does not
/// break into another source's unfinished line, but leaves that to the transmit interrupt, by which time more has come
/// together.
pub fn send(source: usize, urgent: bool) {
    let Some(console) = console() else { return };
    for _ in 0..2 {
        if let Some(mut locked) = console.try_lock() {
            if !(urgent || locked.last == b'\n' || locked.source == Some(source))
                || locked.pump(system(), source, BURST)
            {
                locked.uart.set_transmit_interrupt(true);
            }
            break;
        }
        // If whoever holds the lock looked between the two, the second try succeeds.
        want();
    }
    look_after_others(console);
}

/// What the console could not do for `source` while that used its emulated UART, on a CPU of its own.
pub fn resume(source: usize) {
    if let Some((console, system)) = console().zip(system()) {
        if let Some(mut locked) = console.try_lock() {
            if locked.hand_on(system) && locked.unread {
                locked.uart.set_transmit_interrupt(true);
            }
        } else {
            // What was typed is handed on at the transmit interrupt.
            want();
        }
    }
    send(source, true);
}

/// Says that the console was locked: whoever holds it looks at this after releasing it.
#[cold]
fn want() {
    WANTED.store(true, Ordering::SeqCst);
    fence(Ordering::SeqCst);
}

/// Who found the console locked went away: the transmit interrupt sends their bytes, which are not this CPU's work.
fn look_after_others(console: &Mutex<Console>) {
    // The other half of `want`: of the release before and a failed attempt there, one sees the other.
    fence(Ordering::SeqCst);
    if WANTED.load(Ordering::SeqCst)
        && let Some(mut locked) = console.try_lock()
    {
        locked.uart.set_transmit_interrupt(true);
        WANTED.store(false, Ordering::SeqCst);
    }
}

/// The console, unless a partition has it.
fn console() -> Option<&'static Mutex<Console>> {
    if GIVEN_AWAY.load(Ordering::Relaxed) { None } else { CONSOLE.get() }
}

/// Leaves the serial port to the partition that owns it, after what has been printed so far.
pub fn give_away() {
    flush();
    GIVEN_AWAY.store(true, Ordering::Relaxed);
}

impl Console {
    /// Gives what was typed to the partitions that it is for; false where some of it has to wait because a partition is just
    /// using its console. That partition's CPU goes on then.
    fn hand_on(&mut self, system: &System) -> bool {
        while let Some(&byte) = self.typed.front() {
            if byte == FOCUS_NEXT {
                move_focus(system);
            } else if let Some(partition) = system.partition(FOCUS.load(Ordering::Relaxed))
                && !partition.receive(byte)
            {
                return false;
            }
            self.typed.pop_front();
        }
        true
    }

    /// Sends what waits for room; false where some still does.
    fn flush_out(&mut self) -> bool {
        while let Some(&byte) = self.out.front() {
            if !self.uart.try_send(byte) {
                return false;
            }
            self.out.pop_front();
        }
        true
    }

    /// Sends at most `burst` bytes of `source`; true where there may be more.
    fn pump(&mut self, system: Option<&System>, source: usize, burst: usize) -> bool {
        for _ in 0..burst {
            if !self.flush_out() {
                return true;
            }
            let byte = match source.checked_sub(1) {
                None => LINES.lock().pop(),
                Some(partition) => {
                    match system.and_then(|system| system.partition(partition)).map(Partition::next_byte) {
                        // In use: its own CPU sends the rest.
                        Some(None) => return false,
                        Some(Some(byte)) => byte,
                        None => None,
                    }
                }
            };
            let Some(byte) = byte else { return false };
            if self.source != Some(source) {
                self.source = Some(source);
                // The queue has room for the longest tag.
                let out = &mut |byte| {
                    let _ = self.out.push_back(byte);
                };
                let _ = write!(Bytes(out), "{}", Tag(source));
            }
            let byte = defuse(self.last, byte);
            let _ = self.out.push_back(byte);
            self.last = byte;
        }
        true
    }

    /// Sends some bytes of every source; true where there may be more.
    fn pump_all(&mut self, system: Option<&System>) -> bool {
        let partitions = system.map_or(0, |system| system.partitions.len());
        (0..=partitions).fold(false, |more, source| self.pump(system, source, BURST) | more)
    }
}

/// Starts taking what is typed, and gives it to the first partition with an emulated console.
pub fn start_input(system: &System) {
    if let Some(console) = CONSOLE.get() {
        FOCUS.store(next_focus(system, usize::MAX), Ordering::Relaxed);
        // The first interrupt takes what came before: it may fill the FIFO, and then no byte would interrupt again.
        console.lock().uart.set_transmit_interrupt(true);
    }
}

/// The partition with an emulated console that follows `focus`.
fn next_focus(system: &System, focus: usize) -> usize {
    let count = system.partitions.len();
    let after = focus.wrapping_add(1);
    (after..count)
        .chain(0..after.min(count))
        .find(|&n| system.partitions[n].has_console())
        .unwrap_or(usize::MAX)
}

/// The console's interrupt. Nothing here waits for a lock that a partition's CPU may hold: where one is taken, the interrupt comes
/// again.
pub fn interrupt(system: &System) {
    let Some(console) = console() else { return };
    let Some(mut locked) = console.try_lock() else { return };
    // Before reading, so that a byte which comes after the last read interrupts.
    locked.uart.clear_receive_interrupt();
    for _ in 0..BURST {
        if locked.typed.is_full() {
            break;
        }
        let Some(byte) = locked.uart.receive() else { break };
        let _ = locked.typed.push_back(byte);
    }
    // What cannot be done now is done at the next transmit interrupt, which comes as long as there is room to transmit.
    locked.unread = locked.typed.is_full();
    let more = (locked.hand_on(system) && locked.unread) | locked.pump_all(Some(system));
    locked.uart.set_transmit_interrupt(more);
    drop(locked);
    look_after_others(console);
}

/// Gives what is typed to the next partition with a console.
fn move_focus(system: &System) {
    let next = next_focus(system, FOCUS.load(Ordering::Relaxed));
    FOCUS.store(next, Ordering::Relaxed);
    if let Some(partition) = system.partition(next) {
        try_println!("input to {}", partition.plan.name);
    }
}
