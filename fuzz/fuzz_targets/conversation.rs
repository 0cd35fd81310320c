//! Conversations with a node's rootport; the check is `fuzzchecks::conversation`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::conversation(data));
