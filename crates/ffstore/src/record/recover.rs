//! Journals that dead nodes have left: found by their files that nobody locks, written to the database, and
//! removed. Any node of the host does it, so what a killed node had written behind is there before the node
//! itself is back.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::rows::codec::{self, Reader};
use crate::rows::journal::{self, Entry, Head, Table};
use crate::rows::{Live, LiveRow, RowId};
use ffambient::Clock;
use tokio::time::Instant;
use tracing::{error, info, warn};

use crate::db::{Db, DbError, Dialect, Value};

use super::error::is_of_one_record;
use super::journal::{EXTENSION, boot};
use super::sql::{Names, is_name};

/// Rows of one transaction.
const BATCH: usize = 500;
/// How long a table may be looked through for the rows of a journal that has lost something.
const LOOK_THROUGH: Duration = Duration::from_secs(300);

/// How long after the last entry of a journal a statement that makes one of its leases may still come: its node was
/// killed, and the server goes on with what waits for a row's lock.
const LATE: Duration = Duration::from_secs(60);

/// A journal that is left, and locked by us now.
struct LeftJournal {
    path: PathBuf,
    /// Keeps the lock.
    _file: File,
    head: Head,
    live: Live,
    /// Bytes in the middle, and at the end, that are no entries.
    damaged: usize,
    torn: usize,
    /// Until when late statements may come.
    late: Instant,
    /// Nothing of it is missing any more.
    looked_through: bool,
}

/// The result of a scan.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) journals: usize,
    pub(crate) rows: u64,
}

/// The recovery: it writes the journals in a folder that no node locks to the databases, and removes them.
pub(crate) struct Recovery {
    folder: PathBuf,
    databases: BTreeMap<String, Db>,
    /// The clock by which files are old.
    clock: Clock,
    /// Written; only leases that may still come are left of them.
    settling: Vec<LeftJournal>,
}

impl Recovery {
    pub(crate) fn new(folder: PathBuf, databases: BTreeMap<String, Db>, clock: Clock) -> Self {
        Self { folder, databases, clock, settling: Vec::new() }
    }

    /// Looks once. What cannot be written now is left for the next time.
    ///
    /// # Errors
    /// The folder cannot be read. What is wrong with one journal is in the log, and does not keep the others.
    pub(crate) async fn once(&mut self) -> io::Result<(Recovered, Option<DbError>)> {
        let (mut recovered, mut failed) = (Recovered::default(), None);
        for left in std::mem::take(&mut self.settling) {
            let late = Instant::now() < left.late;
            match write(&left, &self.databases).await {
                Ok(_) if !late => left.put_away(),
                Ok(_) => self.settling.push(left),
                Err(e) => {
                    failed = Some(e);
                    self.settling.push(left);
                }
            }
        }
        // Those that settle are locked by ourselves.
        let (scanned, now) = (self.folder.clone(), self.clock.system_time());
        let left =
            tokio::task::spawn_blocking(move || find(&scanned, now)).await.map_err(io::Error::other)??;
        for left in left {
            match write(&left, &self.databases).await {
                Ok(rows) => {
                    info!("{} records of {} were written to the database after its end", rows, left.head.id);
                    recovered.journals += 1;
                    recovered.rows += rows;
                    self.settling.extend(left.settle(&self.databases));
                }
                Err(e) => failed = Some(e),
            }
        }
        Ok((recovered, failed))
    }
}

/// The journals that nobody locks.
fn find(folder: &Path, now: SystemTime) -> io::Result<Vec<LeftJournal>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut left = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            match take(&path, now) {
                Ok(found) => left.extend(found),
                Err(e) => error!("the journal {} cannot be read: {e}", path.display()),
            }
        }
    }
    Ok(left)
}

fn take(path: &Path, now: SystemTime) -> io::Result<Option<LeftJournal>> {
    let mut file = match File::options().read(true).append(true).open(path) {
        // Its node has written everything since the folder was read.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(e)) => return Err(e),
    }
    // The name may stand for another file by now: its node has written it anew, or removed it.
    let same = std::fs::metadata(path).is_ok_and(|named| {
        file.metadata().is_ok_and(|locked| (named.dev(), named.ino()) == (locked.dev(), locked.ino()))
    });
    if !same {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    let Ok(read) = journal::read(&bytes) else {
        let damaged = path.with_extension("damaged");
        std::fs::rename(path, &damaged)?;
        error!(
            "{} is no journal; kept as {}. Rows that it holds stay held: docs/data.md says how that is ended",
            path.display(),
            damaged.display()
        );
        return Ok(None);
    };
    let torn = bytes.len() - read.whole;
    let age = file.metadata()?.modified().ok().and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
    Ok(Some(LeftJournal {
        late: Instant::now() + LATE.saturating_sub(age),
        looked_through: false,
        path: path.to_owned(),
        _file: file,
        live: read.live(),
        head: read.head,
        damaged: read.damaged,
        torn,
    }))
}

async fn write(left: &LeftJournal, databases: &BTreeMap<String, Db>) -> Result<u64, DbError> {
    let waits = |e: &DbError| warn!("the journal of {} waits: {}", left.head.id, fftelemetry::chain(e));
    let mut by_table: BTreeMap<u32, Vec<(&RowId, &LiveRow)>> = BTreeMap::new();
    left.live.rows().for_each(|(row, live)| by_table.entry(row.table).or_default().push((row, live)));
    let mut written = 0;
    for (number, table) in left.live.tables() {
        let rows = by_table.remove(&number).unwrap_or_default();
        if rows.is_empty() && !left.may_have_lost() {
            continue;
        }
        let names = [&table.name, &table.key].into_iter().chain(&table.columns);
        let Some(db) = databases.get(&table.database).filter(|_| names.clone().all(|name| is_name(name)))
        else {
            let reason = format!("this node has no database `{}` for it", table.database);
            return Err(DbError::Url { reason }).inspect_err(waits);
        };
        let to = RecoveryTarget { left, db, table };
        written += to.write(&rows).await.inspect_err(waits)?;
        if left.may_have_lost() {
            let found = to.still_held(number).await.inspect_err(waits)?;
            let found: Vec<_> = found.iter().map(|(row, live)| (row, live)).collect();
            written += to.write(&found).await.inspect_err(waits)?;
        }
    }
    Ok(written)
}

/// The table that rows of a journal go to.
struct RecoveryTarget<'a> {
    left: &'a LeftJournal,
    db: &'a Db,
    table: &'a Table,
}

impl RecoveryTarget<'_> {
    async fn write(&self, rows: &[(&RowId, &LiveRow)]) -> Result<u64, DbError> {
        let mut written = 0;
        for rows in rows.chunks(BATCH) {
            written += match self.write_rows(rows).await {
                Err(e) if is_of_one_record(&e) => self.write_each(rows).await?,
                other => other?,
            };
        }
        Ok(written)
    }

    /// Some of the rows are refused: the others must not wait for them. They are kept beside the journal, their leases
    /// are ended, and the log says so.
    async fn write_each(&self, rows: &[(&RowId, &LiveRow)]) -> Result<u64, DbError> {
        let (mut written, mut refused) = (0, Vec::new());
        for row in rows {
            match self.write_rows(std::slice::from_ref(row)).await {
                Err(e) if is_of_one_record(&e) => refused.push((row.0, row.1, e)),
                other => written += other?,
            }
        }
        if refused.is_empty() {
            return Ok(written);
        }
        let (id, path) = (&self.left.head.id, self.left.refused_path());
        self.left
            .keep_refused(refused.iter().map(|(row, live, _)| (*row, *live)))
            .map_err(|e| DbError::File { path: path.clone(), source: e.into() })?;
        for (_, _, e) in &refused {
            let (table, path, why) = (&self.table.name, path.display(), fftelemetry::chain(e));
            error!("{table}: a record of {id} is refused, and kept in {path}: {why}");
        }
        let held: Vec<_> = refused
            .iter()
            .map(|(row, live, _)| (*row, LiveRow { unwritten: None, ..(*live).clone() }))
            .collect();
        let held: Vec<_> = held.iter().map(|(row, live)| (*row, live)).collect();
        written += self.write_rows(&held).await?;
        Ok(written)
    }

    /// The rows that the database calls held by this journal, with what it has of them: those whose lease is in what
    /// it has lost, and nobody else would ever end.
    async fn still_held(&self, number: u32) -> Result<Vec<(RowId, LiveRow)>, DbError> {
        let prefix = format!("{}#", self.left.head.id);
        let db = self.db.with_deadline(LOOK_THROUGH);
        let rows = db.fetch_all(self.names().held_by(), &[Value::Text(format!("{prefix}%"))]).await?;
        let mut held = Vec::new();
        for row in rows {
            let (key, holder) = (row.at::<Value>(0)?, row.at::<String>(1)?);
            // The pattern may have taken more than what begins so.
            let Some(lease) = holder.strip_prefix(&prefix).and_then(|lease| lease.parse().ok()) else {
                continue;
            };
            // MariaDB gives texts as bytes when it compares them so.
            let as_text = match &key {
                Value::Bytes(bytes) => {
                    std::str::from_utf8(bytes).ok().map(|text| Value::Text(text.to_owned()))
                }
                _ => None,
            };
            let known = [Some(key.clone()), as_text].into_iter().flatten().find_map(|key| {
                let row = row_id(number, &key);
                let unwritten = self.left.live.row(&row)?.unwritten.clone();
                Some((row, LiveRow { lease, begun: true, unwritten }))
            });
            let unknown = || (row_id(number, &key), LiveRow { lease, begun: true, unwritten: None });
            held.push(known.unwrap_or_else(unknown));
        }
        Ok(held)
    }

    fn names(&self) -> Names<'_> {
        Names {
            dialect: self.db.dialect(),
            table: &self.table.name,
            key: &self.table.key,
            columns: self.table.columns.iter().map(String::as_str).collect(),
        }
    }

    /// Again and again until it succeeds, it does the same: rows that have a newer version, or another holder,
    /// are left alone.
    async fn write_rows(&self, rows: &[(&RowId, &LiveRow)]) -> Result<u64, DbError> {
        let names = self.names();
        let (update, release) = (names.update_and_release(), names.release(1));
        let (mut tx, mut written) = (self.db.begin().await?, 0);
        for (row, live) in rows {
            let Ok(key) = Reader::new(&row.key).value() else { continue };
            let holder = Value::Text(format!("{}#{}", self.left.head.id, live.lease));
            if let Some((version, columns)) = &live.unwritten {
                let mut args = columns.clone();
                args.extend([Value::Int(*version), key.clone(), holder.clone(), Value::Int(*version)]);
                written += tx.execute(update.clone(), &args).await?;
            }
            tx.execute(release.clone(), &[holder, key]).await?;
        }
        tx.commit().await?;
        Ok(written)
    }
}

fn row_id(table: u32, key: &Value) -> RowId {
    let mut bytes = Vec::new();
    codec::write_value(key, &mut bytes);
    RowId { table, key: bytes.into() }
}

impl LeftJournal {
    /// Whether something may be missing that the database knows of: damage in the middle, or another boot, before
    /// which the last second may not have reached the disk.
    fn may_have_lost(&self) -> bool {
        if self.looked_through {
            return false;
        }
        self.damaged > 0 || self.head.boot.is_empty() || self.head.boot != boot()
    }

    /// All of it is written. Gives it back with the leases that a late statement may still make, if there are any.
    fn settle(mut self, databases: &BTreeMap<String, Db>) -> Option<Self> {
        let mut coming = Live::default();
        if Instant::now() < self.late {
            // SQLite's statements end with the process that has made them.
            let served = |table: &Table| {
                databases.get(&table.database).is_some_and(|db| db.dialect() != Dialect::Sqlite)
            };
            let tables = self.live.tables().filter(|(_, table)| served(table));
            tables.for_each(|(number, table)| coming.apply(&Entry::Table { number, table: table.clone() }));
            for (row, live) in self.live.rows().filter(|(_, live)| !live.begun) {
                coming.apply(&Entry::Lease { row: row.clone(), number: live.lease });
            }
        }
        if coming.is_empty() {
            self.put_away();
            return None;
        }
        (self.live, self.looked_through) = (coming, true);
        Some(self)
    }

    /// All of it is in the database.
    fn put_away(&self) {
        let (path, cut) = (self.path.display(), self.torn);
        if self.torn > 0 && self.head.boot == boot() {
            warn!("the last {cut} bytes of the journal {path} are cut off: nobody was answered");
        } else if self.head.boot != boot() {
            warn!("the journal {path} is of an earlier boot of the host: its last second may be missing");
        }
        let put_away = if self.damaged > 0 {
            let (damaged, kept) = (self.damaged, self.path.with_extension("damaged"));
            error!("{damaged} bytes in the journal {path} are damaged and lost; kept as {}", kept.display());
            std::fs::rename(&self.path, kept)
        } else {
            std::fs::remove_file(&self.path)
        };
        if let Err(e) = put_away {
            warn!("the journal {path} cannot be removed: {e}");
        }
    }

    fn refused_path(&self) -> PathBuf {
        self.path.with_extension("refused")
    }

    /// Adds rows to the file of those that the database refused: for people to look at.
    fn keep_refused<'a>(&self, rows: impl Iterator<Item = (&'a RowId, &'a LiveRow)>) -> io::Result<()> {
        let path = self.refused_path();
        let mut refused = Live::default();
        if let Ok(bytes) = std::fs::read(&path)
            && let Ok(read) = journal::read(&bytes)
        {
            refused = read.live();
        }
        for (row, live) in rows {
            if let Some(table) = self.live.table(row.table) {
                refused.apply(&Entry::Table { number: row.table, table: table.clone() });
            }
            refused.apply(&Entry::Lease { row: row.clone(), number: live.lease });
            if let Some((version, columns)) = &live.unwritten {
                refused.apply(&Entry::Rows { rows: vec![(row.clone(), *version, columns.clone())] });
            }
        }
        // What was kept before stays until all of it is on the disk.
        let new = self.path.with_extension("refusing");
        let mut file = File::create(&new)?;
        file.write_all(&refused.snapshot(&self.head))?;
        file.sync_data()?;
        std::fs::rename(new, path)
    }
}
