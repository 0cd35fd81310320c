//! The keys of one start of a node: its own key, who it is, and what it knows others by.

use std::sync::Arc;

use bincode::Options;
use ffproto::Incarnation;
use ffproto::credential::{Claims, Credential, PublicKey, Signature};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::key::{KeyError, Signer};
use crate::{TokenCheck, TrustRoots};

/// The keys of one start. Its `Debug` shows no secret.
#[derive(Debug)]
pub struct NodeKeys {
    own: Arc<Signer>,
    credential: Credential,
    roots: TrustRoots,
    token: Option<TokenCheck>,
    /// The same start by the key before the last rotation; a master's alone.
    older: Option<Box<NodeKeys>>,
}

/// The same in the form in which a master hands it to a node's process.
#[derive(Serialize, Deserialize)]
struct Handed {
    seed: [u8; 32],
    credential: Credential,
    roots: TrustRoots,
    token: Option<TokenCheck>,
}

impl NodeKeys {
    /// The most bytes that they take: they fit a pipe that nobody reads yet.
    pub const BYTES_MAX: usize = 8 * 1024;

    pub(crate) fn new(
        own: Signer,
        credential: Credential,
        roots: TrustRoots,
        token: Option<TokenCheck>,
    ) -> Self {
        Self { own: Arc::new(own), credential, roots, token, older: None }
    }

    /// The same after a rotation: others are known by those roots from now on.
    #[must_use]
    pub fn with_roots(&self, roots: TrustRoots) -> Self {
        let Self { own, credential, token, .. } = self;
        Self { own: own.clone(), credential: credential.clone(), roots, token: token.clone(), older: None }
    }

    /// The same with what is shown to who does not know of the last rotation yet.
    #[must_use]
    pub fn with_older(self, older: Self) -> Self {
        Self { older: Some(Box::new(older)), ..self }
    }

    /// What to show to a peer whose own credential is of that root: it knows others by that one, and maybe by no other.
    pub fn shown_to(&self, root: PublicKey) -> &Self {
        self.older.as_deref().filter(|older| older.credential.root == root).unwrap_or(self)
    }

    /// Whether peers still take the credential that these keys are of.
    pub fn are_valid(&self) -> bool {
        self.roots.has(self.credential.root)
    }

    /// Who the node is, for others.
    pub fn credential(&self) -> &Credential {
        &self.credential
    }

    /// Who the node is.
    pub fn claims(&self) -> &Claims {
        &self.credential.claims
    }

    /// Which start these keys are of.
    pub fn incarnation(&self) -> Incarnation {
        self.credential.incarnation
    }

    /// What others are known by.
    pub fn roots(&self) -> TrustRoots {
        self.roots
    }

    /// What the cluster's token is known by, if it has one.
    pub fn token(&self) -> Option<&TokenCheck> {
        self.token.as_ref()
    }

    /// Signs, and so proves that this is the start of the credential.
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.own.sign(message)
    }

    /// The bytes in which they go to another process.
    ///
    /// # Errors
    /// They are too many: the names are too long.
    pub fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let Self { own, credential, roots, token, .. } = self;
        let (credential, token) = (credential.clone(), token.clone());
        let mut handed = Handed { seed: *own.seed(), credential, roots: *roots, token };
        let bytes = coding().serialize(&handed).map_err(|_| KeyError::Malformed);
        zeroize::Zeroize::zeroize(&mut handed.seed);
        bytes.map(Zeroizing::new)
    }

    /// The bytes in which the keys of several nodes go to the one process that runs them: each behind its length, 32 bits, little-endian.
    ///
    /// # Errors
    /// As [`to_bytes`](Self::to_bytes).
    pub fn several_to_bytes<'k>(
        several: impl IntoIterator<Item = &'k Self>,
    ) -> Result<Zeroizing<Vec<u8>>, KeyError> {
        let each: Vec<_> = several.into_iter().map(Self::to_bytes).collect::<Result<_, _>>()?;
        // All at once: a vector that grows leaves copies of secrets behind.
        let mut all = Zeroizing::new(Vec::with_capacity(each.iter().map(|bytes| 4 + bytes.len()).sum()));
        for bytes in each {
            let length = u32::try_from(bytes.len()).map_err(|_| KeyError::Malformed)?;
            all.extend_from_slice(&length.to_le_bytes());
            all.extend_from_slice(&bytes);
        }
        Ok(all)
    }

    /// The keys of several nodes, of those bytes and in their order.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], also when something stands behind them, or one is longer than [`BYTES_MAX`](Self::BYTES_MAX).
    pub fn several_of_bytes(bytes: &[u8]) -> Result<Vec<Self>, KeyError> {
        let mut several = Vec::new();
        let mut rest = bytes;
        while let Some((length, behind)) = rest.split_first_chunk() {
            let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| KeyError::Malformed)?;
            let (one, behind) = behind.split_at_checked(length).ok_or(KeyError::Malformed)?;
            several.push(Self::of_bytes(one)?);
            rest = behind;
        }
        if rest.is_empty() { Ok(several) } else { Err(KeyError::Malformed) }
    }

    /// Of those bytes.
    ///
    /// # Errors
    /// [`KeyError::Malformed`], also when the key is not that of the credential.
    pub fn of_bytes(bytes: &[u8]) -> Result<Self, KeyError> {
        let handed: Handed = coding().deserialize(bytes).map_err(|_| KeyError::Malformed)?;
        let Handed { seed, credential, roots, token } = handed;
        let own = Signer::of_seed(Zeroizing::new(seed))?;
        if own.public() != credential.key {
            return Err(KeyError::Malformed);
        }
        Ok(Self::new(own, credential, roots, token))
    }
}

pub(crate) fn coding() -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(NodeKeys::BYTES_MAX as u64)
}
