//! Opening pools: the options of a URL, the first connection with its telling error, SQLite's folder.

use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "mysql")]
use sqlx::mysql::MySqlConnectOptions;
use sqlx::pool::PoolOptions;
#[cfg(feature = "postgres")]
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection as _};
use tokio::time::{self, Instant};

use super::error::{cause, is_transient};
use super::health::{Health, Target};
use super::{DEADLINE, Db, DbError, Pool, SQLITE_BUSY, Turns};

impl Db {
    /// Connects to the database of the config, and makes sure that it answers. One that is not up yet is
    /// tried again until `connect_timeout`. For SQLite the folder and the file are made.
    ///
    /// Cancel-safe: dropping it closes what was opened.
    ///
    /// # Errors
    /// [`DbError::Url`], [`Unreachable`](DbError::Unreachable), [`Refused`](DbError::Refused) or
    /// [`File`](DbError::File); each names the config's key and the host, and no password.
    pub async fn connect(config: &ffconfig::Database) -> Result<Self, DbError> {
        let (pool, target) = open(config, Make::Missing).await?;
        let mut reading = None;
        if let Some(url) = &config.read_url {
            let config = ffconfig::Database { url: url.clone(), ..config.clone() };
            reading = Some(open(&config, Make::Missing).await?.0);
        }
        Ok(Self::of(config, pool, target, reading))
    }

    /// As [`connect`](Self::connect), and makes and changes nothing; `None` when the database is a SQLite file that
    /// a start would make.
    pub async fn look(config: &ffconfig::Database) -> Result<Option<Self>, DbError> {
        let read =
            config.read_url.as_ref().map(|url| ffconfig::Database { url: url.clone(), ..config.clone() });
        if is_to_be_made(config)? {
            return Ok(None);
        }
        let (pool, target) = open(config, Make::Nothing).await?;
        let reading = match read {
            Some(read) if !is_to_be_made(&read)? => Some(open(&read, Make::Nothing).await?.0),
            _ => None,
        };
        Ok(Some(Self::of(config, pool, target, reading)))
    }

    fn of(config: &ffconfig::Database, pool: Pool, target: Option<Target>, reading: Option<Pool>) -> Self {
        let health = Arc::new(Health::new(config.shown_url(), target));
        let turns = Turns::for_pool(&pool);
        Self { pool, reading, deadline: DEADLINE, health, turns }
    }
}

/// The parts of a SQLite database that a connection may make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Make {
    /// The parts that are missing: the folder, the file, its journal's mode.
    Missing,
    Nothing,
}

async fn open(config: &ffconfig::Database, make: Make) -> Result<(Pool, Option<Target>), DbError> {
    match scheme(config) {
        "sqlite" => connect_sqlite(config, make).await,
        #[cfg(feature = "mysql")]
        scheme @ ("mysql" | "mariadb") => {
            let options = parse::<MySqlConnectOptions>(config)?;
            let target = format!("{scheme} at {}:{}", options.get_host(), options.get_port());
            reach(&options, config, |waited, e| unreached(target, waited, e)).await?;
            let pool = pool_options(config).connect_lazy_with(options.clone());
            Ok((Pool::MySql(pool), Some(Target::MySql(options))))
        }
        #[cfg(feature = "postgres")]
        scheme @ ("postgres" | "postgresql") => {
            let options = parse::<PgConnectOptions>(config)?;
            let target = format!("{scheme} at {}:{}", options.get_host(), options.get_port());
            reach(&options, config, |waited, e| unreached(target, waited, e)).await?;
            let pool = pool_options(config).connect_lazy_with(options.clone());
            Ok((Pool::Postgres(pool), Some(Target::Postgres(options))))
        }
        _ => Err(match driver_feature(&config.url) {
            Some(feature) => DbError::NotBuilt { feature },
            None => DbError::Url { reason: "it must begin with sqlite:, mysql: or postgres:".to_owned() },
        }),
    }
}

fn scheme(config: &ffconfig::Database) -> &str {
    scheme_of(&config.url)
}

fn scheme_of(url: &str) -> &str {
    url.split_once(':').map_or("", |(scheme, _)| scheme)
}

/// The feature that brings the driver of a URL; `None` for SQLite, whose driver is always there, and for no database's URL.
pub(crate) fn driver_feature(url: &str) -> Option<&'static str> {
    match scheme_of(url) {
        "mysql" | "mariadb" => Some("mysql"),
        "postgres" | "postgresql" => Some("postgres"),
        _ => None,
    }
}

/// Whether the database is a SQLite file that is not there and that a start would make.
fn is_to_be_made(config: &ffconfig::Database) -> Result<bool, DbError> {
    if scheme(config) != "sqlite" || is_in_memory(config) || matches!(mode(config), Some("ro" | "rw")) {
        return Ok(false);
    }
    Ok(!parse::<SqliteConnectOptions>(config)?.get_filename().exists())
}

/// The option `mode` of a SQLite URL.
fn mode(config: &ffconfig::Database) -> Option<&str> {
    let (_, query) = config.url.split_once('?')?;
    query.split('&').find_map(|pair| pair.strip_prefix("mode="))
}

fn is_in_memory(config: &ffconfig::Database) -> bool {
    mode(config) == Some("memory") || config.url.contains(":memory:")
}

/// The options of a URL. Statements are not logged one by one, slow ones are, without their values.
fn parse<O: ConnectOptions>(config: &ffconfig::Database) -> Result<O, DbError> {
    let options = O::from_str(&config.url).map_err(|e| DbError::Url { reason: cause(e).to_string() })?;
    Ok(options
        .log_statements(log::LevelFilter::Trace)
        .log_slow_statements(log::LevelFilter::Warn, config.slow))
}

fn pool_options<D: sqlx::Database>(config: &ffconfig::Database) -> PoolOptions<D> {
    PoolOptions::new().max_connections(config.connections_max.max(1)).acquire_timeout(DEADLINE)
}

async fn connect_sqlite(config: &ffconfig::Database, make: Make) -> Result<(Pool, Option<Target>), DbError> {
    let options = parse::<SqliteConnectOptions>(config)?.busy_timeout(SQLITE_BUSY);
    if is_in_memory(config) {
        // It lives as long as its connection: one, and never closed.
        let pool = pool_options(config).max_connections(1).idle_timeout(None).max_lifetime(None);
        return Ok((Pool::Sqlite(pool.connect_lazy_with(options)), None));
    }
    // What is there is opened as it is.
    if mode(config) == Some("ro") || make == Make::Nothing {
        let options = options.create_if_missing(false);
        let path = options.get_filename().to_owned();
        reach(&options, config, |_waited, e| DbError::File { path, source: cause(e) }).await?;
        let pool = pool_options(config).connect_lazy_with(options.clone());
        return Ok((Pool::Sqlite(pool), Some(Target::Sqlite(options))));
    }
    let options = options
        .create_if_missing(mode(config) != Some("rw"))
        .journal_mode(SqliteJournalMode::Wal)
        // A durable write is on the disk when it is answered. NORMAL would be several times as fast, and a power
        // cut could take the last commits with it.
        .synchronous(SqliteSynchronous::Full);
    let path = options.get_filename().to_owned();
    let unopened = |source| DbError::File { path: path.clone(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        tokio::fs::create_dir_all(folder).await.map_err(|e| unopened(Box::new(e)))?;
    }
    reach(&options, config, |_waited, e| unopened(cause(e))).await?;
    let pool = pool_options(config).connect_lazy_with(options.clone());
    Ok((Pool::Sqlite(pool), Some(Target::Sqlite(options))))
}

/// Connects once, for its error: a pool would only tell that it waited. What may pass by itself (nobody
/// listens yet, the server is starting) is tried again until the config's `connect_timeout`.
async fn reach<O: ConnectOptions<Connection: Sized>>(
    options: &O,
    config: &ffconfig::Database,
    unreached: impl FnOnce(Duration, sqlx::Error) -> DbError,
) -> Result<(), DbError> {
    let waited = config.connect_timeout;
    let deadline = Instant::now() + waited;
    let mut pause = Duration::from_millis(20);
    let mut last = sqlx::Error::PoolTimedOut;
    loop {
        match time::timeout_at(deadline, options.connect()).await {
            Ok(Ok(connection)) => {
                // It has proved its point; a close that fails takes nothing from that.
                let _closed = time::timeout_at(deadline, connection.close()).await;
                return Ok(());
            }
            Ok(Err(e)) if is_transient(&e) => last = e,
            Ok(Err(e)) => return Err(unreached(waited, e)),
            Err(_late) => return Err(unreached(waited, last)),
        }
        if Instant::now() + pause >= deadline {
            return Err(unreached(waited, last));
        }
        time::sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

#[cfg(any(feature = "mysql", feature = "postgres"))]
fn unreached(target: String, waited: Duration, error: sqlx::Error) -> DbError {
    match error {
        sqlx::Error::PoolTimedOut => DbError::Unreachable { target, waited, source: "no answer".into() },
        e if is_transient(&e) => DbError::Unreachable { target, waited, source: cause(e) },
        e => DbError::Refused { target, source: cause(e) },
    }
}
