//! The reach rules: which nodes a neighbour can lead to, as the config's tree says it. Pure, made once; what a neighbour
//! says of others is held against it.

use std::collections::{BTreeMap, HashMap};

use ffconfig::{Cluster, Node};
use ffproto::relay::Reachable;
use ffproto::{NodeName, NodeNumber};

use crate::cluster::side::{PeerKey, Side};

/// Which of the config's nodes are meant, by their places in it: 4,095 take half a kilobyte.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct NodeBits(Vec<u64>);

impl NodeBits {
    fn add(&mut self, place: usize) {
        let word = place / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (place % 64);
    }

    fn add_all(&mut self, other: &Self) {
        if self.0.len() < other.0.len() {
            self.0.resize(other.0.len(), 0);
        }
        self.0.iter_mut().zip(&other.0).for_each(|(word, more)| *word |= more);
    }

    fn has(&self, place: usize) -> bool {
        self.0.get(place / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }
}

/// What one neighbour, or one kind of them, can lead to.
#[derive(Debug, Clone, Default)]
struct Behind {
    nodes: NodeBits,
    /// Whether it can have children that this config does not know of: it listens for some, or is a parent.
    opens: bool,
}

/// The reach rules of one node. Without a config (as in tests of the tables) everything may be true.
#[derive(Debug, Default)]
pub(crate) struct ReachRules {
    me: Option<NodeName>,
    /// The config's nodes: place, kind, and whether they take clients.
    named: HashMap<NodeName, ConfiguredNode>,
    /// The kinds of the config: the places of their nodes, and whether one of them takes clients.
    kinds: BTreeMap<String, (Vec<usize>, bool)>,
    neighbours: BTreeMap<PeerKey, Behind>,
    /// The same of neighbours that no config names, by side and kind.
    kinds_behind: BTreeMap<(Side, String), Behind>,
}

#[derive(Debug)]
struct ConfiguredNode {
    place: usize,
    kind: String,
    net: bool,
}

impl ReachRules {
    /// The rules of the node `me` of a config.
    pub(crate) fn of(cluster: &Cluster, me: &Node) -> Self {
        let tree = Tree::of(cluster);
        let mut rules = Self { me: Some(me.name.clone()), ..Self::default() };
        for (place, node) in cluster.nodes.iter().enumerate() {
            let (kind, net) = (node.kind.clone(), node.netport.is_some());
            let of_kind = rules.kinds.entry(kind.clone()).or_default();
            of_kind.0.push(place);
            of_kind.1 |= net;
            rules.named.insert(node.name.clone(), ConfiguredNode { place, kind, net });
        }
        let children = cluster.children_of(&me.name).map(|child| (Side::Child, child));
        let parents = me.parents.iter().filter_map(|parent| cluster.node(parent.name.as_str()));
        for (side, neighbour) in children.chain(parents.map(|parent| (Side::Parent, parent))) {
            let Some(place) = rules.named.get(&neighbour.name).map(|node| node.place) else { continue };
            let nodes = if side == Side::Child { tree.below(place) } else { tree.over(place) };
            let of_kind = rules.kinds_behind.entry((side, neighbour.kind.clone())).or_default();
            let opens = side == Side::Parent || neighbour.rootport.is_some();
            of_kind.nodes.add_all(&nodes);
            of_kind.opens |= opens;
            rules.neighbours.insert(PeerKey::new(side, neighbour.name.clone()), Behind { nodes, opens });
        }
        rules
    }

    /// What may be true of what a neighbour of the kind `kind` says of a node; `None` when it cannot lead there. Kind and
    /// clients of a node that the config names are as the config says, but for the neighbour itself, who has proved its kind.
    pub(crate) fn judged(&self, at: &PeerKey, kind: &str, mut said: Reachable) -> Option<Reachable> {
        if said.name == at.name {
            said.kind = kind.to_owned();
            said.net &= self.takes_clients(&said);
            return Some(said);
        }
        // This node's own entry comes back from parents; it is told apart by its number.
        if self.me.as_ref() == Some(&said.name) || self.me.is_none() {
            return Some(said);
        }
        let behind = self.neighbours.get(at).or_else(|| self.kinds_behind.get(&(at.side, kind.to_owned())));
        let leads_to = |place: usize| behind.is_some_and(|behind| behind.nodes.has(place));
        if let Some(node) = self.named.get(&said.name) {
            said.kind.clone_from(&node.kind);
            said.net &= node.net;
            return leads_to(node.place).then_some(said);
        }
        // Discovery shows nodes that no config names: they stand where others of their kind do.
        let may_be = match self.kinds.get(&said.kind) {
            Some((places, _)) => places.iter().any(|place| leads_to(*place)),
            // Of a newer config, perhaps: it may be called, and has no right.
            None => behind.is_none_or(|behind| behind.opens),
        };
        said.net &= self.takes_clients(&said);
        may_be.then_some(said)
    }

    fn takes_clients(&self, node: &Reachable) -> bool {
        match (self.named.get(&node.name), self.kinds.get(&node.kind)) {
            _ if self.me.is_none() => true,
            (Some(node), _) => node.net,
            (None, of_kind) => of_kind.is_some_and(|(_, net)| *net),
        }
    }

    /// Whether the config names a node.
    pub(crate) fn names(&self, name: &NodeName) -> bool {
        self.named.contains_key(name)
    }
}

/// The numbers of nodes that a config names, as this node has first heard them: one for each name, and none for two names.
/// A node that is away keeps its number.
#[derive(Debug, Default)]
pub(crate) struct NumberBook {
    numbers: HashMap<NodeName, NodeNumber>,
    owners: HashMap<NodeNumber, NodeName>,
}

/// The numbers of nodes that are there: this one, those that are reached, and those that discovery shows.
#[derive(Debug, Default)]
pub(crate) struct NumberHolders<'a> {
    numbers: HashMap<&'a NodeName, NodeNumber>,
    holders: HashMap<NodeNumber, &'a NodeName>,
}

impl<'a> NumberHolders<'a> {
    /// Of these; the last one is believed.
    pub(crate) fn of(held: impl Iterator<Item = (NodeNumber, &'a NodeName)>) -> Self {
        let mut of = Self::default();
        for (number, name) in held {
            of.numbers.insert(name, number);
            of.holders.insert(number, name);
        }
        of
    }

    /// Takes a node's word about its number, and notes it in the book if a config names the node.
    ///
    /// # Errors
    /// The name that has the number, or the node's own when that has another number.
    pub(crate) fn take(
        &mut self,
        name: &'a NodeName,
        number: NodeNumber,
        book: &mut NumberBook,
        is_named: bool,
    ) -> Result<(), NodeName> {
        let owner = book.owners.get(&number).or_else(|| self.holders.get(&number).copied());
        if let Some(owner) = owner.filter(|owner| *owner != name) {
            return Err(owner.clone());
        }
        // One that is there has one number, so nobody can take up those of others that have not come yet.
        if self.numbers.get(name).is_some_and(|other| *other != number) {
            return Err(name.clone());
        }
        if is_named {
            if let Some(before) = book.numbers.insert(name.clone(), number).filter(|before| *before != number)
            {
                book.owners.remove(&before);
            }
            book.owners.insert(number, name.clone());
        }
        self.numbers.insert(name, number);
        self.holders.insert(number, name);
        Ok(())
    }
}

/// The nodes of a config by their places, with those above and below each.
struct Tree {
    children: Vec<Vec<usize>>,
    parents: Vec<Vec<usize>>,
}

impl Tree {
    fn of(cluster: &Cluster) -> Self {
        let places: HashMap<&NodeName, usize> =
            cluster.nodes.iter().enumerate().map(|(place, node)| (&node.name, place)).collect();
        let mut tree =
            Self { children: vec![Vec::new(); places.len()], parents: vec![Vec::new(); places.len()] };
        for (place, node) in cluster.nodes.iter().enumerate() {
            for parent in node.parents.iter().filter_map(|parent| places.get(&parent.name)) {
                tree.children[*parent].push(place);
                tree.parents[place].push(*parent);
            }
        }
        tree
    }

    /// A node and those below it.
    fn below(&self, place: usize) -> NodeBits {
        let mut found = NodeBits::default();
        self.spread(&self.children, vec![place], &mut found);
        found
    }

    /// A node, those above it, and those below any of them: a way goes up, and then down.
    fn over(&self, place: usize) -> NodeBits {
        let mut above = NodeBits::default();
        self.spread(&self.parents, vec![place], &mut above);
        let tops = (0..self.parents.len()).filter(|place| above.has(*place)).collect();
        let mut found = NodeBits::default();
        self.spread(&self.children, tops, &mut found);
        found
    }

    fn spread(&self, next: &[Vec<usize>], mut open: Vec<usize>, found: &mut NodeBits) {
        while let Some(place) = open.pop() {
            if !found.has(place) {
                found.add(place);
                open.extend(&next[place]);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ffproto::{Incarnation, SessionId};

    use super::*;

    /// net1 → gate1 → hub ← gate2 ← net2, and a game below both gates.
    fn rules(of: &str) -> ReachRules {
        let text = r#"{"master": {"rootport": 9999, "webport": 9998}, "servers": {
            "hub": {"app": "hub", "rootport": 10000},
            "gate1": {"app": "gate", "rootport": 10001, "remoteport": [{"rootname": "hub"}]},
            "gate2": {"app": "gate", "rootport": 10002, "remoteport": [{"rootname": "hub"}]},
            "net1": {"app": "net", "netport": 1, "remoteport": [{"rootname": "gate1"}]},
            "net2": {"app": "net", "netport": 2, "remoteport": [{"rootname": "gate2"}]},
            "game": {"app": "game", "remoteport": [{"rootname": "gate1"}, {"rootname": "gate2"}]}
        }}"#;
        let cluster = ffconfig::parse(text, Path::new("config.json"), &|_| None).unwrap().cluster;
        ReachRules::of(&cluster, cluster.node(of).unwrap())
    }

    fn name(name: &str) -> NodeName {
        NodeName::try_from(name).unwrap()
    }

    fn said(node: &str, kind: &str, net: bool) -> Reachable {
        let (number, since) = (NodeNumber(7), SessionId(0));
        Reachable { number, name: name(node), kind: kind.into(), net, incarnation: Incarnation(1), since }
    }

    /// What the node `of` takes of its neighbour's word: `KIND`, with `*` when the node takes clients.
    fn believed(of: &str, side: Side, neighbour: (&str, &str), node: (&str, &str, bool)) -> Option<String> {
        let at = PeerKey::new(side, name(neighbour.0));
        let judged = rules(of).judged(&at, neighbour.1, said(node.0, node.1, node.2))?;
        Some(format!("{}{}", judged.kind, if judged.net { "*" } else { "" }))
    }

    #[test]
    fn a_child_leads_to_itself_and_to_what_the_config_has_below_it() {
        let hub = |node| believed("hub", Side::Child, ("gate1", "gate"), node);
        assert_eq!(hub(("gate1", "gate", false)).unwrap(), "gate");
        assert_eq!(hub(("net1", "net", true)).unwrap(), "net*");
        assert_eq!(hub(("game", "game", false)).unwrap(), "game");
        for elsewhere in ["net2", "gate2"] {
            assert_eq!(hub((elsewhere, "net", true)), None, "{elsewhere}");
        }
        assert_eq!(believed("gate1", Side::Child, ("game", "game"), ("net1", "net", true)), None);
    }

    #[test]
    fn a_parent_leads_to_what_is_above_and_to_what_is_below_those() {
        let net1 = |node| believed("net1", Side::Parent, ("gate1", "gate"), node);
        for node in ["gate1", "hub", "gate2", "net2", "game"] {
            assert!(net1((node, "x", false)).is_some(), "{node}");
        }
        assert!(net1(("net1", "net", true)).is_some(), "it comes back");
        assert_eq!(believed("hub", Side::Parent, ("gate1", "gate"), ("net1", "net", true)), None);
    }

    #[test]
    fn kind_and_clients_are_as_the_config_has_them_and_the_neighbours_own_kind_as_it_has_proved_it() {
        let gate = |neighbour, node| believed("gate1", Side::Child, neighbour, node);
        assert_eq!(gate(("game", "game"), ("game", "net", true)).unwrap(), "game");
        assert_eq!(gate(("net1", "net"), ("net1", "x", true)).unwrap(), "net*");
        assert_eq!(believed("hub", Side::Child, ("gate1", "gate"), ("game", "net", true)).unwrap(), "game");
    }

    #[test]
    fn a_node_that_no_config_names_stands_where_its_kind_does() {
        let hub = |node| believed("hub", Side::Child, ("gate1", "gate"), node);
        assert_eq!(hub(("game.9", "game", true)).unwrap(), "game", "no game takes clients");
        assert_eq!(hub(("net.9", "net", true)).unwrap(), "net*");
        assert_eq!(hub(("hub.9", "hub", false)), None);
        assert_eq!(hub(("new.1", "new", true)).unwrap(), "new", "of a newer config, without clients");
        let by_kind = |node| believed("hub", Side::Child, ("gate.9", "gate"), node);
        assert_eq!(by_kind(("net2", "net", true)).unwrap(), "net*", "as the gates of the config");
        let below_a_leaf = |node| believed("gate1", Side::Child, ("game", "game"), node);
        assert_eq!(below_a_leaf(("game.9", "game", false)).unwrap(), "game");
        assert_eq!(below_a_leaf(("new.1", "new", false)), None, "it listens for no children");
    }

    #[test]
    fn a_number_is_of_one_name_and_a_name_has_one_number() {
        fn take<'a>(
            (holders, book): (&mut NumberHolders<'a>, &mut NumberBook),
            name: &'a NodeName,
            number: u16,
        ) -> Result<(), NodeName> {
            holders.take(name, NodeNumber(number), book, name.as_str() != "phantom")
        }
        let (mut book, [a, b, phantom]) = (NumberBook::default(), ["a", "b", "phantom"].map(name));
        let mut holders = NumberHolders::of([(NodeNumber(1), &a)].into_iter());
        assert_eq!(take((&mut holders, &mut book), &a, 1), Ok(()));
        assert_eq!(take((&mut holders, &mut book), &a, 2), Err(a.clone()), "it has one");
        assert_eq!(take((&mut holders, &mut book), &b, 1), Err(a.clone()));
        assert_eq!(take((&mut holders, &mut book), &b, 2), Ok(()));
        assert_eq!(take((&mut holders, &mut book), &phantom, 9), Ok(()));
        assert_eq!(take((&mut holders, &mut book), &phantom, 10), Err(phantom.clone()));
        // All are away.
        let mut holders = NumberHolders::default();
        assert_eq!(take((&mut holders, &mut book), &phantom, 2), Err(b.clone()), "it keeps it");
        assert_eq!(take((&mut holders, &mut book), &phantom, 10), Ok(()));
        assert_eq!(take((&mut holders, &mut book), &b, 3), Ok(()), "another master gives other numbers");
        assert_eq!(take((&mut holders, &mut book), &a, 2), Ok(()));
    }
}
