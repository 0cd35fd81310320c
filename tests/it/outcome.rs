//! Whatever dies or hangs, each request ends once, in order, and its connection stays. At full size:
//! `cargo run --release -p tests --bin trial -- outcome` and `hang`.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use tests::client::parse_error;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::trials::{Say, hang, outcome};
use tests::wait;

#[allow(clippy::print_stdout, reason = "cargo shows it when the test fails")]
const SAY: Say<'_> = &|line| println!("{line}");

#[tokio::test]
async fn every_request_ends_once_while_game_nodes_and_the_gate_are_killed() -> Result<()> {
    let size = outcome::Size { connections: 100, deep: 1, per_s: 500.0, kills: 6, kill_every_ms: 2000 };
    outcome::run(&size, SAY).await
}

#[tokio::test]
async fn every_pipelined_request_ends_once_while_game_nodes_and_the_gate_are_killed() -> Result<()> {
    let size = outcome::Size { connections: 40, deep: 16, per_s: 800.0, kills: 4, kill_every_ms: 1500 };
    outcome::run(&size, SAY).await
}

fn stopped(node: &str, call_timeout_ms: u64) -> hang::Size {
    hang::Size { connections: 50, deep: 8, per_s: 250.0, stop_ms: 3000, call_timeout_ms, node: node.into() }
}

#[tokio::test]
async fn requests_to_a_stopped_game_node_end_when_three_heartbeats_are_missed_and_it_returns() -> Result<()> {
    hang::run(&stopped("game.1", 5000), SAY).await
}

#[tokio::test]
async fn requests_to_a_stopped_game_node_end_within_their_deadline() -> Result<()> {
    hang::run(&stopped("game.1", 500), SAY).await
}

#[tokio::test]
async fn a_stopped_gate_is_noticed_and_does_nothing_of_what_it_slept_through() -> Result<()> {
    hang::run(&stopped("gate", 5000), SAY).await
}

/// The numbers of the requests that have begun on any game node.
fn begun(cluster: &Cluster) -> Result<BTreeSet<String>> {
    let mut numbers = BTreeSet::new();
    for file in std::fs::read_dir(cluster.ran())? {
        let text = std::fs::read_to_string(file?.path())?;
        numbers.extend(text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned));
    }
    Ok(numbers)
}

#[tokio::test]
async fn a_request_whose_deadline_passes_behind_a_running_one_is_not_started() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial_with(1000)?).await?;
    let mut client = cluster.client().await?;
    // In one piece, so that their deadlines are the same.
    let requests = [&b"1 60000"[..], b"2 0", b"3 0"].map(|body| client.frame(1004, body));
    client.send_bytes(&requests.concat()).await?;
    for _ in &requests {
        let error = client.receive_error().await?;
        ensure!((&*error.code, &*error.executed) == ("timeout", "unknown"), "{error:?}");
    }
    client.call(1004, b"4 0").await?;
    let begun = begun(&cluster)?;
    ensure!(begun == BTreeSet::from(["1".to_owned(), "4".to_owned()]), "{begun:?}");
    cluster.stop().await
}

#[tokio::test]
async fn a_request_whose_deadline_passes_on_its_net_node_says_that_it_has_not_run() -> Result<()> {
    let patient = r#""call_timeout_ms": 600, "park_ms": 30000"#;
    let cluster =
        Cluster::processes(Fixture::trial_with(600)?.replace(r#""call_timeout_ms": 600"#, patient)).await?;
    let mut client = cluster.client().await?;
    client.call(1004, b"1 0").await?;
    cluster.admin("POST", "/nodes/gate/stop").await?;
    cluster.until("gate", "is stopped", |node| node["state"] == "stopped").await?;
    let error = client.call_error(1004, b"2 0").await?;
    ensure!((&*error.code, &*error.executed) == ("timeout", "no"), "{error:?}");
    let begun = begun(&cluster)?;
    ensure!(begun == BTreeSet::from(["1".to_owned()]), "{begun:?}");
    cluster.stop().await
}

#[tokio::test]
async fn what_waits_behind_a_running_handler_is_not_started_when_its_link_has_ended() -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial_with(5000)?).await?;
    let mut client = cluster.client().await?;
    for n in 1..=5 {
        client.send(1004, format!("{n} 600").as_bytes()).await?;
    }
    wait::until("the first request runs", async || {
        let begun = begun(&cluster).map_err(|e| format!("{e:#}"))?;
        if begun.contains("1") { Ok(()) } else { Err(format!("{begun:?}")) }
    })
    .await?;
    let old = cluster.kill_hard("gate").await?;
    for _ in 1..=5 {
        let (_, body) = client.receive().await?;
        let error = parse_error(&body)?;
        ensure!(error.code == "link_lost", "{error:?}");
    }
    cluster.until_back("gate", old).await?;
    for name in ["game.1", "game.2"] {
        cluster.until_linked(name, "gate").await?;
    }
    // Takes longer than the first, so that what waited behind that would have begun.
    wait::until("the session is served again", async || {
        client.call(1004, b"6 700").await.map_err(|e| format!("{e:#}"))
    })
    .await?;
    let begun = begun(&cluster)?;
    ensure!(begun == BTreeSet::from(["1".to_owned(), "6".to_owned()]), "{begun:?}");
    cluster.stop().await
}
