//! Caches and databases that die and come back, and schemas that nodes bring up together.

// clippy.toml allows these in tests; helpers of integration tests do not count as such for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use ffserver::cache::{Cache, CacheError};
use ffserver::db::{Db, DbError};
use tests::servers::{Database, Memcached, unique};
use tests::wait;
use tokio::time::Instant;

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn of_two_memcached_servers_one_that_dies_takes_only_its_own_keys_and_heals() -> Result<()> {
    let (Some(one), Some(mut other)) = (Memcached::start(8).await?, Memcached::start(8).await?) else {
        return Ok(());
    };
    let timeout = Duration::from_secs(2);
    let config =
        ffconfig::Memcached { urls: vec![one.address(), other.address()], prefix: unique("two"), timeout };
    let cache = Cache::connect(&config).await?;
    let keys: Vec<String> = (0..200).map(|n| format!("key {n}")).collect();
    for key in &keys {
        cache.set(key, key, MINUTE).await?;
    }
    let many = cache.get_many(&keys).await?;
    assert!(many.iter().zip(&keys).all(|(value, key)| value.as_deref() == Some(key.as_bytes())));

    other.kill().await?;
    let (mut kept, mut lost) = (0, 0);
    let started = Instant::now();
    for key in &keys {
        match cache.get(key).await {
            Ok(value) => {
                assert_eq!(value.as_deref(), Some(key.as_bytes()));
                kept += 1;
            }
            Err(CacheError::Lost { server, .. } | CacheError::NoAnswer { server, .. }) => {
                assert_eq!(server, other.address());
                lost += 1;
            }
            Err(e) => panic!("{e}"),
        }
    }
    assert!(kept > 40 && lost > 40, "{kept} kept, {lost} lost");
    assert!(started.elapsed() < Duration::from_secs(10), "200 keys took {:?}", started.elapsed());
    assert!(cache.get_many(&keys).await.is_err());
    assert!(matches!(cache.ping().await, Err(CacheError::Lost { .. })));

    other.restart().await?;
    wait::until("the cache heals", async || cache.ping().await).await?;
    let many = cache.get_many(&keys).await?;
    assert_eq!(many.iter().flatten().count(), kept, "the one that came back is empty");
    cache.set("again", "1", MINUTE).await?;
    Ok(())
}

async fn a_killed_database_is_seen_and_comes_back(mut server: Database) -> Result<()> {
    let db = Db::connect(&ffconfig::Database::at(server.url())).await?;
    let watched = db.clone();
    let watch = tokio::spawn(async move { watched.health().watch("db").await });
    db.ping().await?;
    server.kill().await?;
    wait::until("the loss is seen", async || if db.health().is_up() { Err("up") } else { Ok(()) }).await?;
    assert!(db.health().error().is_some());
    let started = Instant::now();
    let error = db.ping().await.unwrap_err();
    assert!(matches!(error, DbError::NoConnection { .. } | DbError::Lost { .. }), "{error:?}");
    assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());

    server.restart().await?;
    wait::until("it is back", async || if db.health().is_up() { Ok(()) } else { Err("down") }).await?;
    wait::until("statements run", async || db.ping().await).await?;
    watch.abort();
    db.close().await;
    Ok(())
}

#[tokio::test]
async fn a_killed_mariadb_is_seen_by_its_health_and_comes_back() -> Result<()> {
    match Database::mariadb().await? {
        Some(server) => a_killed_database_is_seen_and_comes_back(server).await,
        None => Ok(()),
    }
}

#[tokio::test]
async fn a_killed_postgres_is_seen_by_its_health_and_comes_back() -> Result<()> {
    match Database::postgres().await? {
        Some(server) => a_killed_database_is_seen_and_comes_back(server).await,
        None => Ok(()),
    }
}

/// Two files, the second of which would fail when it ran twice.
fn write_migrations(folder: &Path, table: &str) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("1_table.sql"), format!("CREATE TABLE {table} (n INT NOT NULL);"))?;
    let two = format!("ALTER TABLE {table} ADD COLUMN m INT; INSERT INTO {table} (n, m) VALUES (1, 2);");
    Ok(std::fs::write(folder.join("2_column.sql"), two)?)
}

async fn migrations_run_once(url: String) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let table = unique("migrated");
    write_migrations(folder.path(), &table)?;
    let mut nodes = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let db = Db::connect(&ffconfig::Database::at(url.clone())).await?;
        let folder = folder.path().to_owned();
        nodes.spawn(async move { db.migrate(&folder).await });
    }
    while let Some(node) = nodes.join_next().await {
        node??;
    }
    let db = Db::connect(&ffconfig::Database::at(url)).await?;
    let count = ffserver::db::Sql::trusted(format!("SELECT count(*) AS n FROM {table}"));
    assert_eq!(db.fetch_all(count, &[]).await?[0].get::<i64>("n")?, 1);

    let changed = "CREATE TABLE other (n INT);";
    std::fs::write(folder.path().join("1_table.sql"), changed)?;
    let error = db.migrate(folder.path()).await.unwrap_err();
    let line = format!("{:#}", anyhow::Error::from(error));
    assert!(line.starts_with("`db.migrations`: "), "{line}");
    assert!(line.ends_with("migration 1 was previously applied but has been modified"), "{line}");
    for leftover in [table.as_str(), "_sqlx_migrations"] {
        db.execute(ffserver::db::Sql::trusted(format!("DROP TABLE {leftover}")), &[]).await?;
    }
    db.close().await;
    Ok(())
}

#[tokio::test]
async fn migrations_run_once_on_sqlite_though_four_nodes_start_together() -> Result<()> {
    let folder = tempfile::tempdir()?;
    migrations_run_once(format!("sqlite://{}", folder.path().join("g.db").display())).await
}

#[tokio::test]
async fn migrations_run_once_on_mariadb_though_four_nodes_start_together() -> Result<()> {
    match Database::mariadb().await? {
        Some(server) => migrations_run_once(server.url()).await,
        None => Ok(()),
    }
}

#[tokio::test]
async fn migrations_run_once_on_postgres_though_four_nodes_start_together() -> Result<()> {
    match Database::postgres().await? {
        Some(server) => migrations_run_once(server.url()).await,
        None => Ok(()),
    }
}

#[tokio::test]
async fn what_only_reads_goes_to_the_replica() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let url = |name: &str| format!("sqlite://{}", folder.path().join(name).display());
    let config = ffconfig::Database { read_url: Some(url("b.db")), ..ffconfig::Database::at(url("a.db")) };
    let db = Db::connect(&config).await?;
    db.execute("CREATE TABLE t (n INT)", &[]).await?;
    let error = db.reading().fetch_all("SELECT n FROM t", &[]).await.unwrap_err();
    assert!(matches!(error, DbError::Statement { .. }), "it is another database: {error:?}");
    let alone = Db::connect(&ffconfig::Database::at(url("a.db"))).await?;
    assert!(alone.reading().fetch_all("SELECT n FROM t", &[]).await?.is_empty());
    db.close().await;
    alone.close().await;
    Ok(())
}
