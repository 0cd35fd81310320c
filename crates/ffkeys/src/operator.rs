//! The token of an operator, and the hash by which it is known again.

use ffambient::{Chance, ChanceError};
use ring::digest::{SHA256, digest};
use zeroize::Zeroizing;

/// What a token begins with: who finds one knows what it is.
const PREFIX: &str = "ffop-";

/// A new token of an operator: 256 random bits.
///
/// # Errors
/// There is no chance.
///
/// ```
/// # fn main() -> Result<(), ffambient::ChanceError> {
/// let token = ffkeys::operator_token(&ffambient::Chance::seeded(1))?;
/// assert!(token.starts_with("ffop-") && token.len() == 69);
/// # Ok(()) }
/// ```
pub fn operator_token(chance: &Chance) -> Result<Zeroizing<String>, ChanceError> {
    let mut bits = Zeroizing::new([0; 32]);
    chance.fill(bits.as_mut())?;
    Ok(Zeroizing::new(format!("{PREFIX}{}", data_encoding::HEXLOWER.encode(bits.as_ref()))))
}

/// The hash of an operator's token, as a config has it: SHA-256. It is neither salted nor slow, for what protects a password would
/// protect nothing here: nobody tries 2^256 tokens, and a slow hash would give every stranger a way to keep the master busy.
pub fn operator_hash(token: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_sha256_of_the_token() {
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(data_encoding::HEXLOWER.encode(&operator_hash("abc")), expected, "as sha256sum says");
    }

    #[test]
    fn no_two_tokens_are_the_same() {
        let chance = Chance::seeded(1);
        assert_ne!(operator_token(&chance).unwrap(), operator_token(&chance).unwrap());
    }
}
