//! The start of a process, as its master and the process agree on it: the environment, and the limit of open files.
//!
//! A process of one node is started as `PROGRAM NODE CONFIG`, one of several as `PROGRAM NODE NODE … CONFIG`, in the order of the
//! config. What differs then: [`SUCCEEDS_ENV`] says of which nodes a start is the successor ([`Succeeds`]), [`listen::ENV`] whose each
//! socket is ([`listen::pass_to_several`]), and the standard input has the keys of all ([`ffkeys::NodeKeys::several_to_bytes`]).
//! The incarnation is one for all of them.
//!
//! [`listen::ENV`]: crate::listen::ENV
//! [`listen::pass_to_several`]: crate::listen::pass_to_several
//!
//! Sockets are in [`listen`](crate::listen), the words of a process to its supervisor in [`notify`](crate::notify).

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::str::FromStr;

use ffproto::{Incarnation, NodeName};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The environment variable in which the master says which start of the node this is.
pub const INCARNATION_ENV: &str = "FF_INCARNATION";

/// The environment variable in which the master says that it has written the node's keys to the standard input.
pub const KEY_ENV: &str = "FF_KEY";

/// The environment variable in which the master names the start that a successor takes over from: of a process of several nodes
/// the starts, as [`Succeeds`].
pub const SUCCEEDS_ENV: &str = "FF_SUCCEEDS";

/// The environment variable in which `master dev` names the file with what the pages of the game show: JSON with texts `page` (another
/// one: the page has changed), `title` (empty: nothing is wrong), `text`, `note` and `doing` (empty: nothing is built).
pub const DEV_ENV: &str = "FF_DEV";

/// The environment variable in which a test says which one version of the protocol between nodes a program shall speak.
pub const SPEAK_ENV: &str = "FF_SPEAK";

/// Allows this process, and those that it starts, as many open files as the system lets it have: the usual soft limit of 1,024
/// would end a net node at its thousandth client, and nothing here uses `select`, which knows no more. Gives what is allowed now.
///
/// # Errors
/// When the system refuses.
pub fn allow_descriptors() -> io::Result<u64> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    Ok(hard)
}

/// The starts that the nodes of a process take over from; who is not named starts anew. As text: `gate=7,game.1=7`.
///
/// ```
/// use ffnet::launch::Succeeds;
/// use ffproto::Incarnation;
///
/// let succeeds: Succeeds = "gate=7,game.1=9".parse()?;
/// assert_eq!(succeeds.of("game.1"), Some(Incarnation(9)));
/// assert_eq!(succeeds.of("shop"), None);
/// assert_eq!(succeeds.to_string(), "game.1=9,gate=7");
/// # Ok::<(), ffnet::launch::MalformedSucceeds>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Succeeds(BTreeMap<NodeName, Incarnation>);

/// Why the value of [`SUCCEEDS_ENV`] is of no use to a process of several nodes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{SUCCEEDS_ENV}: `{0}` is not of the form gate=7,game=7")]
pub struct MalformedSucceeds(String);

impl Succeeds {
    /// The start that the node takes over from.
    pub fn of(&self, node: &str) -> Option<Incarnation> {
        self.0.iter().find(|(name, _)| **name == *node).map(|(_, incarnation)| *incarnation)
    }

    /// Whether no node takes over from another start.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(NodeName, Incarnation)> for Succeeds {
    fn from_iter<I: IntoIterator<Item = (NodeName, Incarnation)>>(starts: I) -> Self {
        Self(starts.into_iter().collect())
    }
}

impl fmt::Display for Succeeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (node, incarnation)) in self.0.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(f, "{comma}{node}={incarnation}")?;
        }
        Ok(())
    }
}

impl FromStr for Succeeds {
    type Err = MalformedSucceeds;

    fn from_str(text: &str) -> Result<Self, MalformedSucceeds> {
        let malformed = || MalformedSucceeds(text.chars().take(100).collect());
        let mut starts = BTreeMap::new();
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let (node, incarnation) = part.split_once('=').ok_or_else(malformed)?;
            let node = NodeName::try_from(node).map_err(|_| malformed())?;
            let incarnation = Incarnation(incarnation.parse().map_err(|_| malformed())?);
            if starts.insert(node, incarnation).is_some() {
                return Err(malformed());
            }
        }
        Ok(Self(starts))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_starts_that_are_succeeded_are_read_as_they_were_written() {
        let name = |name: &str| NodeName::try_from(name).unwrap();
        let succeeds = Succeeds::from_iter([
            (name("net-1"), Incarnation(u64::MAX)),
            (name("game.1"), Incarnation(7)),
            (name("game.2"), Incarnation(7)),
        ]);
        assert_eq!(succeeds.to_string(), "game.1=7,game.2=7,net-1=18446744073709551615");
        assert_eq!(succeeds.to_string().parse(), Ok(succeeds));
        assert_eq!("".parse(), Ok(Succeeds::default()));
        for bad in ["gate", "gate=", "=7", "gate=x", "gate=-1", "gate=7,gate=8", "g:e=7", "7"] {
            let refused = bad.parse::<Succeeds>().unwrap_err().to_string();
            assert_eq!(refused, format!("FF_SUCCEEDS: `{bad}` is not of the form gate=7,game=7"));
        }
    }
}
