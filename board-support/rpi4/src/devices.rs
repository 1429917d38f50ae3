//! The BCM2711's devices by what they can do to others, and the clocks that stay as the firmware set them.
//!
//! From the BCM2711 ARM Peripherals document, Linux's `bcm283x.dtsi` and `bcm2711.dtsi` with the drivers for them, and the tree that
//! the vendor's firmware brings (`bcm2711-rpi-ds.dtsi`), whose names differ in places. The chip has no SMMU. A peripheral that is on the
//! VideoCore's bus sees the first 1 GiB of memory at 0xc0000000 and nothing above (chapter 1.2); the revision C0 gives emmc2 more,
//! and its firmware says so in `dma-ranges`.

use bulkhead_board::devices::{ALL_MEMORY, Class, Clock, Devices};

/// What the VideoCore's bus shows of memory.
const VIDEOCORE_BUS: u64 = 1 << 30;

/// What a bus master with 32 address bits reaches.
const BITS_32: u64 = 1 << 32;

/// All devices with registers.
pub(crate) static DEVICES: [Devices; 11] = [
    Devices {
        // UARTs, SPI, I2C, I2S, PWM and the SD host of the VideoCore have their data moved by a DMA channel or by a CPU. The
        // pixel valves, HDMI, VEC, DSI and DPI get their pixels from the HVS. Who has the GPIO block has the function of every pin.
        compatible: "arm,pl011 brcm,bcm2835-aux brcm,bcm2835-aux-uart brcm,bcm2835-aux-spi brcm,bcm2835-spi \
                     brcm,bcm2711-i2c brcm,bcm2835-i2c brcm,bcm2835-i2s brcm,bcm2835-pwm brcm,bcm2711-gpio \
                     brcm,bcm2835-sdhost brcm,bcm2711-rng200 brcm,bcm2835-dpi brcm,bcm2835-dsi0 brcm,bcm2711-dsi1 \
                     brcm,bcm2711-pixelvalve0 brcm,bcm2711-pixelvalve1 brcm,bcm2711-pixelvalve2 \
                     brcm,bcm2711-pixelvalve3 brcm,bcm2711-pixelvalve4 brcm,bcm2711-vec brcm,brcm2711-dvp \
                     brcm,bcm2711-l2-intc brcm,bcm2711-hdmi0 brcm,bcm2711-hdmi1 brcm,bcm2711-hdmi-i2c",
        class: Class::Plain,
    },
    Devices {
        // The HVS reads its pixels, TXP writes a picture, Unicam writes the camera's, dwc2 is a USB controller.
        compatible: "brcm,bcm2711-hvs brcm,bcm2835-txp brcm,bcm2835-unicam brcm,bcm2835-usb brcm,bcm2708-usb",
        class: Class::Master(VIDEOCORE_BUS),
    },
    Devices {
        // SD hosts with the standard's ADMA2. That of the older one is said to be left out: nobody outside can tell.
        compatible: "brcm,bcm2711-emmc2 brcm,bcm2835-mmc brcm,bcm2835-sdhci",
        class: Class::Master(BITS_32),
    },
    Devices {
        // Channels 0 to 10 see the VideoCore's bus. Channels 11 to 14 have 40 address bits and share the page of the others, which a
        // tree may not say (chapter 4). The Ethernet controller, V3D behind its own MMU, the PCIe host's programmable
        // windows, the xHCI and the video decoder reach everything.
        compatible: "brcm,bcm2835-dma brcm,bcm2711-dma brcm,bcm2711-genet-v5 brcm,bcm2711-pcie brcm,2711-v3d \
                     generic-xhci raspberrypi,rpivid-vid-decoder",
        class: Class::Master(ALL_MEMORY),
    },
    // The vendor's tree has the GPIO block's page once more, for programs of Linux.
    Devices { compatible: "brcm,bcm2835-gpiomem raspberrypi,gpiomem", class: Class::Shadow },
    Devices {
        compatible: "brcm,bcm2711-cprman",
        class: Class::Kept("it sets the clocks of all, the CPUs' among them"),
    },
    Devices {
        compatible: "brcm,bcm2711-pm brcm,bcm2835-pm-wdt",
        class: Class::Kept("it resets the machine and switches the power of all"),
    },
    Devices {
        // The page also holds the older interrupt controller and the ARM timer.
        compatible: "brcm,bcm2835-mbox brcm,bcm2835-vchiq brcm,bcm2711-vchiq",
        class: Class::Kept(
            "behind it the VideoCore's firmware reads and writes all memory and sets clocks and power",
        ),
    },
    Devices {
        compatible: "brcm,bcm2836-l1-intc",
        class: Class::Kept("it holds the timers and interrupt routes of every CPU"),
    },
    Devices {
        compatible: "brcm,bcm2711-avs-monitor",
        class: Class::Kept("it measures and sets the voltage of all"),
    },
    Devices {
        compatible: "brcm,bcm2835-system-timer brcm,bcm2835-axiperf brcm,bcm2835-smi raspberrypi,rpi-firmware-kms-2711",
        class: Class::Kept("the VideoCore's firmware uses it too"),
    },
];

/// Controllers whose clocks devices ask for: numbers as in Linux's `dt-bindings/clock/bcm2835.h` and `bcm2835-aux.h`.
const CPRMAN: &str = "brcm,bcm2711-cprman";
const AUX: &str = "brcm,bcm2835-aux";

/// Rates that the stock firmware leaves behind with an empty `config.txt` but `enable_uart=1`.
pub(crate) static CLOCKS: [Clock; 7] = [
    // init_uart_clock.
    Clock { controller: CPRMAN, index: 19, hertz: 48_000_000 },
    // The VPU's, from which SPI, I2C and the mini-UART divide theirs.
    Clock { controller: CPRMAN, index: 20, hertz: 500_000_000 },
    Clock { controller: CPRMAN, index: 28, hertz: 250_000_000 },
    Clock { controller: CPRMAN, index: 51, hertz: 100_000_000 },
    Clock { controller: AUX, index: 0, hertz: 500_000_000 },
    Clock { controller: AUX, index: 1, hertz: 500_000_000 },
    Clock { controller: AUX, index: 2, hertz: 500_000_000 },
];

/// The regulator that gives the SD card's lines 1.8 V hangs on the firmware's GPIOs: without it a card must stay at 3.3 V, whatever
/// the controller could do.
pub(crate) static ADDED: [(&str, &str); 1] = [("brcm,bcm2711-emmc2", "no-1-8-v")];
