//! The records of one node: its tables, its journal, the tasks that write behind, and what dead nodes left.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ffambient::Ambient;
use ffproto::SessionId;
use ffproto::handover::BoundRecord;
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::cache::Cache;
use crate::db::{Db, DbError};

use super::counters::{RecordCounters, add};
use super::journal::Journal;
use super::recover::Recovery;
use super::row_cache::{Backlog, Bounds};
use super::schema::{SchemaError, check, create_shape};
use super::shape::{Record, Shape};
use super::table::{Context, Inner, Table};

/// How often journals of dead nodes are looked for.
const RECOVER_EVERY: Duration = Duration::from_secs(1);

type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A table without its type.
trait AnyTable: Send + Sync {
    fn shape(&self) -> Shape;
    fn run(self: Arc<Self>) -> Later<()>;
    fn stats(&self, now: Instant) -> TableStats;
    fn session_ended(&self, session: SessionId);
    fn bindings(&self) -> Vec<BoundRecord>;
    fn bind_again(&self, kept: &BoundRecord);
    fn retain_bindings(&self, lives: &dyn Fn(SessionId) -> bool);
}

/// The statistics of a table: what it has in memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct TableStats {
    /// Records.
    pub records: usize,
    /// Their bytes.
    pub bytes: usize,
    /// Rows that this node holds.
    pub held: usize,
    /// Records that are kept for sessions.
    pub kept: usize,
    /// How long the oldest record waits to be written; zero when none does.
    pub oldest_dirty: Duration,
    /// For how long the database has taken no write-out; zero when it has taken the last one.
    pub failing: Duration,
}

impl<T: Record> AnyTable for Inner<T> {
    fn shape(&self) -> Shape {
        T::SHAPE
    }

    fn run(self: Arc<Self>) -> Later<()> {
        Box::pin(Inner::run(self))
    }

    fn stats(&self, now: Instant) -> TableStats {
        let row_cache = self.row_cache.lock();
        let (records, bytes) = row_cache.size();
        let oldest_dirty = row_cache.oldest_dirty().map_or(Duration::ZERO, |since| now - since);
        let held = row_cache.held();
        drop(row_cache);
        let kept = self.bindings.lock().values().map(Vec::len).sum();
        let failing = self.failing_since.lock().map_or(Duration::ZERO, |since| now - since);
        TableStats { records, bytes, held, kept, oldest_dirty, failing }
    }

    fn session_ended(&self, session: SessionId) {
        Inner::session_ended(self, session);
    }

    fn bindings(&self) -> Vec<BoundRecord> {
        Inner::bindings(self)
    }

    fn bind_again(&self, kept: &BoundRecord) {
        Inner::bind_again(self, kept);
    }

    fn retain_bindings(&self, lives: &dyn Fn(SessionId) -> bool) {
        Inner::retain_bindings(self, lives);
    }
}

/// A [`Table`] of some record.
type Typed = Arc<dyn Any + Send + Sync>;
type Open = fn(Db, Arc<Context>) -> (Arc<dyn AnyTable>, Typed);

/// A table that an app has named, before there is a database.
pub struct Registered {
    /// The type of its record.
    pub id: TypeId,
    /// The table's columns.
    pub shape: Shape,
    open: Open,
}

impl Registered {
    /// The table of a record.
    pub fn of<T: Record>() -> Self {
        let open = |db: Db, cx: Arc<Context>| {
            let table = Table::<T>::new(db, cx);
            let any: Arc<dyn AnyTable> = table.0.clone();
            let typed: Typed = Arc::new(table);
            (any, typed)
        };
        Self { id: TypeId::of::<T>(), shape: T::SHAPE, open }
    }

    /// Makes the table in this database, as [`create`](super::create) does: for tests.
    ///
    /// # Errors
    /// The database does not answer, or has such a table already.
    pub async fn make_table(&self, db: &Db) -> Result<(), DbError> {
        create_shape(db, &self.shape).await
    }
}

/// The settings of a node's records.
pub struct Settings {
    /// Unlike that of any other start of any node: it names the journal, and stands in the rows that it holds.
    pub id: String,
    /// The folder of the journals of all nodes of the host.
    pub data_dir: PathBuf,
    /// The bounds.
    pub limits: ffconfig::Limits,
    /// memcached, when other nodes are to see copies of records there.
    pub mirror: Option<Cache>,
    /// The clock of new rows' versions, and the chance of the journal's salt and of pauses.
    pub ambient: Ambient,
}

/// The records of one node. A process may have several.
pub struct Records {
    databases: BTreeMap<String, Db>,
    data_dir: PathBuf,
    cx: Arc<Context>,
    tables: HashMap<TypeId, Typed>,
    all: Vec<Arc<dyn AnyTable>>,
    running: Mutex<JoinSet<()>>,
    recovering: Mutex<JoinSet<()>>,
}

impl Records {
    /// Records in these databases, by name; the nameless one is the config's `db`. `lives` says whether a session does,
    /// as far as the node knows; where there are no sessions, all of them do.
    pub fn new(
        databases: BTreeMap<String, Db>,
        settings: Settings,
        lives: impl Fn(SessionId) -> bool + Send + Sync + 'static,
    ) -> Self {
        let Settings { id, data_dir, limits, mirror, ambient } = settings;
        let salt = ambient.chance.u64().ok();
        let cx = Context {
            journal: Journal::new(id.into(), data_dir.clone(), limits.dirty_bytes_max, salt),
            backlog: Arc::new(Backlog::default()),
            counters: Arc::new(RecordCounters::default()),
            bounds: Bounds {
                bytes_max: limits.records_bytes_max,
                fresh: limits.record_fresh,
                idle: limits.record_idle,
            },
            dirty_records_max: limits.dirty_records_max,
            dirty_bytes_max: limits.dirty_bytes_max,
            mirror,
            ambient,
            stop: CancellationToken::new(),
            lives: Box::new(lives),
        };
        Self {
            databases,
            data_dir,
            cx: Arc::new(cx),
            tables: HashMap::new(),
            all: Vec::new(),
            running: Mutex::default(),
            recovering: Mutex::default(),
        }
    }

    /// Opens the table of a record, after its schema was checked.
    ///
    /// # Errors
    /// [`SchemaError`]: what is missing, as statements; what differs.
    pub async fn open<T: Record>(&mut self) -> Result<Table<T>, SchemaError> {
        self.add(&Registered::of::<T>()).await?;
        self.table().ok_or(SchemaError::NoDatabase {
            table: T::SHAPE.table.to_owned(),
            database: T::SHAPE.database.to_owned(),
        })
    }

    /// As [`open`](Self::open), of a table whose type only its name knows.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub async fn add(&mut self, registered: &Registered) -> Result<(), SchemaError> {
        let shape = registered.shape;
        let db = self.databases.get(shape.database).ok_or_else(|| SchemaError::NoDatabase {
            table: shape.table.to_owned(),
            database: shape.database.to_owned(),
        })?;
        check(db, &shape).await?;
        let (any, typed) = (registered.open)(db.clone(), self.cx.clone());
        self.running.lock().spawn(any.clone().run());
        self.all.push(any);
        self.tables.insert(registered.id, typed);
        Ok(())
    }

    /// The table of a record that was opened.
    pub fn table<T: Record>(&self) -> Option<Table<T>> {
        self.tables.get(&TypeId::of::<T>())?.downcast_ref::<Table<T>>().cloned()
    }

    /// Writes what dead nodes of this host have left, once now, and from now on every second.
    ///
    /// # Errors
    /// None: what cannot be written now is in the log, and tried again.
    pub async fn recover(&self) {
        let folder = self.data_dir.clone();
        let mut recovery =
            Recovery::new(folder.clone(), self.databases.clone(), self.cx.ambient.clock.clone());
        let counters = self.cx.counters.clone();
        let mut once = async move |complain: bool| match recovery.once().await {
            Ok((recovered, failed)) => {
                add(&counters.recovered, recovered.rows);
                failed.is_some()
            }
            Err(e) => {
                if complain {
                    warn!("the journals in {} cannot be read: {e}", folder.display());
                }
                true
            }
        };
        let mut failed = once(true).await;
        self.recovering.lock().spawn(async move {
            loop {
                tokio::time::sleep(RECOVER_EVERY).await;
                failed = once(!failed).await;
            }
        });
    }

    /// Writes everything and ends every lease, until `deadline`. What is not in the database then is in the
    /// journal, and is written by the next node that finds it.
    pub async fn close(&self, deadline: Instant) {
        self.recovering.lock().abort_all();
        self.cx.stop.cancel();
        let mut running = std::mem::take(&mut *self.running.lock());
        let all = async {
            while let Some(ended) = running.join_next().await {
                if let Err(e) = ended {
                    error!("the task of a table ended: {e}");
                }
            }
        };
        if timeout_at(deadline, all).await.is_err() {
            let left = self.cx.backlog.records.load(Ordering::Relaxed);
            warn!("{left} records are not in the database yet; the journal has those that were promised");
        }
        // Nothing of ours may write when another node has found the journal.
        running.shutdown().await;
        self.cx.journal.close().await;
    }

    /// Ends as the end of the process does, without a last write: what the journal has, the next node that finds it writes. For
    /// tests, which kill a node in their own process.
    pub async fn abandon(&self) {
        self.recovering.lock().abort_all();
        let mut running = std::mem::take(&mut *self.running.lock());
        running.shutdown().await;
        self.cx.journal.close().await;
    }

    /// The number of writes that wait for the journal.
    pub fn journal_writes(&self) -> usize {
        self.cx.journal.appending()
    }

    /// A client's session has ended: its records ([`Table::keep`]) are written.
    pub fn session_ended(&self, session: SessionId) {
        self.all.iter().for_each(|table| table.session_ended(session));
    }

    /// The records that are bound to sessions, for a successor.
    pub fn bindings(&self) -> Vec<BoundRecord> {
        self.all.iter().flat_map(|table| table.bindings()).collect()
    }

    /// Binds the records that a predecessor had bound to sessions.
    pub fn bind_again(&self, kept: &[BoundRecord]) {
        kept.iter().for_each(|kept| self.all.iter().for_each(|table| table.bind_again(kept)));
    }

    /// Forgets the records of sessions that do not live.
    pub fn retain_bindings(&self, lives: &dyn Fn(SessionId) -> bool) {
        self.all.iter().for_each(|table| table.retain_bindings(lives));
    }

    /// Counters and gauges by name, those that are not zero.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let now = Instant::now();
        let stats = self.all.iter().map(|table| table.stats(now));
        let (mut held, mut kept, mut oldest, mut failing) = (0, 0, Duration::ZERO, Duration::ZERO);
        for stats in stats {
            held += stats.held as u64;
            kept += stats.kept as u64;
            oldest = oldest.max(stats.oldest_dirty);
            failing = failing.max(stats.failing);
        }
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let gauges = [
            ("record_dirty", self.cx.backlog.records.load(Ordering::Relaxed) as u64),
            ("record_dirty_bytes", self.cx.backlog.bytes.load(Ordering::Relaxed) as u64),
            ("record_dirty_oldest_ms", ms(oldest)),
            ("record_flush_failing_ms", ms(failing)),
            ("record_held", held),
            ("record_kept", kept),
        ];
        let all = self.cx.counters.list().into_iter().chain(gauges);
        all.filter(|(_, n)| *n > 0).map(|(name, n)| (name.to_owned(), n)).collect()
    }

    /// Every counter by name, also those that are zero, as `record_hits`; the two of write-outs' times are no counters.
    pub fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.cx.counters.list().into_iter().filter(|(name, _)| !name.contains("_us"))
    }

    /// How long the last write-out took, and the longest.
    pub fn flush_times(&self) -> (Duration, Duration) {
        let of = |us: &AtomicU64| Duration::from_micros(us.load(Ordering::Relaxed));
        (of(&self.cx.counters.flush_us), of(&self.cx.counters.flush_us_max))
    }

    /// How many records wait to be written, and their bytes.
    pub fn dirty(&self) -> (usize, usize) {
        let of = |n: &AtomicUsize| n.load(Ordering::Relaxed);
        (of(&self.cx.backlog.records), of(&self.cx.backlog.bytes))
    }

    /// Each table, and what of it is in memory.
    pub fn stats(&self) -> Vec<(&'static str, TableStats)> {
        let now = Instant::now();
        self.all.iter().map(|table| (table.shape().table, table.stats(now))).collect()
    }
}
