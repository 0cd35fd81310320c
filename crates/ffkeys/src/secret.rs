//! The secret of a cluster, from which its signing keys are derived.

use std::fmt;
use std::num::NonZeroU32;

use data_encoding::HEXLOWER;
use ffambient::{Chance, ChanceError};
use ffproto::ClusterName;
use ring::{hkdf, pbkdf2};
use zeroize::Zeroizing;

/// Rounds over a token: a guess costs a tenth of a second on the machine of who guesses, and a master's start as much.
// Unwrapped while it is compiled: a number that is zero does not build.
const TOKEN_ROUNDS: NonZeroU32 = NonZeroU32::new(100_000).unwrap();

/// The secret of a cluster. Only masters have it. Its `Debug` shows nothing, and its memory is cleared.
#[derive(Clone, PartialEq, Eq)]
pub struct ClusterSecret(Zeroizing<[u8; 32]>);

/// What should be a secret and is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not 64 hexadecimal digits")]
pub struct BadSecret;

impl ClusterSecret {
    /// A new one.
    ///
    /// # Errors
    /// There is no chance.
    pub fn new(chance: &Chance) -> Result<Self, ChanceError> {
        let mut bytes = Zeroizing::new([0; 32]);
        chance.fill(bytes.as_mut())?;
        Ok(Self(bytes))
    }

    /// The secret of a token: the same wherever the token and the cluster's name are the same. Takes a tenth of a second.
    pub fn of_token(token: &str, cluster: &ClusterName) -> Self {
        let salt = ["ff cluster token\0", cluster.as_str()].concat();
        let mut bytes = Zeroizing::new([0; 32]);
        let (rounds, token) = (TOKEN_ROUNDS, token.as_bytes());
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA256, rounds, salt.as_bytes(), token, bytes.as_mut());
        Self(bytes)
    }

    /// Of its text.
    ///
    /// # Errors
    /// [`BadSecret`].
    pub fn of_hex(text: &str) -> Result<Self, BadSecret> {
        let bytes = Zeroizing::new(HEXLOWER.decode(text.trim().as_bytes()).map_err(|_| BadSecret)?);
        Ok(Self(Zeroizing::new(bytes.as_slice().try_into().map_err(|_| BadSecret)?)))
    }

    /// The text of the secret, for a file that only its owner can read.
    pub fn hex(&self) -> Zeroizing<String> {
        Zeroizing::new(HEXLOWER.encode(self.0.as_ref()))
    }

    /// The seed of the signing key of a generation (HKDF with SHA-256).
    pub(crate) fn signing_seed(&self, generation: u64) -> Zeroizing<[u8; 32]> {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"ff cluster");
        let key = salt.extract(self.0.as_ref());
        let (generation, mut seed) = (generation.to_le_bytes(), Zeroizing::new([0; 32]));
        let filled = key
            .expand(&[b"ff signing key", &generation], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(seed.as_mut()));
        // As long as the hash is: HKDF gives that much whatever it is asked for.
        debug_assert!(filled.is_ok());
        seed
    }
}

impl fmt::Debug for ClusterSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClusterSecret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_as_it_was_written_and_shown_to_nobody() {
        let secret = ClusterSecret::new(&Chance::seeded(1)).unwrap();
        assert_eq!(ClusterSecret::of_hex(&format!("{}\n", *secret.hex())), Ok(secret.clone()));
        assert_eq!(format!("{secret:?}"), "ClusterSecret");
        for wrong in ["", "00", "zz", &"0".repeat(63), &"0".repeat(66)] {
            assert_eq!(ClusterSecret::of_hex(wrong), Err(BadSecret), "{wrong}");
        }
    }

    #[test]
    fn a_token_gives_the_same_secret_for_its_cluster_alone() {
        let of = |token, cluster| ClusterSecret::of_token(token, &ClusterName::try_from(cluster).unwrap());
        let secret = of("a-secret-of-sixteen", "c");
        assert!(secret == of("a-secret-of-sixteen", "c"));
        assert!(secret != of("a-secret-of-sixteen", "d") && secret != of("a-secret-of-sixteem", "c"));
    }

    #[test]
    fn each_generation_has_a_seed_of_its_own() {
        let secret = ClusterSecret::new(&Chance::seeded(1)).unwrap();
        assert!(secret.signing_seed(0) == secret.signing_seed(0));
        assert!(secret.signing_seed(0) != secret.signing_seed(1) && *secret.signing_seed(0) != [0; 32]);
    }
}
