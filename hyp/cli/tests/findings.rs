//! What is found is shown where it is, alike as text, JSON and SARIF.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use bulkhead::diagnostic::{Diagnostic, Location, Severity};
use bulkhead::findings::Findings;
use bulkhead::reference::{Subject, subjects};
use bulkhead::render::{Format, render};
use bulkhead::source::{Source, Span, dtc};
use bulkhead::warnings::CODES;
use bulkhead::{explain, rules, system};
use bulkhead_boards::BOARDS;
use bulkhead_fixtures::Manifest;
use bulkhead_policy::addr::{Pa, Region};
use bulkhead_policy::manifest::{self, DTB_SPACE, Key, Rule};
use bulkhead_policy::platform::{BUNDLE, HYPERVISOR, Platform, Reservation};
use bulkhead_policy::tree::Tree;
use serde_json::Value;

const MANIFEST: &str = "/dts-v1/;

/ {
    partitions {
        rtos {
            cpus = <3 2>;
            bootargs = \"\u{e4}\";  memroy = <1>;
        };
        rtos { };
    };
};
/include/ \"linux.dtsi\"
";
const LINUX: &str = "/ {
    partitions {
        linux { cpus = <0 1 2>; };
    };
};
";

/// Findings about the manifest above, out of order.
fn findings() -> (tempfile::TempDir, Findings) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("a.dts"), MANIFEST).expect("a file");
    fs::write(folder.path().join("linux.dtsi"), LINUX).expect("a file");
    let (_, source) = Source::read(&folder.path().join("a.dts"), &Ok).expect("it compiles");
    let one = |code: &str, message: &str, at: Location| Diagnostic {
        code: code.to_owned(),
        severity: Severity::Error,
        message: message.to_owned(),
        at,
        other: None,
        notes: Vec::new(),
        help: None,
    };
    let rtos = "/partitions/rtos";
    let found = vec![
        one("BH0012", "unknown property", Location::property(rtos, "memroy")),
        Diagnostic {
            other: Some((Location::node(rtos), "given here first".to_owned())),
            ..one("BH0014", "two nodes", Location::node(rtos))
        },
        Diagnostic {
            severity: Severity::Warning,
            notes: vec!["a note".to_owned()],
            help: Some("do this".to_owned()),
            ..one("BH0901", "a warning", Location::property(rtos, "bootargs"))
        },
        Diagnostic {
            other: Some((Location::entry("/partitions/linux", "cpus", 2), "/partitions/linux".to_owned())),
            ..one("BH0103", "cpu 2 is taken", Location::entry(rtos, "cpus", 1))
        },
    ];
    (folder, Findings::place(&source, found))
}

#[test]
fn text_underlines_what_is_meant_in_the_order_of_the_lines() {
    let (folder, findings) = findings();
    let text = anstream::adapter::strip_str(&render(&findings, Format::Text)).to_string();
    let text = text.replace(&format!("{}/", folder.path().display()), "");
    let expected = r#"error[BH0103]: cpu 2 is taken
 --> a.dts:6:23
  |
6 |             cpus = <3 2>;
  |                       ^ /partitions/rtos
  |
 ::: linux.dtsi:3:29
  |
3 |         linux { cpus = <0 1 2>; };
  |                             - /partitions/linux
  |
  = help: give each CPU to one partition

warning[BH0901]: a warning
 --> a.dts:7:24
  |
7 |             bootargs = "ä";  memroy = <1>;
  |                        ^^^ /partitions/rtos
  |
  = note: a note
  = help: do this

error[BH0012]: unknown property
 --> a.dts:7:30
  |
7 |             bootargs = "ä";  memroy = <1>;
  |                              ^^^^^^ /partitions/rtos
  |
  = help: correct the property's name or take the property out

error[BH0014]: two nodes
 --> a.dts:9:9
  |
5 |         rtos {
  |         ---- given here first
...
9 |         rtos { };
  |         ^^^^ /partitions/rtos
  |
  = help: rename one of them, or make them one

3 errors, 1 warning
"#;
    assert_eq!(text, expected);
}

#[test]
fn json_has_the_fields_that_the_book_lists() {
    let (_folder, findings) = findings();
    let document: Value = serde_json::from_str(&render(&findings, Format::Json)).expect("JSON");
    assert_eq!((&document["errors"], &document["warnings"]), (&3.into(), &1.into()));
    let first = &document["findings"][0];
    for (field, value) in
        [("code", "BH0103"), ("severity", "error"), ("path", "/partitions/rtos"), ("property", "cpus")]
    {
        assert_eq!(first[field], value);
    }
    for (field, value) in [("line", 6), ("column", 23), ("end_line", 6), ("end_column", 24), ("entry", 1)] {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!((&first["other"]["line"], &first["other"]["entry"]), (&3.into(), &2.into()));
    // Columns are characters, and a string of one umlaut has three.
    let warning = &document["findings"][1];
    assert_eq!((&warning["column"], &warning["end_column"]), (&24.into(), &27.into()));
    let book = include_str!("../../docs/check-json.md");
    let fields = document.as_object().into_iter().chain(first.as_object()).flatten();
    for (field, _) in fields.filter(|(field, _)| *field != "findings") {
        assert!(book.contains(&format!("`{field}`")), "hyp/docs/check-json.md has no {field}");
    }
}

#[test]
fn sarif_has_rules_places_and_the_other_party() {
    let (folder, findings) = findings();
    let document: Value = serde_json::from_str(&render(&findings, Format::Sarif)).expect("JSON");
    assert_eq!(document["version"], "2.1.0");
    let run = &document["runs"][0];
    let rules = run["tool"]["driver"]["rules"].as_array().expect("rules");
    let results = run["results"].as_array().expect("results");
    assert_eq!(results.len(), 4);
    for result in results {
        let index = result["ruleIndex"].as_u64().expect("an index") as usize;
        assert_eq!(rules[index]["id"], result["ruleId"]);
        assert!(!rules[index]["help"]["text"].as_str().expect("help").is_empty());
    }
    let place = |location: &Value| location["physicalLocation"]["region"]["startLine"].clone();
    assert_eq!(place(&results[0]["locations"][0]), 6);
    assert_eq!(place(&results[0]["relatedLocations"][0]), 3);
    assert_eq!(results[1]["level"], "warning");
    let uri = results[0]["relatedLocations"][0]["physicalLocation"]["artifactLocation"]["uri"].clone();
    assert_eq!(uri, format!("file://{}/linux.dtsi", folder.path().display()));
}

#[test]
fn a_value_without_bits_64_is_told_so() {
    let folder = tempfile::tempdir().expect("a folder");
    let said = |code: &str, property: &str, value: &str| {
        let path = folder.path().join("a.dts");
        let text = format!("/dts-v1/;\n/ {{ partitions {{ a {{ {property} = {value}; }}; }}; }};\n");
        fs::write(&path, text).expect("a file");
        let (_, source) = Source::read(&path, &Ok).expect("it compiles");
        let one = Diagnostic {
            code: code.to_owned(),
            severity: Severity::Error,
            message: String::new(),
            at: Location::entry("/partitions/a", property, 0),
            other: None,
            notes: Vec::new(),
            help: None,
        };
        let findings = Findings::place(&source, vec![one]);
        let help = findings.iter().next().expect("one").diagnostic.help.clone();
        help.is_some_and(|help| help.starts_with("write `/bits/ 64` before"))
    };
    assert!(said("BH0201", "memory", "<0x40000000 0x1000000>"));
    assert!(said("BH0204", "memory", "<0x40000000 0x8000000 0x80000000 0x1000>"));
    assert!(said("BH0020", "load-address", "<0x40200000>"));
    assert!(!said("BH0201", "memory", "/bits/ 64 <0x40000000>"));
    assert!(!said("BH0204", "memory", "<0x80 0 0 0x1000>"));
    assert!(!said("BH0020", "cpus", "<1>"));
    assert!(!said("BH0209", "memory", "<0x40000000 0x1000>"));
}

/// The reference says of each rule what it can be about; the fixtures show what it is about.
#[test]
fn the_reference_lists_each_rule_where_it_is_raised() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/manifests");
    let boards: Vec<_> =
        files(&folder.join("boards"), "dtb").iter().map(|path| fs::read(path).expect("a tree")).collect();
    let mut image = vec![0; 4096];
    image[56..60].copy_from_slice(b"ARM\x64");
    let bare = [0xd5; 4096];
    let (mut seen, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for path in files(&folder, "dts").iter().chain(&files(&folder.join("rules"), "dts")) {
        let source = fs::read_to_string(path).expect("a source");
        let Ok((Some(blob), _)) = dtc(&source, &folder) else { continue };
        let tree = Tree::new(&blob).expect("a tree");
        for board in &boards {
            let board = Tree::new(board).expect("a tree");
            let Ok(mut platform) = Platform::from_tree(&board, &BOARDS) else { continue };
            let found = manifest::check(&tree, &mut platform, &board, &|name| match name {
                "Image" => Some(&image[..]),
                "empty.bin" => Some(&[]),
                _ => Some(&bare[..]),
            });
            for finding in found.err().into_iter().flatten() {
                let key = Key::ALL.iter().find(|key| key.name() == finding.at.property);
                let subject = match key {
                    Some(key) if finding.at.node.path() != "/" => Subject::Key(*key),
                    Some(_) if finding.rule != Rule::PropertyTwice => Subject::RootConsole,
                    _ => Subject::Nodes,
                };
                let subject = if finding.rule == Rule::PropertyTwice { Subject::Nodes } else { subject };
                if !subjects(finding.rule).contains(&subject) {
                    missing.insert(format!("BH{}: {subject:?}", finding.rule.code()));
                }
                seen.insert(finding.rule.code());
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(seen.len() > 80, "{seen:?}");
}

/// The files of this kind in a folder and those below it.
fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for path in fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()) {
        if path.is_dir() && !path.ends_with("boards") {
            found.extend(files(&path, extension));
        } else if path.extension().is_some_and(|found| found == extension) {
            found.push(path);
        }
    }
    found
}

/// The board's tree; of the Raspberry Pi's with devices that firmware enables when it is told to. The board `large` is `sharing`
/// with a device whose node alone is larger than what is kept for a guest's tree.
fn board(name: &str) -> Vec<u8> {
    if name == "large" {
        let sharing = bulkhead_fixtures::folder().join("boards/sharing.dts");
        let sharing = fs::read_to_string(sharing).expect("the board");
        let note = "x".repeat(DTB_SPACE as usize);
        let source = format!("{sharing}/ {{ timer@a002000 {{ note = \"{note}\"; }}; }};");
        let (blob, messages) = dtc(&source, Path::new(".")).expect("dtc runs");
        return blob.unwrap_or_else(|| panic!("{messages}"));
    }
    if name != "rpi4" {
        return bulkhead_fixtures::board(name);
    }
    let blob = bulkhead_fixtures::folder().join("boards/rpi4-qemu.dtb");
    let mut source =
        String::from_utf8(bulkhead_fixtures::dtc(&["-I", "dtb", "-O", "dts"], &blob)).expect("text");
    for device in ["serial@7e201400", "serial@7e201600", "spi@7e204600", "spi@7e204800"] {
        source += &format!("&{{/soc/{device}}} {{ status = \"okay\"; }};\n");
    }
    let (blob, messages) = dtc(&source, Path::new(".")).expect("dtc runs");
    blob.unwrap_or_else(|| panic!("{messages}"))
}

/// What the tool finds in a fixture, the warnings of its own aside.
fn found(manifest: &Manifest) -> Findings {
    let (blob, source) = match Source::read(&manifest.path, &Ok) {
        Ok(read) => read,
        Err(error) => return error.downcast().expect("findings"),
    };
    let board = board(manifest.board());
    let (board, tree) = (Tree::new(&board).expect("a tree"), Tree::new(&blob).expect("a tree"));
    let mut platform = Platform::from_tree(&board, &BOARDS).expect("a complete board");
    for (start, size, holder) in [(0x4000_0000, 2 << 20, HYPERVISOR), (0x4800_0000, 14 << 20, BUNDLE)] {
        let region = Region::new(Pa::new(start), size).expect("a region");
        platform.reserved.push(Reservation { region, holder });
    }
    let checked = manifest::check(&tree, &mut platform, &board, &|name| bulkhead_fixtures::payload(name));
    let all = match checked {
        Ok(plan) => system::too_large_trees(&plan, &platform, &board),
        Err(findings) => findings.iter().map(rules::plain).collect(),
    };
    Findings::place(&source, all)
}

#[test]
fn each_rule_is_found_at_its_line_and_the_other_party_at_its_own() {
    let fixtures = bulkhead_fixtures::rules();
    // The other warnings have a test of their own.
    let mut fixtures: Vec<_> = fixtures.into_iter().filter(|rule| !CODES.contains(&&*rule.code)).collect();
    fixtures.retain(|rule| explain::page_of(&rule.code).is_some());
    assert_eq!(
        fixtures.len() + CODES.len(),
        explain::pages().len(),
        "a folder in tests/manifests/rules for each rule"
    );
    for rule in fixtures {
        let findings = found(&rule.invalid);
        let all: Vec<_> = findings.iter().collect();
        let [one] = all[..] else { panic!("{}: {findings}", rule.code) };
        assert_eq!(one.diagnostic.code, rule.code);
        let line = |span: &Span| findings.files().positions(span).0.line;
        let marked = |mark| rule.invalid.marked(mark).map(|line| line.number);
        assert_eq!(one.span.as_ref().map(line), marked(&rule.code), "{}: {findings}", rule.code);
        assert_eq!(
            one.other.as_ref().map(line),
            marked(bulkhead_fixtures::OTHER),
            "{}: {findings}",
            rule.code
        );
        assert!(one.diagnostic.help.is_some(), "{}", rule.code);
        let findings = found(&rule.valid);
        assert_eq!(findings.counts(), (0, 0), "{}: {findings}", rule.code);
    }
}
