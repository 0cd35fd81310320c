//! The bounds of a front, handed in by the program that starts it.

use std::sync::Arc;
use std::time::Duration;

use ffnet::admission::Bounds;

use crate::certificates::Certificates;
use crate::places::KEPT;
use crate::upstream::Upstream;

/// The web server that a front serves with, and what clients may take of the front.
#[derive(Debug, Clone)]
pub struct FrontConfig {
    /// The web server behind the front.
    pub upstream: Arc<Upstream>,
    /// How long a client may be silent.
    pub timeouts: Timeouts,
    /// How many connections are open at a time.
    pub places: Places,
    /// What the front asks of each connection.
    pub asks: Asks,
}

/// What a front asks of each connection; by default nothing.
#[derive(Debug, Clone, Default)]
pub struct Asks {
    /// Who is at its other end: each request has its [`Peer`](crate::Peer) then.
    pub peer: bool,
    /// TLS, with this certificate. Such a connection cannot move to another process: it ends with its answer there.
    pub tls: Option<Arc<Certificates>>,
}

/// The places of a front: how many connections are open at a time, and for whom some are kept.
///
/// Where all are taken, a connection that is between two requests, or has not made one, makes room for the next: the oldest. When
/// requests run on all of them, a few more connections are taken for the paths that are always answered; other requests on these
/// get 503.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Connections in all. One address (IPv6: a /64) gets half of them, this host all.
    pub connections: usize,
    /// The paths that are always answered: whether a program is healthy must be seen just when it is busy.
    pub always: &'static [&'static str],
}

impl Places {
    /// The most places for everybody in a front that has at most so many connections open, with those that are kept.
    #[must_use]
    pub const fn of_open(open_max: usize) -> usize {
        Bounds::slots_of(open_max.saturating_sub(KEPT.open_max()))
    }

    /// The bound on connections that are open at all in a front of so many places, with those that are kept.
    #[must_use]
    pub const fn open_max(connections: usize) -> usize {
        Bounds { connections, per_block: connections }.open_max() + KEPT.open_max()
    }
}

/// How long a connection may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Between two requests, and between two pieces of one that has begun.
    pub idle: Duration,
}
