//! What nodes tell each other that are no neighbours; the check is `fuzzchecks::relay`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::relay(data));
