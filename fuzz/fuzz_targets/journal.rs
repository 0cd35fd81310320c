//! Files of journals; the check is `fuzzchecks::journal`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::journal(data));
