//! Why a node cannot be put together, or cannot start.

use ffconfig::Finding;
use ffnet::listen::ListenError;
use ffproto::handshake::BadPreamble;
use ffproto::{ClusterName, Incarnation, NodeName};
use ffstore::OpenError;
use ffstore::record::SchemaError;

use crate::handover::receiver::TakeOverError;

/// Why a node cannot be put together: nothing has been opened yet.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The config has no such node.
    #[error("servers has no `{name}`; it has: {known}{}", meant(.nearest.as_deref()))]
    NoNode {
        /// The node that was asked for.
        name: String,
        /// The nodes that there are.
        known: String,
        /// The one that was meant.
        nearest: Option<String>,
    },
    /// No app of that name.
    #[error("servers.{node}.app: there is no app `{app}`; the program has {known}{}", meant(.nearest.as_deref()))]
    NoApp {
        /// The node.
        node: NodeName,
        /// The app that the node's config names.
        app: String,
        /// The apps that there are.
        known: String,
        /// The one that was meant.
        nearest: Option<String>,
    },
    /// The key is not of this start of the node.
    #[error(
        "the key is that of the start {incarnation} of `{name}` of the kind `{kind}` in the cluster `{cluster}`, not that of {node}"
    )]
    Key {
        /// The node.
        node: NodeName,
        /// Whose key it is.
        name: NodeName,
        /// Of which kind.
        kind: String,
        /// Of which start.
        incarnation: Incarnation,
        /// In which cluster.
        cluster: ClusterName,
    },
    /// The app does not fit the node: every fault of it.
    #[error("app {app} does not fit node {node}: {}", joined(.faults, .conf.as_deref()))]
    Faults {
        /// The app.
        app: String,
        /// The node.
        node: NodeName,
        /// One sentence each.
        faults: Vec<String>,
        /// Where and how the node's `conf` is not what the app's type reads.
        conf: Option<Box<Finding>>,
    },
}

fn meant(nearest: Option<&str>) -> String {
    nearest.map_or_else(String::new, |nearest| format!("; did you mean `{nearest}`?"))
}

fn joined(faults: &[String], conf: Option<&Finding>) -> String {
    let all: Vec<String> = conf.map(Finding::to_string).into_iter().chain(faults.iter().cloned()).collect();
    all.join("; ")
}

/// Why a node cannot start. Its text is one line that names the key in the config.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A port is taken.
    #[error("servers.{node}.{key}")]
    Listen {
        /// The node.
        node: NodeName,
        /// `netport`, `rootport` or `webport`.
        key: &'static str,
        /// Which address, and who holds it where that is known.
        #[source]
        source: ListenError,
    },
    /// A listening socket cannot be used.
    #[error("servers.{node}.{key}")]
    Socket {
        /// The node.
        node: NodeName,
        /// `netport`, `rootport` or `webport`.
        key: &'static str,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The database does not answer.
    #[error(transparent)]
    Db(#[from] ffstore::db::DbError),
    /// memcached does not answer.
    #[error(transparent)]
    Cache(#[from] ffstore::cache::CacheError),
    /// A table is not as its record expects it.
    #[error(transparent)]
    Schema(#[from] SchemaError),
    /// The web server does not start.
    #[error("servers.{node}.webport: the web server does not start: {why}")]
    Web {
        /// The node.
        node: NodeName,
        /// Why.
        why: String,
    },
    /// The app's start hook failed.
    #[error("the app's on_started hook failed: {0}")]
    Hook(String),
    /// The master that has started this process speaks no version that it speaks.
    #[error("no version in common with the master that has started this process")]
    Master(#[source] BadPreamble),
    /// The predecessor of the node goes on.
    #[error(transparent)]
    TakeOver(#[from] TakeOverError),
}

impl From<OpenError> for RunError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Db(error) => Self::Db(error),
            OpenError::Cache(error) => Self::Cache(error),
            OpenError::Schema(error) => Self::Schema(error),
        }
    }
}
