//! Devices that read and write memory by themselves.

use std::time::Duration;

use anyhow::Result;
use bulkhead_hil::Source;

use crate::lab::{Lab, SOON, expect_power_off};

/// Linux boots in less on a slow host.
const BOOT: Duration = Duration::from_secs(240);

/// What is typed at Linux: a control block of a DMA channel that copies 8 bytes, their source, and the channel's start (BCM2711 ARM
/// Peripherals, 4.2). The controller finds memory at 0xc0000000.
const COPY: [&str; 4] = [
    "w() { devmem $(($1)) 32 $2; }; B=0x32000000; w B+0x1000 0x12345678; w B+0x2000 0\r",
    "n=0; for v in 0x110 $((0xc0001000+B)) $((0xc0002000+B)) 8 0 0 0 0; do w B+n*4 $v; n=$((n+1)); done\r",
    "w 0xfe007ff0 1; w 0xfe007004 $((0xc0000000+B)); w 0xfe007000 1\r",
    "echo moved $(devmem $((B+0x2000)) 32); poweroff -f\r",
];

/// What the guest takes for physical addresses are those, or the controller would move somebody else's memory.
pub fn unprotected(lab: &Lab) -> Result<()> {
    let mut target = lab.start(lab.test_manifest("unprotected-dma.dts"))?;
    let linux = target.partition("linux", SOON)?;
    let risk = "^partition linux: /soc/dma@7e007000 can read and write all memory, that of the hypervisor";
    target.expect(Source::HYPERVISOR, risk, SOON)?;
    for line in COPY {
        target.expect(linux, "linux# ", BOOT)?;
        target.send(line.as_bytes())?;
    }
    target.expect(linux, "^moved 0x12345678", SOON)?;
    expect_power_off(&mut target)
}
