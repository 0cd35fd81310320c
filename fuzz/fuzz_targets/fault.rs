//! Bodies of fault frames; the check is `fuzzchecks::fault`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::fault(data));
