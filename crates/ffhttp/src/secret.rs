//! The comparison of a secret with what somebody says it is.

/// Whether what was given is the secret; the time that it takes does not tell how much of it is right. The length is no secret.
#[must_use]
pub fn is_same_secret(given: &[u8], secret: &[u8]) -> bool {
    let pairs = given.iter().zip(secret);
    let difference = pairs.fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    given.len() == secret.len() && difference == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparing_takes_every_byte() {
        assert!(is_same_secret(b"token", b"token"));
        for wrong in [&b"Token"[..], b"tokeN", b"toke", b"tokens", b""] {
            assert!(!is_same_secret(wrong, b"token"));
        }
    }
}
