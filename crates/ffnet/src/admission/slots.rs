//! The slots of a listening socket as a pure table: who is admitted, and which idle connection makes room.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use rustc_hash::FxHashMap;

/// The block of addresses that one peer can be taken to have: an IPv4 address, the /64 of an IPv6 address, or this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AddressBlock {
    /// This host, under any of its loopback addresses.
    Loopback,
    /// One address of IPv4 (/32).
    V4(Ipv4Addr),
    /// The first half of an address of IPv6 (/64): a single customer is given that much.
    V6(u64),
}

impl AddressBlock {
    /// The block of an address; IPv4 in an IPv6 address is IPv4.
    pub fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            loopback if loopback.is_loopback() => Self::Loopback,
            IpAddr::V4(v4) => Self::V4(v4),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// The bounds of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Connections in all.
    pub connections: usize,
    /// Connections of one block of addresses. Not for this host, where all peers have one.
    pub per_block: usize,
}

impl Bounds {
    /// The bound on connections that are open at all: those that have lost their slot end at their task's next turn.
    #[must_use]
    pub const fn open_max(self) -> usize {
        self.connections + self.connections / 4 + Self::OPEN_MORE
    }

    /// The most slots whose connections are at most so many open ones; none where that is less than one slot takes.
    #[must_use]
    pub const fn slots_of(open_max: usize) -> usize {
        // A fifth of what there is beyond the few is for those that end.
        let open = open_max.saturating_sub(Self::OPEN_MORE);
        open - open.div_ceil(5)
    }

    /// Connections that may be about to end even where there are few slots.
    const OPEN_MORE: usize = 8;
}

/// The number of a connection in its table.
pub type Ticket = u64;

/// The connections of a listening socket, each idle (nothing is done for it, or it has proved nothing) or busy. `T` is what the
/// owner needs to end one.
#[derive(Debug)]
pub struct Slots<T> {
    bounds: Bounds,
    entries: FxHashMap<Ticket, Entry<T>>,
    blocks: FxHashMap<AddressBlock, Block>,
    /// The last number that was given out: of a connection, or of a moment in which one became idle.
    last: u64,
}

#[derive(Debug)]
struct Entry<T> {
    block: AddressBlock,
    /// The moment in which the connection became idle, in the order of such moments.
    idle_since: Option<u64>,
    payload: T,
}

#[derive(Debug, Default)]
struct Block {
    connections: usize,
    /// The idle connections, the oldest first.
    idle: BTreeMap<u64, Ticket>,
}

/// A connection that has been admitted, and the payload of the one that made room for it.
pub type Admitted<T> = (Ticket, Option<T>);

impl<T> Slots<T> {
    /// A table without connections.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, entries: FxHashMap::default(), blocks: FxHashMap::default(), last: 0 }
    }

    /// Admits a connection, which is idle at first. Where its block or the whole is full, the oldest idle connection makes room:
    /// of the block, or of the block that has most. `None` gives the payload back: nothing that could make room is idle.
    pub fn admit(&mut self, from: AddressBlock, payload: T) -> Result<Admitted<T>, T> {
        let room = match self.crowded(from) {
            None => None,
            Some(block) => match self.oldest_idle_of(block) {
                None => return Err(payload),
                Some(oldest) => self.remove(oldest),
            },
        };
        Ok((self.insert(from, payload), room))
    }

    /// Takes in a connection, whatever the bounds are: one that another process has served before.
    pub fn insert(&mut self, from: AddressBlock, payload: T) -> Ticket {
        let ticket = self.next();
        self.entries.insert(ticket, Entry { block: from, idle_since: None, payload });
        self.blocks.entry(from).or_default().connections += 1;
        self.set_idle(ticket);
        ticket
    }

    /// Whether nobody can be admitted, wherever from.
    pub fn is_full(&self) -> bool {
        self.entries.len() >= self.bounds.connections
            && self.blocks.values().all(|block| block.idle.is_empty())
    }

    /// Notes that something is done for a connection: it makes room for nobody.
    pub fn set_busy(&mut self, ticket: Ticket) {
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        if let (Some(since), Some(block)) = (entry.idle_since.take(), self.blocks.get_mut(&entry.block)) {
            block.idle.remove(&since);
        }
    }

    /// Notes that nothing is done for a connection any more: it is the youngest idle one.
    pub fn set_idle(&mut self, ticket: Ticket) {
        let now = self.next();
        let Some(entry) = self.entries.get_mut(&ticket) else { return };
        let Some(block) = self.blocks.get_mut(&entry.block) else { return };
        if let Some(before) = entry.idle_since.replace(now) {
            block.idle.remove(&before);
        }
        block.idle.insert(now, ticket);
    }

    /// Forgets a connection, and its block with the last one of it.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let Entry { block: of, idle_since, payload } = self.entries.remove(&ticket)?;
        if let Some(block) = self.blocks.get_mut(&of) {
            block.connections -= 1;
            idle_since.map(|since| block.idle.remove(&since));
            if block.connections == 0 {
                self.blocks.remove(&of);
            }
        }
        Some(payload)
    }

    /// The number of connections.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is no connection, and so no block either.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.blocks.is_empty()
    }

    /// The block of which one must go before one of `from` comes; `None` while there is room.
    fn crowded(&self, from: AddressBlock) -> Option<AddressBlock> {
        let there = self.blocks.get(&from).map_or(0, |block| block.connections);
        if from != AddressBlock::Loopback && there >= self.bounds.per_block {
            return Some(from);
        }
        if self.entries.len() < self.bounds.connections {
            return None;
        }
        // Of those that have as many, the one with the oldest idle connection.
        let with_idle = self.blocks.iter().filter_map(|(of, block)| {
            let (oldest, _) = block.idle.first_key_value()?;
            Some((block.connections, std::cmp::Reverse(*oldest), *of))
        });
        Some(with_idle.max().map_or(from, |(.., of)| of))
    }

    fn oldest_idle_of(&self, block: AddressBlock) -> Option<Ticket> {
        self.blocks.get(&block)?.idle.first_key_value().map(|(_, ticket)| *ticket)
    }

    fn next(&mut self) -> u64 {
        self.last += 1;
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slots(connections: usize, per_block: usize) -> Slots<&'static str> {
        Slots::new(Bounds { connections, per_block })
    }

    fn from(address: &str) -> AddressBlock {
        AddressBlock::of(address.parse().unwrap())
    }

    #[test]
    fn an_address_stands_for_what_one_peer_has() {
        assert_eq!(from("192.0.2.1"), from("::ffff:192.0.2.1"));
        assert_ne!(from("192.0.2.1"), from("192.0.2.2"));
        assert_eq!(from("2001:db8::1"), from("2001:db8::ffff:1"));
        assert_ne!(from("2001:db8::1"), from("2001:db8:0:1::1"));
        assert_eq!((from("127.0.0.1"), from("127.9.9.9")), (from("::1"), AddressBlock::Loopback));
    }

    #[test]
    fn the_oldest_silent_connection_of_this_host_makes_room() {
        let mut slots = slots(3, 1);
        let local = AddressBlock::Loopback;
        let (first, _) = slots.admit(local, "first").unwrap();
        slots.admit(local, "second").unwrap();
        slots.admit(local, "third").unwrap();
        slots.set_busy(first);
        assert_eq!(slots.admit(local, "fourth").unwrap().1, Some("second"));
        slots.set_idle(first);
        assert_eq!(slots.admit(local, "fifth").unwrap().1, Some("third"));
        assert_eq!(slots.admit(local, "sixth").unwrap().1, Some("fourth"));
        assert_eq!(slots.admit(local, "seventh").unwrap().1, Some("first"));
        assert_eq!(slots.len(), 3);
    }

    #[test]
    fn a_crowded_block_makes_room_by_itself_and_when_all_is_full_the_most_crowded_does() {
        let mut slots = slots(4, 2);
        slots.admit(from("192.0.2.1"), "other").unwrap();
        slots.admit(from("2001:db8::1"), "a").unwrap();
        slots.admit(from("2001:db8::2"), "b").unwrap();
        assert_eq!(slots.admit(from("2001:db8::3"), "c").unwrap().1, Some("a"));
        slots.admit(from("192.0.2.2"), "another").unwrap();
        assert_eq!(slots.admit(from("192.0.2.3"), "third").unwrap().1, Some("b"));
        assert_eq!(slots.admit(from("192.0.2.4"), "fourth").unwrap().1, Some("other"), "now all have one");
    }

    #[test]
    fn where_all_is_busy_nobody_makes_room() {
        let mut slots = slots(2, 1);
        let (one, _) = slots.admit(from("192.0.2.1"), "one").unwrap();
        slots.set_busy(one);
        assert!(!slots.is_full(), "from elsewhere there is room");
        assert_eq!(slots.admit(from("192.0.2.1"), "one more"), Err("one more"));
        let (two, _) = slots.admit(from("192.0.2.2"), "two").unwrap();
        slots.set_busy(two);
        assert!(slots.is_full());
        assert_eq!(slots.admit(from("192.0.2.3"), "three"), Err("three"));
        slots.remove(one);
        assert!(slots.admit(from("192.0.2.3"), "three").is_ok());
    }

    #[test]
    fn nothing_is_left_of_a_thousand_blocks_that_have_gone() {
        let mut slots = slots(100, 10);
        for n in 0..1_000_u32 {
            slots.admit(AddressBlock::of(Ipv4Addr::from_bits(n).into()), "x").unwrap();
        }
        let all: Vec<Ticket> = slots.entries.keys().copied().collect();
        assert_eq!(all.len(), 100);
        assert!(all.into_iter().all(|ticket| slots.remove(ticket).is_some()));
        assert!(slots.is_empty());
    }
}
