//! Texts of others in lines of the log; the check is `fuzzchecks::log`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::log(data));
