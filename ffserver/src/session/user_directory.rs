//! The user directory: which session has which user. Every net node knows its own users and asks the others. No central
//! directory, so no single point of loss. Claims in, evicted sessions out; pure but for its lock.
//!
//! ```text
//! a login:   begin ──▶ the others are asked ──▶ settle, unless somebody's claim won meanwhile
//! a link is back:  each side tells what it has taken since, and both come to the same result
//! ```
//!
//! Of two claims of one user exactly one wins, and all who look at both see the same: the later one with
//! [`SecondLogin::KickOld`], the earlier one with [`SecondLogin::RefuseNew`]. Stamps are times in milliseconds, moved
//! on by everything that is heard, so that what was caused by a claim is always later.

use std::collections::BTreeMap;

use ffconfig::SecondLogin;
use ffproto::relay::Claim;
use ffproto::{Incarnation, NodeNumber, SessionId};
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};

/// The users of a net node's sessions.
#[derive(Default)]
pub(crate) struct UserDirectory {
    policy: SecondLogin,
    state: Mutex<DirectoryState>,
}

#[derive(Default)]
struct DirectoryState {
    owners: FxHashMap<String, UserOwner>,
    /// The last stamp that was given or received.
    last: u64,
    /// Sessions on their way here from the predecessor that have lost their user meanwhile.
    lost: FxHashSet<SessionId>,
    /// The other net nodes, as they are reached now.
    reached: BTreeMap<NodeNumber, Incarnation>,
    /// The net nodes that have not been told of the claims from a stamp on.
    owed: BTreeMap<NodeNumber, u64>,
}

/// The session that has, or wants, a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct UserOwner {
    session: SessionId,
    stamp: u64,
    held: bool,
    /// Whether the session is on its way here from the predecessor.
    expected: bool,
}

impl UserOwner {
    fn of(session: SessionId, stamp: u64, held: bool) -> Self {
        Self { session, stamp, held, expected: false }
    }
}

/// The beginning of a claim, and what it came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClaimStart {
    /// The session has the user already.
    Already,
    /// Another session here has the user, and keeps it.
    Taken,
    /// The other net nodes must be asked; `loser` has lost the user to this claim.
    Claims {
        /// The claim's stamp.
        stamp: u64,
        /// The session of this node that has lost the user.
        loser: Option<SessionId>,
    },
}

/// The judgement over other nodes' claims.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// The sessions of those claims that lose.
    pub(crate) theirs: Vec<SessionId>,
    /// The sessions of this node that had a user, and have lost it.
    pub(crate) ours: Vec<SessionId>,
}

impl UserDirectory {
    pub(crate) fn new(policy: SecondLogin) -> Self {
        Self { policy, state: Mutex::default() }
    }

    /// The policy for two logins of a user.
    pub(crate) fn policy(&self) -> SecondLogin {
        self.policy
    }

    /// Begins a claim of a session for a user.
    pub(crate) fn begin(&self, user: &str, session: SessionId, now_ms: u64) -> ClaimStart {
        let mut state = self.state.lock();
        let before = state.owners.get(user).copied();
        match before {
            Some(owner) if owner.session == session && owner.held => return ClaimStart::Already,
            Some(owner) if owner.session != session && self.policy == SecondLogin::RefuseNew => {
                return ClaimStart::Taken;
            }
            _ => {}
        }
        state.last = now_ms.max(state.last + 1);
        let stamp = state.last;
        state.owners.insert(user.to_owned(), UserOwner::of(session, stamp, false));
        let loser = before.filter(|owner| owner.held && owner.session != session).map(|owner| owner.session);
        ClaimStart::Claims { stamp, loser }
    }

    /// Settles a claim to which no node objects: the session has the user. False when another claim has won meanwhile.
    pub(crate) fn settle(&self, user: &str, session: SessionId) -> bool {
        match self.state.lock().owners.get_mut(user) {
            Some(owner) if owner.session == session => {
                owner.held = true;
                true
            }
            _ => false,
        }
    }

    /// Frees a user that the session has no longer. Returns the stamp of its claim, if it had one.
    pub(crate) fn free(&self, user: &str, session: SessionId) -> Option<u64> {
        let mut state = self.state.lock();
        let owner = state.owners.get(user).copied().filter(|owner| owner.session == session)?;
        state.owners.remove(user);
        Some(owner.stamp)
    }

    /// Judges other nodes' claims.
    pub(crate) fn judge(&self, claims: &[Claim], is_here: impl Fn(SessionId) -> bool) -> Judgement {
        let mut state = self.state.lock();
        let mut judged = Judgement::default();
        for claim in claims {
            state.last = state.last.max(claim.stamp);
            let Some(ours) = state.owners.get(&claim.user).copied() else { continue };
            let theirs = UserOwner::of(claim.session, claim.stamp, claim.held);
            if !self.wins(theirs, ours) {
                judged.theirs.push(theirs.session);
                continue;
            }
            state.owners.remove(&claim.user);
            // A claim that has only begun finds out when it settles.
            if ours.held && is_here(ours.session) {
                judged.ours.push(ours.session);
            } else if ours.held {
                state.lost.insert(ours.session);
            }
        }
        judged
    }

    /// Whether `a` wins against `b`. Of two owners never both win.
    fn wins(&self, a: UserOwner, b: UserOwner) -> bool {
        let (first, second) = ((a.stamp, a.session), (b.stamp, b.session));
        match self.policy {
            SecondLogin::KickOld => first > second,
            SecondLogin::RefuseNew if a.held != b.held => a.held,
            SecondLogin::RefuseNew => first < second,
        }
    }

    /// Notes that a session that is on its way here has lost its user.
    pub(crate) fn note_lost(&self, session: SessionId) {
        self.state.lock().lost.insert(session);
    }

    /// Takes the sessions that have lost their user on their way here, and do not come.
    pub(crate) fn take_lost(&self, stays: impl Fn(SessionId) -> bool) -> Vec<SessionId> {
        let mut state = self.state.lock();
        let taken: Vec<_> = state.lost.iter().copied().filter(|session| stays(*session)).collect();
        state.lost.retain(|session| !taken.contains(session));
        taken
    }

    /// Notes the claim of a session that is on its way here from the predecessor.
    pub(crate) fn note_expected(&self, claim: Claim) {
        let mut state = self.state.lock();
        state.last = state.last.max(claim.stamp);
        let Claim { session, stamp, held, user } = claim;
        state
            .owners
            .entry(user)
            .or_insert(UserOwner { expected: true, ..UserOwner::of(session, stamp, held) });
    }

    /// Notes that a session has come with its user. Returns the session of this node that has lost the user: that one,
    /// or another one. When the session was not expected with that user, the other nodes may not know of its claim:
    /// they are owed it.
    pub(crate) fn arrived(&self, user: &str, session: SessionId, stamp: u64) -> Option<SessionId> {
        let mut state = self.state.lock();
        state.last = state.last.max(stamp);
        if state.lost.remove(&session) {
            return Some(session);
        }
        let new = UserOwner::of(session, stamp, true);
        match state.owners.get(user).copied() {
            Some(owner) if owner.session != session && self.wins(owner, new) => Some(session),
            other => {
                state.owners.insert(user.to_owned(), new);
                if other.is_none_or(|owner| owner.session != session) {
                    let others: Vec<NodeNumber> = state.reached.keys().copied().collect();
                    others.into_iter().for_each(|number| state.owe(number, stamp));
                }
                // A claim that has only begun finds out when it settles.
                other.filter(|owner| owner.session != session && owner.held).map(|owner| owner.session)
            }
        }
    }

    /// Notes that no session comes any more: those that have not come have ended on their way, or have another user
    /// now.
    pub(crate) fn all_arrived(&self) {
        let mut state = self.state.lock();
        state.lost.clear();
        state.owners.retain(|_, owner| !owner.expected);
    }

    /// The claims of all users that sessions here have, for a successor of this process.
    pub(crate) fn hand_over(&self) -> Vec<Claim> {
        self.state.lock().claims_of(|owner| owner.held)
    }

    /// Notes which other net nodes are reached now. One that was not reached for a while is owed what was claimed
    /// meanwhile; of two that meet for the first time, the process that was started later (`me`) tells everything.
    pub(crate) fn reached(&self, me: Incarnation, now: BTreeMap<NodeNumber, Incarnation>) {
        let mut state = self.state.lock();
        let next = state.last + 1;
        let before = std::mem::replace(&mut state.reached, now.clone());
        for number in before.keys().filter(|number| !now.contains_key(number)) {
            state.owed.entry(*number).or_insert(next);
        }
        for (number, incarnation) in now {
            // A node that is known is owed what was noted when it was lost.
            if !before.contains_key(&number) && me > incarnation {
                state.owed.entry(number).or_insert(0);
            }
        }
    }

    /// Notes that a node could not be told of the claims from a stamp on.
    pub(crate) fn owe(&self, number: NodeNumber, stamp: u64) {
        self.state.lock().owe(number, stamp);
    }

    /// Takes what the reached nodes are owed: the node, the stamp from which on, the claims. They count as told.
    pub(crate) fn take_owed(&self) -> Vec<(NodeNumber, u64, Vec<Claim>)> {
        let mut state = self.state.lock();
        let due: Vec<(NodeNumber, u64)> = state
            .owed
            .iter()
            .filter(|(n, _)| state.reached.contains_key(n))
            .map(|(n, from)| (*n, *from))
            .collect();
        due.into_iter()
            .map(|(number, from)| {
                state.owed.remove(&number);
                (number, from, state.claims_of(|owner| owner.stamp >= from))
            })
            .collect()
    }

    /// The other net nodes that are reached now.
    pub(crate) fn others(&self) -> Vec<NodeNumber> {
        self.state.lock().reached.keys().copied().collect()
    }
}

impl DirectoryState {
    fn owe(&mut self, number: NodeNumber, stamp: u64) {
        let owed = self.owed.entry(number).or_insert(stamp);
        *owed = (*owed).min(stamp);
    }

    fn claims_of(&self, which: impl Fn(&UserOwner) -> bool) -> Vec<Claim> {
        let meant = self.owners.iter().filter(|(_, owner)| which(owner));
        let claim = |(user, owner): (&String, &UserOwner)| {
            let UserOwner { session, stamp, held, .. } = *owner;
            Claim { session, stamp, held, user: user.clone() }
        };
        meant.map(claim).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    /// Session `n` of node `node`.
    fn session(node: u16, n: u64) -> SessionId {
        SessionId(u64::from(node) << 52 | n)
    }

    fn number_of_claims(begun: ClaimStart) -> u64 {
        match begun {
            ClaimStart::Claims { stamp, .. } => stamp,
            other => panic!("{other:?}"),
        }
    }

    fn claim(node: u16, n: u64, stamp: u64, held: bool) -> Claim {
        Claim { session: session(node, n), stamp, held, user: "ann".into() }
    }

    #[test]
    fn of_two_logins_on_one_node_the_older_is_kicked_or_the_newer_refused() {
        let users = UserDirectory::new(SecondLogin::KickOld);
        assert_eq!(number_of_claims(users.begin("ann", session(1, 1), 100)), 100);
        assert!(users.settle("ann", session(1, 1)));
        assert_eq!(users.begin("ann", session(1, 1), 100), ClaimStart::Already);
        let second = users.begin("ann", session(1, 2), 100);
        assert_eq!(second, ClaimStart::Claims { stamp: 101, loser: Some(session(1, 1)) });
        assert_eq!(users.free("ann", session(1, 1)), None, "it has it no longer");
        // A third one before the second has settled.
        assert_eq!(users.begin("ann", session(1, 3), 100), ClaimStart::Claims { stamp: 102, loser: None });
        assert!(!users.settle("ann", session(1, 2)) && users.settle("ann", session(1, 3)));

        let users = UserDirectory::new(SecondLogin::RefuseNew);
        number_of_claims(users.begin("ann", session(1, 1), 100));
        assert_eq!(users.begin("ann", session(1, 2), 100), ClaimStart::Taken);
        assert!(users.settle("ann", session(1, 1)));
        assert_eq!(users.free("ann", session(1, 1)), Some(100));
        number_of_claims(users.begin("ann", session(1, 2), 100));
    }

    #[test]
    fn what_is_heard_moves_the_clock_on() {
        let users = UserDirectory::new(SecondLogin::KickOld);
        assert_eq!(users.judge(&[claim(2, 1, 9000, true)], |_| true), Judgement::default());
        assert_eq!(number_of_claims(users.begin("ann", session(1, 1), 100)), 9001);
    }

    #[test]
    fn who_has_lost_on_its_way_from_the_old_process_is_kicked_when_it_arrives() {
        for (policy, stamp) in [(SecondLogin::KickOld, 200), (SecondLogin::RefuseNew, 50)] {
            let users = UserDirectory::new(policy);
            users.note_expected(claim(1, 1, 100, true));
            let judged = users.judge(&[claim(2, 1, stamp, true)], |_| false);
            assert_eq!(judged, Judgement::default(), "it is not here yet");
            assert_eq!(users.arrived("ann", session(1, 1), 100), Some(session(1, 1)));
        }
        let users = UserDirectory::new(SecondLogin::RefuseNew);
        users.note_expected(claim(1, 1, 100, true));
        assert_eq!(users.begin("ann", session(1, 2), 100), ClaimStart::Taken);
        users.all_arrived();
        number_of_claims(users.begin("ann", session(1, 2), 100));
    }

    #[test]
    fn who_arrives_with_a_user_that_was_not_expected_is_told_of_and_a_name_that_it_left_is_free() {
        let users = UserDirectory::new(SecondLogin::RefuseNew);
        users.reached(Incarnation(1), [(NodeNumber(2), Incarnation(2))].into());
        assert!(users.take_owed().is_empty());
        users.note_expected(claim(1, 1, 100, true));
        users.note_expected(Claim { user: "bob".into(), ..claim(1, 2, 101, true) });
        assert_eq!(users.arrived("ann", session(1, 1), 100), None);
        assert!(users.take_owed().is_empty(), "its claim is known everywhere");
        // It had another name when the predecessor told of it.
        assert_eq!(users.arrived("eve", session(1, 2), 150), None);
        let owed = users.take_owed();
        assert_eq!((owed.len(), owed[0].0, owed[0].1), (1, NodeNumber(2), 150));
        assert_eq!(owed[0].2.iter().map(|claim| claim.user.as_str()).collect::<Vec<_>>(), ["eve"]);
        assert_eq!(users.begin("bob", session(1, 3), 200), ClaimStart::Taken, "it may still come");
        users.all_arrived();
        number_of_claims(users.begin("bob", session(1, 3), 200));
        assert_eq!(users.begin("ann", session(1, 4), 200), ClaimStart::Taken);
    }

    #[test]
    fn a_node_is_told_what_it_has_missed_and_the_younger_of_two_begins() {
        let (old, young) = (Incarnation(1), Incarnation(2));
        let users = UserDirectory::new(SecondLogin::KickOld);
        number_of_claims(users.begin("ann", session(1, 1), 100));
        users.reached(young, [(NodeNumber(2), old)].into());
        let owed = users.take_owed();
        assert_eq!((owed.len(), owed[0].0, owed[0].2.len()), (1, NodeNumber(2), 1));
        assert!(users.take_owed().is_empty());
        users.reached(young, BTreeMap::new());
        number_of_claims(users.begin("bob", session(1, 2), 100));
        assert!(users.take_owed().is_empty(), "it is not reached");
        users.reached(young, [(NodeNumber(2), old)].into());
        let owed = users.take_owed();
        assert_eq!(owed[0].2.iter().map(|claim| claim.user.as_str()).collect::<Vec<_>>(), ["bob"]);
        users.owe(NodeNumber(2), owed[0].1);
        assert_eq!(users.take_owed().len(), 1, "it could not be told, and is told again");

        let users = UserDirectory::new(SecondLogin::KickOld);
        number_of_claims(users.begin("ann", session(1, 1), 100));
        users.reached(old, [(NodeNumber(2), young)].into());
        assert!(users.take_owed().is_empty(), "the other begins");
    }

    /// Net nodes whose messages to each other wait in queues, which a seed empties in any order, and whose links
    /// are cut now and then. Every session wants the same user.
    struct World {
        nodes: BTreeMap<u16, UserDirectory>,
        calls: VecDeque<(u16, u16, Vec<Claim>)>,
        /// The claims that have begun: by session, how many answers are missing, and whether one was bad.
        asked: BTreeMap<SessionId, (usize, bool)>,
        open: FxHashSet<SessionId>,
        cut: bool,
        seed: u64,
    }

    impl World {
        fn random(&mut self, n: u64) -> u64 {
            self.seed =
                self.seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (self.seed >> 33) % n
        }

        fn link(&mut self, cut: bool) {
            self.cut = cut;
            for (me, users) in &self.nodes {
                let others = self.nodes.keys().filter(|other| !cut && *other != me);
                let others = others.map(|other| (NodeNumber(*other), Incarnation(u64::from(*other))));
                users.reached(Incarnation(u64::from(*me)), others.collect());
            }
            self.tell_owed();
        }

        fn tell_owed(&mut self) {
            for (me, users) in &self.nodes {
                for (to, _, claims) in users.take_owed() {
                    self.calls.push_back((*me, to.0, claims));
                }
            }
        }

        fn log_in(&mut self, node: u16, n: u64) {
            let id = session(node, n);
            self.open.insert(id);
            match self.nodes[&node].begin("ann", id, n) {
                ClaimStart::Claims { stamp, loser } => {
                    self.open.retain(|open| Some(*open) != loser);
                    let others = self.nodes[&node].others();
                    self.asked.insert(id, (others.len(), false));
                    let claim = Claim { session: id, stamp, held: false, user: "ann".into() };
                    let calls = others.into_iter().map(|to| (node, to.0, vec![claim.clone()]));
                    self.calls.extend(calls);
                    self.settle(id);
                }
                _ => drop(self.open.remove(&id)),
            }
        }

        fn settle(&mut self, id: SessionId) {
            let Some((0, bad)) = self.asked.get(&id).copied() else { return };
            self.asked.remove(&id);
            let users = &self.nodes[&id.node().0];
            if bad || !users.settle("ann", id) {
                users.free("ann", id);
                self.open.remove(&id);
            }
        }

        /// One call arrives and is answered, or is lost.
        fn step(&mut self) {
            let n = self.calls.len() as u64;
            let at = self.random(n.max(1)) as usize;
            let Some((from, to, claims)) = self.calls.remove(at) else { return };
            let lost = self.cut;
            let losers = if lost {
                let stamp = claims.iter().map(|claim| claim.stamp).min().unwrap_or_default();
                self.nodes[&from].owe(NodeNumber(to), stamp);
                Vec::new()
            } else {
                let judged = self.nodes[&to].judge(&claims, |_| true);
                self.open.retain(|open| !judged.ours.contains(open));
                judged.theirs
            };
            for claim in claims {
                let has_lost = losers.contains(&claim.session);
                match self.asked.get_mut(&claim.session) {
                    Some((missing, bad)) if !claim.held => {
                        *missing -= 1;
                        *bad |= has_lost;
                    }
                    _ if has_lost => {
                        self.nodes[&from].free("ann", claim.session);
                        self.open.remove(&claim.session);
                    }
                    _ => {}
                }
                self.settle(claim.session);
            }
        }
    }

    #[test]
    fn whatever_the_order_and_whatever_is_lost_one_session_has_the_user_in_the_end() {
        for policy in [SecondLogin::KickOld, SecondLogin::RefuseNew] {
            for seed in 0..2000 {
                let nodes = (1..=3).map(|node| (node, UserDirectory::new(policy))).collect();
                let (calls, asked, open) = (VecDeque::new(), BTreeMap::new(), FxHashSet::default());
                let mut world = World { nodes, calls, asked, open, cut: false, seed };
                world.link(seed % 3 == 0);
                for n in 1..=6 {
                    let node = world.random(3) as u16 + 1;
                    world.log_in(node, n);
                    for _ in 0..world.random(4) {
                        world.step();
                    }
                    if world.random(4) == 0 {
                        let cut = !world.cut;
                        world.link(cut);
                    }
                }
                world.link(false);
                while !world.calls.is_empty() {
                    world.step();
                    world.tell_owed();
                }
                let holders = world.nodes.values().flat_map(UserDirectory::hand_over).count();
                assert_eq!((world.open.len(), holders), (1, 1), "{policy:?} seed {seed}: {:?}", world.open);
            }
        }
    }
}
