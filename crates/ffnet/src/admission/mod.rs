//! The admission to a listening socket: connections that are idle, or have proved nothing yet, are bounded in number, in all and
//! per block of addresses; where there is no room, the oldest of them is ended.

mod slots;

use std::net::IpAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

pub use slots::{AddressBlock, Admitted, Bounds, Slots, Ticket};

/// The admission to one listening socket. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    bounds: Bounds,
    table: Mutex<Table>,
    /// Wakes who waits for room.
    freed: Notify,
}

#[derive(Debug)]
struct Table {
    slots: Slots<CancellationToken>,
    /// Connections that have a slot, or have lost it and are about to end.
    open: usize,
}

/// A connection's slot, from its admission until this is dropped.
#[derive(Debug)]
pub struct Slot {
    shared: Arc<Shared>,
    ticket: Ticket,
    evicted: CancellationToken,
}

impl Admission {
    /// The admission to a socket without connections.
    pub fn new(bounds: Bounds) -> Self {
        let table = Mutex::new(Table { slots: Slots::new(bounds), open: 0 });
        Self { shared: Arc::new(Shared { bounds, table, freed: Notify::new() }) }
    }

    /// A slot for a connection from that address, which is idle at first. `None`: there is no room, and nothing idle that could
    /// make some.
    pub fn admit(&self, from: IpAddr) -> Option<Slot> {
        let evicted = CancellationToken::new();
        let mut table = self.shared.table.lock();
        if table.open >= self.shared.bounds.open_max() {
            return None;
        }
        let (ticket, room) = table.slots.admit(AddressBlock::of(from), evicted.clone()).ok()?;
        table.open += 1;
        drop(table);
        room.inspect(CancellationToken::cancel);
        Some(Slot { shared: Arc::clone(&self.shared), ticket, evicted })
    }

    /// A slot whatever the bounds are, for a connection that another process has served before.
    pub fn take_in(&self, from: IpAddr) -> Slot {
        let evicted = CancellationToken::new();
        let mut table = self.shared.table.lock();
        let ticket = table.slots.insert(AddressBlock::of(from), evicted.clone());
        table.open += 1;
        drop(table);
        Slot { shared: Arc::clone(&self.shared), ticket, evicted }
    }

    /// Waits until a slot may have become free: one has ended, or has become idle. Cancel-safe; a change after the future was
    /// made is not missed.
    pub fn freed(&self) -> impl Future<Output = ()> + '_ {
        self.shared.freed.notified()
    }

    /// Whether nobody can be admitted: every slot is taken, and none of them is idle.
    pub fn is_full(&self) -> bool {
        let table = self.shared.table.lock();
        table.slots.is_full() || table.open >= self.shared.bounds.open_max()
    }

    /// The number of connections that have a slot.
    pub fn connections(&self) -> usize {
        self.shared.table.lock().slots.len()
    }
}

impl Slot {
    /// Waits until the connection must end, because it has made room for another one. Cancel-safe.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Notes that something is done for the connection.
    pub fn busy(&self) {
        self.shared.table.lock().slots.set_busy(self.ticket);
    }

    /// Notes that nothing is done for the connection any more.
    pub fn idle(&self) {
        self.shared.table.lock().slots.set_idle(self.ticket);
        self.shared.freed.notify_one();
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut table = self.shared.table.lock();
        table.slots.remove(self.ticket);
        table.open -= 1;
        drop(table);
        self.shared.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use futures_util::FutureExt;

    use super::*;

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn admission(connections: usize) -> Admission {
        Admission::new(Bounds { connections, per_block: connections })
    }

    #[test]
    fn so_many_slots_have_no_more_open_connections() {
        for open in 9..2_000 {
            let of = |connections| Bounds { connections, per_block: 1 }.open_max();
            let slots = Bounds::slots_of(open);
            assert!(of(slots) <= open && of(slots + 2) > open, "{open}: {slots}");
        }
        assert_eq!(Bounds::slots_of(5), 0);
    }

    #[test]
    fn who_makes_room_is_told_and_counts_until_its_end() {
        let admission = admission(2);
        let slots: Vec<Slot> = (0..2 + 8).map(|_| admission.admit(HERE).unwrap()).collect();
        let told = |slot: &Slot| slot.evicted().now_or_never().is_some();
        assert_eq!(slots.iter().filter(|slot| told(slot)).count(), 8);
        assert!(admission.admit(HERE).is_none(), "those that were told are still there");
        assert_eq!(admission.connections(), 2);
        drop(slots);
        assert!(admission.admit(HERE).is_some());
        assert_eq!(admission.connections(), 0);
    }

    #[test]
    fn a_slot_that_becomes_idle_or_ends_wakes_who_waits_for_one() {
        let admission = admission(1);
        let slot = admission.admit(HERE).unwrap();
        slot.busy();
        let freed = admission.freed();
        assert!(admission.admit(HERE).is_none());
        slot.idle();
        assert!(freed.now_or_never().is_some());
        let freed = admission.freed();
        drop(slot);
        assert!(freed.now_or_never().is_some());
    }

    #[test]
    fn a_connection_of_another_process_is_taken_in_above_the_bounds() {
        let admission = admission(1);
        let _slots = [admission.take_in(HERE), admission.take_in(HERE)];
        assert_eq!(admission.connections(), 2);
    }
}
