//! The pins that the hypervisor's own console goes over: whoever has them can give them another function, and then nothing is heard of
//! anybody.
//!
//! Which they are, the board's tree says, as far as it knows.

use bulkhead_policy::platform::Platform;
use bulkhead_policy::tree::{Node, Tree};

use super::dependencies::{pin_controller, specifiers};
use super::{Partition, named, warning};
use crate::diagnostic::{Diagnostic, Location};

/// The GPIO controller of a Raspberry Pi 4, and its pins on the header to which the firmware leads the console (BCM2711 ARM
/// Peripherals, 5.3; hyp/docs/raspberry-pi.md).
const RPI4_GPIO: &str = "brcm,bcm2711-gpio";
const RPI4_HEADER: [u32; 2] = [14, 15];
/// The ports that these pins can be connected with: the PL011 and the mini-UART.
const RPI4_PORTS: [&str; 2] = ["serial@7e201000", "serial@7e215040"];

/// The controller of a serial port's pins and, where the tree numbers them, the pins.
fn wires<'t>(port: Node<'t>, board: &'t Tree<'t>) -> Vec<(Node<'t>, Vec<u32>)> {
    let groups = port.property("pinctrl-0").and_then(|pins| pins.u32s());
    let groups = groups.map_or_else(Vec::new, |cells| specifiers(cells, None, board));
    let pins_of =
        |group: Node<'_>| group.property("brcm,pins").and_then(|pins| pins.u32s().map(Vec::from_iter));
    let found: Vec<_> = groups
        .into_iter()
        .map(|(group, _)| (pin_controller(group), pins_of(group).unwrap_or_default()))
        .collect();
    let header = board.nodes().find(|node| node.is_compatible(RPI4_GPIO));
    let header = header.filter(|_| RPI4_PORTS.contains(&port.name()));
    match header {
        // The overlay `disable-bt` leaves the pins to the firmware: it empties the list. Without it the tree has those of Bluetooth.
        Some(gpio) if port.children().next().is_some() || found.iter().all(|(_, pins)| pins.is_empty()) => {
            vec![(gpio, RPI4_HEADER.to_vec())]
        }
        _ => found,
    }
}

/// Path of the controller of the console's pins.
pub fn controller<'t>(platform: &Platform<'_>, board: &'t Tree<'t>) -> Option<&'t str> {
    let port = board.find(platform.uart?.path)?;
    wires(port, board).first().map(|(controller, _)| controller.path())
}

/// A partition has pins of the console that the hypervisor keeps.
pub(super) fn of_console(
    partitions: &[Partition<'_>],
    platform: &Platform<'_>,
    board: &Tree<'_>,
) -> Vec<Diagnostic> {
    let Some(port) = platform.uart.and_then(|uart| board.find(uart.path)) else { return Vec::new() };
    let has =
        |partition: &Partition<'_>| partition.devices.iter().any(|device| device.node.path() == port.path());
    if partitions.iter().any(has) {
        return Vec::new();
    }
    let wires = wires(port, board);
    partitions.iter().filter_map(|partition| taken(partition, port, &wires, board)).collect()
}

fn taken(
    partition: &Partition<'_>,
    port: Node<'_>,
    wires: &[(Node<'_>, Vec<u32>)],
    board: &Tree<'_>,
) -> Option<Diagnostic> {
    let (path, name, port) = (partition.node.path(), partition.plan.name, port.path());
    wires.iter().find_map(|(controller, pins)| {
        let window = partition.plan.devices.iter().find(|window| window.path == controller.path())?;
        let Some((divided, units)) = window.part.and_then(|part| part.units) else {
            let at = named(partition.node, board, &["access", "access-registers"], *controller);
            let message = format!(
                "{name} has {}, which switches the pins of the hypervisor's console: {port}",
                window.path
            );
            return Some(warning("BH0912", at, message));
        };
        let is_given = |pin: &&u32| units.checked_shr(**pin).is_some_and(|units| units & 1 != 0);
        let given: Vec<_> = pins.iter().filter(is_given).collect();
        let first = **given.first()?;
        let mut list = partition.node.property(divided.property)?.u32s()?;
        let entry = list.position(|pin| pin == first)?;
        let plural = if given.len() == 1 { "" } else { "s" };
        let given: Vec<_> = given.iter().map(ToString::to_string).collect();
        let message = format!(
            "{name} has {}{plural} {} of {}, over which the hypervisor's console goes: {port}",
            divided.unit,
            given.join(" and "),
            window.path
        );
        Some(warning("BH0912", Location::entry(path, divided.property, entry), message))
    })
}
