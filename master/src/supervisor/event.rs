//! The events that reach the supervisor's task: from processes, from control connections, from operators.

use std::net::TcpListener;
use std::sync::Arc;

use ffnet::listen::Port;
use ffproto::control::ToMaster;
use ffproto::credential::PublicKey;
use ffproto::{Incarnation, NodeName};
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::machine::{Answer, Exit, Refused, Tell, Wire};
use super::prepare::{Prepared, Wanted};

/// Something for the supervisor.
pub(crate) enum Event {
    /// A node has opened a control connection.
    Linked {
        node: NodeName,
        incarnation: Incarnation,
        pid: u32,
        wire: Wire,
        conn: u64,
        /// The key of the cluster that its credential is of.
        root: PublicKey,
        outbox: mpsc::Sender<Tell>,
    },
    /// The node says something.
    Said { node: NodeName, incarnation: Incarnation, conn: u64, message: ToMaster },
    /// The connection has ended.
    Unlinked { node: NodeName, incarnation: Incarnation, conn: u64 },
    /// An adopted node has given its listening sockets, or has not.
    HandedBack { node: NodeName, incarnation: Incarnation, sockets: Result<Vec<(Port, TcpListener)>, String> },
    /// A process has ended, which has run these nodes.
    Exited { nodes: Arc<[NodeName]>, incarnation: Incarnation, exit: Exit },
    /// An operator wants something.
    Ordered { order: Order, reply: oneshot::Sender<Answer> },
    /// A person starts a node, whose process wants its key.
    KeyAsked {
        node: NodeName,
        incarnation: Incarnation,
        reply: oneshot::Sender<Result<Zeroizing<Vec<u8>>, String>>,
    },
    /// A config has been read again for a reload.
    Prepared { wanted: Wanted, prepared: Result<Box<Prepared>, Refused>, reply: oneshot::Sender<Answer> },
}

/// The order of an operator; nodes by name, as they were typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// Stop everything in waves. Answered with the plan, at once.
    StopAll,
    /// Kill everything at once.
    KillAll,
    /// Leave, and let the nodes run on for the next master.
    Detach,
    /// Read the config again and replace every node, or the named one. Answered when it is done.
    Reload(Option<String>),
    /// The same for every node, after the command that runs, if one does. Answered when it is done.
    ReloadWhenFree,
    /// Make the keys of a new secret, and replace every node. Answered when it is done.
    Rotate,
    /// Stop one node. Answered when it is down.
    Stop(String),
    /// Start one node. Answered when it is ready, or has failed.
    Start(String),
    /// Stop and start one node. Answered when it is ready, or has failed.
    Restart(String),
}
