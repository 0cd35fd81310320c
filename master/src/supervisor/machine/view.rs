//! The view of the machine for people and programs: `/status`, and what waits for states in tests.

use std::collections::BTreeMap;
use std::sync::Arc;

use ffproto::{Incarnation, NodeName};
use serde::Serialize;

use super::replace::ReplaceTurn;
use super::seat::{Seat, SeatState};
use super::{CrashView, Listens, Machine, Phase};
use crate::utc::utc;

/// The whole cluster at one moment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ClusterView {
    /// Its name.
    pub cluster: String,
    /// The version of its master, with the commit and the time of the build, as far as that knows them.
    pub version: &'static str,
    /// The cluster's phase: what it is doing.
    pub state: PhaseView,
    /// The command that runs, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub doing: Option<String>,
    /// The command that runs, or else the last one that has ended: what, since when, and how far.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandView>,
    /// The cluster's nodes, in the order of the config.
    pub nodes: Vec<NodeView>,
}

/// The phase of a cluster: what it is doing.
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
    /// The node serves.
    Ready,
    /// The node is going down.
    Stopping,
    /// The node ended and is started again soon.
    Backoff,
    /// The node ended again and again, and is still tried.
    CrashLoop,
    /// The node ended too often in a row: not tried any more until somebody says so.
    Failed,
    /// The node serves as far as is known, but its loop does not turn.
    Hanging,
    /// A master before this one has started it; it is to register here.
    Adopting,
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
    /// The node's state in its life.
    pub state: NodeState,
    /// The name of the process that it shares with others, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<NodeName>,
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
    /// The release of its program, when it has told it.
    pub release: Option<String>,
    /// How its last process ended.
    pub last_exit: Option<String>,
    /// Why it could not start, in its own words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What its process does while its loop does not turn, as the system says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hanging: Option<HangView>,
    /// The other process, while one replaces the other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub beside: Option<BesideView>,
    /// The last end that nobody had asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crash: Option<Arc<CrashView>>,
    /// The addresses where the node listens.
    pub listens: Listens,
    /// The host that it belongs on, when the config names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Whether this master starts it.
    pub here: bool,
}

/// A loop that does not turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HangView {
    /// Since when nothing has been heard of it, UTC.
    pub since: String,
    /// What its process does, as the system says.
    pub process: Option<String>,
}

/// The other process of a node that is being replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BesideView {
    /// Its process.
    pub pid: Option<u32>,
    /// Which start of the node it is.
    pub incarnation: Option<Incarnation>,
    /// The stage of the step at that node.
    pub stage: StepStage,
    /// Since when, UTC.
    pub since: String,
    /// Client sessions that it still has.
    pub sessions: u64,
}

/// A command, and how far it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandView {
    /// `start`, `stop`, `restart` or `reload`.
    pub what: String,
    /// When it began, UTC.
    pub since: String,
    /// When it ended, UTC.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended: Option<String>,
    /// Whether every node is as the command wanted it, once it has ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ok: Option<bool>,
    /// Node by node, in their order.
    pub steps: Vec<StepView>,
}

/// One node's part of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StepView {
    /// The node.
    pub node: NodeName,
    /// The stage of the command at the node.
    pub stage: StepStage,
    /// Since when, UTC.
    pub since: String,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// How far a command is with a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStage {
    /// Not begun.
    Planned,
    /// The node must be down first.
    Stopping,
    /// The node must become ready.
    Starting,
    /// A new process prepares while the old one serves.
    Preparing,
    /// The predecessor hands over to the new one.
    HandingOver,
    /// The new process serves; the old one stands by to take back, and finishes what it had begun.
    Proving,
    /// The node is as the command wanted it.
    Done,
    /// Not as the command wanted it.
    Failed,
    /// Left as it was, because of an earlier failure.
    NotTouched,
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
            NodeState::Failed => "failed",
            NodeState::Hanging => "hanging",
            NodeState::Adopting => "adopting",
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
            version: env!("FF_VERSION"),
            state,
            doing: self.job.as_ref().map(|job| job.title()),
            command: self.job.as_ref().map(|job| job.view(None)).or_else(|| self.last_command.clone()),
            nodes: seats.map(Seat::view).collect(),
        }
    }
}

impl Seat {
    /// How its last process ended, with the reason it gave.
    pub(super) fn end_in_words(&self) -> String {
        match (&self.life.reason, &self.last_exit) {
            (Some(reason), Some(exit)) => format!("{reason} ({exit})"),
            (Some(only), None) | (None, Some(only)) => only.clone(),
            (None, None) => "it did not run".into(),
        }
    }

    /// How far its replacement is.
    pub(super) fn step_stage(&self) -> Option<StepStage> {
        Some(match self.second.as_ref()?.turn {
            ReplaceTurn::Preparing { .. } | ReplaceTurn::Unknown { .. } => StepStage::Preparing,
            ReplaceTurn::TakingOver { .. } => StepStage::HandingOver,
            ReplaceTurn::Leaving { done: false, .. } => StepStage::HandingOver,
            ReplaceTurn::Leaving { done: true, .. } => StepStage::Proving,
        })
    }

    fn view(&self) -> NodeView {
        let is_up =
            |name: &NodeName| self.life.status.parents.iter().any(|(parent, up)| *up && parent == name);
        let parents = self.life.node.parents.iter();
        NodeView {
            name: self.name().clone(),
            kind: self.life.node.kind.clone(),
            state: match self.state {
                SeatState::Stopped => NodeState::Stopped,
                SeatState::Waiting => NodeState::Waiting,
                SeatState::Starting { .. } => NodeState::Starting,
                SeatState::Ready if self.hang.is_some() => NodeState::Hanging,
                SeatState::Ready => NodeState::Ready,
                SeatState::Stopping(_) => NodeState::Stopping,
                SeatState::Backoff { .. } => NodeState::Backoff,
                SeatState::CrashLoop { .. } => NodeState::CrashLoop,
                SeatState::Failed => NodeState::Failed,
                SeatState::Adopting { .. } => NodeState::Adopting,
                SeatState::Absent => NodeState::Absent,
            },
            process: self.process_name(),
            pid: self.life.pid,
            incarnation: self.life.incarnation,
            since: utc(self.since_ms),
            restarts: self.restarts,
            parents: parents.map(|p| ParentView { name: p.name.clone(), up: is_up(&p.name) }).collect(),
            children: self.life.status.children.clone(),
            sessions: self.life.status.sessions,
            counters: self.life.status.counters.iter().cloned().collect(),
            release: self.life.release.clone(),
            last_exit: self.last_exit.clone(),
            reason: self.life.reason.clone(),
            hanging: self
                .hang
                .as_ref()
                .map(|hang| HangView { since: utc(hang.since_ms), process: hang.process.clone() }),
            beside: self.second.as_ref().zip(self.step_stage()).map(|(second, stage)| BesideView {
                pid: second.life.pid,
                incarnation: second.life.incarnation,
                stage,
                since: utc(second.since_ms),
                sessions: second.life.status.sessions,
            }),
            crash: self.crash.clone(),
            listens: self.life.listens.unwrap_or_default(),
            host: self.life.node.host.clone(),
            here: self.here,
        }
    }
}
