//! The mirror: copies of rows in memcached, for other nodes. They are only ever read: no write trusts them, so a copy
//! that is evicted, flushed or old costs a reading of the database, and never a row.

use std::sync::Arc;
use std::time::Duration;

use rustc_hash::FxHashMap;
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::Inner;
use crate::cache::{Cache, CacheError};
use crate::record::counters::add;
use crate::record::shape::{Field as _, Record};
use crate::rows::codec::{self, Reader};

/// How long nodes may read a copy in memcached that could not be told of a write.
const MIRROR_LIFE: Duration = Duration::from_secs(60);
/// How often a copy is tried to be replaced while other nodes do the same.
const TRIES: u32 = 4;
/// Keys whose copies could not be replaced or deleted, at a time. Beyond it a copy lives on for its time.
const STALE_MAX: usize = 100_000;

/// A copy in memcached. Without a value it says that the row was deleted.
pub(crate) struct MirrorCopy<T> {
    pub(crate) value: Option<T>,
    pub(crate) version: i64,
}

impl<T: Record> MirrorCopy<T> {
    fn encode(value: Option<&T>, version: i64) -> Vec<u8> {
        let mut bytes = version.to_le_bytes().to_vec();
        if let Some(value) = value {
            codec::write_values(&value.values(), &mut bytes);
        }
        bytes
    }

    /// `None` for what no version of this program has written.
    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut reader = Reader::new(bytes);
        let version = reader.i64().ok()?;
        if reader.is_empty() {
            return Some(Self { value: None, version });
        }
        let values = reader.values().ok()?;
        reader.end().ok()?;
        Some(Self { value: Some(T::from_values(values).ok()?), version })
    }
}

impl<T: Record> Inner<T> {
    /// `r:TABLE:COLUMNS:KEY`; with other columns it is another copy.
    fn mirror_key(&self, key: &T::Key) -> Vec<u8> {
        let shape = T::SHAPE;
        let mut columns = Sha256::new();
        for column in shape.columns {
            columns.update(format!("{} {:?};", column.name, column.kind));
        }
        let columns: u32 = columns.finalize().iter().take(4).fold(0, |n, byte| n << 8 | u32::from(*byte));
        let mut bytes = format!("r:{}:{}:{columns:08x}:", shape.database, shape.table).into_bytes();
        codec::write_value(&key.to_value(), &mut bytes);
        bytes
    }

    /// The copy of a row; `None` when there is none, or memcached is lost.
    pub(crate) async fn mirrored(&self, key: &T::Key) -> Option<MirrorCopy<T>> {
        let cache = self.cx.mirror.as_ref()?;
        // A copy of which it is known here that it may be old.
        if self.stale.lock().contains(key) {
            return None;
        }
        match cache.get(self.mirror_key(key)).await {
            Ok(found) => MirrorCopy::decode(&found?),
            Err(_lost) => {
                add(&self.cx.counters.cache_failures, 1);
                None
            }
        }
    }

    /// Takes the keys that memcached has out of `missing`.
    pub(crate) async fn load_mirrored(
        &self,
        missing: &mut Vec<&T::Key>,
        loaded: &mut FxHashMap<T::Key, Option<Arc<T>>>,
    ) {
        let Some(cache) = self.cx.mirror.as_ref().filter(|_| !missing.is_empty()) else { return };
        let keys: Vec<_> = missing.iter().map(|key| self.mirror_key(key)).collect();
        let asked = Instant::now();
        let Ok(copies) = cache.get_many(&keys).await else {
            add(&self.cx.counters.cache_failures, 1);
            return;
        };
        let now = Instant::now();
        let mut copies = copies.into_iter();
        missing.retain(|key| {
            let copy = copies.next().flatten().and_then(|bytes| MirrorCopy::<T>::decode(&bytes));
            let Some(MirrorCopy { value: Some(value), version }) = copy else { return true };
            let mut row_cache = self.row_cache.lock();
            if self.stale.lock().contains(*key)
                || row_cache.known(key).is_some_and(|known| known.version > version)
            {
                return true;
            }
            add(&self.cx.counters.mirror_hits, 1);
            loaded.insert((*key).clone(), row_cache.learn(key, Some(Arc::new(value)), version, asked, now));
            false
        });
    }

    /// Makes the copy this one, unless a newer one is there. Without a value: the row was deleted.
    pub(crate) async fn mirror(&self, key: &T::Key, value: Option<&Arc<T>>, version: i64) {
        let Some(cache) = &self.cx.mirror else { return };
        // Until it is told, and when this future is dropped, the copy counts as old.
        self.mark_stale(key);
        let mirror_key = self.mirror_key(key);
        let bytes = MirrorCopy::encode(value.map(|value| &**value), version);
        match replace_older(cache, &mirror_key, &bytes, version).await {
            // What is too large leaves nothing behind, so readers ask the database.
            Ok(()) | Err(CacheError::TooLarge { .. }) => {
                self.stale.lock().remove(key);
            }
            Err(_lost) => add(&self.cx.counters.cache_failures, 1),
        }
    }

    /// From now on the copy may be old.
    pub(crate) fn mark_stale(&self, key: &T::Key) {
        if self.cx.mirror.is_some() {
            let mut stale = self.stale.lock();
            if stale.len() < STALE_MAX {
                stale.insert(key.clone());
            }
        }
    }

    /// Deletes the copies that may be old, until memcached fails again.
    pub(crate) async fn delete_stale(&self) {
        let Some(cache) = &self.cx.mirror else { return };
        let keys: Vec<T::Key> = self.stale.lock().iter().cloned().collect();
        for key in keys {
            // A write in flight tells it itself.
            let Some(_flight) = self.locks.try_lock(&key) else { continue };
            if cache.delete(self.mirror_key(&key)).await.is_err() {
                add(&self.cx.counters.cache_failures, 1);
                return;
            }
            self.stale.lock().remove(&key);
        }
    }
}

async fn replace_older(cache: &Cache, key: &[u8], bytes: &[u8], version: i64) -> Result<(), CacheError> {
    for _ in 0..TRIES {
        let stored = match cache.get_versioned(key).await? {
            None => cache.add(key, bytes, MIRROR_LIFE).await?,
            Some((old, at)) => {
                let known = old.first_chunk().map_or(i64::MIN, |bytes| i64::from_le_bytes(*bytes));
                if known >= version {
                    return Ok(());
                }
                cache.cas(key, bytes, MIRROR_LIFE, at).await?
            }
        };
        if stored {
            return Ok(());
        }
    }
    cache.delete(key).await.map(drop)
}
