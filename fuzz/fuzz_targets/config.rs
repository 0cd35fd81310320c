//! Texts of configs; the check is `fuzzchecks::config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::config(data));
