//! The two ends of a link's driver: the service that arrivals go to, and the reason for which the link ended.

use std::io;

use ffproto::link::{Head, LinkFault};
use tokio::time::Instant;

use super::{Change, Link};

/// A link that is silent for this many heartbeats is dead.
pub(super) const MISSED_HEARTBEATS: u32 = 3;

/// The service of a link: what a node does with what arrives. It runs inside the driver, so it must not block; what
/// takes time is moved to a task of its own.
pub trait Service {
    /// The peer calls a method: answer with [`Link::reply`], [`Link::reply_done`] or
    /// [`Link::reply_fault`], exactly once. `now` is when the frame was read.
    fn call(&self, link: &Link, head: &Head, body: &[u8], now: Instant);
    /// The peer sends a notify.
    fn notify(&self, link: &Link, head: &Head, body: &[u8], now: Instant);
    /// The peer tells a change of the link as a whole.
    fn changed(&self, link: &Link, change: Change);
    /// Begins what one read has brought: every complete frame of it, and the ends of calls.
    fn begin(&self) {}
    /// Ends what one read has brought: what it led to may go out together. Follows each [`begin`](Self::begin).
    fn settle(&self) {}
}

/// Why a link ended.
#[derive(Debug, thiserror::Error)]
pub enum Closed {
    /// The peer closed the connection without a word, as a killed process does.
    #[error("the connection was closed by the other side")]
    ByPeer,
    /// The peer said Bye.
    #[error("the other side left: {0}")]
    Bye(String),
    /// This side called [`Link::close`].
    #[error("closed by this side: {0}")]
    Here(String),
    /// No sign of life for three heartbeats.
    #[error("no sign of life for {MISSED_HEARTBEATS} heartbeats")]
    Silent,
    /// This process itself did not run for three heartbeats (SIGSTOP, a suspended machine), so the peer has
    /// given up on it, and what waits to be read is too old to be handled.
    #[error("this process stood still for {MISSED_HEARTBEATS} heartbeats")]
    StoodStill,
    /// The peer asks on, and does not read what it is told.
    #[error("the other side asks on and does not read the answers")]
    Unread,
    /// The bytes made no frame.
    #[error("a malformed frame: {0}")]
    Frame(LinkFault),
    /// The connection broke.
    #[error("the connection broke: {0}")]
    Io(io::Error),
}
