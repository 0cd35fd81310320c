//! How fast records are: reads from memory, writes behind against durable ones in one run, and what a blocked
//! database does to commands that need none.

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use ffserver::db::{Db, Value};
use ffserver::{Save, Table};
use ffstore::record::{Records, Settings, create};
use nix::sys::signal::{Signal, kill};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::coins::Purse;
use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::random::Random;
use crate::servers::Database;

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Records that are read and written
    #[arg(long, default_value_t = 10_000)]
    pub records: u32,
    /// How long each measurement takes
    #[arg(long, default_value_t = 5)]
    pub seconds: u64,
    /// Tasks that write at the same time
    #[arg(long, default_value_t = 64)]
    pub writers: u32,
    /// How often the blocked database is compared with one that works
    #[arg(long, default_value_t = 3)]
    pub rounds: u32,
}

/// Measures all of it.
///
/// # Errors
/// A target is missed.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let mut verdict = Verdict::default();
    let folder = tempfile::tempdir()?;
    let sqlite = format!("sqlite://{}", folder.path().join("speed.db").display());
    speeds("SQLite", &sqlite, folder.path(), size, &mut verdict, say).await?;
    if let Some(mariadb) = Database::mariadb().await? {
        speeds("MariaDB", &mariadb.url(), folder.path(), size, &mut verdict, say).await?;
        blocked(&mariadb, size, &mut verdict, say).await?;
    }
    verdict.end(say)
}

fn key(n: u32) -> String {
    format!("robot {n}")
}

async fn speeds(
    what: &str,
    url: &str,
    folder: &std::path::Path,
    size: &Size,
    verdict: &mut Verdict,
    say: Say<'_>,
) -> Result<()> {
    let db = Db::connect(&ffconfig::Database::at(url)).await?;
    create::<Purse>(&db).await?;
    let mut tx = db.begin().await?;
    for n in 0..size.records {
        let row = [Value::from(key(n)), Value::Int(0), Value::Bytes(vec![0; 64])];
        tx.execute("INSERT INTO coins (name, coins, done) VALUES (?, ?, ?)", &row).await?;
    }
    tx.commit().await?;
    let data_dir = folder.join(what);
    let limits = ffconfig::Limits { record_fresh: Duration::from_secs(3600), ..Default::default() };
    let settings = Settings {
        id: format!("speed-{what}"),
        data_dir,
        limits,
        mirror: None,
        ambient: ffserver::Ambient::system(),
    };
    let mut records = Records::new(BTreeMap::from([(String::new(), db.clone())]), settings, |_| true);
    let purses = records.open::<Purse>().await?;
    let keys: Vec<String> = (0..size.records).map(key).collect();
    purses.get_many(&keys).await?;

    let reads = reads(&purses, &keys, size.seconds).await?;
    say(&format!("{what}: {reads:>9.0} reads from memory in a second on one core"));
    verdict.hold(reads >= 1e6, format_args!("{what}: {reads:.0} reads in a second are fewer than 1 M"));

    let alone = writes(&purses, &keys, 1, Save::Durable, size.seconds).await?;
    let durable = writes(&purses, &keys, size.writers, Save::Durable, size.seconds).await?;
    // Every record is held once before it is hot.
    for key in &keys {
        purses.update(key, Save::within_ms(100), |purse| purse.coins += 1).await?;
    }
    let begun = Instant::now();
    let behind = writes(&purses, &keys, size.writers, Save::within_ms(100), size.seconds).await?;
    let busy = begun.elapsed();
    while records.counters().iter().any(|(name, _)| name == "record_dirty") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    // What was not yet in the database when the writers stopped counts as time.
    let behind = behind * busy.as_secs_f64() / begun.elapsed().as_secs_f64();
    let times = behind / alone.max(durable);
    say(&format!(
        "{what}: {alone:>7.0} durable updates in a second one after the other, {durable:.0} of {} at a time; \
         {behind:.0} within 100 ms of {} hot records: {times:.1} times",
        size.writers, size.records
    ));
    verdict.hold(times >= 20.0, format_args!("{what}: {times:.1} times are fewer than 20"));
    let counters = records.counters();
    let counters = counters.iter().filter(|(name, _)| name.contains("flush"));
    say(&format!(
        "{what}: {}",
        counters.map(|(name, n)| format!("{name} {n}")).collect::<Vec<_>>().join(", ")
    ));
    records.close(Instant::now() + Duration::from_secs(30)).await;
    let rows = db.fetch_all("SELECT count(*) AS n FROM coins WHERE holder = '' AND coins > 0", &[]).await?;
    verdict
        .hold(rows[0].get::<i64>("n")? == i64::from(size.records), format_args!("{what}: rows are missing"));
    db.close().await;
    Ok(())
}

async fn reads(purses: &Table<Purse>, keys: &[String], seconds: u64) -> Result<f64> {
    let (mut random, mut n) = (Random::new(3), 0_u64);
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(seconds) {
        for _ in 0..1000 {
            let key = &keys[random.below(keys.len() as u64) as usize];
            n += u64::from(purses.get(key).await?.is_some());
        }
    }
    Ok(n as f64 / begun.elapsed().as_secs_f64())
}

/// How many updates in a second end well.
async fn writes(
    purses: &Table<Purse>,
    keys: &[String],
    writers: u32,
    save: Save,
    seconds: u64,
) -> Result<f64> {
    let begun = Instant::now();
    let until = begun + Duration::from_secs(seconds);
    let mut running = JoinSet::new();
    for writer in 0..writers {
        let purses = purses.clone();
        let own = keys.iter().skip(writer as usize).step_by(writers as usize);
        let keys: Vec<String> = own.cloned().collect();
        running.spawn(async move {
            let mut n = 0_u64;
            for key in keys.iter().cycle() {
                if Instant::now() >= until {
                    break;
                }
                purses.update(key, save, |purse| purse.coins += 1).await?;
                n += 1;
            }
            anyhow::Ok(n)
        });
    }
    let mut n = 0;
    while let Some(writer) = running.join_next().await {
        n += writer??;
    }
    Ok(n as f64 / begun.elapsed().as_secs_f64())
}

/// Echoes through net, gate and game at a fixed pace, while others ask for the database: when it works, and
/// when it is stopped.
async fn blocked(mariadb: &Database, size: &Size, verdict: &mut Verdict, say: Say<'_>) -> Result<()> {
    let text = r#"{
  "master": { "rootport": @master, "webport": @admin },
  "db": { "url": "DATABASE" },
  "servers": {
    "gate": { "rootport": @gate, "app": "trialgate" },
    "net":  { "netport": @net, "remoteport": [{ "rootname": "gate" }], "app": "trialnet",
              "route": { "range": { "game": [[1600, 1699]] } } },
    "game": { "remoteport": [{ "rootname": "gate" }], "type": "game", "app": "coinsgame", "db": true }
  }
}"#;
    let fixture = Fixture::new(text)?.replace("DATABASE", &mariadb.url());
    let cluster = Cluster::processes(fixture).await?;
    let compared = compare(&cluster, mariadb, size).await;
    let (works, stopped, result) = match compared {
        Ok((works, stopped)) => (works, stopped, Ok(())),
        Err(error) => (Vec::new(), Vec::new(), Err(error)),
    };
    with_log(cluster, result)?.stop().await?;
    let (works, stopped) = (median(works), median(stopped));
    let change = (stopped / works - 1.0) * 100.0;
    say(&format!(
        "an echo through net, gate and game: p99 {works:.0} us while the database works, {stopped:.0} us while \
         it is stopped: {change:+.1} %"
    ));
    verdict.hold(change <= 10.0, format_args!("a blocked database moves the p99 by {change:.1} %"));
    Ok(())
}

async fn compare(cluster: &Cluster, mariadb: &Database, size: &Size) -> Result<(Vec<f64>, Vec<f64>)> {
    let (mut works, mut stopped) = (Vec::new(), Vec::new());
    for _ in 0..size.rounds {
        works.push(p99(cluster, size.seconds).await?);
        kill(mariadb.pid()?, Signal::SIGSTOP)?;
        let measured = p99(cluster, size.seconds).await;
        kill(mariadb.pid()?, Signal::SIGCONT)?;
        stopped.push(measured?);
    }
    Ok((works, stopped))
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Of 500 echoes in a second, in microseconds; 8 clients ask for the database all the while.
async fn p99(cluster: &Cluster, seconds: u64) -> Result<f64> {
    const EVERY: Duration = Duration::from_millis(2);
    let mut asking = JoinSet::new();
    for robot in 0..8_u32 {
        let mut client = cluster.client().await?;
        asking.spawn(async move {
            for number in 0.. {
                let body = format!("{number}|{}|{}|1|0", key(2 * robot), key(2 * robot + 1));
                if client.send(1600, body.as_bytes()).await.is_err() || client.receive().await.is_err() {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
    }
    let mut client = cluster.client().await?;
    let begun = Instant::now();
    let mut times = Vec::new();
    for n in 0..(seconds * 500) as u32 {
        let due = begun + EVERY * n;
        sleep_until(due).await;
        client.send(1601, b"0123456789").await?;
        client.receive().await?;
        // From when it was due: a late answer must not hide that the next one was late, too.
        times.push(due.elapsed());
    }
    times.sort();
    finish(asking).await;
    Ok(times[times.len() * 99 / 100].as_secs_f64() * 1e6)
}

fn finish(mut tasks: JoinSet<()>) -> impl Future<Output = ()> {
    tasks.abort_all();
    async move { while tasks.join_next().await.is_some() {} }
}
