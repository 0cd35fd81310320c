//! Slow and hostile clients cost a fixed amount and hurt nobody else.

use std::time::Duration;

use anyhow::Result;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tests::trials::{halfopen, slow};
use tokio::time::Instant;

#[tokio::test]
async fn a_client_that_never_says_anything_is_disconnected() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""first_message_s": 1"#)?).await?;
    let mut silent = cluster.client().await?;
    let mut half = cluster.client().await?;
    half.send_bytes(b"\0").await?;
    let mut talking = cluster.client().await?;
    talking.call(1, b"x").await?;
    silent.until_closed().await?;
    half.until_closed().await?;
    talking.call(1, b"still here").await?;
    cluster.until_logged("no first message: limits.first_message_s").await?;
    cluster.stop().await
}

#[tokio::test]
async fn an_idle_client_is_disconnected() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""idle_s": 1"#)?).await?;
    let mut idle = cluster.client().await?;
    idle.call(1, b"x").await?;
    idle.until_closed().await?;
    cluster.until_logged("idle: limits.idle_s").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_at_its_bound() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""outbox_bytes_max": 1000000"#)?).await?;
    let mut slow = cluster.client().await?;
    slow.send(8, b"1000000").await?;
    cluster.until_logged("slow reader: limits.outbox_bytes_max").await?;
    cluster.client().await?.call(1, b"others are served").await?;
    cluster.stop().await
}

#[tokio::test]
async fn clients_that_stop_reading_cost_their_bound_and_the_others_miss_nothing() -> Result<()> {
    let size = slow::Size {
        connections: 40,
        slow: 8,
        push_every_ms: 20,
        push_bytes: 4096,
        ask_every_ms: 100,
        rounds: 2,
        window_s: 2,
        slow_s: 20,
        outbox_bytes_max: 256 << 10,
        any_time: true,
    };
    slow::run(&size, &|line| println!("{line}")).await
}

#[tokio::test]
async fn connections_that_send_one_byte_are_closed_by_timeout_and_cost_little() -> Result<()> {
    let size = halfopen::Size { connections: 500, first_message_s: 2 };
    halfopen::run(&size, &|line| println!("{line}")).await
}

#[tokio::test]
async fn too_many_connections_from_one_address_are_refused() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""connections_per_address": 2"#)?).await?;
    let (mut first, mut second) = (cluster.client().await?, cluster.client().await?);
    first.call(1, b"x").await?;
    second.call(1, b"x").await?;
    cluster.client().await?.until_closed().await?;
    drop(first);
    second.call(1, b"x").await?;
    tests::wait::until("a place is free again", async || {
        let called = async { cluster.client().await?.call(1, b"x").await };
        called.await.map(drop).map_err(|e| format!("{e:#}"))
    })
    .await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_client_above_its_rate_is_slowed_down_and_loses_nothing() -> Result<()> {
    let cluster = Cluster::processes(Fixture::solo(r#""requests_per_s": 100"#)?).await?;
    let mut client = cluster.client().await?;
    let start = Instant::now();
    for n in 0..150u32 {
        client.send(1, &n.to_be_bytes()).await?;
    }
    for n in 0..150u32 {
        assert_eq!(client.receive().await?, (1, n.to_be_bytes().to_vec().into()));
    }
    let took = start.elapsed();
    assert!(took >= Duration::from_millis(450), "100 at once, 50 at 100 a second: {took:?}");
    cluster.stop().await
}
