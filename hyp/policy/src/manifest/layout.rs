//! Where the images go in a partition's memory.
//!
//! The kernel goes where its format says. Tree and ramdisk go to the top of the first range: a raw image with
//! everything compiled in uses low memory and a bss of unknown size, and is hurt least there.

use alloc::vec::Vec;

use super::draft::Draft;
use super::properties::Key;
use super::rules::{Rule, Value};
use super::{At, DTB_SPACE, Findings};
use crate::addr::{Address, BLOCK_2M, Ipa, PAGE_SIZE, Region};
use crate::image::Image;
use crate::plan::{OsType, Segment};

/// What goes where.
pub(super) struct Layout<'a> {
    pub(super) segments: Vec<Segment<'a>>,
    pub(super) entry: Ipa,
    pub(super) dtb: Region<Ipa>,
    pub(super) ramdisk: Option<Region<Ipa>>,
}

/// Lays out a partition's images; `None` where there is a finding.
pub(super) fn lay_out<'a>(
    draft: &Draft<'a>,
    payload: &dyn Fn(&str) -> Option<&'a [u8]>,
    findings: &mut Findings<'a>,
) -> Option<Layout<'a>> {
    let mut find = |key, name: Option<&'a str>| {
        let name = name?;
        let rule = match payload(name) {
            None => Rule::PayloadMissing,
            Some([]) => Rule::PayloadEmpty,
            Some(data) => return Some((name, data)),
        };
        findings.push_text(rule, draft.at(key), name);
        None
    };
    let kernel = find(Key::Kernel, draft.kernel);
    let ramdisk = find(Key::Ramdisk, draft.ramdisk);
    let (name, data) = kernel?;
    let base = draft.memory.first()?.ipa.start();
    let (mut segments, entry) = place_kernel(draft, base, name, data, findings)?;
    let mut occupied = Vec::new();
    for segment in &segments {
        occupied.extend(Region::new(segment.ipa, segment.memory_size));
    }
    let mut place = |size: u64, rule, key, other| {
        let place = place_high(draft, &occupied, size);
        match place {
            Some(region) => occupied.push(region),
            None => findings.push_with(rule, draft.at(key), draft.at(other), &[Value::Number(size)]),
        }
        place
    };
    let dtb = place(DTB_SPACE, Rule::NoRoomForTree, Key::Memory, Key::Kernel);
    let ramdisk = match ramdisk {
        None => None,
        Some((name, data)) => {
            let size = data.len() as u64;
            let region = place(size, Rule::NoRoomForRamdisk, Key::Ramdisk, Key::Memory)?;
            segments.push(Segment {
                payload: name,
                offset: 0,
                file_size: size,
                ipa: region.start(),
                memory_size: size,
                zeroed: false,
            });
            Some(region)
        }
    };
    // A ramdisk that is named but was not found has its finding already; the plan is dropped.
    Some(Layout { segments, entry, dtb: dtb?, ramdisk })
}

/// What stands for the layout of a partition whose kernel is damaged and will not be loaded.
pub(super) fn damaged<'a>(draft: &Draft<'a>, kernel: &'a str) -> Option<Layout<'a>> {
    let place = draft.memory.first()?.ipa;
    let segment = Segment {
        payload: kernel,
        offset: 0,
        file_size: 0,
        ipa: place.start(),
        memory_size: 0,
        zeroed: false,
    };
    Some(Layout { segments: alloc::vec![segment], entry: place.start(), dtb: place, ramdisk: None })
}

/// The kernel's segments and its entry, or `None` where there is a finding. `base` is the start of memory.
fn place_kernel<'a>(
    draft: &Draft<'a>,
    base: Ipa,
    name: &'a str,
    data: &[u8],
    findings: &mut Findings<'a>,
) -> Option<(Vec<Segment<'a>>, Ipa)> {
    let mut refuse = |rule, key, one, two| {
        let values = [Value::Text(name), Value::Number(one), Value::Number(two)];
        let other = match rule {
            Rule::KernelDoesNotFit => draft.at(Key::Memory),
            Rule::LoadAddressUnsuitable | Rule::LoadAddressUseless | Rule::EntryOutside => {
                draft.at(Key::Kernel)
            }
            _ => At::NOWHERE,
        };
        findings.push_with(rule, draft.at(key), other, &values);
        None
    };
    let image = match Image::parse(data) {
        Ok(image) => image,
        Err(rule) => return refuse(rule, Key::Kernel, 0, 0),
    };
    if draft.os == OsType::Linux && !matches!(image, Image::Arm64(_)) {
        let rule = match data {
            [0x1f, 0x8b, ..] => Rule::LinuxCompressed,
            _ => Rule::NotLinux,
        };
        return refuse(rule, Key::Kernel, 0, 0);
    }
    let file_size = data.len() as u64;
    let whole =
        |ipa, memory_size| Segment { payload: name, offset: 0, file_size, ipa, memory_size, zeroed: false };
    let load_address = draft.load_address.map(Ipa::new);
    let mut segments = Vec::new();
    let entry = match image {
        Image::Raw => {
            let start = load_address.unwrap_or(base);
            segments.push(whole(start, file_size));
            start
        }
        Image::Arm64(header) => {
            let mask = BLOCK_2M.wrapping_sub(1);
            let start = match load_address {
                Some(start) => Some(start),
                None => base
                    .checked_add(mask)
                    .map(|base| Ipa::new(base.raw() & !mask))
                    .and_then(|base| base.checked_add(header.text_offset)),
            };
            // Memory ends far below the end of the address space, where no start could be found.
            let start = start.unwrap_or(Ipa::new(u64::MAX));
            if load_address.is_some() && start.raw() & mask != header.text_offset {
                return refuse(
                    Rule::LoadAddressUnsuitable,
                    Key::LoadAddress,
                    start.raw(),
                    header.text_offset,
                );
            }
            segments.push(whole(start, header.image_size));
            start
        }
        Image::Elf(elf) => {
            if load_address.is_some() {
                return refuse(Rule::LoadAddressUseless, Key::LoadAddress, 0, 0);
            }
            segments.extend(elf.segments.iter().map(|segment| Segment {
                payload: name,
                offset: segment.offset,
                file_size: segment.file_size,
                ipa: segment.memory.start(),
                memory_size: segment.memory.size(),
                zeroed: true,
            }));
            elf.entry
        }
    };
    let entry = draft.entry.map_or(entry, Ipa::new);
    for segment in &segments {
        let region = Region::new(segment.ipa, segment.memory_size);
        if !region.is_some_and(|region| draft.memory.iter().any(|range| range.ipa.encloses(region))) {
            let key = if load_address.is_some() { Key::LoadAddress } else { Key::Kernel };
            return refuse(Rule::KernelDoesNotFit, key, segment.memory_size, segment.ipa.raw());
        }
    }
    let inside = |segment: &Segment<'_>| {
        Region::new(segment.ipa, segment.memory_size).is_some_and(|region| region.contains(entry))
    };
    if !segments.iter().any(inside) {
        return refuse(Rule::EntryOutside, Key::Entry, entry.raw(), 0);
    }
    if entry.raw() & 3 != 0 {
        let key = match (draft.entry, load_address) {
            (Some(_), _) => Key::Entry,
            (None, Some(_)) => Key::LoadAddress,
            (None, None) => Key::Kernel,
        };
        return refuse(Rule::EntryUnaligned, key, entry.raw(), 0);
    }
    Some((segments, entry))
}

/// The highest free place of this size in the first range that has one, page-aligned.
fn place_high(draft: &Draft<'_>, occupied: &[Region<Ipa>], size: u64) -> Option<Region<Ipa>> {
    draft.memory.iter().find_map(|range| {
        let mut top = range.ipa.last().raw().saturating_add(1);
        // Each round ends or goes below one more of the occupied places.
        for _ in 0..=occupied.len() {
            let mut start = top.checked_sub(size)? & !PAGE_SIZE.wrapping_sub(1);
            if let (DTB_SPACE, Some(pa)) = (size, range.pa) {
                // The tree is written through a view of one 2 MiB block of the machine's memory.
                let within = start.wrapping_sub(range.ipa.start().raw()).wrapping_add(pa.raw())
                    & BLOCK_2M.wrapping_sub(1);
                start = start.checked_sub(within.saturating_add(size).saturating_sub(BLOCK_2M))?;
            }
            let place = Region::new(Ipa::new(start), size).filter(|&place| range.ipa.encloses(place))?;
            match occupied.iter().filter(|other| other.overlaps(place)).map(|other| other.start()).min() {
                None => return Some(place),
                Some(below) => top = below.raw(),
            }
        }
        None
    })
}
