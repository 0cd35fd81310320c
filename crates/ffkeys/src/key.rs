//! A key that signs: Ed25519, made of a seed.

use std::fmt;

use ffambient::{Chance, ChanceError};
use ffproto::credential::{PublicKey, Signature};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use zeroize::Zeroizing;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// There is no chance.
    #[error("no key can be made")]
    Chance(#[from] ChanceError),
    /// What should be a key is none.
    #[error("this is no key")]
    Malformed,
}

/// A key pair. Its `Debug` shows the public half.
pub(crate) struct Signer {
    seed: Zeroizing<[u8; 32]>,
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl Signer {
    pub(crate) fn of_seed(seed: Zeroizing<[u8; 32]>) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed.as_ref()).map_err(|_| KeyError::Malformed)?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Malformed)?;
        Ok(Self { seed, pair, public: PublicKey(public) })
    }

    pub(crate) fn new(chance: &Chance) -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0; 32]);
        chance.fill(seed.as_mut())?;
        Self::of_seed(seed)
    }

    pub(crate) fn seed(&self) -> &[u8; 32] {
        &self.seed
    }

    pub(crate) fn public(&self) -> PublicKey {
        self.public
    }

    pub(crate) fn sign(&self, message: &[u8]) -> Signature {
        let signature = self.pair.sign(message);
        // Ed25519's are of 64 bytes. One of zeros is nobody's.
        Signature::of(signature.as_ref()).unwrap_or(Signature([0; 32], [0; 32]))
    }
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.public.fmt(f)
    }
}

/// Whether `key` has signed `message`.
pub(crate) fn has_signed(key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
    UnparsedPublicKey::new(&ED25519, &key.0).verify(message, &signature.bytes()).is_ok()
}
