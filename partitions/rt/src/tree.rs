//! As much of a device tree (Devicetree Specification 0.4, chapter 5) as a guest needs to find its way.
//!
//! A library would do it, too, but the benchmark counts what it takes to load the guest, and this is a tenth of the size.

use heapless::String;

use crate::machine::{Gic, Machine, QEMU_VIRT};

/// A piece of the structure block.
enum Token<'t> {
    Begin { name: &'t [u8] },
    End,
    Property { name: &'t [u8], value: &'t [u8] },
}

/// The structure block from `at` on.
struct Tokens<'t> {
    blob: &'t [u8],
    at: usize,
    strings: usize,
}

/// The big-endian word at `at`.
fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Two such words as one number.
fn pair(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// The string that begins at `at`, without its end.
fn string(bytes: &[u8], at: usize) -> Option<&[u8]> {
    bytes.get(at..)?.split(|&byte| byte == 0).next()
}

impl<'t> Tokens<'t> {
    fn new(blob: &'t [u8]) -> Option<Self> {
        Some(Self { blob, at: word(blob, 8)? as usize, strings: word(blob, 12)? as usize })
    }

    fn word(&mut self) -> Option<u32> {
        let value = word(self.blob, self.at)?;
        self.at += 4;
        Some(value)
    }
}

impl<'t> Iterator for Tokens<'t> {
    type Item = Token<'t>;

    fn next(&mut self) -> Option<Token<'t>> {
        loop {
            match self.word()? {
                1 => {
                    let name = string(self.blob, self.at)?;
                    self.at = (self.at + name.len() + 1).next_multiple_of(4);
                    return Some(Token::Begin { name });
                }
                2 => return Some(Token::End),
                3 => {
                    let size = self.word()? as usize;
                    let name = string(self.blob, self.strings + self.word()? as usize)?;
                    let value = self.blob.get(self.at..)?.get(..size)?;
                    self.at = (self.at + size).next_multiple_of(4);
                    return Some(Token::Property { name, value });
                }
                4 => {}
                _ => return None,
            }
        }
    }
}

/// A node below the root, as far as it was read.
#[derive(Clone, Copy, Default)]
struct Node<'t> {
    name: &'t [u8],
    compatible: &'t [u8],
    reg: &'t [u8],
    interrupts: &'t [u8],
}

impl Node<'_> {
    fn is(&self, wanted: &[u8]) -> bool {
        self.compatible.split(|&byte| byte == 0).any(|name| name == wanted)
    }

    /// Address of the frame at `index`: two cells each for it and its size.
    fn frame(&self, index: usize) -> Option<u64> {
        pair(self.reg, 16 * index)
    }

    /// INTID of the first interrupt where that is an SPI (Linux binding `arm,gic`).
    fn spi(&self) -> Option<u32> {
        let [kind, number] = [0, 4].map(|at| word(self.interrupts, at));
        (kind? == 0).then_some(number?.wrapping_add(32))
    }
}

/// What a tree says about the machine. Devices stand below the root, on QEMU `virt` and in a partition. The PL011 is the one
/// that `/chosen` names, or any.
pub fn describe(blob: &[u8]) -> Option<Machine> {
    let mut machine = QEMU_VIRT;
    let stdout = read(blob, &mut machine, None)?;
    read(blob, &mut machine, Some(stdout));
    Some(machine)
}

/// Goes through the tree and returns the name of the console's node; notes a PL011 where `console` is its name, or empty.
fn read<'t>(blob: &'t [u8], machine: &mut Machine, console: Option<&[u8]>) -> Option<&'t [u8]> {
    let mut stdout: &[u8] = &[];
    let mut depth = 0;
    let mut node = Node::default();
    for token in Tokens::new(blob)? {
        match token {
            Token::Begin { name } => {
                depth += 1;
                if depth == 2 {
                    node = Node { name, ..Node::default() };
                }
            }
            Token::End => {
                if depth == 2 {
                    note(node, machine, console);
                }
                depth -= 1;
            }
            Token::Property { name, value } if depth == 2 => match name {
                b"compatible" => node.compatible = value,
                b"reg" => node.reg = value,
                b"interrupts" => node.interrupts = value,
                b"stdout-path" if node.name == b"chosen" => {
                    let path = value.strip_prefix(b"/").unwrap_or_default();
                    stdout = path.split(|&byte| byte == 0 || byte == b':').next().unwrap_or_default();
                }
                b"bootargs" if node.name == b"chosen" => {
                    let text = core::str::from_utf8(value.strip_suffix(b"\0").unwrap_or(value));
                    machine.bootargs =
                        text.ok().and_then(|text| String::try_from(text).ok()).unwrap_or_default();
                }
                _ => {}
            },
            Token::Property { .. } => {}
        }
    }
    Some(stdout)
}

fn note(node: Node<'_>, machine: &mut Machine, console: Option<&[u8]>) {
    let Some(first) = node.frame(0) else { return };
    let second = node.frame(1);
    if node.is(b"arm,gic-v3") {
        machine.distributor = first;
        machine.gic = second.map_or(machine.gic, |redistributors| Gic::V3 { redistributors });
    } else if node.is(b"arm,cortex-a15-gic") || node.is(b"arm,gic-400") {
        machine.distributor = first;
        machine.gic = second.map_or(machine.gic, |cpu_interface| Gic::V2 { cpu_interface });
    } else if node.is(b"arm,pl011") && console.is_some_and(|name| name.is_empty() || name == node.name) {
        machine.uart = first;
        machine.uart_intid = node.spi().unwrap_or(machine.uart_intid);
    }
}
