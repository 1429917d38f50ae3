//! What the walls between partitions do not hold back, as far as plan and board tell.

use std::collections::BTreeMap;

use bulkhead_policy::addr::BLOCK_2M;

use super::model::*;
use crate::system::Checked;

/// List registers that a CPU has for everything but the virtual timer, in Arm's own designs (GIC-400: DDI 0471, 2.3.4).
const LIST_REGISTERS: usize = 3;

/// What remains.
pub(super) fn risks(checked: Checked<'_>, resources: &[Resource]) -> Vec<Risk> {
    let Checked { plan, board, .. } = checked;
    let mut risks = Vec::new();
    for partition in &plan.partitions {
        let mut add = |kind, message| {
            risks.push(Risk { kind, partition: Some(partition.name.to_owned()), message });
        };
        for risk in &partition.unprotected {
            add(RiskKind::UnprotectedDma, risk.to_string());
        }
        let mut polled =
            partition.devices.iter().filter(|device| device.part.is_some_and(|part| part.polled));
        let mut told = Vec::new();
        for path in polled.by_ref().map(|device| device.path) {
            if !told.contains(&path) {
                told.push(path);
                add(
                    RiskKind::PolledInterrupt,
                    polled_lines(path, &Holder::partition(partition.name), resources),
                );
            }
        }
        for owned in &partition.interrupts {
            let name = owned.intid.to_string();
            let row = resources.iter().find(|row| row.kind == ResourceKind::Interrupt && row.name == name);
            let nobodys: Vec<_> = row
                .iter()
                .flat_map(|row| &row.raised_by)
                .filter(|by| resources.iter().any(|device| device.name == **by && device.is_nobodys()))
                .map(String::as_str)
                .collect();
            if !nobodys.is_empty() {
                let devices = nobodys.join(", ");
                add(
                    RiskKind::SharedInterrupt,
                    format!("its {name} can also be raised by {devices}, which nobody has"),
                );
            }
        }
        let lines = partition.interrupts.len() + usize::from(partition.console.is_some());
        if lines > LIST_REGISTERS {
            let message = format!(
                "{lines} SPIs can be pending at once, and a GIC with 4 list registers a CPU, as Arm's have, has \
                 {LIST_REGISTERS} beside the virtual timer's: the rest wait until EL2 puts them in"
            );
            add(RiskKind::ListRegisters, message);
        }
        for memory in &partition.memory {
            let (ipa, pa) = (memory.ipa, memory.pa);
            if memory.size >= BLOCK_2M && (ipa.raw() ^ pa.raw()) % BLOCK_2M != 0 {
                let size = Bytes(memory.size);
                let message = format!(
                    "all {size} of the RAM at {ipa} are mapped in 4 KiB pages, so its TLB misses are more and each takes \
                     longer: IPA and PA {pa} differ in the lowest 21 bits"
                );
                add(RiskKind::SmallPages, message);
            }
        }
    }
    let mut add = |kind, message| risks.push(Risk { kind, partition: None, message });
    let mut pages: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for partition in &plan.partitions {
        for page in &partition.shared_pages {
            pages.entry(page.page.raw()).or_default().push(partition.name);
        }
    }
    for (page, names) in pages {
        let message = format!(
            "{} {} parts of the page of registers at {page:#010x}: each access traps and costs some hundred instructions",
            names.join(" and "),
            if names.len() == 1 { "has" } else { "have" }
        );
        add(RiskKind::SharedPage, message);
    }
    let smmu = board.nodes().find(|node| {
        node.is_enabled()
            && node.compatible().any(|name| name.starts_with(b"arm,smmu") || name.starts_with(b"arm,mmu-"))
    });
    let message = match smmu {
        Some(node) => format!("{} is not programmed: Bulkhead programs no SMMU", node.path()),
        None => "no SMMU confines any device: the board's tree has none".to_owned(),
    };
    add(RiskKind::NoSmmu, message);
    let nobodys =
        resources.iter().filter(|resource| resource.kind == ResourceKind::Device && resource.is_nobodys());
    let count = nobodys.count();
    if count != 0 {
        let message =
            format!("{count} devices belong to nobody: they stay as the firmware left them, DMA included");
        add(RiskKind::NobodysDevices, message);
    }
    risks
}

/// Whose the interrupts are of a device that this holder has without them.
fn polled_lines(path: &str, holder: &Holder, resources: &[Resource]) -> String {
    let (mut lines, mut owners) = (Vec::new(), Vec::new());
    for row in resources {
        if row.share_of(holder) != Some(&Portion::Polled) || !row.raised_by.iter().any(|by| by == path) {
            continue;
        }
        lines.push(row.name.as_str());
        for owner in row.shares.iter().filter(|share| share.portion == Portion::Whole) {
            if !owners.contains(&&owner.holder) {
                owners.push(&owner.holder);
            }
        }
    }
    let owners: Vec<_> = owners.iter().map(ToString::to_string).collect();
    let owners = if owners.is_empty() { "nobody".to_owned() } else { owners.join(" and ") };
    format!("{path} is polled: its interrupts go to {owners}: {}", lines.join(", "))
}
