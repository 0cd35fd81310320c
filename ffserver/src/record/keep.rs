//! The records of client sessions: saved when the client leaves, without a line in the app's hooks.

use std::sync::Arc;

use ffproto::SessionId;
use tokio::time::Instant;

use super::RecordError;
use super::shape::Record;
use super::table::{Inner, Table};

impl<T: Record> Table<T> {
    /// Loads a record for a session, at its login. From now on the app changes it with
    /// [`Save::BestEffort`](super::Save::BestEffort) or [`within`](super::within), which saves it every few
    /// seconds; when the session ends, what waits is written at once, and the record may be held elsewhere.
    ///
    /// # Errors
    /// As [`Table::get`].
    pub async fn keep(&self, session: SessionId, key: &T::Key) -> Result<Option<Arc<T>>, RecordError> {
        let found = self.get(key).await?;
        if found.is_some() {
            let mut kept = self.0.kept.lock();
            let keys = kept.entry(session).or_default();
            if !keys.contains(key) {
                keys.push(key.clone());
            }
        }
        Ok(found)
    }
}

impl<T: Record> Inner<T> {
    pub(crate) fn session_ended(&self, session: SessionId) {
        let Some(keys) = self.kept.lock().remove(&session) else { return };
        let now = Instant::now();
        let mut slots = self.slots.lock();
        keys.iter().for_each(|key| slots.hasten(key, now));
        drop(slots);
        self.wake.notify_one();
    }
}
