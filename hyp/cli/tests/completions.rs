//! The completions, in a real shell.

use std::io::Write;
use std::process::{Command, Stdio};

/// What bash offers behind these words, the last of which is not finished; `before` is what it has read first.
fn offered(before: &str, words: &[&str]) -> Vec<String> {
    let tool = env!("CARGO_BIN_EXE_bulkhead");
    let quoted: Vec<_> = words.iter().map(|word| format!("'{word}'")).collect();
    let script = format!(
        r#"{before}
        source <("{tool}" completions bash)
        COMP_WORDS=({words}); COMP_CWORD={last}
        # bash calls the function that `complete -p` names, with these arguments.
        [[ "$(complete -p cargo)" =~ -F\ ([^ ]+) ]]
        "${{BASH_REMATCH[1]}}" cargo "${{COMP_WORDS[COMP_CWORD]}}" "${{COMP_WORDS[COMP_CWORD-1]}}"
        printf '%s\n' "${{COMPREPLY[@]}}""#,
        words = quoted.join(" "),
        last = words.len() - 1
    );
    let mut bash = Command::new("bash")
        .args(["--norc", "--noprofile", "-s"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("bash");
    bash.stdin.take().expect("a pipe").write_all(script.as_bytes()).expect("bash reads");
    let output = bash.wait_with_output().expect("bash ends");
    String::from_utf8(output.stdout).expect("text").lines().map(str::to_owned).collect()
}

#[test]
fn bash_completes_what_follows_cargo_bulkhead() {
    let none = "";
    assert_eq!(offered(none, &["cargo", "bulkhead", "doc"]), ["doctor"]);
    assert_eq!(offered(none, &["cargo", "bulkhead", "check", "--board", ""]), ["qemu-virt", "rpi4"]);
    assert_eq!(offered(none, &["cargo", "+nightly", "bulkhead", "import", "x"]), ["xen"]);
    assert!(offered(none, &["cargo", "bulkhead", "import", "xen", "--"]).contains(&"--payload".to_owned()));
}

#[test]
fn what_completed_cargo_before_goes_on() {
    let before = "_old() { COMPREPLY=(\"old $1 $2\"); }\ncomplete -F _old cargo";
    assert_eq!(offered(before, &["cargo", "bui"]), ["old cargo bui"]);
    // Read twice, as in a shell that reads its settings again.
    let twice = format!("{before}\nsource <(\"{}\" completions bash)", env!("CARGO_BIN_EXE_bulkhead"));
    assert_eq!(offered(&twice, &["cargo", "bui"]), ["old cargo bui"]);
    assert_eq!(offered(&twice, &["cargo", "bulkhead", "doc"]), ["doctor"]);
}
