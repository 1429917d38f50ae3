//! [`bulkhead_fuzz::firmware_tree`], driven by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::firmware_tree(bytes));
