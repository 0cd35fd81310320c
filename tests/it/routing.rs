//! Clients' messages that are handled elsewhere: order, stickiness, bounds.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::trials::order;

#[tokio::test]
async fn pipelined_requests_of_a_session_run_in_order_and_one_at_a_time_while_others_die() -> Result<()> {
    let size = order::Size { connections: 50, requests: 300, deep: 32, kill_every_ms: 500 };
    order::run(&size, &|line| println!("{line}")).await
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

#[tokio::test]
async fn a_client_that_pipelines_deeper_than_its_bound_is_paused_and_loses_nothing() -> Result<()> {
    let bounded = "\"call_timeout_ms\": 9000, \"session_calls_max\": 2, \"session_queue_max\": 1";
    let fixture = Fixture::trial()?.replace("\"call_timeout_ms\": 1000", bounded);
    let cluster = Cluster::processes(fixture).await?;
    let mut client = cluster.client().await?;
    // More than two at a time on the game node would be refused as overloaded: one runs, one waits.
    for n in 1..=20 {
        client.send(1000, format!("{n} 5").as_bytes()).await?;
    }
    for n in 1..=20 {
        let (command, answer) = client.receive().await?;
        assert!(answer.starts_with(format!("{n} ok ").as_bytes()), "{command}: {answer:?}");
    }
    cluster.stop().await
}
