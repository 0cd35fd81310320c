//! The seat of one configured node, as the machine knows it: its processes, where it is in its life, its history.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffconfig::{Node, Parent, Restart};
use ffnet::backoff::Backoff;
use ffproto::control::{NodeStatus, ToNode};
use ffproto::{Incarnation, NodeName, NodeNumber};
use tokio::time::Instant;

use super::facts::{CrashView, Listens, Moment, Tell, Wire};
use super::process::SharedProcess;
use super::replace::Second;
use super::topology::reachable;

/// A node that says nothing for so long hangs: it speaks twice a second.
pub(crate) const SILENT: Duration = Duration::from_millis(1_500);

/// The wait after the first launch that fails because the host is short of descriptors, memory or processes.
const SHORTAGE_MIN: Duration = Duration::from_millis(100);
/// The longest such wait: the node is back soon after the shortage is over.
const SHORTAGE_MAX: Duration = Duration::from_secs(1);

/// The state of a node in its life.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum SeatState {
    /// Down, and wanted down.
    Stopped,
    /// A master before this one has started it: it is to register, and to hand its sockets back.
    Adopting { until: Instant, ready: bool, back: bool },
    /// To be started as soon as its parents are ready or have given up.
    Waiting,
    /// A process runs and has not said that it is ready. Without a deadline when somebody else started it.
    Starting { until: Option<Instant> },
    /// The node serves.
    Ready,
    /// On its way down.
    Stopping(StopProgress),
    /// The node's process ended; the next one starts then.
    Backoff { until: Instant },
    /// As [`SeatState::Backoff`], after many quick ends in a row.
    CrashLoop { until: Instant },
    /// As [`SeatState::CrashLoop`], after `restart.max` quick ends: not tried any more.
    Failed,
    /// Somebody else's to start, and not registered.
    Absent,
}

/// How far a process's stop has come.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StopProgress {
    pub(super) stage: Stage,
    /// When the next stage is due.
    pub(super) next: Instant,
    pub(super) why: Why,
}

/// Polite, firm, killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    /// The node was not ready in time, or began to stop by itself: it will be started again.
    Failing,
}

/// A loop that does not turn.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Hang {
    pub(super) since_ms: u64,
    /// The system's word on the process, once it has been asked.
    pub(super) process: Option<String>,
    /// Whether the process has been killed for that.
    pub(super) killed: bool,
}

/// The life of one process of a node: its config, its process, its control connection.
#[derive(Debug, Clone)]
pub(super) struct Life {
    pub(super) node: Arc<Node>,
    /// The incarnation; `None` before the first.
    pub(super) incarnation: Option<Incarnation>,
    pub(super) pid: Option<u32>,
    /// Whether the process is supervised by this master and has not ended.
    pub(super) process: bool,
    /// Whether that start was made by somebody else.
    pub(super) theirs: bool,
    /// When it began.
    pub(super) born: Instant,
    pub(super) wire: Option<Wire>,
    pub(super) listens: Option<Listens>,
    pub(super) status: NodeStatus,
    /// When it last said something.
    pub(super) heard: Instant,
    /// Why it cannot start, in its own words; or why it was ended.
    pub(super) reason: Option<String>,
    /// The release of its program, when it has told it.
    pub(super) release: Option<String>,
    /// The process that it shares with other nodes; `None` when it has one of its own.
    pub(super) shared: Option<Arc<SharedProcess>>,
    /// Whether it was started inside of a successor's process, and takes over from nobody.
    pub(super) newcomer: bool,
    /// Whether its process is ended on purpose, as part of a replacement that was rolled back.
    pub(super) given_up: bool,
}

impl Life {
    pub(super) fn new(node: Arc<Node>, now: Moment) -> Self {
        Self {
            node,
            incarnation: None,
            pid: None,
            process: false,
            theirs: false,
            born: now.at,
            wire: None,
            listens: None,
            status: NodeStatus::default(),
            heard: now.at,
            reason: None,
            release: None,
            shared: None,
            newcomer: false,
            given_up: false,
        }
    }

    /// A process of ours that is about to be started.
    pub(super) fn launched(node: Arc<Node>, incarnation: Incarnation, now: Moment) -> Self {
        Self { incarnation: Some(incarnation), process: true, ..Self::new(node, now) }
    }

    /// Forgets what belonged to the process that was.
    pub(super) fn clear(&mut self) {
        self.process = false;
        self.pid = None;
        self.wire = None;
        self.listens = None;
        self.status = NodeStatus::default();
        self.release = None;
    }

    pub(super) fn is(&self, incarnation: Incarnation) -> bool {
        self.incarnation == Some(incarnation)
    }

    /// The message that tells `child`, linked by `wire`, where this ready node is.
    pub(super) fn parent_up(&self, child: &Parent, wire: Wire) -> Option<Tell> {
        let (listens, incarnation) = (self.listens?, self.incarnation?);
        let (root, name) = (listens.root?, self.node.name.clone());
        if let Some(host) = &child.host {
            return Some(Tell::ParentUp { name, host: host.clone(), port: root.port(), incarnation });
        }
        let at = SocketAddr::new(reachable(root.ip(), self.wire, wire), root.port());
        Some(Tell::Message(ToNode::ParentUp { name, at, incarnation }))
    }
}

/// The seat of one configured node.
#[derive(Debug)]
pub(super) struct Seat {
    /// Whether this master starts it.
    pub(super) here: bool,
    pub(super) number: NodeNumber,
    pub(super) state: SeatState,
    pub(super) since_ms: u64,
    /// The process that serves or is to serve; or the last one that did.
    pub(super) life: Life,
    /// The other process, while one replaces the other.
    pub(super) second: Option<Second>,
    /// How the last replacement has ended, for the command that waits for it.
    pub(super) verdict: Option<Result<(), String>>,
    pub(super) hang: Option<Hang>,
    pub(super) backoff: Backoff,
    /// The waits of launches that fail only because the host is short of something.
    pub(super) shortage: Backoff,
    pub(super) restarts: u32,
    pub(super) last_exit: Option<String>,
    pub(super) crash: Option<Arc<CrashView>>,
    /// The newest start that this master has made, wherever it is by now: it may have to leave a process that others are in, and no
    /// later one is taken for it.
    pub(super) made: Option<Incarnation>,
    /// Whether any start of it has ever been ready.
    pub(super) proven: bool,
    /// Whether the node was wanted down when somebody else started it: then it is so again when that one has left.
    pub(super) was_stopped: bool,
}

impl Seat {
    pub(super) fn new(node: Node, here: bool, number: NodeNumber, restart: &Restart, now: Moment) -> Self {
        Self {
            here,
            number,
            state: if here { SeatState::Stopped } else { SeatState::Absent },
            since_ms: now.unix_ms,
            life: Life::new(Arc::new(node), now),
            second: None,
            verdict: None,
            hang: None,
            backoff: Backoff::new(restart.backoff.min, restart.backoff.max, restart.healthy),
            shortage: Backoff::new(SHORTAGE_MIN, SHORTAGE_MAX, Duration::MAX),
            restarts: 0,
            last_exit: None,
            crash: None,
            made: None,
            proven: false,
            was_stopped: false,
        }
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.life.node.name
    }

    pub(super) fn enter(&mut self, state: SeatState, now: Moment) {
        if std::mem::discriminant(&self.state) != std::mem::discriminant(&state) {
            self.since_ms = now.unix_ms;
            self.hang = None;
        }
        self.state = state;
    }

    /// The one of its processes that is that start of it.
    pub(super) fn life_of(&mut self, incarnation: Incarnation) -> Option<&mut Life> {
        if self.life.is(incarnation) {
            return Some(&mut self.life);
        }
        self.second.as_mut().map(|second| &mut second.life).filter(|life| life.is(incarnation))
    }

    /// The seat's processes, the serving one first.
    pub(super) fn lives(&self) -> impl Iterator<Item = &Life> {
        std::iter::once(&self.life).chain(self.second.as_ref().map(|second| &second.life))
    }

    /// The newest start that is known.
    pub(super) fn newest(&self) -> Option<Incarnation> {
        self.lives().filter_map(|life| life.incarnation).max()
    }

    /// The newest start that the next one has to be behind.
    pub(super) fn before_next(&self) -> Option<Incarnation> {
        self.newest().max(self.made)
    }

    /// Whether nothing of it runs and nothing is about to.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.state, SeatState::Stopped | SeatState::Failed | SeatState::Absent)
            && self.second.is_none()
    }

    /// Whether a child need not wait for it any more: it is ready or has given up for now.
    pub(super) fn is_settled(&self) -> bool {
        !matches!(
            self.state,
            SeatState::Adopting { .. } | SeatState::Waiting | SeatState::Starting { until: Some(_) }
        )
    }

    /// Whether the seat's first start is over: the node serves, waits for its next try, or is not ours to wait for.
    pub(super) fn has_begun(&self) -> bool {
        self.is_settled() && !matches!(self.state, SeatState::Stopping(_))
    }

    /// Whether a start is up to this master: on this host, and not under somebody else's hand.
    pub(super) fn is_ours_to_start(&self) -> bool {
        self.here && !(self.life.theirs && self.life.wire.is_some())
    }

    /// When something is due.
    pub(super) fn due(&self) -> Option<Instant> {
        let state = match self.state {
            SeatState::Starting { until } => until,
            SeatState::Stopping(leaving) => Some(leaving.next),
            SeatState::Adopting { until, .. }
            | SeatState::Backoff { until }
            | SeatState::CrashLoop { until } => Some(until),
            SeatState::Ready => self.silence_due(),
            SeatState::Stopped | SeatState::Waiting | SeatState::Failed | SeatState::Absent => None,
        };
        state.into_iter().chain(self.second.as_ref().and_then(Second::due)).min()
    }

    /// When the silence of a ready node means something (more).
    pub(super) fn silence_due(&self) -> Option<Instant> {
        match &self.hang {
            None => Some(self.life.heard + SILENT),
            Some(hang) if !hang.killed && self.life.process => {
                Some(self.life.heard + self.life.node.limits.hang?)
            }
            Some(_) => None,
        }
    }
}
