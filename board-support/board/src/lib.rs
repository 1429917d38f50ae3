//! What a device tree cannot say about a board, as plain data.
//!
//! The hypervisor is one image for all boards and learns RAM, CPUs, interrupt controller and console from the firmware's tree. A
//! board needs an entry only for what that tree leaves out.
#![no_std]
#![forbid(unsafe_code)]

pub mod divided;

use divided::{DividedDevice, InterruptEnable};

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
}

impl Board {
    /// The one of `boards` whose tree has this list of `compatible` strings.
    pub fn find<'b, 's>(
        boards: &'b [Self],
        mut compatible: impl Iterator<Item = &'s [u8]>,
    ) -> Option<&'b Self> {
        compatible.find_map(|name| boards.iter().find(|board| board.compatible.as_bytes() == name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOARD: Board = Board {
        name: "one",
        title: "Board one",
        compatible: "vendor,one",
        divided: &[],
        interrupt_enables: &[],
    };

    #[test]
    fn a_board_is_told_by_any_of_its_names() {
        let find =
            |names: &[&'static str]| Board::find(&[BOARD], names.iter().map(|name| name.as_bytes())).copied();
        assert_eq!(find(&["vendor,one-rev2", "vendor,one"]), Some(BOARD));
        assert_eq!(find(&["vendor,two"]), None);
    }
}
