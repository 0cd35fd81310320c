//! The leases on one table's rows, as far as this node knows: those that it has, those that the database may have, and
//! those that somebody asks for.

use std::collections::BTreeMap;
use std::hash::Hash;
use std::time::Duration;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;

use crate::db::DbError;

/// A row that somebody waits to hold.
pub(crate) struct Asked<K> {
    pub(crate) key: K,
    /// The version as it was read.
    pub(crate) version: i64,
    pub(crate) lease: u64,
    pub(crate) answer: oneshot::Sender<Result<bool, DbError>>,
}

impl<K> Asked<K> {
    /// Answers whether the row is leased. Who asked may be gone: then the lease stays unsure.
    pub(crate) fn answer(self, leased: Result<bool, DbError>) {
        let _gone = self.answer.send(leased);
    }
}

/// A lease whose end, or beginning, was not seen.
#[derive(Debug)]
struct Unsure<K> {
    key: K,
    since: Instant,
    /// Whether the lease's beginning was seen: then no late statement can make it, and one that ends it is enough.
    begun: bool,
}

/// The leases of one table, by the numbers that this node's journal gives them.
pub(crate) struct Leases<K> {
    numbers: Mutex<FxHashMap<K, u64>>,
    /// Leases that the database may still have, by number: to be released until it says that it has not.
    unsure: Mutex<BTreeMap<u64, Unsure<K>>>,
    asked: Mutex<Vec<Asked<K>>>,
    /// Wakes the task that answers who asks.
    ask: Notify,
}

impl<K> Default for Leases<K> {
    fn default() -> Self {
        Self {
            numbers: Mutex::default(),
            unsure: Mutex::default(),
            asked: Mutex::default(),
            ask: Notify::new(),
        }
    }
}

impl<K: Ord + Hash + Clone> Leases<K> {
    /// The number of the lease that this node has on a row.
    pub(crate) fn number(&self, key: &K) -> Option<u64> {
        self.numbers.lock().get(key).copied()
    }

    /// The node has the lease now, for sure.
    pub(crate) fn granted(&self, key: &K, lease: u64) {
        self.unsure.lock().remove(&lease);
        self.numbers.lock().insert(key.clone(), lease);
    }

    /// The node has no lease on the row any more; gives the number of the one that it had.
    pub(crate) fn forget(&self, key: &K) -> Option<u64> {
        self.numbers.lock().remove(key)
    }

    /// The database may have the lease. `begun`: it had it for sure, so no late statement can make it.
    pub(crate) fn doubt(&self, key: &K, lease: u64, begun: bool) {
        let unsure = Unsure { key: key.clone(), since: Instant::now(), begun };
        self.unsure.lock().insert(lease, unsure);
    }

    /// The database surely does not have the lease.
    pub(crate) fn settled(&self, lease: u64) {
        self.unsure.lock().remove(&lease);
    }

    /// The leases that are unsure, by row.
    pub(crate) fn unsure(&self) -> BTreeMap<K, Vec<u64>> {
        let mut by_key: BTreeMap<K, Vec<u64>> = BTreeMap::new();
        for (lease, unsure) in &*self.unsure.lock() {
            by_key.entry(unsure.key.clone()).or_default().push(*lease);
        }
        by_key
    }

    /// The leases, of these, that are still unsure.
    pub(crate) fn still_unsure(&self, leases: impl Iterator<Item = (K, u64)>) -> Vec<(K, u64)> {
        let unsure = self.unsure.lock();
        leases.filter(|(_, lease)| unsure.contains_key(lease)).collect()
    }

    /// Whether a statement that ended an unsure lease was the last word on it: its beginning was seen, or is `late`
    /// enough ago that no statement can still make it.
    pub(crate) fn is_over(&self, lease: u64, late: Duration) -> bool {
        let over = |unsure: &Unsure<K>| unsure.begun || unsure.since.elapsed() >= late;
        self.unsure.lock().get(&lease).is_some_and(over)
    }

    /// Asks for a lease, unless `stopped` says that nobody answers any more.
    pub(crate) fn ask(&self, asked: Asked<K>, stopped: impl FnOnce() -> bool) -> bool {
        {
            let mut all = self.asked.lock();
            if stopped() {
                return false;
            }
            all.push(asked);
        }
        self.ask.notify_one();
        true
    }

    /// Waits until somebody asks. Cancel-safe.
    pub(crate) async fn is_asked(&self) {
        self.ask.notified().await;
    }

    /// Takes what is asked for, in the order of the keys, so that the statements of two nodes rarely wait for each
    /// other in a circle.
    pub(crate) fn take_asked(&self) -> Vec<Asked<K>> {
        let mut asked = std::mem::take(&mut *self.asked.lock());
        // Of who has gone it stays unsure; no statement is made for him.
        asked.retain(|asked| !asked.answer.is_closed());
        asked.sort_by(|one, other| one.key.cmp(&other.key));
        asked
    }

    /// Nobody answers any more: who still waits sees it end.
    pub(crate) fn refuse_asked(&self) {
        self.asked.lock().clear();
    }
}
