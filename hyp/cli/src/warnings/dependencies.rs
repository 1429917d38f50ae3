//! What devices need besides their registers: clocks, supplies, pins, power and resets that others depend on, too.
//!
//! A wall between two partitions is worth little where one can stop the clock of the other's device. What nobody owns stays as
//! the firmware set it, which is fine for one partition; for two it is one thing whose failure stops both. A fixed clock or supply is
//! nobody's to change and counts for nothing.

use std::collections::BTreeSet;

use bulkhead_policy::tree::{Node, Tree};

use super::{Device, Partition, warning};
use crate::diagnostic::Diagnostic;

/// The most that one device is taken to depend on: a tree may have any content.
const MAX_NEEDS: usize = 1000;
/// The most cells of a specifier.
const MAX_CELLS: u32 = 8;

/// What kind of thing is depended on.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Kind {
    Clock,
    Regulator,
    Pins,
    Power,
    Reset,
}

impl Kind {
    const fn code(self) -> &'static str {
        match self {
            Self::Clock => "BH0903",
            Self::Regulator => "BH0904",
            Self::Pins => "BH0905",
            Self::Power => "BH0906",
            Self::Reset => "BH0907",
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Clock => "clock",
            Self::Regulator => "regulator",
            Self::Pins => "pin controller",
            Self::Power => "power domain",
            Self::Reset => "reset",
        }
    }

    /// What the one who has the provider can do.
    const fn harm(self) -> &'static str {
        match self {
            Self::Clock => "change or stop it",
            Self::Regulator | Self::Power => "switch it off",
            Self::Pins => "take the pins away",
            Self::Reset => "reset the device",
        }
    }
}

/// One thing that a device depends on.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Need<'a> {
    kind: Kind,
    /// Path of the node that provides it.
    provider: &'a str,
    /// Which of the provider's it is: the cells behind the phandle.
    unit: Vec<u32>,
}

impl Need<'_> {
    fn name(&self) -> String {
        let (noun, provider) = (self.kind.noun(), self.provider);
        let unit: Vec<_> = self.unit.iter().map(ToString::to_string).collect();
        if unit.is_empty() {
            format!("{noun} {provider}")
        } else {
            format!("{noun} {} of {provider}", unit.join(" "))
        }
    }
}

/// Warnings of what devices of two partitions depend on, or one partition's devices and another has.
pub fn shared(partitions: &[Partition<'_>], board: &Tree<'_>) -> Vec<Diagnostic> {
    let needs: Vec<Vec<_>> = partitions
        .iter()
        .map(|partition| partition.devices.iter().map(|device| (device, needs(device.node, board))).collect())
        .collect();
    let mut found = Vec::new();
    // One warning for two partitions and a provider, however many of their devices and its units are concerned.
    let mut told = BTreeSet::new();
    for (index, partition) in partitions.iter().enumerate() {
        for (device, need) in
            needs[index].iter().flat_map(|(device, needs)| needs.iter().map(move |need| (device, need)))
        {
            match owner(partitions, board, need.provider) {
                Some((owner, _)) if owner == index => {}
                Some((owner, provider)) => {
                    if told.insert((need.kind, need.provider, owner, index)) {
                        found.push(depends_on_owned(device, need, &partitions[owner], provider));
                    }
                }
                None => {
                    let other = needs[..index].iter().enumerate().find_map(|(earlier, devices)| {
                        let other = devices.iter().find(|(_, theirs)| theirs.contains(need))?;
                        Some((earlier, other.0))
                    });
                    if let Some((earlier, other)) = other
                        && told.insert((need.kind, need.provider, earlier, index))
                    {
                        found.push(depends_like(device, partition, need, other, &partitions[earlier]));
                    }
                }
            }
        }
    }
    found
}

/// The partition that has a node or one above it, and as which of its devices.
fn owner<'p, 'a>(
    partitions: &'p [Partition<'a>],
    board: &Tree<'_>,
    provider: &str,
) -> Option<(usize, &'p Device<'a>)> {
    let provider = board.find(provider)?;
    partitions.iter().enumerate().find_map(|(index, partition)| {
        let mut whole = partition.devices.iter().filter(|device| device.whole);
        // Of what is divided, each has only its own units.
        Some((index, whole.find(|device| is_above(device.node, provider))?))
    })
}

/// Whether `node` is the upper one or lies below it; the two may come from two readings of one tree.
fn is_above(upper: Node<'_>, node: Node<'_>) -> bool {
    std::iter::successors(Some(node), |node| node.parent()).any(|node| node.path() == upper.path())
}

fn depends_on_owned(
    device: &Device<'_>,
    need: &Need<'_>,
    owner: &Partition<'_>,
    provider: &Device<'_>,
) -> Diagnostic {
    let (path, name, owner, harm) = (device.node.path(), need.name(), owner.plan.name, need.kind.harm());
    let message = format!("{path} depends on {name}, which partition {owner} has: it can {harm}");
    Diagnostic {
        other: Some((provider.at.clone(), format!("partition {owner} has it"))),
        help: Some(format!("give {path} to partition {owner} too, or {} to nobody", need.provider)),
        ..warning(need.kind.code(), device.at.clone(), message)
    }
}

fn depends_like(
    device: &Device<'_>,
    partition: &Partition<'_>,
    need: &Need<'_>,
    other: &Device<'_>,
    other_owner: &Partition<'_>,
) -> Diagnostic {
    let (path, name, theirs, others) =
        (device.node.path(), need.name(), other.node.path(), other_owner.plan.name);
    let message = format!(
        "{path} of partition {} depends on {name}, and so does {theirs} of partition {others}",
        partition.plan.name
    );
    Diagnostic {
        other: Some((other.at.clone(), format!("depends on the same {}", need.kind.noun()))),
        notes: vec![format!("no partition has {}: it stays as the firmware set it", need.provider)],
        ..warning(need.kind.code(), device.at.clone(), message)
    }
}

/// All that a device depends on: by its own node, those below it and the buses above, and what that depends on in turn.
fn needs<'a>(device: Node<'a>, board: &'a Tree<'a>) -> BTreeSet<Need<'a>> {
    let below = device.subtree().filter(|&node| node == device || node.is_enabled());
    let above = std::iter::successors(device.parent(), |node| node.parent());
    let mut open: Vec<_> = below.chain(above).flat_map(|node| references(node, board)).collect();
    let mut seen = BTreeSet::new();
    while let Some((kind, provider, unit)) = open.pop() {
        let need = Need { kind, provider: provider.path(), unit };
        if device.is_above(provider) || seen.len() == MAX_NEEDS || seen.contains(&need) {
            continue;
        }
        let single = need.unit.is_empty();
        seen.insert(need);
        let inputs: Vec<_> = references(provider, board).filter(|(input, ..)| *input == kind).collect();
        // Which of several clocks feeds which of several outputs, the tree does not say.
        if kind != Kind::Clock || single || inputs.len() == 1 {
            open.extend(inputs);
        }
    }
    seen.retain(|need| board.find(need.provider).is_some_and(|provider| !is_constant(provider)));
    seen
}

/// Whether nobody can change what a node provides, what feeds it aside.
fn is_constant(provider: Node<'_>) -> bool {
    let is_switched = ["gpio", "gpios", "enable-gpios"].iter().any(|name| provider.property(name).is_some());
    let clock = provider.is_compatible("fixed-clock") || provider.is_compatible("fixed-factor-clock");
    clock || (provider.is_compatible("regulator-fixed") && !is_switched)
}

/// What a node's properties refer to: the kind, the node that provides it, which of its units.
fn references<'a>(
    node: Node<'a>,
    board: &'a Tree<'a>,
) -> impl Iterator<Item = (Kind, Node<'a>, Vec<u32>)> + 'a {
    node.properties().flat_map(move |property| {
        let (kind, count) = match property.name {
            "clocks" => (Kind::Clock, Some("#clock-cells")),
            "power-domains" => (Kind::Power, Some("#power-domain-cells")),
            "resets" => (Kind::Reset, Some("#reset-cells")),
            name if name.ends_with("-supply") => (Kind::Regulator, None),
            name if is_pin_state(name) => (Kind::Pins, None),
            _ => return Vec::new(),
        };
        let Some(cells) = property.u32s() else { return Vec::new() };
        let providers = specifiers(cells, count, board);
        let found = providers.into_iter().map(|(provider, unit)| match kind {
            Kind::Pins => (kind, pin_controller(provider), unit),
            _ => (kind, provider, unit),
        });
        found.collect()
    })
}

/// `pinctrl-0` and so on.
fn is_pin_state(name: &str) -> bool {
    name.strip_prefix("pinctrl-").is_some_and(|state| state.parse::<u32>().is_ok())
}

/// The node that a group of pins belongs to: the nearest one above that is a device.
pub(super) fn pin_controller(group: Node<'_>) -> Node<'_> {
    let mut above = std::iter::successors(Some(group), |node| node.parent());
    above.find(|node| node.property("compatible").is_some()).unwrap_or(group)
}

/// A list of phandles, each with as many cells behind it as the node that it names says in `count`. Ends where it cannot be
/// understood; a phandle of 0 stands for nothing.
pub(super) fn specifiers<'a>(
    mut cells: impl Iterator<Item = u32>,
    count: Option<&str>,
    board: &'a Tree<'a>,
) -> Vec<(Node<'a>, Vec<u32>)> {
    let mut found = Vec::new();
    while let Some(phandle) = cells.next() {
        if phandle == 0 {
            continue;
        }
        let Some(provider) = board.by_phandle(phandle) else { break };
        let wanted = match count {
            Some(count) => provider.property(count).and_then(|property| property.u32()),
            None => Some(0),
        };
        let Some(wanted) = wanted.filter(|&wanted| wanted <= MAX_CELLS) else { break };
        let unit: Vec<_> = cells.by_ref().take(wanted as usize).collect();
        if unit.len() < wanted as usize {
            break;
        }
        found.push((provider, unit));
        if found.len() == MAX_NEEDS {
            break;
        }
    }
    found
}
