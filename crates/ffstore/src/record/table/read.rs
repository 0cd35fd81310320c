//! Reading records: memory first, then memcached, then the database; one flight per key; what is not there is
//! remembered, too.

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use tokio::time::Instant;

use super::mirror::MirrorCopy;
use super::{Inner, KEYS_AT_ONCE, Table};
use crate::db::Value;
use crate::record::RecordError;
use crate::record::counters::add;
use crate::record::shape::{Field, Record};

impl<T: Record> Table<T> {
    /// The record of a key; `None` when there is none. From memory it takes no await.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`RecordError::Db`], [`Misfit`](RecordError::Misfit).
    pub async fn get(&self, key: &T::Key) -> Result<Option<Arc<T>>, RecordError> {
        let asked = Instant::now();
        if let Some(found) = self.0.row_cache.lock().read(key, asked, asked) {
            add(&self.0.cx.counters.hits, 1);
            return Ok(found);
        }
        let _flight = self.0.locks.lock(key).await;
        // Whoever was in flight before has loaded it for all who waited.
        if let Some(found) = self.0.row_cache.lock().read(key, asked, Instant::now()) {
            add(&self.0.cx.counters.hits, 1);
            return Ok(found);
        }
        self.0.load_one(key).await
    }

    /// The records of many keys in the order of the keys, in about one round trip.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    pub async fn get_many(&self, keys: &[T::Key]) -> Result<Vec<Option<Arc<T>>>, RecordError> {
        let inner = &self.0;
        let asked = Instant::now();
        let mut found: Vec<Option<Option<Arc<T>>>> = {
            let mut row_cache = inner.row_cache.lock();
            keys.iter().map(|key| row_cache.read(key, asked, asked)).collect()
        };
        let mut missing: Vec<&T::Key> =
            keys.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(key, _)| key).collect();
        add(&inner.cx.counters.hits, (keys.len() - missing.len()) as u64);
        missing.sort();
        missing.dedup();
        let mut loaded = FxHashMap::default();
        inner.load_mirrored(&mut missing, &mut loaded).await;
        for keys in missing.chunks(KEYS_AT_ONCE) {
            inner.load_many(keys, &mut loaded).await?;
        }
        for (key, found) in keys.iter().zip(&mut found) {
            if found.is_none() {
                *found = Some(loaded.get(key).cloned().flatten());
            }
        }
        Ok(found.into_iter().map(Option::flatten).collect())
    }

    /// Every record of an owner, in the order of the keys, as the database has them now, with what this node
    /// has written since.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`get`](Self::get); [`RecordError::Misuse`] when the record names no owner.
    pub async fn by_owner(&self, owner: &impl Field) -> Result<Vec<Arc<T>>, RecordError> {
        let shape = T::SHAPE;
        let Some(place) = shape.owner else {
            return Err(RecordError::Misuse { table: shape.table, reason: "the record has no owner" });
        };
        let (inner, owner) = (&self.0, owner.to_value());
        let names = inner.names();
        let sql = names.select_owned(shape.columns[place].name);
        let asked = Instant::now();
        let rows = inner.db.fetch_all(sql, std::slice::from_ref(&owner)).await?;
        add(&inner.cx.counters.misses, 1);
        let now = Instant::now();
        let mut all = BTreeMap::new();
        for row in &rows {
            let found = inner.parse(row)?;
            let key = found.value.key().clone();
            if let Some(value) =
                inner.row_cache.lock().learn(&key, Some(found.value), found.version, asked, now)
            {
                all.insert(key, value);
            }
        }
        // What is written behind may have come to this owner, or left it.
        let row_cache = inner.row_cache.lock();
        all.extend(row_cache.own().map(|(key, value)| (key.clone(), value.clone())));
        drop(row_cache);
        all.retain(|_, value| value.values().get(place) == Some(&owner));
        Ok(all.into_values().collect())
    }
}

impl<T: Record> Inner<T> {
    /// Loads one row, with its key locked.
    pub(crate) async fn load_one(&self, key: &T::Key) -> Result<Option<Arc<T>>, RecordError> {
        let asked = Instant::now();
        add(&self.cx.counters.misses, 1);
        if let Some(MirrorCopy { value: Some(value), version }) = self.mirrored(key).await {
            let newer = self.row_cache.lock().known(key).is_none_or(|known| known.version <= version);
            if newer {
                add(&self.cx.counters.mirror_hits, 1);
                let value = Some(Arc::new(value));
                return Ok(self.row_cache.lock().learn(key, value, version, asked, Instant::now()));
            }
        }
        let found = self.load_from_database(key).await?;
        if let Some(found) = &found {
            self.mirror(key, Some(&found.value), found.version).await;
        }
        let (value, version) = found.map_or((None, 0), |found| (Some(found.value), found.version));
        Ok(self.row_cache.lock().learn(key, value, version, asked, Instant::now()))
    }

    async fn load_many(
        &self,
        keys: &[&T::Key],
        loaded: &mut FxHashMap<T::Key, Option<Arc<T>>>,
    ) -> Result<(), RecordError> {
        let Some(last) = keys.last() else { return Ok(()) };
        add(&self.cx.counters.misses, keys.len() as u64);
        // Few different texts, so that the database's memory of statements is not flooded.
        let count = keys.len().next_power_of_two();
        let mut args: Vec<Value> = keys.iter().map(|key| key.to_value()).collect();
        args.resize(count, last.to_value());
        let asked = Instant::now();
        let rows = self.db.fetch_all(self.names().select_many(count), &args).await?;
        let now = Instant::now();
        let mut found = FxHashMap::default();
        for row in &rows {
            let row = self.parse(row)?;
            found.insert(row.value.key().clone(), row);
        }
        let mut row_cache = self.row_cache.lock();
        for key in keys {
            let row = found.remove(key);
            let (value, version) = row.map_or((None, 0), |row| (Some(row.value), row.version));
            loaded.insert((*key).clone(), row_cache.learn(key, value, version, asked, now));
        }
        Ok(())
    }
}
