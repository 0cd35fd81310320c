//! Writing behind: the task of a table that brings dirty records to the database in batches, ends holds that
//! are not used, and sweeps memory.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream;
use tokio::time::{Instant, sleep_until};
use tracing::{error, warn};

use crate::db::{DbError, Value};

use super::RecordError;
use super::counters::add;
use super::shape::{Field as _, Record};
use super::slots::{Due, State};
use super::table::{Inner, KEYS_AT_ONCE, Unsure};

/// Records of one transaction: long enough to share the cost of a commit, short for who waits for the lock.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 4 * 1024 * 1024;
/// How soon a failed write-out is tried again, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// A record that the database refuses by itself is tried again so seldom.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);
/// A record that was not written to for so long is held no longer.
const HOLD_IDLE: Duration = Duration::from_secs(1);
/// How often idle holds and memory are looked at.
const SWEEP: Duration = Duration::from_millis(500);
/// A hold of which it is unsure whether the database has it is ended again and again for that long: by then a
/// late statement has run, or never will.
const UNSURE: Duration = Duration::from_secs(60);
/// Copies in memcached that are replaced at a time.
const TOLD_AT_ONCE: usize = 32;

impl<T: Record> Inner<T> {
    /// Runs until the node stops; then everything is written, and every hold ended, if the database lets it.
    pub(crate) async fn run(self: Arc<Self>) {
        let mut sweep_at = Instant::now() + SWEEP;
        let (mut again, mut not_before) = (AGAIN.0, Instant::now());
        loop {
            let due = self.slots.lock().next_due().map(|due| due.max(not_before));
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
        self.finish().await;
    }

    /// Everything to the database, as fast as it takes it, until all is there. The caller sets the deadline.
    async fn finish(&self) {
        let far = Instant::now() + Duration::from_secs(365 * 24 * 3600);
        let mut again = AGAIN.0;
        while self.slots.lock().next_due().is_some() {
            if self.flush_due(far).await.is_err() {
                tokio::time::sleep(again).await;
                again = (again * 2).min(AGAIN.1);
            }
        }
        while self.release_idle(Instant::now()).await.is_err() || self.slots.lock().held() > 0 {
            tokio::time::sleep(again).await;
            again = (again * 2).min(AGAIN.1);
        }
        self.end_unsure(Duration::ZERO).await;
    }

    async fn sweep(&self) {
        let now = Instant::now();
        // Failures are counted, and met again at the next sweep.
        let _later = self.release_idle(now.checked_sub(HOLD_IDLE).unwrap_or(now)).await;
        self.end_unsure(UNSURE).await;
        self.tell_untold().await;
        self.slots.lock().sweep(now);
    }

    /// Writes what is due by `until`.
    async fn flush_due(&self, until: Instant) -> Result<(), DbError> {
        loop {
            let batch = self.slots.lock().take_due(until, BATCH, BATCH_BYTES);
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
                }
                let pause = if refused { REFUSED_AGAIN } else { AGAIN.0 };
                let mut slots = self.slots.lock();
                batch.iter().for_each(|due| slots.failed(due, Instant::now() + pause));
                if refused { Ok(()) } else { Err(e) }
            }
        }
    }

    /// In one transaction; gives for each record whether its row was changed.
    async fn write_batch(&self, batch: &[Due<T::Key, T>]) -> Result<Vec<bool>, DbError> {
        let names = self.names();
        let (as_holder, over_read) = (names.update_held(), names.update_read());
        let statement = |due: &Due<T::Key, T>| {
            let mut args = due.value.values();
            let key = due.key.to_value();
            if due.state == State::Held {
                let hold = self.holds.lock().get(&due.key).copied().unwrap_or_default();
                let (version, holder) = (Value::Int(due.version), Value::Text(self.holder(hold)));
                args.extend([version.clone(), key, holder, version]);
                (as_holder.clone(), args)
            } else {
                args.extend([Value::Int(due.version + 1), key, Value::Int(due.version)]);
                (over_read.clone(), args)
            }
        };
        if let [due] = batch {
            let (sql, args) = statement(due);
            return Ok(vec![self.db.execute(sql, &args).await? == 1]);
        }
        let mut tx = self.db.begin().await?;
        let mut rows = Vec::with_capacity(batch.len());
        for due in batch {
            let (sql, args) = statement(due);
            rows.push(tx.execute(sql, &args).await? == 1);
        }
        tx.commit().await?;
        Ok(rows)
    }

    /// Takes in what became of a batch, and tells memcached.
    async fn settle(&self, batch: &[Due<T::Key, T>], rows: &[bool]) {
        let mut written = Vec::new();
        for (due, changed) in batch.iter().zip(rows) {
            let version = if due.state == State::Held { due.version } else { due.version + 1 };
            if *changed || matches!(self.is_there(due).await, Ok(true)) {
                self.slots.lock().written(due, version, Instant::now());
                if due.state == State::Held {
                    self.cx.journal.written(self.row(&due.key), version);
                }
                written.push((due, version));
            }
        }
        add(&self.cx.counters.flushed, written.len() as u64);
        if self.cx.shared.is_some() {
            let told = written.into_iter().map(|(due, version)| {
                let told = self.tell_shared(&due.key, Some(&due.value), version);
                Box::pin(told) as Pin<Box<dyn Future<Output = ()> + Send + '_>>
            });
            let told: Vec<_> = told.collect();
            stream::iter(told).buffer_unordered(TOLD_AT_ONCE).collect::<()>().await;
        }
    }

    /// Why a row was not changed: an earlier try of this same write has done it; it was written, released or
    /// deleted here meanwhile; or somebody else has the row, who then has won.
    async fn is_there(&self, due: &Due<T::Key, T>) -> Result<bool, DbError> {
        let again = Instant::now() + AGAIN.0;
        let known = self.slots.lock().known(&due.key).filter(|known| known.dirty);
        match known {
            None => return Ok(true),
            Some(known) if known.state == due.state => {}
            Some(_) => {
                // A loose one that has become held: it is written as such.
                self.slots.lock().failed(due, again);
                return Ok(false);
            }
        }
        let row = match self.db.fetch_optional(self.names().peek(), &[due.key.to_value()]).await {
            Ok(row) => row,
            Err(e) => {
                self.slots.lock().failed(due, again);
                return Err(e);
            }
        };
        let row = row.and_then(|row| Some((row.at::<i64>(0).ok()?, row.at::<String>(1).ok()?)));
        if due.state == State::Held {
            let hold = self.holds.lock().get(&due.key).copied().unwrap_or_default();
            let own = row.as_ref().is_some_and(|(_, holder)| *holder == self.holder(hold));
            if own {
                return Ok(true);
            }
            let holder = row.map_or_else(|| "nothing: it was deleted".to_owned(), |(_, holder)| holder);
            error!(
                "{}: {} was held here and was taken away by {holder:?}; version {} is lost",
                T::SHAPE.table,
                self.shown(&due.key),
                due.version
            );
            add(&self.cx.counters.fenced, 1);
            self.cx.journal.released(self.row(&due.key), hold);
            self.holds.lock().remove(&due.key);
        } else {
            add(&self.cx.counters.best_effort_lost, 1);
        }
        self.slots.lock().forget(&due.key);
        Ok(false)
    }

    /// Writes what waits for one record, and ends its hold. With its key locked.
    pub(crate) async fn let_go(&self, key: &T::Key) -> Result<(), RecordError> {
        let Some(known) = self.slots.lock().known(key).filter(|known| known.state == State::Held) else {
            return Ok(());
        };
        let Some(hold) = self.holds.lock().get(key).copied() else { return Ok(()) };
        if let Some(value) = known.value.filter(|_| known.dirty) {
            let version = known.version;
            let due = Due { key: key.clone(), value, version, state: State::Held };
            self.mark_untold(key);
            // No matter when it runs: it neither ends the hold nor goes over a newer version.
            let changed = self.write_batch(std::slice::from_ref(&due)).await?;
            if !changed.contains(&true) && !self.is_there(&due).await? {
                return Ok(());
            }
            self.cx.journal.written(self.row(key), version);
            self.tell_shared(key, Some(&due.value), version).await;
        }
        self.begin_release(key);
        self.release_now(&[(key.clone(), hold)]).await
    }

    /// From now on the slot is a copy of the database's row, whatever becomes of the statement.
    fn begin_release(&self, key: &T::Key) {
        self.slots.lock().release(key, Instant::now());
        if let Some(hold) = self.holds.lock().remove(key) {
            self.unsure.lock().push(Unsure { key: key.clone(), hold, since: Instant::now() });
        }
    }

    /// Ends holds in the database.
    pub(crate) async fn release_now(&self, holds: &[(T::Key, u64)]) -> Result<(), RecordError> {
        for (key, hold) in holds {
            let args = [Value::Text(self.holder(*hold)), key.to_value()];
            self.db.execute(self.names().release(1), &args).await?;
            self.ended(key, *hold);
        }
        Ok(())
    }

    fn ended(&self, key: &T::Key, hold: u64) {
        self.unsure.lock().retain(|unsure| unsure.hold != hold);
        self.cx.journal.released(self.row(key), hold);
    }

    /// Ends the holds of rows that were not written to since `since`, and that nobody writes now.
    async fn release_idle(&self, since: Instant) -> Result<(), RecordError> {
        let idle = self.slots.lock().idle_holds(since);
        for keys in idle.chunks(KEYS_AT_ONCE) {
            let flights: Vec<_> =
                keys.iter().filter_map(|key| Some((key, self.locks.try_lock(key)?))).collect();
            let mut ending = Vec::with_capacity(flights.len());
            for (key, _flight) in &flights {
                // Written to since it was looked at.
                if self.slots.lock().known(key).is_none_or(|known| known.dirty || known.state != State::Held)
                {
                    continue;
                }
                if let Some(hold) = self.holds.lock().get(*key).copied() {
                    ending.push(((*key).clone(), hold));
                }
                self.begin_release(key);
            }
            self.release_many(&ending).await?;
        }
        Ok(())
    }

    async fn release_many(&self, ending: &[(T::Key, u64)]) -> Result<(), RecordError> {
        if ending.is_empty() {
            return Ok(());
        }
        let sql = self.names().release(1);
        let mut tx = self.db.begin().await?;
        for (key, hold) in ending {
            tx.execute(sql.clone(), &[Value::Text(self.holder(*hold)), key.to_value()]).await?;
        }
        tx.commit().await?;
        ending.iter().for_each(|(key, hold)| self.ended(key, *hold));
        Ok(())
    }

    /// Ends holds that the database may have. They stay unsure until no late statement can make them.
    async fn end_unsure(&self, keep: Duration) {
        let unsure = self.unsure.lock().clone();
        for Unsure { key, hold, since } in unsure {
            // Who is about to become the holder has the lock, and knows better in a moment.
            let Some(_flight) = self.locks.try_lock(&key) else { continue };
            if !self.unsure.lock().iter().any(|unsure| unsure.hold == hold) {
                continue;
            }
            let args = [Value::Text(self.holder(hold)), key.to_value()];
            if let Err(e) = self.db.execute(self.names().release(1), &args).await {
                warn!("{}: holds cannot be ended yet: {}", T::SHAPE.table, fftelemetry::chain(&e));
                return;
            }
            if since.elapsed() >= keep {
                self.ended(&key, hold);
            }
        }
    }
}

/// The record itself is refused, not the database lost.
fn is_of_one_record(error: &DbError) -> bool {
    matches!(error, DbError::Statement { .. } | DbError::Duplicate { .. } | DbError::Column { .. })
}
