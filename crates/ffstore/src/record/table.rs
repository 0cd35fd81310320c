//! One table of records: the handle that handlers have, and what its parts work on. Reading, writing, leasing, writing
//! behind, the mirror in memcached and the records of sessions are files of its folder.

mod flush;
mod lease;
mod mirror;
mod read;
mod session_binding;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;

use ffambient::Ambient;
use ffproto::SessionId;
use parking_lot::Mutex;
use rustc_hash::FxHashSet;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::db::{Db, Row, Value};
use crate::rows::{self, RowId, codec};

pub use self::write::Save;
use super::RecordError;
use super::counters::RecordCounters;
use super::journal::Journal;
use super::leases::Leases;
use super::locks::Locks;
use super::row_cache::{Backlog, Bounds, RowCache};
use super::shape::{Field as _, Record};
use super::sql::Names;

/// Keys of one statement: far below what any of the databases takes.
pub(crate) const KEYS_AT_ONCE: usize = 500;

/// The context that all tables of a node have in common.
pub(crate) struct Context {
    pub(crate) journal: Journal,
    pub(crate) backlog: Arc<Backlog>,
    pub(crate) counters: Arc<RecordCounters>,
    pub(crate) bounds: Bounds,
    pub(crate) dirty_records_max: usize,
    pub(crate) dirty_bytes_max: usize,
    /// memcached; `None` when the node has only its own memory.
    pub(crate) mirror: Option<Cache>,
    pub(crate) ambient: Ambient,
    pub(crate) stop: CancellationToken,
    /// Whether a session lives, as far as the node knows.
    pub(crate) lives: Lives,
}

/// Answers whether a session lives.
pub(crate) type Lives = Box<dyn Fn(SessionId) -> bool + Send + Sync>;

/// A table of records of type `T`: an argument of a handler, and `Node::table` of `ffserver`.
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
    pub(crate) row_cache: Mutex<RowCache<T>>,
    pub(crate) locks: Locks<T::Key>,
    /// The table's number in the journal.
    pub(crate) number: u32,
    /// Wakes the task that writes behind.
    pub(crate) wake: Notify,
    /// This node's leases on rows, as far as it knows.
    pub(crate) leases: Leases<T::Key>,
    /// Keys in memcached that may be older than the database's row: to be deleted.
    pub(crate) stale: Mutex<FxHashSet<T::Key>>,
    /// The records that are bound to sessions, see [`Table::keep`].
    pub(crate) bindings: Mutex<BTreeMap<SessionId, Vec<T::Key>>>,
    /// Since when the database takes no write-out; `None` when it has taken the last one.
    pub(crate) failing_since: Mutex<Option<Instant>>,
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
        let number = cx.journal.table(rows::journal::Table {
            database: shape.database.to_owned(),
            name: shape.table.to_owned(),
            key: shape.key_column().name.to_owned(),
            columns: shape.columns.iter().map(|column| column.name.to_owned()).collect(),
        });
        let row_cache = Mutex::new(RowCache::new(cx.bounds, cx.backlog.clone()));
        Self(Arc::new(Inner {
            db,
            cx,
            row_cache,
            locks: Locks::default(),
            number,
            wake: Notify::new(),
            leases: Leases::default(),
            stale: Mutex::default(),
            bindings: Mutex::default(),
            failing_since: Mutex::default(),
        }))
    }
}

impl<T: Record> Inner<T> {
    pub(crate) fn names(&self) -> Names<'static> {
        const { assert!(T::SHAPE.key < T::SHAPE.columns.len()) };
        let shape: &'static super::Shape = const { &T::SHAPE };
        Names::of(shape, self.db.dialect())
    }

    pub(crate) async fn load_from_database(&self, key: &T::Key) -> Result<Option<Found<T>>, RecordError> {
        let row = self.db.fetch_optional(self.names().select_one(), &[key.to_value()]).await?;
        row.map(|row| self.parse(&row)).transpose()
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

    /// The holder that a row names for a lease of this journal.
    pub(crate) fn holder(&self, lease: u64) -> String {
        format!("{}#{lease}", self.cx.journal.id())
    }

    /// The number of one of this journal's leases.
    pub(crate) fn own_lease(&self, holder: &str) -> Option<u64> {
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
