//! Session bindings: records of client sessions, saved when the client leaves, without a line in the app's hooks.

use std::sync::Arc;

use ffproto::SessionId;
use ffproto::handover::BoundRecord;
use tokio::time::Instant;

use super::{Inner, Table};
use crate::record::RecordError;
use crate::record::shape::{Field as _, Record};
use crate::rows::codec;

impl<T: Record> Table<T> {
    /// Loads a record for a session, at its login. From now on the app changes it with
    /// [`Save::BestEffort`](super::Save::BestEffort) or [`Save::within_ms`](super::Save::within_ms), which saves it every
    /// few seconds; when the session ends, what waits is written at once, and the record may be held elsewhere. Also when
    /// another process goes on with the node meanwhile. For a session that has ended already it is only read.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub async fn keep(&self, session: SessionId, key: &T::Key) -> Result<Option<Arc<T>>, RecordError> {
        let found = self.get(key).await?;
        if found.is_some() {
            self.0.bind_key(session, key.clone());
            // Its end may have come before: of that nobody tells again.
            if !(self.0.cx.lives)(session) {
                self.0.session_ended(session);
            }
        }
        Ok(found)
    }
}

impl<T: Record> Inner<T> {
    pub(crate) fn session_ended(&self, session: SessionId) {
        let Some(keys) = self.bindings.lock().remove(&session) else { return };
        let now = Instant::now();
        let mut row_cache = self.row_cache.lock();
        keys.iter().for_each(|key| row_cache.hasten(key, now));
        drop(row_cache);
        self.wake.notify_one();
    }

    /// All that is kept, for the process that goes on with this node.
    pub(crate) fn bindings(&self) -> Vec<BoundRecord> {
        let each = |(session, keys): (&SessionId, &Vec<T::Key>)| {
            let one = |key| BoundRecord {
                session: *session,
                database: T::SHAPE.database.to_owned(),
                table: T::SHAPE.table.to_owned(),
                key: self.row(key).key.to_vec(),
            };
            keys.iter().map(one).collect::<Vec<_>>()
        };
        self.bindings.lock().iter().flat_map(each).collect()
    }

    /// Keeps what the process before this one has kept. A key of another type, which a new version of the
    /// app may have, is not kept: its record is saved as any other.
    pub(crate) fn bind_again(&self, kept: &BoundRecord) {
        if (&*kept.database, &*kept.table) != (T::SHAPE.database, T::SHAPE.table) {
            return;
        }
        let value = codec::Reader::new(&kept.key).value();
        if let Some(key) = value.ok().and_then(|value| T::Key::from_value(value).ok()) {
            self.bind_key(kept.session, key);
        }
    }

    /// Forgets those whose session has ended where nobody could tell.
    pub(crate) fn retain_bindings(&self, lives: &dyn Fn(SessionId) -> bool) {
        self.bindings.lock().retain(|session, _| lives(*session));
    }

    fn bind_key(&self, session: SessionId, key: T::Key) {
        let mut bindings = self.bindings.lock();
        let keys = bindings.entry(session).or_default();
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;
    use std::time::Duration;

    use ffambient::Ambient;

    use crate::Record;
    use crate::db::Db;
    use crate::record::{Records, Save, Settings, create};

    use super::*;

    #[derive(Record, Clone, PartialEq)]
    #[record(table = "purse")]
    struct Purse {
        #[record(key)]
        name: String,
        coins: i64,
    }

    async fn node(
        db: &Db,
        folder: &Path,
        id: &str,
        lives: impl Fn(SessionId) -> bool + Send + Sync + 'static,
    ) -> (Records, Table<Purse>) {
        let (id, limits) = (id.to_owned(), ffconfig::Limits::default());
        let settings =
            Settings { id, data_dir: folder.join("data"), limits, mirror: None, ambient: Ambient::system() };
        let mut records = Records::new(BTreeMap::from([(String::new(), db.clone())]), settings, lives);
        let purses = records.open().await.unwrap();
        (records, purses)
    }

    async fn coins(db: &Db) -> i64 {
        let rows = db.fetch_all("SELECT coins FROM purse WHERE name = 'ann: 1'", &[]).await.unwrap();
        rows[0].get("coins").unwrap()
    }

    #[tokio::test]
    async fn what_one_process_keeps_for_a_session_the_next_one_saves_at_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite://{}", folder.path().join("game.db").display());
        let db = Db::connect(&ffconfig::Database::at(url)).await.unwrap();
        create::<Purse>(&db).await.unwrap();
        let (living, ended) = (SessionId(7), SessionId(8));
        let (old, purses) = node(&db, folder.path(), "old", |_| true).await;
        let ann = "ann: 1".to_owned();
        purses.insert(Purse { name: ann.clone(), coins: 0 }).await.unwrap();
        purses.keep(living, &ann).await.unwrap();
        purses.keep(ended, &ann).await.unwrap();
        let kept = old.bindings();
        old.close(Instant::now() + Duration::from_secs(5)).await;

        let (new, purses) = node(&db, folder.path(), "new", move |session| session == living).await;
        new.bind_again(&kept);
        new.bind_again(&kept);
        let other = BoundRecord { table: "other".to_owned(), ..kept[0].clone() };
        let damaged = BoundRecord { key: vec![255], ..kept[0].clone() };
        new.bind_again(&[other, damaged]);
        new.retain_bindings(&|session| session == living);
        let all = new.bindings();
        assert_eq!((all.len(), all[0].session), (1, living));
        purses.update(&ann, Save::within_ms(600_000), |purse| purse.coins = 5).await.unwrap();
        new.session_ended(ended);
        assert_eq!(coins(&db).await, 0, "it waits");
        new.session_ended(living);
        tokio::time::timeout(Duration::from_secs(10), async {
            while coins(&db).await != 5 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it was written at the end of its session");
        // A login that was still running when its client had gone.
        assert_eq!(purses.keep(ended, &ann).await.unwrap().unwrap().coins, 5);
        assert!(new.bindings().is_empty(), "{:?}", new.bindings());
        purses.keep(living, &ann).await.unwrap();
        assert_eq!(new.bindings().len(), 1);
        new.close(Instant::now() + Duration::from_secs(5)).await;
    }
}
