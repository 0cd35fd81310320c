//! What can go wrong in a test's cluster: at its start, with one of its nodes, at one of its clients.

use std::io;
use std::time::Duration;

use ffconfig::LoadError;
use ffkeys::KeyError;
use ffnet::listen::ListenError;
use ffproto::{Code, CommandId, Executed, NodeName};
use ffstore::db::DbError;
use tokio::task::JoinError;

use super::seed::BadSeed;
use crate::runtime::server::{BuildError, RunError};

/// Why a cluster does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The config cannot be read, or has faults.
    #[error("the config: {0}")]
    Config(#[from] LoadError),
    /// What a made node's config has besides is no JSON object.
    #[error("what the node's config has besides is no JSON object")]
    Besides,
    /// `FF_SEED` is no number.
    #[error(transparent)]
    Seed(#[from] BadSeed),
    /// There is no folder, or no socket, for the cluster.
    #[error("the cluster has no place on this machine")]
    Place(#[from] io::Error),
    /// No port of the loopback address is free.
    #[error(transparent)]
    Port(#[from] ListenError),
    /// The table of an app cannot be made in the cluster's own database.
    #[error("table `{table}`")]
    Table {
        /// The table.
        table: String,
        /// Why.
        #[source]
        source: DbError,
    },
    /// The nodes have no keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// An app does not fit its node.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A node cannot run.
    #[error("the node {node} does not start: {}", fftelemetry::chain(.source))]
    Run {
        /// The node.
        node: NodeName,
        /// Why.
        #[source]
        source: Box<RunError>,
    },
    /// A node has ended before it was ready.
    #[error("the node {node} ended at its start")]
    Ended {
        /// The node.
        node: NodeName,
        /// How its task ended, when it did not stop by itself.
        #[source]
        source: Option<JoinError>,
    },
    /// A node is not ready in time.
    #[error("the node {node} is not ready after {after:?} (limits.start_s)")]
    Late {
        /// The node.
        node: NodeName,
        /// What it had.
        after: Duration,
    },
    /// There is no such node, or a client does not get in.
    #[error(transparent)]
    Node(#[from] NodeError),
}

/// Why nothing is done to a node, or to what is between two nodes.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The config has no such node.
    #[error("the cluster has no node `{name}`; it has: {known}")]
    NoNode {
        /// The name.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// Neither of two nodes is a parent of the other.
    #[error("between {one} and {other} there is no link: neither is a parent of the other")]
    NoNeighbours {
        /// The one.
        one: NodeName,
        /// The other.
        other: NodeName,
    },
    /// The node has been killed, or has stopped.
    #[error("{0} does not run")]
    Down(NodeName),
    /// The node runs.
    #[error("{0} runs already")]
    Up(NodeName),
    /// The node has no such port.
    #[error("{node} has no {key}")]
    NoPort {
        /// The node.
        node: NodeName,
        /// `netport` or `webport`.
        key: &'static str,
    },
    /// The node takes no client.
    #[error("{node} takes no client")]
    NoClient {
        /// The node.
        node: NodeName,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What was waited for does not happen.
    #[error("{what} is not so after {after:?}")]
    Late {
        /// What was waited for.
        what: String,
        /// For how long.
        after: Duration,
    },
    /// A node's end was no good one.
    #[error("the node {node} ended badly: {why}")]
    BadEnd {
        /// The node.
        node: NodeName,
        /// How.
        why: String,
    },
}

/// What a client gets in the place of what it waits for.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The error frame of a request.
    #[error("command {command} failed: {code}: {message}")]
    Fault {
        /// The command of the request.
        command: CommandId,
        /// What went wrong, for programs.
        code: Code,
        /// What went wrong, for people.
        message: String,
        /// Whether the handler may have run.
        executed: Executed,
    },
    /// The node has ended the connection.
    #[error("the connection has ended")]
    Closed,
    /// Nothing comes.
    #[error("nothing has come for {0:?}")]
    Late(Duration),
    /// What came is no frame of the node's config.
    #[error("no frame: {0}")]
    BadFrame(String),
}

impl ClientError {
    /// The code of a fault; `None` when it is another error.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Fault { code, .. } => Some(*code),
            _ => None,
        }
    }
}
