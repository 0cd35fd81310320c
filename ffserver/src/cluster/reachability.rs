//! Reachability: which neighbour leads to which node of the cluster. Pure: a neighbour's message goes in, the messages to
//! the other neighbours come out.
//!
//! Everybody tells its parents what is below it, and its children what it reaches on every other link. So a
//! way goes up any number of times and then only down: what has come from a parent is never sent up again,
//! and what is told has no circles, whatever the parents and children are.

use std::collections::BTreeMap;

use ffproto::NodeNumber;
use ffproto::relay::{ReachChange, Reachable};

use crate::cluster::side::{PeerKey, Side};

/// A set of nodes.
pub(crate) type NodeSet = BTreeMap<NodeNumber, Reachable>;

/// The reachability as one node knows it: itself, and what each neighbour has told.
#[derive(Debug, Default)]
pub(crate) struct Reachability {
    me: Option<Reachable>,
    neighbours: BTreeMap<PeerKey, Neighbour>,
}

#[derive(Debug, Default)]
struct Neighbour {
    /// The nodes that the neighbour has said it reaches.
    reaches: NodeSet,
    /// The nodes that the neighbour was told of, once it was told any.
    sent: Option<NodeSet>,
}

/// A change that a neighbour must be told now.
pub(crate) type ReachNotice = (PeerKey, ReachChange);

impl Reachability {
    /// Sets this node's own entry. Returns what the neighbours must be told.
    pub(crate) fn set_me(&mut self, me: Reachable) -> Vec<ReachNotice> {
        self.me = Some(me);
        self.tell()
    }

    /// This node's own entry.
    pub(crate) fn me(&self) -> Option<&Reachable> {
        self.me.as_ref()
    }

    /// Adds a neighbour that has linked: it tells anew what it reaches, and is told everything.
    pub(crate) fn up(&mut self, at: PeerKey) -> Vec<ReachNotice> {
        // What the neighbour's predecessor reached holds until the neighbour has told its own.
        self.neighbours.entry(at).or_default().sent = None;
        self.tell()
    }

    /// Removes a neighbour whose link has ended.
    pub(crate) fn down(&mut self, at: &PeerKey) -> Vec<ReachNotice> {
        self.neighbours.remove(at);
        self.tell()
    }

    /// Takes a neighbour's word about what has changed.
    pub(crate) fn take_notice(&mut self, at: &PeerKey, change: ReachChange) -> Vec<ReachNotice> {
        let Some(neighbour) = self.neighbours.get_mut(at) else { return Vec::new() };
        change.apply(&mut neighbour.reaches);
        self.tell()
    }

    /// The neighbour on the way to the node `to`, for what comes from `from`. `prefer` is taken if it leads there; else
    /// `pick` chooses, the same for the same number while nothing changes.
    pub(crate) fn next(
        &self,
        to: NodeNumber,
        from: Option<&PeerKey>,
        prefer: Option<&PeerKey>,
        pick: u64,
    ) -> Option<&PeerKey> {
        let leading = |side| {
            self.neighbours
                .iter()
                .filter(move |(at, known)| at.side == side && known.reaches.contains_key(&to))
                .map(|(at, _)| at)
                .filter(move |at| Some(*at) != from)
        };
        let mut ways: Vec<&PeerKey> = leading(Side::Child).collect();
        if ways.is_empty() && from.is_none_or(|from| from.side == Side::Child) {
            ways = leading(Side::Parent).collect();
        }
        let preferred = ways.iter().copied().find(|way| prefer == Some(way));
        preferred.or_else(|| {
            let n = ways.len() as u64;
            (n > 0).then(|| ways[(pick % n) as usize])
        })
    }

    /// Whether a neighbour leads to the node: then what the neighbour says on behalf of that node's sessions may be
    /// true.
    pub(crate) fn leads(&self, at: &PeerKey, to: NodeNumber) -> bool {
        self.neighbours.get(at).is_some_and(|known| known.reaches.contains_key(&to))
    }

    /// The nodes that a neighbour has said it reaches.
    pub(crate) fn reached_by(&self, at: &PeerKey) -> impl Iterator<Item = &Reachable> {
        self.neighbours.get(at).into_iter().flat_map(|known| known.reaches.values())
    }

    /// What a neighbour has said of a node that it reaches.
    pub(crate) fn said_by(&self, at: &PeerKey, number: NodeNumber) -> Option<&Reachable> {
        self.neighbours.get(at)?.reaches.get(&number)
    }

    /// The nodes that all neighbours reach, but those that `at` takes back with `change`.
    pub(crate) fn all_but<'a>(
        &'a self,
        at: &'a PeerKey,
        change: &'a ReachChange,
    ) -> impl Iterator<Item = &'a Reachable> {
        let taken_back =
            move |from: &PeerKey, number| from == at && (change.all || change.remove.contains(number));
        let all = self
            .neighbours
            .iter()
            .flat_map(|(from, known)| known.reaches.iter().map(move |entry| (from, entry)));
        all.filter(move |(from, (number, _))| !taken_back(from, number)).map(|(_, (_, node))| node)
    }

    /// Whether that neighbour leads to a node that is meant.
    pub(crate) fn reaches(&self, at: &PeerKey, is_meant: impl Fn(&Reachable) -> bool) -> bool {
        self.reached_by(at).any(is_meant)
    }

    /// All other nodes that are reached now.
    pub(crate) fn others(&self) -> BTreeMap<NodeNumber, &Reachable> {
        let mut all = BTreeMap::new();
        self.neighbours.values().for_each(|known| merge(&mut all, &known.reaches));
        if let Some(me) = &self.me {
            all.remove(&me.number);
        }
        all
    }

    /// Another node that is reached now, by its number.
    pub(crate) fn other(&self, number: NodeNumber) -> Option<&Reachable> {
        let is_me = self.me.as_ref().is_some_and(|me| me.number == number);
        let known = self.neighbours.values().filter_map(|known| known.reaches.get(&number));
        known.filter(|_| !is_me).reduce(newest)
    }

    fn tell(&mut self) -> Vec<ReachNotice> {
        let wanted: Vec<(PeerKey, NodeSet)> =
            self.neighbours.keys().map(|at| (at.clone(), self.to_be_told(at))).collect();
        let mut all = Vec::new();
        for (at, nodes) in wanted {
            let Some(neighbour) = self.neighbours.get_mut(&at) else { continue };
            let change = difference(neighbour.sent.as_ref(), &nodes);
            if neighbour.sent.is_none() || change != ReachChange::default() {
                neighbour.sent = Some(nodes);
                all.push((at, change));
            }
        }
        all
    }

    fn to_be_told(&self, at: &PeerKey) -> NodeSet {
        let mut nodes = BTreeMap::new();
        for (other, known) in &self.neighbours {
            if other != at && (at.side == Side::Child || other.side == Side::Child) {
                merge(&mut nodes, &known.reaches);
            }
        }
        if let Some(me) = &self.me {
            nodes.insert(me.number, me);
        }
        nodes.into_iter().map(|(number, node)| (number, node.clone())).collect()
    }
}

/// Merges nodes that several neighbours reach, see [`newest`].
fn merge<'a>(all: &mut BTreeMap<NodeNumber, &'a Reachable>, more: &'a NodeSet) {
    for (number, node) in more {
        all.entry(*number).and_modify(|known| *known = newest(known, node)).or_insert(node);
    }
}

/// The newer entry of a node that several neighbours reach: one of them may not have heard yet of its newest incarnation.
fn newest<'a>(known: &'a Reachable, node: &'a Reachable) -> &'a Reachable {
    if known.incarnation >= node.incarnation { known } else { node }
}

fn difference(told: Option<&NodeSet>, now: &NodeSet) -> ReachChange {
    let before = |number| told.and_then(|told| told.get(number));
    let add = now.iter().filter(|(number, node)| before(number) != Some(node));
    let gone = |number: &&NodeNumber| !now.contains_key(number);
    ReachChange {
        all: told.is_none(),
        add: add.map(|(_, node)| node.clone()).collect(),
        remove: told.into_iter().flat_map(NodeSet::keys).filter(gone).copied().collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use ffproto::{Incarnation, NodeName, SessionId};

    use super::*;

    fn node(number: u16, name: &str) -> Reachable {
        let (number, since) = (NodeNumber(number), SessionId(u64::from(number) << 52));
        let name = NodeName::try_from(name).unwrap();
        Reachable { number, name, kind: "k".into(), net: false, incarnation: Incarnation(1), since }
    }

    /// A cluster of pure nodes whose links are queues.
    struct World {
        nodes: BTreeMap<NodeName, Reachability>,
        notices: VecDeque<(NodeName, NodeName, Side, ReachChange)>,
        frames: usize,
    }

    impl World {
        /// `links` are (child, parent); numbers are places in the alphabet.
        fn new(names: &str, links: &[(&str, &str)]) -> Self {
            let mut world = World { nodes: BTreeMap::new(), notices: VecDeque::new(), frames: 0 };
            for name in names.split(' ') {
                let mut reach = Reachability::default();
                let number = u16::from(name.as_bytes()[0] - b'a' + 1);
                assert!(reach.set_me(node(number, name)).is_empty());
                world.nodes.insert(NodeName::try_from(name).unwrap(), reach);
            }
            for (child, parent) in links {
                world.link(child, parent);
            }
            world
        }

        fn link(&mut self, child: &str, parent: &str) {
            self.with(child, |reach| reach.up(at(Side::Parent, parent)));
            self.with(parent, |reach| reach.up(at(Side::Child, child)));
            self.settle();
        }

        fn cut(&mut self, child: &str, parent: &str) {
            self.with(child, |reach| reach.down(&at(Side::Parent, parent)));
            self.with(parent, |reach| reach.down(&at(Side::Child, child)));
            self.settle();
        }

        fn with(&mut self, name: &str, what: impl FnOnce(&mut Reachability) -> Vec<ReachNotice>) {
            for (PeerKey { side, name: to }, change) in what(self.nodes.get_mut(name).unwrap()) {
                // Seen from the other end.
                let seen = if side == Side::Parent { Side::Child } else { Side::Parent };
                self.notices.push_back((NodeName::try_from(name).unwrap(), to, seen, change));
            }
        }

        fn settle(&mut self) {
            while let Some((from, to, side, change)) = self.notices.pop_front() {
                self.frames += 1;
                assert!(self.frames < 10_000, "it does not end");
                self.with(to.as_str(), |reach| reach.take_notice(&PeerKey::new(side, from), change));
            }
        }

        /// The way of an envelope, as names.
        fn way(&self, from: &str, to: &str) -> String {
            let number = NodeNumber(u16::from(to.as_bytes()[0] - b'a' + 1));
            let (mut here, mut came, mut way) = (from.to_owned(), None, from.to_owned());
            while here != to {
                let Some(PeerKey { side, name }) =
                    self.nodes[&*here].next(number, came.as_ref(), None, 0).cloned()
                else {
                    return format!("{way} ?");
                };
                let back = if side == Side::Parent { Side::Child } else { Side::Parent };
                came = Some(PeerKey::new(back, NodeName::try_from(here.as_str()).unwrap()));
                here = name.as_str().to_owned();
                way = format!("{way} {here}");
                assert!(way.len() < 40, "{way}");
            }
            way
        }
    }

    fn at(side: Side, name: &str) -> PeerKey {
        PeerKey::new(side, NodeName::try_from(name).unwrap())
    }

    #[test]
    fn everybody_finds_everybody_over_several_levels() {
        // h is the hub; a and b its children, which have children of their own.
        let links = [("a", "h"), ("b", "h"), ("n", "a"), ("m", "a"), ("g", "b")];
        let world = World::new("h a b n m g", &links);
        assert_eq!(world.way("g", "n"), "g b h a n");
        assert_eq!(world.way("n", "m"), "n a m");
        assert_eq!(world.way("h", "g"), "h b g");
        assert_eq!(world.way("g", "h"), "g b h");
    }

    #[test]
    fn several_parents_make_no_circles_and_one_of_them_is_enough() {
        let mut world = World::new("a b n g", &[("n", "a"), ("n", "b"), ("g", "a"), ("g", "b")]);
        assert_eq!(world.way("g", "n"), "g a n");
        world.cut("n", "a");
        assert_eq!(world.way("g", "n"), "g b n");
        world.cut("n", "b");
        assert_eq!(world.way("g", "n"), "g ?");
        world.link("n", "a");
        assert_eq!(world.way("g", "n"), "g a n");
    }

    #[test]
    fn a_node_that_several_neighbours_reach_is_the_newest_one_and_this_node_is_none_of_the_others() {
        let mut reach = Reachability::default();
        reach.set_me(node(1, "a"));
        for (name, incarnation) in [("b", 1), ("c", 2), ("d", 1)] {
            let (at, incarnation) = (at(Side::Child, name), Incarnation(incarnation));
            reach.up(at.clone());
            let add = vec![node(1, "a"), Reachable { incarnation, ..node(7, "g") }];
            reach.take_notice(&at, ReachChange { all: true, add, remove: vec![] });
        }
        assert_eq!(reach.other(NodeNumber(7)).unwrap().incarnation, Incarnation(2));
        assert_eq!(reach.other(NodeNumber(7)), reach.others().remove(&NodeNumber(7)));
        assert_eq!((reach.other(NodeNumber(1)), reach.others().len()), (None, 1));
    }

    #[test]
    fn what_came_from_above_is_never_sent_up_again() {
        let world = World::new("a n g", &[("n", "a"), ("g", "a")]);
        let from_above = at(Side::Parent, "a");
        assert_eq!(world.nodes["n"].next(NodeNumber(7), Some(&from_above), None, 0), None);
        assert!(world.nodes["n"].next(NodeNumber(7), None, None, 0).is_some());
    }

    #[test]
    fn a_change_costs_one_frame_per_link_that_must_know() {
        let mut world = World::new("a n g", &[("n", "a")]);
        world.frames = 0;
        world.link("g", "a");
        assert_eq!(world.frames, 3, "two that introduce themselves, and n hears of g");
        world.frames = 0;
        world.cut("g", "a");
        assert_eq!(world.frames, 1, "n hears that g is gone");
    }

    #[test]
    fn a_successor_takes_its_predecessors_place_without_a_gap() {
        let mut world = World::new("a n g", &[("n", "a"), ("g", "a")]);
        world.frames = 0;
        // The links of n's next process come up while those of the old one are there.
        let told = world.nodes.get_mut("a").unwrap().up(at(Side::Child, "n"));
        assert!(told.iter().all(|(to, _)| *to == at(Side::Child, "n")), "g hears nothing: {told:?}");
        assert!(told[0].1.all, "the new process hears everything");
        assert_eq!(world.way("g", "n"), "g a n");
        let all = ReachChange { all: true, add: vec![node(14, "n")], remove: vec![] };
        assert!(world.nodes.get_mut("a").unwrap().take_notice(&at(Side::Child, "n"), all).is_empty());
        assert_eq!(world.way("g", "n"), "g a n");
    }

    #[test]
    fn the_preferred_way_is_taken_while_it_leads_there() {
        let mut world = World::new("a b n g", &[("n", "a"), ("n", "b"), ("g", "a"), ("g", "b")]);
        let (n, b) = (NodeNumber(14), at(Side::Parent, "b"));
        assert_eq!(world.nodes["g"].next(n, None, Some(&b), 0), Some(&b));
        world.cut("n", "b");
        assert_eq!(world.nodes["g"].next(n, None, Some(&b), 0), Some(&at(Side::Parent, "a")));
    }
}
