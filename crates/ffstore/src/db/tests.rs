//! What can be seen without a server: SQLite in memory and on disk, and the errors of a start.

use super::*;

fn config(url: &str) -> ffconfig::Database {
    ffconfig::Database { connect_timeout: Duration::from_millis(300), ..ffconfig::Database::at(url) }
}

async fn memory() -> Db {
    let db = Db::connect(&config("sqlite::memory:")).await.unwrap();
    db.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, n INT, x REAL, b BOOLEAN, s TEXT, d BLOB)", &[])
        .await
        .unwrap();
    db
}

/// The whole line that a person sees.
fn line(error: DbError) -> String {
    format!("{:#}", anyhow::Error::from(error))
}

#[tokio::test]
async fn every_kind_of_value_comes_back() {
    let db = memory().await;
    let insert = "INSERT INTO t (n, x, b, s, d) VALUES (?, ?, ?, ?, ?)";
    let hostile = "'; DROP TABLE t; -- \\ \" ? $1 🎲";
    let changed = db.execute(insert, &args![i64::MIN, 1.5, true, hostile, vec![0_u8, 255]]).await.unwrap();
    assert_eq!(changed, 1);
    db.execute(insert, &args![None::<i64>, None::<f64>, None::<bool>, None::<&str>, None::<&[u8]>])
        .await
        .unwrap();
    let rows = db.fetch_all("SELECT n, x, b, s, d FROM t ORDER BY id", &[]).await.unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0].get::<i64>("n").unwrap(), i64::MIN);
    assert_eq!(rows[0].get::<f64>("x").unwrap(), 1.5);
    assert!(rows[0].get::<bool>("b").unwrap());
    assert_eq!(rows[0].get::<String>("s").unwrap(), hostile);
    assert_eq!(rows[0].get::<Vec<u8>>("d").unwrap(), [0, 255]);
    for place in 0..5 {
        assert_eq!(rows[1].at::<Option<Value>>(place).unwrap(), None);
    }
}

#[tokio::test]
async fn fetch_optional_gives_the_row_or_none() {
    let db = memory().await;
    let found = db.fetch_optional("SELECT 7 AS n WHERE ? = 1", &args![1]).await.unwrap();
    assert_eq!(found.unwrap().get::<i64>("n").unwrap(), 7);
    assert_eq!(db.fetch_optional("SELECT 7 AS n WHERE ? = 1", &args![2]).await.unwrap(), None);
}

#[tokio::test]
async fn a_second_row_of_one_key_is_a_duplicate() {
    let db = memory().await;
    db.execute("INSERT INTO t (id) VALUES (?)", &args![1]).await.unwrap();
    let error = db.execute("INSERT INTO t (id) VALUES (?)", &args![1]).await.unwrap_err();
    assert!(matches!(error, DbError::Duplicate { .. }), "{error:?}");
    assert!(!error.is_unsent());
}

#[tokio::test]
async fn a_wrong_statement_is_told_in_the_databases_words() {
    let db = memory().await;
    let error = db.execute("INSERT INTO nowhere VALUES (1)", &[]).await.unwrap_err();
    assert_eq!(line(error), "the database refuses the statement: (code: 1) no such table: nowhere");
}

#[tokio::test]
async fn a_transaction_is_rolled_back_unless_it_is_committed() {
    let db = memory().await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("INSERT INTO t (n) VALUES (?)", &args![1]).await.unwrap();
    drop(tx);
    assert_eq!(count(&db).await, 0);
    let mut tx = db.begin().await.unwrap();
    tx.execute("INSERT INTO t (n) VALUES (?)", &args![1]).await.unwrap();
    assert_eq!(tx.fetch_optional("SELECT n FROM t", &[]).await.unwrap().unwrap().get::<i64>("n").unwrap(), 1);
    tx.rollback().await.unwrap();
    assert_eq!(count(&db).await, 0);
    let mut tx = db.begin().await.unwrap();
    tx.execute("INSERT INTO t (n) VALUES (?)", &args![1]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(count(&db).await, 1);
}

#[tokio::test]
async fn a_transaction_with_a_dropped_statement_cannot_be_committed() {
    let db = memory().await;
    let mut tx = db.begin().await.unwrap();
    tx.execute("INSERT INTO t (n) VALUES (1)", &[]).await.unwrap();
    // As a statement whose future is dropped leaves it; a real one may be done at its first poll.
    tx.start().unwrap();
    assert!(matches!(tx.execute("SELECT 1", &[]).await, Err(DbError::BrokenOff)));
    assert!(matches!(tx.commit().await, Err(DbError::BrokenOff)));
    assert_eq!(count(&db).await, 0);
}

async fn count(db: &Db) -> i64 {
    db.fetch_all("SELECT count(*) AS n FROM t", &[]).await.unwrap()[0].get("n").unwrap()
}

#[tokio::test]
async fn a_statement_that_must_wait_meets_its_deadline_and_the_pool_goes_on() {
    let folder = std::env::temp_dir().join(format!("ffstore-wait-{}", std::process::id()));
    let db = Db::connect(&config(&format!("sqlite://{}/t.db", folder.display()))).await.unwrap();
    db.execute("CREATE TABLE t (n INT)", &[]).await.unwrap();
    let writer = db.begin().await.unwrap();
    let quick = db.with_deadline(Duration::from_millis(50));
    let error = quick.execute("INSERT INTO t (n) VALUES (1)", &[]).await.unwrap_err();
    // On a busy machine even the connection may come too late.
    assert!(matches!(error, DbError::Timeout { .. } | DbError::NoConnection { .. }), "{error:?}");
    writer.rollback().await.unwrap();
    assert_eq!(db.execute("INSERT INTO t (n) VALUES (2)", &[]).await.unwrap(), 1);
    db.close().await;
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn sqlite_makes_its_folder_and_file() {
    let folder = std::env::temp_dir().join(format!("ffstore-db-{}", std::process::id()));
    let file = folder.join("a/b/game.db");
    let db = Db::connect(&config(&format!("sqlite://{}", file.display()))).await.unwrap();
    db.ping().await.unwrap();
    let mode = db.fetch_optional("PRAGMA journal_mode", &[]).await.unwrap().unwrap();
    assert_eq!(mode.at::<String>(0).unwrap(), "wal");
    let synchronous = db.fetch_optional("PRAGMA synchronous", &[]).await.unwrap().unwrap();
    assert_eq!(synchronous.at::<i64>(0).unwrap(), 2, "FULL: what is answered is on the disk");
    let read_only = Db::connect(&config(&format!("sqlite://{}?mode=ro", file.display()))).await.unwrap();
    read_only.fetch_all("SELECT name FROM sqlite_master", &[]).await.unwrap();
    let error = read_only.execute("CREATE TABLE t (n INT)", &[]).await.unwrap_err();
    assert!(matches!(error, DbError::Unable { .. }), "{error:?}");
    read_only.close().await;
    let missing = format!("sqlite://{}/none.db?mode=rw", folder.display());
    let error = Db::connect(&config(&missing)).await.unwrap_err();
    assert!(matches!(error, DbError::File { .. }), "{error:?}");
    assert!(db.sqlite().is_some() && db.mysql().is_none() && db.postgres().is_none());
    db.close().await;
    assert!(matches!(db.execute("SELECT 1", &[]).await, Err(DbError::Closed)));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn the_error_of_a_start_names_the_key_and_no_password() {
    // Bound and never accepting a login: the port is ours, so nobody else answers there.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = silent.local_addr().unwrap().port();
    let check = async |url: String, wanted: String| {
        let error = Db::connect(&config(&url)).await.unwrap_err();
        assert_eq!(line(error), wanted);
    };
    check(
        format!("mysql://game:secret@127.0.0.1:{port}/game"),
        format!("`db.url`: mysql at 127.0.0.1:{port} cannot be reached (tried for 300ms): no answer"),
    )
    .await;
    drop(silent);
    for scheme in ["mysql", "postgres"] {
        check(
            format!("{scheme}://game:secret@127.0.0.1:{port}/game"),
            format!(
                "`db.url`: {scheme} at 127.0.0.1:{port} cannot be reached (tried for 300ms): \
                 Connection refused (os error 111)"
            ),
        )
        .await;
    }
    check("oracle://secret@h/d".into(), "`db.url`: it must begin with sqlite:, mysql: or postgres:".into())
        .await;
    check("mysql://game:se/cret@h:3306/d".into(), "`db.url`: invalid port number".into()).await;
    check(
        "sqlite:///proc/nowhere/game.db".into(),
        "`db.url`: the SQLite file /proc/nowhere/game.db cannot be opened: No such file or directory (os error 2)"
            .into(),
    )
    .await;
}
