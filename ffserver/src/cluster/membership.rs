//! Membership: which nodes of the cluster are reached now, over which link, and which have left.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use ffnet::Link;
use ffproto::relay::{REACH, ReachChange, Reachable};
use ffproto::{Incarnation, NodeName, NodeNumber, SessionId};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::cluster::found::Snapshot;
use crate::cluster::payload::encode;
use crate::cluster::reach_rules::{NumberBook, NumberHolders, ReachRules};
use crate::cluster::reachability::{NodeSet, ReachNotice, Reachability};
use crate::cluster::side::{PeerKey, Side};

/// The membership of the cluster as one node sees it.
#[derive(Default)]
pub(crate) struct Membership {
    table: Mutex<MembershipTable>,
    /// What can be true of what neighbours say.
    rules: ReachRules,
    /// The count of the table's changes: what was looked up at the same count need not be looked up again.
    changes: AtomicU64,
    /// Rings when other nodes may be reached than before.
    reached: watch::Sender<()>,
    succeeds: AtomicBool,
    /// What discovery shows.
    found: watch::Sender<Snapshot>,
}

#[derive(Default)]
struct MembershipTable {
    reach: Reachability,
    /// The links by neighbour: several while its process is being replaced, of which the last is used.
    links: BTreeMap<PeerKey, Vec<Linked>>,
    /// Net nodes with sessions here that cannot be reached, and since when.
    lost: BTreeMap<NodeNumber, Instant>,
    /// Nodes that were reached before, with their kind, and since when they are not.
    left: BTreeMap<NodeName, (String, Instant)>,
    /// Nodes that discovery has taken away, with the newest incarnation that it had shown: nobody waits for them. Their
    /// number is bounded by that of node numbers, which are never given again.
    withdrawn: BTreeMap<NodeName, Incarnation>,
    /// The start of this process's own looks.
    begun: Option<Instant>,
    numbers: NumberBook,
}

/// How long a node that has left is remembered: longer than anybody waits for one.
const LEFT_KNOWN: Duration = Duration::from_secs(60);

impl MembershipTable {
    /// Notes which of the candidates are reached no more.
    fn note_left(&mut self, candidates: Vec<Reachable>, now: Instant) {
        self.left.retain(|_, (_, since)| now.duration_since(*since) < LEFT_KNOWN);
        let awaited =
            |node: &Reachable| self.withdrawn.get(&node.name).is_none_or(|last| *last < node.incarnation);
        let gone = |node: &Reachable| self.reach.other(node.number).is_none();
        for node in candidates.into_iter().filter(|node| gone(node) && awaited(node)) {
            self.left.insert(node.name, (node.kind, now));
        }
    }

    fn link(&self, at: &PeerKey) -> Option<&Link> {
        self.links.get(at)?.last().map(|linked| &linked.link)
    }
}

struct Linked {
    link: Link,
    /// What the neighbour has told over this link. A process that is replaced may still send what it had, when its
    /// successor has told less.
    reach: LinkReach,
    /// The nodes that the neighbour has told of and that are not believed, a few of them: each is logged once.
    disbelieved: BTreeSet<NodeName>,
}

/// How many nodes that are not believed are remembered of a link, so that each is logged once.
const DISBELIEVED_MAX: usize = 16;

/// What a neighbour has said of a node, and is not believed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Disbelieved {
    pub(crate) node: NodeName,
    pub(crate) number: NodeNumber,
    /// The name that has the number; `None` when the neighbour cannot lead to the node.
    pub(crate) owner: Option<NodeName>,
    /// Whether it is to be logged.
    pub(crate) is_news: bool,
}

/// The nodes that a neighbour reaches, as it has told over one link, and those that it reached before.
#[derive(Default)]
struct LinkReach {
    now: NodeSet,
    /// Since when it does not reach them. What they have sent may still be on its way: a neighbour's successor tells less
    /// than its predecessor until its own neighbours have come, and the predecessor still passes on what it has.
    before: BTreeMap<NodeNumber, (Reachable, Instant)>,
}

impl LinkReach {
    fn change(&mut self, change: &ReachChange, now: Instant) {
        let taken_back: Vec<NodeNumber> =
            if change.all { self.now.keys().copied().collect() } else { change.remove.clone() };
        let reached: Vec<Reachable> =
            taken_back.iter().filter_map(|number| self.now.get(number).cloned()).collect();
        change.apply(&mut self.now);
        self.before.retain(|_, (_, since)| now.duration_since(*since) < LEFT_KNOWN);
        let gone = reached.into_iter().filter(|node| !self.now.contains_key(&node.number));
        self.before.extend(gone.map(|node| (node.number, (node, now))));
    }

    /// The node of a number, if something that it has sent may come on this link.
    fn bringing_from(&self, number: NodeNumber, now: Instant) -> Option<&Reachable> {
        let lately = |(_, since): &&(Reachable, Instant)| now.duration_since(*since) < LEFT_KNOWN;
        let before = self.before.get(&number).filter(lately).map(|(node, _)| node);
        self.now.get(&number).or(before)
    }
}

/// The net nodes whose replicas here must be looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct ReplicaReview {
    /// Reached net nodes: their sessions before `since` have ended with an earlier incarnation.
    pub(crate) reached: Vec<(NodeNumber, SessionId)>,
    /// Net nodes that are given up.
    pub(crate) lost: Vec<NodeNumber>,
}

impl Membership {
    pub(crate) fn new(rules: ReachRules) -> Self {
        Self { rules, ..Self::default() }
    }

    /// Gives the membership this node's own entry, once the master has given a number; again after every reconnect to
    /// the master.
    pub(crate) fn set_me(&self, me: Reachable) {
        let mut table = self.table.lock();
        if table.reach.me().is_none() {
            table.begun = Some(Instant::now());
            let tell = table.reach.set_me(me);
            self.tell(&table, tell);
        }
    }

    /// Notes that this process is a successor: the predecessor's sessions will come.
    pub(crate) fn succeed(&self) {
        self.succeeds.store(true, Ordering::Relaxed);
        let mut table = self.table.lock();
        if let Some(mut me) = table.reach.me().cloned() {
            me.since = self.since(me.number, me.incarnation);
            let tell = table.reach.set_me(me);
            self.tell(&table, tell);
        }
    }

    /// The first session that this node may have.
    pub(crate) fn since(&self, number: NodeNumber, incarnation: Incarnation) -> SessionId {
        let succeeds = self.succeeds.load(Ordering::Relaxed);
        SessionId::first(number, if succeeds { Incarnation(0) } else { incarnation })
    }

    /// What discovery shows of the cluster.
    pub(crate) fn found(&self) -> &watch::Sender<Snapshot> {
        &self.found
    }

    /// Notes that discovery shows a node: it is waited for as every other, and may link.
    pub(crate) fn show(&self, name: &NodeName) {
        self.table.lock().withdrawn.remove(name);
    }

    /// Notes that discovery has taken a node away: it is not waited for any more when it is not reached.
    pub(crate) fn withdraw(&self, name: &NodeName, incarnation: Incarnation) {
        let mut table = self.table.lock();
        table.withdrawn.insert(name.clone(), incarnation);
        table.left.remove(name);
        // A look at what waits for the node, and at the choices that name it.
        self.changes.fetch_add(1, Ordering::Release);
        self.reached.send_replace(());
    }

    /// Whether discovery has taken that incarnation of a node away.
    pub(crate) fn is_withdrawn(&self, name: &NodeName, incarnation: Incarnation) -> bool {
        self.table.lock().withdrawn.get(name).is_some_and(|last| incarnation <= *last)
    }

    /// Looks for no way over a neighbour any more whose link lives on: what it brings for others is still taken.
    pub(crate) fn avoid(&self, at: &PeerKey) {
        let mut table = self.table.lock();
        let reached = table.reach.reached_by(at).cloned().collect();
        let tell = table.reach.down(at);
        table.note_left(reached, Instant::now());
        self.tell(&table, tell);
        self.reached.send_replace(());
    }

    /// Looks for ways over a neighbour again whose link has lived on.
    pub(crate) fn use_again(&self, at: &PeerKey) {
        let mut table = self.table.lock();
        let Some(last) = table.links.get(at).and_then(|links| links.last()) else { return };
        let add = last.reach.now.values().cloned().collect();
        let mut tell = table.reach.up(at.clone());
        tell.extend(table.reach.take_notice(at, ReachChange { all: true, add, remove: Vec::new() }));
        self.tell(&table, tell);
        self.reached.send_replace(());
    }

    /// The number of this node, once it has one.
    pub(crate) fn number(&self) -> Option<NodeNumber> {
        self.table.lock().reach.me().map(|me| me.number)
    }

    /// Adds a link that is about to be used: first it is told which nodes this one reaches.
    pub(crate) fn link_up(&self, side: Side, link: &Link) {
        let at = PeerKey::new(side, link.peer().name.clone());
        let mut table = self.table.lock();
        let (link, disbelieved) = (link.clone(), BTreeSet::new());
        let linked = Linked { link, reach: LinkReach::default(), disbelieved };
        table.links.entry(at.clone()).or_default().push(linked);
        let tell = table.reach.up(at);
        self.tell(&table, tell);
    }

    /// Removes a link that has ended. One that it was to replace is used again.
    pub(crate) fn link_down(&self, side: Side, link: &Link) {
        let at = PeerKey::new(side, link.peer().name.clone());
        let mut table = self.table.lock();
        let table = &mut *table;
        let Some(links) = table.links.get_mut(&at) else { return };
        let was_used = links.last().is_some_and(|last| last.link.same(link));
        links.retain(|known| !known.link.same(link));
        let left = links.last().map(|last| last.reach.now.values().cloned().collect());
        let reached = table.reach.reached_by(&at).cloned().collect();
        let tell = match left {
            None => {
                table.links.remove(&at);
                table.reach.down(&at)
            }
            // The predecessor goes on.
            Some(add) if was_used => {
                let mut tell =
                    table.reach.take_notice(&at, ReachChange { all: true, add, remove: Vec::new() });
                tell.extend(table.reach.up(at));
                tell
            }
            Some(_) => return,
        };
        table.note_left(reached, Instant::now());
        self.tell(table, tell);
        self.reached.send_replace(());
    }

    /// Takes a neighbour's word, over `link`, about the nodes that it reaches, as far as it can be true. Returns what is
    /// not believed.
    pub(crate) fn take_notice(&self, at: &PeerKey, link: &Link, change: ReachChange) -> Vec<Disbelieved> {
        let mut table = self.table.lock();
        let table = &mut *table;
        let (change, mut disbelieved) = self.believed(table, at, link, change);
        let Some(links) = table.links.get_mut(at) else { return Vec::new() };
        let used = links.last().is_some_and(|last| last.link.same(link));
        if let Some(linked) = links.iter_mut().find(|linked| linked.link.same(link)) {
            linked.reach.change(&change, Instant::now());
            for node in &mut disbelieved {
                let known = &mut linked.disbelieved;
                node.is_news = known.len() < DISBELIEVED_MAX && known.insert(node.node.clone());
            }
        }
        if used {
            let may_lose = change.all || !change.remove.is_empty();
            let reached = table.reach.reached_by(at).filter(|_| may_lose).cloned().collect();
            let tell = table.reach.take_notice(at, change);
            table.note_left(reached, Instant::now());
            self.tell(table, tell);
        }
        self.changes.fetch_add(1, Ordering::Release);
        self.reached.send_replace(());
        disbelieved
    }

    /// What of a neighbour's word can be true: it leads there by the config's tree, and the number is no other name's.
    fn believed(
        &self,
        table: &mut MembershipTable,
        at: &PeerKey,
        link: &Link,
        mut change: ReachChange,
    ) -> (ReachChange, Vec<Disbelieved>) {
        let (mut disbelieved, said) = (Vec::new(), std::mem::take(&mut change.add));
        let MembershipTable { reach, numbers, .. } = table;
        let found = self.found.borrow();
        let others = reach.all_but(at, &change).chain(reach.me());
        let held = others.map(|node| (node.number, &node.name));
        let shown = found.nodes.values().filter_map(|found| Some((found.number?, &found.name)));
        let mut holders = NumberHolders::of(held.chain(shown));
        let names: Vec<(NodeName, NodeNumber)> =
            said.iter().map(|node| (node.name.clone(), node.number)).collect();
        let mut add = Vec::with_capacity(said.len());
        for ((name, number), node) in names.iter().zip(said) {
            let judged = self.rules.judged(at, &link.peer().kind, node).ok_or(None);
            let taken = judged.and_then(|node| {
                let is_named = self.rules.names(name);
                holders.take(name, *number, numbers, is_named).map(|()| node).map_err(Some)
            });
            match taken {
                Ok(node) => add.push(node),
                Err(owner) => {
                    let (node, number) = (name.clone(), *number);
                    disbelieved.push(Disbelieved { node, number, owner, is_news: false });
                }
            }
        }
        drop(holders);
        change.add = add;
        (change, disbelieved)
    }

    /// Notes that a neighbour takes other methods than before: a hop that was chosen by them is looked up again.
    pub(crate) fn note_methods(&self) {
        self.changes.fetch_add(1, Ordering::Release);
    }

    /// Sends the changes under the lock, so that each neighbour gets them in their order.
    fn tell(&self, table: &MembershipTable, tell: Vec<ReachNotice>) {
        self.changes.fetch_add(1, Ordering::Release);
        for (at, change) in tell {
            if let Some(link) = table.link(&at) {
                // A link that takes nothing any more ends soon; the next one is told everything.
                let _ = link.notify(REACH, &encode(&change), None);
            }
        }
    }

    /// The neighbour on the way to a node, see [`Reachability::next`].
    pub(crate) fn neighbour_to(
        &self,
        to: NodeNumber,
        from: Option<&PeerKey>,
        prefer: Option<&PeerKey>,
        pick: u64,
    ) -> Option<PeerKey> {
        self.table.lock().reach.next(to, from, prefer, pick).cloned()
    }

    /// Whether what is said on `link` on behalf of others may come from `to`.
    pub(crate) fn leads(&self, at: &PeerKey, link: &Link, to: NodeNumber) -> bool {
        let table = self.table.lock();
        let on_link = table.links.get(at).into_iter().flatten().find(|linked| linked.link.same(link));
        on_link.is_some_and(|linked| linked.reach.bringing_from(to, Instant::now()).is_some())
            || table.reach.leads(at, to)
    }

    /// The node of a number, if what is said on `link` on behalf of others may come from it.
    pub(crate) fn brought(&self, at: &PeerKey, link: &Link, number: NodeNumber) -> Option<Reachable> {
        let table = self.table.lock();
        let on_link = table.links.get(at).into_iter().flatten().find(|linked| linked.link.same(link));
        let on_link = on_link.and_then(|linked| linked.reach.bringing_from(number, Instant::now()));
        on_link.or_else(|| table.reach.said_by(at, number)).cloned()
    }

    /// Whether a neighbour leads to a node now.
    pub(crate) fn leads_now(&self, at: &PeerKey, to: NodeNumber) -> bool {
        self.table.lock().reach.leads(at, to)
    }

    /// A receiver that is rung when other nodes may be reached than before.
    pub(crate) fn reached(&self) -> watch::Receiver<()> {
        self.reached.subscribe()
    }

    /// The count of changes: another number after each change of what [`Membership::leads`] says.
    pub(crate) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Acquire)
    }

    /// The net nodes that a neighbour leads to, itself included.
    pub(crate) fn nets_at(&self, at: &PeerKey) -> Vec<NodeNumber> {
        let table = self.table.lock();
        table.reach.reached_by(at).filter(|node| node.net).map(|node| node.number).collect()
    }

    /// All other net nodes that are reached now.
    pub(crate) fn nets(&self) -> Vec<NodeNumber> {
        let table = self.table.lock();
        table.reach.others().into_values().filter(|node| node.net).map(|node| node.number).collect()
    }

    /// The name of a node that can be reached.
    pub(crate) fn name(&self, number: NodeNumber) -> Option<NodeName> {
        self.table.lock().reach.other(number).map(|node| node.name.clone())
    }

    /// A node that can be reached, by its number.
    pub(crate) fn get(&self, number: NodeNumber) -> Option<Reachable> {
        self.table.lock().reach.other(number).cloned()
    }

    /// Whether a node can be reached.
    pub(crate) fn is_reached(&self, number: NodeNumber) -> bool {
        self.table.lock().reach.other(number).is_some()
    }

    /// A node that can be reached, by its name.
    pub(crate) fn named(&self, name: &NodeName) -> Option<Reachable> {
        let table = self.table.lock();
        table.reach.others().into_values().find(|node| node.name == *name).cloned()
    }

    /// Whether a neighbour leads to a node that is meant.
    pub(crate) fn reaches(&self, at: &PeerKey, is_meant: impl Fn(&Reachable) -> bool) -> bool {
        self.table.lock().reach.reaches(at, is_meant)
    }

    /// The names of all other nodes that are reached now.
    pub(crate) fn names<C: FromIterator<NodeName>>(&self) -> C {
        let table = self.table.lock();
        table.reach.others().into_values().map(|node| node.name.clone()).collect()
    }

    /// All other nodes that are reached now and meant; `is_meant` must not ask the membership.
    pub(crate) fn others_meant(&self, is_meant: impl Fn(&Reachable) -> bool) -> Vec<Reachable> {
        let table = self.table.lock();
        table.reach.others().into_values().filter(|node| is_meant(node)).cloned().collect()
    }

    /// Until when a node that is meant may be back: it was reached within `patience`, or this process has not looked for
    /// as long as that. `None` when nobody waits for it any more.
    pub(crate) fn awaited_until(
        &self,
        now: Instant,
        patience: Duration,
        is_meant: impl Fn(&NodeName, &str) -> bool,
    ) -> Option<Instant> {
        let mut table = self.table.lock();
        let begun = *table.begun.get_or_insert(now);
        let left = table.left.iter().filter(|(name, (kind, _))| is_meant(name, kind));
        let since = left.map(|(_, (_, since))| *since).chain([begun]).max()?;
        Some(since + patience).filter(|until| now < *until)
    }

    /// Looks at the net nodes that have replicas here; one that is not reached for `patience` is given up.
    pub(crate) fn look(
        &self,
        nodes: &BTreeSet<NodeNumber>,
        now: Instant,
        patience: Duration,
    ) -> ReplicaReview {
        let mut table = self.table.lock();
        let MembershipTable { reach, lost, .. } = &mut *table;
        lost.retain(|number, _| nodes.contains(number) && reach.other(*number).is_none());
        let mut look = ReplicaReview::default();
        for number in nodes {
            match reach.other(*number) {
                Some(node) => look.reached.push((*number, node.since)),
                None if now.duration_since(*lost.entry(*number).or_insert(now)) >= patience => {
                    look.lost.push(*number);
                }
                None => {}
            }
        }
        look
    }
}

#[cfg(test)]
mod tests;
