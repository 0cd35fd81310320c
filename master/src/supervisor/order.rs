//! The order in which nodes start, stop and are replaced: pure functions over the parent relation.

use std::collections::HashMap;

use ffconfig::Node;
use ffproto::NodeName;

/// Parents before children; among equals the order of the config.
pub fn start_order<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<NodeName> {
    let nodes: Vec<&Node> = nodes.into_iter().collect();
    let depths = depths(&nodes);
    let mut order: Vec<&Node> = nodes;
    order.sort_by_key(|node| depths.get(&node.name).copied());
    order.into_iter().map(|node| node.name.clone()).collect()
}

/// The waves of a stop: first the nodes that take clients, so that no new work comes in; then from the
/// leaves of the tree to its roots, so that a node's parents are there as long as it flushes.
pub fn stop_waves<'a>(nodes: impl IntoIterator<Item = &'a Node>) -> Vec<Vec<NodeName>> {
    let nodes: Vec<&Node> = nodes.into_iter().collect();
    let depths = depths(&nodes);
    let (net, rest): (Vec<&Node>, Vec<&Node>) = nodes.iter().partition(|node| node.netport.is_some());
    let names = |nodes: Vec<&Node>| nodes.into_iter().map(|node| node.name.clone()).collect::<Vec<_>>();
    let deepest = depths.values().copied().max().unwrap_or(0);
    let levels = (0..=deepest).rev().map(|depth| {
        names(rest.iter().copied().filter(|node| depths.get(&node.name) == Some(&depth)).collect())
    });
    let waves = std::iter::once(names(net)).chain(levels);
    waves.filter(|wave| !wave.is_empty()).collect()
}

/// The longest way from each node up to a root. Parents that are not among `nodes` do not count.
fn depths(nodes: &[&Node]) -> HashMap<NodeName, usize> {
    let by_name: HashMap<&NodeName, &Node> = nodes.iter().map(|node| (&node.name, *node)).collect();
    let mut depths = HashMap::new();
    for node in nodes {
        depth(node, &by_name, &mut depths);
    }
    depths
}

/// The config has no cycles; `depths` is filled in before the parents are asked, so one would not hang us.
fn depth(node: &Node, by_name: &HashMap<&NodeName, &Node>, depths: &mut HashMap<NodeName, usize>) -> usize {
    if let Some(known) = depths.get(&node.name) {
        return *known;
    }
    depths.insert(node.name.clone(), 0);
    let parents = node.parents.iter().filter_map(|parent| by_name.get(&parent.name));
    let depth = parents.map(|parent| depth(parent, by_name, depths) + 1).max().unwrap_or(0);
    depths.insert(node.name.clone(), depth);
    depth
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::cluster;

    fn text(waves: Vec<Vec<NodeName>>) -> String {
        let wave = |wave: &Vec<NodeName>| wave.iter().map(NodeName::as_str).collect::<Vec<_>>().join(" ");
        waves.iter().map(wave).collect::<Vec<_>>().join(" | ")
    }

    #[test]
    fn the_firefly_demo_starts_at_the_gate_and_stops_at_the_net() {
        let demo = cluster(&["net:10001 > gate", "gate", "game1 > gate"]);
        assert_eq!(text(vec![start_order(&demo.nodes)]), "gate net game1");
        assert_eq!(text(stop_waves(&demo.nodes)), "net | game1 | gate");
    }

    #[test]
    fn a_deep_tree_stops_from_its_leaves_to_its_roots() {
        let deep = cluster(&["a", "b > a", "c > b", "d > a c", "net1:1 > d", "net2:2 > a", "lone"]);
        assert_eq!(text(vec![start_order(&deep.nodes)]), "a lone b net2 c d net1");
        assert_eq!(text(stop_waves(&deep.nodes)), "net1 net2 | d | c | b | a lone");
    }

    #[test]
    fn parents_that_are_left_out_do_not_matter() {
        let demo = cluster(&["gate", "game1 > gate"]);
        let only_game = demo.nodes.iter().filter(|node| node.name == *"game1");
        assert_eq!(text(stop_waves(only_game)), "game1");
        assert!(stop_waves([]).is_empty());
    }
}
