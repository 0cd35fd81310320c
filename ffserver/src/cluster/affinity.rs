//! Which node runs a client's message that has no handler here: the config's `route` gives a target (a kind,
//! or one node), the neighbours tell what they take, and a session keeps the node that was chosen.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ffnet::Link;
use ffproto::{NodeName, NodeNumber, SessionId, handover};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::Notify;

use crate::cluster::configured_routes::Places;
use crate::cluster::reachability::{At, Direction};
use crate::transit::park::Side;

/// In a handshake, `@KIND` among the methods says: this end takes clients' messages for nodes of KIND,
/// itself or for others; `@=NODE` says so of one node. No handler's name has an `@`.
const MARK: char = '@';
/// A notify under this name says that the session in its header has ended.
pub(crate) const SESSION_ENDED: &str = "@";

/// The method under which messages for a target are taken.
pub(crate) fn method_of(target: &str) -> String {
    format!("{MARK}{target}")
}

/// Whether a handler's method may be named so.
pub(crate) fn is_reserved(method: &str) -> bool {
    method.contains(MARK)
}

/// What a node takes clients' messages for, beside its handlers: one entry per target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Taken {
    /// This node's own handlers, and its own route.
    Here,
    /// Others, on the far side of this node.
    Beyond(Arc<str>),
}

/// What a node tells its neighbours on that side that it takes.
pub(crate) fn taken(places: &Places, side: Side, has_handlers: bool) -> Vec<(String, Taken)> {
    let own: BTreeSet<Arc<str>> = places.own().filter(|_| has_handlers).cloned().collect();
    let here = own.iter().map(|key| (key.to_string(), Taken::Here)).collect::<Vec<_>>();
    let beyond = places.passed_on_for(side).into_iter().filter(|key| !own.contains(key));
    here.into_iter().chain(beyond.map(|key| (key.to_string(), Taken::Beyond(key)))).collect()
}

/// A link that takes messages for a target, and the method's number there.
#[derive(Clone)]
pub(crate) struct Hop {
    pub(crate) link: Link,
    pub(crate) method: u16,
    /// What was known of the cluster when it was chosen ([`crate::cluster::membership::Cluster::changes`]): it is looked at
    /// again when that has changed.
    pub(crate) known: u64,
}

impl Hop {
    pub(crate) fn new(link: Link, target: &str, known: u64) -> Option<Self> {
        let method = link.method_number(&method_of(target))?;
        Some(Self { link, method, known })
    }

    /// Whether it can be taken without another look.
    #[inline]
    pub(crate) fn holds(&self, known: u64) -> bool {
        self.known == known && self.link.is_open()
    }
}

/// A neighbour that takes messages for a target and may be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Way {
    pub(crate) side: Side,
    pub(crate) name: NodeName,
    pub(crate) state: WayState,
    /// It is meant itself.
    pub(crate) end: bool,
    /// A node that is meant lives behind it.
    pub(crate) leads: bool,
    /// The node that the session has is it, or lives behind it.
    pub(crate) to_kept: bool,
}

/// How it stands with a neighbour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WayState {
    /// So many calls wait for their outcome there.
    Open(usize),
    /// It is back soon with all that it knows, or an earlier message of the session must end first.
    Soon,
    /// It has ended, and may be back.
    Missed,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pick {
    /// That way.
    Go(usize),
    /// That way, when nothing of the session is left on the one that it had.
    Leave(usize),
    /// It waits.
    Wait,
    /// There is none.
    None,
}

/// Chooses a way: the one that the session has as long as it leads to a node that is meant; else the one to the
/// node that the session has; else below before above, the node itself before one on the way, and of those the
/// one with the least load, by turns among equals. When nothing leads there now, a way on which somebody may be
/// waited for.
pub(crate) fn pick(ways: &[Way], kept: Option<&NodeName>, turn: u64) -> Pick {
    let others = || best(ways, turn, |way| (way.end || way.leads) && Some(&way.name) != kept);
    if let Some(at) = kept.and_then(|kept| ways.iter().position(|way| way.name == *kept)) {
        return match ways[at].state {
            WayState::Soon => Pick::Wait,
            WayState::Open(_) if ways[at].end || ways[at].leads => Pick::Go(at),
            WayState::Open(_) => others().map_or(Pick::Go(at), Pick::Leave),
            WayState::Missed => others().map_or(Pick::Wait, Pick::Go),
        };
    }
    if ways.iter().any(|way| way.to_kept && way.state == WayState::Soon) {
        return Pick::Wait;
    }
    if let Some(at) = best(ways, turn, |way| way.to_kept) {
        return Pick::Go(at);
    }
    // Who has just been told which node the session has, after a start of its own or a move, waits for that.
    if kept.is_none() && ways.iter().any(|way| way.to_kept && way.state == WayState::Missed) {
        return Pick::Wait;
    }
    for side in [Side::Child, Side::Parent] {
        if let Some(at) = best(ways, turn, |way| way.side == side && (way.end || way.leads)) {
            return Pick::Go(at);
        }
        let is_soon = |way: &Way| way.side == side && !matches!(way.state, WayState::Open(_));
        if ways.iter().any(is_soon) {
            return Pick::Wait;
        }
    }
    best(ways, turn, |_| true).map_or(Pick::None, Pick::Go)
}

/// The best of the open ways that are meant.
fn best(ways: &[Way], turn: u64, is_meant: impl Fn(&Way) -> bool) -> Option<usize> {
    let n = ways.len();
    let start = (turn % n.max(1) as u64) as usize;
    let open = (0..n).map(|i| (start + i) % n).filter_map(|at| match ways[at].state {
        WayState::Open(load) if is_meant(&ways[at]) => Some((at, load)),
        _ => None,
    });
    let rank = |(at, load): &(usize, usize)| {
        let way = &ways[*at];
        (!way.to_kept, way.side == Side::Parent, !way.end, *load)
    };
    open.min_by_key(rank).map(|(at, _)| at)
}

/// Which way a session's messages for a target go.
#[derive(Clone)]
struct Choice {
    target: Arc<str>,
    /// The neighbour; `None` while only the node is known.
    via: Option<NodeName>,
    /// The way there, as long as that is open.
    hop: Option<Hop>,
    /// The node that handles them, when that is known.
    end: Option<NodeName>,
    /// Where they come from; `None` for a client of this node.
    from: Option<At>,
}

/// Most sessions have one, and a vector that grows by itself would make room for four.
fn for_one() -> Vec<Choice> {
    Vec::with_capacity(1)
}

impl Choice {
    fn tell(&self, session: SessionId) -> Option<handover::Sticky> {
        let from = self.from.as_ref().map(|(side, name)| (*side == Direction::Up, name.clone()));
        let (kind, node, end) = (self.target.to_string(), self.via.clone(), self.end.clone());
        if node.is_none() && end.is_none() {
            return None;
        }
        Some(handover::Sticky { session, kind, node, end, from })
    }
}

/// What is known of a session's choice for a target.
pub(crate) enum Chosen {
    /// This way, and nothing has changed since it was looked at.
    Hop(Hop),
    /// The way has to be looked up.
    Kept(Kept),
}

/// What a session keeps when its way has to be looked up.
#[derive(Default)]
pub(crate) struct Kept {
    /// The neighbour.
    pub(crate) via: Option<NodeName>,
    /// The link to it that was used last.
    pub(crate) link: Option<Link>,
    /// The node that handles the messages.
    pub(crate) end: Option<NodeName>,
}

/// A session whose node has changed: where that must be told.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Moved {
    /// The neighbour that its messages come from.
    pub(crate) from: Option<At>,
    /// The node that it had.
    pub(crate) lost: Option<NodeName>,
}

/// Choices that a successor has not heard of: the last one for each session and target, so there are never more
/// of them than there are choices.
#[derive(Default)]
pub(crate) struct Unheard {
    last: Mutex<FxHashMap<(SessionId, String), handover::Sticky>>,
    some: Notify,
}

impl Unheard {
    fn put(&self, sticky: handover::Sticky) {
        self.last.lock().insert((sticky.session, sticky.kind.clone()), sticky);
        self.some.notify_one();
    }

    /// Waits for some, at most `max`. Cancel-safe.
    pub(crate) async fn next(&self, max: usize) -> Vec<handover::Sticky> {
        loop {
            {
                let mut last = self.last.lock();
                let keys: Vec<_> = last.keys().take(max).cloned().collect();
                let some: Vec<_> = keys.iter().filter_map(|key| last.remove(key)).collect();
                if !some.is_empty() {
                    if !last.is_empty() {
                        self.some.notify_one();
                    }
                    return some;
                }
            }
            self.some.notified().await;
        }
    }
}

/// Which way each session's messages for a target go: chosen once and kept, also while a process on the way is
/// replaced.
#[derive(Default)]
pub(crate) struct Sticky {
    /// A session uses few targets, so a list is faster than a map.
    chosen: Mutex<FxHashMap<SessionId, Vec<Choice>>>,
    /// While this process hands over, its successor hears of every choice.
    heard_by: Mutex<Option<Arc<Unheard>>>,
    /// At the last look, nodes that sessions have were out of reach and might be back.
    misses: AtomicBool,
    /// What was known of the cluster at the last look for those.
    pub(crate) looked_at: AtomicU64,
    /// Sessions of this node that have lost theirs, for the app to be told.
    lost: Mutex<Vec<(SessionId, NodeName)>>,
    pub(crate) lost_one: Notify,
}

impl Sticky {
    /// `known` is what is known of the cluster now.
    pub(crate) fn get(&self, session: SessionId, target: &str, known: u64) -> Option<Chosen> {
        let chosen = self.chosen.lock();
        let choice = chosen.get(&session)?.iter().find(|choice| *choice.target == *target)?;
        match &choice.hop {
            Some(hop) if hop.holds(known) => Some(Chosen::Hop(hop.clone())),
            hop => {
                let link = hop.as_ref().map(|hop| hop.link.clone());
                Some(Chosen::Kept(Kept { via: choice.via.clone(), link, end: choice.end.clone() }))
            }
        }
    }

    /// Keeps a way; `end` when it is known that that node handles the messages. Says who must hear when it is
    /// another one than before.
    pub(crate) fn set(
        &self,
        session: SessionId,
        target: &Arc<str>,
        hop: Hop,
        end: Option<NodeName>,
        from: Option<&At>,
    ) -> Option<Moved> {
        let mut chosen = self.chosen.lock();
        let choices = chosen.entry(session).or_insert_with(for_one);
        let at = choices.iter().position(|choice| choice.target == *target).unwrap_or_else(|| {
            let (target, from) = (target.clone(), from.cloned());
            choices.push(Choice { target, via: None, hop: None, end: None, from });
            choices.len() - 1
        });
        let choice = &mut choices[at];
        choice.via = Some(hop.link.peer().name.clone());
        choice.hop = Some(hop);
        if from.is_some() {
            choice.from = from.cloned();
        }
        let moved = end.and_then(|end| choice.ends_at(end));
        self.tell_successor(choice.tell(session));
        moved
    }

    /// A neighbour says that the session's messages are for that node. Gives the neighbour that they went to, when
    /// they were for another one.
    pub(crate) fn prefer(
        &self,
        session: SessionId,
        target: &str,
        end: NodeName,
        from: &At,
    ) -> Option<NodeName> {
        let mut chosen = self.chosen.lock();
        let choices = chosen.entry(session).or_insert_with(for_one);
        let at = choices.iter().position(|choice| *choice.target == *target);
        let known = at.map(|at| choices.swap_remove(at));
        let (same, other) = match known {
            Some(known) if known.end.as_ref() == Some(&end) => (Some(known), None),
            known => (None, known.and_then(|known| known.via)),
        };
        let new = || Choice { target: target.into(), via: None, hop: None, end: Some(end), from: None };
        let choice = Choice { from: Some(from.clone()), ..same.unwrap_or_else(new) };
        self.tell_successor(choice.tell(session));
        choices.push(choice);
        other
    }

    /// The session was moved to that node. Gives the neighbour that its messages went to.
    pub(crate) fn lead(&self, session: SessionId, target: &Arc<str>, end: NodeName) -> Option<NodeName> {
        let via = self.forget_one(session, target);
        let choice = Choice { target: target.clone(), via: None, hop: None, end: Some(end), from: None };
        self.tell_successor(choice.tell(session));
        self.put(session, choice);
        via
    }

    /// The neighbour that the session's messages go to says which node it was; `None` when they do not go there,
    /// or nothing has changed.
    pub(crate) fn chosen(
        &self,
        session: SessionId,
        target: &str,
        by: &NodeName,
        end: NodeName,
    ) -> Option<Moved> {
        let mut chosen = self.chosen.lock();
        let mut choices = chosen.get_mut(&session)?.iter_mut();
        let choice = choices.find(|choice| *choice.target == *target && choice.via.as_ref() == Some(by))?;
        let moved = choice.ends_at(end);
        self.tell_successor(choice.tell(session));
        moved
    }

    /// The node that a session has, when that is known.
    pub(crate) fn end(&self, session: SessionId, target: &str) -> Option<NodeName> {
        let chosen = self.chosen.lock();
        chosen.get(&session)?.iter().find(|choice| *choice.target == *target)?.end.clone()
    }

    /// How many sessions have a choice.
    pub(crate) fn len(&self) -> usize {
        self.chosen.lock().len()
    }

    /// The net nodes that sessions with a choice are of.
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
        chosen.get(&session).is_some_and(|all| all.iter().any(|choice| choice.via.as_ref() == Some(name)))
    }

    /// The session's messages for a target come here no longer; gives the neighbour that they went to.
    pub(crate) fn forget_one(&self, session: SessionId, target: &str) -> Option<NodeName> {
        let mut chosen = self.chosen.lock();
        let choices = chosen.get_mut(&session)?;
        let at = choices.iter().position(|choice| *choice.target == *target)?;
        let via = choices.swap_remove(at).via;
        if choices.is_empty() {
            chosen.remove(&session);
        }
        via
    }

    /// Takes over a choice of this node's predecessor.
    pub(crate) fn take_over(&self, sticky: handover::Sticky) {
        let handover::Sticky { session, kind, node, end, from } = sticky;
        let direction = |up| if up { Direction::Up } else { Direction::Down };
        let from = from.map(|(up, name)| (direction(up), name));
        self.put(session, Choice { target: kind.into(), via: node, hop: None, end, from });
    }

    fn put(&self, session: SessionId, choice: Choice) {
        let mut chosen = self.chosen.lock();
        let choices = chosen.entry(session).or_insert_with(for_one);
        choices.retain(|known| known.target != choice.target);
        choices.push(choice);
    }

    fn tell_successor(&self, sticky: Option<handover::Sticky>) {
        if let (Some(successor), Some(sticky)) = (&*self.heard_by.lock(), sticky) {
            successor.put(sticky);
        }
    }

    /// Forgets a session; gives the neighbours that it used, to tell them.
    pub(crate) fn forget(&self, session: SessionId) -> Vec<NodeName> {
        let choices = self.chosen.lock().remove(&session).unwrap_or_default();
        choices.into_iter().filter_map(|choice| choice.via).collect()
    }

    /// Forgets a session that goes on in another process; gives what that one must know.
    pub(crate) fn leave(&self, session: SessionId) -> Vec<handover::Sticky> {
        let choices = self.chosen.lock().remove(&session).unwrap_or_default();
        choices.iter().filter_map(|choice| choice.tell(session)).collect()
    }

    /// Nobody hears of choices any more.
    pub(crate) fn keep(&self) {
        *self.heard_by.lock() = None;
    }

    /// Everything that is known now; what is chosen later goes to `successor` as well.
    pub(crate) fn hand_over(&self, successor: Arc<Unheard>) -> Vec<handover::Sticky> {
        // Before the list is made: what is chosen between is told twice, and not never.
        *self.heard_by.lock() = Some(successor);
        let chosen = self.chosen.lock();
        let of = |(session, choices): (&SessionId, &Vec<Choice>)| {
            choices.iter().filter_map(|choice| choice.tell(*session)).collect::<Vec<_>>()
        };
        chosen.iter().flat_map(of).collect()
    }

    /// Forgets the choices whose node is out of reach and will not be back soon; those sessions have lost it.
    pub(crate) fn forget_lost(
        &self,
        is_reached: impl Fn(&NodeName) -> bool,
        may_be_back: impl Fn(&NodeName) -> bool,
    ) {
        let mut misses = false;
        self.chosen.lock().retain(|session, choices| {
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

    /// Whether a node that sessions have was out of reach at the last look.
    pub(crate) fn misses(&self) -> bool {
        self.misses.load(Ordering::Relaxed)
    }

    /// The app of a client's node will be told.
    pub(crate) fn lose(&self, session: SessionId, node: NodeName) {
        self.lost.lock().push((session, node));
        self.lost_one.notify_one();
    }

    /// The sessions that have lost their node since the last call.
    pub(crate) fn take_lost(&self) -> Vec<(SessionId, NodeName)> {
        std::mem::take(&mut self.lost.lock())
    }
}

impl Choice {
    fn ends_at(&mut self, end: NodeName) -> Option<Moved> {
        if self.end.as_ref() == Some(&end) {
            return None;
        }
        let lost = self.end.replace(end);
        Some(Moved { from: self.from.clone(), lost })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn way(text: &str) -> Way {
        // `child game.1 end open 3`, `parent gate leads soon`.
        let words: Vec<&str> = text.split(' ').collect();
        let state = match words.iter().position(|word| *word == "open") {
            Some(at) => WayState::Open(words[at + 1].parse().unwrap()),
            None if words.contains(&"soon") => WayState::Soon,
            None => WayState::Missed,
        };
        Way {
            side: if words[0] == "child" { Side::Child } else { Side::Parent },
            name: NodeName::try_from(words[1]).unwrap(),
            state,
            end: words.contains(&"end"),
            leads: words.contains(&"leads"),
            to_kept: words.contains(&"kept"),
        }
    }

    #[track_caller]
    fn picks(ways: &[&str], kept: &str, expected: &str) {
        let ways: Vec<Way> = ways.iter().map(|text| way(text)).collect();
        let kept = NodeName::try_from(kept).ok();
        let name = |at: usize| ways[at].name.to_string();
        let picked = match pick(&ways, kept.as_ref(), 0) {
            Pick::Go(at) => name(at),
            Pick::Leave(at) => format!("leave for {}", name(at)),
            Pick::Wait => "wait".into(),
            Pick::None => "none".into(),
        };
        assert_eq!(picked, expected, "{ways:?}, kept {kept:?}");
    }

    #[tokio::test]
    async fn a_successor_hears_the_last_choice_of_each_session_in_pieces_and_waits_for_the_next() {
        let unheard = Unheard::default();
        let choice = |session, node: &str| handover::Sticky {
            session: SessionId(session),
            kind: "game".into(),
            node: Some(NodeName::try_from(node).unwrap()),
            end: None,
            from: None,
        };
        for node in ["a", "b", "c"] {
            (1..=3).for_each(|session| unheard.put(choice(session, node)));
        }
        let mut heard = unheard.next(2).await;
        heard.extend(unheard.next(2).await);
        heard.sort_by_key(|sticky| sticky.session);
        assert_eq!(heard, [choice(1, "c"), choice(2, "c"), choice(3, "c")]);
        let (next, ()) = tokio::join!(unheard.next(2), async {
            tokio::task::yield_now().await;
            unheard.put(choice(1, "d"));
        });
        assert_eq!(next, [choice(1, "d")]);
    }

    #[test]
    fn where_a_session_was_moved_is_told_before_it_has_said_anything_there() {
        let (sticky, session, game) = (Sticky::default(), SessionId(7), Arc::<str>::from("game"));
        let hall = NodeName::try_from("hall.2").unwrap();
        sticky.lead(session, &game, hall.clone());
        let told = sticky.hand_over(Arc::default());
        assert_eq!((told.len(), &told[0].node, &told[0].end), (1, &None, &Some(hall.clone())));
        let successor = Sticky::default();
        told.into_iter().for_each(|sticky| successor.take_over(sticky));
        assert_eq!(successor.end(session, "game"), Some(hall));
    }

    #[test]
    fn who_was_used_for_another_node_is_given_back_to_be_told_and_who_is_right_stays() {
        let (sticky, session) = (Sticky::default(), SessionId(7));
        let name = |name: &str| NodeName::try_from(name).unwrap();
        let net = (Direction::Up, name("net"));
        let kept = handover::Sticky {
            session,
            kind: "hall".into(),
            node: Some(name("gate.1")),
            end: Some(name("hall.1")),
            from: None,
        };
        sticky.take_over(kept);
        assert_eq!(sticky.prefer(session, "hall", name("hall.1"), &net), None);
        assert!(sticky.goes_to(session, &name("gate.1")), "nothing has changed");
        assert_eq!(sticky.prefer(session, "hall", name("hall.2"), &net), Some(name("gate.1")));
        assert!(!sticky.goes_to(session, &name("gate.1")));
        assert_eq!(sticky.end(session, "hall"), Some(name("hall.2")));
        assert_eq!((sticky.nets(), sticky.of(session.node())), ([session.node()].into(), vec![session]));
    }

    #[test]
    fn a_new_session_takes_the_nearest_and_of_those_the_least_loaded() {
        picks(&["child a end open 3", "child b end open 2", "parent p end open 0"], "", "b");
        picks(&["child a leads open 0", "child b end open 9"], "", "b");
        picks(&["parent p leads open 1", "child a leads open 2"], "", "a");
        picks(&["parent p leads open 1", "parent q leads open 0"], "", "q");
        picks(&[], "", "none");
    }

    #[test]
    fn where_nobody_is_now_one_that_may_be_back_is_waited_for_or_asked() {
        picks(&["child a end missed"], "", "wait");
        picks(&["child a end missed", "parent p leads open 0"], "", "wait");
        // Nobody lives behind it now; it knows whether somebody is to come.
        picks(&["parent p open 0"], "", "p");
        picks(&["child a open 0", "parent p leads open 0"], "", "p");
    }

    #[test]
    fn a_session_keeps_its_way_as_long_as_that_leads_somewhere() {
        picks(&["child a end open 9", "child b end open 0"], "a", "a");
        picks(&["parent p leads open 9", "parent q leads open 0"], "p", "p");
        picks(&["child a end soon", "child b end open 0"], "a", "wait");
        // It has ended: another one at once, or it is waited for.
        picks(&["child a end missed", "child b end open 0"], "a", "b");
        picks(&["child a end missed"], "a", "wait");
        // Nothing lives behind it any more.
        picks(&["parent p open 0", "parent q leads open 5"], "p", "leave for q");
        picks(&["parent p open 0", "parent q open 0"], "p", "p");
    }

    #[test]
    fn a_node_that_is_known_from_elsewhere_only_is_waited_for_before_another_one_is_chosen() {
        picks(&["child a kept missed", "child b end open 0"], "", "wait");
        picks(&["child a kept end open 9", "child b end open 0"], "", "a");
        picks(&["child b end open 0"], "", "b");
    }

    #[test]
    fn the_node_that_a_session_has_is_reached_another_way_when_its_gate_is_gone() {
        picks(&["parent q leads open 0", "parent r leads kept open 7"], "p", "r");
        picks(&["parent p missed", "parent q leads open 0", "parent r leads kept open 7"], "p", "r");
        picks(&["child a leads open 0", "parent r leads kept open 7"], "", "r");
        picks(&["child a leads open 0", "parent r leads kept soon"], "", "wait");
    }

    #[test]
    fn a_node_out_of_reach_is_lost_once_when_its_time_is_over() {
        let (sticky, name) = (Sticky::default(), |name: &str| NodeName::try_from(name).unwrap());
        let at = (Direction::Down, name("net"));
        sticky.prefer(SessionId(1), "game", name("game.1"), &at);
        sticky.prefer(SessionId(2), "game", name("game.2"), &at);
        let reached = |node: &NodeName| *node == *"game.2";
        sticky.forget_lost(reached, |_| true);
        assert!(sticky.misses() && sticky.take_lost().is_empty());
        sticky.forget_lost(|_| true, |_| false);
        assert!(!sticky.misses() && sticky.take_lost().is_empty());
        sticky.forget_lost(reached, |_| false);
        assert!(!sticky.misses());
        assert_eq!(sticky.take_lost(), [(SessionId(1), name("game.1"))]);
        sticky.forget_lost(reached, |_| false);
        assert!(sticky.take_lost().is_empty());
        assert!(
            sticky.get(SessionId(1), "game", 0).is_none() && sticky.get(SessionId(2), "game", 0).is_some()
        );
    }
}
