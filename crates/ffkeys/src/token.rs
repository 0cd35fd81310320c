//! The check of a token that a node does not have.

use std::fmt;
use std::num::NonZeroU32;

use ffambient::{Chance, ChanceError};
use ring::{digest, pbkdf2};
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

    /// What one token is known again by, within one process.
    fn digest(&self, token: &str) -> [u8; 32] {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&self.salt);
        context.update(token.as_bytes());
        let mut known = [0; 32];
        known.copy_from_slice(context.finish().as_ref());
        known
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

/// How many tokens a second are looked at that are not known yet.
const LOOKS_PER_S: u32 = 20;

/// The looks of a node at the tokens that requests show it. Strangers show it some, too: so the right one is known again at once, and
/// of others there are only so many looks a second.
#[derive(Debug, Default)]
pub struct TokenLooks {
    /// By which check one was right, and its digest.
    right: Option<(TokenCheck, [u8; 32])>,
    /// In which second since 1970 there were how many looks.
    second: u64,
    looks: u32,
}

impl TokenLooks {
    /// Whether that is the token of `check`, at `now_ms` since 1970. A token that nobody has shown yet may be taken for a wrong one
    /// while many wrong ones are shown.
    pub fn is_token(&mut self, check: &TokenCheck, given: &str, now_ms: u64) -> bool {
        let digest = check.digest(given);
        if self.right.as_ref().is_some_and(|(by, right)| by == check && *right == digest) {
            return true;
        }
        if self.second != now_ms / 1000 {
            (self.second, self.looks) = (now_ms / 1000, 0);
        }
        if self.looks >= LOOKS_PER_S {
            return false;
        }
        self.looks += 1;
        let is_right = check.is(given);
        if is_right {
            self.right = Some((check.clone(), digest));
        }
        is_right
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
    }

    #[test]
    fn the_right_token_is_known_again_and_wrong_ones_cost_so_much_a_second() {
        let check = TokenCheck::of("a-secret-of-sixteen", &Chance::seeded(1)).unwrap();
        let mut looks = TokenLooks::default();
        for n in 0..LOOKS_PER_S {
            assert!(!looks.is_token(&check, &n.to_string(), 5_000));
        }
        assert!(
            !looks.is_token(&check, "a-secret-of-sixteen", 5_999),
            "nobody looks any more in this second"
        );
        assert!(looks.is_token(&check, "a-secret-of-sixteen", 6_000));
        for n in 0..=LOOKS_PER_S {
            assert!(!looks.is_token(&check, &n.to_string(), 6_000));
        }
        assert!(looks.is_token(&check, "a-secret-of-sixteen", 6_000), "it is known again");
        let other = TokenCheck::of("another-secret-of-16", &Chance::seeded(2)).unwrap();
        assert!(!looks.is_token(&other, "a-secret-of-sixteen", 7_000), "not after it has changed");
        assert_eq!(format!("{check:?}"), "TokenCheck");
    }
}
