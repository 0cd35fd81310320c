//! Every listening socket of the nodes on this host, open as long as the config has it.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use ffconfig::{Cluster, Node};
use ffnet::listen::{self, ListenError, Port};
use ffproto::NodeName;

/// A port of the config that cannot be listened on.
#[derive(Debug)]
pub struct PortFault {
    /// Its key: `servers.net.netport`.
    pub key: String,
    /// Why, and who holds it.
    pub error: ListenError,
}

impl fmt::Display for PortFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.error)
    }
}

/// Opens a socket for a key of the config.
pub(crate) fn open(key: &str, at: SocketAddr) -> Result<TcpListener, PortFault> {
    listen::open(at).map_err(|error| PortFault { key: key.to_owned(), error })
}

/// The open sockets, by what they are for.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    open: HashMap<(NodeName, Port, SocketAddr), TcpListener>,
}

/// A node's ports, as its config has them.
fn ports(node: &Node) -> impl Iterator<Item = (Port, SocketAddr)> {
    let configured = [(Port::Net, node.netport), (Port::Root, node.rootport), (Port::Web, node.webport)];
    configured.into_iter().filter_map(|(port, at)| Some((port, at?)))
}

impl Sockets {
    /// Opens what `cluster` has on this host and is not open yet. What is open stays open, even what the
    /// new config has no more: nodes of the old one may still be started again.
    ///
    /// # Errors
    /// Every port that cannot be opened; nothing has changed then.
    pub(crate) fn open(&mut self, cluster: &Cluster, elsewhere: &[NodeName]) -> Result<(), Vec<PortFault>> {
        let (mut new, mut faults) = (HashMap::new(), Vec::new());
        for node in cluster.nodes.iter().filter(|node| !elsewhere.contains(&node.name)) {
            for (port, at) in ports(node) {
                let key = (node.name.clone(), port, at);
                if self.open.contains_key(&key) {
                    continue;
                }
                match self.share_or_open(node, port, at) {
                    Ok(socket) => drop(new.insert(key, socket)),
                    Err(fault) => faults.push(fault),
                }
            }
        }
        if faults.is_empty() {
            self.open.extend(new);
            Ok(())
        } else {
            Err(faults)
        }
    }

    /// Opens what is missing of a node's ports: an adopted node may have ended before it gave its own.
    ///
    /// # Errors
    /// The first port that cannot be opened.
    pub(crate) fn ensure(&mut self, node: &Node) -> Result<(), PortFault> {
        for (port, at) in ports(node) {
            let key = (node.name.clone(), port, at);
            if !self.open.contains_key(&key) {
                let socket = self.share_or_open(node, port, at)?;
                self.open.insert(key, socket);
            }
        }
        Ok(())
    }

    /// Takes in a socket that an adopted node has given.
    pub(crate) fn put(&mut self, node: &NodeName, port: Port, socket: TcpListener) {
        if let Ok(at) = socket.local_addr() {
            self.open.insert((node.clone(), port, at), socket);
        }
    }

    /// A port that moves from one node to another is the same socket.
    fn share_or_open(&self, node: &Node, port: Port, at: SocketAddr) -> Result<TcpListener, PortFault> {
        let same = self.open.iter().find(|((_, _, open), _)| *open == at && at.port() != 0);
        if let Some(Ok(shared)) = same.map(|(_, socket)| socket.try_clone()) {
            return Ok(shared);
        }
        open(&format!("servers.{}.{}", node.key, port.key()), at)
    }

    /// Closes what none of these nodes has in its config.
    pub(crate) fn keep<'a>(&mut self, nodes: impl Iterator<Item = &'a Node>) {
        let wanted: Vec<_> =
            nodes.flat_map(|node| ports(node).map(|(port, at)| (node.name.clone(), port, at))).collect();
        self.open.retain(|key, _| wanted.contains(key));
    }

    /// Copies of a node's sockets, to be handed to its process.
    ///
    /// # Errors
    /// No more descriptors.
    pub(crate) fn of(&self, node: &Node) -> io::Result<Vec<(Port, TcpListener)>> {
        let open = |(port, at)| Some((port, self.open.get(&(node.name.clone(), port, at))?));
        ports(node).filter_map(open).map(|(port, socket)| Ok((port, socket.try_clone()?))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::cluster;

    fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
    }

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }

    #[test]
    fn all_busy_ports_are_reported_with_their_keys_and_nothing_stays_open() {
        let taken = [listen::open(at(0)).unwrap(), listen::open(at(0)).unwrap()];
        let [a, b] = [0, 1].map(|n: usize| taken[n].local_addr().unwrap().port());
        let free = free_port();
        let busy = cluster(&[&format!("net1:{a}"), &format!("net2:{free}"), &format!("net3:{b}")]);
        let mut sockets = Sockets::default();
        let faults = sockets.open(&busy, &[]).unwrap_err();
        let keys: Vec<&str> = faults.iter().map(|fault| fault.key.as_str()).collect();
        assert_eq!(keys, ["servers.net1.netport", "servers.net3.netport"]);
        assert!(faults[0].to_string().contains(&format!("(pid {})", std::process::id())), "{}", faults[0]);
        // To open the port again would be a bet: another program may have got it meanwhile.
        assert!(sockets.open.is_empty(), "{:?}", sockets.open);
    }

    #[test]
    fn a_port_stays_open_over_a_reload_and_may_move_to_another_node() {
        let port = free_port();
        let mut sockets = Sockets::default();
        let old = cluster(&[&format!("net:{port}")]);
        sockets.open(&old, &[]).unwrap();
        let new = cluster(&[&format!("net2:{port}")]);
        sockets.open(&new, &[]).unwrap();
        sockets.keep(new.nodes.iter());
        assert!(sockets.of(&old.nodes[0]).unwrap().is_empty());
        let passed = sockets.of(&new.nodes[0]).unwrap();
        assert_eq!(passed[0].1.local_addr().unwrap(), at(port));
    }

    #[test]
    fn nodes_of_other_hosts_have_no_socket_here() {
        let far = cluster(&[&format!("net:{}", free_port())]);
        let mut sockets = Sockets::default();
        sockets.open(&far, &[crate::fixture::name("net")]).unwrap();
        assert!(sockets.of(&far.nodes[0]).unwrap().is_empty());
    }
}
