//! What each neighbour of a node takes clients' messages for, as the config says it: kinds, and the nodes that
//! a route names. A pure table, made once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use ffconfig::{Cluster, Node, Target};
use ffproto::NodeName;

use crate::cluster::side::Side;

/// Keys of [`Target`]s.
type TargetKeys = BTreeSet<Arc<str>>;

/// The configured routes of one node.
#[derive(Debug, Default)]
pub(crate) struct ConfiguredRoutes {
    /// The targets that this node itself takes messages for.
    own: TargetKeys,
    children: Neighbours,
    parents: Neighbours,
}

/// What the neighbours on one side take messages for.
#[derive(Debug, Default)]
struct Neighbours {
    named: BTreeMap<NodeName, TargetKeys>,
    /// The same of a group, for neighbours that no config names: a child's kind, a parent's key.
    groups: BTreeMap<String, TargetKeys>,
}

impl Neighbours {
    fn of(all: impl Iterator<Item = (NodeName, String, TargetKeys)>) -> Self {
        let mut neighbours = Self::default();
        for (name, group, keys) in all {
            neighbours.groups.entry(group).or_default().extend(keys.iter().cloned());
            neighbours.named.insert(name, keys);
        }
        neighbours
    }
}

impl ConfiguredRoutes {
    pub(crate) fn of(cluster: &Cluster, node: &Node) -> Self {
        let tree = Tree::of(cluster);
        let (mut below, mut all) = (HashMap::new(), HashMap::new());
        let children = tree.children.get(&node.name).into_iter().flatten();
        let children =
            children.map(|child| (child.name.clone(), child.kind.clone(), tree.down(child, &mut below)));
        let children = Neighbours::of(children);
        let parents =
            node.parents.iter().filter_map(|parent| Some((parent, cluster.node(parent.name.as_str())?)));
        let parents = parents.map(|(rule, parent)| {
            (rule.name.clone(), rule.key.clone(), tree.all(parent, &mut below, &mut all))
        });
        Self { own: tree.own(node), children, parents: Neighbours::of(parents) }
    }

    /// The targets that this node itself takes messages for, if it handles any.
    pub(crate) fn own(&self) -> impl Iterator<Item = &Arc<str>> {
        self.own.iter()
    }

    /// The targets that this node passes messages on for, by the side that they come from: a parent's messages go down
    /// only, a child's up as well.
    pub(crate) fn passed_on_for(&self, side: Side) -> TargetKeys {
        let down = self.children.named.values().flatten();
        let up = self.parents.named.values().flatten().filter(|_| side == Side::Child);
        down.chain(up).cloned().collect()
    }

    /// Whether that neighbour takes messages for the target, itself or for others; one that no config names takes what
    /// those of its group take.
    pub(crate) fn takes(&self, side: Side, name: &NodeName, group: &str, target: &str) -> bool {
        let neighbours = match side {
            Side::Parent => &self.parents,
            Side::Child => &self.children,
        };
        let keys = neighbours.named.get(name).or_else(|| neighbours.groups.get(group));
        keys.is_some_and(|keys| keys.contains(target))
    }
}

/// The nodes of a config by their parents.
struct Tree<'c> {
    cluster: &'c Cluster,
    children: HashMap<&'c NodeName, Vec<&'c Node>>,
    /// The nodes that a route names.
    named: BTreeSet<&'c str>,
}

impl<'c> Tree<'c> {
    fn of(cluster: &'c Cluster) -> Self {
        let mut children: HashMap<&NodeName, Vec<&Node>> = HashMap::new();
        for node in &cluster.nodes {
            node.parents.iter().for_each(|parent| children.entry(&parent.name).or_default().push(node));
        }
        let rules = cluster.nodes.iter().flat_map(|node| node.route.rules());
        Self { cluster, children, named: rules.filter_map(|rule| rule.to.as_node()).collect() }
    }

    fn own(&self, node: &Node) -> TargetKeys {
        let named = self.named.contains(node.name.as_str()).then(|| Target::node(node.name.as_str()));
        let kind = Target::kind(&node.kind);
        named.iter().chain([&kind]).map(|target| target.key().clone()).collect()
    }

    /// The targets that a node takes messages for from above: its own and those of all below it. Parents make no
    /// circle.
    fn down(&self, node: &'c Node, known: &mut HashMap<&'c NodeName, TargetKeys>) -> TargetKeys {
        if let Some(keys) = known.get(&node.name) {
            return keys.clone();
        }
        let mut keys = self.own(node);
        for child in self.children.get(&node.name).into_iter().flatten() {
            keys.extend(self.down(child, known));
        }
        known.insert(&node.name, keys.clone());
        keys
    }

    /// The targets that a node takes messages for from below: those, and what its parents take from it.
    fn all(
        &self,
        node: &'c Node,
        below: &mut HashMap<&'c NodeName, TargetKeys>,
        known: &mut HashMap<&'c NodeName, TargetKeys>,
    ) -> TargetKeys {
        if let Some(keys) = known.get(&node.name) {
            return keys.clone();
        }
        let mut keys = self.down(node, below);
        for parent in node.parents.iter().filter_map(|parent| self.cluster.node(parent.name.as_str())) {
            keys.extend(self.all(parent, below, known));
        }
        known.insert(&node.name, keys.clone());
        keys
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// net → gate → hub ← far ← game, and a chat that a route names.
    fn places(of: &str) -> ConfiguredRoutes {
        let text = r#"{"master": {"rootport": 9999, "webport": 9998}, "servers": {
            "hub": {"app": "hub", "rootport": 10000},
            "gate": {"app": "gate", "rootport": 10001, "remoteport": [{"rootname": "hub"}]},
            "far": {"app": "far", "rootport": 10002, "remoteport": [{"rootname": "hub"}]},
            "net": {"app": "net", "remoteport": [{"rootname": "gate"}], "route": {"to": {"chat": [1]}}},
            "game": {"app": "game", "count": 2, "remoteport": [{"rootname": "far"}]},
            "chat": {"app": "chat", "remoteport": [{"rootname": "far"}]}
        }}"#;
        let cluster = ffconfig::parse(text, Path::new("config.json"), &|_| None).unwrap().cluster;
        ConfiguredRoutes::of(&cluster, cluster.node(of).unwrap())
    }

    fn keys(keys: &TargetKeys) -> String {
        keys.iter().map(|key| &**key).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn every_node_takes_for_its_neighbours_what_lies_behind_it() {
        let far = places("far");
        assert_eq!(keys(&far.own), "far");
        assert_eq!(keys(&far.passed_on_for(Side::Parent)), "=chat chat game");
        assert_eq!(keys(&far.passed_on_for(Side::Child)), "=chat chat far game gate hub net");
        assert_eq!(keys(&places("chat").own), "=chat chat");
        let (hub, name) = (places("hub"), |name: &str| NodeName::try_from(name).unwrap());
        assert!(hub.takes(Side::Child, &name("far"), "far", "game"));
        assert!(!hub.takes(Side::Child, &name("gate"), "gate", "game"));
        assert!(!hub.takes(Side::Parent, &name("far"), "far", "game"));
        assert!(places("net").takes(Side::Parent, &name("gate"), "gate", "=chat"));
        assert_eq!(keys(&places("net").passed_on_for(Side::Parent)), "");
    }

    #[test]
    fn a_neighbour_that_no_config_names_takes_what_those_of_its_group_take() {
        let name = |name: &str| NodeName::try_from(name).unwrap();
        assert!(places("hub").takes(Side::Child, &name("far.9"), "far", "game"));
        assert!(!places("hub").takes(Side::Child, &name("gate.9"), "gate", "game"));
        assert!(places("far").takes(Side::Child, &name("game.9"), "game", "game"));
        assert!(places("net").takes(Side::Parent, &name("gate.9"), "gate", "game"));
        assert!(!places("net").takes(Side::Parent, &name("else"), "unheard", "game"));
    }
}
