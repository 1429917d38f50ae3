//! Where the images go in a partition's memory.
//!
//! The kernel goes where its format says. Tree and ramdisk go to the top of the first range: a raw image with
//! everything compiled in uses low memory and a bss of unknown size, and is hurt least there.

use alloc::vec::Vec;
use core::fmt;

use super::names::{Quoted, list};
use super::{DTB_SPACE, Draft, Findings, Size};
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
    findings: &mut Findings,
) -> Option<Layout<'a>> {
    let mut find = |property, name: Option<&'a str>| {
        let name = name?;
        let data = payload(name);
        match data {
            None => findings.push(draft.node, text!("{property} {} is not in the bundle", Quoted(name))),
            Some([]) => findings.push(draft.node, text!("{property} {} is empty", Quoted(name))),
            Some(_) => {}
        }
        Some((name, data.filter(|data| !data.is_empty())?))
    };
    let kernel = find("kernel", draft.kernel);
    let ramdisk = find("ramdisk", draft.ramdisk);
    let (name, data) = kernel?;
    let base = draft.memory.first()?.ipa.start();
    let (mut segments, entry) = place_kernel(draft, base, name, data, findings)?;
    let mut occupied = Vec::new();
    for segment in &segments {
        occupied.extend(Region::new(segment.ipa, segment.memory_size));
    }
    let mut place = |size: u64, what| {
        let place = place_high(draft, &occupied, size);
        match place {
            Some(region) => occupied.push(region),
            None => {
                let message = text!(
                    "{what} of {} does not fit beside the kernel in memory; make memory larger",
                    Size(size)
                );
                findings.push(draft.node, message);
            }
        }
        place
    };
    let dtb = place(DTB_SPACE, "the device tree");
    let ramdisk = match ramdisk {
        None => None,
        Some((name, data)) => {
            let size = data.len() as u64;
            let region = place(size, "the ramdisk")?;
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

/// The kernel's segments and its entry, or `None` where there is a finding. `base` is the start of memory.
fn place_kernel<'a>(
    draft: &Draft<'a>,
    base: Ipa,
    name: &'a str,
    data: &[u8],
    findings: &mut Findings,
) -> Option<(Vec<Segment<'a>>, Ipa)> {
    let quoted = Quoted(name);
    let mut refuse = |message: fmt::Arguments<'_>| {
        findings.push(draft.node, message);
        None
    };
    let image = match Image::parse(data) {
        Ok(image) => image,
        Err(error) => return refuse(text!("kernel {quoted} cannot be used: {error}")),
    };
    if draft.os == OsType::Linux && !matches!(image, Image::Arm64(_)) {
        let hint = match data {
            [0x1f, 0x8b, ..] => "is compressed with gzip; unpack it",
            _ => "is no arm64 Image, which os,type = \"linux\" needs",
        };
        return refuse(text!("kernel {quoted} {hint}"));
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
            let Some(start) = start else {
                return refuse(text!("kernel {quoted} does not fit in memory"));
            };
            if start.raw() & mask != header.text_offset {
                return refuse(text!(
                    "load-address {start} does not suit kernel {quoted}, \
                     which wants to be {:#x} bytes above a multiple of 2 MiB",
                    header.text_offset
                ));
            }
            segments.push(whole(start, header.image_size));
            start
        }
        Image::Elf(elf) => {
            if load_address.is_some() {
                return refuse(text!(
                    "load-address has no use: kernel {quoted} is ELF and says where it goes"
                ));
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
            return refuse(text!(
                "kernel {quoted} does not fit: it needs {} at {}, and memory is {}; make memory larger or move it",
                Size(segment.memory_size),
                segment.ipa,
                list(draft.memory.iter().map(|range| range.ipa))
            ));
        }
    }
    let inside = |segment: &Segment<'_>| {
        Region::new(segment.ipa, segment.memory_size).is_some_and(|region| region.contains(entry))
    };
    if !segments.iter().any(inside) {
        return refuse(text!("entry {entry} lies outside of kernel {quoted}"));
    }
    if entry.raw() & 3 != 0 {
        return refuse(text!("entry {entry} is no multiple of 4, as every instruction's address is"));
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
