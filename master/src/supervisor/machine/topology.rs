//! The topology of a cluster, as nodes are told it: children learn when and where their parents are up, and when they
//! are gone.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ffproto::control::ToNode;
use ffproto::{Incarnation, NodeName};

use super::seat::{Life, Seat, SeatState};
use super::{Do, Machine, Tell, Wire};

impl Machine {
    /// Tells a process that has just registered about each parent that is ready.
    pub(super) fn tell_parents_of(&mut self, child: &NodeName, incarnation: Incarnation) {
        let Some(seat) = self.seats.get(child) else { return };
        let told: Vec<Do> = seat
            .lives()
            .filter(|life| life.is(incarnation))
            .flat_map(|life| life.node.parents.iter().map(move |parent| (life, parent)))
            .filter_map(|(life, parent)| parent_up(self.seats.get(&parent.name)?, life))
            .collect();
        self.out.extend(told);
    }

    /// Tells every linked child of a node that it is ready.
    pub(super) fn tell_children_up(&mut self, parent: &NodeName) {
        let Some(seat) = self.seats.get(parent) else { return };
        let told: Vec<Do> = self.children_of(parent).filter_map(|child| parent_up(seat, child)).collect();
        self.out.extend(told);
    }

    /// Tells every linked child of a node that its process is gone, if they knew of it.
    pub(super) fn tell_children_gone(&mut self, parent: &NodeName) {
        let Some(seat) = self.seats.get(parent) else { return };
        let (Some(_), Some(incarnation)) = (seat.life.listens, seat.life.incarnation) else { return };
        let gone = |child: &Life| {
            let message = ToNode::ParentGone { name: parent.clone(), incarnation };
            child.wire.and_then(|_| tell(child, Tell::Message(message)))
        };
        let told: Vec<Do> = self.children_of(parent).filter_map(gone).collect();
        self.out.extend(told);
    }

    /// Every process whose config has that parent; of a node that is being replaced, both.
    fn children_of<'a>(&'a self, parent: &'a NodeName) -> impl Iterator<Item = &'a Life> {
        let lives = self.order.iter().filter_map(|name| self.seats.get(name)).flat_map(Seat::lives);
        lives.filter(move |life| life.node.parents.iter().any(|entry| entry.name == *parent))
    }
}

fn parent_up(parent: &Seat, child: &Life) -> Option<Do> {
    let entry = child.node.parents.iter().find(|entry| entry.name == *parent.name())?;
    let wire = child.wire.filter(|_| matches!(parent.state, SeatState::Ready))?;
    tell(child, parent.life.parent_up(entry, wire)?)
}

fn tell(to: &Life, tell: Tell) -> Option<Do> {
    Some(Do::Tell { node: to.node.name.clone(), incarnation: to.incarnation?, tell })
}

/// The address under which the child at `child` reaches a parent at `parent` that listens on `announced`.
pub(super) fn reachable(announced: IpAddr, parent: Option<Wire>, child: Wire) -> IpAddr {
    let host = |wire: Wire| (!wire.peer.is_loopback() && wire.peer != wire.local).then_some(wire.peer);
    let (parent_host, child_host) = (parent.and_then(host), host(child));
    let open = !announced.is_loopback() && !announced.is_unspecified();
    match (parent_host, child_host) {
        // A listener on a certain address of its host is there, whoever asks.
        _ if open => announced,
        (parent, child) if parent == child => match announced {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            loopback => loopback,
        },
        (Some(parent), _) => parent,
        // The parent is on this host, the child is not: as it reached this host, it reaches the parent.
        (None, _) => child.local,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(announced: &str, parent_peer: &str, child_peer: &str, expected: &str) {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let wire = |peer: &str| {
            let local = if ip(peer).is_loopback() { peer } else { "10.0.0.1" };
            Wire { peer: ip(peer), local: ip(local) }
        };
        let found = reachable(ip(announced), Some(wire(parent_peer)), wire(child_peer));
        assert_eq!(found, ip(expected), "{announced} by {parent_peer} for {child_peer}");
    }

    #[test]
    fn a_child_is_told_an_address_that_it_can_reach() {
        check("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1");
        check("0.0.0.0", "127.0.0.1", "127.0.0.1", "127.0.0.1");
        check("::", "::1", "::1", "::1");
        check("0.0.0.0", "10.0.0.2", "127.0.0.1", "10.0.0.2");
        check("0.0.0.0", "10.0.0.2", "10.0.0.2", "127.0.0.1");
        check("0.0.0.0", "10.0.0.2", "10.0.0.3", "10.0.0.2");
        check("0.0.0.0", "127.0.0.1", "10.0.0.3", "10.0.0.1");
        check("10.0.0.9", "127.0.0.1", "127.0.0.1", "10.0.0.9");
        // This host under its own outer address is still this host.
        check("0.0.0.0", "10.0.0.1", "127.0.0.1", "127.0.0.1");
    }
}
