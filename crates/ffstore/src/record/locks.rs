//! One lock for each key that is being loaded or written: one flight per key, and writers of one node do
//! not race each other.

use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};

/// The keys that are locked or waited for.
pub(crate) struct Locks<K>(Mutex<FxHashMap<K, Arc<AsyncMutex<()>>>>);

impl<K> Default for Locks<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash + Clone> Locks<K> {
    /// Waits for the lock, in the order of the calls. Cancel-safe.
    pub(crate) async fn lock(&self, key: &K) -> KeyGuard<'_, K> {
        // The guard stands from the start: it takes the entry out when the wait is dropped, too.
        let lock = self.0.lock().entry(key.clone()).or_default().clone();
        let mut guard = KeyGuard { locks: self, key: key.clone(), held: None };
        guard.held = Some(lock.lock_owned().await);
        guard
    }

    /// The lock, when nobody has it.
    pub(crate) fn try_lock(&self, key: &K) -> Option<KeyGuard<'_, K>> {
        let lock = self.0.lock().entry(key.clone()).or_default().clone();
        // As above: whoever has it may end while this clone of the lock is still there.
        let mut guard = KeyGuard { locks: self, key: key.clone(), held: None };
        guard.held = Some(lock.try_lock_owned().ok()?);
        Some(guard)
    }
}

/// The lock of a key, until it is dropped.
pub(crate) struct KeyGuard<'a, K: Eq + Hash> {
    locks: &'a Locks<K>,
    key: K,
    held: Option<OwnedMutexGuard<()>>,
}

impl<K: Eq + Hash> Drop for KeyGuard<'_, K> {
    fn drop(&mut self) {
        self.held = None;
        let mut all = self.locks.0.lock();
        // Only the map's own is left: nobody waits, and nobody can begin to while the map is locked.
        if all.get(&self.key).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            all.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_key_is_forgotten_when_nobody_has_or_waits_for_it() {
        let locks = Locks::default();
        let one = locks.lock(&1).await;
        assert!(locks.try_lock(&1).is_none());
        assert!(locks.try_lock(&2).is_some());
        let waits = locks.lock(&1);
        let late = tokio::time::timeout(std::time::Duration::from_millis(1), waits).await;
        assert!(late.is_err());
        drop(one);
        drop(locks.lock(&1).await);
        assert!(locks.0.lock().is_empty());
    }
}
