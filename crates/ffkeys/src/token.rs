//! The check of a token that a node does not have. The bytes of keys have a place for it, which releases before this one filled and
//! read: nobody shows nodes the cluster's token any more.

use std::fmt;
use std::num::NonZeroU32;

use ffambient::{Chance, ChanceError};
use ring::pbkdf2;
use serde::{Deserialize, Serialize};

/// What a node knows of the token: enough to know it again. A node is asked by strangers, too, so a look costs it half a
/// millisecond and no tenth of a second.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenCheck {
    salt: [u8; 16],
    hash: [u8; 32],
}

// Unwrapped while it is compiled: a number that is zero does not build.
const ROUNDS: NonZeroU32 = NonZeroU32::new(1_000).unwrap();

impl TokenCheck {
    /// Of a token.
    ///
    /// # Errors
    /// There is no chance.
    pub fn of(token: &str, chance: &Chance) -> Result<Self, ChanceError> {
        let (mut salt, mut hash) = ([0; 16], [0; 32]);
        chance.fill(&mut salt)?;
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, &salt, token.as_bytes(), &mut hash);
        Ok(Self { salt, hash })
    }

    /// Whether this is the token. Takes as long whatever is right of it.
    pub fn is(&self, given: &str) -> bool {
        let Self { salt, hash } = self;
        pbkdf2::verify(pbkdf2::PBKDF2_HMAC_SHA256, ROUNDS, salt, given.as_bytes(), hash).is_ok()
    }
}

/// Shows nothing that a token could be guessed against.
impl fmt::Debug for TokenCheck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenCheck")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_known_again_and_nothing_else_is() {
        let check = TokenCheck::of("a-secret-of-sixteen", &Chance::seeded(1)).unwrap();
        assert!(check.is("a-secret-of-sixteen"));
        for wrong in ["", "a-secret-of-sixtee", "a-secret-of-sixteen ", "A-secret-of-sixteen"] {
            assert!(!check.is(wrong), "{wrong}");
        }
        assert_ne!(check, TokenCheck::of("a-secret-of-sixteen", &Chance::seeded(2)).unwrap(), "salted");
        assert_eq!(format!("{check:?}"), "TokenCheck");
    }
}
