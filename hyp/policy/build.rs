//! Packs the texts of the manifest's rules, which were the largest table of the image: the two bytes that most often
//! stand side by side become one, again and again (byte pair encoding). What unpacks them is `Rule::unpack`.

use std::collections::BTreeMap;
use std::path::Path;

/// The first byte that stands for a pair; the texts are ASCII.
const FIRST_PAIR: u8 = 0x80;

fn main() {
    let source = "src/manifest/rules.rs";
    println!("cargo:rerun-if-changed={source}");
    let rules = std::fs::read_to_string(source).expect("the rules are readable");
    let lines: Vec<String> = rules.lines().filter_map(line).collect();
    let longest = lines.iter().map(String::len).max().expect("there are rules");
    let mut packed = lines.iter().flat_map(|line| [line.as_bytes(), b"\n"].concat()).collect::<Vec<u8>>();
    assert!(packed.is_ascii(), "the rules' texts are ASCII");
    let mut pairs: Vec<[u8; 2]> = Vec::new();
    for byte in FIRST_PAIR..=u8::MAX {
        let mut counts = BTreeMap::new();
        for pair in packed.windows(2).filter(|pair| !pair.contains(&b'\n')) {
            *counts.entry([pair[0], pair[1]]).or_insert(0) += 1;
        }
        let (pair, _) = counts.into_iter().max_by_key(|&(_, count)| count).expect("there are pairs");
        let mut rest = packed.as_slice();
        let mut shorter = Vec::new();
        while let Some((&first, behind)) = rest.split_first() {
            rest = behind;
            if [Some(&first), rest.first()] == [Some(&pair[0]), Some(&pair[1])] {
                rest = &rest[1..];
                shorter.push(byte);
            } else {
                shorter.push(first);
            }
        }
        packed = shorter;
        pairs.push(pair);
    }
    let code = format!(
        "/// The most bytes of a line.\nconst LONGEST: usize = {longest};\n\
         /// The first byte that stands for a pair.\nconst FIRST_PAIR: u8 = {FIRST_PAIR};\n\
         static PAIRS: [[u8; 2]; {}] = {pairs:?};\nstatic PACKED: [u8; {}] = {packed:?};\n",
        pairs.len(),
        packed.len(),
    );
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    std::fs::write(Path::new(&out).join("packed.rs"), code).expect("the packed texts are writable");
}

/// The code and the text of a row of `rules!`: `"0103" CpuOwned "cpu {0} is already given to {other}",`.
fn line(row: &str) -> Option<String> {
    let (code, rest) = row.trim().strip_prefix('"')?.split_once("\" ")?;
    let (_, text) = rest.strip_suffix("\",")?.split_once(" \"")?;
    Some(format!("{code} {}", text.replace("\\\"", "\"")))
}
