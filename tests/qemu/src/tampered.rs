//! Bundles that were damaged on their way: what is damaged does not start, and the console says what it is.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use bulkhead::bundle::sha256;
use bulkhead::system::{Recipe, System};
use bulkhead_hil::{Source, Target};
use bulkhead_policy::bundle::Bundle;
use bulkhead_policy::inventory;
use bulkhead_policy::manifest::BUNDLE_ENTRY;

use crate::lab::{Lab, SOON, expect_power_off};

const DAMAGED: &str = "storm";
const WHOLE: &str = "freertos.bin";
/// Where an ELF file says for which machine it is: with another value it is no kernel at all.
const E_MACHINE: usize = 18;

/// One flipped bit of a payload: its partition does not start, the other one does, with the CPU's instructions and without.
pub fn payload(lab: &Lab) -> Result<()> {
    let system = lab.build(&Recipe::new(lab.test_manifest("tampered.dts"), lab.board))?;
    let whole = fs::read(&system.bundle)?;
    let middle = find(&whole, DAMAGED)?.len() / 2;
    let listed = |name| Ok::<_, anyhow::Error>(sha256(find(&whole, name)?));

    let image = fs::read(&system.image)?;
    for (variant, image, at) in [
        ("instructions", image.clone(), middle),
        ("software", without_instructions(&image)?, middle),
        ("header", image.clone(), E_MACHINE),
    ] {
        let (damaged, before, after) = flip(&whole, DAMAGED, at)?;
        let system = variant_of(lab, &system, variant, &image, &damaged)?;
        let mut target = lab.start_command(system.command()?).context(variant)?;
        target.expect(
            Source::HYPERVISOR,
            &format!(
                "^partition victim: not started: payload {DAMAGED} is damaged: \
                 SHA-256 is {after}, the inventory says {before}\n"
            ),
            SOON,
        )?;
        expect_rtos(&mut target).context(variant)?;
        let text = target.text(Source::HYPERVISOR);
        for (line, name) in [("manifest.dtb", BUNDLE_ENTRY), ("partition rtos: payload freertos.bin", WHOLE)]
        {
            let hash = listed(name)?;
            let found =
                text.lines().any(|said| said.starts_with(&format!("{line}: ")) && said.contains(&hash));
            ensure!(found, "{variant}: no line of the inventory for {name}, {hash}:\n{text}");
        }
        let spoke = target.lines().iter().any(|line| line.source == target.names()["victim"]);
        ensure!(!spoke, "{variant}: the damaged guest ran");
    }
    Ok(())
}

/// Without a whole inventory and a whole manifest nothing starts.
pub fn bundle(lab: &Lab) -> Result<()> {
    let system = lab.build(&Recipe::new(lab.test_manifest("tampered.dts"), lab.board))?;
    let image = fs::read(&system.image)?;
    let whole = fs::read(&system.bundle)?;
    let (manifest, before, after) = flip(&whole, BUNDLE_ENTRY, find(&whole, BUNDLE_ENTRY)?.len() / 2)?;
    let (inventory, ..) = flip(&whole, inventory::ENTRY, find(&whole, inventory::ENTRY)?.len() / 2)?;
    let manifest_fault = format!("manifest.dtb is damaged: SHA-256 is {after}, the inventory says {before}");
    for (variant, bytes, fault) in [
        ("manifest", manifest, &*manifest_fault),
        ("inventory", inventory, "the bundle's inventory is missing or damaged"),
        ("none", renamed(&whole, inventory::ENTRY)?, "the bundle's inventory is missing or damaged"),
    ] {
        let system = variant_of(lab, &system, variant, &image, &bytes)?;
        let mut target = lab.start_command(system.command()?)?;
        let status = target.wait(SOON).with_context(|| variant.to_owned())?;
        ensure!(status.success(), "{variant}: QEMU ended with {status}");
        let text = target.text(Source::HYPERVISOR);
        let said = text.lines().any(|line| {
            line.strip_prefix("bulkhead: error: ").is_some_and(|message| message.starts_with(fault))
        });
        ensure!(said && text.ends_with("bulkhead: no partition was started\n"), "{variant}:\n{text}");
        ensure!(
            target.lines().iter().all(|line| line.source == Source::HYPERVISOR),
            "{variant}: a guest spoke"
        );
    }
    Ok(())
}

fn expect_rtos(target: &mut Target) -> Result<()> {
    let rtos = target.partition("rtos", SOON)?;
    target.expect(rtos, "^heartbeat 1:", SOON)?;
    target.focus("rtos")?;
    target.send(b"off\r")?;
    expect_power_off(target)
}

/// The system with other bytes.
fn variant_of(lab: &Lab, system: &System, variant: &str, image: &[u8], bundle: &[u8]) -> Result<System> {
    let file = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = lab.folder().join(format!("{variant}-{name}"));
        fs::write(&path, bytes)?;
        Ok(path)
    };
    Ok(System { image: file("image", image)?, bundle: file("bundle", bundle)?, ..system.clone() })
}

fn find<'a>(bundle: &'a [u8], name: &str) -> Result<&'a [u8]> {
    Bundle::new(bundle)?.find(name).with_context(|| format!("{name} is not in the bundle"))
}

/// The bundle with one bit of byte `at` of an entry's data flipped, and the entry's hashes before and after.
fn flip(bundle: &[u8], name: &str, at: usize) -> Result<(Vec<u8>, String, String)> {
    let data = find(bundle, name)?;
    let offset = data.as_ptr() as usize - bundle.as_ptr() as usize;
    let mut damaged = bundle.to_vec();
    damaged[offset + at] ^= 1;
    let hashes = (sha256(data), sha256(find(&damaged, name)?));
    Ok((damaged, hashes.0, hashes.1))
}

/// The bundle with an entry under another name.
fn renamed(bundle: &[u8], name: &str) -> Result<Vec<u8>> {
    let at =
        bundle.windows(name.len() + 1).position(|window| window.strip_suffix(b"\0") == Some(name.as_bytes()));
    let mut bytes = bundle.to_vec();
    bytes[at.context("no such entry")?] ^= 1;
    Ok(bytes)
}

/// The image for a CPU without FEAT_SHA256, of which QEMU has no model: it reads zero from ID_AA64ISAR0_EL1.
fn without_instructions(image: &[u8]) -> Result<Vec<u8>> {
    const MRS: u32 = 0xd538_0600;
    const MOV_XZR: u32 = 0xaa1f_03e0;
    let mut image = image.to_vec();
    let mut count = 0;
    for word in image.as_chunks_mut::<4>().0 {
        let instruction = u32::from_le_bytes(*word);
        if instruction & !0x1f == MRS {
            *word = (MOV_XZR | (instruction & 0x1f)).to_le_bytes();
            count += 1;
        }
    }
    ensure!(count > 0, "the image does not ask the CPU for its instructions");
    Ok(image)
}
