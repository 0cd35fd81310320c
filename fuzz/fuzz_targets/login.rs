//! The verdict over a login; the check is `fuzzchecks::login`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::login(data));
