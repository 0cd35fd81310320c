//! Migrations: the SQL files of a folder, run once each, in order, by one node at a time.

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::migrate::{Migrate, MigrateError, Migrator};
#[cfg(feature = "mysql")]
use sqlx::mysql::MySqlConnection;
use sqlx::{ConnectOptions, Connection};
use tokio::time;
use tracing::info;

use super::health::Target;
use super::{Cause, Db, DbError, Dialect, Pool};

/// How long the files of another node, or of this one, may take: a large table is rebuilt within it.
const WAIT: Duration = Duration::from_secs(600);

impl Db {
    /// Runs what of `folder` was not run yet, under a lock, so that nodes which start together wait for the
    /// one that is first. Files are named `NUMBER_NAME.sql`; the table `_sqlx_migrations` remembers them.
    /// With a subfolder `sqlite`, `mysql` or `postgres` it is that of the database's kind.
    ///
    /// # Errors
    /// [`DbError::Migration`]: the folder cannot be read, a file fails, or one that was run has changed.
    pub async fn migrate(&self, folder: &Path) -> Result<(), DbError> {
        let own = folder.join(match self.dialect() {
            Dialect::Sqlite => "sqlite",
            Dialect::MySql => "mysql",
            Dialect::Postgres => "postgres",
        });
        let folder = if own.is_dir() { own } else { folder.to_owned() };
        let failed = |source: Cause| DbError::Migration { folder: folder.clone(), source };
        let mut files = Migrator::new(folder.clone()).await.map_err(|e| failed(telling(e)))?;
        // An older program after a newer one finds files of the newer one missing, and may run all the same.
        files.set_ignore_missing(true);
        // sqlx's own lock waits for `-1` seconds, which MariaDB takes for an error and not for ever.
        files.set_locking(self.dialect() == Dialect::Postgres);
        match time::timeout(WAIT, self.run(&files)).await {
            Ok(Ok(())) => {
                info!(
                    "migrations of {} are in the database ({} files)",
                    folder.display(),
                    files.iter().count()
                );
                Ok(())
            }
            Ok(Err(e)) => Err(failed(e)),
            Err(_late) => Err(failed(format!("not done within {WAIT:?}").into())),
        }
    }

    async fn run(&self, files: &Migrator) -> Result<(), Cause> {
        match (&self.health.target, &self.pool) {
            (None, Pool::Sqlite(pool)) => {
                let mut connection = pool.acquire().await.map_err(Box::new)?;
                files.run_direct(None, &mut *connection, false).await.map_err(telling)
            }
            (Some(Target::Sqlite(options)), _) => {
                // sqlx has no lock for SQLite.
                let _lock = lock_beside(options.get_filename()).await?;
                run_with(files, options).await
            }
            #[cfg(feature = "mysql")]
            (Some(Target::MySql(options)), _) => {
                let mut lock = options.connect().await.map_err(Box::new)?;
                lock_in_mysql(&mut lock).await?;
                run_with(files, options).await
            }
            #[cfg(feature = "postgres")]
            (Some(Target::Postgres(options)), _) => run_with(files, options).await,
            #[cfg(any(feature = "mysql", feature = "postgres"))]
            (None, _) => Ok(()),
        }
    }
}

/// On a connection of its own, which is closed: a failure would leave sqlx's lock on it.
async fn run_with<O>(files: &Migrator, options: &O) -> Result<(), Cause>
where
    O: ConnectOptions<Connection: Sized>,
    O::Connection: Migrate,
{
    let mut connection = options.connect().await.map_err(Box::new)?;
    let run = files.run_direct(None, &mut connection, false).await;
    // It has done its work; a close that fails takes nothing from that.
    let _closed = connection.close().await;
    run.map_err(telling)
}

/// Waits for a lock of the server's, which ends with the connection.
#[cfg(feature = "mysql")]
async fn lock_in_mysql(connection: &mut MySqlConnection) -> Result<(), Cause> {
    let lock = sqlx::query_scalar("SELECT GET_LOCK(CONCAT('ff migrations of ', MD5(DATABASE())), ?)");
    let got: Option<i64> = lock.bind(WAIT.as_secs()).fetch_one(connection).await.map_err(Box::new)?;
    if got == Some(1) { Ok(()) } else { Err("the lock of another node was not released".into()) }
}

/// Waits for the lock on a file beside the database; dropping it unlocks.
async fn lock_beside(database: &Path) -> Result<File, Cause> {
    let mut path = database.as_os_str().to_owned();
    path.push(".migrating");
    let file = File::options().create(true).append(true).open(PathBuf::from(path))?;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => time::sleep(Duration::from_millis(20)).await,
            Err(TryLockError::Error(e)) => return Err(Box::new(e)),
        }
    }
}

/// sqlx repeats its source in its own text.
fn telling(error: MigrateError) -> Cause {
    error.to_string().into()
}
