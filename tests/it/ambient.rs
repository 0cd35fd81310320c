//! A clock and a seed: what a cluster in one process does again, when both are the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use ffserver::db::Db;
use ffserver::prelude::*;
use ffserver::{Ambient, Chance, Clock, Stop, process};
use ffstore::record::{Records, Settings, create};
use parking_lot::Mutex;
use tests::client::Client;
use tests::fixtures::Fixture;
use tokio::time::Instant;

const START: Duration = Duration::from_secs(1_800_000_000);

ffserver::parents! { Gate = "gate" }

/// What the nodes of one run have seen, in its order.
type Trace = Arc<Mutex<Vec<String>>>;

#[root_handle]
async fn draw_above(node: Node, trace: State<Trace>, caller: Caller) -> Result<String, HandlerError> {
    let (name, session) = (caller.node, caller.session.map(|session| session.0));
    let drawn = format!("{} draws {:x} for {name}, {session:?}", node.name(), node.chance().u64()?);
    trace.lock().push(drawn.clone());
    Ok(drawn)
}

#[net_handle(1)]
async fn draw(node: Node, session: Session, gate: Parent<Gate>) -> Result<String, HandlerError> {
    let above = gate.call("draw_above", "").await?;
    let above = String::from_utf8_lossy(&above);
    Ok(format!("{:?}: {:x}; {above}", session.id(), node.chance().u64()?))
}

fn apps(trace: &Trace) -> Vec<App> {
    let app = |name| {
        let seen = trace.clone();
        App::new(name).state(trace.clone()).on_started(move |node| {
            let seen = seen.clone();
            async move {
                let (at, drawn) = (node.clock().now_ms(), node.chance().u64()?);
                seen.lock().push(format!("{}@{} at {at} draws {drawn:x}", node.name(), node.incarnation()));
                Ok(())
            }
        })
    };
    vec![app("gate").handlers(handlers![draw_above]), app("net").handlers(handlers![draw])]
}

fn ambient(seed: u64) -> Ambient {
    Ambient { clock: Clock::starting_at(START), chance: Chance::seeded(seed) }
}

/// Runs a cluster from a seed, asks it from three clients, and gives what its nodes and clients have seen.
fn run(seed: u64, fixture: &Fixture) -> Result<Vec<String>> {
    let trace = Trace::default();
    let folder = tempfile::tempdir()?;
    let config = ffconfig::parse(&fixture.text, &folder.path().join("config.json"), &|_| None)?.cluster;
    let (_, at) = fixture.ports().find(|(name, _)| *name == "net").context("no port of net")?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build()?;
    runtime.block_on(async {
        let (ambient, stop) = (ambient(seed), Stop::new(Duration::from_secs(1)));
        let incarnation = process::incarnation(None, &ambient.clock)?;
        let make = || apps(&trace);
        let cluster = process::run_all(&config, make, incarnation, stop.clone(), &ambient);
        let clients = async {
            let until = Instant::now() + Duration::from_secs(60);
            for _ in 0..3 {
                let mut client = loop {
                    match Client::connect(at).await {
                        Ok(client) => break client,
                        Err(_) if Instant::now() < until => {
                            tokio::time::sleep(Duration::from_millis(1)).await
                        }
                        Err(error) => return Err(error),
                    }
                };
                let answer = client.call(1, b"").await?;
                trace.lock().push(String::from_utf8_lossy(&answer).into_owned());
            }
            stop.begin(None);
            Ok(())
        };
        let (ended, asked) = tokio::join!(cluster, clients);
        ended?;
        asked
    })?;
    Ok(std::mem::take(&mut *trace.lock()))
}

#[test]
fn a_cluster_in_one_process_does_the_same_again_from_one_seed_and_one_clock() -> Result<()> {
    let fixture = Fixture::new(
        r#"{"master": {"rootport": @master, "webport": @admin}, "servers": {
            "gate": {"app": "gate", "rootport": @gate},
            "net": {"app": "net", "netport": @net, "remoteport": [{"rootname": "gate"}]}}}"#,
    )?;
    let (first, again, other) = (run(7, &fixture)?, run(7, &fixture)?, run(8, &fixture)?);
    assert_eq!(first.len(), 2 + 3 + 3, "{first:#?}");
    assert!(
        first.iter().any(|line| line.starts_with("net@1800000000000 at 1800000000000 draws ")),
        "{first:#?}"
    );
    assert_eq!(first, again, "one seed");
    // Of another seed only what was drawn differs.
    assert_eq!(other.len(), first.len());
    assert!(other.iter().zip(&first).all(|(other, first)| other != first), "{other:#?}");
    let session = |trace: &[String]| trace[3].split(':').next().map(str::to_owned);
    assert_eq!(session(&other), session(&first), "{other:#?}\n{first:#?}");
    Ok(())
}

#[derive(Record, Clone, PartialEq, Debug)]
#[record(table = "purse")]
struct Purse {
    #[record(key)]
    name: String,
    coins: i64,
}

/// Writes behind what no database has yet, and gives the salt of the journal and the version of a new row.
async fn journal(seed: u64) -> Result<(Option<u64>, i64)> {
    let folder = tempfile::tempdir()?;
    let url = format!("sqlite://{}", folder.path().join("game.db").display());
    let db = Db::connect(&ffconfig::Database::at(url)).await?;
    create::<Purse>(&db).await?;
    let data_dir = folder.path().join("data");
    let limits = ffconfig::Limits::default();
    let settings = Settings {
        id: "node".into(),
        data_dir: data_dir.clone(),
        limits,
        mirror: None,
        ambient: ambient(seed),
    };
    let mut records = Records::new(BTreeMap::from([(String::new(), db.clone())]), settings, |_| true);
    let purses = records.open::<Purse>().await?;
    purses.insert(Purse { name: "ann".into(), coins: 1 }).await?;
    let rows = db.fetch_all("SELECT version FROM purse", &[]).await?;
    purses.update(&"ann".to_owned(), Save::within_ms(60_000), |purse| purse.coins += 1).await?;
    let bytes = std::fs::read(data_dir.join("node.journal"))?;
    let head = ffstore::rows::journal::read(&bytes)?.head;
    records.close(Instant::now() + Duration::from_secs(10)).await;
    Ok((head.salt, rows[0].get("version")?))
}

#[tokio::test]
async fn the_salt_of_a_journal_comes_from_the_seed_and_the_version_of_a_row_from_the_clock() -> Result<()> {
    let ((first, version), (again, _), (other, _)) =
        (journal(7).await?, journal(7).await?, journal(8).await?);
    assert_eq!(first, again);
    assert!(first.is_some() && first != other, "{first:?}, {other:?}");
    let start = i64::try_from(START.as_micros())?;
    assert!((start..start + 60_000_000).contains(&version), "{version}");
    Ok(())
}
