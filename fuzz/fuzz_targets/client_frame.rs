//! Game clients' frames; the check is `fuzzchecks::client_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::client_frame(data));
