//! The keys of a master: it signs starts of nodes, and name keys.

use ffambient::Chance;
use ffproto::Incarnation;
use ffproto::credential::{Claims, Credential, Delegation, PublicKey, name_key_bytes, start_bytes};

use crate::key::{KeyError, Signer};
use crate::{ClusterSecret, NameKey, NodeKeys, TokenCheck, TrustRoots};

/// The keys of a master of one cluster.
#[derive(Debug)]
pub struct ClusterKeys {
    signer: Signer,
    roots: TrustRoots,
    token: Option<TokenCheck>,
}

impl ClusterKeys {
    /// Those of a generation of the secret; `previous` is what signed before it, and is valid still.
    ///
    /// # Errors
    /// The secret makes no key.
    pub fn new(
        secret: &ClusterSecret,
        generation: u64,
        previous: Option<PublicKey>,
    ) -> Result<Self, KeyError> {
        let signer = Signer::of_seed(secret.signing_seed(generation))?;
        let previous = previous.filter(|previous| *previous != signer.public());
        let roots = TrustRoots { current: signer.public(), previous };
        Ok(Self { signer, roots, token: None })
    }

    /// The same with what nodes know the token by.
    #[must_use]
    pub fn with_token(self, token: TokenCheck) -> Self {
        Self { token: Some(token), ..self }
    }

    /// What credentials are checked by.
    pub fn roots(&self) -> TrustRoots {
        self.roots
    }

    /// The keys of one start.
    ///
    /// # Errors
    /// There is no chance.
    pub fn start(
        &self,
        claims: Claims,
        incarnation: Incarnation,
        chance: &Chance,
    ) -> Result<NodeKeys, KeyError> {
        let own = Signer::new(chance)?;
        let signature = self.signer.sign(&start_bytes(&claims, incarnation, &own.public()));
        let (key, root) = (own.public(), self.roots.current);
        let credential = Credential { claims, incarnation, key, root, via: None, signature };
        Ok(NodeKeys::new(own, credential, self.roots, self.token.clone()))
    }

    /// A key that signs starts of that name alone.
    ///
    /// # Errors
    /// There is no chance.
    pub fn name_key(&self, claims: Claims, chance: &Chance) -> Result<NameKey, KeyError> {
        let own = Signer::new(chance)?;
        let key = own.public();
        let signature = self.signer.sign(&name_key_bytes(&claims, &key));
        Ok(NameKey::new(own, claims, Delegation { key, signature }, self.roots, self.token.clone()))
    }
}
