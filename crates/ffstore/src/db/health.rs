//! The health of a database: whether it answers, asked on a connection of its own, so that a busy pool is not taken for
//! a lost database.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
#[cfg(feature = "mysql")]
use sqlx::mysql::MySqlConnectOptions;
#[cfg(feature = "postgres")]
use sqlx::postgres::PgConnectOptions;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::time::{self, Instant};
use tracing::{info, warn};

use super::error::cause;

/// How often a database that answers is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How soon a database that does not answer is asked again, at first and at last.
const AGAIN: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// An answer that takes longer is none.
const ANSWER: Duration = Duration::from_secs(2);

/// The target of a probe.
#[derive(Debug, Clone)]
pub(super) enum Target {
    Sqlite(SqliteConnectOptions),
    #[cfg(feature = "mysql")]
    MySql(MySqlConnectOptions),
    #[cfg(feature = "postgres")]
    Postgres(PgConnectOptions),
}

/// Whether a database answers, as last seen.
#[derive(Debug)]
pub struct Health {
    shown_url: String,
    /// `None` for a database in memory, which cannot be lost.
    pub(super) target: Option<Target>,
    down: AtomicBool,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    answer: Option<Duration>,
    error: Option<String>,
}

impl Health {
    pub(super) fn new(shown_url: String, target: Option<Target>) -> Self {
        Self { shown_url, target, down: AtomicBool::new(false), last: Mutex::default() }
    }

    /// The database's URL, without the password.
    pub fn shown_url(&self) -> &str {
        &self.shown_url
    }

    /// Whether the database answered when it was last asked.
    pub fn is_up(&self) -> bool {
        !self.down.load(Ordering::Relaxed)
    }

    /// How long the last answer took.
    pub fn answer(&self) -> Option<Duration> {
        self.last.lock().answer
    }

    /// Why it does not answer.
    pub fn error(&self) -> Option<String> {
        self.last.lock().error.clone()
    }

    /// Asks it again and again, for as long as it is polled; says in the log when it is lost and when it is
    /// back. `name` is what the log calls it.
    #[doc(hidden)] // The node polls it.
    pub async fn watch(&self, name: &str) {
        match self.target.clone() {
            None => {}
            Some(Target::Sqlite(options)) => self.watch_with(name, options).await,
            #[cfg(feature = "mysql")]
            Some(Target::MySql(options)) => self.watch_with(name, options).await,
            #[cfg(feature = "postgres")]
            Some(Target::Postgres(options)) => self.watch_with(name, options).await,
        }
    }

    async fn watch_with<O: ConnectOptions<Connection: Sized>>(&self, name: &str, options: O) {
        let mut connection = None;
        let (mut again, mut lost_at) = (AGAIN.0, None);
        loop {
            let asked = Instant::now();
            let error = match time::timeout(ANSWER, ask(&options, &mut connection)).await {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(cause(e).to_string()),
                Err(_late) => Some(format!("no answer within {ANSWER:?}")),
            };
            let pause = match &error {
                None => {
                    if let Some(lost_at) = lost_at.take() {
                        let lost_at: Instant = lost_at;
                        info!("database `{name}` is back after {:.1?}", lost_at.elapsed());
                    }
                    again = AGAIN.0;
                    EVERY
                }
                Some(why) => {
                    connection = None;
                    if lost_at.is_none() {
                        warn!("database `{name}` ({}) is lost: {why}", self.shown_url);
                        lost_at = Some(asked);
                    }
                    again = (again * 2).min(AGAIN.1);
                    again
                }
            };
            self.down.store(error.is_some(), Ordering::Relaxed);
            let answer = error.is_none().then(|| asked.elapsed());
            *self.last.lock() = Last { answer, error };
            time::sleep(pause).await;
        }
    }
}

async fn ask<O: ConnectOptions<Connection: Sized>>(
    options: &O,
    kept: &mut Option<O::Connection>,
) -> Result<(), sqlx::Error> {
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => options.connect().await?,
    };
    connection.ping().await?;
    *kept = Some(connection);
    Ok(())
}
