//! Questions that the master asks its nodes for an operator, and their answers: sessions, and commands of the app.
//!
//! What is answered is bounded ([`ROWS_MAX`], [`ROWS_BYTES_MAX`], [`BODY_BYTES_MAX`], [`RESULT_BYTES_MAX`]), so that every answer fits
//! a control message.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::{CommandId, NodeName, SessionId};

/// The most rows of sessions in one answer.
pub const ROWS_MAX: u32 = 1000;
/// The bytes of rows after which an answer has no more of them.
pub const ROWS_BYTES_MAX: usize = 512 * 1024;
/// The longest body of a notice, and the longest arguments of a command: a node that reads nothing must not hold up the control
/// connection for long.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// The longest result of a command of the app.
pub const RESULT_BYTES_MAX: usize = 256 * 1024;
/// The longest text of an answer that is no result: names of users, reasons, errors. Longer ones are cut.
pub const TEXT_BYTES_MAX: usize = 1024;

/// A question of an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Question {
    /// Which sessions of the node are there? In the order of their ids.
    Sessions {
        /// Those that are meant.
        filter: SessionFilter,
        /// Only those behind this one.
        after: Option<SessionId>,
        /// The most rows, up to [`ROWS_MAX`].
        rows_max: u32,
    },
    /// What does the node know of a session?
    Session {
        /// The session.
        session: SessionId,
    },
    /// Close sessions of the node, and tell their clients why.
    Close {
        /// Those that are meant.
        filter: SessionFilter,
        /// Why.
        reason: String,
    },
    /// Send a message to the clients of sessions of the node.
    Notice {
        /// Those that are meant.
        filter: SessionFilter,
        /// The command of the message.
        command: CommandId,
        /// The body of the message, of at most [`BODY_BYTES_MAX`].
        body: Vec<u8>,
    },
    /// Which commands has the app?
    Commands,
    /// Run a command of the app.
    Run {
        /// The name of the command.
        name: String,
        /// The arguments in JSON, of at most [`BODY_BYTES_MAX`].
        arguments: Vec<u8>,
        /// The time that the command may take, in milliseconds; `limits.call_timeout_ms` of the node may be shorter.
        time_ms: u64,
    },
}

/// The sessions that are meant: those for which all holds that is said here.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SessionFilter {
    /// This one session.
    pub session: Option<SessionId>,
    /// Those of this user.
    pub user: Option<String>,
    /// Those from there.
    pub address: Option<AddressFilter>,
    /// Those whose last request was this command.
    pub command: Option<CommandId>,
    /// Those that have been open for at least this long, in milliseconds.
    pub older_ms: Option<u64>,
}

/// The addresses that are meant: `10.1.2.3`, `10.1.2.3:4567` or `10.1.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddressFilter {
    /// The address, or the first one of a block.
    pub ip: IpAddr,
    /// How many bits of the address count.
    pub bits: u8,
    /// The port, when only one is meant.
    pub port: Option<u16>,
}

/// Why a text names no addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no address: 10.1.2.3, 10.1.2.3:4567, [::1]:4567 or 10.1.0.0/16 is one")]
pub struct BadAddress(pub String);

impl std::str::FromStr for AddressFilter {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(cut(text, 64).to_owned());
        if let Ok(ip) = text.parse::<IpAddr>() {
            return Ok(Self { ip: ip.to_canonical(), bits: bits_of(ip.to_canonical()), port: None });
        }
        if let Ok(at) = text.parse::<SocketAddr>() {
            let ip = at.ip().to_canonical();
            return Ok(Self { ip, bits: bits_of(ip), port: Some(at.port()) });
        }
        let (ip, bits) = text.split_once('/').ok_or_else(bad)?;
        let ip: IpAddr = ip.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().ok().filter(|bits| *bits <= bits_of(ip)).ok_or_else(bad)?;
        // An IPv4 address in the form of IPv6: what counts is the IPv4 address, as in those that it is compared with.
        let mapped = bits_of(ip) - bits_of(ip.to_canonical());
        let bits = bits.checked_sub(mapped).ok_or_else(bad)?;
        Ok(Self { ip: ip.to_canonical(), bits, port: None })
    }
}

impl AddressFilter {
    /// Whether an address is meant.
    pub fn has(&self, address: SocketAddr) -> bool {
        // The same number of bits of both counts, from the first one on.
        let same = |ours: u128, theirs: u128, all: u8| {
            let ignored = u32::from(all.saturating_sub(self.bits));
            ours.checked_shr(ignored).unwrap_or(0) == theirs.checked_shr(ignored).unwrap_or(0)
        };
        let ip = match (self.ip, address.ip().to_canonical()) {
            (IpAddr::V4(ours), IpAddr::V4(theirs)) => {
                same(u32::from(ours).into(), u32::from(theirs).into(), 32)
            }
            (IpAddr::V6(ours), IpAddr::V6(theirs)) => same(ours.into(), theirs.into(), 128),
            _ => false,
        };
        ip && self.port.is_none_or(|port| port == address.port())
    }
}

fn bits_of(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

/// The answer of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Question::Sessions`].
    Sessions {
        /// In the order of their ids.
        rows: Vec<SessionRow>,
        /// Whether there are more behind the last row.
        more: bool,
    },
    /// To [`Question::Session`]: `None` when the node does not know the session.
    Session(Option<Box<SessionView>>),
    /// To [`Question::Close`] and [`Question::Notice`].
    Done {
        /// The sessions that were closed, or whose clients are sent the message.
        reached: u32,
        /// The sessions that were meant and could not be: they are closing already, or read too slowly.
        missed: u32,
    },
    /// To [`Question::Commands`].
    Commands(Vec<AppCommand>),
    /// To [`Question::Run`]: the result in JSON, of at most [`RESULT_BYTES_MAX`].
    Ran(String),
    /// To [`Question::Run`]: the app of the node has no such command.
    NoCommand,
    /// The node could not do it; one sentence.
    Failed(String),
}

/// A session in a list, as its net node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// The session.
    pub session: SessionId,
    /// Its user; cut.
    pub user: Option<String>,
    /// Where its client connects from.
    pub address: SocketAddr,
    /// The protocol that its client speaks, once that is known.
    pub protocol: Option<String>,
    /// When its client connected, in milliseconds since 1970, by the clock of its net node.
    pub since_ms: u64,
    /// For how long the session has been open, in milliseconds.
    pub age_ms: u64,
    /// For how long its client has said nothing, in milliseconds.
    pub idle_ms: u64,
    /// The requests of its client that this process of the node has taken up.
    pub requests: u32,
    /// The last of them.
    pub last: Option<RecentRequest>,
    /// The requests that run now.
    pub running: u32,
    /// The bytes that wait to be written to its client.
    pub queued_bytes: u64,
}

/// A request of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentRequest {
    /// Its command.
    pub command: CommandId,
    /// How long ago, in milliseconds.
    pub ago_ms: u64,
}

/// A session as one node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Its row, on its net node.
    pub row: Option<SessionRow>,
    /// Its user, as far as this node has been told; cut.
    pub user: Option<String>,
    /// Its attributes, as far as this node has been told; cut.
    pub attributes: Vec<(String, String)>,
    /// Its groups, on its net node.
    pub groups: Vec<String>,
    /// The nodes that are told of its changes, on its net node.
    pub watchers: Vec<NodeName>,
    /// Its last requests, the newest first, on its net node.
    pub requests: Vec<RecentRequest>,
    /// Where its messages go from here.
    pub affinity: Vec<AffinityView>,
    /// Its replica, on another node.
    pub replica: Option<ReplicaView>,
}

/// Where the messages of a session for one target go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffinityView {
    /// The target.
    pub target: String,
    /// The neighbour that takes them.
    pub neighbour: Option<NodeName>,
    /// The node that handles them, when that is known.
    pub node: Option<NodeName>,
}

/// A replica of a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaView {
    /// The neighbour that leads to the session's net node.
    pub neighbour: NodeName,
    /// Whether the session's messages are handled here.
    pub here: bool,
}

/// A command of the app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AppCommand {
    /// Its name.
    pub name: String,
    /// What it does, in the words of its author: the first paragraph of the handler's docs; cut.
    pub help: String,
    /// The names of its arguments.
    pub arguments: Vec<String>,
}

/// The text up to so many bytes, at the end of a character.
pub fn cut(text: &str, bytes_max: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes_max)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(filter: &str, address: &str) -> bool {
        filter.parse::<AddressFilter>().unwrap().has(address.parse().unwrap())
    }

    #[test]
    fn an_address_is_meant_by_itself_by_its_port_and_by_its_block() {
        assert!(has("10.1.2.3", "10.1.2.3:7") && !has("10.1.2.3", "10.1.2.4:7"));
        assert!(has("10.1.2.3:7", "10.1.2.3:7") && !has("10.1.2.3:7", "10.1.2.3:8"));
        assert!(has("10.1.0.0/16", "10.1.255.9:7") && !has("10.1.0.0/16", "10.2.0.0:7"));
        assert!(has("0.0.0.0/0", "10.1.255.9:7") && !has("0.0.0.0/0", "[2001:db8::1]:7"));
        assert!(has("2001:db8::/32", "[2001:db8:9::1]:7") && !has("2001:db8::/32", "[2001:db9::]:7"));
        assert!(has("::/0", "[2001:db9::]:7") && has("[::1]:9", "[::1]:9"));
        assert!(has("10.1.2.3", "[::ffff:10.1.2.3]:7"), "a listener on :: says IPv4 addresses so");
        assert!(has("::ffff:10.1.2.3/112", "10.1.9.9:7") && !has("::ffff:10.1.2.3/112", "10.2.0.0:7"));
        for bad in ["::ffff:10.1.2.3/95", "", "ann", "10.1.2.3/33", "10.1.2/8", "10.1.2.3/x", "::1/129"] {
            assert!(bad.parse::<AddressFilter>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_text_is_cut_at_the_end_of_a_character() {
        assert_eq!((cut("añb", 2), cut("añb", 3), cut("añb", 9)), ("a", "añ", "añb"));
    }
}
