//! The handshake with which a connection between two nodes, or a node and the master, starts: versions, names, and a
//! proof of the shared token from both sides without the token on the wire.
//!
//! ```text
//! dialer                                   acceptor
//!   preamble(version, purpose)  ───────▶
//!                               ◀───────   preamble(version, purpose)
//!   Hello{names, nonce}         ───────▶
//!                               ◀───────   Challenge{nonce, proof, methods}   or Refused{reason}
//!   Proof{proof}                ───────▶                                      or Refused{reason}
//!                               ◀───────   Welcome                            or Refused{reason}
//! ```
//!
//! A proof is HMAC-SHA256 (RFC 2104) with the token as key over a label that differs by side, the
//! purpose, the cluster, both names and both nonces: it can be neither replayed nor reflected.
//! The messages are pure values; `ffnet::handshake` moves them.

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use crate::{ClusterName, Incarnation, NodeName};

/// The version of everything that nodes say to each other. Ends with different versions do not talk.
pub const VERSION: u16 = 2;
/// The longest handshake message in bytes: names and a few thousand methods.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the preamble.
pub const PREAMBLE_BYTES: usize = 8;

const MAGIC: [u8; 4] = *b"FFLK";

/// The purpose of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// A node to its master: typed control messages.
    Control,
    /// A child to its parent: calls both ways.
    Link,
}

/// Why a preamble was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadPreamble {
    /// Something else is on that port.
    #[error("the other side does not speak this protocol (first bytes {0:02x?})")]
    Magic([u8; 4]),
    /// Another version.
    #[error(
        "the other side speaks version {theirs} of the protocol between nodes, this side version {ours}: \
         stop the cluster, and start it with master and appmain of one release"
    )]
    Version {
        /// The other side's version.
        theirs: u16,
        /// This side's version.
        ours: u16,
    },
    /// A control connection met a link port or the other way round.
    #[error("the other side serves another purpose: is the port right?")]
    Purpose,
}

impl Purpose {
    fn number(self) -> u8 {
        match self {
            Purpose::Control => 1,
            Purpose::Link => 2,
        }
    }

    /// The first bytes of both sides: magic, version (little-endian), purpose, 0.
    pub fn preamble(self) -> [u8; PREAMBLE_BYTES] {
        let [v0, v1] = VERSION.to_le_bytes();
        let [a, b, c, d] = MAGIC;
        [a, b, c, d, v0, v1, self.number(), 0]
    }

    /// Checks the other side's preamble.
    ///
    /// # Errors
    /// [`BadPreamble`], by what differs.
    pub fn check_preamble(self, theirs: [u8; PREAMBLE_BYTES]) -> Result<(), BadPreamble> {
        let [a, b, c, d, v0, v1, purpose, _] = theirs;
        if [a, b, c, d] != MAGIC {
            return Err(BadPreamble::Magic([a, b, c, d]));
        }
        let version = u16::from_le_bytes([v0, v1]);
        if version != VERSION {
            return Err(BadPreamble::Version { theirs: version, ours: VERSION });
        }
        if purpose != self.number() { Err(BadPreamble::Purpose) } else { Ok(()) }
    }
}

/// Random bytes that make each handshake its own.
pub type Nonce = [u8; 32];
/// A proof of the token.
pub type ProofBytes = [u8; 32];

/// The dialer's first message: its own name and the name that it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The cluster that the dialer belongs to.
    pub cluster: String,
    /// The sender's name.
    pub name: NodeName,
    /// The sender's kind, among which routes choose.
    pub kind: String,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The sender's process id, for people and for the supervisor.
    pub pid: u32,
    /// Version of the program, for people.
    pub program: String,
    /// The node that the dialer expects to reach.
    pub to: NodeName,
    /// The sender's random bytes.
    pub nonce: Nonce,
    /// The methods that the acceptor may call on the dialer, in the order of their numbers.
    pub methods: Vec<String>,
}

/// The acceptor's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Challenge {
    /// The sender's name.
    pub name: NodeName,
    /// The sender's kind.
    pub kind: String,
    /// The sender's incarnation.
    pub incarnation: Incarnation,
    /// The sender's random bytes.
    pub nonce: Nonce,
    /// The proof that the acceptor knows the token.
    pub proof: ProofBytes,
    /// The methods that the dialer may call on the acceptor, in the order of their numbers.
    pub methods: Vec<String>,
}

/// A message of the dialer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromDialer {
    /// First.
    Hello(Hello),
    /// Third: that the dialer knows the token.
    Proof(ProofBytes),
    /// The dialer will not go on.
    Refused(Refusal),
}

/// A message of the acceptor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromAcceptor {
    /// Second.
    Challenge(Challenge),
    /// Last: the connection is open.
    Welcome,
    /// The acceptor will not go on.
    Refused(Refusal),
}

/// Why one side refuses the other. Both sides log it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// Different clusters.
    #[error("this is cluster `{ours}`, not `{theirs}`")]
    Cluster {
        /// The refusing side's.
        ours: String,
        /// The refused side's.
        theirs: String,
    },
    /// The dialer wanted somebody else.
    #[error("this is `{ours}`, not `{wanted}`: is the port right?")]
    Name {
        /// The refusing side's name.
        ours: NodeName,
        /// The name that was wanted.
        wanted: NodeName,
    },
    /// The proof is wrong.
    #[error("the tokens differ")]
    Token,
    /// The config of the refusing side knows no such node.
    #[error("the config has no node `{0}` here")]
    Unknown(NodeName),
    /// A newer incarnation of the same node is known.
    #[error("a newer `{name}` is known: incarnation {newer}, this one is {older}")]
    Older {
        /// The node.
        name: NodeName,
        /// The known incarnation.
        newer: Incarnation,
        /// The refused one.
        older: Incarnation,
    },
    /// The refusing side is stopping.
    #[error("it is stopping")]
    Stopping,
    /// A message came that does not belong there.
    #[error("it sent an unexpected handshake message")]
    Unexpected,
}

/// Which side makes a proof.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The side that connected.
    Dialer,
    /// The side that listened.
    Acceptor,
}

/// The transcript of a handshake, over which both proofs are made.
#[derive(Debug, Clone)]
pub struct Transcript<'a> {
    /// What the connection is for.
    pub purpose: Purpose,
    /// The cluster's name.
    pub cluster: &'a ClusterName,
    /// The dialer's name, incarnation and nonce.
    pub dialer: (&'a NodeName, Incarnation, &'a Nonce),
    /// The acceptor's name, incarnation and nonce.
    pub acceptor: (&'a NodeName, Incarnation, &'a Nonce),
}

impl Transcript<'_> {
    fn mac(&self, token: &str, side: Side) -> Hmac<Sha256> {
        // HMAC takes keys of any length, so this cannot fail; an empty token is an empty key.
        let mut mac = <Hmac<Sha256> as Mac>::new_from_slice(token.as_bytes())
            .unwrap_or_else(|_| <Hmac<Sha256> as Mac>::new(&Default::default()));
        mac.update(match side {
            Side::Dialer => b"ff dialer\0",
            Side::Acceptor => b"ff acceptor",
        });
        mac.update(&self.purpose.preamble());
        // Each text is preceded by its length, so that no two transcripts have the same bytes.
        let mut text = |t: &str| {
            mac.update(&(t.len() as u64).to_le_bytes());
            mac.update(t.as_bytes());
        };
        text(self.cluster.as_str());
        text(self.dialer.0.as_str());
        text(self.acceptor.0.as_str());
        for (_, incarnation, nonce) in [self.dialer, self.acceptor] {
            mac.update(&incarnation.0.to_le_bytes());
            mac.update(nonce);
        }
        mac
    }

    /// The proof that `side` sends.
    pub fn prove(&self, token: &str, side: Side) -> ProofBytes {
        self.mac(token, side).finalize().into_bytes().into()
    }

    /// Whether `proof` is that of `side`, compared in constant time.
    ///
    /// # Errors
    /// [`Refusal::Token`] when it is not.
    pub fn check(&self, token: &str, side: Side, proof: &ProofBytes) -> Result<(), Refusal> {
        self.mac(token, side).verify_slice(proof).map_err(|_| Refusal::Token)
    }
}

/// Whether a connection of `name` with incarnation `theirs` may take the place of the one with `known`.
/// The same incarnation may: it is the same process, reconnecting over a half-open link.
///
/// # Errors
/// [`Refusal::Older`] when a newer start is known.
pub fn fence(name: &NodeName, known: Option<Incarnation>, theirs: Incarnation) -> Result<(), Refusal> {
    match known {
        Some(newer) if newer > theirs => Err(Refusal::Older { name: name.clone(), newer, older: theirs }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_holds_for_its_side_its_token_and_its_nonces_only() {
        let cluster = ClusterName::try_from("c").unwrap();
        let (net, gate) = (NodeName::try_from("net").unwrap(), NodeName::try_from("gate").unwrap());
        let (n1, n2) = ([1; 32], [2; 32]);
        let this = Transcript {
            purpose: Purpose::Link,
            cluster: &cluster,
            dialer: (&net, Incarnation(1), &n1),
            acceptor: (&gate, Incarnation(2), &n2),
        };
        let proof = this.prove("secret", Side::Dialer);
        assert_eq!(this.check("secret", Side::Dialer, &proof), Ok(()));
        assert_eq!(this.check("secret", Side::Acceptor, &proof), Err(Refusal::Token), "reflected");
        assert_eq!(this.check("other", Side::Dialer, &proof), Err(Refusal::Token));
        let replayed = Transcript { acceptor: (&gate, Incarnation(2), &n1), ..this.clone() };
        assert_eq!(replayed.check("secret", Side::Dialer, &proof), Err(Refusal::Token), "replayed");
        let control = Transcript { purpose: Purpose::Control, ..this };
        assert_eq!(control.check("secret", Side::Dialer, &proof), Err(Refusal::Token), "other purpose");
    }

    #[test]
    fn preambles_say_what_differs() {
        let ours = Purpose::Link;
        assert_eq!(ours.check_preamble(ours.preamble()), Ok(()));
        assert_eq!(ours.check_preamble(Purpose::Control.preamble()), Err(BadPreamble::Purpose));
        assert_eq!(ours.check_preamble(*b"GET / HT"), Err(BadPreamble::Magic(*b"GET ")));
        let mut newer = ours.preamble();
        newer[4] = 9;
        assert_eq!(ours.check_preamble(newer), Err(BadPreamble::Version { theirs: 9, ours: VERSION }));
    }

    #[test]
    fn an_older_incarnation_is_fenced_and_the_same_one_may_reconnect() {
        let name = NodeName::try_from("gate").unwrap();
        assert!(fence(&name, None, Incarnation(5)).is_ok());
        assert!(fence(&name, Some(Incarnation(5)), Incarnation(5)).is_ok());
        assert!(fence(&name, Some(Incarnation(5)), Incarnation(6)).is_ok());
        assert!(matches!(fence(&name, Some(Incarnation(5)), Incarnation(4)), Err(Refusal::Older { .. })));
    }
}
