//! The database: pools of connections to SQLite, MariaDB/MySQL or PostgreSQL behind one small API.
//!
//! The only module that names sqlx. A statement's text is a literal and its values are arguments, so a
//! hostile string never changes a statement:
//!
//! ```no_run
//! # async fn example(db: ffstore::db::Db) -> Result<(), ffstore::db::DbError> {
//! use ffstore::db::args;
//!
//! db.execute("UPDATE account SET coins = coins + ? WHERE name = ?", &args![5, "ann"]).await?;
//! let row = db.fetch_optional("SELECT coins FROM account WHERE name = ?", &args!["ann"]).await?;
//! let coins = row.map(|row| row.get::<i64>("coins")).transpose()?;
//! # Ok(())
//! # }
//! ```
//!
//! Placeholders are `?` on all three (`??` is a plain `?` for PostgreSQL's operators). The dialects are not
//! hidden otherwise: who needs more takes the concrete pool.

mod connect;
mod driver;
mod error;
mod health;
mod migrate;
#[cfg(feature = "postgres")]
mod placeholder;
mod value;

use std::borrow::Cow;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "mysql")]
use sqlx::mysql::MySqlPool;
use sqlx::pool::PoolConnection;
#[cfg(feature = "postgres")]
use sqlx::postgres::PgPool;
use sqlx::sqlite::SqlitePool;
use sqlx::{AssertSqlSafe, Connection as _, SqlSafeStr as _, SqlStr, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::time::{self, Instant};

pub(crate) use self::connect::driver_feature;
use self::driver::{Driver, rows};
use self::error::failed;
pub use self::error::{Cause, DbError};
pub use self::health::Health;
pub use self::value::{FromColumn, Row, Value};
#[doc(inline)]
pub use crate::__db_args as args;

/// How long a statement may take, waiting for a connection included, unless
/// [`Db::with_deadline`] says otherwise: a player has given up by then.
pub const DEADLINE: Duration = Duration::from_secs(5);

/// How long a statement waits for a connection while the database is known to be down: who waits longer
/// only keeps others waiting.
const WAIT_WHEN_DOWN: Duration = Duration::from_millis(250);

/// How long SQLite waits for another writer: less than [`DEADLINE`], so that the error names the lock.
const SQLITE_BUSY: Duration = Duration::from_secs(4);

/// The dialect of a database: which language it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// SQLite, in this process.
    Sqlite,
    /// MariaDB or MySQL.
    MySql,
    /// PostgreSQL.
    Postgres,
}

/// The text of a statement. A literal is one by itself; a text made at run time must be called
/// [`trusted`](Sql::trusted), which no value of a player's may ever be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sql {
    text: Cow<'static, str>,
    /// Whether the statement says the types of its arguments itself, wherever the database would have to guess those of
    /// NULL.
    typed: bool,
}

impl Sql {
    /// A text made at run time. The caller vouches that nothing in it came from outside.
    pub fn trusted(text: impl Into<String>) -> Self {
        Self { text: Cow::Owned(text.into()), typed: false }
    }

    /// As [`trusted`](Self::trusted), of a statement that says the types of its arguments.
    pub(crate) fn typed(text: String) -> Self {
        Self { text: Cow::Owned(text), typed: true }
    }

    #[cfg(test)]
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

impl From<&'static str> for Sql {
    fn from(text: &'static str) -> Self {
        Self { text: Cow::Borrowed(text), typed: false }
    }
}

fn sqlx_str(sql: Sql) -> SqlStr {
    match sql.text {
        Cow::Borrowed(text) => text.into_sql_str(),
        Cow::Owned(text) => AssertSqlSafe(text).into_sql_str(),
    }
}

/// A database: a pool of connections. Clones share it.
///
/// Statements from several tasks run beside each other, up to `db.connections_max`; none of them blocks the
/// node's loop (SQLite works on threads of its own).
#[derive(Debug, Clone)]
pub struct Db {
    pool: Pool,
    reading: Option<Pool>,
    deadline: Duration,
    health: Arc<Health>,
    turns: Turns,
}

/// The turns of writers to SQLite. It has one writer at a time, and lets others look again at growing intervals, so
/// that a writer that looks less often may never see it free; in this process they queue.
#[derive(Debug, Clone, Default)]
struct Turns(Option<Arc<Mutex<()>>>);

impl Turns {
    fn for_pool(pool: &Pool) -> Self {
        Self(matches!(pool, Pool::Sqlite(_)).then(Arc::default))
    }

    /// Waits as long as SQLite itself would, and no longer than `deadline`. Cancel-safe.
    async fn next(&self, deadline: Duration) -> Result<Option<OwnedMutexGuard<()>>, DbError> {
        let Some(turns) = &self.0 else { return Ok(None) };
        let waited = SQLITE_BUSY.min(deadline);
        time::timeout(waited, turns.clone().lock_owned()).await.map(Some).map_err(|_late| {
            if waited < SQLITE_BUSY {
                return DbError::NoConnection { waited };
            }
            DbError::Conflict { source: "the database is locked by another writer of this node".into() }
        })
    }
}

#[derive(Debug, Clone)]
enum Pool {
    Sqlite(SqlitePool),
    #[cfg(feature = "mysql")]
    MySql(MySqlPool),
    #[cfg(feature = "postgres")]
    Postgres(PgPool),
}

/// The connections of a pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolSize {
    /// Connections that are open.
    pub open: usize,
    /// Those of them that nothing uses now.
    pub idle: usize,
}

/// A name under the config's `databases`, as a type; `databases! { Logs = "logs" }` makes them.
pub trait DatabaseName {
    /// The name.
    const NAME: &'static str;
}

/// A database of the config's `databases`, as an argument of a handler.
#[derive(Debug)]
pub struct NamedDb<N>(Db, PhantomData<fn() -> N>);

impl<N> NamedDb<N> {
    /// For calling a handler in a unit test.
    pub fn new(db: Db) -> Self {
        Self(db, PhantomData)
    }
}

impl<N> Deref for NamedDb<N> {
    type Target = Db;
    fn deref(&self) -> &Db {
        &self.0
    }
}

/// Types for names of databases: `databases! { Logs = "logs" }`, for the argument `NamedDb<Logs>`.
#[macro_export]
macro_rules! databases {
    ($($name:ident = $text:literal),+ $(,)?) => {
        $(
            #[doc = concat!("The database `", $text, "`.")]
            #[derive(Debug, Clone, Copy)]
            pub(crate) struct $name;
            impl $crate::db::DatabaseName for $name {
                const NAME: &'static str = $text;
            }
        )+
    };
    ($($other:tt)*) => {
        ::core::compile_error!("databases are written as TYPE = \"name in the config\": databases! { Logs = \"logs\" }");
    };
}

/// The same code for each database: `$it` is its pool or transaction, `$D` its driver.
macro_rules! on_each {
    ($Enum:ident, $which:expr, $D:ident, $it:ident => $body:expr) => {
        match $which {
            $Enum::Sqlite($it) => {
                type $D = sqlx::Sqlite;
                $body
            }
            #[cfg(feature = "mysql")]
            $Enum::MySql($it) => {
                type $D = sqlx::MySql;
                $body
            }
            #[cfg(feature = "postgres")]
            $Enum::Postgres($it) => {
                type $D = sqlx::Postgres;
                $body
            }
        }
    };
}

/// One statement as a future; `$verb` is `execute`, `fetch_all` or `fetch_optional` of sqlx.
macro_rules! statement {
    ($D:ident, $connection:expr, $verb:ident, $sql:expr, $args:expr) => {
        async {
            let (sql, args) = ($sql, $args);
            let remembered = $D::may_be_remembered(&sql, args);
            let args = $D::arguments(args).map_err(sqlx::Error::Encode)?;
            sqlx::query_with($D::statement(sql), args).persistent(remembered).$verb($connection).await
        }
    };
}

impl Db {
    /// The same database for statements that only read and may be a moment behind: the config's `read_url`,
    /// or itself when there is none.
    #[must_use]
    pub fn reading(&self) -> Self {
        let pool = self.reading.as_ref().unwrap_or(&self.pool);
        // Nobody queues for writing there.
        Self { pool: pool.clone(), turns: Turns::default(), ..self.clone() }
    }

    /// The health of the database, as last seen: it is asked by itself again and again.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// The dialect in which statements are written.
    pub fn dialect(&self) -> Dialect {
        match &self.pool {
            Pool::Sqlite(_) => Dialect::Sqlite,
            #[cfg(feature = "mysql")]
            Pool::MySql(_) => Dialect::MySql,
            #[cfg(feature = "postgres")]
            Pool::Postgres(_) => Dialect::Postgres,
        }
    }

    /// The connections of the pool now.
    pub fn pool_size(&self) -> PoolSize {
        let (open, idle) = match &self.pool {
            Pool::Sqlite(pool) => (pool.size(), pool.num_idle()),
            #[cfg(feature = "mysql")]
            Pool::MySql(pool) => (pool.size(), pool.num_idle()),
            #[cfg(feature = "postgres")]
            Pool::Postgres(pool) => (pool.size(), pool.num_idle()),
        };
        PoolSize { open: open as usize, idle }
    }

    /// The same pool with another deadline for each statement. A longer one is for the statement: nobody
    /// waits longer than [`DEADLINE`] for a connection.
    #[must_use]
    pub fn with_deadline(&self, deadline: Duration) -> Self {
        Self { deadline, ..self.clone() }
    }

    /// Runs a statement and gives the number of rows that it changed.
    ///
    /// Dropping the future does not take the statement back: it may have run.
    ///
    /// # Errors
    /// [`DbError::is_unsent`] tells those after which it surely did not run.
    pub async fn execute(&self, sql: impl Into<Sql>, args: &[Value]) -> Result<u64, DbError> {
        let sql = sql.into();
        on_each!(Pool, &self.pool, D, pool => {
            let (_turn, mut lease, left) = self.lease_to_write(pool).await?;
            let done = time::timeout(left, statement!(D, &mut *lease, execute, sql, args)).await;
            self.outcome(done, lease).map(|done| D::affected(&done))
        })
    }

    /// Runs an INSERT and gives the key that the database has made for the column `key`.
    pub(crate) async fn insert_for_key(&self, sql: Sql, key: &str, args: &[Value]) -> Result<i64, DbError> {
        let unmade = || DbError::Column { column: key.to_owned(), reason: "no key was made for it".into() };
        if self.dialect() == Dialect::Postgres {
            let returning = Sql::trusted(format!("{} RETURNING {key}", sql.text));
            return self.fetch_optional(returning, args).await?.ok_or_else(unmade)?.at(0);
        }
        on_each!(Pool, &self.pool, D, pool => {
            let (_turn, mut lease, left) = self.lease_to_write(pool).await?;
            let done = time::timeout(left, statement!(D, &mut *lease, execute, sql, args)).await;
            self.outcome(done, lease).and_then(|done| D::last_key(&done).ok_or_else(unmade))
        })
    }

    /// Runs a query and gives all of its rows; write a LIMIT when there may be many.
    ///
    /// Cancel-safe for a query that changes nothing.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn fetch_all(&self, sql: impl Into<Sql>, args: &[Value]) -> Result<Vec<Row>, DbError> {
        let sql = sql.into();
        on_each!(Pool, &self.pool, D, pool => {
            let (mut lease, left) = self.lease(pool).await?;
            let found = time::timeout(left, statement!(D, &mut *lease, fetch_all, sql, args)).await;
            self.outcome(found, lease).map(|found| rows::<D>(&found))
        })
    }

    /// Runs a query and gives its first row, if there is one.
    ///
    /// Cancel-safe for a query that changes nothing.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn fetch_optional(&self, sql: impl Into<Sql>, args: &[Value]) -> Result<Option<Row>, DbError> {
        let sql = sql.into();
        on_each!(Pool, &self.pool, D, pool => {
            let (mut lease, left) = self.lease(pool).await?;
            let found = time::timeout(left, statement!(D, &mut *lease, fetch_optional, sql, args)).await;
            self.outcome(found, lease).map(|found| rows::<D>(found.as_slice()).pop())
        })
    }

    /// Begins a transaction. Dropping it without [`commit`](Tx::commit) rolls it back. On SQLite it takes
    /// the write lock at once, so that it never finds at its end that another writer was first.
    ///
    /// Cancel-safe.
    ///
    /// # Errors
    /// As [`execute`](Self::execute); none of its errors leaves anything behind.
    pub async fn begin(&self) -> Result<Tx, DbError> {
        let turn = self.turns.next(self.deadline).await?;
        let begin = async {
            Ok(match &self.pool {
                Pool::Sqlite(pool) => TxKind::Sqlite(pool.begin_with("BEGIN IMMEDIATE").await?),
                #[cfg(feature = "mysql")]
                Pool::MySql(pool) => TxKind::MySql(pool.begin().await?),
                #[cfg(feature = "postgres")]
                Pool::Postgres(pool) => TxKind::Postgres(pool.begin().await?),
            })
        };
        let begun: Result<TxKind, sqlx::Error> = match time::timeout(self.patience(), begin).await {
            Ok(begun) => begun,
            Err(_late) => Err(sqlx::Error::PoolTimedOut),
        };
        let kind = begun.map_err(|e| failed(e, self.deadline))?;
        Ok(Tx { kind, deadline: self.deadline, unfinished: false, _turn: turn })
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// As [`execute`](Self::execute).
    pub async fn ping(&self) -> Result<(), DbError> {
        on_each!(Pool, &self.pool, D, pool => {
            let (mut lease, left) = self.lease::<D>(pool).await?;
            let pong = time::timeout(left, lease.ping()).await;
            self.outcome(pong, lease)
        })
    }

    /// Closes every connection, after the statements that run now, but no longer than the deadline.
    /// Later statements fail with [`DbError::Closed`].
    pub async fn close(&self) {
        on_each!(Pool, &self.pool, D, pool => {
            let pool: &sqlx::Pool<D> = pool;
            // Late ones are closed when their tasks end; there is nobody to tell.
            let _late = time::timeout(self.deadline, pool.close()).await;
        });
        if let Some(reading) = &self.reading {
            on_each!(Pool, reading, D, pool => {
                let pool: &sqlx::Pool<D> = pool;
                let _late = time::timeout(self.deadline, pool.close()).await;
            });
        }
    }

    /// The SQLite pool, for what this API does not do.
    pub fn sqlite(&self) -> Option<&SqlitePool> {
        match &self.pool {
            Pool::Sqlite(pool) => Some(pool),
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            _ => None,
        }
    }

    /// The MariaDB/MySQL pool, for what this API does not do. Of the feature `mysql`.
    #[cfg(feature = "mysql")]
    pub fn mysql(&self) -> Option<&MySqlPool> {
        if let Pool::MySql(pool) = &self.pool { Some(pool) } else { None }
    }

    /// The PostgreSQL pool, for what this API does not do. Of the feature `postgres`.
    #[cfg(feature = "postgres")]
    pub fn postgres(&self) -> Option<&PgPool> {
        if let Pool::Postgres(pool) = &self.pool { Some(pool) } else { None }
    }

    /// How long a statement waits for a connection.
    fn patience(&self) -> Duration {
        if self.health.is_up() { self.deadline } else { self.deadline.min(WAIT_WHEN_DOWN) }
    }

    /// A connection of the pool, and what is left of the deadline.
    async fn lease<D: sqlx::Database>(
        &self,
        pool: &sqlx::Pool<D>,
    ) -> Result<(PoolConnection<D>, Duration), DbError> {
        let started = Instant::now();
        let patience = self.patience();
        match time::timeout(patience, pool.acquire()).await {
            Ok(Ok(connection)) => Ok((connection, self.deadline.saturating_sub(started.elapsed()))),
            Ok(Err(e)) => Err(failed(e, started.elapsed())),
            Err(_late) => Err(DbError::NoConnection { waited: patience }),
        }
    }

    /// As [`lease`](Self::lease), for a statement that may write.
    async fn lease_to_write<D: sqlx::Database>(
        &self,
        pool: &sqlx::Pool<D>,
    ) -> Result<(Option<OwnedMutexGuard<()>>, PoolConnection<D>, Duration), DbError> {
        let started = Instant::now();
        let turn = self.turns.next(self.deadline).await?;
        let waited = started.elapsed();
        let (connection, left) = self.lease(pool).await?;
        Ok((turn, connection, left.saturating_sub(waited)))
    }

    /// The outcome of a statement; gives the connection back.
    fn outcome<D: Driver, T>(
        &self,
        outcome: Result<Result<T, sqlx::Error>, time::error::Elapsed>,
        mut lease: PoolConnection<D>,
    ) -> Result<T, DbError> {
        match outcome {
            Ok(done) => done.map_err(|e| failed(e, self.deadline)),
            Err(_late) => {
                if D::CLOSE_WHEN_LATE {
                    lease.close_on_drop();
                }
                Err(DbError::Timeout { waited: self.deadline })
            }
        }
    }
}

/// A transaction. Dropping it without [`commit`](Tx::commit) rolls it back.
#[derive(Debug)]
#[must_use = "without commit a transaction is rolled back"]
pub struct Tx {
    kind: TxKind,
    deadline: Duration,
    /// A statement was begun and its end was never seen.
    unfinished: bool,
    _turn: Option<OwnedMutexGuard<()>>,
}

#[derive(Debug)]
enum TxKind {
    Sqlite(Transaction<'static, sqlx::Sqlite>),
    #[cfg(feature = "mysql")]
    MySql(Transaction<'static, sqlx::MySql>),
    #[cfg(feature = "postgres")]
    Postgres(Transaction<'static, sqlx::Postgres>),
}

impl Tx {
    /// As [`Db::execute`], within the transaction. Not cancel-safe: when the future is dropped, the
    /// transaction can only be rolled back.
    ///
    /// # Errors
    /// As [`Db::execute`], and [`DbError::BrokenOff`].
    pub async fn execute(&mut self, sql: impl Into<Sql>, args: &[Value]) -> Result<u64, DbError> {
        let sql = sql.into();
        self.start()?;
        let done = on_each!(TxKind, &mut self.kind, D, tx => {
            let done = statement!(D, &mut **tx, execute, sql, args);
            time::timeout(self.deadline, done).await.map(|done| done.map(|done| D::affected(&done)))
        });
        self.end(done)
    }

    /// As [`Db::fetch_all`], within the transaction. Not cancel-safe, as [`execute`](Self::execute).
    ///
    /// # Errors
    /// As [`Db::execute`], and [`DbError::BrokenOff`].
    pub async fn fetch_all(&mut self, sql: impl Into<Sql>, args: &[Value]) -> Result<Vec<Row>, DbError> {
        let sql = sql.into();
        self.start()?;
        let found = on_each!(TxKind, &mut self.kind, D, tx => {
            let found = statement!(D, &mut **tx, fetch_all, sql, args);
            time::timeout(self.deadline, found).await.map(|found| found.map(|found| rows::<D>(&found)))
        });
        self.end(found)
    }

    /// As [`Db::fetch_optional`], within the transaction. Not cancel-safe, as [`execute`](Self::execute).
    ///
    /// # Errors
    /// As [`Db::execute`], and [`DbError::BrokenOff`].
    pub async fn fetch_optional(
        &mut self,
        sql: impl Into<Sql>,
        args: &[Value],
    ) -> Result<Option<Row>, DbError> {
        Ok(self.fetch_all(sql, args).await?.into_iter().next())
    }

    /// Makes everything that the transaction did last. Dropping the future leaves open whether it did.
    ///
    /// # Errors
    /// [`DbError::Timeout`] and [`DbError::Lost`] leave open whether it was committed; after any other error
    /// it surely was not.
    pub async fn commit(mut self) -> Result<(), DbError> {
        self.start()?;
        let waited = self.deadline;
        let done = on_each!(TxKind, self.kind, D, tx => {
            let tx: Transaction<'static, D> = tx;
            time::timeout(waited, tx.commit()).await
        });
        match done {
            Ok(done) => done.map_err(|e| failed(e, waited)),
            Err(_late) => Err(DbError::Timeout { waited }),
        }
    }

    /// Takes everything back, and waits until that is done. Dropping the transaction does the same later.
    ///
    /// # Errors
    /// [`DbError::Timeout`] or [`DbError::Lost`]; it is rolled back all the same.
    pub async fn rollback(self) -> Result<(), DbError> {
        let waited = self.deadline;
        let done = on_each!(TxKind, self.kind, D, tx => {
            let tx: Transaction<'static, D> = tx;
            time::timeout(waited, tx.rollback()).await
        });
        match done {
            Ok(done) => done.map_err(|e| failed(e, waited)),
            Err(_late) => Err(DbError::Timeout { waited }),
        }
    }

    fn start(&mut self) -> Result<(), DbError> {
        if self.unfinished {
            return Err(DbError::BrokenOff);
        }
        self.unfinished = true;
        Ok(())
    }

    fn end<T>(
        &mut self,
        outcome: Result<Result<T, sqlx::Error>, time::error::Elapsed>,
    ) -> Result<T, DbError> {
        let waited = self.deadline;
        let Ok(done) = outcome else { return Err(DbError::Timeout { waited }) };
        self.unfinished = false;
        done.map_err(|e| failed(e, waited))
    }
}

#[cfg(test)]
mod tests;
