//! The protocols of game clients, cut and moved; the check is `fuzzchecks::protocol`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::protocol(data));
