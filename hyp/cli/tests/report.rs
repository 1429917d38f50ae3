//! `report` as it is typed: standard output, files, comparisons.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

/// Two bare partitions; the second has all that is in `more`.
fn manifest(more: &str) -> String {
    format!(
        r#"/dts-v1/;
/ {{
    compatible = "bulkhead,manifest-v1";
    partitions {{
        one {{
            os,type = "bare";
            cpus = <0>;
            memory = /bits/ 64 <0x40000000 0x1000000>;
            kernel = "guest.raw";
            console = "pl011";
        }};
        two {{
            os,type = "bare";
            cpus = <1>;
            memory = /bits/ 64 <0x40000000 0x200000>;
            kernel = "guest.raw";
            {more}
        }};
    }};
}};
"#
    )
}

/// Runs the tool in a folder.
fn tool(folder: &Path, arguments: &[&str]) -> Output {
    let mut tool = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
    let output = tool.current_dir(folder).arg("report").args(arguments).output().expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}\n{errors}");
    output
}

fn stdout(folder: &Path, arguments: &[&str]) -> String {
    String::from_utf8(tool(folder, arguments).stdout).expect("text")
}

#[test]
fn documents_go_where_they_are_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path();
    fs::write(path.join("guest.raw"), [0; 4096]).expect("written");
    fs::write(path.join("old.dts"), manifest("")).expect("written");
    fs::write(path.join("new.dts"), manifest("access = \"/pl031@9010000\";")).expect("written");

    // Standard output has the document and nothing else, the same each time.
    let text = stdout(path, &["new.dts"]);
    assert!(text.starts_with("new.dts on QEMU virt: 2 partitions\n"), "{text}");
    let json = stdout(path, &["new.dts", "--format", "json"]);
    let data: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(data["format"], "bulkhead-report-v1");
    let svg = stdout(path, &["new.dts", "--format", "svg"]);
    roxmltree::Document::parse(&svg).expect("XML");
    let trees = stdout(path, &["new.dts", "--trees"]);
    assert!(trees.contains("/* two */") && trees.contains("pl031@9010000"), "{trees}");

    // All of it in a folder.
    assert!(tool(path, &["new.dts", "--out", "all"]).stdout.is_empty());
    let mut names: Vec<_> = fs::read_dir(path.join("all"))
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    assert_eq!(names, ["memory.svg", "one.dts", "report.json", "report.txt", "two.dts"]);
    let read = |name: &str| fs::read_to_string(path.join("all").join(name)).expect("text");
    assert_eq!((read("report.txt"), read("report.json"), read("memory.svg")), (text, json, svg));

    // What a manifest and what a saved report is compared with makes no difference.
    let diff = stdout(path, &["new.dts", "--diff", "old.dts"]);
    assert!(diff.contains("\ntwo\n  + device /pl031@9010000: all (was nobody's)\n"), "{diff}");
    assert!(!diff.contains("\none\n"), "{diff}");
    tool(path, &["old.dts", "--format", "json", "--out", "old.json"]);
    assert_eq!(stdout(path, &["new.dts", "--diff", "old.json"]), diff);
    let data = stdout(path, &["new.dts", "--diff", "old.json", "--format", "json"]);
    let data: serde_json::Value = serde_json::from_str(&data).expect("JSON");
    let lines = diff.lines().filter(|line| line.starts_with("  ")).count();
    assert_eq!(data["changes"].as_array().map(Vec::len), Some(lines));
    let same = stdout(path, &["new.dts", "--diff", "all/report.json"]);
    assert_eq!(same, "new.dts and new.dts make the same system\n");
}
