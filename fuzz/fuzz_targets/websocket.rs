//! The WebSockets of game clients; the check is `fuzzchecks::websocket`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fuzzchecks::websocket(data));
