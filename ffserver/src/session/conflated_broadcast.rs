//! Conflated broadcasts: updates for many clients of which only the latest matters, such as positions. They wait by key
//! and are sent once a tick.

use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffproto::CommandId;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::session::broadcast::Broadcasts;

/// A conflated broadcast: messages that wait for the next tick, of which a later one under the same key takes the place
/// of an earlier one. [`Broadcasts::every`] makes it. A handle; clones share what waits.
///
/// The messages of one tick go in the order in which their keys came first. A message that is sent by other means
/// meanwhile goes at once, so before them.
///
/// ```
/// use std::time::Duration;
/// use ffserver::prelude::*;
/// use ffserver::ConflatedBroadcast;
///
/// const AT: CommandId = CommandId(21);
///
/// struct World {
///     positions: ConflatedBroadcast, // `node.broadcasts().every(Duration::from_millis(50))`
/// }
///
/// impl World {
///     /// Of several moves within a tick everybody sees the last one.
///     fn moved(&self, player: u64, to: &str) {
///         self.positions.to_all(AT, player, to.to_owned());
///     }
/// }
/// # fn used(node: &Node) { World { positions: node.broadcasts().every(Duration::from_millis(50)) }.moved(1, "x") }
/// ```
#[derive(Debug, Clone)]
pub struct ConflatedBroadcast(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    broadcasts: Broadcasts,
    tick: Duration,
    bytes_max: usize,
    waiting: Mutex<PendingUpdates<UpdateSlot>>,
}

/// The slot of an update: a later one in the same slot replaces it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct UpdateSlot {
    /// The group; `None` for every client.
    group: Option<Arc<str>>,
    command: CommandId,
    key: u64,
}

/// The latest update of each slot, in the order in which the slots came.
#[derive(Debug)]
struct PendingUpdates<S> {
    places: FxHashMap<S, usize>,
    updates: Vec<(S, Bytes)>,
    bytes: usize,
    /// Whether a tick is on its way.
    ticking: bool,
}

impl<S> Default for PendingUpdates<S> {
    fn default() -> Self {
        Self { places: FxHashMap::default(), updates: Vec::new(), bytes: 0, ticking: false }
    }
}

impl<S: Hash + Eq + Clone> PendingUpdates<S> {
    fn put(&mut self, slot: S, body: Bytes) {
        self.bytes += body.len();
        match self.places.get(&slot).and_then(|at| self.updates.get_mut(*at)) {
            Some((_, known)) => {
                self.bytes -= known.len();
                *known = body;
            }
            None => {
                self.places.insert(slot.clone(), self.updates.len());
                self.updates.push((slot, body));
            }
        }
    }

    fn take(&mut self) -> Vec<(S, Bytes)> {
        self.places.clear();
        self.bytes = 0;
        std::mem::take(&mut self.updates)
    }
}

impl ConflatedBroadcast {
    pub(super) fn new(broadcasts: Broadcasts, tick: Duration) -> Self {
        let (bytes_max, waiting) = (broadcasts.identity().limits().latest_bytes_max, Mutex::default());
        Self(Arc::new(Inner { broadcasts, tick, bytes_max, waiting }))
    }

    /// Sends to the clients in a group with the next tick, unless another update of the same group, command and
    /// key comes before.
    pub fn to_group(&self, group: &str, command: CommandId, key: u64, body: impl Into<Bytes>) {
        self.put(UpdateSlot { group: Some(group.into()), command, key }, body.into());
    }

    /// Sends to every client of the cluster with the next tick, as [`ConflatedBroadcast::to_group`] does to a group.
    pub fn to_all(&self, command: CommandId, key: u64, body: impl Into<Bytes>) {
        self.put(UpdateSlot { group: None, command, key }, body.into());
    }

    /// Sends what waits now, without waiting for the tick.
    pub fn flush(&self) {
        let updates = self.0.waiting.lock().take();
        self.send(updates);
    }

    fn put(&self, slot: UpdateSlot, body: Bytes) {
        let mut waiting = self.0.waiting.lock();
        waiting.put(slot, body);
        let now = if waiting.bytes > self.0.bytes_max { waiting.take() } else { Vec::new() };
        let begins = !std::mem::replace(&mut waiting.ticking, true);
        drop(waiting);
        self.send(now);
        if begins {
            let latest = self.clone();
            // A node that stops waits for the tick: the last updates go as well.
            self.0.broadcasts.identity().tasks().ticks().spawn(latest.tick());
        }
    }

    /// Ticks until nothing has come since the last one.
    async fn tick(self) {
        loop {
            tokio::time::sleep(self.0.tick).await;
            let updates = {
                let mut waiting = self.0.waiting.lock();
                waiting.ticking = !waiting.updates.is_empty();
                waiting.take()
            };
            if updates.is_empty() {
                return;
            }
            self.send(updates);
        }
    }

    fn send(&self, updates: Vec<(UpdateSlot, Bytes)>) {
        for (UpdateSlot { group, command, .. }, body) in updates {
            match group {
                Some(group) => drop(self.0.broadcasts.to_group(&group, command, &body)),
                None => drop(self.0.broadcasts.to_all(command, &body)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_each_key_the_latest_is_kept_in_the_order_of_the_keys_and_its_bytes_are_counted() {
        let mut waiting = PendingUpdates::default();
        for (key, body) in [(1, "a"), (2, "bbb"), (1, "cc"), (3, "d"), (2, "b")] {
            waiting.put(key, Bytes::from_static(body.as_bytes()));
        }
        assert_eq!(waiting.bytes, 4);
        assert_eq!(waiting.take(), [(1, "cc".into()), (2, "b".into()), (3, "d".into())]);
        assert_eq!((waiting.bytes, waiting.take().len()), (0, 0));
        waiting.put(2, Bytes::from_static(b"new"));
        assert_eq!(waiting.take(), [(2, "new".into())]);
    }
}
