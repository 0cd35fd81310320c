//! Leasing: how a node becomes the holder of rows, so that nobody else writes them, and how it ends that. Many rows
//! at a time: writers that come together share a statement.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use super::{Inner, KEYS_AT_ONCE};
use crate::db::{DbError, Row, Sql, Value};
use crate::record::RecordError;
use crate::record::batch::{Guard, Many, Part, Set};
use crate::record::leases::Asked;
use crate::record::row_cache::RowState;
use crate::record::shape::{Field as _, Record};
use crate::rows::journal::Entry;

/// Statements that run at a time: a row that somebody has locked keeps only those of its own statement waiting.
const LEASED_AT_ONCE: usize = 4;

impl<T: Record> Inner<T> {
    /// Becomes the holder of a row as it was read, and gives the version of the value then; `None` when the row is not
    /// as it was, or held. With its key locked.
    pub(crate) async fn lease(
        &self,
        key: &T::Key,
        value: &Arc<T>,
        version: i64,
    ) -> Result<Option<i64>, RecordError> {
        let lease = self.cx.journal.next_lease();
        // First in the journal, so that whoever finds it after our death knows what to release.
        self.cx.journal.append(Entry::Lease { row: self.row(key), number: lease }).await?;
        // Until it is known, and when this future is dropped, the database may have it.
        self.leases.doubt(key, lease, false);
        let (answer, answered) = oneshot::channel();
        let asked = Asked { key: key.clone(), version, lease, answer };
        if !self.leases.ask(asked, || self.cx.stop.is_cancelled()) {
            return Err(RecordError::Closed);
        }
        let held = match answered.await.map_err(|_ended| RecordError::Closed)? {
            Ok(held) => held,
            // It never left, so nothing of it can come.
            Err(e) if e.is_unsent() => {
                self.ended(key, lease);
                return Err(e.into());
            }
            Err(e) => return Err(e.into()),
        };
        if !held {
            self.ended(key, lease);
            return Ok(None);
        }
        self.leases.granted(key, lease);
        Ok(Some(self.row_cache.lock().lease(key, value, version, Instant::now())))
    }

    /// Runs until the node stops: answers those that wait to hold rows, all that wait at a time.
    pub(crate) async fn lease_when_asked(&self) {
        let mut running = FuturesUnordered::new();
        loop {
            let room = running.len() < LEASED_AT_ONCE;
            tokio::select! {
                biased;
                () = self.cx.stop.cancelled() => break,
                Some(()) = running.next(), if !running.is_empty() => {}
                () = self.leases.is_asked(), if room => {
                    let mut asked = self.leases.take_asked();
                    let many = self.many(Guard::Read, Set::Holder);
                    let parts: Vec<Part> = asked.iter().map(|asked| self.lease_part(asked)).collect();
                    for run in many.runs(&parts) {
                        let rest = asked.split_off(run.len());
                        let now = std::mem::replace(&mut asked, rest);
                        running.push(self.lease_run(many.statement(run), now));
                    }
                }
            }
        }
        // What runs has its own deadline.
        self.leases.refuse_asked();
        while running.next().await.is_some() {}
    }

    fn lease_part(&self, asked: &Asked<T::Key>) -> Part {
        Part {
            key: asked.key.to_value(),
            guard: vec![Value::Int(asked.version)],
            set: vec![Value::Text(self.holder(asked.lease))],
        }
    }

    async fn lease_run(&self, (sql, args): (Sql, Vec<Value>), asked: Vec<Asked<T::Key>>) {
        match self.db.execute(sql, &args).await {
            Ok(rows) if rows == asked.len() as u64 => {
                asked.into_iter().for_each(|asked| asked.answer(Ok(true)));
            }
            Ok(0) | Err(DbError::Conflict { .. }) => {
                asked.into_iter().for_each(|asked| asked.answer(Ok(false)));
            }
            // The database said how many, not which.
            Ok(_) => match self.holders(&asked).await {
                Ok(holders) => asked.into_iter().for_each(|asked| {
                    let ours = holders.get(&asked.key) == Some(&self.holder(asked.lease));
                    asked.answer(Ok(ours));
                }),
                Err(e) => asked.into_iter().for_each(|asked| asked.answer(Err(e.again()))),
            },
            Err(e) => asked.into_iter().for_each(|asked| asked.answer(Err(e.again()))),
        }
    }

    async fn holders(&self, asked: &[Asked<T::Key>]) -> Result<FxHashMap<T::Key, String>, DbError> {
        let keys: Vec<Value> = asked.iter().map(|asked| asked.key.to_value()).collect();
        let rows = self.db.fetch_all(self.names().holders(keys.len()), &keys).await?;
        let parse = |row: &Row| {
            let key = T::Key::from_value(row.at::<Value>(0).ok()?).ok()?;
            Some((key, row.at::<String>(1).ok()?))
        };
        Ok(rows.iter().filter_map(parse).collect())
    }

    pub(crate) fn many(&self, guard: Guard, set: Set) -> Many<'static> {
        Many { shape: const { &T::SHAPE }, dialect: self.db.dialect(), guard, set }
    }

    /// The holder that the row of a key names while it is held here.
    pub(crate) fn holder_of(&self, key: &T::Key) -> String {
        self.holder(self.leases.number(key).unwrap_or_default())
    }

    /// From now on the slot is a copy of the database's row, whatever becomes of the statement.
    pub(crate) fn begin_release(&self, key: &T::Key) {
        self.row_cache.lock().release(key, Instant::now());
        if let Some(lease) = self.leases.forget(key) {
            self.leases.doubt(key, lease, true);
        }
    }

    /// Ends leases in the database.
    pub(crate) async fn release_now(&self, leases: &[(T::Key, u64)]) -> Result<(), RecordError> {
        for (key, lease) in leases {
            let args = [Value::Text(self.holder(*lease)), key.to_value()];
            self.db.execute(self.names().release(1), &args).await?;
            self.ended(key, *lease);
        }
        Ok(())
    }

    fn ended(&self, key: &T::Key, lease: u64) {
        self.leases.settled(lease);
        self.cx.journal.released(self.row(key), lease);
    }

    /// Ends the leases of rows that were not written to since `since`, and that nobody writes now.
    pub(crate) async fn release_idle(&self, since: Instant) -> Result<(), RecordError> {
        let idle = self.row_cache.lock().idle_leases(since);
        for keys in idle.chunks(KEYS_AT_ONCE) {
            let flights: Vec<_> =
                keys.iter().filter_map(|key| Some((key, self.locks.try_lock(key)?))).collect();
            let mut ending = Vec::with_capacity(flights.len());
            for (key, _flight) in &flights {
                // Written to since it was looked at.
                if self
                    .row_cache
                    .lock()
                    .known(key)
                    .is_none_or(|known| known.dirty || known.state != RowState::Held)
                {
                    continue;
                }
                if let Some(lease) = self.leases.number(key) {
                    ending.push(((*key).clone(), lease));
                }
                self.begin_release(key);
            }
            self.release_many(&ending).await?;
        }
        Ok(())
    }

    async fn release_many(&self, ending: &[(T::Key, u64)]) -> Result<(), RecordError> {
        self.end_in_database(ending).await?;
        ending.iter().for_each(|(key, lease)| self.ended(key, *lease));
        Ok(())
    }

    /// In one transaction, many by one statement.
    async fn end_in_database(&self, ending: &[(T::Key, u64)]) -> Result<(), DbError> {
        if ending.is_empty() {
            return Ok(());
        }
        let many = self.many(Guard::Holder, Set::Nobody);
        let part = |(key, lease): &(T::Key, u64)| Part {
            key: key.to_value(),
            guard: vec![Value::Text(self.holder(*lease))],
            set: Vec::new(),
        };
        let parts: Vec<Part> = ending.iter().map(part).collect();
        let mut tx = self.db.begin().await?;
        for run in many.runs(&parts) {
            let (sql, args) = many.statement(run);
            tx.execute(sql, &args).await?;
        }
        tx.commit().await
    }

    /// Ends leases that the database may have. Those whose beginning was not seen stay unsure for as long as `keep`:
    /// until no late statement can make them.
    pub(crate) async fn end_unsure(&self, keep: Duration) {
        let by_key: Vec<_> = self.leases.unsure().into_iter().collect();
        for some in by_key.chunks(KEYS_AT_ONCE) {
            // Who is about to become the holder has the lock, and knows better in a moment.
            let flights: Vec<_> = some
                .iter()
                .filter_map(|(key, leases)| Some((key, leases, self.locks.try_lock(key)?)))
                .collect();
            let all = flights
                .iter()
                .flat_map(|(key, leases, _)| leases.iter().map(|lease| ((*key).clone(), *lease)));
            let ending = self.leases.still_unsure(all);
            if let Err(e) = self.end_in_database(&ending).await {
                warn!("{}: leases cannot be ended yet: {}", T::SHAPE.table, fftelemetry::chain(&e));
                return;
            }
            for (key, lease) in ending {
                if self.leases.is_over(lease, keep) {
                    self.ended(&key, lease);
                }
            }
        }
    }
}
