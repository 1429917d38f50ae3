//! Whether a partition can be heard, and whether its kernel is told to speak where it can.
//!
//! Only names whose driver is known are judged, and only those of Linux: what a bare guest makes of its command line is its own
//! business.

use bulkhead_policy::plan::OsType;
use bulkhead_policy::tree::Node;

use super::{Partition, warning};
use crate::diagnostic::{Diagnostic, Location};

/// Parts of names and `compatible` strings of devices through which a partition can say something.
const VOICES: [&str; 12] = [
    "serial", "uart", "pl011", "8250", "16550", "virtio", "ethernet", "can@", "usb", "mailbox", "display",
    "jtag",
];

/// Linux's serial drivers by the names of their consoles, and what the `compatible` of their ports has in it.
const DRIVERS: [(&str, &[&str]); 11] = [
    ("ttyAMA", &["arm,pl011", "arm,sbsa-uart"]),
    ("ttyS", &["8250", "16550", "16450", "16750", "aux-uart", "dw-apb-uart", "-uart"]),
    ("hvc", &["virtio", "jtag", "xen"]),
    ("ttymxc", &["imx"]),
    ("ttyLP", &["lpuart"]),
    ("ttyPS", &["xuartps", "cadence", "cdns"]),
    ("ttyUL", &["uartlite"]),
    ("ttySC", &["sci", "hscif"]),
    ("ttyMSM", &["msm", "geni"]),
    // In `cmdline.txt` of a Raspberry Pi: its firmware puts a name of Linux's in the place of this one.
    ("serial", &[]),
    // A screen.
    (
        "tty",
        &["virtio", "display", "framebuffer", "hdmi", "dpi", "dsi", "lcd", "vc4", "gpu", "drm", "usb", "pci"],
    ),
];

/// What an emulated console is, or a device passed through.
fn is_like(node: Node<'_>, words: &[&str]) -> bool {
    let mut names = node.compatible().map(String::from_utf8_lossy);
    names.any(|name| words.iter().any(|word| name.contains(word)))
}

/// Nothing that it prints would be seen.
pub fn silent(partition: &Partition<'_>) -> Option<Diagnostic> {
    let heard = partition.plan.console.is_some()
        || partition.devices.iter().any(|device| {
            is_like(device.node, &VOICES) || VOICES.iter().any(|word| device.node.name().contains(word))
        });
    (!heard).then(|| {
        let message = format!(
            "{} has no console and no serial port: nothing that it prints can be seen",
            partition.plan.name
        );
        warning("BH0901", Location::node(partition.node.path()), message)
    })
}

/// The command line names a console that the partition lacks.
pub fn bootargs(partition: &Partition<'_>) -> Vec<Diagnostic> {
    let Some(bootargs) = partition.plan.bootargs.filter(|_| partition.plan.os == OsType::Linux) else {
        return Vec::new();
    };
    // What stands behind "--" is for init.
    let words = bootargs.split_whitespace().take_while(|&word| word != "--");
    let consoles: Vec<_> =
        words.clone().filter_map(|word| Some((word, word.strip_prefix("console=")?))).collect();
    let (early, named): (Vec<_>, Vec<_>) =
        consoles.into_iter().partition(|(_, value)| value.contains(",mmio"));
    let mut found = Vec::new();
    let early =
        early.into_iter().chain(words.filter_map(|word| Some((word, word.strip_prefix("earlycon=")?))));
    for (word, value) in early {
        let console = partition.plan.console.map(|console| console.registers.start().raw());
        let help = console.map_or_else(
            || "take the word out, or add console = \"pl011\" for an emulated PL011".to_owned(),
            |address| format!("the emulated PL011 is earlycon=pl011,{address:#x}"),
        );
        found.extend(without_port(partition, value).map(|why| lacks(partition, word, &why, help)));
    }
    // Several may be named so that one command line serves many machines: one that is there is enough.
    let judged: Vec<_> =
        named.into_iter().map(|(word, value)| (word, without_driver(partition, value))).collect();
    if judged.iter().all(|(_, why)| why.is_some())
        && let Some((word, Some(why))) = judged.last()
    {
        let help = match partition.plan.console {
            Some(_) => "the emulated PL011 is console=ttyAMA0",
            None => "add console = \"pl011\" for an emulated PL011, and name it: console=ttyAMA0",
        };
        found.push(lacks(partition, word, why, help.to_owned()));
    }
    found
}

fn lacks(partition: &Partition<'_>, word: &str, why: &str, help: String) -> Diagnostic {
    let message = format!("bootargs say {word}, but {} has {why}", partition.plan.name);
    let at = Location::property(partition.node.path(), "bootargs");
    Diagnostic { help: Some(help), ..warning("BH0902", at, message) }
}

/// What the partition lacks for `console=VALUE`; `None` where it lacks nothing, as far as is known.
fn without_driver(partition: &Partition<'_>, value: &str) -> Option<String> {
    let name = value.split(',').next()?;
    let driver = name.trim_end_matches(|character: char| character.is_ascii_digit());
    let (driver, words) = DRIVERS.iter().find(|(known, _)| *known == driver)?;
    // The emulated PL011 is the first, unless others that were passed through have its number.
    let is_first = name.trim_start_matches("ttyAMA").trim_start_matches('0').is_empty();
    let emulated = *driver == "ttyAMA" && partition.plan.console.is_some() && is_first;
    let is_pl011 = |node| is_like(node, DRIVERS[0].1);
    let passed = partition.devices.iter().map(|device| device.node).any(|node| {
        // "-uart" of the many cousins of the 8250 is not the PL011's.
        is_like(node, words) && (*driver == "ttyAMA" || !is_pl011(node))
    });
    let what = match *driver {
        "ttyAMA" if partition.plan.console.is_some() => "one PL011, ttyAMA0, and no other",
        "ttyAMA" => "no PL011",
        "tty" => "no screen",
        "ttyS" => "no 8250 or mini-UART",
        "hvc" => "no virtio device",
        "serial" => {
            "no console of that name: a Raspberry Pi's firmware puts Linux's name in its place, Bulkhead does not"
        }
        _ => "no serial port of that kind",
    };
    (!emulated && !passed).then(|| what.to_owned())
}

/// What the partition lacks for `earlycon=VALUE`, which names a driver and the address of its registers.
fn without_port(partition: &Partition<'_>, value: &str) -> Option<String> {
    let mut parts = value.split(',');
    let driver = parts.next()?;
    let digits = parts.find_map(|part| part.strip_prefix("0x"))?;
    let address = u64::from_str_radix(digits, 16).ok()?;
    let console = partition.plan.console.map(|console| console.registers.start().raw());
    let is_pl011 = driver == "pl011";
    if is_pl011 && console == Some(address) {
        return None;
    }
    let window = partition
        .plan
        .devices
        .iter()
        .find(|window| address.checked_sub(window.ipa.raw()).is_some_and(|offset| offset < window.size));
    match window {
        Some(window) => {
            let device = partition.devices.iter().find(|device| device.node.path() == window.path)?;
            let pl011 = is_like(device.node, DRIVERS[0].1);
            (is_pl011 && !pl011).then(|| format!("no PL011 at {address:#x}: {} is there", window.path))
        }
        None => Some(match console {
            Some(console) if console == address => {
                format!("a PL011 at {address:#x}, which is nothing for {driver}")
            }
            Some(console) if is_pl011 => {
                format!("no PL011 at {address:#x}: the emulated one is at {console:#x}")
            }
            _ => format!("no serial port at {address:#x}"),
        }),
    }
}
