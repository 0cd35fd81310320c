//! The errors of the database, by what a caller can do about them.

use std::error::Error as StdError;
use std::path::PathBuf;
use std::time::Duration;

/// The driver's own words.
pub type Cause = Box<dyn StdError + Send + Sync>;

/// An error of the database. No variant shows a password.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DbError {
    /// The config's `db.url` is of no use. Correct it.
    #[error("`db.url`: {reason}")]
    Url {
        /// The fault of the URL.
        reason: String,
    },
    /// The config names a database whose driver this program was built without (docs/features.md).
    #[error("`db.url`: this program was built without the feature `{feature}` (ffserver, Cargo.toml)")]
    NotBuilt {
        /// The feature that brings the driver.
        feature: &'static str,
    },
    /// Nobody answers at `db.url`. Start the database, or correct the host and port.
    #[error("`db.url`: {target} cannot be reached (tried for {waited:?})")]
    Unreachable {
        /// Kind, host and port.
        target: String,
        /// How long the connection was tried.
        waited: Duration,
        /// The error of the last try.
        #[source]
        source: Cause,
    },
    /// The database answers but does not let us in: user, password, name of the database.
    #[error("`db.url`: {target} refuses the connection")]
    Refused {
        /// Kind, host and port.
        target: String,
        /// The database's own error.
        #[source]
        source: Cause,
    },
    /// The SQLite file cannot be made or opened.
    #[error("`db.url`: the SQLite file {} cannot be opened", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Cause,
    },
    /// No connection became free in time: the database is down, or every connection of the pool is busy
    /// (`db.connections_max`). The statement surely did not run.
    #[error("no connection to the database became free within {waited:?}")]
    NoConnection {
        /// How long the statement was waited for.
        waited: Duration,
    },
    /// The statement took too long. It may have run.
    #[error("the database did not answer within {waited:?}")]
    Timeout {
        /// The deadline.
        waited: Duration,
    },
    /// The connection broke under the statement. It may have run.
    #[error("the connection to the database broke")]
    Lost {
        /// The error of the connection.
        #[source]
        source: Cause,
    },
    /// There is a row with that key already. Nothing was changed.
    #[error("a row with that key exists")]
    Duplicate {
        /// What the database says: the key, the index.
        #[source]
        source: Cause,
    },
    /// Somebody else's transaction was in the way: deadlock, locked, not serializable. Nothing was changed;
    /// running the whole transaction again may succeed.
    #[error("another transaction was in the way")]
    Conflict {
        /// The database's own error.
        #[source]
        source: Cause,
    },
    /// The database takes no writes now: its disk is full, it is read-only or about to stop. Nothing was changed;
    /// trying again may succeed.
    #[error("the database takes no writes now")]
    Unable {
        /// The database's own error.
        #[source]
        source: Cause,
    },
    /// The database refuses the statement: its text, an argument, a constraint. Nothing was changed.
    #[error("the database refuses the statement")]
    Statement {
        /// The database's own error.
        #[source]
        source: Cause,
    },
    /// A column cannot be read as what was asked for. A fault in the program.
    #[error("column `{column}`: {reason}")]
    Column {
        /// The column.
        column: String,
        /// Why.
        reason: String,
    },
    /// An earlier statement of the transaction did not end (deadline, or its future was dropped), so its
    /// state is unknown. It can only be rolled back, which dropping it does.
    #[error("the transaction was broken off")]
    BrokenOff,
    /// A file of `db.migrations` cannot be run. What was run before it stays.
    #[error("`db.migrations`: {}", folder.display())]
    Migration {
        /// The folder.
        folder: PathBuf,
        /// Which file, and why.
        #[source]
        source: Cause,
    },
    /// [`Db::close`](super::Db::close) was called.
    #[error("the database was closed")]
    Closed,
}

impl DbError {
    /// The statement surely did not run, so running it again cannot run it twice.
    pub fn is_unsent(&self) -> bool {
        use DbError::{BrokenOff, Closed, File, NoConnection, NotBuilt, Refused, Unreachable, Url};
        matches!(
            self,
            Url { .. }
                | NotBuilt { .. }
                | Unreachable { .. }
                | Refused { .. }
                | File { .. }
                | NoConnection { .. }
                | BrokenOff
                | Closed
        )
    }
}

impl DbError {
    /// The same error once more, for another caller that waited for the same statement.
    pub(crate) fn again(&self) -> Self {
        let said = |source: &Cause| Cause::from(fftelemetry::chain(&**source));
        match self {
            Self::Url { reason } => Self::Url { reason: reason.clone() },
            Self::NotBuilt { feature } => Self::NotBuilt { feature },
            Self::Unreachable { target, waited, source } => {
                Self::Unreachable { target: target.clone(), waited: *waited, source: said(source) }
            }
            Self::Refused { target, source } => {
                Self::Refused { target: target.clone(), source: said(source) }
            }
            Self::File { path, source } => Self::File { path: path.clone(), source: said(source) },
            Self::NoConnection { waited } => Self::NoConnection { waited: *waited },
            Self::Timeout { waited } => Self::Timeout { waited: *waited },
            Self::Lost { source } => Self::Lost { source: said(source) },
            Self::Duplicate { source } => Self::Duplicate { source: said(source) },
            Self::Conflict { source } => Self::Conflict { source: said(source) },
            Self::Unable { source } => Self::Unable { source: said(source) },
            Self::Statement { source } => Self::Statement { source: said(source) },
            Self::Column { column, reason } => {
                Self::Column { column: column.clone(), reason: reason.clone() }
            }
            Self::BrokenOff => Self::BrokenOff,
            Self::Migration { folder, source } => {
                Self::Migration { folder: folder.clone(), source: said(source) }
            }
            Self::Closed => Self::Closed,
        }
    }
}

/// The innermost telling error: sqlx repeats its source in its own text, which would show it twice.
pub(super) fn cause(error: sqlx::Error) -> Cause {
    match error {
        sqlx::Error::Io(e) => Box::new(e),
        sqlx::Error::Database(e) => e.into_error(),
        sqlx::Error::Configuration(e) | sqlx::Error::Tls(e) | sqlx::Error::Encode(e) => e,
        other => other.to_string().into(),
    }
}

/// A failed statement.
pub(super) fn failed(error: sqlx::Error, waited: Duration) -> DbError {
    match error {
        sqlx::Error::PoolTimedOut => DbError::NoConnection { waited },
        sqlx::Error::PoolClosed => DbError::Closed,
        sqlx::Error::Database(e) if e.is_unique_violation() => DbError::Duplicate { source: e.into_error() },
        sqlx::Error::Database(e) if is_conflict(&*e) => DbError::Conflict { source: e.into_error() },
        sqlx::Error::Database(e) if is_unable(&*e) => DbError::Unable { source: e.into_error() },
        sqlx::Error::Io(_) | sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
            DbError::Lost { source: cause(error) }
        }
        other => DbError::Statement { source: cause(other) },
    }
}

/// Deadlock, lock timeout, serialization failure: of PostgreSQL and MySQL by SQLSTATE (MySQL's lock timeout
/// has only the general one, so by number), of SQLite BUSY and LOCKED by the low byte of the code.
fn is_conflict(error: &dyn sqlx::error::DatabaseError) -> bool {
    #[cfg(feature = "mysql")]
    if let Some(mysql) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return matches!(mysql.number(), 1205 | 1213 | 1020);
    }
    let Some(code) = error.code() else { return false };
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        return is_sqlite_busy(&code);
    }
    matches!(code.as_ref(), "40001" | "40P01" | "55P03")
}

/// The database's trouble, whatever the statement. SQLite: NOMEM, READONLY, IOERR, CORRUPT, FULL, CANTOPEN. MySQL: disk or
/// table full, no memory, shutting down, read-only. PostgreSQL: the classes of resources, of operators, of the
/// system, and a read-only transaction.
fn is_unable(error: &dyn sqlx::error::DatabaseError) -> bool {
    #[cfg(feature = "mysql")]
    if let Some(mysql) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return matches!(mysql.number(), 1021 | 1037 | 1041 | 1053 | 1114 | 1290 | 1836);
    }
    let Some(code) = error.code() else { return false };
    if error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() {
        return code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 7 | 8 | 10 | 11 | 13 | 14));
    }
    ["53", "57", "58"].iter().any(|class| code.starts_with(class)) || code == "25006"
}

/// SQLITE_BUSY (5) and SQLITE_LOCKED (6), with their extended codes.
fn is_sqlite_busy(code: &str) -> bool {
    code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6))
}

/// Worth trying again while starting: the database is not up yet, or is busy with its own start.
pub(super) fn is_transient(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // 08S01 and 08004: MySQL has no connection left. 53300 and 57P03: the same, and starting, in PostgreSQL.
        sqlx::Error::Database(e) => {
            let code = e.code().unwrap_or_default();
            matches!(code.as_ref(), "08S01" | "08004" | "53300" | "57P03")
                || (e.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() && is_sqlite_busy(&code))
        }
        _ => false,
    }
}
