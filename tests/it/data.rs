//! The database and the cache against real servers, which `tests/run` starts.

// clippy.toml allows these in tests; helpers of integration tests do not count as such for clippy.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

use std::time::Duration;

use ffserver::cache::{Cache, CacheError, Life};
use ffserver::db::{Db, DbError, Value, args};
use tests::servers::{hostile, shared as server, unique};
use tokio::time::{self, Instant};

const MINUTE: Duration = Duration::from_secs(60);

// ---- cache -------------------------------------------------------------------------------------------

fn memcached(servers: &[&str]) -> ffconfig::Memcached {
    ffconfig::Memcached {
        urls: servers.iter().map(ToString::to_string).collect(),
        prefix: unique("prefix of tests"),
        timeout: Duration::from_secs(2),
    }
}

/// The same facts hold for both caches.
async fn check_cache(cache: &Cache) {
    assert_eq!(cache.get("a").await.unwrap(), None);
    cache.set("a", "1", MINUTE).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap().unwrap(), "1");
    cache.set("a", "", Life::Forever).await.unwrap();
    assert_eq!(cache.get("a").await.unwrap().unwrap(), "");
    assert!(cache.delete("a").await.unwrap());
    assert!(!cache.delete("a").await.unwrap());
    assert_eq!(cache.get("a").await.unwrap(), None);

    assert!(cache.add("claim", "me", MINUTE).await.unwrap());
    assert!(!cache.add("claim", "you", MINUTE).await.unwrap());
    assert_eq!(cache.get("claim").await.unwrap().unwrap(), "me");

    assert_eq!(cache.incr("n", 5, MINUTE).await.unwrap(), 5);
    assert_eq!(cache.incr("n", 3, MINUTE).await.unwrap(), 8);
    assert_eq!(cache.incr("forever", 1, Life::Forever).await.unwrap(), 1);
    assert_eq!(cache.get("n").await.unwrap().unwrap(), "8");
    assert!(matches!(cache.incr("claim", 1, MINUTE).await, Err(CacheError::NotANumber)));

    let (_, version) = cache.get_versioned("claim").await.unwrap().unwrap();
    assert!(cache.cas("claim", "still me", MINUTE, version).await.unwrap());
    assert!(!cache.cas("claim", "late", MINUTE, version).await.unwrap());
    assert!(!cache.cas("nothing", "late", MINUTE, version).await.unwrap());
    assert_eq!(cache.get("claim").await.unwrap().unwrap(), "still me");
    assert!(cache.touch("claim", MINUTE).await.unwrap());
    assert!(!cache.touch("nothing", MINUTE).await.unwrap());
    cache.ping().await.unwrap();

    let many = cache.get_many(&["nothing", "claim", "n", "claim"]).await.unwrap();
    let many: Vec<_> = many.iter().map(|value| value.as_deref().map(String::from_utf8_lossy)).collect();
    assert_eq!(many, [None, Some("still me".into()), Some("8".into()), Some("still me".into())]);
    assert_eq!(cache.get_many::<&str>(&[]).await.unwrap(), Vec::<Option<bytes::Bytes>>::new());
}

async fn check_hostile_keys(cache: &Cache) {
    let mut keys: Vec<Vec<u8>> = hostile().into_iter().map(String::into_bytes).collect();
    keys.extend([b"\0".to_vec(), b"%00".to_vec(), b"\xff\xfe".to_vec(), b"k\r\nflush_all\r\n".to_vec()]);
    keys.push(vec![b'k'; 251]);
    keys.push(vec![b'k'; 252]);
    for (number, key) in keys.iter().enumerate() {
        cache.set(key, number.to_string(), MINUTE).await.unwrap();
    }
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(cache.get(key).await.unwrap().unwrap(), number.to_string(), "key {number}");
    }
    let many = cache.get_many(&keys).await.unwrap();
    assert!(many.iter().zip(0..).all(|(value, n): (_, usize)| value.as_ref().unwrap() == &n.to_string()));
    for text in hostile().iter().filter(|text| text.len() < 1000) {
        cache.set("value", text, MINUTE).await.unwrap();
        assert_eq!(cache.get("value").await.unwrap().unwrap(), text.as_bytes());
    }
}

#[tokio::test]
async fn memcached_keeps_what_it_is_given() {
    let Some(server) = server("FF_TEST_MEMCACHED") else { return };
    let cache = Cache::connect(&memcached(&[&server])).await.unwrap();
    check_cache(&cache).await;
    check_hostile_keys(&cache).await;
}

#[tokio::test]
async fn the_in_process_cache_does_what_memcached_does() {
    check_cache(&Cache::default()).await;
    check_hostile_keys(&Cache::default()).await;
}

#[tokio::test]
async fn a_value_in_memcached_ends_with_its_life() {
    let Some(server) = server("FF_TEST_MEMCACHED") else { return };
    let cache = Cache::connect(&memcached(&[&server])).await.unwrap();
    cache.set("short", "1", Duration::from_millis(200)).await.unwrap();
    cache.set("long", "1", MINUTE).await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while cache.get("short").await.unwrap().is_some() {
        assert!(Instant::now() < deadline, "it lives for ever");
        time::sleep(Duration::from_millis(50)).await;
    }
    assert!(cache.get("long").await.unwrap().is_some());
}

#[tokio::test]
async fn two_clusters_on_one_memcached_do_not_see_each_other() {
    let Some(server) = server("FF_TEST_MEMCACHED") else { return };
    let one = Cache::connect(&memcached(&[&server])).await.unwrap();
    let other = Cache::connect(&memcached(&[&server])).await.unwrap();
    one.set("a", "1", MINUTE).await.unwrap();
    assert_eq!(other.get("a").await.unwrap(), None);
}

#[tokio::test]
async fn no_update_of_eight_writers_is_lost() {
    let Some(server) = server("FF_TEST_MEMCACHED") else { return };
    let cache = Cache::connect(&memcached(&[&server])).await.unwrap();
    let writers: Vec<_> = (0..8)
        .map(|_| {
            let cache = cache.clone();
            tokio::spawn(async move {
                let mut stored = 0;
                while stored < 10 {
                    let longer = |old: Option<&bytes::Bytes>| {
                        let mut value = old.map_or_else(Vec::new, |old| old.to_vec());
                        value.push(b'x');
                        value.into()
                    };
                    match cache.update("list", MINUTE, longer).await {
                        Ok(_) => stored += 1,
                        // Not stored, as it says; a slow machine may see it.
                        Err(CacheError::Contended { .. }) => {}
                        Err(e) => panic!("{e}"),
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(cache.get("list").await.unwrap().unwrap().len(), 80);
}

#[tokio::test]
async fn a_value_beyond_memcacheds_limit_is_an_error_and_leaves_nothing() {
    let Some(server) = server("FF_TEST_MEMCACHED") else { return };
    let cache = Cache::connect(&memcached(&[&server])).await.unwrap();
    cache.set("big", "old", MINUTE).await.unwrap();
    let error = cache.set("big", vec![b'x'; 2 * 1024 * 1024], MINUTE).await.unwrap_err();
    assert!(matches!(error, CacheError::TooLarge { bytes: 2_097_152 }), "{error:?}");
    assert_eq!(cache.get("big").await.unwrap(), None);
}

/// A relay in front of memcached stands for one that dies and comes back: the real one is shared.
#[tokio::test]
async fn a_lost_memcached_is_an_error_within_the_bound_and_heals_by_itself() {
    let Some(server) = server("FF_TEST_MEMCACHED") else { return };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let relay = tokio::spawn(relay(listener, server.clone()));
    let cache = Cache::connect(&memcached(&[&address.to_string()])).await.unwrap();
    cache.set("a", "1", MINUTE).await.unwrap();
    relay.abort();
    assert!(relay.await.unwrap_err().is_cancelled());

    let started = Instant::now();
    let error = cache.get("a").await.unwrap_err();
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert!(matches!(error, CacheError::Lost { .. } | CacheError::NoAnswer { .. }), "{error:?}");
    assert!(error.to_string().contains(&address.to_string()), "{error}");

    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let relay = tokio::spawn(self::relay(listener, server));
    assert_eq!(cache.get("a").await.unwrap().unwrap(), "1");
    relay.abort();
}

/// Passes connections on; they end with the task.
async fn relay(listener: tokio::net::TcpListener, server: String) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = tokio::net::TcpStream::connect(&server).await.unwrap();
        connections.spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    }
}

// ---- database ----------------------------------------------------------------------------------------

async fn connect(url: String) -> Db {
    Db::connect(&ffconfig::Database::at(url)).await.unwrap()
}

/// What a round trip looks like in each dialect; the rest of a test is the same for all three.
struct Dialect {
    db: Db,
    table: String,
    /// The statement that makes the table: an id, and a column for each kind of value.
    create: &'static str,
}

impl Dialect {
    async fn new(db: Db) -> Self {
        let create = if db.sqlite().is_some() {
            "CREATE TABLE TABLE_NAME (id INTEGER PRIMARY KEY, n BIGINT, small INT, x DOUBLE, b BOOLEAN, \
             s TEXT, d BLOB)"
        } else if db.mysql().is_some() {
            "CREATE TABLE TABLE_NAME (id BIGINT PRIMARY KEY, n BIGINT, small INT, x DOUBLE, b BOOLEAN, \
             s LONGTEXT, d LONGBLOB)"
        } else {
            "CREATE TABLE TABLE_NAME (id BIGINT PRIMARY KEY, n BIGINT, small INT, x DOUBLE PRECISION, \
             b BOOLEAN, s TEXT, d BYTEA)"
        };
        let dialect = Self { db, table: unique("t"), create };
        dialect.db.execute(dialect.sql(dialect.create), &[]).await.unwrap();
        dialect
    }

    /// The table's name is ours, so the text is trusted.
    fn sql(&self, text: &str) -> ffserver::db::Sql {
        ffserver::db::Sql::trusted(text.replace("TABLE_NAME", &self.table))
    }

    async fn count(&self) -> i64 {
        let rows = self.db.fetch_all(self.sql("SELECT count(*) AS n FROM TABLE_NAME"), &[]).await.unwrap();
        rows[0].get("n").unwrap()
    }

    async fn drop_table(&self) {
        self.db.execute(self.sql("DROP TABLE TABLE_NAME"), &[]).await.unwrap();
        self.db.close().await;
    }
}

const INSERT: &str = "INSERT INTO TABLE_NAME (id, n, small, x, b, s, d) VALUES (?, ?, ?, ?, ?, ?, ?)";

async fn check_database(db: Db) {
    let on = Dialect::new(db).await;
    check_round_trip(&on).await;
    check_hostile_strings(&on).await;
    check_transactions(&on).await;
    check_errors(&on).await;
    on.drop_table().await;
}

async fn check_round_trip(on: &Dialect) {
    let bytes: Vec<u8> = (0..=255).collect();
    let given = args![1, i64::MAX, -7, 0.1, true, "text", bytes.clone()];
    assert_eq!(on.db.execute(on.sql(INSERT), &given).await.unwrap(), 1);
    let nothing =
        [Value::Int(2), Value::Null, Value::Null, Value::Null, Value::Null, Value::Null, Value::Null];
    assert_eq!(on.db.execute(on.sql(INSERT), &nothing).await.unwrap(), 1);

    let query = on.sql("SELECT n, small, x, b, s, d FROM TABLE_NAME WHERE id = ? OR id = ? ORDER BY id");
    let rows = on.db.fetch_all(query, &args![1, 2]).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<i64>("n").unwrap(), i64::MAX);
    assert_eq!(rows[0].get::<i64>("small").unwrap(), -7);
    assert_eq!(rows[0].get::<f64>("x").unwrap(), 0.1);
    assert!(rows[0].get::<bool>("b").unwrap());
    assert_eq!(rows[0].get::<String>("s").unwrap(), "text");
    assert_eq!(rows[0].get::<Vec<u8>>("d").unwrap(), bytes);
    assert_eq!(rows[1].get::<Option<i64>>("n").unwrap(), None);
    assert_eq!(rows[1].get::<Option<bool>>("b").unwrap(), None);
    assert_eq!(rows[1].get::<Option<String>>("s").unwrap(), None);

    let update = on.sql("UPDATE TABLE_NAME SET small = small + ? WHERE id = ?");
    assert_eq!(on.db.execute(update, &args![10, 1]).await.unwrap(), 1);
    let query = on.sql("SELECT small FROM TABLE_NAME WHERE id = ?");
    let row = on.db.fetch_optional(query.clone(), &args![1]).await.unwrap().unwrap();
    assert_eq!(row.get::<i64>("small").unwrap(), 3);
    assert_eq!(on.db.fetch_optional(query, &args![3]).await.unwrap(), None);
    on.db.ping().await.unwrap();
}

async fn check_hostile_strings(on: &Dialect) {
    for (number, text) in (100_i64..).zip(hostile()) {
        let given =
            args![number, None::<i64>, None::<i64>, None::<f64>, None::<bool>, &text, text.as_bytes()];
        on.db.execute(on.sql(INSERT), &given).await.unwrap();
        let query = on.sql("SELECT s, d FROM TABLE_NAME WHERE id = ? AND s = ?");
        let row = on.db.fetch_optional(query, &args![number, &text]).await.unwrap().unwrap();
        assert_eq!(row.get::<String>("s").unwrap(), text);
        assert_eq!(row.get::<Vec<u8>>("d").unwrap(), text.as_bytes());
    }
    assert_eq!(on.count().await, 2 + i64::try_from(hostile().len()).unwrap());
}

async fn check_transactions(on: &Dialect) {
    let before = on.count().await;
    let insert = || on.sql("INSERT INTO TABLE_NAME (id) VALUES (?)");
    let mut tx = on.db.begin().await.unwrap();
    tx.execute(insert(), &args![200]).await.unwrap();
    drop(tx);
    let mut tx = on.db.begin().await.unwrap();
    tx.execute(insert(), &args![201]).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(on.count().await, before);
    let mut tx = on.db.begin().await.unwrap();
    tx.execute(insert(), &args![202]).await.unwrap();
    tx.execute(insert(), &args![203]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(on.count().await, before + 2);
}

async fn check_errors(on: &Dialect) {
    let insert = || on.sql("INSERT INTO TABLE_NAME (id) VALUES (?)");
    on.db.execute(insert(), &args![300]).await.unwrap();
    let error = on.db.execute(insert(), &args![300]).await.unwrap_err();
    assert!(matches!(error, DbError::Duplicate { .. }), "{error:?}");
    let error = on.db.execute("SELEKT 1", &[]).await.unwrap_err();
    assert!(matches!(error, DbError::Statement { .. }), "{error:?}");
    let row = on.db.fetch_optional("SELECT 1 AS one", &[]).await.unwrap().unwrap();
    let error = row.get::<i64>("two").unwrap_err();
    assert_eq!(error.to_string(), "column `two`: there is none of that name; there are one");
}

#[tokio::test]
async fn mariadb_gives_back_what_it_was_given() {
    let Some(url) = server("FF_TEST_MYSQL") else { return };
    check_database(connect(url).await).await;
}

#[tokio::test]
async fn sqlite_gives_back_what_it_was_given() {
    let folder = std::env::temp_dir().join(unique("ff-sqlite"));
    let file = folder.join("deeper/game.db");
    check_database(connect(format!("sqlite://{}", file.display())).await).await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn postgres_gives_back_what_it_was_given() {
    let Some(url) = server("FF_TEST_POSTGRES") else { return };
    check_database(connect(url).await).await;
}

#[tokio::test]
async fn mariadbs_own_types_are_read_as_numbers_and_text() {
    let Some(url) = server("FF_TEST_MYSQL") else { return };
    let db = connect(url).await;
    let query = "SELECT CAST(200 AS UNSIGNED) AS u, CAST(18446744073709551615 AS UNSIGNED) AS huge, \
                 SUM(7) AS sum, CAST(1.50 AS DECIMAL(10,2)) AS price, JSON_OBJECT('a', 1) AS j, NOW() AS t";
    let row = db.fetch_optional(query, &[]).await.unwrap().unwrap();
    assert_eq!(row.get::<i64>("u").unwrap(), 200);
    assert_eq!(row.get::<i64>("sum").unwrap(), 7);
    assert_eq!(row.get::<f64>("price").unwrap(), 1.5);
    assert_eq!(row.get::<String>("price").unwrap(), "1.50");
    assert_eq!(row.get::<String>("j").unwrap(), "{\"a\": 1}");
    assert_eq!(
        row.get::<i64>("huge").unwrap_err().to_string(),
        "column `huge`: 18446744073709551615 does not fit into 64 bits with a sign"
    );
    assert!(row.get::<String>("t").unwrap_err().to_string().contains("DATETIME; write CAST("));
}

#[tokio::test]
async fn a_slow_statement_meets_its_deadline_and_the_next_one_runs() {
    let Some(url) = server("FF_TEST_MYSQL") else { return };
    let db = connect(url).await;
    let quick = db.with_deadline(Duration::from_millis(300));
    for _ in 0..10 {
        let started = Instant::now();
        let error = quick.fetch_all("SELECT SLEEP(10)", &[]).await.unwrap_err();
        assert!(matches!(error, DbError::Timeout { .. }), "{error:?}");
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    }
    db.ping().await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_refused_at_the_start_without_showing_it() {
    let Some(url) = server("FF_TEST_MYSQL") else { return };
    let url = url.replace(":pw@", ":hunter2@");
    let error = Db::connect(&ffconfig::Database::at(url)).await.unwrap_err();
    assert!(matches!(error, DbError::Refused { .. }), "{error:?}");
    let line = format!("{:#}", anyhow::Error::from(error));
    assert!(line.starts_with("`db.url`: mysql at 127.0.0.1:"), "{line}");
    assert!(line.contains("Access denied for user 'game'") && !line.contains("hunter2"), "{line}");
}

/// What is logged while this is in force, as text.
#[derive(Clone, Default)]
struct Log(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_slow_statement_is_logged_without_its_values_and_a_quick_one_is_not() {
    let Some(url) = server("FF_TEST_MYSQL") else { return };
    let log = Log::default();
    let write = log.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || write.clone()).finish();
    let _in_force = tracing::subscriber::set_default(subscriber);
    let slow = ffconfig::Database { slow: Duration::from_millis(200), ..ffconfig::Database::at(url) };
    let db = Db::connect(&slow).await.unwrap();
    db.fetch_all("SELECT ? AS quick", &args!["hunter2"]).await.unwrap();
    db.fetch_all("SELECT SLEEP(0.4), ? AS slow", &args!["hunter2"]).await.unwrap();
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(text.contains("WARN") && text.contains("SELECT SLEEP(0.4)"), "{text}");
    assert!(!text.contains("hunter2") && !text.contains("AS quick"), "{text}");
}
