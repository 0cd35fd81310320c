//! The public keys that credentials are checked by, and the check.

use ffproto::ClusterName;
use ffproto::credential::{BELOW_MAX, Credential, PublicKey, Signature, name_key_bytes};
use serde::{Deserialize, Serialize};

use crate::key::has_signed;

/// The public keys of a cluster: at most two are valid at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustRoots {
    /// What signs now.
    pub current: PublicKey,
    /// What has signed before the last rotation.
    pub previous: Option<PublicKey>,
}

/// Why a credential proves nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialFault {
    /// It is of another cluster.
    #[error("its credential is of another cluster")]
    Cluster,
    /// No key that is valid here has signed it.
    #[error("no valid key of this cluster has signed its credential")]
    Root,
    /// A signature in it is none.
    #[error("a signature in its credential is wrong")]
    Signature,
    /// It claims more than a credential may.
    #[error("its credential is too large")]
    TooLarge,
    /// It is a master's where a node's is asked for, or the other way round.
    #[error("its credential is not for what it does here")]
    Role,
    /// Who shows it does not have its key.
    #[error("it does not have the key of its credential")]
    Possession,
}

impl TrustRoots {
    /// Of one key.
    pub fn of(current: PublicKey) -> Self {
        Self { current, previous: None }
    }

    /// After a rotation to `next`: the current key is valid until the rotation after this one.
    #[must_use]
    pub fn rotated(self, next: PublicKey) -> Self {
        if next == self.current { self } else { Self { current: next, previous: Some(self.current) } }
    }

    /// Whether that key is valid.
    pub fn has(self, root: PublicKey) -> bool {
        root == self.current || Some(root) == self.previous
    }

    /// Checks the chain of a credential of `cluster`.
    ///
    /// # Errors
    /// [`CredentialFault`]. What costs the most is done last.
    pub fn check(&self, cluster: &ClusterName, credential: &Credential) -> Result<(), CredentialFault> {
        let Credential { claims, root, via, signature, .. } = credential;
        if claims.cluster != *cluster {
            return Err(CredentialFault::Cluster);
        }
        if claims.below.len() > BELOW_MAX {
            return Err(CredentialFault::TooLarge);
        }
        if !self.has(*root) {
            return Err(CredentialFault::Root);
        }
        let signer = match via {
            None => root,
            Some(via) if has_signed(root, &name_key_bytes(claims, &via.key), &via.signature) => &via.key,
            Some(_) => return Err(CredentialFault::Signature),
        };
        if has_signed(signer, &credential.start_bytes(), signature) {
            Ok(())
        } else {
            Err(CredentialFault::Signature)
        }
    }
}

/// Whether who shows a credential has its key: it has signed `message`.
///
/// # Errors
/// [`CredentialFault::Possession`] when it has not.
pub fn verify(credential: &Credential, message: &[u8], signature: &Signature) -> Result<(), CredentialFault> {
    if has_signed(&credential.key, message, signature) { Ok(()) } else { Err(CredentialFault::Possession) }
}
