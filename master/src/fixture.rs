//! Configs for unit tests, made from one line a node: `net:10001 > gate` is `net` with a netport and a parent.

use ffambient::Chance;
use ffconfig::{Cluster, Node};
use ffkeys::{ClusterKeys, ClusterSecret};
use ffproto::NodeName;

/// A name that is known to be one.
pub(crate) fn name(text: &str) -> NodeName {
    NodeName::try_from(text).unwrap()
}

/// The keys of a cluster, the same each time.
pub(crate) fn keys() -> ClusterKeys {
    ClusterKeys::new(&ClusterSecret::new(&Chance::seeded(1)).unwrap(), 0, None).unwrap()
}

/// Builds the text of a config and loads it, so that tests see what a real config gives.
pub(crate) fn cluster(nodes: &[&str]) -> Cluster {
    cluster_with("", nodes)
}

/// The same with more keys inside `master`, such as `, "token": "t"`.
pub(crate) fn cluster_with(master: &str, nodes: &[&str]) -> Cluster {
    let parsed: Vec<(&str, Option<&str>, Vec<&str>)> = nodes.iter().map(|line| parse(line)).collect();
    let is_parent = |name: &str| parsed.iter().any(|(_, _, parents)| parents.contains(&name));
    let port = |name: &str| 20_000 + parsed.iter().position(|(n, _, _)| *n == name).unwrap_or(0);
    let servers: Vec<String> = parsed
        .iter()
        .map(|(name, netport, parents)| {
            let mut keys = vec![r#""app": "x""#.to_owned()];
            keys.extend(netport.map(|netport| format!(r#""netport": {netport}"#)));
            keys.extend(is_parent(name).then(|| format!(r#""rootport": {}"#, port(name))));
            let parents: Vec<String> = parents
                .iter()
                .map(|parent| format!(r#"{{"rootname": "{parent}", "rootport": {}}}"#, port(parent)))
                .collect();
            keys.push(format!(r#""remoteport": [{}]"#, parents.join(", ")));
            format!(r#""{name}": {{{}}}"#, keys.join(", "))
        })
        .collect();
    let text = format!(
        r#"{{"master": {{"rootport": 9999, "webport": 9998{master}}}, "servers": {{{}}}}}"#,
        servers.join(", ")
    );
    parsed_text(&text)
}

fn parsed_text(text: &str) -> Cluster {
    match ffconfig::parse(text, std::path::Path::new("/test/config.json"), &|_| None) {
        Ok(loaded) => loaded.cluster,
        Err(fault) => panic!("{fault}\n{text}"),
    }
}

fn parse(line: &str) -> (&str, Option<&str>, Vec<&str>) {
    let (node, parents) = line.split_once('>').unwrap_or((line, ""));
    let (name, netport) = match node.trim().split_once(':') {
        Some((name, netport)) => (name, Some(netport)),
        None => (node.trim(), None),
    };
    (name, netport, parents.split_whitespace().collect())
}

/// A copy of the node's config with something changed.
pub(crate) fn changed(cluster: &Cluster, name: &str, change: impl FnOnce(&mut Node)) -> Cluster {
    let mut cluster = cluster.clone();
    change(cluster.nodes.iter_mut().find(|node| node.name == *name).unwrap());
    cluster
}
