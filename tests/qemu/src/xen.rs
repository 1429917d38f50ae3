//! A Xen user's two guests.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use bulkhead::import::{self, Payloads};
use bulkhead_hil::Source;

use crate::lab::{Lab, SOON, expect_power_off};

/// Two Linux boot in less on a slow host.
const BOOT: Duration = Duration::from_secs(240);

/// A dom0less tree for two Linux guests, imported, brings both to a shell, each with the CPUs, the memory and the console
/// that Xen would give it.
pub fn two_linux(lab: &Lab) -> Result<()> {
    let imported = import::from_xen(&lab.test_manifest("xen-two-linux.dts"), None, &Payloads::default())?;
    ensure!(!imported.remarks.iter().any(|remark| remark.open), "{:?}", imported.remarks);
    let manifest = lab.folder().join("imported.dts");
    fs::create_dir_all(lab.folder())?;
    fs::write(&manifest, &imported.source)?;
    let mut target = lab.start(manifest)?;
    for (name, kib) in [("north", 384 << 10), ("south", 256 << 10)] {
        let linux = target.partition(name, SOON)?;
        let up = target.expect(linux, r"Linux is up: (\d+) CPUs, (\d+) kB memory", BOOT)?;
        let memory: u32 = up[2].parse()?;
        // MemTotal is what the kernel's own code and page array leave.
        ensure!(&up[1] == "2" && memory < kib && memory > kib / 10 * 7, "{name}: {}", &up[0]);
        target.expect(linux, "linux# ", BOOT)?;
    }
    for name in ["south", "north"] {
        let linux = target.partition(name, SOON)?;
        target.focus(name)?;
        target.send(b"echo answer $((6 * 7)); cat /proc/iomem\r")?;
        target.expect(linux, "^answer 42", SOON)?;
        target.expect(linux, "22000000-22000fff", SOON)?;
        target.send(b"poweroff -f\r")?;
        target.expect(Source::HYPERVISOR, &format!("^partition {name}: off\n"), SOON)?;
    }
    expect_power_off(&mut target)
}
