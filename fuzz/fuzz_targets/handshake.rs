//! Messages of a handshake; the check is `fuzzchecks::handshake`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::handshake(data));
