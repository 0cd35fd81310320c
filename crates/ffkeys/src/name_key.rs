//! A name key: it signs starts of one name, for a node that no master starts. What a key file holds.

use bincode::Options;
use data_encoding::BASE64;
use ffambient::Chance;
use ffproto::Incarnation;
use ffproto::credential::{Claims, Credential, Delegation, start_bytes};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::key::{KeyError, Signer};
use crate::node::coding;
use crate::{NodeKeys, TokenCheck, TrustRoots};

/// The first line of a key file.
const HEAD: &str = "firefly node key 1";

/// The key of one name. Its `Debug` shows no secret.
#[derive(Debug)]
pub struct NameKey {
    own: Signer,
    claims: Claims,
    delegation: Delegation,
    roots: TrustRoots,
    token: Option<TokenCheck>,
}

#[derive(Serialize, Deserialize)]
struct Kept {
    seed: [u8; 32],
    claims: Claims,
    delegation: Delegation,
    roots: TrustRoots,
    token: Option<TokenCheck>,
}

impl NameKey {
    pub(crate) fn new(
        own: Signer,
        claims: Claims,
        delegation: Delegation,
        roots: TrustRoots,
        token: Option<TokenCheck>,
    ) -> Self {
        Self { own, claims, delegation, roots, token }
    }

    /// Whose starts it signs.
    pub fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The keys of one start.
    ///
    /// # Errors
    /// There is no chance.
    pub fn start(&self, incarnation: Incarnation, chance: &Chance) -> Result<NodeKeys, KeyError> {
        let (own, claims) = (Signer::new(chance)?, self.claims.clone());
        let signature = self.own.sign(&start_bytes(&claims, incarnation, &own.public()));
        let (key, root, via) = (own.public(), self.roots.current, Some(self.delegation));
        let credential = Credential { claims, incarnation, key, root, via, signature };
        Ok(NodeKeys::new(own, credential, self.roots, self.token.clone()))
    }

    /// The text of a key file.
    ///
    /// # Errors
    /// It is too large.
    pub fn to_text(&self) -> Result<Zeroizing<String>, KeyError> {
        let Self { own, claims, delegation, roots, token } = self;
        let (claims, token) = (claims.clone(), token.clone());
        let mut kept = Kept { seed: *own.seed(), claims, delegation: *delegation, roots: *roots, token };
        let bytes = coding().serialize(&kept).map(Zeroizing::new).map_err(|_| KeyError::Malformed);
        kept.seed.zeroize();
        let text = Zeroizing::new(BASE64.encode(&bytes?));
        Ok(Zeroizing::new(format!("{HEAD}\n{}\n", *text)))
    }

    /// Of the text of a key file.
    ///
    /// # Errors
    /// [`KeyError::Malformed`].
    pub fn of_text(text: &str) -> Result<Self, KeyError> {
        let (head, body) = text.split_once('\n').ok_or(KeyError::Malformed)?;
        let bytes = BASE64.decode(body.trim().as_bytes()).map(Zeroizing::new);
        let bytes = bytes.map_err(|_| KeyError::Malformed)?;
        if head.trim() != HEAD {
            return Err(KeyError::Malformed);
        }
        let kept: Kept = coding().deserialize(&bytes).map_err(|_| KeyError::Malformed)?;
        let Kept { seed, claims, delegation, roots, token } = kept;
        let own = Signer::of_seed(Zeroizing::new(seed))?;
        if own.public() != delegation.key {
            return Err(KeyError::Malformed);
        }
        Ok(Self::new(own, claims, delegation, roots, token))
    }
}
