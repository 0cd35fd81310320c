//! Frames on links; the check is `fuzzchecks::link_frame`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::link_frame(data));
