//! What a file is that was given as a kernel and is none: a kernel comes in many wrappings.
//!
//! Only what is sure is named. The mends are commands that make an Image of the file, where that can be done.

use crate::source;

/// A kind of file and how an Image is made of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Kind {
    /// What the file is, behind "it is".
    pub what: &'static str,
    /// What to do.
    pub mend: String,
}

/// First bytes of compressed files, what made them, and what unpacks them to standard output.
const PACKED: [(&[u8], &str, &str); 6] = [
    (&[0x1f, 0x8b], "compressed with gzip", "zcat"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "compressed with zstd", "zstdcat"),
    (&[0x04, 0x22, 0x4d, 0x18], "compressed with lz4", "lz4 -dc"),
    (&[0x02, 0x21, 0x4c, 0x18], "compressed with lz4", "lz4 -dc"),
    (&[0xfd, b'7', b'z', b'X', b'Z', 0], "compressed with xz", "xzcat"),
    (b"BZh", "compressed with bzip2", "bzcat"),
];

/// The first bytes of an ELF file.
const ELF: &[u8] = b"\x7fELF";

/// U-Boot's `image_header_t` (`include/image.h`): its magic number, its size, and where it says how the rest is compressed.
const UIMAGE: [u8; 4] = [0x27, 0x05, 0x19, 0x56];
const UIMAGE_HEADER: usize = 64;
const UIMAGE_COMPRESSION: usize = 31;

/// What a file is that would be started at its first byte, if that is no code. ELF files are loaded as they say.
#[must_use]
pub fn of_raw(bytes: &[u8]) -> Option<&'static str> {
    of(bytes).map(|kind| kind.what).filter(|_| !bytes.starts_with(ELF))
}

/// What a file is that begins so, if it is anything that is known.
#[must_use]
pub fn of(bytes: &[u8]) -> Option<Kind> {
    let kind = |what, mend: String| Some(Kind { what, mend });
    let at = |offset: usize, magic: &[u8]| bytes.get(offset..).is_some_and(|rest| rest.starts_with(magic));
    let word = |offset: usize| Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?));
    if let Some((_, what, command)) = PACKED.iter().find(|(magic, ..)| bytes.starts_with(magic)) {
        return kind(what, format!("unpack it: {command} FILE > Image"));
    }
    if at(0, ELF) {
        let mend = "give arch/arm64/boot/Image of the kernel's build, or make it: aarch64-linux-gnu-objcopy -O binary \
                    vmlinux Image";
        return kind("an ELF file, as vmlinux is", mend.to_owned());
    }
    if at(0, &UIMAGE) {
        let header = UIMAGE_HEADER + 1;
        let mend = match bytes.get(UIMAGE_COMPRESSION) {
            Some(0) => format!("take U-Boot's header off: tail -c +{header} uImage > Image"),
            Some(1) => {
                format!("take U-Boot's header off and unpack it: tail -c +{header} uImage | zcat > Image")
            }
            _ => "give the Image that it was made of".to_owned(),
        };
        return kind("a uImage of U-Boot's", mend);
    }
    // Linux, drivers/firmware/efi/libstub/zboot-header.S.
    if at(0, b"MZ") && at(4, b"zimg") {
        let (offset, size) = (word(8)?, word(12)?);
        let unpack = match () {
            () if at(24, b"gzip") => "zcat",
            () if at(24, b"zstd") => "zstdcat",
            () => return kind("a kernel that EFI unpacks", "give the Image that it was made of".to_owned()),
        };
        let from = u64::from(offset) + 1;
        let mend = format!("unpack it: tail -c +{from} vmlinuz | head -c {size} | {unpack} > Image");
        return kind("a kernel that EFI unpacks", mend);
    }
    // Linux, arch/arm/boot/compressed/head.S and Documentation/arch/x86/boot.rst.
    if at(0x24, &0x016f_2818_u32.to_le_bytes()) {
        return kind("a zImage, for 32-bit Arm", "build the kernel for arm64".to_owned());
    }
    if at(0x202, b"HdrS") {
        return kind("a bzImage, for x86", "build the kernel for arm64".to_owned());
    }
    if at(0, &source::MAGIC) {
        let mend = "take the kernel out of it: dumpimage -T flat_dt -p 0 -o Image FILE";
        return kind("a FIT image of U-Boot's, or a device tree", mend.to_owned());
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The mend of a file with these bytes at these offsets.
    fn mend(parts: &[(usize, &[u8])]) -> Option<String> {
        let mut bytes = vec![0; 0x400];
        for (offset, part) in parts {
            bytes[*offset..][..part.len()].copy_from_slice(part);
        }
        of(&bytes).map(|kind| kind.mend)
    }

    #[test]
    fn what_is_known_is_unwrapped() {
        let magic: &[u8] = &[0x27, 0x05, 0x19, 0x56];
        let zboot: &[u8] = b"MZ\0\0zimg\x00\x10\0\0\x34\x12\0\0";
        for (parts, said) in [
            (&[(0, magic), (31, &[0])][..], "tail -c +65 uImage > Image"),
            (&[(0, magic), (31, &[1])], "| zcat > Image"),
            (&[(0, magic), (31, &[2])], "that it was made of"),
            (&[(0, zboot), (24, b"gzip")], "tail -c +4097 vmlinuz | head -c 4660 | zcat > Image"),
            (&[(0, zboot), (24, b"zstd")], "| zstdcat > Image"),
            (&[(0, zboot), (24, b"lzma")], "that it was made of"),
            (&[(0, &[0x28, 0xb5, 0x2f, 0xfd])], "zstdcat"),
            (&[(0, &[0x1f, 0x8b])], "zcat"),
            (&[(0, b"\x7fELF")], "objcopy"),
            (&[(0x24, &[0x18, 0x28, 0x6f, 0x01])], "for arm64"),
            (&[(0x202, b"HdrS")], "for arm64"),
            (&[(0, &[0xd0, 0x0d, 0xfe, 0xed])], "dumpimage"),
        ] {
            let mend = mend(parts);
            assert!(mend.as_ref().is_some_and(|mend| mend.contains(said)), "{parts:?}: {mend:?}");
        }
        for bytes in [&[][..], &[0; 4096], b"MZ", b"MZ\0\0zimg", &[0x27, 0x05, 0x19]] {
            assert_eq!(of(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn an_elf_file_may_be_given_as_it_is() {
        assert_eq!(of_raw(b"\x7fELF"), None);
        assert_eq!(of_raw(&[0x1f, 0x8b]), Some("compressed with gzip"));
    }

    #[test]
    fn no_length_is_too_short() {
        let zboot = b"MZ\0\0zimg\xff\xff\xff\xff\xff\xff\xff\xff\0\0\0\0\0\0\0\0gzip";
        for end in 0..=zboot.len() {
            let _ = of(&zboot[..end]);
        }
    }
}
