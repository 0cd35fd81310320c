//! The end of a connection, and its reason.

use std::fmt;
use std::io;

use ffproto::protocol::ProtocolFault;

use crate::session::local::CloseReason;

/// The reason why a connection ended, for the log.
pub(in crate::gateway) enum Closed {
    ByPeer,
    /// The reason given to [`Session::close`](crate::Session::close), a slow reader's included.
    Here(CloseReason),
    /// The client does not keep to its protocol.
    Illegal(ProtocolFault),
    Draining,
    /// The connection may go on in the node's successor, see [`Connection::leave`](super::Connection::leave).
    Leaving,
    Io(io::Error),
}

impl Closed {
    /// The reason without what differs from one session to the next, for the limits of the log.
    pub(in crate::gateway) fn kind(&self) -> &str {
        match self {
            Closed::ByPeer => "peer",
            Closed::Here(why) => why.text.split(':').next().unwrap_or_default(),
            Closed::Illegal(_) => "illegal",
            Closed::Draining => "draining",
            Closed::Leaving => "leaving",
            Closed::Io(_) => "io",
        }
    }
}

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Closed::ByPeer => f.write_str("closed by the client"),
            Closed::Here(why) => write!(f, "closed by the server: {}", why.text),
            Closed::Illegal(fault) => write!(f, "{fault}"),
            Closed::Draining => f.write_str("the node is stopping"),
            Closed::Leaving => f.write_str("it goes on in the successor"),
            Closed::Io(error) => write!(f, "the connection broke: {error}"),
        }
    }
}
