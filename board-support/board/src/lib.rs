//! What a device tree cannot say about a board, as plain data.
//!
//! The hypervisor is one image for all boards and learns RAM, CPUs, interrupt controller and console from the firmware's tree. A
//! board needs an entry only for what that tree leaves out.
#![no_std]
#![forbid(unsafe_code)]

pub mod devices;
pub mod divided;
pub mod power;

use devices::{Class, Clock, Devices};
use divided::{DividedDevice, InterruptEnable};
use power::PowerController;

/// A board that Bulkhead is known to run on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Board {
    /// Its name in commands and messages.
    pub name: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// The string among the root's `compatible` that tells it.
    pub compatible: &'static str,
    /// Devices whose units can go to different partitions.
    pub divided: &'static [DividedDevice],
    /// How devices that share an interrupt line are kept from raising it.
    pub interrupt_enables: &'static [InterruptEnable],
    /// What its devices can do to others; empty where only the tree is asked.
    pub devices: &'static [Devices],
    /// Its clocks, as far as devices need them that a partition may have.
    pub clocks: &'static [Clock],
    /// `compatible` of a device, and a property without value that its node needs in a guest's tree because what
    /// it refers to on the board (a regulator) stays behind.
    pub added: &'static [(&'static str, &'static str)],
    /// What turns it off where no PSCI firmware does.
    pub power: Option<PowerController>,
    /// Physical address of a PL011 that firmware leaves ready to send. Characters that tell how far the boot came go there before
    /// the tree is understood.
    pub early_pl011: Option<u64>,
    /// List registers of its GIC: so many interrupts a CPU keeps ready for its guest.
    pub list_registers: u8,
    /// How many SPIs its GIC has.
    pub spis: u32,
}

impl Board {
    /// The one of `boards` whose tree has this list of `compatible` strings.
    pub fn find<'b, 's>(
        boards: &'b [Self],
        mut compatible: impl Iterator<Item = &'s [u8]>,
    ) -> Option<&'b Self> {
        compatible.find_map(|name| boards.iter().find(|board| board.compatible.as_bytes() == name))
    }

    /// What a device with this list of `compatible` strings can do; the first that is known decides. `None` for one that
    /// is not known.
    pub fn class<'s>(&self, mut compatible: impl Iterator<Item = &'s [u8]>) -> Option<Class> {
        compatible.find_map(|name| {
            let listed = |devices: &&Devices| {
                devices.compatible.as_bytes().split(|&byte| byte == b' ').any(|known| known == name)
            };
            self.devices.iter().find(listed).map(|devices| devices.class)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use devices::ALL_MEMORY;

    const BOARD: Board = Board {
        name: "one",
        title: "Board one",
        compatible: "vendor,one",
        divided: &[],
        interrupt_enables: &[],
        devices: &[
            Devices { compatible: "vendor,a vendor,ab", class: Class::Plain },
            Devices { compatible: "vendor,dma", class: Class::Master(ALL_MEMORY) },
        ],
        clocks: &[],
        added: &[],
        power: None,
        early_pl011: None,
        list_registers: 4,
        spis: 32,
    };

    #[test]
    fn the_first_name_that_is_known_decides() {
        let class = |names: &[&'static str]| BOARD.class(names.iter().map(|name| name.as_bytes()));
        assert_eq!(class(&["vendor,new", "vendor,dma", "vendor,a"]), Some(Class::Master(ALL_MEMORY)));
        assert_eq!(class(&["vendor,ab"]), Some(Class::Plain));
        assert_eq!((class(&["vendor,b"]), class(&["vendor,a vendor,ab"]), class(&[])), (None, None, None));
    }

    #[test]
    fn a_board_is_told_by_any_of_its_names() {
        let find =
            |names: &[&'static str]| Board::find(&[BOARD], names.iter().map(|name| name.as_bytes())).copied();
        assert_eq!(find(&["vendor,one-rev2", "vendor,one"]), Some(BOARD));
        assert_eq!(find(&["vendor,two"]), None);
    }
}
