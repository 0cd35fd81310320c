//! Which node runs a client's message that has no handler here: the config's `route` gives a kind, the
//! handshakes tell which links take messages for it, and a session keeps the one that was chosen.

use std::collections::BTreeSet;
use std::sync::Arc;

use ffnet::Link;
use ffproto::SessionId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

/// In a handshake, `@KIND` among the methods says: this end takes clients' messages for nodes of KIND,
/// itself or for one of its children. No handler's name has an `@`.
const MARK: char = '@';
/// A notify under this name says that the session in its header has ended.
pub(crate) const SESSION_ENDED: &str = "@";

/// The method under which messages for `kind` are taken.
pub(crate) fn method_of(kind: &str) -> String {
    format!("{MARK}{kind}")
}

/// Whether a handler's method may be named so.
pub(crate) fn is_reserved(method: &str) -> bool {
    method.contains(MARK)
}

/// What a node takes clients' messages for, beside its handlers: one entry per kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    /// This node's own handlers.
    Here,
    /// A child of that kind.
    Children(Arc<str>),
}

/// The kinds that a node can tell its children it takes: its own, and those of its children.
pub(crate) fn targets(
    cluster: &ffconfig::Cluster,
    node: &ffconfig::Node,
    has_handlers: bool,
) -> Vec<(String, Target)> {
    let kinds: BTreeSet<&str> = cluster.children_of(&node.name).map(|child| child.kind.as_str()).collect();
    let own = has_handlers.then(|| (node.kind.clone(), Target::Here));
    let children = kinds.into_iter().filter(|kind| !(has_handlers && *kind == node.kind));
    own.into_iter().chain(children.map(|kind| (kind.to_owned(), Target::Children(kind.into())))).collect()
}

/// A link that takes messages for a kind, and the method's number there.
#[derive(Clone)]
pub(crate) struct Hop {
    pub(crate) link: Link,
    pub(crate) method: u16,
}

impl Hop {
    pub(crate) fn new(link: Link, kind: &str) -> Option<Self> {
        let method = link.method_number(&method_of(kind))?;
        Some(Self { link, method })
    }
}

/// One hop per kind; a session uses few kinds, so a list is faster than a map.
type Hops = Vec<(Arc<str>, Hop)>;

/// Which hop each session's messages for a kind take: chosen once and kept while the link lives.
#[derive(Default)]
pub(crate) struct Sticky {
    chosen: Mutex<FxHashMap<SessionId, Hops>>,
}

impl Sticky {
    pub(crate) fn get(&self, session: SessionId, kind: &str) -> Option<Hop> {
        let chosen = self.chosen.lock();
        let (_, hop) = chosen.get(&session)?.iter().find(|(known, _)| **known == *kind)?;
        (!hop.link.is_closed()).then(|| hop.clone())
    }

    pub(crate) fn set(&self, session: SessionId, kind: &Arc<str>, hop: Hop) {
        let mut chosen = self.chosen.lock();
        let hops = chosen.entry(session).or_default();
        hops.retain(|(known, _)| known != kind);
        hops.push((kind.clone(), hop));
    }

    /// Forgets a session; gives the links that it used, to tell them.
    pub(crate) fn forget(&self, session: SessionId) -> Vec<Link> {
        let hops = self.chosen.lock().remove(&session).unwrap_or_default();
        hops.into_iter().map(|(_, hop)| hop.link).collect()
    }
}

/// The least loaded of several; for a new session by turns among equals.
pub(crate) fn least_loaded(hops: Vec<Hop>, turn: u64) -> Option<Hop> {
    let n = hops.len();
    if n == 0 {
        return None;
    }
    let start = (turn % n as u64) as usize;
    (0..n).map(|i| &hops[(start + i) % n]).min_by_key(|hop| hop.link.waiting_calls()).cloned()
}
