//! The handshake with which a connection between two nodes, or a node and the master, starts: versions, and a proof of who
//! each side is. The dialer proves first, and nobody who has not is told anything.
//!
//! ```text
//! dialer                                       acceptor
//!   preamble(purpose, versions)     ───────▶
//!                                   ◀───────   preamble(purpose, versions), nonce
//!   Hello{credential, to, nonce, signature} ─▶           a stranger is left without a word
//!                                   ◀───────   Answer{credential, verdict, signature}
//!   Reply: methods, or Refused{reason} ────▶           when the verdict is Welcome
//!                                   ◀───────   methods
//! ```
//!
//! Each signature is over a [`Transcript`]: both preambles, both nonces, whom the dialer wants, and what the connection is
//! bound to. It holds for its side of one handshake alone: it is neither replayed, reflected, nor taken to another node. The
//! acceptor's is over its verdict, too, so that nobody else can tell a node that it is not wanted.
//! The messages are pure values; `ffnet::handshake` moves them.

use serde::{Deserialize, Serialize};

use crate::credential::{Credential, Fields, Role, Signature};
use crate::{Incarnation, NodeName, Version, Versions};

/// The longest message before both sides have proved who they are, and of what is not a list of methods.
pub const PROOF_BYTES_MAX: usize = 4 * 1024;
/// The longest list of methods in bytes: a few thousand. It is sent to who has proved who it is.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the preamble.
pub const PREAMBLE_BYTES: usize = 12;
/// Bytes of a preamble that releases before version 3 have sent; those before the version's end are the same.
pub const OLD_PREAMBLE_BYTES: usize = 8;

const MAGIC: [u8; 4] = *b"FFLK";
/// In the place of the first zero behind the versions: only encrypted connections are taken.
const ENCRYPTED_ONLY: u8 = 1;

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
    /// No version that both speak.
    #[error(
        "the other side speaks {theirs} of the protocol between nodes, this side {ours}: \
         stop the cluster, and start it with master and appmain of one release"
    )]
    Version {
        /// The other side's versions.
        theirs: Versions,
        /// This side's versions.
        ours: Versions,
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

    /// The role of who accepts connections of this purpose. Who dials is always a node.
    pub fn acceptor(self) -> Role {
        match self {
            Purpose::Control => Role::Master,
            Purpose::Link => Role::Node,
        }
    }

    /// The first bytes of both sides: magic, the first version (little-endian), purpose, 0, the last version, 0, 0.
    pub fn preamble(self, versions: Versions) -> [u8; PREAMBLE_BYTES] {
        let ([a, b, c, d], [v0, v1]) = (MAGIC, versions.min.0.to_le_bytes());
        let [w0, w1] = versions.max.0.to_le_bytes();
        [a, b, c, d, v0, v1, self.number(), 0, w0, w1, 0, 0]
    }

    /// The first bytes of an acceptor that takes only encrypted connections, and the last ones to a dialer whose is not.
    pub fn preamble_of_encrypted_only(self, versions: Versions) -> [u8; PREAMBLE_BYTES] {
        let mut preamble = self.preamble(versions);
        preamble[PREAMBLE_BYTES - 2] = ENCRYPTED_ONLY;
        preamble
    }

    /// Checks the first bytes of a preamble, which every release sends: those before version 3 send no more.
    ///
    /// # Errors
    /// [`BadPreamble`]: another protocol, or a release that speaks one older version.
    pub fn check_first(self, ours: Versions, first: [u8; OLD_PREAMBLE_BYTES]) -> Result<(), BadPreamble> {
        let [a, b, c, d, v0, v1, ..] = first;
        if [a, b, c, d] != MAGIC {
            return Err(BadPreamble::Magic([a, b, c, d]));
        }
        let only = Version(u16::from_le_bytes([v0, v1]));
        if only < Versions::FIRST_NEGOTIATED {
            let theirs = Versions { min: only, max: only };
            return Err(BadPreamble::Version { theirs, ours });
        }
        Ok(())
    }

    /// The version that both sides speak, by the other side's preamble.
    ///
    /// # Errors
    /// [`BadPreamble`], by what differs.
    pub fn negotiate(self, ours: Versions, theirs: [u8; PREAMBLE_BYTES]) -> Result<Version, BadPreamble> {
        let [a, b, c, d, v0, v1, purpose, zero, w0, w1, ..] = theirs;
        self.check_first(ours, [a, b, c, d, v0, v1, purpose, zero])?;
        let (min, max) = (u16::from_le_bytes([v0, v1]), u16::from_le_bytes([w0, w1]));
        let theirs = Versions { min: Version(min), max: Version(max) };
        let both = ours.with(theirs).ok_or(BadPreamble::Version { theirs, ours })?;
        if purpose != self.number() { Err(BadPreamble::Purpose) } else { Ok(both) }
    }
}

/// Whether an acceptor's preamble says that it takes only encrypted connections.
pub fn takes_encrypted_only(preamble: &[u8; PREAMBLE_BYTES]) -> bool {
    preamble.starts_with(&MAGIC) && preamble[PREAMBLE_BYTES - 2] == ENCRYPTED_ONLY
}

/// Random bytes that make each handshake its own.
pub type Nonce = [u8; 32];

/// The dialer's message: who it is, and whom it wants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The dialer.
    pub credential: Credential,
    /// The node that the dialer expects to reach.
    pub to: NodeName,
    /// The dialer's random bytes.
    pub nonce: Nonce,
    /// The dialer's process id, for people and for the supervisor.
    pub pid: u32,
    /// Version of the dialer's program, for people.
    pub program: String,
    /// The dialer's signature over the [`Transcript`].
    pub signature: Signature,
}

/// The acceptor's message, to a dialer that has proved who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// The acceptor.
    pub credential: Credential,
    /// Whether the dialer may stay.
    pub verdict: Verdict,
    /// The acceptor's signature over the [`Transcript`] and the rest of this.
    pub signature: Signature,
}

/// Whether a dialer may stay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// It may: its [`Reply`] is next.
    Welcome,
    /// It may not.
    Refused(Refusal),
}

/// The methods that the other side may call, in the order of their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Methods(pub Vec<String>);

/// The dialer's reply to an acceptor that has proved who it is. The acceptor's [`Methods`] follow, and the connection is open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The dialer's methods.
    Methods(Methods),
    /// The dialer will not go on.
    Refused(Refusal),
}

/// Why one side refuses the other, which has proved who it is. Both sides log it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// The dialer wanted somebody else.
    #[error("this is `{ours}`, not `{wanted}`: is the port right?")]
    Name {
        /// The refusing side's name.
        ours: NodeName,
        /// The name that was wanted.
        wanted: NodeName,
    },
    /// The config of the refusing side knows no such node.
    #[error("the config has no node `{0}` here")]
    Unknown(NodeName),
    /// The node is no child of the refusing one.
    #[error("`{child}` of the kind `{kind}` is no child of a `{ours}` by the config of its master")]
    NoChild {
        /// The refused node.
        child: NodeName,
        /// The refused node's kind.
        kind: String,
        /// The refusing node's kind.
        ours: String,
    },
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
    /// The incarnation lies in the future: a clock is wrong, and nobody could follow such a start.
    #[error("incarnation {0} is far ahead of the clock here: is a clock wrong?")]
    Future(Incarnation),
    /// The refusing side is stopping.
    #[error("it is stopping")]
    Stopping,
}

/// Both preambles and the acceptor's nonce, which is all that is said before a proof.
#[derive(Debug, Clone, Copy)]
pub struct Opening<'a> {
    /// What the connection is for.
    pub purpose: Purpose,
    /// The version that both speak.
    pub version: Version,
    /// The dialer's first bytes.
    pub dialer: &'a [u8; PREAMBLE_BYTES],
    /// The acceptor's first bytes.
    pub acceptor: &'a [u8; PREAMBLE_BYTES],
    /// The acceptor's random bytes.
    pub nonce: &'a Nonce,
    /// What lies below this handshake and is to be the same for both ends, such as the exporter of TLS; empty without.
    pub binding: &'a [u8],
}

/// The transcript of a handshake, over which both sides sign.
#[derive(Debug, Clone, Copy)]
pub struct Transcript<'a> {
    /// What was said before.
    pub opening: Opening<'a>,
    /// What the dialer says; its signature is not part of it.
    pub hello: &'a Hello,
}

impl Transcript<'_> {
    fn fields(&self, label: &str) -> Fields {
        let Opening { purpose, version, dialer, acceptor, nonce, binding } = self.opening;
        let Hello { credential, to, nonce: of_dialer, pid, program, signature: _ } = self.hello;
        let mut fields = Fields::new(label);
        fields.number(u64::from(purpose.number()));
        fields.number(u64::from(version.0));
        for bytes in [&dialer[..], acceptor, nonce, of_dialer, binding, to.as_str().as_bytes()] {
            fields.bytes(bytes);
        }
        fields.number(u64::from(*pid));
        fields.bytes(program.as_bytes());
        credential_into(credential, &mut fields);
        fields
    }

    /// What the dialer signs.
    pub fn of_dialer(&self) -> Vec<u8> {
        self.fields("ff dialer 3").0
    }

    /// What the acceptor signs with its verdict.
    pub fn of_acceptor(&self, credential: &Credential, verdict: &Verdict) -> Vec<u8> {
        let mut fields = self.fields("ff acceptor 3");
        fields.bytes(&self.hello.signature.bytes());
        credential_into(credential, &mut fields);
        // It cannot fail: a verdict is numbers and texts. An empty row is what nobody signs.
        fields.bytes(&bincode::serialize(verdict).unwrap_or_default());
        fields.0
    }
}

fn credential_into(credential: &Credential, fields: &mut Fields) {
    fields.bytes(&credential.start_bytes());
    fields.bytes(&credential.root.0);
    if let Some(delegation) = &credential.via {
        fields.bytes(&delegation.key.0);
        fields.bytes(&delegation.signature.bytes());
    }
    fields.bytes(&credential.signature.bytes());
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

/// Whether an incarnation may have been given by now, on a host whose clock says `now_ms`.
///
/// # Errors
/// [`Refusal::Future`] when it may not.
pub fn not_of_the_future(theirs: Incarnation, now_ms: u64) -> Result<(), Refusal> {
    if theirs.is_given_by(now_ms) { Ok(()) } else { Err(Refusal::Future(theirs)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Versions = Versions { min: Version(3), max: Version(4) };

    #[test]
    fn preambles_say_what_differs() {
        let ours = Purpose::Link;
        assert_eq!(ours.negotiate(OURS, ours.preamble(OURS)), Ok(Version(4)));
        let control = Purpose::Control.preamble(OURS);
        assert_eq!(ours.negotiate(OURS, control), Err(BadPreamble::Purpose));
        assert_eq!(ours.negotiate(OURS, *b"GET / HTTP/1"), Err(BadPreamble::Magic(*b"GET ")));
    }

    #[test]
    fn the_newest_version_that_both_speak_is_taken_and_ranges_that_do_not_meet_are_named() {
        let with = |min, max| {
            let theirs = Versions { min: Version(min), max: Version(max) };
            Purpose::Link.negotiate(OURS, Purpose::Link.preamble(theirs))
        };
        assert_eq!((with(3, 3), with(4, 9), with(3, 4)), (Ok(Version(3)), Ok(Version(4)), Ok(Version(4))));
        let newer = with(5, 6).unwrap_err().to_string();
        assert!(
            newer.contains("speaks versions 5 to 6 of") && newer.contains("this side versions 3 to 4: stop")
        );
        let older = Purpose::Link.check_first(OURS, *b"FFLK\x02\0\x02\0").unwrap_err().to_string();
        assert!(older.contains("speaks version 2 of the protocol"), "{older}");
        // Lies about the range are no range.
        assert!(with(9, 3).is_err());
    }

    #[test]
    fn an_acceptor_that_takes_only_encrypted_connections_says_so_in_its_preamble() {
        let (plain, only) = (Purpose::Link.preamble(OURS), Purpose::Link.preamble_of_encrypted_only(OURS));
        assert!(!takes_encrypted_only(&plain) && takes_encrypted_only(&only));
        assert!(!takes_encrypted_only(b"GET / HTTP\x01\x01"));
    }

    #[test]
    fn an_older_incarnation_is_fenced_and_the_same_one_may_reconnect() {
        let name = NodeName::try_from("gate").unwrap();
        assert!(fence(&name, None, Incarnation(5)).is_ok());
        assert!(fence(&name, Some(Incarnation(5)), Incarnation(5)).is_ok());
        assert!(fence(&name, Some(Incarnation(5)), Incarnation(6)).is_ok());
        assert!(matches!(fence(&name, Some(Incarnation(5)), Incarnation(4)), Err(Refusal::Older { .. })));
    }

    #[test]
    fn an_incarnation_of_the_far_future_is_refused_and_clocks_may_differ_by_some_hours() {
        let now = 1_800_000_000_000;
        for good in [1, now, now + 3_600_000] {
            assert_eq!(not_of_the_future(Incarnation(good), now), Ok(()));
        }
        for bad in [now + 2 * 86_400_000, u64::MAX] {
            assert_eq!(not_of_the_future(Incarnation(bad), now), Err(Refusal::Future(Incarnation(bad))));
        }
    }
}
