//! The properties of a manifest: their names, their forms, and reading them.

use alloc::vec::Vec;

use super::rules::Rule;
use super::{At, Findings, MAX_LIST, MAX_RANGES};
use crate::tree::{Node, Property};

/// How a property's value is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Form {
    /// One string.
    String,
    /// A list of strings that name nodes of the board's tree by path or alias.
    Names,
    /// One 32-bit number.
    Number,
    /// A list of 32-bit numbers.
    Numbers,
    /// One 64-bit number.
    Address,
    /// A list of 64-bit numbers.
    Addresses,
}

impl Form {
    /// In words, as they follow "must be".
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::String => "one string, not empty",
            Self::Names => "a list of node paths or aliases of the board's tree",
            Self::Number => "one number",
            Self::Numbers => "a list of numbers, not empty",
            Self::Address => "one 64-bit number, written /bits/ 64 <...>",
            Self::Addresses => "a list of 64-bit numbers, written /bits/ 64 <...>",
        }
    }
}

macro_rules! keys {
    ($($name:ident $text:literal $form:ident,)*) => {
        /// A property of a partition; [`Key::Console`] is one of the root as well.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub enum Key {
            $(#[doc = concat!("`", $text, "`")] $name,)*
        }

        impl Key {
            /// All properties, in the order of the reference.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// How its value is written.
            #[must_use]
            pub fn form(self) -> Form {
                match self {
                    $(Self::$name => Form::$form),*
                }
            }
        }

        /// The names in the order of [`Key::ALL`].
        pub(super) static NAMES: [&str; Key::ALL.len()] = [$($text),*];
    };
}

keys! {
    OsType "os,type" String,
    Cpus "cpus" Numbers,
    Memory "memory" Addresses,
    PhysicalMemory "physical-memory" Addresses,
    Kernel "kernel" String,
    LoadAddress "load-address" Address,
    Entry "entry" Address,
    Ramdisk "ramdisk" String,
    Bootargs "bootargs" String,
    Access "access" Names,
    AccessRegisters "access-registers" Names,
    GpioPins "gpio-pins" Numbers,
    DmaChannels "dma-channels" Numbers,
    Polled "polled" Names,
    UnprotectedDma "unprotected-dma" Names,
    Console "console" String,
    ConsoleAddress "console-address" Address,
    ConsoleInterrupt "console-interrupt" Number,
}

impl Key {
    /// Its name in the manifest.
    #[must_use]
    pub fn name(self) -> &'static str {
        NAMES.get(self as usize).copied().unwrap_or("")
    }
}

/// Each property is known and there once.
pub(super) fn known_properties<'a>(node: Node<'a>, known: &[&str], findings: &mut Findings<'a>) {
    let mut seen = 0_u32;
    for (position, property) in node.properties().enumerate() {
        let at = At { property: At::OTHERS.saturating_add(position as u16), ..At::node(node) };
        match known.iter().position(|&name| name == property.name) {
            _ if findings.is_full() => break,
            None => findings.push_text(Rule::UnknownProperty, at, property.name),
            Some(index) => {
                let bit = 1_u32.wrapping_shl(index as u32);
                if seen & bit != 0 {
                    findings.push(Rule::PropertyTwice, at, &[]);
                }
                seen |= bit;
            }
        }
    }
}

/// Reads the properties of a node. What has another form becomes a finding.
pub(super) struct Reader<'a, 'f> {
    pub(super) node: Node<'a>,
    pub(super) findings: &'f mut Findings<'a>,
}

impl<'a> Reader<'a, '_> {
    /// A finding about a property as a whole.
    pub(super) fn push(&mut self, rule: Rule, key: Key) {
        self.findings.push(rule, At::property(self.node, key), &[]);
    }

    pub(super) fn push_text(&mut self, rule: Rule, key: Key, text: &'a str) {
        self.findings.push_text(rule, At::property(self.node, key), text);
    }

    pub(super) fn push_number(&mut self, rule: Rule, key: Key, number: u64) {
        self.findings.push_number(rule, At::property(self.node, key), number);
    }

    pub(super) fn has(&self, key: Key) -> bool {
        self.node.property(key.name()).is_some()
    }

    /// The value of a property that may be absent; a finding where it has another form.
    fn get<T>(&mut self, key: Key, read: impl FnOnce(Property<'a>) -> Option<T>) -> Option<T> {
        let property = self.node.property(key.name())?;
        let value = read(property);
        if value.is_none() {
            self.push_text(Rule::WrongForm, key, key.form().words());
        }
        value
    }

    /// One string; an empty one is none, except for a command line.
    pub(super) fn string(&mut self, key: Key) -> Option<&'a str> {
        self.get(key, |p| p.string().filter(|string| !string.is_empty() || key == Key::Bootargs))
    }

    /// One of a few strings, which `choices` puts into words.
    pub(super) fn choice<T>(
        &mut self,
        key: Key,
        choices: &'static str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Option<T> {
        let value = read(self.string(key)?);
        if value.is_none() {
            self.push_text(Rule::UnknownValue, key, choices);
        }
        value
    }

    pub(super) fn number(&mut self, key: Key) -> Option<u32> {
        self.get(key, Property::u32)
    }

    pub(super) fn address(&mut self, key: Key) -> Option<u64> {
        self.get(key, Property::u64)
    }

    pub(super) fn addresses(&mut self, key: Key) -> Option<Vec<u64>> {
        // One pair more than there may be shows that there are too many.
        let limit = MAX_RANGES.saturating_add(1).saturating_mul(2);
        self.get(key, |p| Some(p.u64s()?.take(limit).collect()))
    }

    /// A list of numbers.
    pub(super) fn numbers(&mut self, key: Key) -> Vec<u32> {
        let list = self.get(key, |p| {
            let list = p.u32s().filter(|list| list.len() != 0)?;
            Some(list.take(MAX_LIST.saturating_add(1)).collect())
        });
        let list: Vec<_> = list.unwrap_or_default();
        self.limit(key, list.len());
        list
    }

    /// A list of names of devices.
    pub(super) fn names(&mut self, key: Key) -> Vec<&'a str> {
        let list: Option<Vec<_>> = self.get(key, |p| {
            let list: Vec<_> = p.strings().take(MAX_LIST.saturating_add(1)).collect();
            (!list.is_empty()).then_some(list)
        });
        let list = list.unwrap_or_default();
        self.limit(key, list.len());
        list
    }

    /// A list has so many entries.
    fn limit(&mut self, key: Key, entries: usize) {
        if entries > MAX_LIST {
            self.push_number(Rule::TooManyEntries, key, MAX_LIST as u64);
        }
    }

    pub(super) fn require(&mut self, key: Key) {
        if !self.has(key) {
            self.push(Rule::Missing, key);
        }
    }
}
