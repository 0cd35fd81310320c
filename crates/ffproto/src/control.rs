//! Control messages between the master and its nodes, after the handshake: few and small typed values, moved by
//! tokio-serde with bincode (`ffnet::control`).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{Incarnation, NodeName, NodeNumber};

/// Among the methods of a control handshake: this end knows [`ToNode::Metrics`] and [`ToMaster::Metrics`]. Programs of older releases
/// do not say so, take no notice of it, and would end the connection over a message that they do not know: they are sent none.
pub const METRICS: &str = "@metrics";

/// The longest control message in bytes. A status of a thousand children fits many times.
pub const MESSAGE_BYTES_MAX: usize = 1024 * 1024;

/// From the master to a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToNode {
    /// The first message after the handshake.
    Registered {
        /// The node's number, for the ids of its sessions.
        number: NodeNumber,
    },
    /// A parent of this node is up: connect to it there (firefly's `remote_connect`). Said again whenever
    /// the parent comes back.
    ParentUp {
        /// The parent.
        name: NodeName,
        /// Where it listens for children.
        at: SocketAddr,
        /// The parent's incarnation.
        incarnation: Incarnation,
    },
    /// A parent's process is gone: fail its calls now, not when a heartbeat notices.
    ParentGone {
        /// The parent.
        name: NodeName,
        /// The incarnation that is gone.
        incarnation: Incarnation,
    },
    /// Stop in good order: take no new clients, let what runs end within `drain_ms`, run the app's hook,
    /// leave with exit code 0.
    Stop {
        /// Milliseconds that the node may take.
        drain_ms: u64,
    },
    /// A successor of this process waits at the door: hand everything over to it, see [`crate::handover`].
    /// From then on the two agree between themselves; the master hears [`ToMaster::Ready`] of the successor,
    /// or [`ToMaster::TookBack`] of this process.
    HandOver {
        /// Where the successor waits.
        door: Door,
    },
    /// The master was started anew and has adopted this process: connect to the door, give copies of the
    /// listening sockets, and take new pipes for what is printed.
    HandBack {
        /// Where the master waits.
        door: Door,
    },
    /// Tell the metrics; only to a node that has said [`METRICS`].
    Metrics {
        /// The number of the question.
        ask: u64,
    },
}

/// The name of a Unix socket in Linux's abstract namespace: it has no file, and goes with its owner.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Door(pub String);

/// From a node to the master.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToMaster {
    /// Every listener serves, database and cache answered, the app's start hook has returned.
    Ready {
        /// Where children connect, when there is a rootport.
        root: Option<SocketAddr>,
        /// Where clients connect, when there is a netport.
        net: Option<SocketAddr>,
        /// Where the web server answers, when there is a webport.
        web: Option<SocketAddr>,
    },
    /// The node cannot start and leaves; one line for the operator, naming the key in the config.
    CannotStart {
        /// Why.
        reason: String,
    },
    /// What the node sees now; sent when it changes, at most ten times a second, and at least twice a second:
    /// it is told from the loop that runs the handlers, so its silence shows a loop that does not turn.
    Status(NodeStatus),
    /// The node has begun to stop, on the master's word or on a signal.
    Stopping,
    /// From a successor: everything is prepared that can be while the predecessor serves. The predecessor shall hand
    /// over at the door.
    Prepared {
        /// Where this process waits.
        door: Door,
    },
    /// The hand-over to a successor has failed, or the successor died soon after: this process has taken
    /// back what it could and serves on.
    TookBack {
        /// Why, in one sentence for the operator.
        reason: String,
    },
    /// The successor serves, and this process has ended what it had begun: its neighbours do not need it any
    /// more. It stands by until the successor is proven, and then leaves by itself.
    HandedOver,
    /// The node's metrics; only to a master that has said [`METRICS`].
    Metrics {
        /// The number of the question; 0 when nobody has asked, and the node is about to leave.
        ask: u64,
        /// In Prometheus' text format.
        text: String,
    },
}

/// The status of a node: what it sees of itself and of its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Client sessions open now.
    pub sessions: u64,
    /// Each configured parent, and whether the link to it is up.
    pub parents: Vec<(NodeName, bool)>,
    /// The children that are linked now.
    pub children: Vec<NodeName>,
    /// The node's counters, by the name of the queue or limit; only those that are not zero.
    pub counters: Vec<(String, u64)>,
}

/// The counter that is 1 when the node's app has state that a reload loses. A counter and no field of [`NodeStatus`], because
/// masters and nodes of two releases must read each other's status.
pub const STATE_WITHOUT_FREEZE: &str = "state_without_freeze";

impl NodeStatus {
    /// Whether the node's app has state that a reload loses.
    pub fn loses_state(&self) -> bool {
        self.counters.iter().any(|(name, count)| name == STATE_WITHOUT_FREEZE && *count > 0)
    }
}
