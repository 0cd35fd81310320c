//! What discovery shows: which nodes are there, since when, with which number, at which address and under which load.
//! Values, and what changes between two of them.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

use ffproto::{Incarnation, NodeName, NodeNumber};

/// The address at which a node listens for its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum LinkAddress {
    /// A TCP address, as other nodes reach it.
    Tcp(SocketAddr),
    /// In this process: the [`InProcessNet`](crate::InProcessNet) that both nodes were given leads there.
    InProcess,
}

impl fmt::Display for LinkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(at) => at.fmt(f),
            Self::InProcess => f.pad("this process"),
        }
    }
}

/// The load of a node, once a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Load {
    /// Client sessions open at the node, as their net node.
    pub sessions: u64,
    /// Handlers and hooks that run there: those of calls, and of messages of other net nodes' clients.
    pub running: u64,
}

/// A found node: one node as discovery shows it. What a backend does not know is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The node's name.
    pub name: NodeName,
    /// The node's kind: routes and links go by it when no config names the node.
    pub kind: String,
    /// The node's incarnation; of several the newest one that serves is shown.
    pub incarnation: Incarnation,
    /// The node's number. Two names never have the same one, not even one after the other.
    pub number: Option<NodeNumber>,
    /// Where children link to the node; `None` while the node takes none.
    pub address: Option<LinkAddress>,
    /// The version of the node's program.
    pub version: Option<String>,
    /// The node's load.
    pub load: Option<Load>,
    /// Since when this incarnation is there, in milliseconds since 1970.
    pub since_ms: u64,
    /// Whether the process of this incarnation is known to have ended: its links end now, before a heartbeat would
    /// notice anything, and a newer incarnation is waited for.
    pub ended: bool,
}

/// What a node tells discovery of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnNode {
    /// The node's name.
    pub name: NodeName,
    /// The node's kind.
    pub kind: String,
    /// The node's incarnation.
    pub incarnation: Incarnation,
    /// The version of the node's program.
    pub version: String,
    /// Since when this incarnation is there, in milliseconds since 1970.
    pub since_ms: u64,
    /// Where children may link to the node: from when it listens for them, in a successor from when that serves.
    pub address: Option<LinkAddress>,
    /// The node's load; told once a second when it has changed.
    pub load: Load,
    /// Whether the node leaves: it is to be shown no more, and waits until what its neighbours have sent it has ended.
    pub leaving: bool,
}

impl OwnNode {
    /// The node as others find it, with the number that it has been given.
    pub fn found(&self, number: NodeNumber) -> Found {
        Found {
            name: self.name.clone(),
            kind: self.kind.clone(),
            incarnation: self.incarnation,
            number: Some(number),
            address: self.address,
            version: Some(self.version.clone()),
            load: Some(self.load),
            since_ms: self.since_ms,
            ended: false,
        }
    }
}

/// A snapshot of what discovery shows one node: that node's own number, and the nodes that are there.
///
/// ```
/// use ffserver::discovery::{Found, Snapshot};
/// # use ffserver::NodeName;
/// # use ffproto::{Incarnation, NodeNumber};
/// let game = |incarnation| Found {
///     name: NodeName::try_from("game.9").unwrap(),
///     kind: "game".into(),
///     incarnation: Incarnation(incarnation),
///     number: Some(NodeNumber(9)),
///     address: None,
///     version: None,
///     load: None,
///     since_ms: incarnation,
///     ended: false,
/// };
/// let mut snapshot = Snapshot::default();
/// assert!(snapshot.show(game(2)));
/// assert!(!snapshot.show(game(1)), "a newer incarnation is there");
/// assert!(snapshot.withdraw("game.9", Incarnation(2)));
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Snapshot {
    /// The number of the node that this is shown to, as soon as it has one; it stays the same for the node's life.
    pub number: Option<NodeNumber>,
    /// The nodes that are there, by name; with or without the node itself.
    pub nodes: BTreeMap<NodeName, Found>,
}

impl Snapshot {
    /// Shows a node, or what has changed of it. False when nothing changes, or a newer incarnation is shown.
    pub fn show(&mut self, found: Found) -> bool {
        match self.nodes.get(&found.name) {
            Some(known) if known.incarnation > found.incarnation || *known == found => false,
            _ => self.nodes.insert(found.name.clone(), found).is_none_or(|_| true),
        }
    }

    /// Notes that the process of an incarnation has ended. False when a newer one is shown, or that is known.
    pub fn end(&mut self, name: &str, incarnation: Incarnation) -> bool {
        let known = self.nodes.get_mut(name).filter(|known| known.incarnation <= incarnation && !known.ended);
        known.map(|known| known.ended = true).is_some()
    }

    /// Takes a node away, which may live on. False when it is not shown, or a newer incarnation is.
    pub fn withdraw(&mut self, name: &str, incarnation: Incarnation) -> bool {
        let is_meant = self.nodes.get(name).is_some_and(|known| known.incarnation <= incarnation);
        is_meant && self.nodes.remove(name).is_some()
    }

    /// The changes that lead from an earlier snapshot to this one: who is gone comes first.
    pub(crate) fn changes_since(&self, before: &Self) -> Vec<FoundChange> {
        let gone = before.nodes.values().filter(|known| !self.nodes.contains_key(&known.name));
        let shown = self.nodes.values().filter(|found| before.nodes.get(&found.name) != Some(found));
        let new = |found: &Found| !before.nodes.contains_key(&found.name);
        gone.cloned()
            .map(FoundChange::Withdrawn)
            .chain(shown.map(|found| FoundChange::Shown { new: new(found), found: found.clone() }))
            .collect()
    }
}

/// A change between two snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FoundChange {
    /// The node is there, for the first time or `new` since it was withdrawn; or something of it has changed.
    Shown { found: Found, new: bool },
    /// The node is not shown any more.
    Withdrawn(Found),
}

/// The owners of numbers, as one node has seen them: a number that two names have had leads messages to the wrong one.
#[derive(Debug, Default)]
pub(crate) struct NumberOwners(BTreeMap<NodeNumber, NodeName>);

impl NumberOwners {
    /// Notes the number of a found node.
    ///
    /// # Errors
    /// The name that has had the number before.
    pub(crate) fn note(&mut self, found: &Found) -> Result<(), NodeName> {
        let Some(number) = found.number else { return Ok(()) };
        let owner = self.0.entry(number).or_insert_with(|| found.name.clone());
        if *owner == found.name { Ok(()) } else { Err(owner.clone()) }
    }
}

#[cfg(test)]
pub(crate) fn found(name: &str, kind: &str, incarnation: u64) -> Found {
    Found {
        name: NodeName::try_from(name).unwrap(),
        kind: kind.into(),
        incarnation: Incarnation(incarnation),
        number: None,
        address: None,
        version: None,
        load: None,
        since_ms: incarnation,
        ended: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(nodes: &[Found]) -> Snapshot {
        let mut snapshot = Snapshot::default();
        nodes.iter().for_each(|node| assert!(snapshot.show(node.clone())));
        snapshot
    }

    #[test]
    fn what_an_older_incarnation_says_changes_nothing_of_a_newer_one() {
        let mut snapshot = of(&[found("game.9", "game", 5)]);
        assert!(!snapshot.show(found("game.9", "game", 4)));
        assert!(!snapshot.show(found("game.9", "game", 5)), "nothing new");
        assert!(!snapshot.end("game.9", Incarnation(4)) && !snapshot.withdraw("game.9", Incarnation(4)));
        assert!(snapshot.end("game.9", Incarnation(5)) && !snapshot.end("game.9", Incarnation(5)));
        assert!(snapshot.show(found("game.9", "game", 6)), "its next start");
        assert!(!snapshot.nodes["game.9"].ended);
        assert!(snapshot.withdraw("game.9", Incarnation(6)) && !snapshot.withdraw("game.9", Incarnation(6)));
    }

    #[test]
    fn between_two_snapshots_who_is_gone_comes_before_who_is_new_and_who_has_changed() {
        let before = of(&[found("a", "game", 1), found("b", "game", 1), found("c", "game", 1)]);
        let after = of(&[found("b", "game", 1), found("c", "game", 2), found("d", "game", 1)]);
        let changes = after.changes_since(&before);
        let shown =
            |name, incarnation, new| FoundChange::Shown { found: found(name, "game", incarnation), new };
        let gone = FoundChange::Withdrawn(found("a", "game", 1));
        assert_eq!(changes, [gone, shown("c", 2, false), shown("d", 1, true)]);
        assert_eq!(after.changes_since(&after), []);
    }

    #[test]
    fn a_number_that_another_name_has_had_is_noticed_also_when_that_name_is_gone() {
        let numbered = |name, number| Found { number, ..found(name, "game", 1) };
        let (mut owners, nine) = (NumberOwners::default(), Some(NodeNumber(9)));
        assert_eq!(owners.note(&numbered("game.9", nine)), Ok(()));
        assert_eq!(owners.note(&numbered("game.9", nine)), Ok(()), "its next start");
        assert_eq!(owners.note(&numbered("other", None)), Ok(()));
        assert_eq!(owners.note(&numbered("other", nine)), Err(NodeName::try_from("game.9").unwrap()));
    }
}
