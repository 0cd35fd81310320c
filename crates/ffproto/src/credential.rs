//! Credentials: what a cluster's key says of one start of a node, as values; `ffkeys` makes and checks the signatures.
//!
//! ```text
//! root key ──signs──▶ start                       a node that a master starts
//! root key ──signs──▶ name key ──signs──▶ start   a node that is started with a key file
//! ```
//!
//! A credential has no end by a clock: it is of one incarnation, and a newer one fences it. So links come back without a
//! master for as long as the cluster lives.

use serde::{Deserialize, Serialize};

use crate::{ClusterName, Incarnation, NodeName};

/// The most kinds of parents that a credential names: the config of one node has a few.
pub const BELOW_MAX: usize = 32;

/// A public key of Ed25519.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(pub [u8; 32]);

/// A signature of Ed25519, in two halves.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature(pub [u8; 32], pub [u8; 32]);

impl Signature {
    /// The signature in one piece.
    pub fn bytes(&self) -> [u8; 64] {
        std::array::from_fn(|i| if i < 32 { self.0[i] } else { self.1[i - 32] })
    }

    /// Of its bytes; `None` when they are not 64.
    pub fn of(bytes: &[u8]) -> Option<Self> {
        let (first, second) = bytes.split_first_chunk()?;
        Some(Self(*first, second.try_into().ok()?))
    }
}

impl std::fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "key {a:02x}{b:02x}{c:02x}{d:02x}…")
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("signature")
    }
}

/// The role of a process in its cluster. A master signs for nodes and is none: its key opens no link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// It supervises nodes.
    Master,
    /// A node.
    Node,
}

/// The claims of a credential: who somebody is, by the config of the master that has signed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The cluster.
    pub cluster: ClusterName,
    /// Master or node.
    pub role: Role,
    /// The name of the node.
    pub name: NodeName,
    /// The kind of the node.
    pub kind: String,
    /// The kinds of nodes that it may be a child of. Kinds and no names: of a kind there may be hundreds.
    pub below: Vec<String>,
}

impl Claims {
    /// A master's.
    pub fn of_master(cluster: ClusterName) -> Self {
        Self { cluster, role: Role::Master, name: NodeName::master(), kind: "master".into(), below: vec![] }
    }
}

/// The part of a credential that a name key signs for itself: whose key it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delegation {
    /// The name key.
    pub key: PublicKey,
    /// The root's signature over the claims and the name key.
    pub signature: Signature,
}

/// The credential of one start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credential {
    /// Who it is.
    pub claims: Claims,
    /// Which start.
    pub incarnation: Incarnation,
    /// The start's own key.
    pub key: PublicKey,
    /// The root that the chain begins with.
    pub root: PublicKey,
    /// The name key between root and start, if there is one.
    pub via: Option<Delegation>,
    /// The signature over claims, incarnation and key, by the root or by the name key.
    pub signature: Signature,
}

impl Credential {
    /// What the credential's signature is over.
    pub fn start_bytes(&self) -> Vec<u8> {
        start_bytes(&self.claims, self.incarnation, &self.key)
    }
}

/// What a start's signature is over.
pub fn start_bytes(claims: &Claims, incarnation: Incarnation, key: &PublicKey) -> Vec<u8> {
    let mut fields = Fields::new("ff start 1");
    fields.claims(claims);
    fields.number(incarnation.0);
    fields.bytes(&key.0);
    fields.0
}

/// What the signature over a name key is over.
pub fn name_key_bytes(claims: &Claims, key: &PublicKey) -> Vec<u8> {
    let mut fields = Fields::new("ff name key 1");
    fields.claims(claims);
    fields.bytes(&key.0);
    fields.0
}

/// Fields in one row of bytes, each preceded by its length, so that no two rows of fields have the same bytes. The first
/// one says what they are for.
pub(crate) struct Fields(pub(crate) Vec<u8>);

impl Fields {
    pub(crate) fn new(label: &str) -> Self {
        let mut fields = Self(Vec::with_capacity(512));
        fields.bytes(label.as_bytes());
        fields
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    pub(crate) fn number(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn claims(&mut self, claims: &Claims) {
        let Claims { cluster, role, name, kind, below } = claims;
        self.bytes(cluster.as_str().as_bytes());
        self.number(match role {
            Role::Master => 1,
            Role::Node => 2,
        });
        self.bytes(name.as_str().as_bytes());
        self.bytes(kind.as_bytes());
        self.number(below.len() as u64);
        below.iter().for_each(|kind| self.bytes(kind.as_bytes()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(name: &str, kind: &str, below: &[&str]) -> Claims {
        Claims {
            cluster: ClusterName::try_from("c").unwrap(),
            role: Role::Node,
            name: NodeName::try_from(name).unwrap(),
            kind: kind.into(),
            below: below.iter().map(|&kind| kind.to_owned()).collect(),
        }
    }

    #[test]
    fn no_two_claims_have_the_same_bytes() {
        let (key, one) = (PublicKey([1; 32]), Incarnation(1));
        let mut all = vec![
            start_bytes(&claims("ab", "c", &[]), one, &key),
            start_bytes(&claims("a", "bc", &[]), one, &key),
            start_bytes(&claims("a", "b", &["c"]), one, &key),
            start_bytes(&claims("a", "b", &["c", ""]), one, &key),
            start_bytes(&Claims { role: Role::Master, ..claims("a", "b", &[]) }, one, &key),
            start_bytes(&claims("a", "b", &[]), Incarnation(2), &key),
            start_bytes(&claims("a", "b", &[]), one, &PublicKey([2; 32])),
            name_key_bytes(&claims("a", "b", &[]), &key),
        ];
        all.sort();
        let count = all.len();
        all.dedup();
        assert_eq!(all.len(), count);
    }

    #[test]
    fn a_signature_is_its_sixty_four_bytes() {
        let bytes: Vec<u8> = (0..64).collect();
        assert_eq!(Signature::of(&bytes).unwrap().bytes().as_slice(), bytes);
        assert!(Signature::of(&bytes[1..]).is_none() && Signature::of(&[0; 65]).is_none());
    }
}
