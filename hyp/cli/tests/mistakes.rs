//! What the tool does when it is used wrongly, or when the host fails it: one line that says what is wrong, an exit code
//! that says what kind of wrong, no panic, and a folder in which nothing has changed.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// A manifest of one bare partition whose payload lies beside it.
const MANIFEST: &str = r#"/dts-v1/;
/ {
    compatible = "bulkhead,manifest-v1";
    partitions {
        guest {
            os,type = "bare";
            cpus = <0>;
            memory = /bits/ 64 <0x40000000 0x1000000>;
            kernel = "guest.raw";
            console = "pl011";
        };
    };
};
"#;
/// Something is wrong with what was looked at; it could not be looked at.
const FINDINGS: i32 = 1;
const NOT_LOOKED_AT: i32 = 2;
/// Far longer than anything here takes, a build of the hypervisor included.
const PATIENCE: Duration = Duration::from_secs(600);

/// A folder to work in, with a sound system.
struct Desk {
    folder: TempDir,
}

impl Desk {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("good.dts"), MANIFEST).expect("written");
        fs::write(folder.path().join("guest.raw"), [0; 4096]).expect("written");
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.path(name), bytes).expect("written");
    }

    fn tool(&self, arguments: &[&str]) -> Command {
        let mut tool = Command::new(env!("CARGO_BIN_EXE_bulkhead"));
        tool.current_dir(self.folder.path()).args(arguments).stdin(Stdio::null());
        tool
    }

    /// All that is in the folder: names and, of files, what is in them, but for what has no end.
    fn content(&self) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let mut content = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                let is_small = path.metadata().is_ok_and(|file| file.is_file() && file.len() < 1 << 20);
                let bytes = is_small.then(|| fs::read(&path).ok()).flatten();
                if path.is_dir() && !path.is_symlink() {
                    folders.push(path.clone());
                }
                content.push((path, bytes));
            }
        }
        content.sort();
        content
    }

    /// Runs a command that has to fail with `code` and one line that contains `said`, and leave everything as it is.
    #[track_caller]
    fn fails(&self, code: i32, said: &str, arguments: &[&str]) {
        self.fails_as(code, said, &mut self.tool(arguments));
    }

    #[track_caller]
    fn fails_as(&self, code: i32, said: &str, command: &mut Command) {
        let (error, text) = self.error(code, command);
        assert!(error.contains(said), "{command:?}: {said}\n{text}");
        assert!(!text.trim_end().ends_with(':'), "{command:?}\n{text}");
    }

    /// Runs a check that has to find one thing, at this place.
    #[track_caller]
    fn finds(&self, code: &str, place: &str, manifest: &str) {
        let (error, text) = self.error(FINDINGS, &mut self.tool(&["check", manifest]));
        assert!(error.starts_with(&format!("error[{code}]: ")), "{manifest}: {code}\n{text}");
        assert!(
            text.lines().any(|line| line.trim() == format!("--> {place}")),
            "{manifest}: {place}\n{text}"
        );
    }

    /// The one error of a command that leaves everything as it is, and all that is said besides.
    #[track_caller]
    fn error(&self, code: i32, command: &mut Command) -> (String, String) {
        let before = self.content();
        let output = run(command);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{command:?}\n{text}");
        assert!(!text.contains("panicked"), "{command:?}\n{text}");
        assert_eq!(self.content(), before, "{command:?}");
        let errors: Vec<_> = text.lines().filter(|line| line.starts_with("error")).collect();
        assert_eq!(errors.len(), 1, "{command:?}\n{text}");
        (errors[0].to_owned(), text)
    }
}

/// Runs a command, but not for ever.
#[track_caller]
fn run(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
    let id = child.id();
    let thread = thread::spawn(move || child.wait_with_output());
    let started = Instant::now();
    while !thread.is_finished() {
        if started.elapsed() > PATIENCE {
            signal("KILL", id);
            panic!("{command:?} does not end");
        }
        thread::sleep(Duration::from_millis(5));
    }
    thread.join().expect("no panic").expect("output")
}

fn signal(name: &str, process: u32) {
    // The shell's own: a small system has no such program.
    let sent = Command::new("sh").args(["-c", &format!("kill -s {name} {process}")]).status().expect("sh");
    assert!(sent.code().is_some(), "it may have ended by itself");
}

fn make_fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
}

#[test]
fn command_lines() {
    let desk = Desk::new();
    let fails = |said: &str, arguments: &[&str]| desk.fails(NOT_LOOKED_AT, said, arguments);
    fails("unrecognized subcommand 'chekc'", &["chekc"]);
    fails("unexpected argument '--bord'", &["check", "--bord", "rpi4"]);
    fails("invalid value 'rpi5'", &["check", "--board", "rpi5"]);
    fails("invalid value '0'", &["check", "good.dts", "--cpus", "0"]);
    fails("invalid value '0'", &["check", "good.dts", "--memory", "0"]);
    fails("invalid value '4'", &["check", "--gic", "4"]);
    fails("unexpected argument 'another'", &["check", "good.dts", "another"]);
    fails("invalid value 'tcsh'", &["completions", "tcsh"]);
    fails("required arguments were not provided", &["import", "xen"]);
    fails("unrecognized subcommand 'jailhouse'", &["import", "jailhouse", "x"]);
    fails("write ADDRESS=FILE", &["import", "xen", "good.dts", "--payload", "Image"]);
    fails("write ADDRESS=FILE", &["import", "xen", "good.dts", "--payload", "0x=Image"]);
    fails("write ADDRESS=FILE", &["import", "xen", "good.dts", "--payload", "0x40000000="]);
    fails("cannot be used with '--dtb <FILE>'", &["new", "--board", "rpi4", "--dtb", "x"]);
    fails("required arguments were not provided", &["new", "--force"]);
    fails("leave --gic out", &["check", "good.dts", "--board", "rpi4", "--gic", "2"]);
    fails(
        "--cpus and --memory go with --board qemu-virt",
        &["check", "good.dts", "--board", "rpi4", "--cpus", "2"],
    );
    fails("add --board rpi4", &["build", "good.dts", "--sd", "card"]);
    assert_eq!(run(&mut desk.tool(&["--help"])).status.code(), Some(0));
    assert_eq!(run(&mut desk.tool(&["--version"])).status.code(), Some(0));
}

#[test]
fn manifests_that_are_none() {
    let desk = Desk::new();
    let fails = |said: &str, arguments: &[&str]| desk.fails(NOT_LOOKED_AT, said, arguments);
    fs::create_dir(desk.path("folder.dts")).expect("a folder");
    symlink("nowhere", desk.path("dangling.dts")).expect("a link");
    symlink("loop.dts", desk.path("loop.dts")).expect("a link");
    desk.write("binary.dts", [0xff; 4096]);
    for command in ["check", "build", "run", "report"] {
        fails("cannot read nothing.dts: No such file", &[command, "nothing.dts"]);
        fails("folder.dts is a folder, not a file", &[command, "folder.dts"]);
        fails("cannot read dangling.dts", &[command, "dangling.dts"]);
        fails("cannot read loop.dts", &[command, "loop.dts"]);
    }
    fails("cannot read good.dts/x", &["check", "good.dts/x"]);
    fails("cannot read nothing", &["check", "good.dts", "--payloads", "nothing"]);
    fails("guest.raw is a file, not a folder", &["check", "good.dts", "--payloads", "guest.raw"]);
    fails("cannot read ", &["check", &"x".repeat(5000)]);
    desk.write("broken.dtb", [0xd0, 0x0d, 0xfe, 0xed]);
    fails("broken.dtb: not a valid device tree", &["check", "broken.dtb"]);
    // Looked at, and found wanting.
    desk.write("empty.dts", "");
    desk.write("itself.dts", "/include/ \"itself.dts\"\n");
    desk.write("syntax.dts", "/dts-v1/; / { compatible = ; };");
    desk.finds("BH0001", "empty.dts:1:1", "empty.dts");
    desk.finds("BH0001", "binary.dts:1:1", "binary.dts");
    desk.finds("BH0001", "itself.dts:1:11", "itself.dts");
    desk.finds("BH0001", "syntax.dts:1:28", "syntax.dts");
    // A compiled one has no lines, but a name.
    desk.write("wrong.dts", MANIFEST.replace("<0>", "<99>"));
    let mut dtc = Command::new("dtc");
    dtc.args(["-O", "dtb", "-o"]).args([desk.path("wrong.dtb"), desk.path("wrong.dts")]);
    assert!(dtc.status().expect("dtc").success());
    desk.finds("BH0101", "wrong.dtb", "wrong.dtb");
    // One mistake, one error.
    for (right, wrong) in
        [("memory =", "memroy ="), ("memory =", "reg ="), ("cpus =", "CPUs ="), ("kernel =", "image =")]
    {
        desk.write("name.dts", MANIFEST.replace(right, wrong));
        let line = 1 + MANIFEST.lines().position(|line| line.contains(right)).expect("a line");
        desk.finds("BH0012", &format!("name.dts:{line}:13"), "name.dts");
    }
    desk.write("uimage", [0x27, 0x05, 0x19, 0x56]);
    desk.write("uimage.dts", MANIFEST.replace("bare", "linux").replace("guest.raw", "uimage"));
    desk.finds("BH0315", "uimage.dts:9:22", "uimage.dts");
    // What the compiled form no longer tells.
    desk.write("long.dts", MANIFEST.replace("<0>", "/bits/ 16 <0 1>"));
    desk.finds("BH0020", "long.dts:7:20", "long.dts");
    // More than a pipe holds, behind a mistake after which dtc reads no further.
    let much = "x { y = <1>; };\n".repeat(50_000);
    desk.write("much.dts", format!("/dts-v1/; / {{ compatible = ; }};\n{much}"));
    desk.finds("BH0001", "much.dts:1:28", "much.dts");
    desk.fails(NOT_LOOKED_AT, "much.dts:1", &["import", "xen", "much.dts"]);
}

#[test]
fn trees_that_are_none() {
    let desk = Desk::new();
    let fails = |said: &str, arguments: &[&str]| desk.fails(NOT_LOOKED_AT, said, arguments);
    desk.write("empty.dts", "");
    desk.write("binary.dtb", [0xff; 64]);
    desk.write("broken.dtb", [0xd0, 0x0d, 0xfe, 0xed]);
    fs::create_dir(desk.path("folder")).expect("a folder");
    for command in [
        &["import", "xen"][..],
        &["new", "--dtb"],
        &["check", "good.dts", "--dtb"],
        &["report", "good.dts", "--dtb"],
    ] {
        let with = |name: &'static str| [command, &[name]].concat();
        fails("cannot read nothing", &with("nothing"));
        fails("folder", &with("folder"));
        fails("binary.dtb", &with("binary.dtb"));
        fails("broken.dtb", &with("broken.dtb"));
        fails("/dev/zero has more than 16 MiB", &with("/dev/zero"));
    }
    fails("empty.dts does not compile", &["import", "xen", "empty.dts"]);
    fails("empty.dts does not compile", &["check", "good.dts", "--dtb", "empty.dts"]);
    fails("good.dts has no domains", &["import", "xen", "good.dts"]);
    fails("good.dts: /: there is no memory node", &["new", "--dtb", "good.dts"]);
    fails("cannot read nothing", &["import", "xen", "good.dts", "--imagebuilder", "nothing"]);
    fails("cannot read nothing", &["import", "xen", "good.dts", "--payload", "0x1=nothing"]);
    fails("folder is a folder", &["import", "xen", "good.dts", "--payload", "0x1=folder"]);
    fails(
        "have the same name",
        &["import", "xen", "good.dts", "--payload", "0=good.dts", "--payload", "1=./good.dts"],
    );
}

#[test]
fn reports_that_cannot_be_made() {
    let desk = Desk::new();
    let fails = |said: &str, more: &[&str]| {
        desk.fails(NOT_LOOKED_AT, said, &[&["report", "good.dts"], more].concat());
    };
    fs::create_dir(desk.path("folder")).expect("a folder");
    desk.write("cut.json", "{ \"format\": ");
    desk.write("other.json", "{ \"partitions\": [] }");
    desk.write("newer.json", "{ \"format\": \"bulkhead-report-v2\" }");
    desk.write("refused.dts", MANIFEST.replace("cpus = <0>", "cpus = <77>"));
    fails("invalid value 'png'", &["--format", "png"]);
    fails("'--trees' cannot be used with '--format", &["--trees", "--format", "json"]);
    fails("'--trees' cannot be used with '--diff", &["--trees", "--diff", "good.dts"]);
    fails("a comparison is no picture", &["--diff", "good.dts", "--format", "svg"]);
    fails("cannot read nothing", &["--diff", "nothing"]);
    fails("cannot read folder: Is a directory", &["--diff", "folder"]);
    fails("cut.json is no report: EOF", &["--diff", "cut.json"]);
    fails("other.json is no report: missing field `format`", &["--diff", "other.json"]);
    fails("newer.json has the form \"bulkhead-report-v2\"", &["--diff", "newer.json"]);
    fails("cannot write guest.raw/report.txt", &["--out", "guest.raw"]);
    fails("cannot write folder: it is a folder", &["--format", "svg", "--out", "folder"]);
    fails("cannot write /dev/full", &["--format", "json", "--out", "/dev/full"]);
    fails("cannot write /proc/", &["--out", "/proc/bulkhead"]);
    desk.fails(FINDINGS, "error[BH0101]: ", &["report", "refused.dts", "--out", "new-folder"]);
    desk.fails(FINDINGS, "error[BH0101]: ", &["report", "good.dts", "--diff", "refused.dts"]);
    let full = File::options().write(true).open("/dev/full").expect("the device");
    let output =
        desk.tool(&["report", "good.dts"]).stdout(full).stderr(Stdio::piped()).output().expect("run");
    assert_eq!(output.status.code(), Some(NOT_LOOKED_AT), "{output:?}");
}

#[test]
fn payloads_that_are_none() {
    let desk = Desk::new();
    let fails = |said: &str| {
        desk.fails(FINDINGS, said, &["check", "good.dts"]);
        desk.finds("BH0301", "good.dts:9:22", "good.dts");
    };
    let replace = |make: &dyn Fn(&Path)| {
        let path = desk.path("guest.raw");
        let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        make(&path);
    };
    replace(&|path| fs::create_dir(path).expect("a folder"));
    fails("guest.raw is a folder, not a file");
    replace(&|path| make_fifo(path));
    fails("guest.raw is a device or a pipe, not a file");
    replace(&|path| symlink("nowhere", path).expect("a link"));
    fails("guest.raw: No such file");
    // The kernel refuses to read it, whoever asks.
    replace(&|path| symlink("/proc/self/mem", path).expect("a link"));
    fails("cannot read ");
    replace(&|path| {
        File::create(path).and_then(|file| file.set_len(6 << 30)).expect("a file of holes");
    });
    fails("guest.raw has 6144 MiB; a payload has less than 4096");
    replace(&|path| fs::write(path, "").expect("written"));
    desk.finds("BH0302", "good.dts:9:22", "good.dts");
    replace(&|_| ());
    desk.finds("BH0301", "good.dts:9:22", "good.dts");
}

#[test]
fn places_that_take_nothing() {
    let desk = Desk::new();
    fs::create_dir(desk.path("folder")).expect("a folder");
    fs::create_dir(desk.path("out")).expect("a folder");
    desk.write("out/bundle.cpio", "old");
    desk.write("mine.dts", "mine");
    symlink("/dev/full", desk.path("out/bulkhead.img")).expect("a link");
    let fails = |said: &str, arguments: &[&str]| desk.fails(NOT_LOOKED_AT, said, arguments);
    fails("cannot write ", &["build", "good.dts", "--out", "guest.raw"]);
    fails("cannot write guest.raw/a", &["build", "good.dts", "--out", "guest.raw/a/b"]);
    fails("cannot write ", &["build", "good.dts", "--out", "out"]);
    // Nobody can make anything there, not even root.
    fails("cannot write /proc/", &["build", "good.dts", "--out", "/proc/bulkhead"]);
    let tree = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/manifests/boards/qemu-virt-gicv3.dtb");
    let xen = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/qemu/systems/xen-two-linux.dts");
    for command in [&["new", "--dtb", tree, "--out"][..], &["import", "xen", xen, "--out"]] {
        let to = |name: &'static str| [command, &[name]].concat();
        fails("mine.dts exists; name another file, or overwrite it with --force", &to("mine.dts"));
        fails("cannot write folder", &to("folder"));
        fails("cannot write guest.raw/x", &to("guest.raw/x"));
        fails("cannot write /dev/full: No space left", &to("/dev/full"));
    }
    // Standard output is full.
    for arguments in
        [&["new", "--dtb", tree][..], &["import", "xen", xen], &["completions", "bash"], &["doctor"]]
    {
        let before = desk.content();
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut tool = desk.tool(arguments);
        let output = tool.stdout(full).stderr(Stdio::piped()).output().expect("started");
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(NOT_LOOKED_AT), "{arguments:?} {text}");
        let said = "error: cannot write to standard output: No space left on device";
        assert!(text.lines().any(|line| line.starts_with(said)), "{arguments:?} {text}");
        assert_eq!(desk.content(), before);
    }
}

/// A limit on the size of files is the same to the tool as a disk that is full, and needs no right to mount one.
#[test]
fn a_disk_that_becomes_full() {
    let desk = Desk::new();
    // Cargo writes, too, where it has something to build.
    assert_eq!(run(&mut desk.tool(&["build", "good.dts", "--out", "first"])).status.code(), Some(0));
    desk.write("guest.raw", vec![0x5a; 3 << 20]);
    let limited = |folder: &str| {
        let mut shell = Command::new("bash");
        let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" build good.dts --out \"$1\"";
        shell.args(["-c", script, env!("CARGO_BIN_EXE_bulkhead"), folder]);
        shell.current_dir(desk.folder.path()).stdin(Stdio::null());
        shell
    };
    desk.fails_as(NOT_LOOKED_AT, "cannot write first/bundle.cpio", &mut limited("first"));
    desk.fails_as(NOT_LOOKED_AT, "cannot write new/folder/bundle.cpio", &mut limited("new/folder"));
}

#[test]
fn interrupted() {
    let desk = Desk::new();
    assert_eq!(run(&mut desk.tool(&["build", "good.dts", "--out", "out"])).status.code(), Some(0));
    let whole = desk.content();
    desk.write("guest.raw", vec![0x5a; 12 << 20]);
    let is_unfinished = |path: &Path| path.to_string_lossy().contains("/.bulkhead-");
    let mut caught = 0;
    for _ in 0..3 {
        let mut tool = desk.tool(&["build", "good.dts", "--out", "out"]);
        let mut child = tool.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("started");
        let started = Instant::now();
        while child.try_wait().expect("a child").is_none() && started.elapsed() < PATIENCE {
            let mut names = fs::read_dir(desk.path("out")).expect("a folder").flatten();
            if names.any(|entry| is_unfinished(&entry.path())) {
                signal("INT", child.id());
                break;
            }
        }
        let status = child.wait().expect("a child");
        caught += u32::from(status.signal() == Some(2));
        let names = |content: &[(PathBuf, Option<Vec<u8>>)]| -> Vec<PathBuf> {
            content.iter().map(|(path, _)| path.clone()).collect()
        };
        assert_eq!(names(&desk.content()), names(&whole), "{status}");
        assert_eq!(fs::read(desk.path("out/bulkhead.img")).ok(), bytes_of(&whole, "bulkhead.img"));
    }
    assert!(caught > 0, "no signal came in time");
}

fn bytes_of(content: &[(PathBuf, Option<Vec<u8>>)], name: &str) -> Option<Vec<u8>> {
    content.iter().find(|(path, _)| path.ends_with(name)).and_then(|(_, bytes)| bytes.clone())
}

/// Who reads only the first line has what he wanted.
#[test]
fn a_reader_that_goes_away() {
    let desk = Desk::new();
    for arguments in [&["completions", "bash"][..], &["check", "good.dts"], &["doctor"], &["--help"]] {
        let mut tool = desk.tool(arguments);
        let mut child = tool.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("started");
        drop(child.stdout.take());
        let output = child.wait_with_output().expect("a child");
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!text.contains("panicked") && !text.contains("error:"), "{arguments:?}: {text}");
        assert!(output.status.signal().is_none(), "{arguments:?}: {}", output.status);
    }
}

#[test]
fn a_host_that_lacks_something() {
    let desk = Desk::new();
    // What builds the hypervisor is there, and nothing else.
    fs::create_dir(desk.path("bin")).expect("a folder");
    for program in ["cargo", "rustc", "rustup", "cc"] {
        let path = std::env::split_paths(&std::env::var_os("PATH").expect("PATH"))
            .map(|folder| folder.join(program))
            .find(|path| path.exists());
        symlink(path.expect("there"), desk.path("bin").join(program)).expect("a link");
    }
    let bare = |arguments: &[&str]| {
        let mut tool = desk.tool(arguments);
        tool.env("PATH", desk.path("bin"));
        tool
    };
    desk.fails_as(NOT_LOOKED_AT, "run this on a Debian", &mut bare(&["check", "good.dts"]));
    let xen = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/qemu/systems/xen-two-linux.dts");
    desk.fails_as(NOT_LOOKED_AT, "cannot run dtc", &mut bare(&["import", "xen", xen]));
    let output = run(&mut bare(&["doctor"]));
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(FINDINGS), "{text}");
    assert!(text.contains("LACKS  dtc is missing"), "{text}");
    // Without HOME the user database says where the downloads go.
    let mut homeless = desk.tool(&["check", "good.dts"]);
    let output = run(homeless.env_remove("HOME").env_remove("XDG_CACHE_HOME"));
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
