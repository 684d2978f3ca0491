//! See `gapless_proxy::fuzz::body`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gapless_proxy::fuzz::body(bytes));
