//! Texts that nobody meant: whatever comes in, an answer comes out.

use crate::{check, parsed};

const FIREFLY: &str = include_str!("../../testdata/firefly.json");
/// Every kind of value, so that flipped bytes reach every branch.
const RICH: &str = include_str!("../../testdata/rich.json");

/// Parsing returns, and says something when it fails.
fn survive(text: &[u8]) {
    if let Err(error) = parsed(&String::from_utf8_lossy(text)) {
        assert!(!error.faults().is_empty());
        let shown = error.to_string();
        assert_eq!(shown.lines().count(), error.faults().len() + 1, "{shown}");
    }
}

#[test]
fn the_rich_text_has_no_fault_before_it_is_changed() {
    assert_eq!(parsed(RICH).unwrap().warnings, []);
}

#[test]
fn a_text_cut_anywhere_is_answered() {
    for text in [FIREFLY, RICH] {
        for cut in 0..text.len() {
            survive(&text.as_bytes()[..cut]);
            survive(&text.as_bytes()[cut..]);
        }
    }
}

#[test]
fn a_text_with_a_byte_changed_anywhere_is_answered() {
    for text in [FIREFLY, RICH] {
        for at in 0..text.len() {
            // Every third byte at each place: all of them, at neighbouring places.
            for byte in b"\"{],0$\\\xff".iter().skip(at % 3).step_by(3) {
                let mut changed = text.as_bytes().to_vec();
                changed[at] = *byte;
                survive(&changed);
            }
        }
    }
}

#[test]
fn a_text_with_random_bytes_is_answered() {
    // xorshift: the same texts every time.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..2_000 {
        let mut text = if random(2) == 0 { FIREFLY } else { RICH }.as_bytes().to_vec();
        for _ in 0..=random(8) {
            let at = random(text.len());
            match random(3) {
                0 => text[at] = random(256) as u8,
                1 => drop(text.remove(at)),
                _ => {
                    let from = random(text.len());
                    let piece = text[from..(from + random(40)).min(text.len())].to_vec();
                    text.splice(at..at, piece);
                }
            }
        }
        survive(&text);
    }
}

#[test]
fn a_text_of_brackets_does_not_overflow_the_stack() {
    for bracket in ["[", "{\"a\":", "[{\"a\":", "[/*[*/"] {
        survive(bracket.repeat(100_000).as_bytes());
    }
    check(&"[".repeat(100_000), &["1:65: more than 64 brackets inside each other"]);
    check(&format!("{}{}", "[".repeat(64), "]".repeat(64)), &["1:1: expected an object, found a list"]);
    check(
        r#"["[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\"[[["]"#,
        &["1:1: expected an object, found a list"],
    );
}

#[test]
fn a_text_that_is_too_large_is_refused() {
    check(&" ".repeat(ffconfig::FILE_BYTES_MAX + 1), &["1:1: it is larger than 1048576 bytes"]);
}

#[test]
fn a_variable_cannot_grow_without_end() {
    let doubled: String = (1..40).map(|n| format!("\"A{n}\": \"$A{0}$$A{0}$\",", n - 1)).collect();
    let config = format!(
        r#"{{"vars": {{"A0": "0123456789abcdef", {doubled}}}, "master": {{"rootport": 1, "webport": 2}}, "servers": {{}}}}"#
    );
    check(&config, &["1:179: vars.A9: with its variables written out it is longer than 4096 bytes"]);
}

#[test]
fn a_long_key_does_not_fill_the_terminal() {
    let error = parsed(&format!(r#"{{"{}": 1}}"#, "x".repeat(1_000_000))).unwrap_err();
    assert!(error.to_string().len() < 1000);
}
