//! Writing records. A durable write goes over the version that was read, or not at all; a write behind goes
//! to a row that this node holds, so that no other node can write it meanwhile.

use std::sync::Arc;
use std::time::Duration;

use ffambient::{Chance, Clock};
use tokio::time::{Instant, sleep};

use super::{Found, Inner, Table};
use crate::db::{DbError, Value};
use crate::record::RecordError;
use crate::record::counters::add;
use crate::record::locks::KeyGuard;
use crate::record::row_cache::RowState;
use crate::record::shape::{Field as _, Key as _, Record};
use crate::rows::journal::Entry;

/// How long a write waits for another node to release a record.
const HELD_WAIT: Duration = Duration::from_secs(3);
/// How often a write begins again because others were faster.
const TRIES: u32 = 64;
/// How late a best-effort write is in the database.
const BEST_EFFORT: Duration = Duration::from_secs(5);

/// When a write is in the database, and what may take it away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Save {
    /// Before the answer. Nothing takes it away.
    Durable,
    /// So much later at most, together with what is written meanwhile. In this node's journal before the
    /// answer: `kill -9` of the node takes nothing away, a power cut the last second. Other nodes see it
    /// when it is in the database, and cannot write the record until this node has released it, which it
    /// does a second after its last write.
    Within(Duration),
    /// Some seconds later. The death of the node takes it away, and so does another node's write.
    BestEffort,
}

impl Save {
    /// In the database at most so many milliseconds later: [`Save::Within`].
    pub fn within_ms(ms: u64) -> Self {
        Self::Within(Duration::from_millis(ms))
    }
}

/// A record on its way: as it was, and as it is to be.
struct Write<T: Record> {
    key: T::Key,
    old: Arc<T>,
    new: Arc<T>,
    version: i64,
    state: RowState,
    /// Read from the database by this very write, or held.
    certain: bool,
}

/// The result of a try.
enum WriteAttempt {
    Written,
    /// Another write was first; the row cache knows the database's rows now.
    Overtaken,
    /// Another node holds a row.
    Held {
        key: String,
        by: String,
    },
}

impl<T: Record> Table<T> {
    /// Inserts a record, durably, and gives it back: with the key that the database has made, if it makes
    /// them. Dropping the future leaves open whether it was inserted.
    ///
    /// # Errors
    /// [`RecordError::Exists`], [`Db`](RecordError::Db).
    pub async fn insert(&self, mut record: T) -> Result<Arc<T>, RecordError> {
        let (inner, shape) = (&self.0, T::SHAPE);
        // Larger than that of any earlier row of the key, so that an old copy cannot pass for this one.
        let version = first_version(&self.0.cx.ambient.clock);
        let mut args = record.values();
        let made = shape.auto.then(|| shape.key_column().name);
        if made.is_some() {
            args.remove(shape.key);
        }
        args.push(Value::Int(version));
        let sql = inner.names().insert(made);
        let _flight;
        if made.is_some() {
            let key = inner.names().quoted_key();
            let number =
                inner.db.insert_for_key(sql, &key, &args).await.map_err(|e| inner.refused(e, &record))?;
            let key = T::Key::from_made(number).ok_or(RecordError::Misuse {
                table: shape.table,
                reason: "the key that the database made does not fit the field",
            })?;
            record.set_key(key);
            _flight = inner.locks.lock(record.key()).await;
        } else {
            _flight = inner.locks.lock(record.key()).await;
            inner.mark_stale(record.key());
            inner.db.execute(sql, &args).await.map_err(|e| inner.refused(e, &record))?;
        }
        let (record, now) = (Arc::new(record), Instant::now());
        // Who saw the key that the database made may have written to it already.
        inner.row_cache.lock().learn(record.key(), Some(record.clone()), version, now, now);
        inner.mirror(record.key(), Some(&record), version).await;
        Ok(record)
    }

    /// Changes a record with a function of what it is now, and gives what the function gave. The function
    /// runs again when another write was first, so no update is lost; it may run several times, and one
    /// that changes nothing writes nothing. Dropping the future leaves open whether it was written.
    ///
    /// # Errors
    /// [`RecordError::is_unsent`] tells those after which nothing was changed.
    pub async fn update<R>(
        &self,
        key: &T::Key,
        save: Save,
        mut change: impl FnMut(&mut T) -> R,
    ) -> Result<R, RecordError> {
        let changed = self.0.change(&[key], save, |records| records.first_mut().map(&mut change)).await?;
        changed.ok_or_else(|| self.0.missing(key))
    }

    /// Changes two records, both or none: coins from one account to another.
    ///
    /// # Errors
    /// As [`update`](Self::update), and [`RecordError::Misuse`] when the keys are one.
    pub async fn update_two<R>(
        &self,
        one: &T::Key,
        other: &T::Key,
        save: Save,
        mut change: impl FnMut(&mut T, &mut T) -> R,
    ) -> Result<R, RecordError> {
        let keys = [one, other];
        let changed = self.0.change(&keys, save, |records| match records {
            [one, other] => Some(change(one, other)),
            _ => None,
        });
        changed.await?.ok_or_else(|| self.0.missing(one))
    }

    /// Changes many records, all of them or none (of best-effort writes: each for itself).
    ///
    /// # Errors
    /// As [`update_two`](Self::update_two).
    pub async fn update_many<R>(
        &self,
        keys: &[T::Key],
        save: Save,
        change: impl FnMut(&mut [T]) -> R,
    ) -> Result<R, RecordError> {
        let keys: Vec<&T::Key> = keys.iter().collect();
        self.0.change(&keys, save, change).await
    }

    /// Deletes a record, durably, with what waits to be written to it; whether there was one.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub async fn delete(&self, key: &T::Key) -> Result<bool, RecordError> {
        let inner = &self.0;
        let _flight = inner.locks.lock(key).await;
        let mut patience = Patience::new(T::SHAPE.table, &inner.cx.ambient.chance);
        loop {
            inner.let_go(key).await?;
            inner.mark_stale(key);
            let deleted = inner.db.execute(inner.names().delete(), &[key.to_value()]).await?;
            let known = inner.row_cache.lock().known(key).map_or(0, |known| known.version);
            if deleted == 1 {
                inner.row_cache.lock().put(key, None, 0, Instant::now());
                // Newer than any copy of the row.
                inner.mirror(key, None, known.max(first_version(&inner.cx.ambient.clock))).await;
                return Ok(true);
            }
            let Some(found) = inner.load_from_database(key).await? else {
                inner.row_cache.lock().put(key, None, 0, Instant::now());
                return Ok(false);
            };
            let tried = inner.overtaken(key, found).await?;
            patience.wait(tried).await?;
        }
    }
}

/// The version of a new row: microseconds since 1970. Updates count on from there, far more slowly.
fn first_version(clock: &Clock) -> i64 {
    i64::try_from(clock.now().as_micros()).unwrap_or(i64::MAX)
}

impl<T: Record> Inner<T> {
    fn refused(&self, error: DbError, record: &T) -> RecordError {
        match error {
            DbError::Duplicate { .. } => {
                RecordError::Exists { table: T::SHAPE.table, key: self.shown(record.key()) }
            }
            other => RecordError::Db(other),
        }
    }

    async fn change<R>(
        &self,
        keys: &[&T::Key],
        save: Save,
        mut change: impl FnMut(&mut [T]) -> R,
    ) -> Result<R, RecordError> {
        let _flights = self.lock_all(keys).await?;
        let mut patience = Patience::new(T::SHAPE.table, &self.cx.ambient.chance);
        let mut certain = false;
        loop {
            let mut writes = Vec::with_capacity(keys.len());
            for key in keys {
                writes.push(self.begin(key, save, certain).await?);
            }
            let mut records: Vec<T> = writes.iter().map(|write| (*write.old).clone()).collect();
            let result = change(&mut records);
            let all_certain = writes.iter().all(|write| write.certain);
            for (write, record) in writes.iter_mut().zip(records) {
                if *record.key() != write.key {
                    let reason = "an update may not change the key";
                    return Err(RecordError::Misuse { table: T::SHAPE.table, reason });
                }
                write.new = Arc::new(record);
            }
            // A loose record is not in the database, so a durable write of it is more than its change.
            let durable = save == Save::Durable;
            writes.retain(|write| write.new != write.old || (durable && write.state == RowState::Loose));
            if writes.is_empty() {
                // To change nothing is a decision, too: it is made over the database's row.
                if save == Save::BestEffort || all_certain {
                    return Ok(result);
                }
                certain = true;
                continue;
            }
            let tried = match save {
                Save::Durable => self.write_durable(&writes).await?,
                Save::Within(within) => self.write_behind(&mut writes, within).await?,
                Save::BestEffort => self.write_loose(&writes)?,
            };
            if matches!(tried, WriteAttempt::Written) {
                return Ok(result);
            }
            add(&self.cx.counters.conflicts, 1);
            certain = true;
            patience.wait(tried).await?;
        }
    }

    /// In the order of the keys, so that two calls never wait for each other.
    async fn lock_all(&self, keys: &[&T::Key]) -> Result<Vec<KeyGuard<'_, T::Key>>, RecordError> {
        let mut sorted = keys.to_vec();
        sorted.sort();
        if sorted.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(RecordError::Misuse { table: T::SHAPE.table, reason: "the same key is given twice" });
        }
        let mut flights = Vec::with_capacity(sorted.len());
        for key in sorted {
            flights.push(self.locks.lock(key).await);
        }
        Ok(flights)
    }

    /// The start of a write: the record as it is now. A durable write holds no row: what is written behind goes to the
    /// database first.
    async fn begin(&self, key: &T::Key, save: Save, certain: bool) -> Result<Write<T>, RecordError> {
        if save == Save::Durable {
            self.let_go(key).await?;
        }
        let now = Instant::now();
        // That there is none is not believed: another node may have made it since.
        let readable = matches!(self.row_cache.lock().read(key, now, now), Some(Some(_)));
        let mut read = false;
        if !readable {
            self.load_one(key).await?;
        } else if certain {
            let loose = self.row_cache.lock().known(key).is_some_and(|known| known.state != RowState::Clean);
            if !loose {
                self.reload(key).await?;
                read = true;
            }
        }
        let known = self.row_cache.lock().known(key).ok_or_else(|| self.missing(key))?;
        let old = known.value.ok_or_else(|| self.missing(key))?;
        let certain = read || known.state != RowState::Clean;
        Ok(Write {
            key: key.clone(),
            new: old.clone(),
            old,
            version: known.version,
            state: known.state,
            certain,
        })
    }

    /// Reads the database's row into the slot, whatever the slot knew; gives its holder.
    async fn reload(&self, key: &T::Key) -> Result<(), RecordError> {
        match self.load_from_database(key).await? {
            Some(found) => self.row_cache.lock().put(key, Some(found.value), found.version, Instant::now()),
            None => self.row_cache.lock().put(key, None, 0, Instant::now()),
        }
        Ok(())
    }

    /// Over the versions that were read, in one transaction when there are several.
    async fn write_durable(&self, writes: &[Write<T>]) -> Result<WriteAttempt, RecordError> {
        let names = self.names();
        let args = |write: &Write<T>| {
            let mut args = write.new.values();
            let key = write.key.to_value();
            args.extend([Value::Int(write.version + 1), key, Value::Int(write.version)]);
            args
        };
        writes.iter().for_each(|write| self.mark_stale(&write.key));
        let done = match writes {
            [write] => self.db.execute(names.update_read(), &args(write)).await.map(|rows| rows == 1),
            _ => self.write_in_one(writes.iter().map(args)).await,
        };
        match done {
            Ok(true) => {}
            Ok(false) | Err(DbError::Conflict { .. }) => {
                let mut tried = WriteAttempt::Overtaken;
                for write in writes {
                    match self.load_from_database(&write.key).await? {
                        None => self.row_cache.lock().put(&write.key, None, 0, Instant::now()),
                        Some(found) => {
                            if let held @ WriteAttempt::Held { .. } =
                                self.overtaken(&write.key, found).await?
                            {
                                tried = held;
                            }
                        }
                    }
                }
                return Ok(tried);
            }
            Err(error) => {
                // It may have been written: nothing that is known of the rows can be trusted.
                if matches!(error, DbError::Timeout { .. } | DbError::Lost { .. }) {
                    writes.iter().for_each(|write| self.row_cache.lock().forget(&write.key));
                }
                return Err(error.into());
            }
        }
        let now = Instant::now();
        for write in writes {
            self.row_cache.lock().put(&write.key, Some(write.new.clone()), write.version + 1, now);
        }
        for write in writes {
            self.mirror(&write.key, Some(&write.new), write.version + 1).await;
        }
        Ok(WriteAttempt::Written)
    }

    async fn write_in_one(&self, all: impl Iterator<Item = Vec<Value>>) -> Result<bool, DbError> {
        let sql = self.names().update_read();
        let mut tx = self.db.begin().await?;
        for args in all {
            if tx.execute(sql.clone(), &args).await? != 1 {
                tx.rollback().await?;
                return Ok(false);
            }
        }
        tx.commit().await?;
        Ok(true)
    }

    /// A row is another than was thought: takes it in. When it names a lease of this journal's that this node
    /// knows nothing of (a claim whose answer was lost), that is ended.
    async fn overtaken(&self, key: &T::Key, found: Found<T>) -> Result<WriteAttempt, RecordError> {
        self.row_cache.lock().put(key, Some(found.value), found.version, Instant::now());
        if let Some(lease) = self.own_lease(&found.holder) {
            self.release_now(&[(key.clone(), lease)]).await?;
            return Ok(WriteAttempt::Overtaken);
        }
        if found.holder.is_empty() {
            return Ok(WriteAttempt::Overtaken);
        }
        Ok(WriteAttempt::Held { key: self.shown(key), by: found.holder })
    }

    /// The state of a row that this node did not become the holder of.
    async fn unheld(&self, key: &T::Key) -> Result<WriteAttempt, RecordError> {
        match self.load_from_database(key).await? {
            Some(found) => self.overtaken(key, found).await,
            None => {
                self.row_cache.lock().put(key, None, 0, Instant::now());
                Err(self.missing(key))
            }
        }
    }

    /// To rows that this node holds, or becomes the holder of: in the journal, then in memory.
    async fn write_behind(
        &self,
        writes: &mut [Write<T>],
        within: Duration,
    ) -> Result<WriteAttempt, RecordError> {
        self.check_backlog(writes)?;
        for write in writes.iter_mut().filter(|write| write.state != RowState::Held) {
            match self.lease(&write.key, &write.old, write.version).await? {
                Some(version) => write.version = version,
                None => return self.unheld(&write.key).await,
            }
        }
        let writes = &*writes;
        let rows = writes.iter().map(|write| (self.row(&write.key), write.version + 1, write.new.values()));
        let entry = Entry::Rows { rows: rows.collect() };
        // When the future is dropped meanwhile, all of it is in the file or none: so it is here, too.
        let mut taking = TakenInAtEnd { inner: self, writes, within, done: false };
        self.cx.journal.append(entry).await.inspect_err(|e| {
            taking.done = true;
            if matches!(e, RecordError::Backlog { .. }) {
                add(&self.cx.counters.refused, 1);
            }
        })?;
        drop(taking);
        Ok(WriteAttempt::Written)
    }

    fn write_loose(&self, writes: &[Write<T>]) -> Result<WriteAttempt, RecordError> {
        self.check_backlog(writes)?;
        self.take_in(writes, Instant::now() + BEST_EFFORT);
        Ok(WriteAttempt::Written)
    }

    fn take_in(&self, writes: &[Write<T>], due: Instant) {
        let now = Instant::now();
        let mut row_cache = self.row_cache.lock();
        let before = row_cache.next_due();
        for write in writes {
            row_cache.write(&write.key, write.new.clone(), write.version, due, now);
        }
        if before.is_none_or(|before| due < before) {
            self.wake.notify_one();
        }
    }

    /// Refuses what would be too much to wait for the database.
    fn check_backlog(&self, writes: &[Write<T>]) -> Result<(), RecordError> {
        use std::sync::atomic::Ordering::Relaxed;
        let records = self.cx.backlog.records.load(Relaxed);
        let bytes = self.cx.backlog.bytes.load(Relaxed);
        let more: usize = writes.iter().map(|write| write.new.bytes()).sum();
        let row_cache = self.row_cache.lock();
        let new = |write: &&Write<T>| !row_cache.known(&write.key).is_some_and(|known| known.dirty);
        let new = writes.iter().filter(new).count();
        let held = row_cache.held();
        drop(row_cache);
        let full = new > 0 && records + new > self.cx.dirty_records_max;
        if full || bytes + more > self.cx.dirty_bytes_max || held > 2 * self.cx.dirty_records_max {
            add(&self.cx.counters.refused, 1);
            return Err(RecordError::Backlog { records, bytes });
        }
        Ok(())
    }
}

/// Writes that memory takes in when it is dropped.
struct TakenInAtEnd<'a, T: Record> {
    inner: &'a Inner<T>,
    writes: &'a [Write<T>],
    within: Duration,
    done: bool,
}

impl<T: Record> Drop for TakenInAtEnd<'_, T> {
    fn drop(&mut self) {
        if !self.done {
            self.inner.take_in(self.writes, Instant::now() + self.within);
        }
    }
}

/// The patience of a write: how long, and how often, it tries again.
struct Patience<'a> {
    table: &'static str,
    chance: &'a Chance,
    until: Instant,
    tries: u32,
}

impl<'a> Patience<'a> {
    fn new(table: &'static str, chance: &'a Chance) -> Self {
        Self { table, chance, until: Instant::now() + HELD_WAIT, tries: 0 }
    }

    /// Waits a little; the longer, the more often.
    async fn wait(&mut self, tried: WriteAttempt) -> Result<(), RecordError> {
        self.tries += 1;
        let pause = match tried {
            WriteAttempt::Held { key, by } => {
                if Instant::now() >= self.until {
                    return Err(RecordError::Held { table: self.table, key, by });
                }
                Duration::from_millis(20)
            }
            _ if self.tries >= TRIES => {
                return Err(RecordError::Contended { table: self.table, tries: self.tries });
            }
            _ if self.tries < 3 => return Ok(()),
            _ => Duration::from_millis(u64::from(self.tries.min(20))),
        };
        sleep(pause.mul_f64(0.5 + self.chance.share())).await;
        Ok(())
    }
}
