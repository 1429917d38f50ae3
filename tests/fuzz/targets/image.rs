//! [`bulkhead_fuzz::image`], driven by libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| bulkhead_fuzz::image(bytes));
