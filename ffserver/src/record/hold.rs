//! Holds: how a node becomes the holder of rows, so that nobody else writes them, and how it ends that. Many rows
//! at a time: writers that come together share a statement.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ffdata::journal::Entry;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rustc_hash::FxHashMap;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tracing::warn;

use crate::db::{DbError, Row, Sql, Value};

use super::RecordError;
use super::batch::{Guard, Many, Part, Set};
use super::shape::{Field as _, Record};
use super::slots::State;
use super::table::{Inner, KEYS_AT_ONCE, Unsure};

/// Statements that run at a time: a row that somebody has locked keeps only those of its own statement waiting.
const HELD_AT_ONCE: usize = 4;

/// A row that somebody waits to hold.
pub(crate) struct Asked<K> {
    key: K,
    /// As it was read.
    version: i64,
    hold: u64,
    answer: oneshot::Sender<Result<bool, DbError>>,
}

impl<T: Record> Inner<T> {
    /// Becomes the holder of a row as it was read, and gives the version of the value then; `None` when the row is not
    /// as it was, or held. With its key locked.
    pub(crate) async fn hold(
        &self,
        key: &T::Key,
        value: &Arc<T>,
        version: i64,
    ) -> Result<Option<i64>, RecordError> {
        let hold = self.cx.journal.next_hold();
        // First in the journal, so that whoever finds it after our death knows what to release.
        self.cx.journal.append(Entry::Hold { row: self.row(key), number: hold }).await?;
        // Until it is known, and when this future is dropped, the database may have it.
        self.doubt(key, hold, false);
        let (answer, answered) = oneshot::channel();
        {
            let mut asked = self.asked.lock();
            if self.cx.stop.is_cancelled() {
                return Err(RecordError::Closed);
            }
            asked.push(Asked { key: key.clone(), version, hold, answer });
        }
        self.ask.notify_one();
        let held = match answered.await.map_err(|_ended| RecordError::Closed)? {
            Ok(held) => held,
            // It never left, so nothing of it can come.
            Err(e) if e.is_unsent() => {
                self.ended(key, hold);
                return Err(e.into());
            }
            Err(e) => return Err(e.into()),
        };
        if !held {
            self.ended(key, hold);
            return Ok(None);
        }
        self.unsure.lock().remove(&hold);
        self.holds.lock().insert(key.clone(), hold);
        Ok(Some(self.slots.lock().hold(key, value, version, Instant::now())))
    }

    /// Runs until the node stops: answers those that wait to hold rows, all that wait at a time.
    pub(crate) async fn hold_when_asked(&self) {
        let mut running = FuturesUnordered::new();
        loop {
            let room = running.len() < HELD_AT_ONCE;
            tokio::select! {
                biased;
                () = self.cx.stop.cancelled() => break,
                Some(()) = running.next(), if !running.is_empty() => {}
                () = self.ask.notified(), if room => {
                    let mut asked = self.take_asked();
                    let many = self.many(Guard::Read, Set::Holder);
                    let parts: Vec<Part> = asked.iter().map(|asked| self.hold_part(asked)).collect();
                    for run in many.runs(&parts) {
                        let rest = asked.split_off(run.len());
                        let now = std::mem::replace(&mut asked, rest);
                        running.push(self.hold_run(many.statement(run), now));
                    }
                }
            }
        }
        // Who still waits sees it end; what runs has its own deadline.
        self.asked.lock().clear();
        while running.next().await.is_some() {}
    }

    /// In the order of the keys, so that the statements of two nodes rarely wait for each other in a circle.
    fn take_asked(&self) -> Vec<Asked<T::Key>> {
        let mut asked = std::mem::take(&mut *self.asked.lock());
        // Of who has gone it stays unsure; no statement is made for him.
        asked.retain(|asked| !asked.answer.is_closed());
        asked.sort_by(|one, other| one.key.cmp(&other.key));
        asked
    }

    fn hold_part(&self, asked: &Asked<T::Key>) -> Part {
        Part {
            key: asked.key.to_value(),
            guard: vec![Value::Int(asked.version)],
            set: vec![Value::Text(self.holder(asked.hold))],
        }
    }

    async fn hold_run(&self, (sql, args): (Sql, Vec<Value>), asked: Vec<Asked<T::Key>>) {
        match self.db.execute(sql, &args).await {
            Ok(rows) if rows == asked.len() as u64 => {
                asked.into_iter().for_each(|asked| asked.tell(Ok(true)));
            }
            Ok(0) | Err(DbError::Conflict { .. }) => {
                asked.into_iter().for_each(|asked| asked.tell(Ok(false)));
            }
            // The database said how many, not which.
            Ok(_) => match self.holders(&asked).await {
                Ok(holders) => asked.into_iter().for_each(|asked| {
                    let ours = holders.get(&asked.key) == Some(&self.holder(asked.hold));
                    asked.tell(Ok(ours));
                }),
                Err(e) => asked.into_iter().for_each(|asked| asked.tell(Err(e.again()))),
            },
            Err(e) => asked.into_iter().for_each(|asked| asked.tell(Err(e.again()))),
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

    /// What the row of a key that is held here says of it.
    pub(crate) fn holder_of(&self, key: &T::Key) -> String {
        self.holder(self.holds.lock().get(key).copied().unwrap_or_default())
    }

    /// From now on the slot is a copy of the database's row, whatever becomes of the statement.
    pub(crate) fn begin_release(&self, key: &T::Key) {
        self.slots.lock().release(key, Instant::now());
        if let Some(hold) = self.holds.lock().remove(key) {
            self.doubt(key, hold, true);
        }
    }

    fn doubt(&self, key: &T::Key, hold: u64, begun: bool) {
        let unsure = Unsure { key: key.clone(), since: Instant::now(), begun };
        self.unsure.lock().insert(hold, unsure);
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
        self.unsure.lock().remove(&hold);
        self.cx.journal.released(self.row(key), hold);
    }

    /// Ends the holds of rows that were not written to since `since`, and that nobody writes now.
    pub(crate) async fn release_idle(&self, since: Instant) -> Result<(), RecordError> {
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
        self.end_in_database(ending).await?;
        ending.iter().for_each(|(key, hold)| self.ended(key, *hold));
        Ok(())
    }

    /// In one transaction, many by one statement.
    async fn end_in_database(&self, ending: &[(T::Key, u64)]) -> Result<(), DbError> {
        if ending.is_empty() {
            return Ok(());
        }
        let many = self.many(Guard::Holder, Set::Nobody);
        let part = |(key, hold): &(T::Key, u64)| Part {
            key: key.to_value(),
            guard: vec![Value::Text(self.holder(*hold))],
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

    /// Ends holds that the database may have. Those whose beginning was not seen stay unsure for as long as `keep`:
    /// until no late statement can make them.
    pub(crate) async fn end_unsure(&self, keep: Duration) {
        let mut by_key: BTreeMap<T::Key, Vec<u64>> = BTreeMap::new();
        for (hold, unsure) in &*self.unsure.lock() {
            by_key.entry(unsure.key.clone()).or_default().push(*hold);
        }
        let by_key: Vec<_> = by_key.into_iter().collect();
        for some in by_key.chunks(KEYS_AT_ONCE) {
            // Who is about to become the holder has the lock, and knows better in a moment.
            let flights: Vec<_> = some
                .iter()
                .filter_map(|(key, holds)| Some((key, holds, self.locks.try_lock(key)?)))
                .collect();
            let all =
                flights.iter().flat_map(|(key, holds, _)| holds.iter().map(|hold| ((*key).clone(), *hold)));
            let ending: Vec<_> = {
                let unsure = self.unsure.lock();
                all.filter(|(_, hold)| unsure.contains_key(hold)).collect()
            };
            if let Err(e) = self.end_in_database(&ending).await {
                warn!("{}: holds cannot be ended yet: {}", T::SHAPE.table, fftelemetry::chain(&e));
                return;
            }
            for (key, hold) in ending {
                let over = |unsure: &Unsure<T::Key>| unsure.begun || unsure.since.elapsed() >= keep;
                if self.unsure.lock().get(&hold).is_some_and(over) {
                    self.ended(&key, hold);
                }
            }
        }
    }
}

impl<K> Asked<K> {
    /// Who asked may be gone: then it stays unsure.
    fn tell(self, held: Result<bool, DbError>) {
        let _gone = self.answer.send(held);
    }
}
