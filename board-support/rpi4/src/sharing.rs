//! Which devices of the BCM2711 share a 4 KiB page of registers or an interrupt line.
//!
//! The checker finds this in the tree. The facts stand here as read in the BCM2711 ARM Peripherals document (chapters 1.2 and 6)
//! and Linux's `bcm2711.dtsi`, and a test holds the tree that a board hands over against them: a tree that forgets one of a group would
//! let a split pass that hardware cannot keep. They take no place in the image.
//!
//! What no tree shows: the page of SPI 0 ends with PACTL_CS (0x7e204e00), which says which UART, SPI and I2C controller interrupts;
//! that of the DMA channels holds the interrupt status of all, and channels 11 to 14 with their 40 address bits; that of the mailboxes
//! the older interrupt controller and the ARM timer.

/// Devices that share something, by the names of their nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Group {
    /// Number of the SPI, or address of the page as the CPUs see it.
    pub at: u64,
    /// Who shares it.
    pub members: &'static [&'static str],
}

/// Pages of 4 KiB that hold registers of more than one device.
pub const PAGES: [Group; 11] = [
    Group { at: 0xfe00_b000, members: &["mailbox@7e00b840", "mailbox@7e00b880"] },
    Group { at: 0xfe20_1000, members: &UARTS },
    Group { at: 0xfe20_4000, members: &SPIS },
    Group {
        at: 0xfe20_5000,
        members: &["i2c@7e205000", "i2c@7e205600", "i2c@7e205800", "i2c@7e205a00", "i2c@7e205c00"],
    },
    Group { at: 0xfe20_c000, members: &["pwm@7e20c000", "pwm@7e20c800"] },
    Group { at: 0xfe21_5000, members: &["aux@7e215000", "serial@7e215040", "spi@7e215080", "spi@7e2150c0"] },
    // What both HDMI ports share: clocks, resets, interrupts, colour conversion.
    Group {
        at: 0xfef0_0000,
        members: &[
            "clock@7ef00000",
            "hdmi@7ef00700",
            "hdmi@7ef05700",
            "i2c@7ef04500",
            "interrupt-controller@7ef00100",
        ],
    },
    Group { at: 0xfef0_4000, members: &["hdmi@7ef00700", "i2c@7ef04500"] },
    Group { at: 0xfef0_5000, members: &["hdmi@7ef05700", "i2c@7ef09500"] },
    Group { at: 0xfef0_9000, members: &["hdmi@7ef05700", "i2c@7ef09500"] },
    Group { at: 0xfef2_0000, members: &["hdmi@7ef00700", "hdmi@7ef05700"] },
];

/// SPIs on which more than one device interrupts.
pub const INTERRUPTS: [Group; 6] = [
    Group { at: 93, members: &["serial@7e215040", "spi@7e215080", "spi@7e2150c0"] },
    Group { at: 110, members: &["pixelvalve@7e207000", "pixelvalve@7e216000"] },
    Group {
        at: 117,
        members: &[
            "i2c@7e205000",
            "i2c@7e205600",
            "i2c@7e205800",
            "i2c@7e205a00",
            "i2c@7e205c00",
            "i2c@7e804000",
        ],
    },
    Group { at: 118, members: &SPIS },
    Group { at: 121, members: &UARTS },
    Group { at: 126, members: &["mmc@7e300000", "mmc@7e340000"] },
];

const UARTS: [&str; 5] =
    ["serial@7e201000", "serial@7e201400", "serial@7e201600", "serial@7e201800", "serial@7e201a00"];

const SPIS: [&str; 5] = ["spi@7e204000", "spi@7e204600", "spi@7e204800", "spi@7e204a00", "spi@7e204c00"];
