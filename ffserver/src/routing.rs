//! Which node runs a client's message that has no handler here: the config's `route` gives a kind, the
//! handshakes tell which links take messages for it, and a session keeps the one that was chosen.

use std::collections::BTreeSet;
use std::sync::Arc;

use ffnet::Link;
use ffproto::{NodeName, SessionId, handover};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::mpsc;

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

/// The node of a kind that a session's messages go to, with the way there as long as that is open.
struct Choice {
    kind: Arc<str>,
    node: NodeName,
    hop: Option<Hop>,
}

impl Choice {
    fn tell(&self, session: SessionId) -> handover::Sticky {
        handover::Sticky { session, kind: self.kind.to_string(), node: self.node.clone() }
    }
}

/// What is known of a session's choice for a kind.
pub(crate) enum Chosen {
    /// This way, which was open a moment ago.
    Hop(Hop),
    /// That node; the way to it has to be looked up.
    Node(NodeName),
}

/// Which node each session's messages for a kind go to: chosen once and kept, also while the node's process
/// is replaced.
#[derive(Default)]
pub(crate) struct Sticky {
    /// A session uses few kinds, so a list is faster than a map.
    chosen: Mutex<FxHashMap<SessionId, Vec<Choice>>>,
    /// While this process hands over, its successor hears of every choice.
    heard_by: Mutex<Option<mpsc::UnboundedSender<handover::Sticky>>>,
}

impl Sticky {
    pub(crate) fn get(&self, session: SessionId, kind: &str) -> Option<Chosen> {
        let chosen = self.chosen.lock();
        let choice = chosen.get(&session)?.iter().find(|choice| *choice.kind == *kind)?;
        match &choice.hop {
            Some(hop) if hop.link.is_open() => Some(Chosen::Hop(hop.clone())),
            _ => Some(Chosen::Node(choice.node.clone())),
        }
    }

    pub(crate) fn set(&self, session: SessionId, kind: &Arc<str>, hop: Hop) {
        let node = hop.link.peer().name.clone();
        if let Some(successor) = &*self.heard_by.lock() {
            let (kind, node) = (kind.to_string(), node.clone());
            // A successor that is gone needs to know nothing.
            let _ = successor.send(handover::Sticky { session, kind, node });
        }
        self.put(session, Choice { kind: kind.clone(), node, hop: Some(hop) });
    }

    /// Takes over a choice of this node's predecessor.
    pub(crate) fn take_over(&self, sticky: handover::Sticky) {
        let handover::Sticky { session, kind, node } = sticky;
        self.put(session, Choice { kind: kind.into(), node, hop: None });
    }

    fn put(&self, session: SessionId, choice: Choice) {
        let mut chosen = self.chosen.lock();
        let choices = chosen.entry(session).or_default();
        choices.retain(|known| known.kind != choice.kind);
        choices.push(choice);
    }

    /// Forgets a session; gives the nodes that it used, to tell them.
    pub(crate) fn forget(&self, session: SessionId) -> Vec<NodeName> {
        let choices = self.chosen.lock().remove(&session).unwrap_or_default();
        choices.into_iter().map(|choice| choice.node).collect()
    }

    /// Forgets a session that goes on in another process; gives what that one must know.
    pub(crate) fn leave(&self, session: SessionId) -> Vec<handover::Sticky> {
        let choices = self.chosen.lock().remove(&session).unwrap_or_default();
        choices.iter().map(|choice| choice.tell(session)).collect()
    }

    /// Nobody hears of choices any more.
    pub(crate) fn keep(&self) {
        *self.heard_by.lock() = None;
    }

    /// Everything that is known now; what is chosen later goes to `successor` as well.
    pub(crate) fn hand_over(
        &self,
        successor: mpsc::UnboundedSender<handover::Sticky>,
    ) -> Vec<handover::Sticky> {
        *self.heard_by.lock() = Some(successor);
        let chosen = self.chosen.lock();
        let of = |(session, choices): (&SessionId, &Vec<Choice>)| {
            choices.iter().map(|choice| choice.tell(*session)).collect::<Vec<_>>()
        };
        chosen.iter().flat_map(of).collect()
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
