//! See `gapless_proxy::fuzz::small`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gapless_proxy::fuzz::small(bytes));
