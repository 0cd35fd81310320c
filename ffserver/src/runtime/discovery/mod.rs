//! Discovery: how a node finds the others, and they it. One trait, with the master and this process's memory as its
//! backends; a program may bring its own.

pub(crate) mod backend;
pub(crate) mod follower;
pub(crate) mod master;
pub(crate) mod memory;

use std::error::Error;
use std::future::Future;

use ffproto::NodeName;
pub use ffproto::{Incarnation, NodeNumber};
use tokio::sync::watch;

pub use crate::cluster::found::{Found, LinkAddress, Load, OwnNode, Snapshot};

/// Why a turn of [`Discovery::run`] has ended. It is run again, after a wait; what it has shown stays.
#[derive(Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The number that the node is to have is, or was, another one's. Somebody has to look at how numbers are given.
    #[error("number {number} is `{owner}`'s", number = .number.0)]
    NumberTaken {
        /// The number.
        number: NodeNumber,
        /// The name that it was given to.
        owner: NodeName,
    },
    /// Every number has been given: a cluster has as many nodes in its whole life.
    #[error("all {} numbers have been given", NodeNumber::MAX)]
    NumbersGiven,
    /// The backend cannot be reached, or does not do what it is asked.
    #[error("the backend of discovery")]
    Backend(#[source] Box<dyn Error + Send + Sync>),
}

/// Discovery: who is there, since when, with which number, at which address and under which load.
///
/// One value serves one node, for the node's life. [`FFServer::discovery`](crate::FFServer::discovery) takes it; without it a
/// node has the master's, or that of its process ([`FFServer::in_process`](crate::FFServer::in_process)).
///
/// What the runtime does with what is shown:
///
/// - a node that is shown for the first time and that no config names is a parent of those whose `remoteport` names a node of
///   its kind, and a child of those that have children of its kind: it is linked, and routes take it in;
/// - one that is shown no more gets nothing new. Its sessions go elsewhere, each when nothing of it is under way there; it
///   ends its links when nothing is left, and its neighbours do so after its `drain_s`;
/// - one that has [`ended`](Found::ended) loses its links at once;
/// - a changed address or a newer incarnation is linked beside the older one, which ends when it has handed over.
///
/// What an implementation keeps:
///
/// - **Numbers** are given without a clash, and never to another name, not even when the first one is gone: session ids and
///   envelopes bear them. The next start of a name has the same number.
/// - **An outage is not news.** While the backend cannot be reached the last snapshot stays, and [`run`](Discovery::run)
///   may end with an error: the runtime runs it again, and no link ends for it.
/// - **Of a name, the newest incarnation is shown**, of a node with an address the newest that has one; and what an older one
///   does (its lease that ends, its leaving) changes nothing of it: while a process is replaced there are two.
///
/// ```
/// use std::collections::BTreeMap;
/// use std::sync::Arc;
/// use ffserver::discovery::{Discovery, DiscoveryError, Found, NodeNumber, OwnNode, Snapshot};
/// use ffserver::NodeName;
/// use tokio::sync::watch;
///
/// /// A table that the nodes of a test share; the names' places are their numbers.
/// struct Table {
///     names: Vec<NodeName>,
///     nodes: Arc<watch::Sender<BTreeMap<NodeName, Found>>>,
/// }
///
/// impl Discovery for Table {
///     async fn run(
///         &mut self,
///         own: &mut watch::Receiver<OwnNode>,
///         shown: &watch::Sender<Snapshot>,
///     ) -> Result<(), DiscoveryError> {
///         let place = self.names.iter().position(|name| *name == own.borrow().name);
///         let number = NodeNumber(place.ok_or(DiscoveryError::NumbersGiven)? as u16 + 1);
///         let mut nodes = self.nodes.subscribe();
///         own.mark_changed();
///         nodes.mark_changed();
///         loop {
///             tokio::select! {
///                 changed = own.changed() => {
///                     let own = own.borrow_and_update().clone();
///                     if changed.is_err() || own.leaving {
///                         self.nodes.send_modify(|nodes| drop(nodes.remove(&own.name)));
///                         return Ok(());
///                     }
///                     self.nodes.send_modify(|nodes| drop(nodes.insert(own.name.clone(), own.found(number))));
///                 }
///                 _ = nodes.changed() => {
///                     let nodes = nodes.borrow_and_update().clone();
///                     shown.send_replace(Snapshot { number: Some(number), nodes });
///                 }
///             }
///         }
///     }
/// }
/// ```
pub trait Discovery: Send + 'static {
    /// Registers the node `own`, tells the backend when that changes, keeps its lease, and writes what is there into
    /// `shown`: first the node's number, as soon as it has one. `own` is to be taken as changed at the beginning.
    ///
    /// Returns when the node has left ([`OwnNode::leaving`]) and is not shown any more, or `own` has ended. When the future
    /// is dropped before that the process ends without a word, and what a lease is for happens.
    ///
    /// # Errors
    /// [`DiscoveryError`]; it is run again after a wait of 50 ms to 2 s.
    fn run(
        &mut self,
        own: &mut watch::Receiver<OwnNode>,
        shown: &watch::Sender<Snapshot>,
    ) -> impl Future<Output = Result<(), DiscoveryError>> + Send;
}
