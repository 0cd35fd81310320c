//! Messages between a master and its nodes; the check is `fuzzchecks::control`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::control(data));
