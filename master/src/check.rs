//! `--check` of a sound config: a picture of what it would start.

use std::collections::HashMap;
use std::fmt::Write;

use ffconfig::{Cluster, Loaded, Node};
use ffproto::NodeName;

use crate::place;
use crate::supervisor::order;

/// What a sound config would start, and what is odd about it.
pub fn describe(loaded: &Loaded) -> String {
    let warnings: String = loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect();
    warnings + &picture(&loaded.cluster)
}

/// The nodes in the order of their start, children indented below their first parent.
fn picture(cluster: &Cluster) -> String {
    let master = &cluster.master;
    let mut text = format!(
        "cluster `{}`: control at {}, administration at http://{}\n",
        cluster.name, master.rootport, master.webport
    );
    let elsewhere = place::elsewhere(cluster);
    let mut depths: HashMap<NodeName, usize> = HashMap::new();
    let order = order::start_order(&cluster.nodes);
    for node in order.iter().filter_map(|name| cluster.node(name.as_str())) {
        let above = node.parents.iter().filter_map(|parent| depths.get(&parent.name)).max();
        depths.insert(node.name.clone(), above.map_or(0, |depth| depth + 1));
    }
    let deepest = depths.values().max().copied().unwrap_or(0);
    let width = cluster.nodes.iter().map(|node| node.name.as_str().len()).max().unwrap_or(0) + 2 * deepest;
    for node in order.iter().filter_map(|name| cluster.node(name.as_str())) {
        let indent = 2 * depths.get(&node.name).copied().unwrap_or(0);
        let _ = write!(text, "  {:indent$}{:<rest$}", "", node.name, rest = width - indent);
        describe_node(&mut text, node, elsewhere.contains(&node.name));
    }
    text
}

fn describe_node(text: &mut String, node: &Node, elsewhere: bool) {
    let _ = write!(text, "  app {}", node.app);
    if node.kind != node.app {
        let _ = write!(text, ", kind {}", node.kind);
    }
    for (what, at) in [("root", node.rootport), ("net", node.netport), ("web", node.webport)] {
        at.map(|at| write!(text, ", {what} {at}"));
    }
    let parents: Vec<&str> = node.parents.iter().map(|parent| parent.name.as_str()).collect();
    if !parents.is_empty() {
        let _ = write!(text, ", child of {}", parents.join(", "));
    }
    if elsewhere {
        let host = node.host.as_deref().unwrap_or_default();
        let _ = write!(text, "; on {host}: `master single {} CONFIG` there", node.name);
    }
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{changed, cluster};

    #[test]
    fn the_picture_shows_what_would_be_started_where() {
        let demo = cluster(&["net:10001 > gate", "gate", "far > gate"]);
        let demo = changed(&demo, "far", |node| node.host = Some("192.0.2.1".into()));
        assert_eq!(
            picture(&demo),
            "cluster `cluster`: control at 127.0.0.1:9999, administration at http://127.0.0.1:9998\n  \
             gate    app x, root 127.0.0.1:20001\n    \
             net   app x, net 127.0.0.1:10001, child of gate\n    \
             far   app x, child of gate; on 192.0.2.1: `master single far CONFIG` there\n"
        );
    }
}
