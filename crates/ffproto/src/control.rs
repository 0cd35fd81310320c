//! What the master and its nodes tell each other, after the handshake. Few and small messages:
//! typed values, moved by tokio-serde with bincode (`ffnet::control`).

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::{Incarnation, NodeName, NodeNumber};

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
        /// Which start of it.
        incarnation: Incarnation,
    },
    /// A parent's process is gone: fail its calls now, not when a heartbeat notices.
    ParentGone {
        /// The parent.
        name: NodeName,
        /// Which start of it is gone.
        incarnation: Incarnation,
    },
    /// Stop in good order: take no new clients, let what runs end within `drain_ms`, run the app's hook,
    /// leave with exit code 0.
    Stop {
        /// Milliseconds that the node may take.
        drain_ms: u64,
    },
}

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
    /// What the node sees now; sent when it changes, at most ten times a second, and at least once a second.
    Status(NodeStatus),
    /// The node has begun to stop, on the master's word or on a signal.
    Stopping,
}

/// What a node sees of itself and of its neighbours.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Client sessions open now.
    pub sessions: u64,
    /// Each configured parent, and whether the link to it is up.
    pub parents: Vec<(NodeName, bool)>,
    /// The children that are linked now.
    pub children: Vec<NodeName>,
    /// What has been refused, dropped or cut since the start, by the name of the queue or limit; only what
    /// is not zero.
    pub counters: Vec<(String, u64)>,
}
