//! [`bulkhead_fuzz::guest_tree`], driven by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::guest_tree(bytes));
