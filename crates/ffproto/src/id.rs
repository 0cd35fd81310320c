//! Names and numbers. A checked string is a type: an invalid name cannot become a [`NodeName`].

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes: long enough for people, short enough for every log line and frame.
pub const NAME_BYTES_MAX: usize = 64;

/// A text that is no name: what was wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    /// There is no text.
    #[error("a name may not be empty")]
    Empty,
    /// The name is longer than [`NAME_BYTES_MAX`].
    #[error("a name has at most {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// The name has a character that is not allowed at its place.
    #[error(
        "`{0}` may not stand there: a name is made of letters, digits, `_`, `-`, `.`, and starts with a letter or digit"
    )]
    Character(char),
}

fn check_name(text: &str) -> Result<(), BadName> {
    if text.is_empty() {
        return Err(BadName::Empty);
    }
    if text.len() > NAME_BYTES_MAX {
        return Err(BadName::TooLong);
    }
    for (at, c) in text.chars().enumerate() {
        let inner = at > 0 && matches!(c, '_' | '-' | '.');
        if !(c.is_ascii_alphanumeric() || inner) {
            return Err(BadName::Character(c));
        }
    }
    Ok(())
}

/// The conversions of a name.
macro_rules! name_type {
    ($name:ident) => {
        impl TryFrom<&str> for $name {
            type Error = BadName;
            fn try_from(text: &str) -> Result<Self, BadName> {
                check_name(text)?;
                Ok(Self(text.into()))
            }
        }
        impl TryFrom<String> for $name {
            type Error = BadName;
            fn try_from(text: String) -> Result<Self, BadName> {
                Self::try_from(text.as_str())
            }
        }
        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }
        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    };
}

/// The name of a node: its key under `servers` (with `.1`, `.2` … when `count` makes several).
/// Also the name of the master in links to it, see [`NodeName::master`].
///
/// ```
/// use ffproto::NodeName;
///
/// let name = NodeName::try_from("game.1")?;
/// assert_eq!(name.as_str(), "game.1");
/// assert!(NodeName::try_from("").is_err());
/// # Ok::<(), ffproto::BadName>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NodeName(Arc<str>);

/// The name of a cluster: links between different clusters are refused.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ClusterName(Arc<str>);

name_type!(NodeName);
name_type!(ClusterName);

impl ClusterName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name that the master bears in handshakes and in error messages.
    pub fn master() -> Self {
        Self("master".into())
    }
}

/// The command of a client's message: which handler or route the message is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub u32);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The incarnation of a node: one start of it, in milliseconds since the Unix epoch, and always larger than the one
/// before. A newer incarnation fences an older one of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// How far the clocks of two hosts may lie apart.
    #[doc(hidden)] // For masters and links: authors compare incarnations.
    pub const SKEW_MS: u64 = 24 * 3_600 * 1_000;

    /// The incarnation of a start at `unix_ms`, after `previous`: time where it moves on, else one more. After the last
    /// of all there is none: it stays, and what may become known is bounded so that nobody comes near it.
    pub fn next(unix_ms: u64, previous: Option<Self>) -> Self {
        match previous {
            Some(Self(last)) => Self(unix_ms.max(last.saturating_add(1))),
            None => Self(unix_ms),
        }
    }

    /// Whether a master whose clock says `now_ms` takes it for the start of a node: half of what its neighbours would. So the
    /// next start, which comes behind it, is one that they all take.
    #[doc(hidden)] // For masters: authors compare incarnations.
    pub fn may_register_at(self, now_ms: u64) -> bool {
        self.0 <= now_ms.saturating_add(Self::SKEW_MS / 2)
    }

    /// Whether a clock that says `now_ms` may have given it by now, or one that goes a day before it.
    #[doc(hidden)] // For masters and links: authors compare incarnations.
    pub fn is_given_by(self, now_ms: u64) -> bool {
        self.0 <= now_ms.saturating_add(Self::SKEW_MS)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A small number that the master gives a node for its life; no two living nodes have the same.
/// It is in every session id that the node makes. 1 to 4095.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeNumber(pub u16);

impl NodeNumber {
    /// The largest number: twelve bits of a session id.
    pub const MAX: u16 = 4095;
}

/// The id of one client's session in the whole cluster. Never reused, not even after a restart.
///
/// Layout: the node's [`NodeNumber`] in the upper 12 bits, below it a 52-bit counter that starts at
/// `(incarnation - 2020-01-01 in ms) << 13`. A later incarnation therefore starts above every id of an
/// earlier one unless the node opened more than 8,192 sessions per millisecond of its life.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SessionId(pub u64);

impl SessionId {
    const COUNTER_BITS: u32 = 52;
    const EPOCH_2020_MS: u64 = 1_577_836_800_000;

    /// The first id that a node gives out in this incarnation.
    #[doc(hidden)] // Ids are the node's to give.
    pub fn first(node: NodeNumber, incarnation: Incarnation) -> Self {
        let start = incarnation.0.saturating_sub(Self::EPOCH_2020_MS) << 13;
        let counter = start & ((1 << Self::COUNTER_BITS) - 1);
        Self(u64::from(node.0 & NodeNumber::MAX) << Self::COUNTER_BITS | counter)
    }

    /// The id after this one.
    #[doc(hidden)] // Ids are the node's to give.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The node that opened the session.
    pub fn node(self) -> NodeNumber {
        NodeNumber((self.0 >> Self::COUNTER_BITS) as u16)
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}", self.0)
    }
}
impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_say_what_is_wrong_with_them() {
        assert_eq!(NodeName::try_from(""), Err(BadName::Empty));
        assert_eq!(NodeName::try_from("x".repeat(65).as_str()), Err(BadName::TooLong));
        assert_eq!(NodeName::try_from("ga te"), Err(BadName::Character(' ')));
        assert_eq!(NodeName::try_from("../etc"), Err(BadName::Character('.')));
        assert!(NodeName::try_from("game.12").is_ok());
    }

    #[test]
    fn an_incarnation_never_repeats_even_when_the_clock_steps_back() {
        let first = Incarnation::next(1_000, None);
        assert_eq!(Incarnation::next(900, Some(first)), Incarnation(1_001));
        assert_eq!(Incarnation::next(5_000, Some(first)), Incarnation(5_000));
        assert_eq!(Incarnation::next(5_000, Some(Incarnation(u64::MAX))), Incarnation(u64::MAX));
    }

    #[test]
    fn session_ids_of_two_incarnations_and_of_two_nodes_do_not_meet() {
        let start = 1_790_000_000_000;
        let old = SessionId::first(NodeNumber(3), Incarnation(start));
        let new = SessionId::first(NodeNumber(3), Incarnation(start + 1));
        let last_of_old = (0..8_191).fold(old, |id, _| id.next());
        assert!(last_of_old < new);
        assert_ne!(SessionId::first(NodeNumber(4), Incarnation(start)), old);
        assert_eq!(last_of_old.node(), NodeNumber(3));
    }
}
