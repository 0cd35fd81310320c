//! Slow and hostile clients cost a fixed amount and hurt nobody else.

use std::time::Duration;

use anyhow::Result;
use tests::cluster::Cluster;
use tests::fixtures::Fixture;
use tokio::time::Instant;

fn with_limits(limits: &str) -> Result<Fixture> {
    let text = r#"{
  "master": { "rootport": @master, "webport": @admin },
  "limits": { LIMITS },
  "servers": { "net": { "netport": @net, "app": "trialsolo" } }
}"#;
    Fixture::new(&text.replace("LIMITS", limits))
}

#[tokio::test]
async fn a_client_that_never_says_anything_is_disconnected() -> Result<()> {
    let cluster = Cluster::processes(with_limits(r#""first_message_s": 1"#)?).await?;
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
    let cluster = Cluster::processes(with_limits(r#""idle_s": 1"#)?).await?;
    let mut idle = cluster.client().await?;
    idle.call(1, b"x").await?;
    idle.until_closed().await?;
    cluster.until_logged("idle: limits.idle_s").await?;
    cluster.stop().await
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected_at_its_bound() -> Result<()> {
    let cluster = Cluster::processes(with_limits(r#""outbox_bytes_max": 1000000"#)?).await?;
    let mut slow = cluster.client().await?;
    slow.send(8, b"1000000").await?;
    cluster.until_logged("slow reader: limits.outbox_bytes_max").await?;
    cluster.client().await?.call(1, b"others are served").await?;
    cluster.stop().await
}

#[tokio::test]
async fn too_many_connections_from_one_address_are_refused() -> Result<()> {
    let cluster = Cluster::processes(with_limits(r#""connections_per_address": 2"#)?).await?;
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
    let cluster = Cluster::processes(with_limits(r#""requests_per_s": 100"#)?).await?;
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
