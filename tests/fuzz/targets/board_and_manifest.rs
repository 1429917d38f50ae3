//! [`bulkhead_fuzz::board_and_manifest`], driven by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::board_and_manifest(bytes));
