//! Calls of nodes anywhere in the cluster, as authors make them: by name, or any or all of a kind. They go as
//! envelopes, and run the handlers that the other node's app lists under `#[node_handle]`.

use std::time::Duration;

use bytes::Bytes;
use ffproto::relay::{self, Op, Reachable, TO};
use ffproto::{Code, Executed, Fault, NodeName};
use tokio::time::{Instant, timeout_at};

use crate::cluster::side::PeerKey;
use crate::error::CallError;
use crate::transit::call::{Calling, Origin};

/// The nodes that are meant.
#[derive(Debug, Clone)]
enum Recipients {
    Name(String),
    Kind(String),
}

impl Recipients {
    fn include(&self, name: &NodeName, kind: &str) -> bool {
        match self {
            Self::Name(wanted) => *name == **wanted,
            Self::Kind(wanted) => kind == wanted,
        }
    }
}

impl std::fmt::Display for Recipients {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "node `{name}`"),
            Self::Kind(kind) => write!(f, "other node of kind `{kind}`"),
        }
    }
}

/// Every node of the cluster that can be reached, however far: an extractor of every handler, and
/// [`Node::call_nodes`](crate::Node::call_nodes) elsewhere. A call runs the `#[node_handle]` of that name there.
/// Neighbours can be called so, too; [`Parents`](crate::calls::neighbours::Parents) and
/// [`Children`](crate::calls::neighbours::Children) spare them the look-up.
///
/// A node that has just ended, or cannot be reached for the moment, is waited for, at most `limits.park_ms`.
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(5)]
/// async fn rooms(nodes: Nodes) -> String {
///     let mut players = 0;
///     for (_room, answer) in nodes.call_all("room", "players", "").await {
///         // A room that has no answer is not counted.
///         players += answer.ok().and_then(|body| String::from_utf8_lossy(&body).parse::<u64>().ok()).unwrap_or(0);
///     }
///     players.to_string()
/// }
/// # let _ = App::new("net").handlers(handlers![rooms]);
/// ```
#[derive(Debug, Clone)]
pub struct Nodes {
    origin: Origin,
}

impl Nodes {
    pub(crate) fn new(origin: Origin) -> Self {
        Self { origin }
    }

    /// These calls, waiting at most `timeout` (default `limits.call_timeout_ms`). A call made by a request never
    /// outlives the request's own deadline.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.origin.timeout = timeout;
        self
    }

    /// The names of the other nodes of a kind that can be reached now.
    pub fn of_kind(&self, kind: &str) -> Vec<NodeName> {
        let whom = Recipients::Kind(kind.to_owned());
        self.meant(&whom).into_iter().map(|node| node.name).collect()
    }

    /// Calls `method` of the node `name`. It is queued before this returns if the node can be reached now, so
    /// calls made one after the other arrive in that order. Cancel-safe: dropping the future forgets the answer, a
    /// call that was sent stays so.
    ///
    /// # Errors
    /// [`CallError`], each call exactly one outcome: `NoNode` when there is no such node, or it cannot be reached;
    /// `NoMethod` when it has no such `#[node_handle]`; else as [`Parents::call`](crate::calls::neighbours::Parents::call).
    pub fn call(&self, name: &str, method: &str, body: impl AsRef<[u8]>) -> Calling {
        self.call_recipient(Recipients::Name(name.to_owned()), method, body.as_ref())
    }

    /// Calls `method` of one of the other nodes of a kind: the same for the same client session as long as the
    /// nodes are the same, else by turns.
    ///
    /// # Errors
    /// As [`Nodes::call`].
    pub fn call_any(&self, kind: &str, method: &str, body: impl AsRef<[u8]>) -> Calling {
        self.call_recipient(Recipients::Kind(kind.to_owned()), method, body.as_ref())
    }

    /// Calls `method` of all the other nodes of a kind that can be reached now, at the same time, and waits for
    /// all of them. Each has its own outcome. Nobody is waited for that is not there: an empty list is no error.
    pub async fn call_all(
        &self,
        kind: &str,
        method: &str,
        body: impl AsRef<[u8]>,
    ) -> Vec<(NodeName, Result<Bytes, CallError>)> {
        let called: Vec<(NodeName, Calling)> = {
            let (whom, body) = (Recipients::Kind(kind.to_owned()), body.as_ref());
            let nodes = self.meant(&whom).into_iter();
            nodes.map(|node| (node.name.clone(), self.send_call(&node, method, body))).collect()
        };
        let mut outcomes = Vec::with_capacity(called.len());
        for (name, call) in called {
            outcomes.push((name, call.await));
        }
        outcomes
    }

    /// Tells the node `name` something and expects nothing; in order with calls.
    ///
    /// # Errors
    /// [`CallError`] when it could not be sent: a notify does not wait for a node that is out of reach.
    pub fn notify(&self, name: &str, method: &str, body: impl AsRef<[u8]>) -> Result<(), CallError> {
        self.notify_recipient(&Recipients::Name(name.to_owned()), method, body.as_ref())
    }

    /// Tells one of the other nodes of a kind, chosen as by [`Nodes::call_any`].
    ///
    /// # Errors
    /// As [`Nodes::notify`].
    pub fn notify_any(&self, kind: &str, method: &str, body: impl AsRef<[u8]>) -> Result<(), CallError> {
        self.notify_recipient(&Recipients::Kind(kind.to_owned()), method, body.as_ref())
    }

    /// Tells all the other nodes of a kind that can be reached now; gives how many.
    ///
    /// # Errors
    /// [`CallError`] of the first that it could not be sent to; the others were told.
    pub fn notify_all(&self, kind: &str, method: &str, body: impl AsRef<[u8]>) -> Result<usize, CallError> {
        let (mut told, mut failed) = (0, None);
        for node in self.meant(&Recipients::Kind(kind.to_owned())) {
            match self.send_notify(&node, method, body.as_ref()) {
                Ok(()) => told += 1,
                Err(fault) => failed = failed.or(Some(fault)),
            }
        }
        failed.map_or(Ok(told), |fault| Err(fault.into()))
    }

    fn call_recipient(&self, whom: Recipients, method: &str, body: &[u8]) -> Calling {
        match self.one(&whom) {
            Ok(Some(node)) => self.send_call(&node, method, body),
            Ok(None) => {
                let (nodes, method, body) = (self.clone(), method.to_owned(), body.to_vec());
                Calling::later(async move { nodes.call_when_there(whom, &method, &body).await })
            }
            Err(fault) => Calling::refused(fault),
        }
    }

    async fn call_when_there(
        mut self,
        whom: Recipients,
        method: &str,
        body: &[u8],
    ) -> Result<Bytes, CallError> {
        let begun = Instant::now();
        let deadline = begun + self.origin.timeout;
        let deadline = self.origin.deadline.map_or(deadline, |outer| outer.min(deadline));
        let mut reached = self.origin.transit.membership().reached();
        loop {
            if let Some(node) = self.one(&whom)? {
                self.origin.timeout = self.origin.timeout.saturating_sub(begun.elapsed());
                return self.send_call(&node, method, body).await;
            }
            if Instant::now() >= deadline {
                let text = format!("the deadline passed while {whom} was waited for");
                return Err(self.origin.transit.identity().fault(Code::Timeout, Executed::No, text).into());
            }
            // The wait for a node that has left ends by the clock.
            let awaited = self.awaited_until(&whom).map_or_else(Instant::now, |until| until.min(deadline));
            let _ = timeout_at(awaited, reached.changed()).await;
        }
    }

    fn notify_recipient(&self, whom: &Recipients, method: &str, body: &[u8]) -> Result<(), CallError> {
        let node = self.one(whom)?.ok_or_else(|| self.no_such_node(whom))?;
        Ok(self.send_notify(&node, method, body)?)
    }

    /// The node that is meant; `None` when a node that is meant may be back soon.
    fn one(&self, whom: &Recipients) -> Result<Option<Reachable>, Fault> {
        let (transit, identity) = (&self.origin.transit, self.origin.transit.identity());
        if let Recipients::Name(name) = whom
            && *identity.name() == **name
        {
            let text = format!("`{name}` would call itself");
            return Err(identity.fault(Code::NoNode, Executed::No, text));
        }
        let mut nodes = self.meant(whom);
        if nodes.is_empty() {
            return self.awaited_until(whom).map(|_| None).ok_or_else(|| self.no_such_node(whom));
        }
        let turn = self.origin.client.map_or_else(|| transit.next_turn(), |client| client.session.0);
        Ok(Some(nodes.swap_remove((turn % nodes.len() as u64) as usize)))
    }

    fn awaited_until(&self, whom: &Recipients) -> Option<Instant> {
        let (transit, now) = (&self.origin.transit, Instant::now());
        let park = transit.identity().limits().park;
        transit.membership().awaited_until(now, park, |name, kind| whom.include(name, kind))
    }

    fn meant(&self, whom: &Recipients) -> Vec<Reachable> {
        self.origin.transit.membership().others_meant(|node| whom.include(&node.name, &node.kind))
    }

    fn no_such_node(&self, whom: &Recipients) -> Fault {
        let identity = self.origin.transit.identity();
        identity.fault(Code::NoNode, Executed::No, format!("`{}` reaches no {whom}", identity.name()))
    }

    fn send_call(&self, node: &Reachable, method: &str, body: &[u8]) -> Calling {
        match self.envelope(node, method, body) {
            Ok((PeerKey { side, name }, body)) => self.origin.call(side, name.as_str(), TO, &body),
            Err(fault) => Calling::refused(fault),
        }
    }

    fn send_notify(&self, node: &Reachable, method: &str, body: &[u8]) -> Result<(), Fault> {
        let (PeerKey { side, name }, body) = self.envelope(node, method, body)?;
        self.origin.notify(side, name.as_str(), TO, &body)
    }

    fn envelope(&self, node: &Reachable, method: &str, body: &[u8]) -> Result<(PeerKey, Vec<u8>), Fault> {
        let payload = relay::Call { method, body }.write();
        self.origin.transit.envelope(node.number, Op::Call, self.origin.client, &payload, None)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::runtime::server::bare;

    #[tokio::test(start_paused = true)]
    async fn a_node_that_has_left_is_waited_for_since_it_left_and_not_since_the_call() {
        let config =
            r#"{ "master": { "rootport": 1, "webport": 2 }, "servers": { "game": { "app": "game" } } }"#;
        let cluster = ffconfig::parse(config, Path::new("config.json"), &|_| None).unwrap().cluster;
        let node = bare(&cluster, "game").unwrap().node.clone();
        // This process has looked for the others that long.
        tokio::time::advance(node.config().limits.park * 3 / 4).await;
        let called = Instant::now();
        let fault = node.call_nodes().call("hall", "ping", b"").await.unwrap_err().fault().clone();
        assert_eq!((fault.code, fault.executed), (Code::NoNode, Executed::No));
        assert!(called.elapsed() <= node.config().limits.park / 2, "after {:?}", called.elapsed());
    }
}
