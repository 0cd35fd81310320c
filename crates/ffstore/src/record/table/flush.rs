//! Writing behind: the task of a table that brings dirty records to the database in batches, and sweeps memory.

use std::cmp::Ordering;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{Instant, sleep_until};
use tracing::{error, info};

use super::Inner;
use crate::db::{DbError, Sql, Value};
use crate::record::RecordError;
use crate::record::batch::{Guard, Part, Set};
use crate::record::counters::add;
use crate::record::error::is_of_one_record;
use crate::record::row_cache::{Due, RowState};
use crate::record::shape::{Field as _, Record};

/// Records of one transaction: long enough to share the cost of a commit, short for who waits for the lock.
const BATCH: usize = 1024;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How soon a failed write-out is tried again, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A record that the database refuses by itself is tried again so seldom; after the stop not at all.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// Later than all that is written at the stop.
const NEVER: Duration = Duration::from_secs(2 * YEAR);
const YEAR: u64 = 365 * 24 * 3600;
/// A record that was not written to for so long is held no longer.
const LEASE_IDLE: Duration = Duration::from_secs(1);
/// How often idle leases and memory are looked at.
const SWEEP: Duration = Duration::from_millis(500);
/// A lease of which it is unsure whether the database has it is ended again and again for that long: by then a
/// late statement has run, or never will.
const UNSURE: Duration = Duration::from_secs(60);
/// Copies in memcached that are replaced at a time.
const MIRRORED_AT_ONCE: usize = 32;

impl<T: Record> Inner<T> {
    /// Runs until the node stops; then everything is written, and every lease ended, if the database lets it.
    pub(crate) async fn run(self: Arc<Self>) {
        tokio::join!(self.write_when_due(), self.lease_when_asked());
        self.finish().await;
    }

    async fn write_when_due(&self) {
        let mut sweep_at = Instant::now() + SWEEP;
        let (mut again, mut not_before) = (AGAIN.0, Instant::now());
        loop {
            let due = self.row_cache.lock().next_due().map(|due| due.max(not_before));
            tokio::select! {
                biased;
                () = self.cx.stop.cancelled() => break,
                () = sleep_until(due.map_or(sweep_at, |due| due.min(sweep_at))) => {}
                () = self.wake.notified() => continue,
            }
            let now = Instant::now();
            if due.is_some_and(|due| due <= now) {
                match self.flush_due(now).await {
                    Ok(()) => again = AGAIN.0,
                    Err(_told) => {
                        again = (again * 2).min(AGAIN.1);
                        not_before = Instant::now() + again;
                    }
                }
            }
            if now >= sweep_at {
                self.sweep().await;
                sweep_at = Instant::now() + SWEEP;
            }
        }
    }

    /// Everything to the database, as fast as it takes it, until all is there but what it refuses. The caller sets
    /// the deadline.
    async fn finish(&self) {
        let far = Instant::now() + Duration::from_secs(YEAR);
        let mut again = AGAIN.0;
        while self.row_cache.lock().next_due().is_some_and(|due| due <= far) {
            if self.flush_due(far).await.is_err() {
                tokio::time::sleep(again).await;
                again = (again * 2).min(AGAIN.1);
            }
        }
        // What was refused stays held, for the journal has it.
        while self.release_idle(Instant::now()).await.is_err() || self.row_cache.lock().is_any_idle() {
            tokio::time::sleep(again).await;
            again = (again * 2).min(AGAIN.1);
        }
        self.end_unsure(Duration::ZERO).await;
    }

    async fn sweep(&self) {
        let now = Instant::now();
        // Failures are counted, and met again at the next sweep.
        let _later = self.release_idle(now.checked_sub(LEASE_IDLE).unwrap_or(now)).await;
        self.end_unsure(UNSURE).await;
        self.delete_stale().await;
        self.row_cache.lock().sweep(now);
    }

    /// Writes what is due by `until`.
    async fn flush_due(&self, until: Instant) -> Result<(), DbError> {
        loop {
            let batch = self.row_cache.lock().take_due(until, BATCH, BATCH_BYTES);
            if batch.is_empty() {
                return Ok(());
            }
            self.flush_batch(batch).await?;
        }
    }

    async fn flush_batch(&self, batch: Vec<Due<T::Key, T>>) -> Result<(), DbError> {
        let started = Instant::now();
        let outcome = self.write_batch(&batch).await;
        self.cx.counters.flush_took(started.elapsed());
        match outcome {
            Ok(rows) => {
                self.writes_again();
                self.settle(&batch, &rows).await;
                Ok(())
            }
            Err(e) if is_of_one_record(&e) && batch.len() > 1 => {
                // One of them is to blame: the others must not wait for it.
                let mut last = Ok(());
                for due in batch {
                    let alone = Box::pin(self.flush_batch(vec![due])).await;
                    last = last.and(alone);
                }
                last
            }
            Err(e) => {
                add(&self.cx.counters.flush_failures, 1);
                let refused = is_of_one_record(&e);
                if refused {
                    let keys: Vec<_> = batch.iter().map(|due| self.shown(&due.key)).collect();
                    let keys = keys.join(", ");
                    let why = fftelemetry::chain(&e);
                    error!("{}: {keys} cannot be written behind and stays dirty: {why}", T::SHAPE.table);
                } else {
                    self.fails(&e);
                }
                let pause = match (refused, self.cx.stop.is_cancelled()) {
                    (false, _) => AGAIN.0,
                    (true, false) => REFUSED_AGAIN,
                    (true, true) => NEVER,
                };
                let mut row_cache = self.row_cache.lock();
                batch.iter().for_each(|due| row_cache.failed(due, Instant::now() + pause));
                if refused { Ok(()) } else { Err(e) }
            }
        }
    }

    /// The database takes nothing now: full, away, locked. Said once, for it is tried again all the while.
    fn fails(&self, error: &DbError) {
        let mut since = self.failing_since.lock();
        if since.is_none() {
            *since = Some(Instant::now());
            let why = fftelemetry::chain(error);
            error!("{}: nothing can be written behind; it waits, and is tried again: {why}", T::SHAPE.table);
        }
    }

    fn writes_again(&self) {
        if let Some(since) = self.failing_since.lock().take() {
            info!(
                "{}: it is written behind again, after {:.1} s",
                T::SHAPE.table,
                since.elapsed().as_secs_f64()
            );
        }
    }

    /// In one transaction; gives for each record whether its row was changed.
    async fn write_batch(&self, batch: &[Due<T::Key, T>]) -> Result<Vec<bool>, DbError> {
        if let [due] = batch {
            let (sql, args) = self.alone(due);
            return Ok(vec![self.db.execute(sql, &args).await? == 1]);
        }
        if self.write_many(batch).await? {
            return Ok(vec![true; batch.len()]);
        }
        // Some row is not as it was left here: one by one it is seen which.
        let mut tx = self.db.begin().await?;
        let mut rows = Vec::with_capacity(batch.len());
        for due in batch {
            let (sql, args) = self.alone(due);
            rows.push(tx.execute(sql, &args).await? == 1);
        }
        tx.commit().await?;
        Ok(rows)
    }

    /// Writes all of them, many by one statement; or none, and gives `false`, when a row is not as expected.
    async fn write_many(&self, batch: &[Due<T::Key, T>]) -> Result<bool, DbError> {
        let (held, loose): (Vec<_>, Vec<_>) = batch.iter().partition(|due| due.state == RowState::Held);
        let mut tx = self.db.begin().await?;
        for (guard, batch) in [(Guard::Held, held), (Guard::Read, loose)] {
            let many = self.many(guard, Set::Columns);
            let parts: Vec<Part> = batch.into_iter().map(|due| self.part(due)).collect();
            for run in many.runs(&parts) {
                let (sql, args) = many.statement(run);
                if tx.execute(sql, &args).await? != run.len() as u64 {
                    tx.rollback().await?;
                    return Ok(false);
                }
            }
        }
        tx.commit().await?;
        Ok(true)
    }

    fn part(&self, due: &Due<T::Key, T>) -> Part {
        let (version, guard) = if due.state == RowState::Held {
            (due.version, vec![Value::Text(self.holder_of(&due.key)), Value::Int(due.version)])
        } else {
            (due.version + 1, vec![Value::Int(due.version)])
        };
        let mut set = due.value.values();
        set.remove(T::SHAPE.key);
        set.push(Value::Int(version));
        Part { key: due.key.to_value(), guard, set }
    }

    /// The statement of one record by itself.
    fn alone(&self, due: &Due<T::Key, T>) -> (Sql, Vec<Value>) {
        let (names, key, mut args) = (self.names(), due.key.to_value(), due.value.values());
        if due.state == RowState::Held {
            let (version, holder) = (Value::Int(due.version), Value::Text(self.holder_of(&due.key)));
            args.extend([version.clone(), key, holder, version]);
            return (names.update_held(), args);
        }
        args.extend([Value::Int(due.version + 1), key, Value::Int(due.version)]);
        (names.update_read(), args)
    }

    /// Takes in what became of a batch, and brings the mirror up to date.
    async fn settle(&self, batch: &[Due<T::Key, T>], rows: &[bool]) {
        let mut written = Vec::new();
        for (due, changed) in batch.iter().zip(rows) {
            let version = if due.state == RowState::Held { due.version } else { due.version + 1 };
            let there = if *changed { Ok(FlushState::This) } else { self.is_there(due).await };
            let Ok(there @ (FlushState::This | FlushState::Newer)) = there else { continue };
            self.row_cache.lock().written(due, version, Instant::now());
            if due.state == RowState::Held {
                self.cx.journal.written(self.row(&due.key), version);
            }
            // Do not publish a newer row here: its writer does. Its version may be one that another value had once.
            if there == FlushState::This {
                written.push((due, version));
            }
        }
        add(&self.cx.counters.flushed, written.len() as u64);
        if self.cx.mirror.is_some() {
            let told = written.into_iter().map(|(due, version)| {
                let told = self.mirror(&due.key, Some(&due.value), version);
                Box::pin(told) as Pin<Box<dyn Future<Output = ()> + Send + '_>>
            });
            let told: Vec<_> = told.collect();
            stream::iter(told).buffer_unordered(MIRRORED_AT_ONCE).collect::<()>().await;
        }
    }

    /// Why a row was not changed: an earlier try of this same write has done it; it was written, released or
    /// deleted here meanwhile; or somebody else has the row, who then has won.
    async fn is_there(&self, due: &Due<T::Key, T>) -> Result<FlushState, DbError> {
        let again = Instant::now() + AGAIN.0;
        let known = self.row_cache.lock().known(&due.key).filter(|known| known.dirty);
        match known {
            None => return Ok(FlushState::Newer),
            Some(known) if known.state == due.state => {}
            Some(_) => {
                // A loose one that has become held: it is written as such.
                self.row_cache.lock().failed(due, again);
                return Ok(FlushState::Not);
            }
        }
        let row = match self.db.fetch_optional(self.names().peek(), &[due.key.to_value()]).await {
            Ok(row) => row,
            Err(e) => {
                self.row_cache.lock().failed(due, again);
                return Err(e);
            }
        };
        let row = row.and_then(|row| Some((row.at::<i64>(0).ok()?, row.at::<String>(1).ok()?)));
        if due.state == RowState::Held {
            let lease = self.leases.number(&due.key).unwrap_or_default();
            if let Some((version, holder)) = &row
                && *holder == self.holder(lease)
            {
                return Ok(match version.cmp(&due.version) {
                    Ordering::Equal => FlushState::This,
                    Ordering::Greater => FlushState::Newer,
                    Ordering::Less => {
                        self.row_cache.lock().failed(due, again);
                        FlushState::Not
                    }
                });
            }
            let holder = row.map_or_else(|| "nothing: it was deleted".to_owned(), |(_, holder)| holder);
            error!(
                "{}: {} was held here and was taken away by {holder:?}; version {} is lost",
                T::SHAPE.table,
                self.shown(&due.key),
                due.version
            );
            add(&self.cx.counters.fenced, 1);
            self.cx.journal.released(self.row(&due.key), lease);
            self.leases.forget(&due.key);
        } else {
            add(&self.cx.counters.best_effort_lost, 1);
        }
        self.row_cache.lock().forget(&due.key);
        Ok(FlushState::Not)
    }

    /// Writes what waits for one record, and ends its lease. With its key locked.
    pub(crate) async fn let_go(&self, key: &T::Key) -> Result<(), RecordError> {
        let Some(known) = self.row_cache.lock().known(key).filter(|known| known.state == RowState::Held)
        else {
            return Ok(());
        };
        let Some(lease) = self.leases.number(key) else { return Ok(()) };
        if let Some(value) = known.value.filter(|_| known.dirty) {
            let version = known.version;
            let due = Due { key: key.clone(), value, version, state: RowState::Held };
            self.mark_stale(key);
            // No matter when it runs: it neither ends the lease nor goes over a newer version.
            let changed = self.write_batch(std::slice::from_ref(&due)).await?;
            if !changed.contains(&true) && self.is_there(&due).await? == FlushState::Not {
                // Taken away; or still ours and not written, and then nobody may go over it.
                return match self.row_cache.lock().known(key) {
                    Some(known) if known.state == RowState::Held => {
                        Err(RecordError::Contended { table: T::SHAPE.table, tries: 1 })
                    }
                    _ => Ok(()),
                };
            }
            self.cx.journal.written(self.row(key), version);
            self.mirror(key, Some(&due.value), version).await;
        }
        self.begin_release(key);
        self.release_now(&[(key.clone(), lease)]).await
    }
}

/// The row that the database has, after a write whose statement changed none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FlushState {
    /// This very state: an earlier try has written it.
    This,
    /// A newer one of this node's, or the record is no longer its own.
    Newer,
    Not,
}
