//! Which bits of shared registers are whose ("BCM2711 ARM Peripherals", 2020-10-16).

use bulkhead_board::divided::{Bank, DividedDevice, InterruptEnable, Write};

/// GPIO pins and DMA channels.
pub(crate) static DEVICES: [DividedDevice; 2] = [
    // Chapter 5. The registers between 0x94 and 0xe4 are those of older chips; nobody has them.
    DividedDevice {
        compatible: "brcm,bcm2711-gpio",
        property: "gpio-pins",
        unit: "pin",
        units: 58,
        usable: None,
        interrupt_per_unit: false,
        banks: &[
            // GPFSEL
            Bank::new(0x00, 3, Write::Kept),
            // GPSET, GPCLR
            Bank::new(0x1c, 1, Write::Zeros),
            Bank::new(0x28, 1, Write::Zeros),
            // GPLEV
            Bank::new(0x34, 1, Write::Never),
            // GPEDS: a one clears
            Bank::new(0x40, 1, Write::Zeros),
            // GPREN, GPFEN, GPHEN, GPLEN, GPAREN, GPAFEN
            Bank::new(0x4c, 1, Write::Kept).raising(),
            Bank::new(0x58, 1, Write::Kept).raising(),
            Bank::new(0x64, 1, Write::Kept).raising(),
            Bank::new(0x70, 1, Write::Kept).raising(),
            Bank::new(0x7c, 1, Write::Kept).raising(),
            Bank::new(0x88, 1, Write::Kept).raising(),
            // GPIO_PUP_PDN_CNTRL
            Bank::new(0xe4, 2, Write::Kept),
        ],
    },
    // Chapter 4. Channels 11 to 14 have a node of their own where the firmware gives them one, and 15 another page.
    DividedDevice {
        compatible: "brcm,bcm2835-dma",
        property: "dma-channels",
        unit: "DMA channel",
        units: 11,
        usable: Some("brcm,dma-channel-mask"),
        interrupt_per_unit: true,
        banks: &[
            // CS to DEBUG of each channel
            Bank { offset: 0, stride: 0x100, size: 0x100, bits: 32, write: Write::Zeros, interrupts: false },
            // INT_STATUS
            Bank::new(0xfe0, 1, Write::Never),
            // ENABLE
            Bank::new(0xff0, 1, Write::Kept),
        ],
    },
];

/// Devices that share an SPI: UART 0 and 2–5; the mini-UART and SPI 1 and 2; SPI 0 and 3–6; I2C 0, 1 and 3–6.
pub(crate) static INTERRUPT_ENABLES: [InterruptEnable; 6] = [
    // UARTIMSC (chapter 11)
    InterruptEnable { compatible: "arm,pl011", offset: 0x38, bits: !0 },
    // ITCR: in an integration test ITOP drives the line, whatever UARTIMSC says (chapter 11)
    InterruptEnable { compatible: "arm,pl011", offset: 0x80, bits: 1 },
    // AUX_MU_IER_REG (chapter 2)
    InterruptEnable { compatible: "brcm,bcm2835-aux-uart", offset: 0x04, bits: !0 },
    // CNTL1: when done and when empty (chapter 2)
    InterruptEnable { compatible: "brcm,bcm2835-aux-spi", offset: 0x04, bits: 0b11 << 6 },
    // CS: INTD and INTR (chapter 9)
    InterruptEnable { compatible: "brcm,bcm2835-spi", offset: 0x00, bits: 0b11 << 9 },
    // C: INTD, INTT and INTR (chapter 3)
    InterruptEnable { compatible: "brcm,bcm2835-i2c", offset: 0x00, bits: 0b111 << 8 },
];
