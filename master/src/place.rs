//! The place of nodes: which of them belong on this host.

use std::net::{IpAddr, UdpSocket};

use ffconfig::{Cluster, Node};
use ffproto::NodeName;

/// The nodes of the config that `master single` starts on another host.
pub(crate) fn elsewhere(cluster: &Cluster) -> Vec<NodeName> {
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let far = |node: &&Node| node.host.as_deref().is_some_and(|host| !is_here(host, own.trim()));
    cluster.nodes.iter().filter(far).map(|node| node.name.clone()).collect()
}

/// Whether `host` is this host: its name, or an address that it has. Names are not looked up: a slow name
/// server must not decide where a node runs.
fn is_here(host: &str, own: &str) -> bool {
    if host.eq_ignore_ascii_case("localhost") || host.eq_ignore_ascii_case(own) {
        return true;
    }
    let address: Option<IpAddr> = host.parse().ok();
    // Only an address of this host can be bound.
    address.is_some_and(|ip| !ip.is_unspecified() && UdpSocket::bind((ip, 0)).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{changed, cluster};

    #[test]
    fn a_host_is_here_by_its_name_or_by_its_addresses() {
        for host in ["localhost", "127.0.0.1", "BOX1"] {
            assert!(is_here(host, "box1"), "{host}");
        }
        for host in ["192.0.2.1", "box2", "", "0.0.0.0"] {
            assert!(!is_here(host, "box1"), "{host}");
        }
    }

    #[test]
    fn nodes_with_another_host_are_elsewhere() {
        let cluster = cluster(&["gate", "game1 > gate"]);
        assert!(elsewhere(&cluster).is_empty());
        let cluster = changed(&cluster, "game1", |node| node.host = Some("192.0.2.1".into()));
        assert_eq!(elsewhere(&cluster), ["game1"]);
    }
}
