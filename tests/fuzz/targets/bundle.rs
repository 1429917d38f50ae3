//! [`bulkhead_fuzz::bundle`], driven by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::bundle(bytes));
