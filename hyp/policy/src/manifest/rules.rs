//! The rules of a manifest, each with its code and what is said where it is broken.
//!
//! A finding is data: a rule, places and values. So the hypervisor carries one table of texts and little that fills
//! them in, the desk can underline what is meant, and no text can differ between the two. How to mend a fault stands in the
//! rule's page (`hyp/docs/rules.md`), which only the desk has.

use core::fmt::{self, Write};

use crate::addr::{Address, Region};
use crate::irq::IntId;
use crate::tree::{Node, cut};

/// Digits of a rule's code, which are followed by a space and the text.
const CODE: usize = 4;

macro_rules! rules {
    ($($code:literal $name:ident $text:literal,)*) => {
        /// What can be wrong with a manifest. The text is a template: `{0}` to `{2}` are [`Finding::values`] (behind a colon: `x` in
        /// hexadecimal, `s` a number of bytes, `i` an INTID, `q` between quotation marks), `{property}` is where it was found, `{other}` the
        /// path of the other party.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Rule {
            $(#[doc = $text] $name,)*
        }

        impl Rule {
            /// All rules, in the order of their codes.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];
        }

        /// One line for each rule, for the desk: the image has them packed.
        static TEXTS: &str = concat!($($code, " ", $text, "\n"),*);
    };
}

rules! {
    "0010" NotAManifest "this is no manifest: its compatible must be \"bulkhead,manifest-v1\"",
    "0011" UnknownNode "unknown node {0:q}",
    "0012" UnknownProperty "unknown property {0:q}",
    "0013" NoPartitions "there is no node \"partitions\"",
    "0014" NodeTwice "there are two nodes of the name {0:q}",
    "0015" PropertyTwice "{property} is given twice",
    "0016" NoPartition "there is no partition",
    "0017" TooManyPartitions "a manifest holds at most {0} partitions",
    "0018" NameTooLong "the name of a partition has at most {0} characters",
    "0019" NodeInPartition "unknown node {0:q}: a partition has no nodes below it",
    "0020" WrongForm "{property} must be {0}",
    "0021" Missing "{property} is missing",
    "0022" UnknownValue "{property} may be {0}",
    "0023" TooManyEntries "{property} has more than {0} entries",
    "0024" BootargsTooLong "bootargs has more than {0} characters",
    "0025" PayloadNameTooLong "{property} names a file with more than {0} characters",
    "0026" PayloadNameTaken "{property} is {0:q}, a name that the bundle uses itself",
    "0101" NoSuchCpu "there is no cpu {0}; the board has cpus 0 to {1}",
    "0102" CpuTwice "cpus lists cpu {0} twice",
    "0103" CpuOwned "cpu {0} is already given to {other}",
    "0104" CpuNotStartable "cpu {0} cannot be started: the board's tree names no method that Bulkhead knows",
    "0105" CpuWithoutPsci "cpu {0} is started by PSCI, but the board's tree has no PSCI firmware",
    "0106" TooManyCpus "a partition has at most {0} CPUs on this board",
    "0201" MemoryNotPairs "memory must be pairs of an address and a size, written /bits/ 64 <...>",
    "0202" MemoryUnaligned "memory {0:x} of size {1:x} is not in multiples of 4 KiB (0x1000)",
    "0203" MemoryEmpty "memory at {0:x} has no size",
    "0204" MemoryBeyond "memory at {0:x} of size {1:x} goes beyond {2} address bits",
    "0205" TooManyRanges "memory has more than {0} ranges",
    "0206" PhysicalCount "physical-memory must have an address for each range of memory: {1}, not {0}",
    "0207" PhysicalUnaligned "physical-memory {0:x} is no multiple of 4 KiB (0x1000)",
    "0208" PhysicalBeyond "{property} {0:x} of {1:s} runs past the end of the address space",
    "0209" NotRam "{property} {0} is not RAM",
    "0210" OverPartition "{property} {0} overlaps {1}, which belongs to {other}",
    "0211" OverHypervisor "{property} {0} overlaps {1}, which belongs to the hypervisor",
    "0212" OverBundle "{property} {0} overlaps {1}, which belongs to the bundle",
    "0213" OverFirmware "{property} {0} overlaps {1}, which belongs to {2}",
    "0214" NoRoom "memory of {0:s} does not fit: {1:s} of RAM are free, {2:s} of them in one piece",
    "0215" MemoryOverMemory "memory {0} overlaps memory {1}",
    "0216" MemoryOverDevice "memory {0} overlaps {2} at {1}",
    "0217" MemoryOverGic "memory {0} overlaps the interrupt controller's {2} at {1}",
    "0218" MemoryOverConsole "memory {0} overlaps the emulated console at {1}",
    "0219" ConsoleOverDevice "the emulated console at {0} overlaps {2} at {1}",
    "0220" ConsoleOverGic "the emulated console at {0} overlaps the interrupt controller's {2} at {1}",
    "0221" DeviceOverGic "{2} has registers at {0}, where the guest has its interrupt controller, at {1}",
    "0222" TooManyTables "memory takes {0} stage-2 tables of 4 KiB, and {1} are left for it",
    "0223" GicOverGic "the redistributors at {0} overlap the interrupt controller's {2} at {1}",
    "0301" PayloadMissing "{property} {0:q} is not in the bundle",
    "0302" PayloadEmpty "{property} {0:q} is empty",
    "0303" ImageBigEndian "kernel {0:q} is a big-endian Image",
    "0304" ImageTextOffset "kernel {0:q} has a text_offset that is not below 2 MiB",
    "0305" ElfCut "kernel {0:q} is an ELF file whose headers are cut off",
    "0306" ElfClass "kernel {0:q} is no 64-bit little-endian ELF file",
    "0307" ElfMachine "kernel {0:q} is no AArch64 ELF executable",
    "0308" ElfSegmentOutside "kernel {0:q} has an ELF segment that lies outside of the file",
    "0309" ElfSegmentBeyond "kernel {0:q} has an ELF segment that runs past the end of the address space",
    "0310" ElfSegmentsOverlap "kernel {0:q} has two ELF segments that overlap",
    "0311" ElfTooManySegments "kernel {0:q} has more than 16 ELF segments",
    "0312" ElfNothing "kernel {0:q} is an ELF file with nothing to load",
    "0313" ElfEntry "kernel {0:q} has an ELF entry that lies in none of its segments",
    "0314" LinuxCompressed "kernel {0:q} is compressed with gzip",
    "0315" NotLinux "kernel {0:q} is no arm64 Image, which os,type = \"linux\" needs",
    "0316" KernelDoesNotFit "kernel {0:q} does not fit: it needs {1:s} at {2:x}",
    "0317" LoadAddressUnsuitable "load-address {1:x} does not suit kernel {0:q}, which wants to be {2:x} bytes above a multiple of 2 MiB",
    "0318" LoadAddressUseless "load-address has no use: kernel {0:q} is ELF and says where it goes",
    "0319" EntryOutside "entry {1:x} lies outside of kernel {0:q}",
    "0320" EntryUnaligned "entry {1:x} is no multiple of 4, as every instruction's address is",
    "0321" NoRoomForTree "the device tree of {0:s} does not fit beside the kernel in memory",
    "0322" NoRoomForRamdisk "the ramdisk of {0:s} does not fit beside the kernel in memory",
    "0401" NoSuchPath "{property} names {0:q}, but the board's tree has no such node",
    "0402" NoSuchAlias "{property} names {0:q}, but the board's tree has no such alias",
    "0403" DeviceOwned "{0} is already given to {other}",
    "0404" DeviceTwice "{0} is named twice",
    "0405" DeviceBelowOwned "{0} belongs together with {1}, which is given to {other}",
    "0406" DeviceIncluded "{0} and {1} are both named, and the upper one includes the other",
    "0407" DeviceKept "{0} is given to nobody: {1}",
    "0408" DmaMaster "{0} is a DMA master ({1}), and the board has no SMMU to confine it: it could reach all memory",
    "0409" NoDevice "{0} is no device",
    "0410" CpuAsDevice "{0} is no device; CPUs are named in cpus",
    "0411" MemoryAsDevice "{0} is no device; memory is named in memory",
    "0412" EveryonesOwn "{0} is something of which every partition gets its own",
    "0413" Shadow "{0} shows the registers of another device",
    "0414" Disabled "{0} is disabled on this board",
    "0415" Bus "{0} is a bus",
    "0416" NoRegisters "{0} has no registers",
    "0417" Unreachable "{0} has registers that CPUs do not reach at addresses below 2^{1}",
    "0418" RegistersInRam "{0} has registers at {1} in the RAM at {2}",
    "0419" PageOfOther "{0} shares the page at {1} with {2}, which is given to {other}",
    "0420" PageOfNobody "{0} shares the page at {1} with {2}, which nobody is given",
    "0421" PageOfHypervisor "{0} shares the page at {1} with {2}, which the hypervisor keeps",
    "0501" InterruptUnreadable "{0} has interrupts that cannot be read from the board's tree",
    "0502" OtherController "{0} interrupts through {1}, which the partition does not have",
    "0503" NoSpi "{0} has an interrupt that is no SPI, so no one partition can own it",
    "0504" InterruptShared "{0:i} is shared with a device of {other}",
    "0505" InterruptOfHypervisor "{0:i} is shared with {1}, which the hypervisor keeps",
    "0506" NoTrigger "{0} has an interrupt with trigger {1}; for an SPI the GIC has 1 (rising edge) and 4 (high level)",
    "0507" ConsoleNoSpi "console-interrupt {0} is no SPI of this board; it has 0 to {1}",
    "0508" ConsoleInterruptTaken "the emulated console's {0:i} belongs to a device of the partition",
    "0509" NoSuchSpi "{0} has {1:i}, but the board's GIC has SPIs 0 to {2}",
    "0601" NothingToDivide "Bulkhead knows nothing on this board that {property} could divide",
    "0602" NoSuchUnit "{2} has no {0} {1} to give",
    "0603" UnitOwned "{0} {1} of {2} is already given to {other}",
    "0604" SwitchesClocks "{0} switches the clocks of its neighbours",
    "0605" NotWords "{0} has registers that are not whole words in one page",
    "0606" NotPollable "{0} cannot be polled: Bulkhead does not know how to keep its interrupt from rising",
    "0607" PolledNothing "polled names {0:q}, of which the partition has no part",
    "0608" RegistersOfOther "{0} shares the registers at {1} with {2}, which is given to {other}",
    "0609" RegistersOfNobody "{0} shares the registers at {1} with {2}, which nobody is given",
    "0610" RegistersOfHypervisor "{0} shares the registers at {1} with {2}, which the hypervisor keeps",
    "0611" PartAndWhole "the partition has a part of {2}, but also the whole page at {1}",
    "0701" UnprotectedNoAccess "unprotected-dma names {0}, which is not in access",
    "0702" OutOfReach "{0} does not reach memory {1}; what it reaches ends at {2:x}",
    "0703" NotIdentity "physical-memory {0:x} differs from memory {1:x}, but unprotected-dma needs them the same",
    "0801" NoSerialPort "console is {0}, which is no serial port that the hypervisor knows",
    "0802" ConsoleDisabled "console is {0}, which is disabled on this board",
    "0803" ConsoleUseless "{property} has no use without console = \"pl011\"",
    "0804" NothingToImitate "the board has no PL011 to imitate, so {0} is needed",
    "0805" ConsoleUnaligned "console-address {0:x} is no multiple of 4 KiB (0x1000) below {1:x}",
    "0806" ConsoleGivenAway "{0} carries the console of {other}, so the hypervisor keeps it",
}

// `PAIRS` and `PACKED`, which `build.rs` makes of the rows above.
include!(concat!(env!("OUT_DIR"), "/packed.rs"));

/// A line of [`PACKED`], unpacked.
type Line = heapless::Vec<u8, LONGEST>;

/// Adds what a packed byte stands for: itself, or a pair of such bytes.
fn unpack(byte: u8, line: &mut Line) {
    match byte.checked_sub(FIRST_PAIR).and_then(|pair| PAIRS.get(usize::from(pair))) {
        Some(pair) => pair.iter().for_each(|&byte| unpack(byte, line)),
        // There is room for the longest.
        None => drop(line.push(byte)),
    }
}

impl Rule {
    /// Its code, four digits: it never changes its meaning.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.line().get(..CODE).unwrap_or("")
    }

    /// Its text.
    #[must_use]
    pub fn template(self) -> &'static str {
        self.line().get(CODE.saturating_add(1)..).unwrap_or("")
    }

    fn line(self) -> &'static str {
        TEXTS.lines().nth(self as usize).unwrap_or("")
    }

    /// Its code and its text.
    fn unpack(self) -> Line {
        let mut line = Line::new();
        let packed = PACKED.split(|&byte| byte == b'\n').nth(self as usize).unwrap_or(&[]);
        packed.iter().for_each(|&byte| unpack(byte, &mut line));
        line
    }
}

/// A place in the manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place<'a> {
    /// The node.
    pub node: Node<'a>,
    /// Its property; empty for the node itself. A property that is missing is named, too.
    pub property: &'a str,
    /// Which string or number of the property's value, from 0.
    pub entry: Option<u16>,
}

/// Something that a text names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Value<'a> {
    /// A number, an address, a size in bytes or an INTID.
    Number(u64),
    /// The first and the last address of a range.
    Range(u64, u64),
    /// A path, a name or words.
    Text(&'a str),
}

impl<A: Address> From<Region<A>> for Value<'_> {
    fn from(region: Region<A>) -> Self {
        Self::Range(region.start().raw(), region.last().raw())
    }
}

/// A number of bytes in words.
fn write_size(f: &mut fmt::Formatter<'_>, size: u64) -> fmt::Result {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    match size {
        size if size >= MIB && size % MIB == 0 => write!(f, "{} MiB", size / MIB),
        size if size >= 16 * MIB => write!(f, "{} MiB and {} bytes", size / MIB, size % MIB),
        size if size >= KIB && size % KIB == 0 => write!(f, "{} KiB", size / KIB),
        size => write!(f, "{size} bytes"),
    }
}

/// Text with what no terminal should get replaced.
fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    text.chars().try_for_each(|c| f.write_char(if c.is_control() { '?' } else { c }))
}

impl Value<'_> {
    /// Shows it as a template asks.
    fn write(self, f: &mut fmt::Formatter<'_>, form: &str) -> fmt::Result {
        match (self, form) {
            (Self::Number(number), "x") => write!(f, "{number:#x}"),
            (Self::Number(number), "s") => write_size(f, number),
            (Self::Number(number), "i") => {
                IntId::new(number as u32).map_or(Ok(()), |intid| fmt::Display::fmt(&intid, f))
            }
            (Self::Number(number), _) => write!(f, "{number}"),
            (Self::Range(first, last), _) => write!(f, "{first:#x}..={last:#x}"),
            (Self::Text(text), "q") => {
                f.write_char('"')?;
                write_text(f, text)?;
                f.write_char('"')
            }
            (Self::Text(text), _) => write_text(f, text),
        }
    }
}

/// One fault of a manifest.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Finding<'a> {
    /// The rule that is broken.
    pub rule: Rule,
    /// Where.
    pub at: Place<'a>,
    /// Where the manifest names the other party, if there is one.
    pub other: Option<Place<'a>>,
    /// What the rule's text names.
    pub values: [Value<'a>; 3],
}

impl Finding<'_> {
    /// The rule's text, filled in.
    pub fn message(&self) -> impl fmt::Display + '_ {
        fmt::from_fn(|f| self.write(f, false))
    }

    /// Writes the message, with code and path before it if asked to.
    fn write(&self, f: &mut fmt::Formatter<'_>, whole: bool) -> fmt::Result {
        let line = self.rule.unpack();
        let (code, mut rest) = cut(core::str::from_utf8(&line).unwrap_or(""), b' ');
        if whole {
            write!(f, "BH{code}: {}: ", self.at.node.path())?;
        }
        while !rest.is_empty() {
            let (text, field) = cut(rest, b'{');
            f.write_str(text)?;
            let (field, after) = cut(field, b'}');
            rest = after;
            match field.as_bytes() {
                [] => {}
                [b'p', ..] => write_text(f, self.at.property)?,
                [b'o', ..] => f.write_str(self.other.map_or("", |other| other.node.path()))?,
                [digit, ..] => {
                    let value = self.values.get(usize::from(digit.wrapping_sub(b'0')));
                    let form = field.get(2..).unwrap_or("");
                    value.map_or(Ok(()), |value| value.write(f, form))?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Display for Finding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packed_texts_are_the_texts() {
        assert_eq!(TEXTS.lines().count(), Rule::ALL.len());
        for (line, rule) in TEXTS.lines().zip(Rule::ALL) {
            assert_eq!(rule.unpack(), line.as_bytes());
        }
        assert_eq!(PACKED.iter().filter(|&&byte| byte == b'\n').count(), Rule::ALL.len());
    }
}
