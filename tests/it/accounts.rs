//! The example of docs/data.md, as it is: on SQLite, and by its other config on MariaDB and memcached.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use ffserver::db::Db;
use serde_json::{Value, json};
use tests::client::{Client, parse_error};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::servers::{Database, Memcached};
use tests::{bins, http, wait};

fn config(name: &str) -> Result<String> {
    let folder = bins::root().join("examples/accounts");
    let text = std::fs::read_to_string(folder.join(name))?;
    let migrations = format!("\"migrations\": {}", json!(folder.join("migrations")));
    Ok(text
        .replace("\"migrations\": \"migrations\"", &migrations)
        .replace("9989", "@master")
        .replace("9988", "@admin")
        .replace("10101", "@net")
        .replace("10102", "@web"))
}

async fn call(client: &mut Client, command: u32, body: Value) -> Result<Value> {
    let answer = client.call(command, body.to_string().as_bytes()).await?;
    Ok(serde_json::from_slice(&answer)?)
}

async fn refused(client: &mut Client, command: u32, body: Value) -> Result<String> {
    client.send(command, body.to_string().as_bytes()).await?;
    let (_, body) = client.receive().await?;
    Ok(parse_error(&body)?.message)
}

fn ann() -> Value {
    json!({"name": "ann", "password": "it's \\ secret", "guild": "reds"})
}

/// How many passwords the node has hashed.
async fn hashes(cluster: &Cluster) -> Result<f64> {
    let text = http::request(cluster.at("web"), "GET", "/metrics", &[]).await?.body;
    let line =
        text.lines().find_map(|line| line.strip_prefix("ff_section_calls_total{section=\"password\"} "));
    Ok(line.unwrap_or("0").parse()?)
}

async fn the_example_keeps_what_it_has_answered(cluster: Cluster) -> Result<()> {
    let mut client = cluster.client().await?;
    let shown = call(&mut client, 400, ann()).await?;
    assert_eq!(shown, json!({"name": "ann", "guild": "reds", "coins": 100, "logins": 0}));
    assert_eq!(refused(&mut client, 400, ann()).await?, "the name is taken");
    call(&mut client, 400, json!({"name": "bob' --", "password": "x", "guild": "reds"})).await?;
    assert_eq!(refused(&mut client, 402, Value::Null).await?, "log in first");
    let wrong = json!({"name": "ann", "password": "guessed"});
    // A name that there is and one that there is not take the same work, and nothing is kept of who is not let in.
    for wrong in [wrong, json!({"name": "nobody", "password": "guessed"})] {
        let before = hashes(&cluster).await?;
        assert_eq!(refused(&mut client, 401, wrong).await?, "wrong name or password");
        assert_eq!(hashes(&cluster).await?, before + 1.0);
    }
    let health = http::request(cluster.at("web"), "GET", "/healthz", &[]).await?.json()?;
    assert!(health["counters"].get("record_kept").is_none(), "{health}");
    assert_eq!(call(&mut client, 401, ann()).await?["logins"], 1);
    for coins in 101..=105 {
        assert_eq!(call(&mut client, 402, Value::Null).await?, coins);
    }
    let gift = json!({"to": "bob' --", "coins": 15});
    assert_eq!(call(&mut client, 403, gift).await?, 90);
    let gift = json!({"to": "bob' --", "coins": 1000});
    assert_eq!(refused(&mut client, 403, gift).await?, "you do not have so many");
    assert_eq!(call(&mut client, 402, Value::Null).await?, 91);

    and_keeps_it_over_kills_and_reloads(&cluster).await?;
    // The clients have left: what waits is written, and the record is held no longer.
    drop(client);
    wait::until("the record is written and released", async || {
        let node = cluster.node("net").await.map_err(|e| format!("{e:#}"))?;
        let counters = node["counters"].to_string();
        let at_rest =
            ["record_dirty", "record_held", "record_kept"].iter().all(|name| !counters.contains(name));
        if at_rest { Ok(()) } else { Err(counters) }
    })
    .await?;
    cluster.stop().await
}

/// By what is asked of ann, who has 91 coins.
async fn and_keeps_it_over_kills_and_reloads(cluster: &Cluster) -> Result<()> {
    // Written behind, answered, and not yet in the database: kill -9 takes nothing of it.
    let old = cluster.kill_hard("net").await?;
    cluster.until_back("net", old).await?;
    let mut client = cluster.client().await?;
    let shown = call(&mut client, 401, ann()).await?;
    assert_eq!(shown, json!({"name": "ann", "guild": "reds", "coins": 91, "logins": 2}));
    client.send(404, b"reds").await?;
    let (_, members) = client.receive().await?;
    let members: Value = serde_json::from_slice(&members)?;
    assert_eq!(members[1]["coins"], 115, "{members}");

    // Replaced again and again while coins come, each written behind: the same client, and each coin once.
    let mut coins = 91;
    for _ in 0..3 {
        let at = cluster.at("admin");
        let reload = tokio::spawn(async move { http::request(at, "POST", "/reload", &[]).await });
        while !reload.is_finished() {
            coins += 1;
            assert_eq!(call(&mut client, 402, Value::Null).await?, coins);
        }
        let answer = reload.await??;
        ensure!(answer.status == 200 && answer.body.contains("replaced"), "{answer:?}");
    }
    assert!(coins > 93, "there were coins in each reload: {coins}");

    let health = http::request(cluster.at("web"), "GET", "/healthz", &[]).await?.json()?;
    assert_eq!(health["databases"]["db"]["up"], true, "{health}");
    assert!(health["tables"]["account"]["records"].as_u64() >= Some(1), "{health}");
    Ok(())
}

/// Passwords are hashed in two places, off the node's loop. Who does not log in waits for none of them.
#[tokio::test]
async fn many_logins_at_once_hold_up_nobody_else() -> Result<()> {
    // Half a second of a processor each, without optimization.
    const LOGINS: u32 = 16;
    let cluster = Cluster::processes(Fixture::new(&config("config.json")?)?).await?;
    let mut player = cluster.client().await?;
    call(&mut player, 400, ann()).await?;
    call(&mut player, 401, ann()).await?;
    let net = cluster.pid("net").await?;
    let threads = || std::fs::read_dir(format!("/proc/{net}/task")).map(Iterator::count);
    let (before, threads_before) = (hashes(&cluster).await?, threads()?);
    let mut crowd = Vec::new();
    for _ in 0..LOGINS {
        let mut client = cluster.client().await?;
        client.send(401, json!({"name": "nobody", "password": "guessed"}).to_string().as_bytes()).await?;
        crowd.push(client);
    }
    for coins in 101..=105 {
        assert_eq!(call(&mut player, 402, Value::Null).await?, coins);
    }
    ensure!(http::request(cluster.at("web"), "GET", "/healthz", &[]).await?.status == 200);
    let hashed = hashes(&cluster).await? - before;
    ensure!(hashed < f64::from(LOGINS) / 2.0, "{hashed} logins went before those who play");
    let more = threads()?.saturating_sub(threads_before);
    ensure!(more <= 4, "{more} threads more for {LOGINS} logins");
    for mut client in crowd {
        client.receive().await?;
    }
    cluster.stop().await
}

#[tokio::test]
async fn the_accounts_example_keeps_what_it_has_answered_on_sqlite() -> Result<()> {
    let cluster = Cluster::processes(Fixture::new(&config("config.json")?)?).await?;
    let (text, code) = bins::check("net", cluster.folder())?;
    ensure!(code == Some(0), "{code:?}: {text}");
    assert!(text.contains("ok    db: sqlite://") && text.contains(" is SQLite 3."), "{text}");
    assert!(text.contains("ok    db table account (before migrations): as its record expects it"), "{text}");
    assert!(text.contains("ok    data_dir: ") && text.contains("listens"), "{text}");
    the_example_keeps_what_it_has_answered(cluster).await
}

#[tokio::test]
async fn what_a_cluster_writes_is_for_its_user_alone() -> Result<()> {
    let text =
        config("config.json")?.replacen("\"master\": {", "\"master\": { \"log\": \"logs/master.log\",", 1);
    let cluster = Cluster::processes(Fixture::new(&text)?).await?;
    let mut client = cluster.client().await?;
    call(&mut client, 400, ann()).await?;
    call(&mut client, 401, ann()).await?;
    call(&mut client, 402, Value::Null).await?;
    let mode = |path: &Path| anyhow::Ok(std::fs::metadata(path)?.permissions().mode() & 0o777);
    let mut seen = 0;
    for folder in ["data", "logs", "run"].map(|folder| cluster.folder().join(folder)) {
        assert_eq!(mode(&folder)?, 0o700, "{}", folder.display());
        for (path, _) in files(&folder)? {
            // WAL and its index come and go.
            let Ok(mode) = mode(&path) else { continue };
            seen += 1;
            assert_eq!(mode & 0o077, 0, "{}: {mode:o}", path.display());
        }
    }
    assert!(seen >= 4, "database, WAL, journal and log: {seen}");
    cluster.stop().await
}

#[tokio::test]
async fn the_accounts_example_keeps_what_it_has_answered_on_mariadb_and_memcached() -> Result<()> {
    // Of its own: the shared one would remember the migrations of other tests.
    let (Some(mariadb), Some(memcached)) = (Database::mariadb().await?, Memcached::start(16).await?) else {
        return Ok(());
    };
    let text = config("mariadb.json")?.replace("mysql://game:pw@127.0.0.1:3306/game", "DATABASE");
    let fixture = Fixture::new(&text)?.replace("DATABASE", &mariadb.url());
    let fixture = fixture.replace("127.0.0.1:11211", &memcached.address());
    the_example_keeps_what_it_has_answered(Cluster::processes(fixture).await?).await
}

#[tokio::test]
async fn a_check_says_what_is_wrong_and_fails() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let free = tests::fixtures::free_port()?;
    let text = config("mariadb.json")?
        .replace("mysql://game:pw@127.0.0.1:3306/game", "DATABASE")
        .replace("\"slow_ms\"", "\"connect_timeout_ms\": 100, \"slow_ms\"");
    let url = format!("mysql://game:secret@127.0.0.1:{free}/game");
    let down = format!("127.0.0.1:{free}");
    let fixture = Fixture::new(&text)?.replace("DATABASE", &url).replace("127.0.0.1:11211", &down);
    std::fs::write(folder.path().join("config.json"), &fixture.text)?;
    let (text, code) = bins::check("net", folder.path())?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains(&format!("FAULT db: `db.url`: mysql at {down} cannot be reached")), "{text}");
    assert!(text.contains(&format!("FAULT memcached {down}: ")), "{text}");
    assert!(text.contains("does not listen now") && !text.contains("secret"), "{text}");
    Ok(())
}

/// Every file below a folder, with what is in it; of a socket that is nothing.
fn files(folder: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        match path.is_dir() {
            true => all.extend(files(&path)?.into_iter().chain([(path, Vec::new())])),
            false if path.is_file() => drop(all.insert(path.clone(), std::fs::read(path)?)),
            false => drop(all.insert(path, Vec::new())),
        }
    }
    Ok(all)
}

#[tokio::test]
async fn a_check_makes_and_changes_nothing() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let fixture = Fixture::new(&config("config.json")?)?;
    std::fs::write(folder.path().join("config.json"), &fixture.text)?;
    let before = files(folder.path())?;
    let (text, code) = bins::check("net", folder.path())?;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("accounts.sqlite is not there; a start makes it"), "{text}");
    assert!(text.contains("ok    db table account (after migrations): as its record expects it"), "{text}");
    assert_eq!(files(folder.path())?, before, "{text}");
    // One without the tables that a start would need.
    let migrations =
        format!(", \"migrations\": {}", json!(bins::root().join("examples/accounts/migrations")));
    std::fs::write(folder.path().join("config.json"), fixture.text.replace(&migrations, ""))?;
    let (text, code) = bins::check("net", folder.path())?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAULT db table account: there is no table `account`"), "{text}");
    // And one that is there, not even in another mode than it is.
    std::fs::create_dir(folder.path().join("data"))?;
    let url = format!("sqlite://{}?mode=rwc", folder.path().join("data/accounts.sqlite").display());
    let db = Db::connect(&ffconfig::Database::at(url)).await?;
    db.execute("PRAGMA journal_mode = DELETE", &[]).await?;
    db.execute("CREATE TABLE other (id INTEGER)", &[]).await?;
    db.close().await;
    std::fs::write(folder.path().join("config.json"), &fixture.text)?;
    let before = files(folder.path())?;
    let (text, code) = bins::check("net", folder.path())?;
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("FAULT db table account (before migrations): there is no table"), "{text}");
    assert_eq!(files(folder.path())?, before, "{text}");
    Ok(())
}
