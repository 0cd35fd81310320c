//! The bounds of a front, handed in by the program that starts it.

use std::net::SocketAddr;
use std::time::Duration;

/// The web server that a front serves with, and what clients may take of the front.
#[derive(Debug, Clone, Copy)]
pub struct FrontConfig {
    /// Where the web server behind the front listens.
    pub upstream: SocketAddr,
    /// How long a client may be silent.
    pub timeouts: Timeouts,
    /// Connections that are open at a time; more wait in the listening socket's backlog.
    pub connections_max: usize,
}

/// How long a connection may be silent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first byte of a request's head to its last.
    pub head: Duration,
    /// Between two requests, and between two pieces of one that has begun.
    pub idle: Duration,
}
