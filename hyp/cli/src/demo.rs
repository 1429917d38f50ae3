//! The demo without a person: Linux under load beside FreeRTOS, checked line by line.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bulkhead_hil::{Source, Target, WaitError};
use regex::Regex;

use crate::board::Board;
use crate::system::Recipe;
use crate::workspace::Workspace;

/// Partitions of the demo.
const LINUX: &str = "linux";
const RTOS: &str = "rtos";
/// Linux's CPUs.
const CPUS: usize = 3;
/// Where Linux boots on a slow host, this is long enough.
const BOOT: Duration = Duration::from_secs(240);
/// What the load test may take beyond the seconds that it is told.
const SLACK: Duration = Duration::from_secs(180);
/// How many heartbeats FreeRTOS must have after Linux has gone.
const HEARTBEATS_AFTER: usize = 3;
/// What is typed at Linux.
const TYPED: &[u8] = b"typed\r";
/// An answer of FreeRTOS, or a heartbeat.
const SOON: Duration = Duration::from_secs(30);

/// The demo's manifest.
#[must_use]
pub fn manifest(workspace: &Workspace) -> PathBuf {
    workspace.root().join("partitions/systems/demo.dts")
}

/// The demo's manifest for a machine.
#[must_use]
pub fn recipe(workspace: &Workspace, board: Board) -> Recipe {
    Recipe::new(manifest(workspace), board)
}

/// The demo with a Linux that loads its CPUs for so many seconds and then powers off.
#[must_use]
pub fn test_recipe(workspace: &Workspace, board: Board, seconds: u64) -> Recipe {
    let more_bootargs = Some(format!("bulkhead.test=1 bulkhead.seconds={seconds}"));
    Recipe { more_bootargs, ..recipe(workspace, board) }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Check {
    /// What was found.
    pub found: String,
    /// Whether it is as it should be.
    pub ok: bool,
}

/// Checks as they are made.
#[derive(Default)]
struct Checks(Vec<Check>);

impl Checks {
    fn add(&mut self, ok: bool, found: impl Into<String>) {
        self.0.push(Check { found: found.into(), ok });
    }
}

/// Follows the demo from boot to power-off and says of everything that it shows whether it is right. A target
/// that does not get that far leaves a failed check behind it.
#[must_use]
pub fn follow(target: &mut Target, seconds: u64) -> Vec<Check> {
    let mut checks = Checks::default();
    if let Err(error) = try_follow(target, seconds, &mut checks) {
        checks.add(false, error.to_string());
    }
    checks.0
}

fn try_follow(target: &mut Target, seconds: u64, checks: &mut Checks) -> Result<(), WaitError> {
    let linux = target.partition(LINUX, BOOT)?;
    let rtos = target.partition(RTOS, BOOT)?;
    target.expect(linux, "^LINUX-TEST begin\n", BOOT)?;
    // Output never waits for an interrupt of the emulated PL011, input always does. Nobody reads it, but the
    // terminal driver echoes.
    target.send(TYPED)?;
    target.expect(linux, "typed", SOON)?;
    target.expect(linux, "^LINUX-TEST end\n", Duration::from_secs(seconds) + SLACK)?;
    target.expect(Source::HYPERVISOR, "^partition linux: off\n", SOON)?;
    check_linux(target, linux, checks);
    let at_end = heartbeats(target, rtos).len();
    // One a second; the first and the last second are cut off.
    let enough = at_end as u64 + 2 >= seconds;
    checks.add(enough, format!("FreeRTOS: {at_end} heartbeats beside Linux, {seconds} s of them under load"));
    for _ in 0..HEARTBEATS_AFTER {
        target.expect_new(rtos, "^heartbeat .*\n", SOON)?;
    }
    let after = heartbeats(target, rtos).len() - at_end;
    checks.add(after >= HEARTBEATS_AFTER, format!("FreeRTOS: {after} heartbeats after Linux's power-off"));
    target.focus(RTOS)?;
    for command in ["stats", "lateness", "off"] {
        target.send(format!("{command}\r").as_bytes())?;
        let answer = if command == "lateness" { r"^max .*\n" } else { r"^(heap:.*|off)\n" };
        target.expect_new(rtos, answer, SOON)?;
    }
    check_heartbeats(&heartbeats(target, rtos), checks);
    target.expect(Source::HYPERVISOR, "^bulkhead: all partitions are off\n", SOON)?;
    let status = target.wait(SOON)?;
    checks.add(status.success(), format!("the machine powered off; QEMU: {status}"));
    Ok(())
}

fn check_linux(target: &Target, linux: Source, checks: &mut Checks) {
    let text = target.text(linux);
    let first = |pattern: &str| Regex::new(pattern).ok()?.captures(&text).map(|found| found[1].to_owned());
    let cpus = first(r"Linux is up: (\d+) CPUs").unwrap_or_default();
    checks.add(cpus == CPUS.to_string(), format!("Linux: {cpus} CPUs"));
    let given = Regex::new(r"(?m)^partition \d+ linux: cpus [\d ]+, (\d+) MiB").ok();
    let hypervisor = target.text(Source::HYPERVISOR);
    let given = given.and_then(|given| given.captures(&hypervisor)?[1].parse::<u64>().ok()).unwrap_or(0);
    let seen =
        first(r"Linux is up: .*, (\d+) kB memory").and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0);
    // MemTotal is what the kernel's own code and page array leave.
    let plausible = seen <= given * 1024 && seen >= given * 1024 * 8 / 10;
    checks.add(plausible, format!("Linux: {seen} kB of memory of the {given} MiB that it was given"));
    let rounds = text.matches("rounds of dd, sha256sum").count();
    checks.add(rounds == CPUS, format!("Linux: {rounds} CPUs came through the load"));
    for bad in ["LINUX-TEST FAIL", "Kernel panic", "Oops", "BUG:", "rcu: INFO", "WARNING:"] {
        if let Some(line) = text.lines().find(|line| line.contains(bad)) {
            checks.add(false, format!("Linux: {line}"));
        }
    }
    let interrupts = Interrupts::parse(&text);
    for (what, every_cpu, name) in [
        ("virtual timer", true, "arch_timer"),
        ("PL011", false, "uart-pl011"),
        ("inter-processor interrupts", true, "IPI"),
    ] {
        let counts = interrupts.of(name);
        let enough = counts.len() == CPUS
            && if every_cpu { counts.iter().all(|&n| n > 0) } else { counts.iter().sum::<u64>() > 0 };
        checks.add(enough, format!("Linux: {what} on its CPUs: {counts:?}"));
    }
}

fn check_heartbeats(heartbeats: &[Heartbeat], checks: &mut Checks) {
    let consecutive = heartbeats.windows(2).all(|pair| pair[1].number == pair[0].number + 1);
    let lost = heartbeats.iter().map(|heartbeat| heartbeat.lost).max().unwrap_or(u64::MAX);
    let late = heartbeats.iter().map(|heartbeat| heartbeat.late).max().unwrap_or(0);
    checks.add(consecutive, format!("FreeRTOS: {} heartbeats in a row", heartbeats.len()));
    checks.add(lost == 0, format!("FreeRTOS: {lost} ticks lost, the latest {late} us late"));
}

/// A line of FreeRTOS's monitor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Heartbeat {
    /// Counted from 1.
    pub number: u64,
    /// Ticks that never came.
    pub lost: u64,
    /// How late the latest tick since the last heartbeat was, in microseconds.
    pub late: u64,
}

fn heartbeats(target: &Target, rtos: Source) -> Vec<Heartbeat> {
    parse_heartbeats(&target.text(rtos))
}

/// The heartbeats in what FreeRTOS printed.
#[must_use]
pub fn parse_heartbeats(text: &str) -> Vec<Heartbeat> {
    let Ok(line) = Regex::new(r"(?m)^heartbeat (\d+): ticks \d+, lost (\d+), late max (\d+) us\n") else {
        return Vec::new();
    };
    line.captures_iter(text)
        .filter_map(|found| {
            Some(Heartbeat {
                number: found[1].parse().ok()?,
                lost: found[2].parse().ok()?,
                late: found[3].parse().ok()?,
            })
        })
        .collect()
}

/// The answer to `lateness`, the last one, in what FreeRTOS printed: how late how many of its ticks came.
#[must_use]
pub fn lateness(text: &str) -> String {
    let start = text.rfind("ticks by how late they came:").unwrap_or(text.len());
    let lines = text[start..].lines().filter(|line| line.starts_with("  below") || line.starts_with("max "));
    lines.map(|line| format!("{line}\n")).collect()
}

/// What stood in `/proc/interrupts`.
#[derive(Default, Debug)]
struct Interrupts {
    /// Counts of each CPU by the line's label and description.
    lines: BTreeMap<String, Vec<u64>>,
}

impl Interrupts {
    /// Finds the table in a console's text.
    fn parse(text: &str) -> Self {
        let mut lines = text.lines().skip_while(|line| !line.trim_start().starts_with("CPU0 "));
        let cpus = lines.next().map_or(0, |header| header.split_whitespace().count());
        let entry = |line: &str| {
            let (label, rest) = line.split_once(':')?;
            let mut words = rest.split_whitespace();
            let counts: Vec<_> = words.by_ref().take(cpus).map_while(|word| word.parse().ok()).collect();
            let description = words.collect::<Vec<_>>().join(" ");
            (counts.len() == cpus).then(|| (format!("{} {description}", label.trim()), counts))
        };
        Self { lines: lines.map_while(entry).collect() }
    }

    /// Counts of each CPU, summed over the lines whose label or description contains `name`.
    fn of(&self, name: &str) -> Vec<u64> {
        let mut sums = Vec::new();
        for (_, counts) in self.lines.iter().filter(|(line, _)| line.contains(name)) {
            sums.resize(counts.len(), 0);
            sums.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
        }
        sums
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupts_are_counted() {
        let table = "cpu 2: 9 rounds\n           CPU0       CPU1       CPU2\n \
            11:       1022        870        911     GICv3  27 Level     arch_timer\n \
            13:        377          0          0     GICv3  33 Level     uart-pl011\n\
            IPI0:        11         22         33       Rescheduling interrupts\n\
            IPI1:         1          2          3       Function call interrupts\n\
            Err:          0\n3\n";
        let interrupts = Interrupts::parse(table);
        assert_eq!(interrupts.of("arch_timer"), [1022, 870, 911]);
        assert_eq!(interrupts.of("uart-pl011"), [377, 0, 0]);
        assert_eq!(interrupts.of("IPI"), [12, 24, 36]);
        assert!(interrupts.of("xhci").is_empty());
        assert!(Interrupts::parse("no table").of("IPI").is_empty());
    }

    #[test]
    fn heartbeats_are_read() {
        let text = "hello\nheartbeat 1: ticks 1000, lost 0, late max 12 us\nlateness us: <1:3\n\
                    heartbeat 2: ticks 2000, lost 1, late max 900 us\nheartbeat 3: ti";
        let expected =
            [Heartbeat { number: 1, lost: 0, late: 12 }, Heartbeat { number: 2, lost: 1, late: 900 }];
        assert_eq!(parse_heartbeats(text), expected);
    }
}
