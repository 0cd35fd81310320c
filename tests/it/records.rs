//! Records: the same facts on SQLite, MariaDB and PostgreSQL, each with and without memcached.

// clippy.toml allows these in tests; helpers of integration tests do not count as such for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use ffserver::cache::Cache;
use ffserver::db::{Db, Dialect, Sql, Value, args};
use ffserver::{Record, Save, Table};
use ffstore::record::{RecordError, Records, SchemaError, Settings, create};
use tests::servers::{hostile, shared, unique};
use tests::wait;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Tables are dropped and made anew by each test, so the names differ: one struct for each.
macro_rules! account {
    ($Name:ident, $table:literal) => {
        #[derive(Record, Debug, Clone, PartialEq)]
        #[record(table = $table)]
        struct $Name {
            #[record(key)]
            name: String,
            #[record(owner)]
            guild: String,
            coins: i64,
            note: Option<Vec<u8>>,
        }

        #[allow(dead_code, reason = "some facts insert rows themselves")]
        impl $Name {
            fn new(name: &str, guild: &str, coins: i64) -> Self {
                Self { name: name.into(), guild: guild.into(), coins, note: None }
            }
        }
    };
}

mod many;

use many::*;

#[derive(Record, Debug, Clone, PartialEq)]
#[record(table = "item_of_test")]
struct Item {
    #[record(key, auto)]
    id: i64,
    #[record(owner)]
    account: i64,
    level: u32,
    small: i32,
    weight: f64,
    bound: bool,
    label: String,
    data: Vec<u8>,
    #[record(column = "maybe_level")]
    maybe: Option<u32>,
    text: Option<String>,
}

impl Item {
    fn new(account: i64) -> Self {
        Self {
            id: 0,
            account,
            level: u32::MAX,
            small: i32::MIN,
            weight: -0.25,
            bound: true,
            label: "sword".into(),
            data: vec![0, 1, 255],
            maybe: None,
            text: None,
        }
    }
}

/// Where a test runs: a database, memcached or not, and a folder for journals.
struct Place {
    url: String,
    memcached: Option<ffconfig::Memcached>,
    folder: tempfile::TempDir,
}

impl Place {
    fn of(url: Option<String>, with_memcached: bool) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = url?;
        let url = match url.as_str() {
            "sqlite" => format!("sqlite://{}", folder.path().join("game.db").display()),
            _ => url,
        };
        let mut memcached = None;
        if with_memcached {
            let server = shared("FF_TEST_MEMCACHED")?;
            let timeout = Duration::from_secs(2);
            memcached = Some(ffconfig::Memcached { urls: vec![server], prefix: unique("records"), timeout });
        }
        Some(Self { url, memcached, folder })
    }

    async fn db(&self) -> Db {
        Db::connect(&ffconfig::Database::at(self.url.clone())).await.unwrap()
    }

    /// A node of its own: its own memory, journal and connections.
    async fn node<T: Record>(&self) -> Result<(Records, Table<T>)> {
        self.node_with(|_| {}).await
    }

    async fn node_with<T: Record>(
        &self,
        change: impl FnOnce(&mut ffconfig::Limits),
    ) -> Result<(Records, Table<T>)> {
        let mut limits = ffconfig::Limits { record_fresh: Duration::from_millis(50), ..Default::default() };
        change(&mut limits);
        let mirror = match &self.memcached {
            Some(config) => Some(Cache::connect(config).await?),
            None => None,
        };
        let data_dir = self.folder.path().join("data");
        let settings =
            Settings { id: unique("node"), data_dir, limits, mirror, ambient: ffserver::Ambient::system() };
        let mut records =
            Records::new(BTreeMap::from([(String::new(), self.db().await)]), settings, |_| true);
        records.recover().await;
        let table = records.open().await?;
        Ok((records, table))
    }

    async fn make_table<T: Record>(&self) -> Result<Db> {
        let db = self.db().await;
        let drop = format!("DROP TABLE IF EXISTS {}", T::SHAPE.table);
        db.execute(Sql::trusted(drop), &[]).await?;
        create::<T>(&db).await?;
        Ok(db)
    }
}

async fn close(records: Records) {
    records.close(Instant::now() + Duration::from_secs(10)).await;
}

fn journals(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder.join("data")).into_iter().flatten();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The coins of an account as the database has them.
async fn coins(db: &Db, table: &str, name: &str) -> i64 {
    let sql = Sql::trusted(format!("SELECT coins FROM {table} WHERE name = ?"));
    db.fetch_optional(sql, &args![name]).await.unwrap().unwrap().get("coins").unwrap()
}

async fn until_coins(db: &Db, table: &str, name: &str, wanted: i64) -> Result<()> {
    wait::until(&format!("{name} has {wanted} in the database"), async || {
        match coins(db, table, name).await {
            found if found == wanted => Ok(()),
            found => Err(found),
        }
    })
    .await
}

account!(Basic, "account_basic");

async fn a_record_is_inserted_read_changed_and_deleted_and_other_nodes_see_it(place: Place) -> Result<()> {
    let db = place.make_table::<Basic>().await?;
    let (one, accounts) = place.node::<Basic>().await?;
    let (other, elsewhere) = place.node::<Basic>().await?;
    let ann = "ann".to_owned();
    assert!(accounts.get(&ann).await?.is_none() && elsewhere.get(&ann).await?.is_none());
    let error = accounts.update(&ann, Save::Durable, |_| ()).await.unwrap_err();
    assert!(matches!(error, RecordError::Missing { .. }), "{error}");

    accounts.insert(Basic::new("ann", "reds", 5)).await?;
    let error = elsewhere.insert(Basic::new("ann", "blues", 6)).await.unwrap_err();
    assert!(matches!(error, RecordError::Exists { .. }), "{error}");
    wait::until("the other node sees it", async || elsewhere.get(&ann).await.unwrap().ok_or("missing"))
        .await?;
    let left = elsewhere.update(&ann, Save::Durable, |ann| {
        ann.coins -= 2;
        ann.coins
    });
    assert_eq!(left.await?, 3);
    assert_eq!(accounts.update(&ann, Save::Durable, |ann| ann.coins).await?, 3, "a decision over the row");
    assert_eq!(coins(&db, "account_basic", "ann").await, 3);

    for (name, guild) in [("bob", "reds"), ("cid", "blues"), ("dan", "reds")] {
        accounts.insert(Basic::new(name, guild, 1)).await?;
    }
    let reds = accounts.by_owner(&"reds".to_owned()).await?;
    assert_eq!(reds.iter().map(|red| red.name.as_str()).collect::<Vec<_>>(), ["ann", "bob", "dan"]);
    let keys = ["dan", "nobody", "ann", "dan"].map(str::to_owned);
    let many = other.table::<Basic>().unwrap().get_many(&keys).await?;
    let many: Vec<_> = many.iter().map(|found| found.as_ref().map(|found| found.name.as_str())).collect();
    assert_eq!(many, [Some("dan"), None, Some("ann"), Some("dan")]);

    assert!(elsewhere.delete(&ann).await? && !elsewhere.delete(&ann).await?);
    wait::until("it is gone", async || match accounts.get(&ann).await.unwrap() {
        None => Ok(()),
        found => Err(found),
    })
    .await?;
    accounts.insert(Basic::new("ann", "greys", 1)).await?;
    wait::until("the new one is seen", async || match elsewhere.get(&ann).await.unwrap() {
        Some(found) if found.guild == "greys" => Ok(()),
        found => Err(found),
    })
    .await?;
    close(one).await;
    close(other).await;
    Ok(())
}

async fn every_type_comes_back_as_it_was_and_the_database_makes_the_key(place: Place) -> Result<()> {
    place.make_table::<Item>().await?;
    let (one, items) = place.node::<Item>().await?;
    let first = items.insert(Item::new(7)).await?;
    let second = items.insert(Item { maybe: Some(3), text: Some(String::new()), ..Item::new(7) }).await?;
    assert!(first.id > 0 && second.id > first.id);
    let (other, elsewhere) = place.node::<Item>().await?;
    assert_eq!(elsewhere.get(&first.id).await?, Some(first.clone()));
    assert_eq!(elsewhere.get(&second.id).await?, Some(second.clone()));
    assert_eq!(elsewhere.by_owner(&7_i64).await?, [first.clone(), second.clone()]);
    let error = items.update(&first.id, Save::Durable, |item| item.id = 99).await.unwrap_err();
    assert!(matches!(error, RecordError::Misuse { .. }), "{error}");
    // A key that was made is not made again.
    items.delete(&second.id).await?;
    assert!(items.insert(Item::new(8)).await?.id > second.id);
    close(one).await;
    close(other).await;
    Ok(())
}

account!(Hostile, "account_hostile");

async fn hostile_texts_are_stored_and_read_back_equal(place: Place) -> Result<()> {
    let db = place.make_table::<Hostile>().await?;
    let (one, accounts) = place.node::<Hostile>().await?;
    let mut keys = hostile();
    keys.extend(["%", "a b", " a", "a ", "A", "a", "ä"].map(str::to_owned));
    keys.retain(|key| key.len() < 200);
    for (n, key) in (0..).zip(&keys) {
        let mut record = Hostile::new(key, key, n);
        record.note = Some([key.as_bytes(), b"\0'\\\xff"].concat());
        accounts.insert(record).await?;
    }
    // A value of a mebibyte, and one with NUL, which PostgreSQL refuses in text.
    let long = "x'\\".repeat(350_000);
    accounts
        .insert(Hostile { note: Some(vec![0; 1 << 20]), ..Hostile::new("long", &long[..200], 0) })
        .await?;
    let nul = accounts.insert(Hostile::new("nul\0nul", "g", 0)).await;
    assert_eq!(nul.is_ok(), db.dialect() != Dialect::Postgres, "{nul:?}");
    let (other, elsewhere) = place.node::<Hostile>().await?;
    for (n, key) in (0..).zip(&keys) {
        let found = elsewhere.get(key).await?.unwrap_or_else(|| panic!("no {key:?}"));
        assert_eq!((&found.name, found.coins), (key, n), "{key:?}");
        assert_eq!(found.note.as_deref(), Some(&[key.as_bytes(), b"\0'\\\xff"].concat()[..]));
        elsewhere.update(key, Save::within_ms(5), |record| record.coins += 1000).await?;
    }
    close(other).await;
    for (n, key) in (0..).zip(&keys) {
        assert_eq!(coins(&db, "account_hostile", key).await, n + 1000, "{key:?}");
    }
    assert_eq!(accounts.get(&"long".to_owned()).await?.unwrap().note.as_ref().unwrap().len(), 1 << 20);
    let rows = db.fetch_all("SELECT count(*) AS n FROM account_hostile", &[]).await?;
    let wanted = keys.len() as i64 + 1 + i64::from(nul.is_ok());
    assert_eq!(rows[0].get::<i64>("n")?, wanted, "no statement was changed");
    close(one).await;
    Ok(())
}

account!(Raced, "account_raced");

async fn no_update_is_lost_between_nodes_and_coins_are_conserved(place: Place) -> Result<()> {
    const UPDATES: i64 = 40;
    let db = place.make_table::<Raced>().await?;
    let (setup, accounts) = place.node::<Raced>().await?;
    for name in ["ann", "bob", "sum"] {
        accounts.insert(Raced::new(name, "g", 1000)).await?;
    }
    let mut writers = JoinSet::new();
    let mut nodes = Vec::new();
    for n in 0..3 {
        let (node, accounts) = place.node::<Raced>().await?;
        nodes.push(node);
        writers.spawn(async move {
            for step in 0..UPDATES {
                accounts.update(&"sum".to_owned(), Save::Durable, |sum| sum.coins += 1).await?;
                let (from, to) = if (step + n) % 2 == 0 { ("ann", "bob") } else { ("bob", "ann") };
                let move_one = |from: &mut Raced, to: &mut Raced| {
                    from.coins -= 1;
                    to.coins += 1;
                };
                accounts.update_two(&from.to_owned(), &to.to_owned(), Save::Durable, move_one).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer??;
    }
    assert_eq!(coins(&db, "account_raced", "sum").await, 1000 + 3 * UPDATES);
    let both = coins(&db, "account_raced", "ann").await + coins(&db, "account_raced", "bob").await;
    assert_eq!(both, 2000);
    for node in nodes {
        close(node).await;
    }
    close(setup).await;
    Ok(())
}

account!(Behind, "account_behind");

async fn what_is_written_behind_is_coalesced_and_other_nodes_wait_for_it(place: Place) -> Result<()> {
    let db = place.make_table::<Behind>().await?;
    let (one, accounts) = place.node::<Behind>().await?;
    let (other, elsewhere) = place.node::<Behind>().await?;
    let ann = "ann".to_owned();
    accounts.insert(Behind::new("ann", "g", 0)).await?;
    elsewhere.get(&ann).await?;
    for _ in 0..99 {
        accounts.update(&ann, Save::within_ms(600_000), |ann| ann.coins += 1).await?;
    }
    assert_eq!(accounts.get(&ann).await?.unwrap().coins, 99, "its own node sees it at once");
    assert_eq!(accounts.by_owner(&"g".to_owned()).await?[0].coins, 99);
    assert_eq!(coins(&db, "account_behind", "ann").await, 0, "the database has it later");
    accounts.update(&ann, Save::within_ms(200), |ann| ann.coins += 1).await?;
    let flushed = |records: &Records| {
        records.counters().into_iter().find(|(name, _)| name == "record_flushed").map_or(0, |(_, n)| n)
    };
    until_coins(&db, "account_behind", "ann", 100).await?;
    wait::until("the write-out is counted", async || match flushed(&one) {
        1 => Ok(()),
        n => Err(n),
    })
    .await?;
    // Another node's write waits until the record is released, and is made over what was written behind.
    accounts.update(&ann, Save::within_ms(200), |ann| ann.coins += 1).await?;
    let sum = elsewhere.update(&ann, Save::Durable, |ann| {
        ann.coins += 1000;
        ann.coins
    });
    assert_eq!(sum.await?, 1101);
    // And the other way round, with a durable write of the node that holds it in between.
    elsewhere.update(&ann, Save::within_ms(60_000), |ann| ann.coins += 1).await?;
    elsewhere.update(&ann, Save::Durable, |ann| ann.coins += 1).await?;
    assert_eq!(coins(&db, "account_behind", "ann").await, 1103);
    assert_eq!(accounts.update(&ann, Save::within_ms(10), |ann| ann.coins).await?, 1103);
    // Everything is written at the stop, however late it was due.
    elsewhere.update(&ann, Save::within_ms(600_000), |ann| ann.coins += 1).await?;
    close(other).await;
    assert_eq!(coins(&db, "account_behind", "ann").await, 1104);
    close(one).await;
    assert_eq!(journals(place.folder.path()), [""; 0], "journals in which nothing matters are gone");
    Ok(())
}

account!(Crashed, "account_crashed");

async fn what_a_dead_node_has_written_behind_is_written_by_another(place: Place) -> Result<()> {
    let db = place.make_table::<Crashed>().await?;
    let (dead, accounts) = place.node::<Crashed>().await?;
    for name in ["ann", "bob", "cid"] {
        accounts.insert(Crashed::new(name, "g", 100)).await?;
    }
    let (ann, bob, cid) = ("ann".to_owned(), "bob".to_owned(), "cid".to_owned());
    accounts
        .update_two(&ann, &bob, Save::within_ms(600_000), |ann, bob| {
            ann.coins -= 30;
            bob.coins += 30;
        })
        .await?;
    accounts.update(&ann, Save::within_ms(600_000), |ann| ann.coins -= 1).await?;
    accounts.update(&cid, Save::within_ms(1), |cid| cid.coins = 7).await?;
    until_coins(&db, "account_crashed", "cid", 7).await?;
    assert_eq!(coins(&db, "account_crashed", "ann").await, 100);

    let (living, elsewhere) = place.node::<Crashed>().await?;
    let error = elsewhere.update(&ann, Save::Durable, |ann| ann.coins += 1).await.unwrap_err();
    assert!(matches!(error, RecordError::Held { .. }), "its node lives, and holds it: {error}");
    assert!(error.is_unsent());
    // Without a close: as with kill -9 nothing is written, and the kernel takes the lock from the file.
    drop(accounts);
    drop(dead);
    until_coins(&db, "account_crashed", "ann", 69).await?;
    assert_eq!(coins(&db, "account_crashed", "bob").await, 130);
    let ann_now = elsewhere.update(&ann, Save::Durable, |ann| {
        ann.coins += 1;
        ann.coins
    });
    assert_eq!(ann_now.await?, 70);
    elsewhere.update(&cid, Save::Durable, |cid| cid.coins += 1).await?;
    assert_eq!(coins(&db, "account_crashed", "cid").await, 8);
    wait::until("the dead node's journal is gone", async || match journals(place.folder.path()) {
        files if files.is_empty() => Ok(()),
        files => Err(files),
    })
    .await?;
    close(living).await;
    Ok(())
}

account!(Fenced, "account_fenced");

async fn a_node_whose_record_was_taken_away_overwrites_nothing(place: Place) -> Result<()> {
    let db = place.make_table::<Fenced>().await?;
    let (stale, accounts) = place.node::<Fenced>().await?;
    let (other, elsewhere) = place.node::<Fenced>().await?;
    let ann = "ann".to_owned();
    accounts.insert(Fenced::new("ann", "g", 1)).await?;
    accounts.update(&ann, Save::within_ms(600_000), |ann| ann.coins = 2).await?;
    // What an operator does when a host has burnt down.
    db.execute("UPDATE account_fenced SET holder = ''", &[]).await?;
    elsewhere.update(&ann, Save::Durable, |ann| ann.coins = 50).await?;
    accounts.update(&ann, Save::within_ms(1), |ann| ann.coins = 3).await?;
    wait::until("the stale node has noticed", async || {
        let counters = stale.counters();
        if counters.iter().any(|(name, _)| name == "record_fenced") { Ok(()) } else { Err(counters) }
    })
    .await?;
    assert_eq!(coins(&db, "account_fenced", "ann").await, 50);
    assert_eq!(accounts.update(&ann, Save::Durable, |ann| ann.coins).await?, 50);
    close(stale).await;
    close(other).await;
    Ok(())
}

account!(Effort, "account_effort");

async fn a_best_effort_write_is_saved_with_its_session_and_loses_to_another_node(place: Place) -> Result<()> {
    let db = place.make_table::<Effort>().await?;
    let (one, accounts) = place.node::<Effort>().await?;
    let (other, elsewhere) = place.node::<Effort>().await?;
    let (ann, session) = ("ann".to_owned(), ffserver::SessionId(7));
    accounts.insert(Effort::new("ann", "g", 1)).await?;
    assert!(accounts.keep(session, &ann).await?.is_some());
    accounts.update(&ann, Save::BestEffort, |ann| ann.coins += 1).await?;
    accounts.update(&ann, Save::BestEffort, |ann| ann.coins += 1).await?;
    assert_eq!(accounts.get(&ann).await?.unwrap().coins, 3);
    assert_eq!(coins(&db, "account_effort", "ann").await, 1);
    one.session_ended(session);
    until_coins(&db, "account_effort", "ann", 3).await?;

    accounts.keep(session, &ann).await?;
    accounts.update(&ann, Save::BestEffort, |ann| ann.coins = 1000).await?;
    elsewhere.update(&ann, Save::Durable, |ann| ann.coins += 1).await?;
    one.session_ended(session);
    wait::until("the loss is counted", async || {
        let counters = one.counters();
        if counters.iter().any(|(name, _)| name == "record_best_effort_lost") {
            Ok(())
        } else {
            Err(counters)
        }
    })
    .await?;
    assert_eq!(coins(&db, "account_effort", "ann").await, 4);
    assert_eq!(accounts.update(&ann, Save::Durable, |ann| ann.coins).await?, 4);
    close(one).await;
    close(other).await;
    Ok(())
}

#[derive(Record, Debug, Clone, PartialEq)]
#[record(table = "account_schema")]
struct Wider {
    #[record(key)]
    name: String,
    guild: Vec<u8>,
    coins: i64,
    gems: u32,
}

account!(Narrow, "account_schema");

async fn a_table_that_does_not_fit_is_refused_with_the_statements_that_mend_it(place: Place) -> Result<()> {
    let db = place.make_table::<Narrow>().await?;
    db.execute("INSERT INTO account_schema (name, guild, coins) VALUES ('ann', 'g', 1)", &[]).await?;
    let error = place.node::<Wider>().await.err().unwrap();
    let Some(SchemaError::Missing { what, statements }) = error.downcast_ref() else { panic!("{error:#}") };
    assert_eq!(what, "table `account_schema` has no gems");
    for statement in statements {
        db.execute(Sql::trusted(statement.clone()), &[]).await?;
    }
    let error = format!("{:#}", place.node::<Wider>().await.err().unwrap());
    assert!(error.contains("column `guild` is ") && error.contains(" where Bytes is expected"), "{error}");
    db.execute("DROP TABLE account_schema", &[]).await?;
    let error = format!("{:#}", place.node::<Narrow>().await.err().unwrap());
    assert!(error.contains("there is no table `account_schema`; these statements make it:\nCREATE TABLE"));
    Ok(())
}

account!(Mended, "account_mended");

/// A table that somebody has made by hand, each time with one thing wrong: the statements of the error mend it.
async fn a_key_or_a_column_that_is_not_what_the_framework_needs_is_refused_and_mended(
    place: Place,
) -> Result<()> {
    let db = place.make_table::<Mended>().await?;
    let (holder, bytes) = match db.dialect() {
        Dialect::MySql => ("VARCHAR(160) CHARACTER SET ascii COLLATE ascii_bin", "LONGBLOB"),
        Dialect::Postgres => ("VARCHAR(160)", "BYTEA"),
        Dialect::Sqlite => ("VARCHAR(160)", "BLOB"),
    };
    let name = match db.dialect() {
        Dialect::MySql => {
            let row = db.fetch_all("SELECT VERSION()", &[]).await?;
            let is_mariadb = row[0].at::<String>(0)?.contains("MariaDB");
            let collation = if is_mariadb { "utf8mb4_nopad_bin" } else { "utf8mb4_0900_bin" };
            format!("VARCHAR(100) CHARACTER SET utf8mb4 COLLATE {collation}")
        }
        _ => "VARCHAR(100)".to_owned(),
    };
    let version = "BIGINT NOT NULL DEFAULT 0";
    let (long, short) = (format!("{holder} NOT NULL DEFAULT ''"), holder.replace("160", "20"));
    let one = "PRIMARY KEY (name)";
    let sqlite = db.dialect() == Dialect::Sqlite;
    let cases: [(&str, &str, String, &str, bool); 8] = [
        ("", version, long.clone(), one, false),
        ("", version, long.clone(), "UNIQUE (name)", false),
        ("`name` is the record's key", version, long.clone(), "PRIMARY KEY (name, guild)", false),
        ("`name` is the record's key", version, long.clone(), "CHECK (coins >= 0)", false),
        // SQLite keeps any number in any of its columns of integers, and any text in any of texts.
        ("`version` is ", "INT NOT NULL DEFAULT 0", long, one, sqlite),
        ("`version` may be NULL", "BIGINT DEFAULT 0", format!("{holder} NOT NULL DEFAULT ''"), one, false),
        ("`holder` is ", version, format!("{short} NOT NULL DEFAULT ''"), one, sqlite),
        ("`holder` may be NULL", version, format!("{holder} DEFAULT NULL"), one, false),
    ];
    for (fault, version, holder, key, fits) in cases {
        for table in ["account_mended", "account_mended_before"] {
            db.execute(Sql::trusted(format!("DROP TABLE IF EXISTS {table}")), &[]).await?;
        }
        let table = format!(
            "CREATE TABLE account_mended (name {name} NOT NULL, guild VARCHAR(100) NOT NULL, \
             coins BIGINT NOT NULL, note {bytes}, version {version}, holder {holder}, {key})"
        );
        db.execute(Sql::trusted(table.clone()), &[]).await?;
        let insert = "INSERT INTO account_mended (name, guild, coins) VALUES ('ann', 'g', 1)";
        db.execute(insert, &[]).await?;
        let node = place.node::<Mended>().await;
        if !fault.is_empty() && !fits {
            let error = node.err().unwrap();
            let Some(SchemaError::Differs { faults, statements, .. }) = error.downcast_ref() else {
                panic!("{table}: {error:#}")
            };
            assert!(faults.len() == 1 && faults[0].contains(fault), "{table}: {faults:?}");
            assert!(format!("{error:#}").contains("these statements mend it:\n"), "{error:#}");
            for statement in statements {
                db.execute(Sql::trusted(statement.clone()), &[]).await?;
            }
        } else {
            close(node?.0).await;
        }
        let (node, accounts) = place.node::<Mended>().await?;
        accounts.update(&"ann".to_owned(), Save::within_ms(1), |ann| ann.coins += 1).await?;
        close(node).await;
        assert_eq!(coins(&db, "account_mended", "ann").await, 2, "{table}");
    }
    Ok(())
}

/// Each fact on each database, with and without memcached.
macro_rules! everywhere {
    ($($fact:ident),+ $(,)?) => {
        everywhere!(@ sqlite, Some("sqlite".to_owned()), false; $($fact),+);
        everywhere!(@ sqlite_memcached, Some("sqlite".to_owned()), true; $($fact),+);
        everywhere!(@ mariadb, shared("FF_TEST_MYSQL"), false; $($fact),+);
        everywhere!(@ mariadb_memcached, shared("FF_TEST_MYSQL"), true; $($fact),+);
        everywhere!(@ postgres, shared("FF_TEST_POSTGRES"), false; $($fact),+);
        everywhere!(@ postgres_memcached, shared("FF_TEST_POSTGRES"), true; $($fact),+);
    };
    (@ $place:ident, $url:expr, $memcached:literal; $($fact:ident),+) => {
        mod $place {
            use super::*;
            $(
                #[tokio::test]
                async fn $fact() -> Result<()> {
                    let _one_at_a_time = LOCKS.lock(stringify!($fact)).await;
                    match Place::of($url, $memcached) {
                        Some(place) => super::$fact(place).await,
                        None => Ok(()),
                    }
                }
            )+
        }
    };
}

/// Two runs of a fact on one server would share its table.
struct FactLocks(std::sync::Mutex<BTreeMap<&'static str, Arc<tokio::sync::Mutex<()>>>>);

static LOCKS: FactLocks = FactLocks(std::sync::Mutex::new(BTreeMap::new()));

impl FactLocks {
    async fn lock(&self, fact: &'static str) -> tokio::sync::OwnedMutexGuard<()> {
        let lock = self.0.lock().unwrap().entry(fact).or_default().clone();
        lock.lock_owned().await
    }
}

everywhere! {
    a_record_is_inserted_read_changed_and_deleted_and_other_nodes_see_it,
    every_type_comes_back_as_it_was_and_the_database_makes_the_key,
    hostile_texts_are_stored_and_read_back_equal,
    no_update_is_lost_between_nodes_and_coins_are_conserved,
    what_is_written_behind_is_coalesced_and_other_nodes_wait_for_it,
    what_a_dead_node_has_written_behind_is_written_by_another,
    a_node_whose_record_was_taken_away_overwrites_nothing,
    a_best_effort_write_is_saved_with_its_session_and_loses_to_another_node,
    a_table_that_does_not_fit_is_refused_with_the_statements_that_mend_it,
    a_key_or_a_column_that_is_not_what_the_framework_needs_is_refused_and_mended,
    a_thousand_hot_records_reach_the_database_and_are_released,
    many_records_of_every_type_are_written_behind_together,
    a_row_that_was_taken_away_keeps_no_other_from_being_written,
    holds_that_a_power_cut_took_from_the_journal_are_ended_by_who_finds_it,
    a_hold_that_comes_after_the_end_of_its_node_is_ended,
}
