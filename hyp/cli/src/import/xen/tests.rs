use bulkhead_boards::BOARDS;
use bulkhead_policy::manifest;
use bulkhead_policy::platform::Platform;

use super::*;
use crate::source::compiled;

const TWO_LINUX: &str = include_str!("../../../../../tests/qemu/systems/xen-two-linux.dts");
const VIRT: &[u8] = include_bytes!("../../../../../tests/manifests/boards/qemu-virt-gicv3.dtb");
const RPI4: &[u8] = include_bytes!("../../../../../tests/manifests/boards/rpi4-qemu.dtb");

fn convert_with(source: &str, board: Option<&[u8]>, payloads: &Payloads) -> Imported {
    let (blob, board) = (compiled(source), board.map(|blob| Tree::new(blob).expect("a board")));
    convert(&Tree::new(&blob).expect("a tree"), board.as_ref(), payloads, "xen.dts").expect("domains")
}

/// A tree with one domain, which has a kernel besides.
fn domain(properties: &str) -> Imported {
    let source = format!(
        "/dts-v1/; / {{ chosen {{ guest {{ compatible = \"xen,domain\"; #address-cells = <2>; #size-cells = <2>;
         {properties}
         module@1 {{ compatible = \"multiboot,kernel\", \"multiboot,module\"; reg = <0 0x4a000000 0 0x1000>; }}; }}; }}; }};"
    );
    convert_with(&source, None, &Payloads::default())
}

/// The first bytes of an arm64 Image for 16 MiB (Linux, Documentation/arch/arm64/booting.rst).
fn image() -> Vec<u8> {
    let mut image = vec![0; 4096];
    image[16..24].copy_from_slice(&(16_u64 << 20).to_le_bytes());
    image[56..60].copy_from_slice(b"ARM\x64");
    image
}

/// What the policy says of a manifest whose files are all Images.
fn faults(source: &str, board: &[u8]) -> Vec<String> {
    let blob = compiled(source);
    let (manifest, board) = (Tree::new(&blob).expect("a tree"), Tree::new(board).expect("a board"));
    let mut platform = Platform::from_tree(&board, &BOARDS).expect("a platform");
    let image = image();
    let found = manifest::check(&manifest, &mut platform, &board, &|_| Some(&image));
    found.map_or_else(|faults| faults.iter().map(ToString::to_string).collect(), |_| Vec::new())
}

fn open(imported: &Imported) -> Vec<&str> {
    imported.remarks.iter().filter(|remark| remark.open).map(|remark| remark.text.as_str()).collect()
}

/// `text` with its white space made one blank each, for texts that a comment broke into lines.
fn joined(text: &str) -> String {
    text.replace("\n", " ")
        .split(' ')
        .filter(|word| !word.is_empty() && *word != "*")
        .collect::<Vec<_>>()
        .join(" ")
}

fn payloads(files: &[(u64, &str, Vec<u8>)]) -> Payloads {
    let by_address = files
        .iter()
        .map(|(address, path, head)| (*address, Payload { path: path.into(), head: head.clone() }))
        .collect();
    Payloads { by_address, ..Payloads::default() }
}

#[test]
fn two_linux_guests_are_a_sound_manifest() {
    let imported = convert_with(TWO_LINUX, Some(VIRT), &Payloads::default());
    assert_eq!(open(&imported), [""; 0]);
    for line in [
        "cpus = <0 1>;",
        "cpus = <2 3>;",
        "memory = /bits/ 64 <0x40000000 0x18000000>;",
        "memory = /bits/ 64 <0x40000000 0x10000000>;",
        "console-address = /bits/ 64 <0x22000000>;",
        "console-interrupt = <0>;",
        "bootargs = \"console=ttyAMA0 quiet\";",
    ] {
        assert!(imported.source.contains(line), "{line}\n{}", imported.source);
    }
    assert_eq!(faults(&imported.source, VIRT), [""; 0]);
    assert_eq!(faults(&imported.source, RPI4), [""; 0]);
    for remark in &imported.remarks {
        assert!(
            joined(&imported.source).contains(&joined(&remark.text)),
            "the manifest says it, too: {remark:?}"
        );
    }
    // The same as a part of the board's tree.
    let tree = compiled(TWO_LINUX);
    let again = convert(&Tree::new(&tree).expect("a tree"), None, &Payloads::default(), "xen-two-linux.dts");
    assert_eq!(again.expect("domains").remarks, imported.remarks);
}

#[test]
fn cpus_are_given_once() {
    let many = TWO_LINUX.replace("cpus = <2>", "cpus = <3>");
    let imported = convert_with(&many, Some(VIRT), &Payloads::default());
    let said = "The board has 4 CPUs, and those up to 5 are asked for. Each belongs to one partition, they are not shared: take \
                some away from other partitions or from this one.";
    assert_eq!(open(&imported), [said]);
    assert!(!faults(&imported.source, VIRT).is_empty());
    // Nobody knows how many there are.
    assert_eq!(open(&convert_with(&many, None, &Payloads::default())), [""; 0]);
}

#[test]
fn amounts_of_memory() {
    let memory = |properties: &str| {
        let imported = domain(&format!("cpus = <1>; {properties}"));
        let value = imported.source.lines().map(str::trim).find(|line| line.starts_with("memory = "));
        (value.unwrap_or_default().to_owned(), open(&imported).len())
    };
    let is = |text: &str| (format!("memory = /bits/ 64 <{text}>;"), 0);
    assert_eq!(memory("memory = <0 131072>;"), is("0x40000000 0x8000000"));
    assert_eq!(memory("memory = <131072>;"), is("0x40000000 0x8000000"));
    // Whole pages.
    assert_eq!(memory("memory = <0 5>;"), is("0x40000000 0x2000"));
    // Above 3 GiB Xen goes on in its second area.
    assert_eq!(memory("memory = <0 0x400000>;"), is("0x40000000 0xc0000000 0x200000000 0x40000000"));
    for nothing in
        ["", "memory = <0 0>;", "memory = \"much\";", "memory = <0xffffffff 0xffffffff>;", "memory;"]
    {
        assert_eq!(memory(nothing), (String::new(), 1), "{nothing}");
    }
    let (huge, _) = memory("memory = <0x3fffff 0xfffffff0>;");
    assert!(huge.starts_with("memory = /bits/ 64 <0x40000000 0xc0000000 0x200000000 0x"), "{huge}");
}

#[test]
fn static_memory_stays_where_it_is() {
    let sized = "#xen,static-mem-address-cells = <1>; #xen,static-mem-size-cells = <1>; cpus = <1>; vpl011;";
    let ranges = |properties: &str| {
        let imported = domain(&format!("{sized} memory = <0 0x60000>; {properties}"));
        let lines = imported.source.lines().map(str::trim);
        let kept = lines
            .filter(|line| ["memory", "physical", "console-a"].iter().any(|start| line.starts_with(start)));
        (kept.map(str::to_owned).collect::<Vec<_>>(), open(&imported).len())
    };
    let two = "xen,static-mem = <0x60000000 0x10000000 0x50000000 0x8000000>;";
    let expected = [
        "memory = /bits/ 64 <0x40000000 0x10000000 0x50000000 0x8000000>;",
        "physical-memory = /bits/ 64 <0x60000000 0x50000000>;",
        "console-address = /bits/ 64 <0x22000000>;",
    ];
    assert_eq!(ranges(two), (expected.map(str::to_owned).to_vec(), 0));
    let direct = [
        "memory = /bits/ 64 <0x60000000 0x10000000 0x50000000 0x8000000>;",
        "physical-memory = /bits/ 64 <0x60000000 0x50000000>;",
    ];
    assert_eq!(ranges(&format!("{two} direct-map;")), (direct.map(str::to_owned).to_vec(), 0));
    let (without, open) = ranges("direct-map;");
    assert_eq!((&without[0][..], open), ("memory = /bits/ 64 <0x40000000 0x18000000>;", 0));
    for malformed in ["xen,static-mem = <1>;", "xen,static-mem = [00];"] {
        assert_eq!(ranges(malformed).1, 1, "{malformed}");
    }
}

#[test]
fn a_domain_without_anything_is_told_so() {
    let source = "/dts-v1/; / { chosen { a { compatible = \"xen,domain\"; }; }; };";
    let imported = convert_with(source, None, &Payloads::default());
    assert_eq!(open(&imported).len(), 3, "{imported:?}");
    assert!(!faults(&imported.source, VIRT).is_empty());
    let wild = domain("cpus = <0xffffffff>; memory = <0 131072>;");
    assert!(wild.source.contains("cpus = <0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15>;"));
    assert_eq!(open(&wild), ["Xen's 4294967295 vCPUs are too many: a partition has at most 16 CPUs."]);
    for cpus in ["cpus = <0>;", "cpus = \"two\";", "cpus = <0 2>;"] {
        assert_eq!(open(&domain(&format!("{cpus} memory = <0 131072>;"))).len(), 1, "{cpus}");
    }
    let nothing = compiled("/dts-v1/; / { chosen { }; };");
    let nothing = Tree::new(&nothing).expect("a tree");
    let error = convert(&nothing, None, &Payloads::default(), "x.dts").expect_err("nothing to import");
    assert!(error.to_string().starts_with("x.dts has no domains"), "{error}");
}

#[test]
fn files_are_named_by_who_knows_them() {
    let linux = payloads(&[(0x4a00_0000, "boot/my-Image", image())]);
    let source = "/dts-v1/; / { chosen { g { compatible = \"xen,domain\"; #address-cells = <1>; #size-cells = <1>; cpus = <1>;
        memory = <0 131072>; module@1 { compatible = \"multiboot,module\"; reg = <0x4a000000 1>; bootargs = \"console=hvc0\"; };
        module@2 { compatible = \"multiboot,module\"; xen,uefi-binary = \"\\\\boot\\\\initrd.gz\"; }; }; }; };";
    let imported = convert_with(source, None, &linux);
    for line in [
        "kernel = \"my-Image\";",
        "os,type = \"linux\";",
        "ramdisk = \"initrd.gz\";",
        "bootargs = \"console=hvc0\";",
    ] {
        assert!(imported.source.contains(line), "{line}\n{}", imported.source);
    }
    assert_eq!(open(&imported).len(), 1, "the console: {imported:?}");
    let other = payloads(&[(0x4a00_0000, "zephyr.bin", vec![0; 64]), (0x1, "elsewhere", vec![])]);
    let imported = convert_with(source, None, &other);
    assert!(imported.source.contains("os,type = \"bare\";"));
    assert_eq!(open(&imported)[1], "--payload 0x1: no domain has a module at this address.");
    let compressed = payloads(&[(0x4a00_0000, "Image.gz", GZIP.to_vec())]);
    let imported = convert_with(source, None, &compressed);
    assert!(open(&imported)[0].starts_with("Image.gz is compressed."), "{imported:?}");
    assert!(imported.source.contains("os,type = \"linux\";"), "what is in there most likely");
    let config = tempfile::tempdir().expect("a folder");
    std::fs::write(config.path().join("kernel"), image()).expect("written");
    std::fs::write(
        config.path().join("config"),
        "MEMORY_START=\"0x0\"\nDOMU_KERNEL[0]=\"kernel\" # Linux\nNUM_DOMUS=1\nDOMU_CMD[0]=\"x\"\n",
    )
    .expect("written");
    let config = Payloads::read(&[], Some(&config.path().join("config"))).expect("a configuration");
    let imported = convert_with(&source.replace(" g {", " domU0 {"), None, &config);
    assert!(imported.source.contains("kernel = \"kernel\";"), "{imported:?}");
    let missing = tempfile::tempdir().expect("a folder");
    let path = missing.path().join("config");
    std::fs::write(&path, "DOMU_KERNEL[0]=\"none\"\n").expect("written");
    let error = Payloads::read(&[], Some(&path)).expect_err("there is no such file").to_string();
    assert!(error.ends_with("config: DOMU_KERNEL[0]=\"none\""), "{error}");
}

#[test]
fn names_are_cut_to_what_a_partition_may_have() {
    let long = "a-domain-with-a-name-that-is-long";
    let one = |end| {
        format!(
            "{long}{end} {{ compatible = \"xen,domain\"; #address-cells = <2>; #size-cells = <2>; cpus = <1>; \
             memory = <0 131072>; vpl011; module@1 {{ compatible = \"multiboot,kernel\", \"multiboot,module\"; \
             reg = <0 0x4a000000 0 0x1000>; }}; }};"
        )
    };
    let source = format!("/dts-v1/; / {{ chosen {{ {} {} }}; }};", one("-a"), one("-b"));
    let imported = convert_with(&source, Some(VIRT), &Payloads::default());
    for name in ["a-domain-with-a-name-that-is-lo {", "a-domain-with-a-name-that-is--2 {"] {
        assert!(imported.source.contains(name), "{}", imported.source);
    }
    assert_eq!(faults(&imported.source, VIRT), [""; 0], "{}", imported.source);
}

#[test]
fn devices_come_from_the_fragment() {
    let fragment = compiled(
        "/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; passthrough { compatible = \"simple-bus\"; ranges;
         #address-cells = <2>; #size-cells = <1>;
         rtc@1 { xen,path = \"/pl031@9010000\"; xen,reg = <0 0x9010000 0x1000 0 0x10000000>; };
         net@2 { xen,path = \"/virtio_mmio@a000000\"; xen,reg = <0 0xa000000 0x1000 0 0xa000000>; xen,force-assign-without-iommu; };
         odd@3 { xen,reg = <1 2 3>; };
         none@4 { xen,path = \"/none@4\"; xen,reg = <0 4 4 0 4>; };
         clk1 { compatible = \"fixed-clock\"; }; }; };",
    );
    let source = "/dts-v1/; / { #address-cells = <2>; #size-cells = <2>; pl061@9030000 { xen,passthrough; };
        pl031@9010000 { xen,passthrough; }; chosen { g { compatible = \"xen,domain\"; #address-cells = <2>; #size-cells = <2>;
        cpus = <1>; memory = <0 131072>; vpl011;
        module@1 { compatible = \"multiboot,kernel\", \"multiboot,module\"; reg = <0 1 0 1>; };
        module@2 { compatible = \"multiboot,device-tree\", \"multiboot,module\"; reg = <0 2 0 1>; }; }; }; };";
    let imported = convert_with(source, Some(VIRT), &payloads(&[(2, "passthrough.dtb", fragment)]));
    for line in [
        "access = \"/pl031@9010000\", \"/virtio_mmio@a000000\", \"/none@4\";",
        "unprotected-dma = \"/virtio_mmio@a000000\";",
    ] {
        assert!(imported.source.contains(line), "{line}\n{}", imported.source);
    }
    let texts: String =
        imported.remarks.iter().map(|remark| format!("{} {}\n", remark.open, remark.text)).collect();
    for text in [
        "false /pl031@9010000 is at 0x9010000, where the board has it; Xen showed it at 0x10000000.",
        "true odd@3 has no xen,path",
        "true The board's tree has no /none@4.",
        "true xen,force-assign-without-iommu",
        "false /pl061@9030000 is marked xen,passthrough and no partition above has it",
    ] {
        assert!(texts.contains(text), "{text}\n{texts}");
    }
    assert!(!texts.contains("/pl031@9010000 is marked"));
    let absent = convert_with(source, None, &Payloads::default());
    assert!(open(&absent)[0].contains("import with --payload 0x2=FILE"), "{absent:?}");
    let broken = convert_with(source, None, &payloads(&[(2, "passthrough.dtb", b"no tree".to_vec())]));
    assert!(open(&broken)[0].starts_with("passthrough.dtb: "), "{broken:?}");
}

#[test]
fn what_has_no_counterpart_is_said() {
    let imported = domain(
        "cpus = <1>; memory = <0 131072>; nr_spis = <8>; vtsc; xen,enhanced = \"enabled\";
         events { compatible = \"xen,evtchn-v1\"; xen,evtchn = <1 2>; };",
    );
    let texts: Vec<_> = imported.remarks.iter().map(|remark| remark.text.as_str()).collect();
    for start in [
        "nr_spis is left out:",
        "vtsc is left out:",
        "xen,enhanced is left out:",
        "events is left out:",
        "Without vpl011",
    ] {
        assert!(texts.iter().any(|text| text.starts_with(start)), "{start}\n{texts:?}");
    }
    let chosen = "/dts-v1/; / { chosen { xen,xen-bootargs = \"x\"; xen,dom0-bootargs = \"y\"; xen,odd;
        pool { compatible = \"xen,cpupool\"; }; dom0 { compatible = \"xen,linux-zimage\", \"xen,multiboot-module\"; };
        g { compatible = \"xen,domain\"; }; }; };";
    assert_eq!(
        convert_with(chosen, None, &Payloads::default()).remarks.iter().filter(|r| !r.open).count(),
        6
    );
}

#[test]
fn many_domains() {
    for count in [32, 40] {
        let domains: String = (0..count)
            .map(|n| {
                format!(
                    "domU@{n} {{ compatible = \"xen,domain\"; cpus = <1>; memory = <0 65536>; #address-cells = <1>;
                     #size-cells = <1>; k {{ compatible = \"multiboot,module\"; reg = <{n} 1>; }}; }};"
                )
            })
            .collect();
        let source = format!("/dts-v1/; / {{ chosen {{ {domains} }}; }};");
        let imported = convert_with(&source, None, &Payloads::default());
        let blob = compiled(&imported.source);
        let tree = Tree::new(&blob).expect("a tree");
        assert_eq!(tree.find("/partitions").expect("there").children().count(), count);
        assert!(imported.source.contains(&format!("cpus = <{}>;", count - 1)));
    }
}

/// Bytes of a sound tree, some of them changed: an import, or an error.
#[test]
fn any_tree_has_an_answer() {
    let sound = compiled(TWO_LINUX);
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as usize
    };
    let mut imported = 0;
    for round in 0..3000 {
        let mut mutant = sound.clone();
        for _ in 0..=random() % 3 {
            let at = random() % mutant.len();
            mutant[at] = random() as u8;
        }
        let Ok(tree) = Tree::new(&mutant) else { continue };
        let board = Tree::new(VIRT).expect("a board");
        let Ok(import) =
            convert(&tree, Some(&board), &payloads(&[(0x5000_0000, "x", mutant.clone())]), "*/ x")
        else {
            continue;
        };
        imported += 1;
        if round % 50 == 0 {
            compiled(&import.source);
        }
    }
    assert!(imported > 500, "{imported}");
}
