//! Journals that dead nodes have left: found by their files that nobody locks, written to the database, and
//! removed. Any node of the host does it, so what a killed node had written behind is there before the node
//! itself is back.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use ffdata::codec::Reader;
use ffdata::journal::{self, Entry, Table};
use ffdata::{Live, LiveRow, RowId};
use tracing::{error, info, warn};

use crate::db::{Db, DbError, Value};

use super::flush::is_of_one_record;
use super::journal::EXTENSION;
use super::sql::{Names, is_name};

/// Rows of one transaction.
const BATCH: usize = 500;

/// A journal that is left, and locked by us now.
struct Left {
    path: PathBuf,
    /// Keeps the lock.
    _file: File,
    id: String,
    live: Live,
}

/// What a scan has done.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Recovered {
    pub(crate) journals: usize,
    pub(crate) rows: u64,
}

/// Writes every journal in `folder` that nobody locks to the database, and removes it. One that cannot be
/// written now is left for the next time.
///
/// # Errors
/// The folder cannot be read. What is wrong with one journal is in the log, and does not keep the others.
pub(crate) async fn recover(
    folder: &Path,
    databases: &BTreeMap<String, Db>,
) -> io::Result<(Recovered, Option<DbError>)> {
    let (scanned, mut recovered, mut failed) = (folder.to_owned(), Recovered::default(), None);
    let left = tokio::task::spawn_blocking(move || find(&scanned)).await.map_err(io::Error::other)??;
    for left in left {
        match write(&left, databases).await {
            Ok(rows) => {
                info!("{} records of {} were written to the database after its end", rows, left.id);
                recovered.journals += 1;
                recovered.rows += rows;
                if let Err(e) = std::fs::remove_file(&left.path) {
                    warn!("the journal {} cannot be removed: {e}", left.path.display());
                }
            }
            Err(e) => failed = Some(e),
        }
    }
    Ok((recovered, failed))
}

/// The journals that nobody locks.
fn find(folder: &Path) -> io::Result<Vec<Left>> {
    let entries = match std::fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut left = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            match take(&path) {
                Ok(found) => left.extend(found),
                Err(e) => error!("the journal {} cannot be read: {e}", path.display()),
            }
        }
    }
    Ok(left)
}

fn take(path: &Path) -> io::Result<Option<Left>> {
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
        error!("{} is no journal; kept as {}", path.display(), damaged.display());
        return Ok(None);
    };
    if read.torn {
        let cut = bytes.len() - read.whole;
        warn!("the last {cut} bytes of the journal {} are cut off: nobody was answered", path.display());
    }
    let mut live = Live::default();
    read.entries.iter().for_each(|entry| live.apply(entry));
    Ok(Some(Left { path: path.to_owned(), _file: file, id: read.id, live }))
}

async fn write(left: &Left, databases: &BTreeMap<String, Db>) -> Result<u64, DbError> {
    let mut by_table: BTreeMap<u32, Vec<(&RowId, &LiveRow)>> = BTreeMap::new();
    left.live.rows().for_each(|(row, live)| by_table.entry(row.table).or_default().push((row, live)));
    let mut written = 0;
    for (number, rows) in by_table {
        let Some(table) = left.live.table(number) else { continue };
        let names = [&table.name, &table.key].into_iter().chain(&table.columns);
        let Some(db) = databases.get(&table.database).filter(|_| names.clone().all(|name| is_name(name)))
        else {
            let reason = format!("this node has no database `{}` for it", table.database);
            return Err(DbError::Url { reason });
        };
        for rows in rows.chunks(BATCH) {
            written += match write_rows(&left.id, db, table, rows).await {
                Err(e) if is_of_one_record(&e) => write_each(left, db, table, rows).await,
                other => other,
            }
            .inspect_err(|e| {
                warn!("the journal of {} waits: {}", left.id, fftelemetry::chain(e));
            })?;
        }
    }
    Ok(written)
}

/// One of the rows is refused: the others must not wait for it. It is kept beside the journal, its hold is ended, and
/// the log says so.
async fn write_each(
    left: &Left,
    db: &Db,
    table: &Table,
    rows: &[(&RowId, &LiveRow)],
) -> Result<u64, DbError> {
    let mut written = 0;
    for (row, live) in rows {
        let alone = write_rows(&left.id, db, table, &[(row, live)]).await;
        written += match alone {
            Err(e) if is_of_one_record(&e) => {
                let kept = left
                    .keep_refused(row, live)
                    .map_err(|e| DbError::File { path: left.refused_path(), source: e.into() })?;
                error!(
                    "{}: a record of {} is refused, and kept in {}: {}",
                    table.name,
                    left.id,
                    kept.display(),
                    fftelemetry::chain(&e)
                );
                let held = LiveRow { hold: live.hold, unwritten: None };
                write_rows(&left.id, db, table, &[(row, &held)]).await?
            }
            other => other?,
        };
    }
    Ok(written)
}

impl Left {
    fn refused_path(&self) -> PathBuf {
        self.path.with_extension("refused")
    }

    /// Adds a row to the file of those that the database refused: for people to look at.
    fn keep_refused(&self, row: &RowId, live: &LiveRow) -> io::Result<PathBuf> {
        let path = self.refused_path();
        let mut refused = Live::default();
        if let Ok(bytes) = std::fs::read(&path)
            && let Ok(read) = journal::read(&bytes)
        {
            read.entries.iter().for_each(|entry| refused.apply(entry));
        }
        if let Some(table) = self.live.table(row.table) {
            refused.apply(&Entry::Table { number: row.table, table: table.clone() });
        }
        refused.apply(&Entry::Hold { row: row.clone(), number: live.hold });
        if let Some((version, columns)) = &live.unwritten {
            refused.apply(&Entry::Rows { rows: vec![(row.clone(), *version, columns.clone())] });
        }
        let mut file = File::create(&path)?;
        file.write_all(&refused.snapshot(&self.id))?;
        file.sync_data()?;
        Ok(path)
    }
}

/// Again and again until it succeeds, it does the same: rows that have a newer version, or another holder,
/// are left alone.
async fn write_rows(id: &str, db: &Db, table: &Table, rows: &[(&RowId, &LiveRow)]) -> Result<u64, DbError> {
    let names = Names {
        dialect: db.dialect(),
        table: &table.name,
        key: &table.key,
        columns: table.columns.iter().map(String::as_str).collect(),
    };
    let (update, release) = (names.update_and_release(), names.release(1));
    let (mut tx, mut written) = (db.begin().await?, 0);
    for (row, live) in rows {
        let Ok(key) = Reader::new(&row.key).value() else { continue };
        let holder = Value::Text(format!("{id}#{}", live.hold));
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
