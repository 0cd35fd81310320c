//! Clients' messages that are handled elsewhere: order, stickiness, bounds.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use tests::client::Client;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tokio::task::JoinSet;

/// A small generator of random numbers with a seed, so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}

/// Sends `count` numbered requests, `deep` at a time, to a handler that waits 0 to 3 ms; every answer must
/// come, once, in order, and say that the handler saw it in order and alone.
async fn numbered_requests(mut client: Client, count: u32, deep: u32, seed: u64) -> Result<BTreeSet<String>> {
    let mut random = Random(seed | 1);
    let (mut sent, mut nodes) = (0, BTreeSet::new());
    for answered in 1..=count {
        while sent < count && sent < answered + deep - 1 {
            sent += 1;
            client.send(1000, format!("{sent} {}", random.below(4)).as_bytes()).await?;
        }
        let (command, body) = client.receive().await?;
        let text = String::from_utf8_lossy(&body).into_owned();
        let node =
            text.strip_prefix(&format!("{answered} ok ")).with_context(|| format!("{command}: {text}"))?;
        nodes.insert(node.to_owned());
    }
    Ok(nodes)
}

async fn sessions_keep_their_order(sessions: u64, requests: u32) -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial()?).await?;
    let mut running = JoinSet::new();
    for seed in 0..sessions {
        let client = cluster.client().await?;
        running.spawn(numbered_requests(client, requests, 32, seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
    }
    let mut used = BTreeSet::new();
    while let Some(done) = running.join_next().await {
        let nodes = done??;
        ensure!(nodes.len() == 1, "a session is handled by one node: {nodes:?}");
        used.extend(nodes);
    }
    ensure!(used.len() == 2, "both game nodes are used: {used:?}");
    cluster.stop().await
}

#[tokio::test]
async fn pipelined_requests_of_a_session_run_in_order_and_one_at_a_time() -> Result<()> {
    sessions_keep_their_order(50, 200).await
}

#[tokio::test]
async fn a_stateless_range_uses_every_node_of_the_kind() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::trial()?).await?;
    let mut client = cluster.client().await?;
    let mut nodes = BTreeSet::new();
    for _ in 0..20 {
        nodes.insert(client.call(1500, b"").await?);
    }
    assert_eq!(nodes.len(), 2, "{nodes:?}");
    cluster.stop().await
}

#[tokio::test]
async fn a_concurrent_handler_does_not_hold_up_its_session_on_another_node() -> Result<()> {
    let cluster = Cluster::in_process(Fixture::trial()?).await?;
    let mut client = cluster.client().await?;
    client.send(1001, b"200").await?;
    client.send(1000, b"1 0").await?;
    assert_eq!(client.receive().await?.0, 1000);
    assert_eq!(client.receive().await?.0, 1001);
    cluster.stop().await
}

#[tokio::test]
async fn a_session_goes_on_with_the_other_game_node_when_its_own_is_killed() -> Result<()> {
    let patient = Fixture::trial()?.replace("\"call_timeout_ms\": 1000", "\"call_timeout_ms\": 9000");
    let cluster = Cluster::processes(patient).await?;
    let mut client = cluster.client().await?;
    let answer = String::from_utf8(client.call(1000, b"1 0").await?.to_vec())?;
    let own = answer.rsplit(' ').next().context("no node")?.to_owned();
    client.send(1000, b"2 8000").await?;
    cluster.kill_hard(&own).await?;
    let (command, body) = client.receive().await?;
    let error = tests::client::parse_error(&body)?;
    assert_eq!((command, error.code.as_str(), error.executed.as_str()), (u32::MAX, "link_lost", "unknown"));
    let answer = client.call(1000, b"3 0").await?;
    assert!(answer.starts_with(b"3 ok game."), "{answer:?}");
    cluster.stop().await
}
