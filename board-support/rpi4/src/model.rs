//! What QEMU's `raspi4b` is not.

/// Paths of the nodes in the board's tree that QEMU has no model of and yet leaves in the tree that it hands over: the display's scaler
/// (HVS) and both HDMI ports with their clocks, interrupt controller and DDC.
///
/// Linux's drivers for these take a bus error and panic (measured with Debian 6.1 and QEMU 10.0), so whoever plays the firmware disables
/// the nodes. QEMU itself removes PCIe, GENET, RNG200 and the thermal sensor (`hw/arm/raspi4b.c`, `raspi4_modify_dtb`).
pub const QEMU_LACKS: [&str; 7] = [
    "/soc/hvs@7e400000",
    "/soc/clock@7ef00000",
    "/soc/interrupt-controller@7ef00100",
    "/soc/hdmi@7ef00700",
    "/soc/i2c@7ef04500",
    "/soc/hdmi@7ef05700",
    "/soc/i2c@7ef09500",
];
