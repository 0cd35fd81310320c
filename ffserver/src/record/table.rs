//! One table of records, as handlers see it: reading. Memory first, then memcached, then the database; one
//! flight per key; what is not there is remembered, too.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ffdata::{RowId, codec};
use ffproto::SessionId;
use parking_lot::Mutex;
use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::db::{Db, Row, Value};

use super::RecordError;
use super::counters::{RecordCounters, add};
use super::hold::Asked;
use super::journal::Journal;
use super::locks::Locks;
use super::shape::{Field, Record};
use super::shared::SharedCopy;
use super::slots::{Backlog, Bounds, Slots};
use super::sql::Names;

/// Keys of one statement: far below what any of the databases takes.
pub(crate) const KEYS_AT_ONCE: usize = 500;

/// What all tables of a node have in common.
pub(crate) struct Context {
    pub(crate) journal: Journal,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) counters: Arc<RecordCounters>,
    pub(crate) bounds: Bounds,
    pub(crate) dirty_records_max: usize,
    pub(crate) dirty_bytes_max: usize,
    /// memcached; `None` when the node has only its own memory.
    pub(crate) shared: Option<Cache>,
    pub(crate) stop: CancellationToken,
    /// Whether a session lives, as far as the node knows.
    pub(crate) sessions: OnceLock<Box<dyn Fn(SessionId) -> bool + Send + Sync>>,
}

impl Context {
    /// Without a node all of them do.
    pub(crate) fn lives(&self, session: SessionId) -> bool {
        self.sessions.get().is_none_or(|lives| lives(session))
    }
}

/// A table of records of type `T`: an argument of a handler, and [`Node::table`](crate::Node::table).
/// Clones share it.
///
/// A record that is read is at most `limits.record_fresh_ms` older than the database's row; what this node
/// has written itself is read at once. Operations that write are safe against each other on all nodes.
pub struct Table<T: Record>(pub(crate) Arc<Inner<T>>);

impl<T: Record> Clone for Table<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: Record> std::fmt::Debug for Table<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "table {}", T::SHAPE.table)
    }
}

pub(crate) struct Inner<T: Record> {
    pub(crate) db: Db,
    pub(crate) cx: Arc<Context>,
    pub(crate) slots: Mutex<Slots<T>>,
    pub(crate) locks: Locks<T::Key>,
    /// Its number in the journal.
    pub(crate) number: u32,
    /// Wakes the task that writes behind.
    pub(crate) wake: Notify,
    /// The numbers of the rows' holds.
    pub(crate) holds: Mutex<FxHashMap<T::Key, u64>>,
    /// Rows that somebody waits to hold, and what wakes who sees to it.
    pub(crate) asked: Mutex<Vec<Asked<T::Key>>>,
    pub(crate) ask: Notify,
    /// Holds that the database may still have: to be released until it says that it has not.
    /// By their numbers.
    pub(crate) unsure: Mutex<BTreeMap<u64, Unsure<T::Key>>>,
    /// Keys in memcached that may be older than the database's row: to be deleted.
    pub(crate) untold: Mutex<FxHashSet<T::Key>>,
    /// The records of sessions, see [`Table::keep`].
    pub(crate) kept: Mutex<HashMap<SessionId, Vec<T::Key>>>,
}

/// A hold whose end, or beginning, was not seen.
#[derive(Debug, Clone)]
pub(crate) struct Unsure<K> {
    pub(crate) key: K,
    pub(crate) since: Instant,
    /// Its beginning was seen, so no late statement can make it: one that ends it is enough.
    pub(crate) begun: bool,
}

/// A row as the database has it.
pub(crate) struct Found<T> {
    pub(crate) value: Arc<T>,
    pub(crate) version: i64,
    pub(crate) holder: String,
}

impl<T: Record> Table<T> {
    pub(crate) fn new(db: Db, cx: Arc<Context>) -> Self {
        let shape = T::SHAPE;
        let number = cx.journal.table(ffdata::journal::Table {
            database: shape.database.to_owned(),
            name: shape.table.to_owned(),
            key: shape.key_column().name.to_owned(),
            columns: shape.columns.iter().map(|column| column.name.to_owned()).collect(),
        });
        let slots = Mutex::new(Slots::new(cx.bounds, cx.backlog.clone()));
        Self(Arc::new(Inner {
            db,
            cx,
            slots,
            locks: Locks::default(),
            number,
            wake: Notify::new(),
            holds: Mutex::default(),
            asked: Mutex::default(),
            ask: Notify::new(),
            unsure: Mutex::default(),
            untold: Mutex::default(),
            kept: Mutex::default(),
        }))
    }

    /// The record of a key; `None` when there is none. From memory it takes no await.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// [`RecordError::Db`], [`Misfit`](RecordError::Misfit).
    pub async fn get(&self, key: &T::Key) -> Result<Option<Arc<T>>, RecordError> {
        let asked = Instant::now();
        if let Some(found) = self.0.slots.lock().read(key, asked, asked) {
            add(&self.0.cx.counters.hits, 1);
            return Ok(found);
        }
        let _flight = self.0.locks.lock(key).await;
        // Whoever was in flight before has loaded it for all who waited.
        if let Some(found) = self.0.slots.lock().read(key, asked, Instant::now()) {
            add(&self.0.cx.counters.hits, 1);
            return Ok(found);
        }
        self.0.load(key).await
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
            let mut slots = inner.slots.lock();
            keys.iter().map(|key| slots.read(key, asked, asked)).collect()
        };
        let mut missing: Vec<&T::Key> =
            keys.iter().zip(&found).filter(|(_, found)| found.is_none()).map(|(key, _)| key).collect();
        add(&inner.cx.counters.hits, (keys.len() - missing.len()) as u64);
        missing.sort();
        missing.dedup();
        let mut loaded = FxHashMap::default();
        inner.load_shared(&mut missing, &mut loaded).await;
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
            if let Some(value) = inner.slots.lock().learn(&key, Some(found.value), found.version, asked, now)
            {
                all.insert(key, value);
            }
        }
        // What is written behind may have come to this owner, or left it.
        let slots = inner.slots.lock();
        all.extend(slots.own().map(|(key, value)| (key.clone(), value.clone())));
        drop(slots);
        all.retain(|_, value| value.values().get(place) == Some(&owner));
        Ok(all.into_values().collect())
    }
}

impl<T: Record> Inner<T> {
    pub(crate) fn names(&self) -> Names<'static> {
        const { assert!(T::SHAPE.key < T::SHAPE.columns.len()) };
        let shape: &'static super::Shape = const { &T::SHAPE };
        Names::of(shape, self.db.dialect())
    }

    /// Loads one row, with its key locked.
    pub(crate) async fn load(&self, key: &T::Key) -> Result<Option<Arc<T>>, RecordError> {
        let asked = Instant::now();
        add(&self.cx.counters.misses, 1);
        if let Some(SharedCopy { value: Some(value), version }) = self.shared_copy(key).await {
            let newer = self.slots.lock().known(key).is_none_or(|known| known.version <= version);
            if newer {
                add(&self.cx.counters.shared_hits, 1);
                let value = Some(Arc::new(value));
                return Ok(self.slots.lock().learn(key, value, version, asked, Instant::now()));
            }
        }
        let found = self.load_from_database(key).await?;
        if let Some(found) = &found {
            self.tell_shared(key, Some(&found.value), found.version).await;
        }
        let (value, version) = found.map_or((None, 0), |found| (Some(found.value), found.version));
        Ok(self.slots.lock().learn(key, value, version, asked, Instant::now()))
    }

    pub(crate) async fn load_from_database(&self, key: &T::Key) -> Result<Option<Found<T>>, RecordError> {
        let row = self.db.fetch_optional(self.names().select_one(), &[key.to_value()]).await?;
        row.map(|row| self.parse(&row)).transpose()
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
        let mut slots = self.slots.lock();
        for key in keys {
            let row = found.remove(key);
            let (value, version) = row.map_or((None, 0), |row| (Some(row.value), row.version));
            loaded.insert((*key).clone(), slots.learn(key, value, version, asked, now));
        }
        Ok(())
    }

    pub(crate) fn parse(&self, row: &Row) -> Result<Found<T>, RecordError> {
        let width = T::SHAPE.columns.len();
        let values = (0..width).map(|place| row.at::<Value>(place)).collect::<Result<Vec<_>, _>>()?;
        let (version, holder) = (row.at::<i64>(width)?, row.at::<String>(width + 1)?);
        let value =
            T::from_values(values).map_err(|source| RecordError::Misfit { table: T::SHAPE.table, source })?;
        Ok(Found { value: Arc::new(value), version, holder })
    }

    /// The row in the journal.
    pub(crate) fn row(&self, key: &T::Key) -> RowId {
        let mut bytes = Vec::new();
        codec::write_value(&key.to_value(), &mut bytes);
        RowId { table: self.number, key: bytes.into() }
    }

    /// What a row says of a hold of this journal's.
    pub(crate) fn holder(&self, hold: u64) -> String {
        format!("{}#{hold}", self.cx.journal.id())
    }

    /// The number of one of this journal's holds.
    pub(crate) fn own_hold(&self, holder: &str) -> Option<u64> {
        holder.strip_prefix(&**self.cx.journal.id())?.strip_prefix('#')?.parse().ok()
    }

    /// How a key is shown in errors and logs.
    pub(crate) fn shown(&self, key: &T::Key) -> String {
        const CHARS_MAX: usize = 80;
        let text = format!("{key:?}");
        match text.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => format!("{}…", &text[..end]),
            None => text,
        }
    }

    pub(crate) fn missing(&self, key: &T::Key) -> RecordError {
        RecordError::Missing { table: T::SHAPE.table, key: self.shown(key) }
    }
}

/// How long nodes may read a copy in memcached that could not be told of a write.
pub(crate) const SHARED_LIFE: Duration = Duration::from_secs(60);
