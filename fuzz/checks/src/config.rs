//! The text of a config.

use std::path::Path;

use ffconfig::{Cluster, diff, parse};

/// A text loads or has faults, each on one line; what loads is whole, and no different from itself.
///
/// # Panics
/// One of these does not hold.
pub fn config(data: &[u8]) {
    // `ffconfig::load` lets nothing else through.
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| match name {
        "PORT" => Some("10001".to_owned()),
        "SECRET" => Some("0123456789abcdef".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    match parse(text, Path::new("/srv/config.json"), &env) {
        Ok(loaded) => whole(&loaded.cluster),
        Err(error) => {
            assert!(!error.faults().is_empty(), "refused without a reason");
            let shown = error.to_string();
            assert_eq!(shown.lines().count(), error.faults().len() + 1, "{shown}");
            let lines = text.split('\n').count();
            for fault in error.faults() {
                assert!((1..=lines).contains(&fault.line), "{fault}");
            }
        }
    }
}

fn whole(cluster: &Cluster) {
    let changed = diff(cluster, cluster);
    assert!(changed.is_empty(), "{changed:?}");
    for node in &cluster.nodes {
        let named = cluster.nodes.iter().filter(|other| other.name == node.name).count();
        assert_eq!(named, 1, "{} nodes {}", named, node.name);
        for parent in &node.parents {
            let known = cluster.node(parent.name.as_str());
            let port = known.and_then(|known| known.rootport).map(|listen| listen.port());
            assert_eq!(port, Some(parent.port), "{}, parent of {}", parent.name, node.name);
            assert_ne!(parent.name, node.name);
        }
        assert!(!node.db || cluster.db.is_some());
        assert!(!node.mem || cluster.memcached.is_some());
        let limits = &node.limits;
        assert!(limits.frame_bytes_max <= limits.link_frame_bytes_max);
        let rules = node.route.rules();
        assert!(rules.windows(2).all(|pair| pair[0].last < pair[1].first), "{rules:?}");
        for rule in rules {
            assert!(rule.first <= rule.last, "{rule:?}");
            assert_eq!(node.route.find(rule.first), Some(rule));
            assert_eq!(node.route.find(rule.last), Some(rule));
        }
    }
}
