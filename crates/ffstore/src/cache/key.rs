//! The keys that memcached sees: `PREFIX:KEY`, made safe, and different for different keys.

use sha2::{Digest as _, Sha256};

/// memcached takes no longer ones.
const BYTES_MAX: usize = 250;

/// `PREFIX:KEY` as firefly wrote it, when it is short and of visible ASCII. Otherwise:
///
/// * a byte that is not visible ASCII, a `%`, and in the prefix a `:`, is written as `%XX`, so that a key
///   can neither end the command nor look like another prefix;
/// * what is then longer than 250 bytes becomes `%sha256:` and the hash of prefix and key in hexadecimal.
///
/// No two pairs of prefix and key give the same result: `%` is only ever followed by two capital
/// hexadecimal digits, or by `s`; and for long ones because nobody finds two texts of one SHA-256.
pub(super) fn wire(prefix: &str, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(prefix.len() + 1 + key.len());
    escape(&mut out, prefix.as_bytes(), |byte| byte == b':');
    out.push(b':');
    escape(&mut out, key, |_| false);
    if out.len() <= BYTES_MAX {
        return out;
    }
    // The escaped form is one-to-one, so its hash tells prefix and key apart.
    let mut short = b"%sha256:".to_vec();
    for byte in Sha256::digest(&out) {
        short.extend(hex(byte));
    }
    short
}

fn escape(out: &mut Vec<u8>, text: &[u8], also: impl Fn(u8) -> bool) {
    for &byte in text {
        if !byte.is_ascii_graphic() || byte == b'%' || also(byte) {
            out.push(b'%');
            out.extend(hex(byte));
        } else {
            out.push(byte);
        }
    }
}

fn hex(byte: u8) -> [u8; 2] {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(prefix: &str, key: &[u8], wanted: &str) {
        assert_eq!(String::from_utf8(wire(prefix, key)).unwrap(), wanted);
    }

    #[test]
    fn an_ordinary_key_is_written_as_firefly_did() {
        check("game", b"player:7", "game:player:7");
        check("game", b"", "game:");
    }

    #[test]
    fn a_hostile_key_is_made_safe() {
        check("game", b"a b\r\nflush_all\r\n", "game:a%20b%0D%0Aflush_all%0D%0A");
        check("game", b"\0\x7f\xff%", "game:%00%7F%FF%25");
        check("game", "ß".as_bytes(), "game:%C3%9F");
    }

    #[test]
    fn no_key_looks_like_one_of_another_prefix() {
        check("a:b", b"c", "a%3Ab:c");
        check("a", b"b:c", "a:b:c");
        check("a b", b"", "a%20b:");
    }

    #[test]
    fn a_long_key_becomes_its_hash() {
        check("p", &[b'x'; 248], &format!("p:{}", "x".repeat(248)));
        let hashed = wire("p", &[b'x'; 249]);
        assert_eq!(hashed.len(), 8 + 64);
        assert!(hashed.starts_with(b"%sha256:"));
        assert_ne!(hashed, wire("p", &[b'x'; 250]));
        assert_ne!(hashed, wire("px", &[b'x'; 249]));
    }
}
