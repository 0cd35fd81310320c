//! What a changed config means for a running cluster: which nodes start, stop, and are replaced.

use ffproto::NodeName;

use crate::model::{Cluster, Node};

/// The difference between two configs, by names.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Diff {
    /// Nodes that only the new config has, in its order.
    pub added: Vec<NodeName>,
    /// Nodes that only the old config has, in its order.
    pub removed: Vec<NodeName>,
    /// Nodes of both which need a new process to be as the new config says, in its order.
    pub changed: Vec<NodeName>,
    /// The keys that a running master cannot take over: `cluster`, `master.rootport`, ….
    pub master_changed: Vec<&'static str>,
}

impl Diff {
    /// Whether the two configs mean the same cluster.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// What it takes to get from `old` to `new`.
pub fn diff(old: &Cluster, new: &Cluster) -> Diff {
    let missing_in = |cluster: &Cluster, nodes: &[Node]| -> Vec<NodeName> {
        let missing = nodes.iter().filter(|node| cluster.node(node.name.as_str()).is_none());
        missing.map(|node| node.name.clone()).collect()
    };
    let changed = new.nodes.iter().filter(|node| {
        old.node(node.name.as_str()).is_some_and(|before| needs_process(old, before, new, node))
    });
    Diff {
        added: missing_in(old, &new.nodes),
        removed: missing_in(new, &old.nodes),
        changed: changed.map(|node| node.name.clone()).collect(),
        master_changed: master_changed(old, new),
    }
}

fn needs_process(old: &Cluster, before: &Node, new: &Cluster, node: &Node) -> bool {
    // `reload` is only shown, so it is taken as it was.
    let node_changed = Node { reload: before.reload.clone(), ..node.clone() } != *before;
    node_changed
        || old.appmain != new.appmain
        || (node.netport.is_some() && old.second_login != new.second_login)
        || (node.db && databases_changed(old, new))
        || (node.mem && old.memcached != new.memcached)
}

fn databases_changed(old: &Cluster, new: &Cluster) -> bool {
    old.db != new.db || old.databases != new.databases || old.data_dir != new.data_dir
}

fn master_changed(old: &Cluster, new: &Cluster) -> Vec<&'static str> {
    let (a, b) = (&old.master, &new.master);
    let keys = [
        ("cluster", old.name != new.name),
        ("master.rootport", a.rootport != b.rootport),
        ("master.webport", a.webport != b.webport),
        ("master.roothost", a.roothost != b.roothost),
        ("master.token", a.token != b.token),
        ("master.operators", a.operators != b.operators),
        ("master.tls", a.tls != b.tls),
        ("master.plain_http", a.plain_http != b.plain_http),
        ("master.encrypt", a.encrypt != b.encrypt),
        ("master.log", a.log != b.log),
        ("master.restart", a.restart != b.restart),
    ];
    keys.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    const OLD: &str = r#"{
        "master": {"rootport": 9999, "webport": 9998},
        "db": "sqlite:a.db",
        "servers": {
            "gate": {"app": "gateserver", "rootport": 10000, "reload": "x"},
            "net": {"app": "netserver", "netport": 10001, "remoteport": [{"rootname": "gate"}]},
            "game": {"app": "game1server", "count": 2, "db": true, "remoteport": [{"rootname": "gate"}]},
        },
    }"#;

    fn cluster(text: &str) -> Cluster {
        crate::parse(text, Path::new("/srv/config.json"), &|_| None).unwrap().cluster
    }

    /// The difference that replacing `from` by `to` in [`OLD`] makes, as one line.
    fn check(from: &str, to: &str, expected: &str) {
        assert!(OLD.contains(from), "{from}");
        let Diff { added, removed, changed, master_changed } =
            diff(&cluster(OLD), &cluster(&OLD.replace(from, to)));
        let shown =
            format!("added {added:?} removed {removed:?} changed {changed:?} master {master_changed:?}");
        assert_eq!(shown, expected, "{from} -> {to}");
    }

    #[test]
    fn the_same_config_changes_nothing() {
        assert!(diff(&cluster(OLD), &cluster(OLD)).is_empty());
        assert!(diff(&cluster(OLD), &cluster(&OLD.replace("\"x\"", "\"y\""))).is_empty());
    }

    #[test]
    fn only_the_nodes_that_a_change_touches_are_replaced() {
        let none = "added [] removed [] changed [] master []";
        check("\"count\": 2", "\"count\": 3", &none.replacen("[]", "[\"game.3\"]", 1));
        check("\"count\": 2", "\"count\": 1", &none.replacen("removed []", "removed [\"game.2\"]", 1));
        let net = none.replacen("changed []", "changed [\"net\"]", 1);
        check("10001", "10002", &net);
        check("10001", "10001, \"route\": {\"special\": {\"gateserver\": [7]}}", &net);
        check("10001", "10001, \"limits\": {\"slow_client\": \"drop\"}", &net);
        check("10001", "10001, \"limits\": {\"slow_client\": \"disconnect\", \"idle_s\": 600}", none);
        check(
            "\"count\": 2",
            "\"count\": 2, \"process\": \"game\"",
            &none.replacen("changed []", "changed [\"game.1\", \"game.2\"]", 1),
        );
        let children_too =
            none.replacen("changed []", "changed [\"gate\", \"net\", \"game.1\", \"game.2\"]", 1);
        check("10000", "10005", &children_too);
        check("a.db", "b.db", &none.replacen("changed []", "changed [\"game.1\", \"game.2\"]", 1));
    }

    #[test]
    fn a_cluster_wide_limit_replaces_all_nodes_and_a_masters_key_none() {
        let all = "added [] removed [] changed [\"gate\", \"net\", \"game.1\", \"game.2\"] master []";
        check("\"db\": \"sq", "\"appmain\": \"bin/game\", \"db\": \"sq", all);
        check("\"db\": \"sq", "\"limits\": {\"calls_max\": 9}, \"db\": \"sq", all);
        let master = "added [] removed [] changed [] master [\"master.webport\", \"master.roothost\"]";
        check("9998", "9997, \"roothost\": \"here\"", master);
        let name = "added [] removed [] changed [] master [\"cluster\"]";
        check("\"db\": \"sq", "\"cluster\": \"two\", \"db\": \"sq", name);
    }
}
