//! One configured node as the machine knows it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use ffconfig::{Node, Parent, Restart};
use ffnet::backoff::Backoff;
use ffproto::control::{NodeStatus, ToNode};
use ffproto::{Incarnation, NodeName, NodeNumber};
use tokio::time::Instant;

use super::facts::{Listens, Moment, Tell, Wire};

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum State {
    /// Down, and wanted down.
    Stopped,
    /// To be started as soon as its parents are ready or have given up.
    Waiting,
    /// A process runs and has not said that it is ready. Without a deadline when somebody else started it.
    Starting { until: Option<Instant> },
    /// It serves.
    Ready,
    /// On its way down.
    Stopping(Leaving),
    /// Its process ended; the next one starts then.
    Backoff { until: Instant },
    /// The same after many quick ends in a row.
    CrashLoop { until: Instant },
    /// Somebody else's to start, and not registered.
    Absent,
}

/// How far a node's stop has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Leaving {
    pub(super) stage: Stage,
    /// When the next stage is due.
    pub(super) next: Instant,
    pub(super) why: Why,
}

/// Polite, firm, killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Polite,
    Firm,
    Killed,
}

/// Whether the node stays down afterwards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// An operator wants it down.
    Asked,
    /// It was not ready in time, or began to stop by itself: it will be started again.
    Failing,
}

/// One configured node: its config, its process, its control connection, its history.
#[derive(Debug)]
pub(super) struct Seat {
    pub(super) node: Arc<Node>,
    /// Whether this master starts it.
    pub(super) here: bool,
    pub(super) number: NodeNumber,
    pub(super) state: State,
    pub(super) since_ms: u64,
    /// The newest known start.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) pid: Option<u32>,
    /// Whether that start is a process of ours which has not ended.
    pub(super) process: bool,
    /// Whether that start was made by somebody else.
    pub(super) theirs: bool,
    /// When that start began.
    pub(super) born: Instant,
    pub(super) wire: Option<Wire>,
    pub(super) listens: Option<Listens>,
    pub(super) status: NodeStatus,
    pub(super) backoff: Backoff,
    pub(super) restarts: u32,
    pub(super) last_exit: Option<String>,
    /// Why it cannot start, in its own words.
    pub(super) reason: Option<String>,
    /// Whether any start of it has ever been ready.
    pub(super) proven: bool,
}

impl Seat {
    pub(super) fn new(node: Node, here: bool, number: NodeNumber, restart: &Restart, now: Moment) -> Self {
        Self {
            node: Arc::new(node),
            here,
            number,
            state: if here { State::Stopped } else { State::Absent },
            since_ms: now.unix_ms,
            incarnation: None,
            pid: None,
            process: false,
            theirs: false,
            born: now.at,
            wire: None,
            listens: None,
            status: NodeStatus::default(),
            backoff: Backoff::new(restart.backoff.min, restart.backoff.max, restart.healthy),
            restarts: 0,
            last_exit: None,
            reason: None,
            proven: false,
        }
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.node.name
    }

    pub(super) fn enter(&mut self, state: State, now: Moment) {
        if std::mem::discriminant(&self.state) != std::mem::discriminant(&state) {
            self.since_ms = now.unix_ms;
        }
        self.state = state;
    }

    /// Whether nothing of it runs and nothing is about to.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, State::Stopped | State::Absent)
    }

    /// Whether a child need not wait for it any more: it is ready or has given up for now.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(self.state, State::Waiting | State::Starting { until: Some(_) })
    }

    /// Whether its first start is over: it serves, waits for its next try, or is not ours to wait for.
    pub(super) fn has_begun(&self) -> bool {
        self.is_settled() && !matches!(self.state, State::Stopping(_))
    }

    /// Whether a start is up to this master: on this host, and not under somebody else's hand.
    pub(super) fn is_ours_to_start(&self) -> bool {
        self.here && !(self.theirs && self.wire.is_some())
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Starting { until } => until,
            State::Stopping(leaving) => Some(leaving.next),
            State::Backoff { until } | State::CrashLoop { until } => Some(until),
            State::Stopped | State::Waiting | State::Ready | State::Absent => None,
        }
    }

    /// Forgets what belonged to the process that was.
    pub(super) fn clear(&mut self) {
        self.process = false;
        self.pid = None;
        self.wire = None;
        self.listens = None;
        self.status = NodeStatus::default();
    }

    /// The message that tells `child`, linked by `wire`, where this ready node is.
    pub(super) fn parent_up(&self, child: &Parent, wire: Wire) -> Option<Tell> {
        let (listens, incarnation) = (self.listens?, self.incarnation?);
        let (root, name) = (listens.root?, self.name().clone());
        if let Some(host) = &child.host {
            return Some(Tell::ParentUp { name, host: host.clone(), port: root.port(), incarnation });
        }
        let at = SocketAddr::new(reachable(root.ip(), self.wire, wire), root.port());
        Some(Tell::Message(ToNode::ParentUp { name, at, incarnation }))
    }
}

/// The address under which the child at `child` reaches a parent at `parent` that listens on `announced`.
fn reachable(announced: IpAddr, parent: Option<Wire>, child: Wire) -> IpAddr {
    let host = |wire: Wire| (!wire.peer.is_loopback() && wire.peer != wire.local).then_some(wire.peer);
    let (parent_host, child_host) = (parent.and_then(host), host(child));
    let open = !announced.is_loopback() && !announced.is_unspecified();
    match (parent_host, child_host) {
        // A listener on a certain address of its host is there, whoever asks.
        _ if open => announced,
        (parent, child) if parent == child => match announced {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            loopback => loopback,
        },
        (Some(parent), _) => parent,
        // The parent is on this host, the child is not: as it reached this host, it reaches the parent.
        (None, _) => child.local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(announced: &str, parent_peer: &str, child_peer: &str, expected: &str) {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let wire = |peer: &str| {
            let local = if ip(peer).is_loopback() { peer } else { "10.0.0.1" };
            Wire { peer: ip(peer), local: ip(local) }
        };
        let found = reachable(ip(announced), Some(wire(parent_peer)), wire(child_peer));
        assert_eq!(found, ip(expected), "{announced} by {parent_peer} for {child_peer}");
    }

    #[test]
    fn a_child_is_told_an_address_that_it_can_reach() {
        check("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1");
        check("0.0.0.0", "127.0.0.1", "127.0.0.1", "127.0.0.1");
        check("::", "::1", "::1", "::1");
        check("0.0.0.0", "10.0.0.2", "127.0.0.1", "10.0.0.2");
        check("0.0.0.0", "10.0.0.2", "10.0.0.2", "127.0.0.1");
        check("0.0.0.0", "10.0.0.2", "10.0.0.3", "10.0.0.2");
        check("0.0.0.0", "127.0.0.1", "10.0.0.3", "10.0.0.1");
        check("10.0.0.9", "127.0.0.1", "127.0.0.1", "10.0.0.9");
        // This host under its own outer address is still this host.
        check("0.0.0.0", "10.0.0.1", "127.0.0.1", "127.0.0.1");
    }
}
