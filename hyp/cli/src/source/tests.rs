use std::fs;

use tempfile::TempDir;

use super::*;

/// A folder with these files.
fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    folder
}

fn read(folder: &TempDir) -> Result<Source> {
    Source::read(&folder.path().join("a.dts"), &Ok).map(|(_, source)| source)
}

/// File, line and text of a place.
fn shown(folder: &TempDir, source: &Source, at: &Location, nth: usize) -> String {
    let span = source.find(at, nth, Part::Value).expect("a place");
    let file = source.files.get(span.file);
    let path = file.path.strip_prefix(folder.path()).expect("in the folder").display();
    format!("{path}:{}: {}", source.files.positions(&span).0.line, &file.text[span.range])
}

/// What is found in sources that do not compile: file, line, marked text and message.
fn refused(folder: &TempDir) -> Vec<String> {
    let findings = read(folder).expect_err("it does not compile").downcast::<Findings>().expect("findings");
    let one = |placed: &Placed| {
        let Some(span) = &placed.span else { return placed.diagnostic.message.clone() };
        let file = findings.files().get(span.file);
        let path = file.path.strip_prefix(folder.path()).expect("in the folder").display();
        let line = findings.files().positions(span).0.line;
        format!("{path}:{line}: [{}] {}", &file.text[span.range.clone()], placed.diagnostic.message)
    };
    findings.iter().map(one).collect()
}

#[test]
fn a_syntax_error_has_the_mend_of_what_stands_there() {
    for (text, part) in [
        ("", "/dts-v1/"),
        ("/dts-v1/;\n/ { a = <0, 1>; };\n", "commas"),
        ("/dts-v1/;\n#define A 1\n/ { a = <B>; };\n", "no macro of this name"),
        ("/dts-v1/;\n/ { a {\n};\n", "a `};` is missing"),
        ("/dts-v1/;\n/ { a = <1>\nb; };\n", "a `;` is missing"),
        ("/dts-v1/;\n/ { a b; };\n", "mend what the compiler names"),
        ("/dts-v1/;\n/ { };\n&b { };\n", "put the label before the node"),
    ] {
        let folder = folder(&[("a.dts", text)]);
        let findings = read(&folder).expect_err("no compilation").downcast::<Findings>().expect("findings");
        let help = findings.iter().next().and_then(|placed| placed.diagnostic.help.clone());
        assert!(help.as_ref().is_some_and(|help| help.contains(part)), "{text}: {help:?}");
    }
}

#[test]
fn entries_values_names_and_nodes_are_found() {
    let text = r#"/dts-v1/;
/ {
    partitions {
        linux {
            cpus = <0 1
                    (1 + 1)>; access = "/a", "/b\";";
            a: memory = /bits/ 64 <0x40000000 0x1000>, l: <2 3>;
            flag;
        };
    };
};
"#;
    let folder = folder(&[("a.dts", text)]);
    let source = read(&folder).expect("it compiles");
    let path = "/partitions/linux";
    for (at, expected) in [
        (Location::entry(path, "cpus", 2), "a.dts:6: (1 + 1)"),
        (Location::entry(path, "cpus", 3), "a.dts:5: <0 1\n                    (1 + 1)>"),
        (Location::entry(path, "access", 1), "a.dts:6: \"/b\\\";\""),
        (Location::entry(path, "memory", 1), "a.dts:7: 0x1000"),
        (Location::property(path, "flag"), "a.dts:8: flag"),
        (Location::property(path, "kernel"), "a.dts:4: linux"),
        (Location::node("/partitions"), "a.dts:3: partitions"),
        (Location::node("/partitions/other"), "a.dts:3: partitions"),
        (Location::node("/"), "a.dts:2: /"),
    ] {
        assert_eq!(shown(&folder, &source, &at, 0), expected, "{at}");
    }
}

#[test]
fn two_cells_are_one_long_number() {
    let text = "/dts-v1/;\n/ { a { memory = <0 0x40000000>,\n <0 0x1000>; entry = /bits/ 64 <7>; cpus = <&b>; };\n b: b { }; };\n";
    let folder = folder(&[("a.dts", text)]);
    let source = read(&folder).expect("it compiles");
    for (at, expected) in [
        (Location::entry("/a", "memory", 0), "a.dts:2: 0 0x40000000"),
        (Location::entry("/a", "memory", 1), "a.dts:3: 0 0x1000"),
        (Location::entry("/a", "memory", 2), "a.dts:2: <0 0x40000000>,\n <0 0x1000>"),
        (Location::entry("/a", "entry", 0), "a.dts:3: 7"),
        // dtc makes it.
        (Location::property("/b", "phandle"), "a.dts:4: b"),
    ] {
        assert_eq!(shown(&folder, &source, &at, 0), expected, "{at}");
    }
}

#[test]
fn forms_that_the_blob_no_longer_tells_are_found() {
    let found = |properties: &str| {
        let folder =
            folder(&[("a.dts", &format!("/dts-v1/; / {{ partitions {{ a {{ {properties} }}; }}; }};"))]);
        let found = read(&folder).expect("it compiles").other_forms();
        found.into_iter().map(|found| found.at.property.expect("a property")).collect::<Vec<_>>()
    };
    let right = "cpus = <0 1>, <2>; kernel = \"a <b> /bits/ 64\"; memory = /bits/ 64 <0 1>; entry = <0 1>; \
                 console-interrupt = /bits/ 32 <1>; other = /bits/ 16 <1>; access = \"/a\", \"/b\"; polled;";
    assert_eq!(found(right), [""; 0]);
    let wrong = "cpus = /bits/ 64 <2>; gpio-pins = \"0 1\"; kernel = <0x61626300>; entry = \"1234567\"; \
                 memory = /bits/ 16 <0 0 0 1 0 0 0 1>; dma-channels = /bits/ 16 <0 1>;";
    assert_eq!(found(wrong), ["cpus", "dma-channels", "entry", "gpio-pins", "kernel", "memory"]);
}

#[test]
fn what_is_included_is_in_its_own_file() {
    let folder = folder(&[
        ("a.dts", "/dts-v1/;\n/ { partitions { }; };\n/include/ \"parts/b.dtsi\"\n"),
        ("parts/b.dtsi", "/ { partitions { rtos { cpus = <3>; }; }; };\n/include/ \"c.dtsi\"\n"),
        ("parts/c.dtsi", "/ { partitions { rtos {\n kernel = \"k\"; }; }; };\n"),
    ]);
    let source = read(&folder).expect("it compiles");
    let path = "/partitions/rtos";
    assert_eq!(shown(&folder, &source, &Location::entry(path, "cpus", 0), 0), "parts/b.dtsi:1: 3");
    assert_eq!(shown(&folder, &source, &Location::property(path, "kernel"), 0), "parts/c.dtsi:2: \"k\"");
}

#[test]
fn macros_are_shown_as_they_were_written() {
    let text = "/dts-v1/;\n#include \"sub/board.h\"\n/ {\n #address-cells = <2>;\n \
        a { /* a comment */   cpus   = <CPUS  7>;  memory = /bits/ 64 <RAM(1)\n  0x1000>;\n#ifdef NONE\n b = <1>;\n\
        #endif\n  GIVEN; }; };\n";
    let folder = folder(&[
        ("a.dts", text),
        ("sub/board.h", "#include \"ram.h\"\n#define CPUS 0 1\n#define GIVEN c = <1>\n"),
        ("sub/ram.h", "#define RAM(n) (0x40000000 + (n))\n"),
    ]);
    let source = read(&folder).expect("it compiles");
    for (at, expected) in [
        // One macro stands for two CPUs, so the third cannot be told from the second.
        (Location::entry("/a", "cpus", 2), "a.dts:5: <CPUS  7>"),
        (Location::entry("/a", "memory", 0), "a.dts:5: RAM(1)"),
        (Location::entry("/a", "memory", 1), "a.dts:6: 0x1000"),
        (Location::property("/a", "c"), "a.dts:10: GIVEN; }; };"),
        (Location::property("/", "#address-cells"), "a.dts:4: <2>"),
    ] {
        assert_eq!(shown(&folder, &source, &at, 0), expected, "{at}");
    }
}

#[test]
fn what_is_given_twice_is_told_apart() {
    let folder = folder(&[("a.dts", "/dts-v1/;\n/ {\n a { b = <1>; b = <2>; };\n a { };\n};\n")]);
    let source = read(&folder).expect("the rules find it, not the compiler");
    assert_eq!(shown(&folder, &source, &Location::node("/a"), 0), "a.dts:3: a");
    assert_eq!(shown(&folder, &source, &Location::node("/a"), 1), "a.dts:4: a");
    assert_eq!(shown(&folder, &source, &Location::property("/a", "b"), 0), "a.dts:3: <1>");
    assert_eq!(shown(&folder, &source, &Location::property("/a", "b"), 1), "a.dts:3: <2>");
}

#[test]
fn places_are_those_of_the_file_when_its_text_is_changed() {
    let folder = folder(&[("a.dts", "/dts-v1/;\n/ { a = \"x\"; b = <1>; };\n")]);
    let change = |text: String| Ok(text.replace("\"x\"", "\"x and much more\""));
    let (blob, source) = Source::read(&folder.path().join("a.dts"), &change).expect("it compiles");
    assert!(blob.windows(10).any(|bytes| bytes == b"x and much"));
    assert_eq!(shown(&folder, &source, &Location::property("/", "b"), 0), "a.dts:2: <1>");
}

#[test]
fn what_does_not_compile_has_its_place() {
    for (files, expected) in [
        (vec![("a.dts", "/dts-v1/;\n/ { a = <1> b; };\n")], "a.dts:2: [b] syntax error"),
        (
            vec![("a.dts", "/dts-v1/;\n/ {\n a = <0x1ffffffff>; };\n")],
            "a.dts:3: [0x1ffffffff] Value out of range for 32-bit array element",
        ),
        (
            vec![("a.dts", "/dts-v1/;\n/include/ \"b.dtsi\"\n/ { };\n")],
            "a.dts:2: [\"b.dtsi\"] Couldn't open \"b.dtsi\": No such file or directory",
        ),
        (
            vec![("a.dts", "/dts-v1/;\n#include \"b.h\"\n/ { };\n")],
            "a.dts:2: [\"b.h\"] b.h: No such file or directory",
        ),
        (
            vec![("a.dts", "/dts-v1/;\n#ifdef A\n#else\n#error no A\n#endif\n/ { };\n")],
            "a.dts:4: [error no A] #error no A",
        ),
        (
            vec![("a.dts", "/dts-v1/;\n/include/ \"b.dtsi\"\n"), ("b.dtsi", "/ { a = ; };\n")],
            "b.dtsi:1: [;] syntax error",
        ),
        (
            vec![("a.dts", "/dts-v1/;\n/ {\n a = <&b>; };\n")],
            "a.dts:3: [&b] /: Reference to non-existent node or label \"b\"",
        ),
        (vec![("a.dts", "")], "a.dts:1: [] syntax error"),
    ] {
        let found = refused(&folder(&files));
        assert!(found.iter().any(|found| found == expected), "{expected}\n{found:#?}");
    }
}

#[test]
fn a_fault_is_named_once() {
    for (text, expected) in [
        ("a = /bits/ 65 <1>;", "a.dts:3: [65] Array elements must be 8, 16, 32 or 64-bits"),
        ("a = <(1 / 0)>;", "a.dts:3: [1 / 0] Division by zero"),
        ("a = 'bare';", "a.dts:3: ['bare'] Character literal has 4 characters instead of 1"),
    ] {
        let folder = folder(&[("a.dts", &format!("/dts-v1/;\n/ {{\n{text} }};\n"))]);
        assert_eq!(refused(&folder), [expected]);
    }
}

#[test]
fn of_what_no_node_has_dtc_need_not_warn() {
    let folder =
        folder(&[("a.dts", "/dts-v1/;\n/ { a { reg = /bits/ 64 <0x40000000 0x1000>; }; b@1 { }; };\n")]);
    let warnings = read(&folder).expect("it compiles").warnings;
    let messages: Vec<_> = warnings.iter().map(|placed| placed.diagnostic.message.as_str()).collect();
    assert_eq!(messages, ["/b@1: node has a unit name, but no reg or ranges property"]);
}

#[test]
fn includes_of_what_is_no_file_are_refused_at_their_places() {
    let text = "/dts-v1/;\n/include/ \".\"\n/include/ \"b.dtsi\"\n/* /include/ \"fifo\" */\n/ { };\n";
    let folder =
        folder(&[("a.dts", text), ("b.dtsi", "/ { a = /incbin/(\"fifo\"); };\n#include \"fifo\"\n")]);
    let made = Command::new("mkfifo").arg(folder.path().join("fifo")).status().expect("mkfifo");
    assert!(made.success());
    let is = "\"fifo\" is a device or a pipe, not a file";
    let expected = [
        "a.dts:2: [\".\"] \".\" is a folder, not a file".to_owned(),
        format!("b.dtsi:1: [\"fifo\"] {is}"),
        format!("b.dtsi:2: [\"fifo\"] {is}"),
    ];
    assert_eq!(refused(&folder), expected);
}

#[test]
fn a_circle_of_includes_has_a_place() {
    let folder = folder(&[
        ("a.dts", "/dts-v1/;\n/include/ \"b/b.dtsi\"\n/ { };\n"),
        ("b/b.dtsi", "/* nothing */\n/include/ \"c.dtsi\"\n"),
        ("b/c.dtsi", "/include/ \"../b/b.dtsi\"\n"),
    ]);
    assert_eq!(refused(&folder), ["b/c.dtsi:1: [\"../b/b.dtsi\"] Includes nested too deeply"]);
}

#[test]
fn what_never_ends_is_ended() {
    let started = Instant::now();
    let mut command = Command::new("sleep");
    let error = pipe_within(Duration::from_millis(100), command.arg("600"), b"").expect_err("it sleeps");
    assert!(error.to_string().starts_with("it did not end"), "{error:#}");
    assert!(started.elapsed() < Duration::from_secs(300));
}

#[test]
fn what_a_manifest_has_no_use_for_is_warned_of() {
    let text = "/dts-v1/;\n/plugin/;\n/* /memreserve/ */\n/memreserve/ 0x1000 0x1000;\n/ { };\n";
    let source = read(&folder(&[("a.dts", text)])).expect("it compiles");
    let warnings: Vec<_> = source.warnings.iter().map(|placed| placed.diagnostic.message.as_str()).collect();
    assert_eq!(
        warnings,
        ["/memreserve/ has no effect in a manifest", "/plugin/ has no effect in a manifest"]
    );
    let span = source.warnings[0].span.as_ref().expect("a place");
    assert_eq!(source.files.positions(span).0.line, 4);
}

#[test]
fn any_bytes_are_read() {
    for bytes in [
        &b"\0\0\0"[..],
        b"\xff\xfe/dts-v1/;",
        b"/dts-v1/; / { a = \"\xe4\"; };",
        b"# 1 \"x\"\n",
        b"#include\n",
    ] {
        let folder = folder(&[]);
        fs::write(folder.path().join("a.dts"), bytes).expect("a file");
        if let Err(error) = read(&folder) {
            assert!(error.is::<Findings>(), "{bytes:?}: {error:#}");
        }
    }
}

#[test]
fn a_compiled_tree_is_taken_as_it_is() {
    let blob = compiled("/dts-v1/; / { a; };");
    let folder = folder(&[]);
    fs::write(folder.path().join("a.dts"), &blob).expect("a file");
    let (read, source) = Source::read(&folder.path().join("a.dts"), &Ok).expect("a tree");
    assert_eq!(read, blob);
    assert_eq!(source.find(&Location::node("/"), 0, Part::Value), None);
}
