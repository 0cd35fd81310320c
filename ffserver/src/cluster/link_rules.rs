//! Link rules: whom of the nodes that discovery shows a node dials, and whom it expects below. Pure, made once of the config.
//!
//! A node that some config names is linked as the config says. One that no config names is linked by its kind: it is a
//! parent where `remoteport` names a node of that kind, and a child where the config has children of that kind.

use std::collections::{BTreeMap, BTreeSet};

use ffconfig::{Cluster, Node, Parent};
use ffproto::NodeName;

use crate::cluster::found::Found;
use crate::cluster::side::Side;

/// The link rules of one node.
#[derive(Debug)]
pub(crate) struct LinkRules {
    me: NodeName,
    /// The nodes of the config.
    named: BTreeSet<NodeName>,
    parents: BTreeMap<NodeName, Parent>,
    children: BTreeMap<NodeName, String>,
    /// The parent that stands for all of a kind.
    parents_by_kind: BTreeMap<String, Parent>,
}

/// The place of a found node as a neighbour.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NeighbourPlace {
    pub(crate) side: Side,
    /// What several such neighbours have in common, see [`crate::cluster::peers::KnownPeer::group`].
    pub(crate) group: String,
    /// The parent as a config would have it.
    pub(crate) parent: Option<Parent>,
    /// Whether the config names the node.
    pub(crate) named: bool,
}

impl LinkRules {
    pub(crate) fn of(cluster: &Cluster, node: &Node) -> Self {
        let above = Above::of(cluster);
        let kind = |parent: &Parent| cluster.node(parent.name.as_str()).map(|node| node.kind.clone());
        let with_kind = |parent: &Parent| Some((kind(parent)?, parent.clone()));
        // Nodes of a kind that may stand above its own parents would make a circle of links.
        let open =
            node.parents.iter().rev().filter_map(with_kind).filter(|(kind, _)| !above.has(kind, &node.kind));
        Self {
            me: node.name.clone(),
            named: cluster.nodes.iter().map(|node| node.name.clone()).collect(),
            parents: node.parents.iter().map(|parent| (parent.name.clone(), parent.clone())).collect(),
            children: cluster
                .children_of(&node.name)
                .map(|child| (child.name.clone(), child.kind.clone()))
                .collect(),
            parents_by_kind: open.collect(),
        }
    }

    /// The place of a found node; `None` when it is no neighbour of this node.
    pub(crate) fn place(&self, found: &Found) -> Option<NeighbourPlace> {
        let (name, named) = (&found.name, self.named.contains(&found.name));
        if *name == self.me {
            return None;
        }
        let by_kind = || self.parents_by_kind.get(&found.kind).filter(|_| !named);
        if let Some(parent) = self.parents.get(name).or_else(by_kind) {
            let parent = Parent { name: name.clone(), ..parent.clone() };
            return Some(NeighbourPlace {
                side: Side::Parent,
                group: parent.key.clone(),
                parent: Some(parent),
                named,
            });
        }
        let is_child = match named {
            true => self.children.contains_key(name),
            false => self.children.values().any(|kind| *kind == found.kind),
        };
        is_child.then(|| NeighbourPlace { side: Side::Child, group: found.kind.clone(), parent: None, named })
    }
}

/// Which kinds stand above a kind in the config, however far.
struct Above<'c>(BTreeMap<&'c str, BTreeSet<&'c str>>);

impl<'c> Above<'c> {
    fn of(cluster: &'c Cluster) -> Self {
        let mut above: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for node in &cluster.nodes {
            let parents = node.parents.iter().filter_map(|parent| cluster.node(parent.name.as_str()));
            above.entry(&node.kind).or_default().extend(parents.map(|parent| parent.kind.as_str()));
        }
        Self(above)
    }

    /// Whether a node of the kind `upper` may stand above one of the kind `of`, or is one.
    fn has(&self, of: &str, upper: &str) -> bool {
        let (mut seen, mut next) = (BTreeSet::new(), vec![of]);
        while let Some(kind) = next.pop() {
            if kind == upper {
                return true;
            }
            if seen.insert(kind) {
                next.extend(self.0.get(kind).into_iter().flatten());
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cluster::found::found;

    /// The places of a found node as each node of the config sees them: `net ^gate` is a parent of the group `gate`,
    /// `gate _game` a child.
    #[track_caller]
    fn sees(name: &str, kind: &str, expected: &str) {
        let text = r#"{"master": {"rootport": 9999, "webport": 9998}, "servers": {
            "hub": {"app": "gate", "rootport": 10000},
            "gate": {"app": "gate", "rootport": 10001, "remoteport": [{"rootname": "hub"}]},
            "front": {"app": "front", "rootport": 10002, "remoteport": [{"rootname": "gate"}]},
            "net": {"app": "net", "remoteport": [{"rootname": "front"}]},
            "game": {"app": "game", "count": 2, "remoteport": [{"rootname": "gate"}]}
        }}"#;
        let cluster = ffconfig::parse(text, Path::new("config.json"), &|_| None).unwrap().cluster;
        let found = found(name, kind, 1);
        let place = |node: &Node| {
            let place = LinkRules::of(&cluster, node).place(&found)?;
            assert_eq!(place.named, cluster.node(name).is_some());
            assert_eq!(place.parent.is_some(), place.side == Side::Parent);
            assert!(place.parent.iter().all(|parent| parent.name == found.name));
            Some(format!(
                "{} {}{}",
                node.name,
                if place.side == Side::Parent { '^' } else { '_' },
                place.group
            ))
        };
        let places: Vec<String> = cluster.nodes.iter().filter_map(place).collect();
        assert_eq!(places.join(", "), expected, "{name} of kind {kind}");
    }

    #[test]
    fn a_node_that_no_config_names_is_a_neighbour_by_its_kind() {
        sees("game.9", "game", "gate _game");
        sees("front.9", "front", "gate _front, net ^front");
        sees("else", "unheard", "");
    }

    #[test]
    fn a_node_of_the_config_is_a_neighbour_as_the_config_says_whatever_its_kind() {
        sees("game.1", "game", "gate _game");
        sees("gate", "gate", "hub _gate, front ^gate, game.1 ^gate, game.2 ^gate");
        sees("hub", "gate", "gate ^hub");
        sees("net", "net", "front _net");
    }

    #[test]
    fn nodes_of_a_kind_that_stands_below_are_no_parents_so_that_links_make_no_circle() {
        // A gate has a parent of its own kind, the hub: a found gate would be a parent of it, and it one of the found one.
        sees("gate.9", "gate", "hub _gate, front ^gate, game.1 ^gate, game.2 ^gate");
    }
}
