//! The affinity of sessions: which neighbour, and which node behind it, takes a session's messages for a target. Chosen
//! once and kept, also while a process on the way is replaced.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ffnet::Link;
use ffproto::question::AffinityView;
use ffproto::{NodeName, NodeNumber, SessionId, handover};
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::cluster::affinity_delta::AffinityDelta;
use crate::cluster::side::{PeerKey, Side};

/// A link that takes messages for a target, and the method's number there.
#[derive(Clone)]
pub(crate) struct Hop {
    pub(crate) link: Link,
    pub(crate) method: u16,
    /// The count of the cluster's changes ([`crate::cluster::membership::Membership::changes`]) when the hop was
    /// chosen: at another count the hop is looked up again.
    pub(crate) changes: u64,
}

impl Hop {
    /// Whether the hop can be taken without another look.
    #[inline]
    pub(crate) fn holds(&self, changes: u64) -> bool {
        self.changes == changes && self.link.is_open()
    }
}

/// The choice for one session and one target.
#[derive(Clone)]
struct Choice {
    target: Arc<str>,
    /// The neighbour that takes the messages; `None` while only the node is known.
    neighbour: Option<NodeName>,
    /// The hop to that neighbour, as long as it is open.
    hop: Option<Hop>,
    /// The node that handles the messages, when that is known.
    end: Option<NodeName>,
    /// The neighbour that the messages come from; `None` for a client of this node.
    from: Option<PeerKey>,
}

/// Room for one choice: most sessions have one, and a vector that grows by itself would make room for four.
fn for_one() -> Vec<Choice> {
    Vec::with_capacity(1)
}

impl Choice {
    fn tell(&self, session: SessionId) -> Option<handover::AffinityEntry> {
        let from = self.from.as_ref().map(|at| (at.side == Side::Parent, at.name.clone()));
        let (kind, node, end) = (self.target.to_string(), self.neighbour.clone(), self.end.clone());
        if node.is_none() && end.is_none() {
            return None;
        }
        Some(handover::AffinityEntry { session, kind, node, end, from })
    }
}

/// The affinity's answer for a session and a target.
pub(crate) enum AffinityLookup {
    /// The hop holds: nothing has changed since it was chosen.
    Hop(Hop),
    /// The hop has to be looked up, with what the session had as a preference.
    Stale(StaleChoice),
}

/// The choice that a session had, as a preference when its hop is looked up.
#[derive(Default)]
pub(crate) struct StaleChoice {
    /// The neighbour.
    pub(crate) neighbour: Option<NodeName>,
    /// The link to that neighbour that was used last.
    pub(crate) link: Option<Link>,
    /// The node that handles the messages.
    pub(crate) end: Option<NodeName>,
}

/// A session whose node has changed, and the neighbour that must be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NodeChange {
    /// The neighbour that the session's messages come from.
    pub(crate) from: Option<PeerKey>,
    /// The node that the session had.
    pub(crate) lost: Option<NodeName>,
}

/// The affinity of one node: the choices of all sessions whose messages pass here.
#[derive(Default)]
pub(crate) struct Affinity {
    /// The choices of each session: it uses few targets, so a list is faster than a map.
    chosen: Mutex<FxHashMap<SessionId, Vec<Choice>>>,
    /// Counts what may have changed a choice: a hop that was looked up holds until the next one.
    edits: AtomicU64,
    /// The delta for the successor, while this process hands over.
    delta: Mutex<Option<Arc<AffinityDelta>>>,
    /// Whether, at the last sweep, nodes that sessions have were out of reach and might be back.
    misses: AtomicBool,
    /// The count of the cluster's changes at the last sweep.
    pub(crate) looked_at: AtomicU64,
    /// Sessions of this node that have lost their node, for the app to be told.
    lost: Mutex<Vec<(SessionId, NodeName)>>,
    pub(crate) lost_one: Notify,
}

impl Affinity {
    fn edit(&self) -> MutexGuard<'_, FxHashMap<SessionId, Vec<Choice>>> {
        let chosen = self.chosen.lock();
        self.edits.fetch_add(1, Ordering::Release);
        chosen
    }

    /// The choices of a session, for an operator.
    pub(crate) fn shown(&self, session: SessionId) -> Vec<AffinityView> {
        let chosen = self.chosen.lock();
        let shown = |choice: &Choice| AffinityView {
            target: choice.target.to_string(),
            neighbour: choice.neighbour.clone(),
            node: choice.end.clone(),
        };
        chosen.get(&session).into_iter().flatten().map(shown).collect()
    }

    /// A number that is another one after each change of a choice, of whichever session.
    #[inline]
    pub(crate) fn edits(&self) -> u64 {
        self.edits.load(Ordering::Acquire)
    }

    /// The choice of a session for a target; `changes` is the count of the cluster's changes now.
    pub(crate) fn get(&self, session: SessionId, target: &str, changes: u64) -> Option<AffinityLookup> {
        let chosen = self.chosen.lock();
        let choice = chosen.get(&session)?.iter().find(|choice| *choice.target == *target)?;
        match &choice.hop {
            Some(hop) if hop.holds(changes) => Some(AffinityLookup::Hop(hop.clone())),
            hop => {
                let link = hop.as_ref().map(|hop| hop.link.clone());
                Some(AffinityLookup::Stale(StaleChoice {
                    neighbour: choice.neighbour.clone(),
                    link,
                    end: choice.end.clone(),
                }))
            }
        }
    }

    /// Keeps a hop as the session's choice; `end` is the node that handles the messages, when that is known. Returns
    /// the neighbour that must be told, when the node is another one than before.
    pub(crate) fn set(
        &self,
        session: SessionId,
        target: &Arc<str>,
        hop: Hop,
        end: Option<NodeName>,
        from: Option<&PeerKey>,
    ) -> Option<NodeChange> {
        let mut chosen = self.edit();
        let choices = chosen.entry(session).or_insert_with(for_one);
        let at = choices.iter().position(|choice| choice.target == *target).unwrap_or_else(|| {
            let (target, from) = (target.clone(), from.cloned());
            choices.push(Choice { target, neighbour: None, hop: None, end: None, from });
            choices.len() - 1
        });
        let choice = &mut choices[at];
        choice.neighbour = Some(hop.link.peer().name.clone());
        choice.hop = Some(hop);
        if from.is_some() {
            choice.from = from.cloned();
        }
        let moved = end.and_then(|end| choice.ends_at(end));
        self.tell_successor(choice.tell(session));
        moved
    }

    /// Takes a neighbour's word that the session's messages are for the node `end`. Returns the neighbour that they
    /// went to, when they were for another node.
    pub(crate) fn prefer(
        &self,
        session: SessionId,
        target: &str,
        end: NodeName,
        from: &PeerKey,
    ) -> Option<NodeName> {
        let mut chosen = self.edit();
        let choices = chosen.entry(session).or_insert_with(for_one);
        let at = choices.iter().position(|choice| *choice.target == *target);
        let before = at.map(|at| choices.swap_remove(at));
        let (same, other) = match before {
            Some(choice) if choice.end.as_ref() == Some(&end) => (Some(choice), None),
            before => (None, before.and_then(|choice| choice.neighbour)),
        };
        let new = || Choice { target: target.into(), neighbour: None, hop: None, end: Some(end), from: None };
        let choice = Choice { from: Some(from.clone()), ..same.unwrap_or_else(new) };
        self.tell_successor(choice.tell(session));
        choices.push(choice);
        other
    }

    /// Makes `end` the node of a session that was moved there. Returns the neighbour that its messages went to.
    pub(crate) fn lead(&self, session: SessionId, target: &Arc<str>, end: NodeName) -> Option<NodeName> {
        let neighbour = self.forget_one(session, target);
        let choice =
            Choice { target: target.clone(), neighbour: None, hop: None, end: Some(end), from: None };
        self.tell_successor(choice.tell(session));
        self.put(session, choice);
        neighbour
    }

    /// Takes the word of the neighbour that the session's messages go to about the node that handles them; `None` when
    /// they do not go there, or nothing has changed.
    pub(crate) fn chosen(
        &self,
        session: SessionId,
        target: &str,
        by: &NodeName,
        end: NodeName,
    ) -> Option<NodeChange> {
        let mut chosen = self.edit();
        let mut choices = chosen.get_mut(&session)?.iter_mut();
        let choice =
            choices.find(|choice| *choice.target == *target && choice.neighbour.as_ref() == Some(by))?;
        let moved = choice.ends_at(end);
        self.tell_successor(choice.tell(session));
        moved
    }

    /// The node that a session has, when that is known.
    pub(crate) fn end(&self, session: SessionId, target: &str) -> Option<NodeName> {
        let chosen = self.chosen.lock();
        chosen.get(&session)?.iter().find(|choice| *choice.target == *target)?.end.clone()
    }

    /// The number of sessions that have a choice.
    pub(crate) fn len(&self) -> usize {
        self.chosen.lock().len()
    }

    /// The net nodes of the sessions that have a choice.
    pub(crate) fn nets(&self) -> BTreeSet<NodeNumber> {
        self.chosen.lock().keys().map(|id| id.node()).collect()
    }

    /// The sessions of that net node that have a choice.
    pub(crate) fn of(&self, net: NodeNumber) -> Vec<SessionId> {
        self.chosen.lock().keys().copied().filter(|id| id.node() == net).collect()
    }

    /// Whether messages of the session go to that neighbour.
    pub(crate) fn goes_to(&self, session: SessionId, name: &NodeName) -> bool {
        let chosen = self.chosen.lock();
        chosen
            .get(&session)
            .is_some_and(|all| all.iter().any(|choice| choice.neighbour.as_ref() == Some(name)))
    }

    /// Forgets a session's choice for a target, whose messages come here no longer. Returns the neighbour that they
    /// went to.
    pub(crate) fn forget_one(&self, session: SessionId, target: &str) -> Option<NodeName> {
        let mut chosen = self.edit();
        let choices = chosen.get_mut(&session)?;
        let at = choices.iter().position(|choice| *choice.target == *target)?;
        let neighbour = choices.swap_remove(at).neighbour;
        if choices.is_empty() {
            chosen.remove(&session);
        }
        neighbour
    }

    /// Takes over a choice of this node's predecessor.
    pub(crate) fn take_over(&self, entry: handover::AffinityEntry) {
        let handover::AffinityEntry { session, kind, node, end, from } = entry;
        let side = |is_parent| if is_parent { Side::Parent } else { Side::Child };
        let from = from.map(|(is_parent, name)| PeerKey::new(side(is_parent), name));
        self.put(session, Choice { target: kind.into(), neighbour: node, hop: None, end, from });
    }

    fn put(&self, session: SessionId, choice: Choice) {
        let mut chosen = self.edit();
        let choices = chosen.entry(session).or_insert_with(for_one);
        choices.retain(|known| known.target != choice.target);
        choices.push(choice);
    }

    fn tell_successor(&self, entry: Option<handover::AffinityEntry>) {
        if let (Some(successor), Some(entry)) = (&*self.delta.lock(), entry) {
            successor.put(entry);
        }
    }

    /// Forgets a session. Returns the neighbours that took its messages, to be told.
    pub(crate) fn forget(&self, session: SessionId) -> Vec<NodeName> {
        let choices = self.edit().remove(&session).unwrap_or_default();
        choices.into_iter().filter_map(|choice| choice.neighbour).collect()
    }

    /// Forgets a session that goes on in the successor. Returns its choices, for the successor.
    pub(crate) fn leave(&self, session: SessionId) -> Vec<handover::AffinityEntry> {
        let choices = self.edit().remove(&session).unwrap_or_default();
        choices.iter().filter_map(|choice| choice.tell(session)).collect()
    }

    /// Ends the delta: no successor is told of choices any more.
    pub(crate) fn keep(&self) {
        *self.delta.lock() = None;
    }

    /// All choices, for the successor; later ones go into its delta.
    pub(crate) fn hand_over(&self, successor: Arc<AffinityDelta>) -> Vec<handover::AffinityEntry> {
        // The delta comes before the list, so that a choice between the two is sent twice, and not never.
        *self.delta.lock() = Some(successor);
        let chosen = self.chosen.lock();
        let of = |(session, choices): (&SessionId, &Vec<Choice>)| {
            choices.iter().filter_map(|choice| choice.tell(*session)).collect::<Vec<_>>()
        };
        chosen.iter().flat_map(of).collect()
    }

    /// Forgets the choices whose node is out of reach and will not be back soon; their sessions have lost that node.
    pub(crate) fn forget_lost(
        &self,
        is_reached: impl Fn(&NodeName) -> bool,
        may_be_back: impl Fn(&NodeName) -> bool,
    ) {
        let mut misses = false;
        self.edit().retain(|session, choices| {
            choices.retain(|choice| {
                let Some(end) = choice.end.as_ref().filter(|end| !is_reached(end)) else { return true };
                let is_lost = !may_be_back(end);
                if is_lost {
                    self.lose(*session, end.clone());
                }
                misses |= !is_lost;
                !is_lost
            });
            !choices.is_empty()
        });
        self.misses.store(misses, Ordering::Relaxed);
    }

    /// Whether a node that sessions have was out of reach at the last sweep.
    pub(crate) fn misses(&self) -> bool {
        self.misses.load(Ordering::Relaxed)
    }

    /// Notes that a session of this node has lost its node, for the app to be told.
    pub(crate) fn lose(&self, session: SessionId, node: NodeName) {
        self.lost.lock().push((session, node));
        self.lost_one.notify_one();
    }

    /// Takes the sessions that have lost their node since the last call.
    pub(crate) fn take_lost(&self) -> Vec<(SessionId, NodeName)> {
        std::mem::take(&mut self.lost.lock())
    }
}

impl Choice {
    fn ends_at(&mut self, end: NodeName) -> Option<NodeChange> {
        if self.end.as_ref() == Some(&end) {
            return None;
        }
        let lost = self.end.replace(end);
        Some(NodeChange { from: self.from.clone(), lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_session_was_moved_is_told_before_it_has_said_anything_there() {
        let (entry, session, game) = (Affinity::default(), SessionId(7), Arc::<str>::from("game"));
        let hall = NodeName::try_from("hall.2").unwrap();
        entry.lead(session, &game, hall.clone());
        let told = entry.hand_over(Arc::default());
        assert_eq!((told.len(), &told[0].node, &told[0].end), (1, &None, &Some(hall.clone())));
        let successor = Affinity::default();
        told.into_iter().for_each(|entry| successor.take_over(entry));
        assert_eq!(successor.end(session, "game"), Some(hall));
    }

    #[test]
    fn who_was_used_for_another_node_is_given_back_to_be_told_and_who_is_right_stays() {
        let (entry, session) = (Affinity::default(), SessionId(7));
        let name = |name: &str| NodeName::try_from(name).unwrap();
        let net = PeerKey::new(Side::Parent, name("net"));
        let kept = handover::AffinityEntry {
            session,
            kind: "hall".into(),
            node: Some(name("gate.1")),
            end: Some(name("hall.1")),
            from: None,
        };
        entry.take_over(kept);
        assert_eq!(entry.prefer(session, "hall", name("hall.1"), &net), None);
        assert!(entry.goes_to(session, &name("gate.1")), "nothing has changed");
        assert_eq!(entry.prefer(session, "hall", name("hall.2"), &net), Some(name("gate.1")));
        assert!(!entry.goes_to(session, &name("gate.1")));
        assert_eq!(entry.end(session, "hall"), Some(name("hall.2")));
        assert_eq!((entry.nets(), entry.of(session.node())), ([session.node()].into(), vec![session]));
    }

    #[test]
    fn a_node_out_of_reach_is_lost_once_when_its_time_is_over() {
        let (entry, name) = (Affinity::default(), |name: &str| NodeName::try_from(name).unwrap());
        let at = PeerKey::new(Side::Child, name("net"));
        entry.prefer(SessionId(1), "game", name("game.1"), &at);
        entry.prefer(SessionId(2), "game", name("game.2"), &at);
        let reached = |node: &NodeName| *node == *"game.2";
        entry.forget_lost(reached, |_| true);
        assert!(entry.misses() && entry.take_lost().is_empty());
        entry.forget_lost(|_| true, |_| false);
        assert!(!entry.misses() && entry.take_lost().is_empty());
        entry.forget_lost(reached, |_| false);
        assert!(!entry.misses());
        assert_eq!(entry.take_lost(), [(SessionId(1), name("game.1"))]);
        entry.forget_lost(reached, |_| false);
        assert!(entry.take_lost().is_empty());
        assert!(entry.get(SessionId(1), "game", 0).is_none() && entry.get(SessionId(2), "game", 0).is_some());
    }
}
