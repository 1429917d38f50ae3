//! Links the guest at its place in RAM.

fn main() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../linker/partition.ld");
    println!("cargo:rustc-link-arg-bins=-T{script}");
    println!("cargo:rerun-if-changed={script}");
}
