//! What people and programs are shown of the machine: `/status`, and what waits for states in tests.

use std::collections::BTreeMap;

use ffproto::{Incarnation, NodeName};
use serde::Serialize;

use super::seat::{Seat, State};
use super::{Listens, Machine, Phase};
use crate::utc::utc;

/// The whole cluster at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterView {
    /// Its name.
    pub cluster: String,
    /// What it is doing.
    pub state: PhaseView,
    /// The command that runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// Its nodes, in the order of the config.
    pub nodes: Vec<NodeView>,
}

/// What a cluster is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseView {
    /// For the first time.
    Starting,
    /// Supervised.
    Up,
    /// In waves.
    Stopping,
    /// Nothing runs.
    Ended,
}

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum NodeState {
    /// Down on purpose.
    Stopped,
    /// For its parents to be ready.
    Waiting,
    /// A process runs, and is not ready.
    Starting,
    /// It serves.
    Ready,
    /// It is going down.
    Stopping,
    /// It ended and is started again soon.
    Backoff,
    /// It ended again and again, and is still tried.
    CrashLoop,
    /// Somebody else starts it, and it is not here.
    Absent,
}

/// One node at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// Its kind.
    pub kind: String,
    /// Where it is in its life.
    pub state: NodeState,
    /// Its process, if there is one.
    pub pid: Option<u32>,
    /// Its newest start.
    pub incarnation: Option<Incarnation>,
    /// Since when it is in this state, UTC.
    pub since: String,
    /// How often it was started again after an end.
    pub restarts: u32,
    /// Its configured parents.
    pub parents: Vec<ParentView>,
    /// The children that are linked to it.
    pub children: Vec<NodeName>,
    /// Client sessions.
    pub sessions: u64,
    /// What it has refused, dropped or cut, by the name of the queue or limit; only what is not zero.
    pub counters: BTreeMap<String, u64>,
    /// How its last process ended.
    pub last_exit: Option<String>,
    /// Why it could not start, in its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Where it listens.
    pub listens: Listens,
    /// Whether this master starts it.
    pub here: bool,
}

/// A parent as its child sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ParentView {
    /// Its name.
    pub name: NodeName,
    /// Whether the link to it is up.
    pub up: bool,
}

impl ClusterView {
    /// The node of that name.
    pub fn node(&self, name: &str) -> Option<&NodeView> {
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// What keeps the cluster from being healthy; a node that an operator has stopped does not.
    pub fn unhealthy(&self) -> Option<String> {
        match self.state {
            PhaseView::Starting => return Some("the cluster is starting".into()),
            PhaseView::Stopping | PhaseView::Ended => return Some("the cluster is stopping".into()),
            PhaseView::Up => {}
        }
        let bad = |node: &&NodeView| !matches!(node.state, NodeState::Ready | NodeState::Stopped);
        let bad: Vec<String> =
            self.nodes.iter().filter(bad).map(|node| format!("{}: {}", node.name, node.state)).collect();
        (!bad.is_empty()).then(|| bad.join(", "))
    }
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            NodeState::Stopped => "stopped",
            NodeState::Waiting => "waiting",
            NodeState::Starting => "starting",
            NodeState::Ready => "ready",
            NodeState::Stopping => "stopping",
            NodeState::Backoff => "backoff",
            NodeState::CrashLoop => "crash_loop",
            NodeState::Absent => "absent",
        })
    }
}

impl Machine {
    /// The state as it is now.
    pub fn view(&self) -> ClusterView {
        let state = match self.phase {
            Phase::Starting => PhaseView::Starting,
            Phase::Up => PhaseView::Up,
            Phase::Stopping(_) => PhaseView::Stopping,
            Phase::Ended => PhaseView::Ended,
        };
        let seats = self.order.iter().filter_map(|name| self.seats.get(name));
        ClusterView {
            cluster: self.cluster.to_string(),
            state,
            doing: self.job.as_ref().map(|job| job.title()),
            nodes: seats.map(Seat::view).collect(),
        }
    }
}

impl Seat {
    /// How its last process ended, with the reason it gave.
    pub(super) fn end_in_words(&self) -> String {
        match (&self.reason, &self.last_exit) {
            (Some(reason), Some(exit)) => format!("{reason} ({exit})"),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => "it did not run".into(),
        }
    }

    fn view(&self) -> NodeView {
        let is_up = |name: &NodeName| self.status.parents.iter().any(|(parent, up)| *up && parent == name);
        let parents = self.node.parents.iter();
        NodeView {
            name: self.name().clone(),
            kind: self.node.kind.clone(),
            state: match self.state {
                State::Stopped => NodeState::Stopped,
                State::Waiting => NodeState::Waiting,
                State::Starting { .. } => NodeState::Starting,
                State::Ready => NodeState::Ready,
                State::Stopping(_) => NodeState::Stopping,
                State::Backoff { .. } => NodeState::Backoff,
                State::CrashLoop { .. } => NodeState::CrashLoop,
                State::Absent => NodeState::Absent,
            },
            pid: self.pid,
            incarnation: self.incarnation,
            since: utc(self.since_ms),
            restarts: self.restarts,
            parents: parents.map(|p| ParentView { name: p.name.clone(), up: is_up(&p.name) }).collect(),
            children: self.status.children.clone(),
            sessions: self.status.sessions,
            counters: self.status.counters.iter().cloned().collect(),
            last_exit: self.last_exit.clone(),
            reason: self.reason.clone(),
            listens: self.listens.unwrap_or_default(),
            here: self.here,
        }
    }
}
