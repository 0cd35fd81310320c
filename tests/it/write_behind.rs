//! Records while caches and databases fail: nothing is lost, nothing is wrong, and whoever would have to wait
//! too long is told.

// clippy.toml allows these in tests; helpers of integration tests do not count as such for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ffserver::cache::Cache;
use ffserver::db::{Db, Value};
use ffserver::{Record, Save, Table};
use ffstore::record::{RecordError, Records, Settings, create};
use tests::servers::{Database, Memcached, unique};
use tests::wait;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[derive(Record, Debug, Clone, PartialEq)]
#[record(table = "purse")]
struct Purse {
    #[record(key)]
    id: i64,
    coins: i64,
    padding: String,
}

const PADDING: usize = 2000;

async fn fill(url: &str, rows: i64) -> Result<Db> {
    let db = Db::connect(&ffconfig::Database::at(url)).await?;
    create::<Purse>(&db).await?;
    let mut tx = db.begin().await?;
    for id in 0..rows {
        let row = [Value::Int(id), Value::Int(0), Value::Text("x".repeat(PADDING))];
        tx.execute("INSERT INTO purse (id, coins, padding) VALUES (?, ?, ?)", &row).await?;
    }
    tx.commit().await?;
    Ok(db)
}

async fn node(
    url: &str,
    data_dir: &Path,
    mirror: Option<Cache>,
    change: impl FnOnce(&mut ffconfig::Limits),
) -> Result<(Records, Table<Purse>)> {
    let mut limits = ffconfig::Limits::default();
    change(&mut limits);
    let db = Db::connect(&ffconfig::Database::at(url)).await?;
    let watched = db.clone();
    tokio::spawn(async move { watched.health().watch("db").await });
    let settings = Settings {
        id: unique("node"),
        data_dir: data_dir.to_owned(),
        limits,
        mirror,
        ambient: ffserver::Ambient::system(),
    };
    let mut records = Records::new(BTreeMap::from([(String::new(), db)]), settings, |_| true);
    records.recover().await;
    let purses = records.open().await?;
    Ok((records, purses))
}

async fn close(records: Records) {
    records.close(Instant::now() + Duration::from_secs(10)).await;
}

fn counter(records: &Records, name: &str) -> u64 {
    records.counters().into_iter().find(|(known, _)| known == name).map_or(0, |(_, n)| n)
}

/// memcached of one megabyte for ten times as much, killed, restarted and flushed all the while.
#[tokio::test]
async fn a_memcached_that_evicts_is_flushed_and_dies_makes_no_value_wrong_and_deletes_no_row() -> Result<()> {
    const ROWS: i64 = 4000;
    let Some(mut memcached) = Memcached::start(1).await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    let db = fill(&url, ROWS).await?;
    let timeout = Duration::from_millis(300);
    let config = ffconfig::Memcached { urls: vec![memcached.address()], prefix: unique("evict"), timeout };
    let mut nodes = Vec::new();
    let mut users = JoinSet::new();
    let until = Instant::now() + Duration::from_secs(6);
    for user in 0..3_i64 {
        let shared = Some(Cache::connect(&config).await?);
        // So small that most reads ask memcached.
        let (records, purses) = node(&url, folder.path(), shared, |limits| {
            limits.records_bytes_max = 256 * 1024;
            limits.record_fresh = Duration::ZERO;
        })
        .await?;
        nodes.push(records);
        users.spawn(async move {
            let (mut n, mut written) = (user, BTreeMap::new());
            while Instant::now() < until {
                n = (n * 1103 + 12345) % ROWS;
                let own = n - n % 3 + user;
                if own < ROWS {
                    let coins = purses.update(&own, Save::Durable, |purse| {
                        purse.coins += 1;
                        purse.coins
                    });
                    let before = written.insert(own, coins.await?).unwrap_or(0);
                    assert_eq!(written[&own], before + 1, "only this node writes {own}");
                    assert_eq!(purses.get(&own).await?.unwrap().coins, before + 1, "its own write is read");
                }
                let other = purses.get(&n).await?.unwrap_or_else(|| panic!("{n} is gone"));
                assert_eq!((other.id, other.padding.len()), (n, PADDING));
            }
            anyhow::Ok(written)
        });
    }
    let mut round = 0;
    while Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(400)).await;
        round += 1;
        if round % 3 == 0 {
            memcached.restart().await?;
        } else {
            let mut server = tokio::net::TcpStream::connect(memcached.address()).await?;
            server.write_all(b"flush_all\r\n").await?;
        }
    }
    let mut all = BTreeMap::new();
    while let Some(user) = users.join_next().await {
        all.extend(user??);
    }
    assert!(all.len() > 100, "{} rows were written", all.len());
    assert!(nodes.iter().any(|records| counter(records, "record_shared_hits") > 0), "memcached was read");
    for row in db.fetch_all("SELECT id, coins FROM purse", &[]).await? {
        let (id, coins) = (row.get::<i64>("id")?, row.get::<i64>("coins")?);
        assert_eq!(coins, all.remove(&id).unwrap_or(0), "{id}");
    }
    assert!(all.is_empty(), "rows are gone: {all:?}");
    for records in nodes {
        close(records).await;
    }
    Ok(())
}

/// A text that a player chose, say, and that an index of the table's does not take.
#[tokio::test]
async fn a_record_that_the_database_refuses_keeps_no_other_and_no_stop_waiting() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    let db = fill(&url, 4).await?;
    db.execute("UPDATE purse SET padding = id", &[]).await?;
    db.execute("CREATE UNIQUE INDEX purse_padding ON purse (padding)", &[]).await?;
    let data_dir = folder.path().join("data");
    let (records, purses) = node(&url, &data_dir, None, |_| {}).await?;
    purses.update(&0, Save::within_ms(1), |purse| purse.padding = "1".into()).await?;
    for id in 1..4 {
        purses.update(&id, Save::within_ms(1), |purse| purse.coins = 7).await?;
    }
    let written = async |how_many: i64| -> Result<(), i64> {
        let rows = db.fetch_all("SELECT count(*) FROM purse WHERE coins = 7", &[]).await.unwrap();
        let n: i64 = rows[0].at(0).unwrap();
        if n == how_many { Ok(()) } else { Err(n) }
    };
    wait::until("the others are written", async || written(3).await).await?;
    // What the stop finds is tried once, and what can be released is.
    purses.update(&1, Save::within_ms(600_000), |purse| purse.coins = 8).await?;
    let started = Instant::now();
    close(records).await;
    ensure!(started.elapsed() < Duration::from_secs(5), "the stop took {:?}", started.elapsed());
    let held = "SELECT id FROM purse WHERE holder <> ''";
    let rows = db.fetch_all(held, &[]).await?;
    assert_eq!(rows.iter().map(|row| row.at::<i64>(0)).collect::<Result<Vec<_>, _>>()?, [0]);
    // Who finds the journal keeps the record for people, and ends its hold.
    let (records, purses) = node(&url, &data_dir, None, |_| {}).await?;
    assert!(db.fetch_all(held, &[]).await?.is_empty());
    let files: Vec<_> = std::fs::read_dir(&data_dir)?.map(|file| file.unwrap().path()).collect();
    assert!(files.iter().any(|path| path.extension().is_some_and(|e| e == "refused")), "{files:?}");
    purses.update(&0, Save::Durable, |purse| purse.coins = 9).await?;
    close(records).await;
    Ok(())
}

/// A bit of the disk has flipped in a journal that a dead node has left.
#[tokio::test]
async fn damage_in_a_journal_takes_what_is_damaged_and_the_file_is_kept() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    let db = fill(&url, 4).await?;
    let data_dir = folder.path().join("data");
    let (dead, purses) = node(&url, &data_dir, None, |_| {}).await?;
    for id in 0..4 {
        purses.update(&id, Save::within_ms(600_000), |purse| purse.coins = 7).await?;
    }
    drop((purses, dead));
    let path = wait::until("the journal is left", async || {
        let mut files = std::fs::read_dir(&data_dir).unwrap().map(|file| file.unwrap().path());
        let path = files.find(|path| path.extension().is_some_and(|e| e == "journal")).ok_or("no file")?;
        std::fs::File::open(&path).unwrap().try_lock().map_err(|_| "locked")?;
        Ok::<_, &str>(path)
    })
    .await?;
    let mut bytes = std::fs::read(&path)?;
    let file = ffstore::rows::journal::read(&bytes)?;
    // Of 1 what was written, and of 2 the lease before it: the table, and a lease and a write of each.
    let end = |entries: usize| {
        let mut start = Vec::new();
        file.head.write(&mut start);
        file.entries[..entries].iter().for_each(|entry| entry.write(&file.head, &mut start));
        start.len()
    };
    assert_eq!((file.entries.len(), end(9)), (9, bytes.len()));
    for at in [end(4), end(6) - 1] {
        bytes[at] ^= 4;
    }
    std::fs::write(&path, &bytes)?;

    let (records, purses) = node(&url, &data_dir, None, |_| {}).await?;
    let rows = db.fetch_all("SELECT coins FROM purse WHERE holder = '' ORDER BY id", &[]).await?;
    assert_eq!(rows.iter().map(|row| row.at::<i64>(0)).collect::<Result<Vec<_>, _>>()?, [7, 0, 7, 7]);
    assert_eq!(std::fs::read(path.with_extension("damaged"))?, bytes);
    assert!(!path.exists());
    purses.update(&1, Save::Durable, |purse| purse.coins = 9).await?;
    close(records).await;
    Ok(())
}

/// A handler is dropped at its deadline while its write waits for the journal.
#[tokio::test]
async fn an_update_of_two_that_is_dropped_is_done_for_both_or_for_none() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    let db = fill(&url, 2).await?;
    let data_dir = folder.path().join("data");
    let (dead, purses) = node(&url, &data_dir, None, |_| {}).await?;
    let later = Save::within_ms(600_000);
    for id in 0..2 {
        purses.update(&id, later, |purse| purse.coins = 100).await?;
    }
    for _ in 0..10 {
        let moved = purses.update_two(&0, &1, later, |one, other| {
            one.coins -= 1;
            other.coins += 1;
        });
        // Its first step puts it into the journal's queue.
        tokio::select! {
            biased;
            moved = moved => moved?,
            () = std::future::ready(()) => {}
        }
        purses.update(&1, later, |purse| purse.coins += 1000).await?;
    }
    drop(purses);
    drop(dead);
    let (records, _purses) = node(&url, &data_dir, None, |_| {}).await?;
    wait::until("the journal of the dead one is written", async || {
        let rows = db.fetch_all("SELECT coins FROM purse WHERE holder = ''", &[]).await.unwrap();
        match rows.iter().map(|row| row.at::<i64>(0).unwrap()).sum() {
            10_200 => Ok(()),
            sum => Err(sum),
        }
    })
    .await?;
    close(records).await;
    Ok(())
}

/// The database is away for a while: what is held goes on, up to the bound; nothing of it is lost.
#[tokio::test]
async fn a_database_outage_is_backpressure_and_no_loss() -> Result<()> {
    const BOUND: i64 = 20;
    let Some(mut mariadb) = Database::mariadb().await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let db = fill(&mariadb.url(), BOUND + 2).await?;
    let (records, purses) = node(&mariadb.url(), folder.path(), None, |limits| {
        limits.dirty_records_max = BOUND as usize;
        limits.record_fresh = Duration::from_secs(600);
    })
    .await?;
    // What waits is held for as long as it waits, however slow the machine is.
    for id in 0..BOUND {
        purses.update(&id, Save::within_ms(600_000), |purse| purse.coins = 1).await?;
    }
    purses.get(&BOUND).await?;
    mariadb.kill().await?;
    let full = purses.update(&BOUND, Save::within_ms(1), |purse| purse.coins = 2).await.unwrap_err();
    assert!(matches!(full, RecordError::Backlog { records: 20, .. }) && full.is_unsent(), "{full:?}");
    let started = Instant::now();
    let away = purses.update(&(BOUND + 1), Save::Durable, |purse| purse.coins = 2).await.unwrap_err();
    assert!(matches!(away, RecordError::Db(_)), "{away:?}");
    assert!(started.elapsed() < Duration::from_secs(20), "it has a deadline: {:?}", started.elapsed());
    // What is held is taken, and is due at once.
    for id in 0..BOUND {
        purses.update(&id, Save::within_ms(1), |purse| purse.coins += 1).await?;
    }
    wait::until("the failure is counted", async || match counter(&records, "record_flush_failures") {
        0 => Err("none"),
        _ => Ok(()),
    })
    .await?;
    assert_eq!(counter(&records, "record_dirty"), BOUND as u64, "what failed stays dirty");
    mariadb.restart().await?;
    wait::until("everything that was taken is written", async || match counter(&records, "record_dirty") {
        0 => Ok(()),
        n => Err(n),
    })
    .await?;
    wait::until("the pool of the test is back", async || db.ping().await).await?;
    let rows = db.fetch_all("SELECT id FROM purse WHERE coins = 2 ORDER BY id", &[]).await?;
    let written = rows.iter().map(|row| row.at::<i64>(0)).collect::<Result<Vec<_>, _>>()?;
    assert_eq!(written, (0..BOUND).collect::<Vec<_>>());
    close(records).await;
    Ok(())
}

/// As with a full disk: the database answers, and takes no write.
#[tokio::test]
async fn a_node_says_for_how_long_its_database_has_taken_no_write_out() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    let db = fill(&url, 1).await?;
    let (records, purses) = node(&url, folder.path(), None, |_| {}).await?;
    let failing = || counter(&records, "record_flush_failing_ms");
    // It is held, and waits, before the database is locked.
    purses.update(&0, Save::within_ms(2_000), |purse| purse.coins = 2).await?;
    assert_eq!(failing(), 0);
    let mut tx = db.begin().await?;
    tx.execute("UPDATE purse SET padding = padding", &[]).await?;
    wait::until("it is seen", async || if failing() > 0 { Ok(()) } else { Err(records.counters()) }).await?;
    let before = failing();
    wait::until("it lasts", async || if failing() > before { Ok(()) } else { Err(before) }).await?;
    assert!(records.stats()[0].1.failing > Duration::ZERO);
    tx.rollback().await?;
    wait::until("it is over", async || if failing() == 0 { Ok(()) } else { Err(records.counters()) }).await?;
    assert_eq!(purses.get(&0).await?.context("gone")?.coins, 2);
    close(records).await;
    Ok(())
}

/// The end of the holds was asked for, and the database was away.
#[tokio::test]
async fn holds_that_an_outage_kept_from_ending_are_ended_together_after_it() -> Result<()> {
    const ROWS: i64 = 300;
    let Some(mut mariadb) = Database::mariadb().await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let db = fill(&mariadb.url(), ROWS).await?;
    let (records, purses) = node(&mariadb.url(), folder.path(), None, |_| {}).await?;
    // Until the outage comes while all of them are held and nothing of them waits.
    wait::until("all are held when the database goes", async || {
        let write = |id| {
            let purses = purses.clone();
            async move { purses.update(&id, Save::within_ms(1), |purse| purse.coins += 1).await }
        };
        let mut writers: JoinSet<_> = (0..ROWS).map(write).collect();
        while let Some(written) = writers.join_next().await {
            written.map_err(|e| e.to_string())?.map_err(|e| e.to_string())?;
        }
        wait::until("they are written", async || match counter(&records, "record_dirty") {
            0 => Ok(()),
            n => Err(n),
        })
        .await
        .map_err(|e| e.to_string())?;
        mariadb.kill().await.map_err(|e| e.to_string())?;
        match counter(&records, "record_held") {
            300 => Ok(()),
            n => {
                mariadb.restart().await.map_err(|e| e.to_string())?;
                wait::until("the node is back", async || db.ping().await).await.map_err(|e| e.to_string())?;
                Err(format!("{n} are held"))
            }
        }
    })
    .await?;
    wait::until("the node has let go of them", async || match counter(&records, "record_held") {
        0 => Ok(()),
        n => Err(n),
    })
    .await?;
    mariadb.restart().await?;
    wait::until("nobody holds a row", async || {
        match db.fetch_all("SELECT id FROM purse WHERE holder <> ''", &[]).await {
            Ok(rows) if rows.is_empty() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let row = db.fetch_optional("SHOW GLOBAL STATUS LIKE 'Com_update'", &[]).await?.context("no status")?;
    let updates: i64 = row.at::<String>(1)?.parse()?;
    assert!((1..=30).contains(&updates), "{updates} statements for {ROWS} holds");
    close(records).await;
    Ok(())
}

/// The stop comes while the database is away: the journal keeps it for the next node.
#[tokio::test]
async fn what_cannot_be_written_at_the_stop_is_written_by_the_next_start() -> Result<()> {
    let Some(mut mariadb) = Database::mariadb().await? else { return Ok(()) };
    let folder = tempfile::tempdir()?;
    let db = fill(&mariadb.url(), 3).await?;
    let (records, purses) = node(&mariadb.url(), folder.path(), None, |_| {}).await?;
    purses.update(&1, Save::within_ms(60_000), |purse| purse.coins = 7).await?;
    mariadb.kill().await?;
    records.close(Instant::now() + Duration::from_millis(500)).await;
    drop((records, purses));
    mariadb.restart().await?;
    let (records, purses) = node(&mariadb.url(), folder.path(), None, |_| {}).await?;
    assert_eq!(purses.get(&1).await?.unwrap().coins, 7, "it is there before anything is read");
    wait::until("the pool of the test is back", async || db.ping().await).await?;
    purses.update(&1, Save::Durable, |purse| purse.coins += 1).await?;
    close(records).await;
    Ok(())
}

#[tokio::test]
async fn a_disk_that_takes_no_journal_is_a_typed_error_and_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    let db = fill(&url, 2).await?;
    let file = folder.path().join("no-folder");
    std::fs::write(&file, "")?;
    let (records, purses) = node(&url, &file.join("data"), None, |_| {}).await?;
    let error = purses.update(&1, Save::within_ms(10), |purse| purse.coins = 9).await.unwrap_err();
    assert!(matches!(error, RecordError::Journal { .. }) && error.is_unsent(), "{error:?}");
    assert_eq!(purses.get(&1).await?.unwrap().coins, 0);
    // What needs no journal goes on, and so does the rest when the disk is back.
    purses.update(&1, Save::Durable, |purse| purse.coins = 1).await?;
    std::fs::remove_file(&file)?;
    purses.update(&1, Save::within_ms(1), |purse| purse.coins += 1).await?;
    close(records).await;
    let rows = db.fetch_all("SELECT coins FROM purse WHERE id = 1 AND holder = ''", &[]).await?;
    assert_eq!(rows[0].get::<i64>("coins")?, 2);
    Ok(())
}

/// Where the inner run of the next test finds its small disk.
const SMALL_DISK: &str = "FF_TEST_SMALL_DISK";

/// Runs itself again in a mount namespace with a small disk of its own; needs root, or user namespaces.
#[tokio::test]
async fn a_disk_that_becomes_full_is_a_typed_error_and_loses_nothing_that_was_answered() -> Result<()> {
    const MYSELF: &str =
        "write_behind::a_disk_that_becomes_full_is_a_typed_error_and_loses_nothing_that_was_answered";
    const INNER: &str = "mount -t tmpfs -o size=1m small \"$1\" && exec \"$2\" --exact \"$3\" --nocapture";
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        return on_a_disk_that_becomes_full(Path::new(&disk)).await;
    }
    let folder = tempfile::tempdir()?;
    let in_namespace = |what: &str| {
        let mut unshare = Command::new("unshare");
        if !nix::unistd::geteuid().is_root() {
            unshare.args(["--user", "--map-root-user"]);
        }
        unshare.args(["--mount", "sh", "-c", what, "sh"]).arg(folder.path());
        unshare
    };
    let tried = in_namespace("mount -t tmpfs -o size=1m small \"$1\"").output().await;
    if let Some(why) = refused(tried) {
        tests::skip::lacks_privilege(&format!("it needs a mount namespace with a disk of its own: {why}"));
        return Ok(());
    }
    let mut unshare = in_namespace(INNER);
    unshare.arg(std::env::current_exe()?).arg(MYSELF).env(SMALL_DISK, folder.path());
    let ran = unshare.stdin(std::process::Stdio::null()).output().await.context("unshare")?;
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    ensure!(ran.status.success() && said.contains("1 passed"), "{said}");
    Ok(())
}

/// Why a program has failed; `None` when it has not.
fn refused(ran: std::io::Result<std::process::Output>) -> Option<String> {
    match ran {
        Ok(ran) if ran.status.success() => None,
        Ok(ran) => Some(String::from_utf8_lossy(&ran.stderr).trim().to_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

async fn on_a_disk_that_becomes_full(disk: &Path) -> Result<()> {
    const ROWS: i64 = 400;
    // The database is elsewhere, and does not grow fuller.
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    let db = fill(&url, ROWS).await?;
    let ballast = disk.join("ballast");
    std::fs::write(&ballast, vec![1; 512 * 1024])?;
    let (records, purses) = node(&url, disk, None, |_| {}).await?;
    let (mut answered, mut refused) = (Vec::new(), 0);
    for id in 0..ROWS {
        match purses.update(&id, Save::within_ms(600_000), |purse| purse.coins = 7).await {
            Ok(()) => answered.push(id),
            Err(error) => {
                assert!(matches!(error, RecordError::Journal { .. }) && error.is_unsent(), "{error:?}");
                let said = format!("{:#}", anyhow::Error::from(error));
                assert!(said.contains("No space left"), "{said}");
                assert_eq!(purses.get(&id).await?.unwrap().coins, 0, "what was refused has not happened");
                refused += 1;
                if refused == 3 {
                    break;
                }
            }
        }
    }
    assert!(answered.len() > 10 && refused == 3, "{} answered, {refused} refused", answered.len());
    // The disk has space again: the same journal goes on behind what was cut.
    std::fs::remove_file(&ballast)?;
    for id in ROWS - 5..ROWS {
        purses.update(&id, Save::within_ms(600_000), |purse| purse.coins = 7).await?;
        answered.push(id);
    }
    // As with kill -9: what another start finds in the journal is all that there is.
    drop(purses);
    drop(records);
    let (records, purses) = node(&url, disk, None, |_| {}).await?;
    for id in 0..ROWS {
        let wanted = if answered.contains(&id) { 7 } else { 0 };
        assert_eq!(purses.get(&id).await?.unwrap().coins, wanted, "{id}");
    }
    close(records).await;
    let written = db.fetch_all("SELECT id FROM purse WHERE coins = 7 AND holder = ''", &[]).await?;
    assert_eq!(written.len(), answered.len());
    Ok(())
}

#[tokio::test]
async fn idle_records_leave_memory() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    fill(&url, 100).await?;
    let idle = |limits: &mut ffconfig::Limits| limits.record_idle = Duration::from_millis(600);
    let (records, purses) = node(&url, folder.path(), None, idle).await?;
    for id in 0..100 {
        purses.update(&id, Save::within_ms(20), |purse| purse.coins += 1).await?;
    }
    assert_eq!(records.stats()[0].1.records, 100);
    wait::until("memory is empty", async || match records.stats()[0].1 {
        stats if stats.records == 0 && stats.bytes == 0 && stats.held == 0 => Ok(()),
        stats => Err(stats),
    })
    .await?;
    assert_eq!(purses.get(&7).await?.unwrap().coins, 1);
    close(records).await;
    Ok(())
}

#[tokio::test]
async fn one_flight_per_key_asks_the_database_once() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    fill(&url, 10).await?;
    let (records, purses) =
        node(&url, folder.path(), None, |limits| limits.record_fresh = Duration::from_secs(60)).await?;
    let mut readers = JoinSet::new();
    for n in 0..100 {
        let purses = purses.clone();
        readers.spawn(async move { purses.get(&(n % 2 * 1000)).await });
    }
    while let Some(reader) = readers.join_next().await {
        reader??;
    }
    // One for the row that is there, one for the row that is not.
    assert_eq!((counter(&records, "record_misses"), counter(&records, "record_hits")), (2, 98));
    close(records).await;
    Ok(())
}
