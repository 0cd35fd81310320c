//! The test kit: a cluster in the test's process, its nodes and links broken by call, the paused clock, what handlers take, the seed.

mod page;

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ffserver::Code;
use ffserver::prelude::*;
use ffserver::testing::{self, ClientError, Cluster, NodeError, StartError, paused};
use page::{CONFIG, Result, apps};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::Instant;

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "purse")]
struct Purse {
    #[record(key)]
    name: String,
    coins: i64,
}

/// Half a second of the database's own work, on the wall.
const SLOW: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000000) SELECT max(i) AS most FROM n";

/// Waits for a tenth of a second, then for the database, and says how much time there was.
#[net_handle(1)]
async fn query(db: Db) -> Result<String> {
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(100)).await;
    db.fetch_all(SLOW, &[]).await?;
    Ok(begun.elapsed().as_millis().to_string())
}

/// Pays a coin that is in the database a minute later.
#[net_handle(2)]
async fn pay(purses: Table<Purse>, Body(name): Body<String>) -> Result<String> {
    if purses.get(&name).await?.is_none() {
        purses.insert(Purse { name: name.clone(), coins: 0 }).await?;
    }
    let more = |purse: &mut Purse| {
        purse.coins += 1;
        purse.coins
    };
    Ok(purses.update(&name, Save::within_ms(60_000), more).await?.to_string())
}

#[net_handle(3)]
async fn time(node: Node) -> String {
    node.clock().now_ms().to_string()
}

type Effects = Arc<AtomicU64>;

/// Has an effect a second later.
#[net_handle(4)]
async fn later(effects: State<Effects>) -> String {
    tokio::time::sleep(Duration::from_secs(1)).await;
    effects.fetch_add(1, Ordering::Relaxed);
    "done".into()
}

const BANK: &str = r#"{ "master": { "rootport": 1, "webport": 2 }, "db": { "url": "sqlite:never/there.sqlite" },
    "limits": { "idle_s": 30 },
    "servers": { "bank": { "app": "bank", "netport": 3, "webport": 4, "db": true } } }"#;

fn bank(effects: &Effects) -> impl Fn() -> Vec<App> + Send + Sync + 'static {
    let effects = effects.clone();
    move || {
        let app = App::new("bank").table::<Purse>().state(effects.clone());
        vec![app.handlers(handlers![query, pay, time, later])]
    }
}

#[test]
fn a_paused_clock_moves_a_handlers_deadline_to_the_millisecond() -> Result<()> {
    paused(async |clock| {
        let cluster = Cluster::start_text(CONFIG, apps).await?;
        let mut ann = cluster.client("net")?;
        ann.send(3, "").await?;
        clock.advance(Duration::from_millis(4_999)).await;
        assert_eq!(ann.taken().await, []);
        clock.advance(Duration::from_millis(1)).await;
        assert_eq!(ann.taken().await.len(), 1);
        assert_eq!(clock.elapsed(), Duration::from_secs(5));
        Ok(cluster.stop().await?)
    })
}

#[test]
fn nothing_but_the_test_moves_a_paused_clock() -> Result<()> {
    paused(async |clock| {
        let cluster = Cluster::start_text(BANK, bank(&Effects::default())).await?;
        let mut ann = cluster.client("bank")?;
        assert_eq!(ann.call(2, "ann").await?, "1", "a database is awaited");
        let mut socket = TcpStream::connect(cluster.at("bank")?).await?;
        let mut read = [0; 1];
        tokio::select! {
            read = socket.read(&mut read) => return Err(format!("{read:?}").into()),
            // On the wall; a clock that moves by itself would end the connection now (limits.first_message_s).
            waited = tokio::task::spawn_blocking(|| Command::new("sleep").arg("0.2").status()) => assert!(waited??.success()),
        }
        assert_eq!(clock.elapsed(), Duration::ZERO);
        Ok(())
    })
}

#[test]
fn a_paused_clock_that_is_moved_stands_while_a_database_works() -> Result<()> {
    paused(async |clock| {
        let cluster = Cluster::start_text(BANK, bank(&Effects::default())).await?;
        let mut ann = cluster.client("bank")?;
        let (took, ()) = tokio::join!(ann.call(1, ""), clock.advance(Duration::from_secs(3)));
        assert_eq!(took?, "100");
        assert_eq!(clock.elapsed(), Duration::from_secs(3));
        Ok(())
    })
}

#[test]
fn the_time_of_day_and_the_idle_reaper_go_with_a_paused_clock() -> Result<()> {
    paused(async |clock| {
        let cluster = Cluster::start_text(BANK, bank(&Effects::default())).await?;
        let mut ann = cluster.client("bank")?;
        assert_eq!(ann.call(3, "").await?, "1800000000000");
        clock.advance(Duration::from_secs(25)).await;
        assert_eq!(ann.call(3, "").await?, "1800000025000");
        clock.advance(Duration::from_secs(28)).await;
        assert_eq!(ann.call(3, "").await?, "1800000053000", "it has said something");
        let (closed, ()) = tokio::join!(ann.closed(), clock.advance(Duration::from_secs(32)));
        closed?;
        assert!(matches!(ann.call(3, "").await, Err(ClientError::Closed)));
        Ok(())
    })
}

#[test]
fn a_killed_node_does_nothing_any_more_and_its_clients_see_the_end() -> Result<()> {
    paused(async |clock| {
        let effects = Effects::default();
        let mut cluster = Cluster::start_text(BANK, bank(&effects)).await?;
        let (mut ann, mut bob) = (cluster.client("bank")?, cluster.client("bank")?);
        assert_eq!(bob.call(2, "bob").await?, "1");
        ann.send(4, "").await?;
        clock.at_rest().await;
        cluster.kill("bank").await?;
        assert!(ann.closed().await?.is_none() && bob.closed().await?.is_none());
        clock.advance(Duration::from_secs(10)).await;
        assert_eq!(effects.load(Ordering::Relaxed), 0);
        assert!(matches!(cluster.client("bank"), Err(NodeError::Down(_))));
        assert!(matches!(cluster.kill("bank").await, Err(NodeError::Down(_))));

        cluster.start_node("bank").await?;
        assert!(matches!(cluster.start_node("bank").await, Err(StartError::Node(NodeError::Up(_)))));
        let mut bob = cluster.client("bank")?;
        assert_eq!(bob.call(2, "bob").await?, "2", "what it had answered was in its journal");
        Ok(())
    })
}

#[test]
fn a_killed_parent_is_missed_by_its_child_and_the_child_by_its_parent() -> Result<()> {
    paused(async |clock| {
        let mut cluster = Cluster::start_text(CONFIG, apps).await?;
        assert_eq!(cluster.node("room")?.children().len(), 1);
        cluster.kill("net").await?;
        clock.at_rest().await;
        assert_eq!(cluster.node("room")?.children().len(), 0);
        cluster.start_node("net").await?;
        assert_eq!(cluster.node("room")?.children().len(), 1);

        let mut ann = cluster.client("net")?;
        cluster.kill("room").await?;
        let (failed, ()) = tokio::join!(ann.call(2, ""), clock.advance(Duration::from_secs(2)));
        assert_eq!(failed.unwrap_err().code(), Some(Code::NoNode));
        Ok(())
    })
}

#[test]
fn a_link_that_is_slower_than_its_patience_ends() -> Result<()> {
    paused(async |clock| {
        let cluster = Cluster::start_text(CONFIG, apps).await?;
        cluster.delay("room", "net", Duration::from_secs(3_600))?;
        clock.advance(Duration::from_secs(3)).await;
        assert_eq!(cluster.node("room")?.children().len(), 0);
        cluster.heal("room", "net").await?;
        assert_eq!(cluster.node("room")?.children().len(), 1);
        Ok(())
    })
}

#[tokio::test]
async fn links_are_cut_and_healed_on_a_clock_that_goes_as_well() -> Result<()> {
    let cluster = Cluster::start_text(
        CONFIG.replace("\"servers\"", "\"limits\": { \"park_ms\": 0 }, \"servers\""),
        apps,
    );
    let cluster = cluster.await?;
    let mut ann = cluster.client("net")?;
    cluster.cut("room", "net").await?;
    assert_eq!(ann.call(1, "").await.unwrap_err().code(), Some(Code::NoNode));
    cluster.heal("room", "net").await?;
    assert_eq!(ann.call(1, "").await?, "0 for net");
    assert!(matches!(cluster.cut("room", "room").await, Err(NodeError::NoNeighbours { .. })));
    assert!(matches!(cluster.cut("room", "hall").await, Err(NodeError::NoNode { .. })));
    Ok(cluster.stop().await?)
}

#[tokio::test]
async fn a_cluster_that_does_not_start_says_which_node_and_why() -> Result<()> {
    let failing = || {
        let [net, room]: [App; 2] = apps().try_into().unwrap_or_else(|_| unreachable!());
        vec![net, room.on_started(async |_| Err(HandlerError::new("no floor")))]
    };
    let error = Cluster::start_text(CONFIG, failing).await.unwrap_err().to_string();
    assert!(error.contains("the node room does not start") && error.contains("no floor"), "{error}");
    let error = Cluster::start("nowhere.json", apps).await.unwrap_err().to_string();
    assert!(error.contains("nowhere.json"), "{error}");
    Ok(())
}

#[tokio::test]
async fn clients_of_other_kinds_and_browsers_find_a_port_that_nobody_else_has() -> Result<()> {
    let cluster = Cluster::start_text(BANK, bank(&Effects::default())).await?;
    let client = ffclient::Client::connect(cluster.at("bank")?, ffclient::Options::default()).await?;
    assert_eq!(client.call(CommandId(2), b"ann").await?, "1");
    assert_eq!(tests::http::request(cluster.web("bank")?, "GET", "/nowhere", &[]).await?.status, 404);
    let at = cluster.at("bank")?;
    assert_eq!(cluster.node("bank")?.config().netport, Some(at), "a page may tell it");
    drop(cluster);
    assert!(client.call(CommandId(2), b"ann").await.is_err());
    assert!(TcpStream::connect(at).await.is_err(), "all has ended with the cluster");
    Ok(())
}

/// The variable that has a test fail, to see what is printed then.
const FAILS: &str = "FF_TEST_FAILS";

#[tokio::test]
async fn a_test_that_fails_when_it_is_told_to() -> Result<()> {
    let cluster = Cluster::start_text(CONFIG, apps).await?;
    let mut ann = cluster.client("net")?;
    let mut thrown = String::new();
    for _ in 0..16 {
        thrown += &String::from_utf8_lossy(&ann.call(4, "").await?);
    }
    match std::env::var_os(FAILS) {
        None => Ok(()),
        Some(_) => Err(format!("thrown: {thrown}.").into()),
    }
}

#[test]
fn the_seed_of_a_test_that_fails_is_printed_and_throws_the_same_dice_again() -> Result<()> {
    let fail = |seed: Option<&str>| {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--exact", "testing::a_test_that_fails_when_it_is_told_to"]).env(FAILS, "1");
        command.env_remove("FF_SEED").envs(seed.map(|seed| ("FF_SEED", seed)));
        let output = command.output()?;
        assert!(!output.status.success());
        let printed = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        let part = |from: &str| {
            let (_, rest) = printed.split_once(from).ok_or_else(|| format!("no {from} in: {printed}"))?;
            let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
            Ok::<_, String>(rest[..end].to_owned())
        };
        Result::Ok((part("FF_SEED=")?, part("thrown: ")?))
    };
    let (seed, thrown) = fail(None)?;
    assert_eq!(thrown.len(), 16, "{thrown}");
    assert_eq!(fail(Some(&seed))?, (seed, thrown.clone()));
    assert_ne!(fail(None)?.1, thrown, "another seed");
    Ok(())
}

#[tokio::test]
async fn a_table_and_a_session_are_made_for_handlers_that_are_called_as_functions() -> Result<()> {
    let purses = testing::table::<Purse>().await?;
    assert_eq!(pay(purses.table(), Body("ann".into())).await?, "1");
    assert_eq!(pay(purses.table(), Body("ann".into())).await?, "2");
    assert_eq!(purses.get(&"ann".to_owned()).await?.map(|purse| purse.coins), Some(2));

    let mut ann = testing::session().await?;
    let session = ann.session();
    session.bind("ann").await?;
    session.push(CommandId(10), b"hello")?;
    assert_eq!(ann.client.push(10).await?, "hello");
    session.close("enough");
    assert!(ann.client.closed().await?.is_none(), "the end, without a word");
    Ok(())
}

/// The blocks of Rust of a page.
fn blocks(page: &str) -> Vec<&str> {
    page.split("```rust\n").skip(1).filter_map(|rest| rest.split("```").next()).collect()
}

#[test]
fn every_example_of_the_page_is_compiled_and_a_match_of_two_has_at_most_twenty_lines() -> Result<()> {
    let root = tests::bins::root();
    let page = std::fs::read_to_string(root.join("docs/testing.md"))?;
    let tests = std::fs::read_to_string(root.join("tests/it/testing/page.rs"))?;
    assert!(blocks(&page).len() >= 7, "{}", blocks(&page).len());
    for block in blocks(&page) {
        assert!(tests.contains(block), "docs/testing.md has what tests/it/testing/page.rs has not:\n{block}");
    }
    let template = std::fs::read_to_string(root.join("examples/own-game/tests/plays.rs"))?;
    for (name, text) in [("the page", &tests), ("the template", &template)] {
        let (_, begun) = text.split_once("#[tokio::test]\n").ok_or(name)?;
        let (play, _) = begun.split_once("\n}\n").ok_or(name)?;
        // With its attribute and its last brace.
        let lines = play.lines().count() + 2;
        assert!(play.contains("client(\"net\")") && lines <= 20, "{name}: {lines} lines\n{play}");
    }
    Ok(())
}

ffserver::parents! { Made = "made" }

#[tokio::test]
async fn a_parent_may_be_called_as_a_made_node_is() -> Result<()> {
    let made = testing::parent::<Made>(&["who"], |_method, who| Ok(who)).await?;
    assert_eq!(made.parent().call("who", "ann").await?, "ann");
    Ok(())
}
