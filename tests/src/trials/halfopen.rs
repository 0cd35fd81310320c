//! Connections that send one byte each and wait: closed by timeout, and memory stays.

use std::time::Duration;

use anyhow::{Result, ensure};
use clap::Args;
use tokio::time::Instant;

use super::slow::mib;
use super::{Say, Verdict, with_log};
use crate::client::Client;
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::wait;

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Connections that send one byte each
    #[arg(long, default_value_t = 1000)]
    pub connections: u32,
    /// limits.first_message_s
    #[arg(long, default_value_t = 10)]
    pub first_message_s: u64,
}

/// What the connections of this trial may cost each at most, `accept` to close, with the log's lines.
const BYTES_EACH_MAX: u64 = 8 * 1024;
/// Timers of a second, and a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// Opens the connections, sends one byte on each and waits.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let limits = format!(r#""first_message_s": {}"#, size.first_message_s);
    let cluster = Cluster::processes(Fixture::solo(&limits)?).await?;
    let result = try_it(&cluster, size, say).await;
    with_log(cluster, result)?.stop().await
}

async fn try_it(cluster: &Cluster, size: &Size, say: Say<'_>) -> Result<()> {
    let mut player = cluster.client().await?;
    player.call(1, b"before").await?;
    let before = cluster.memory("net").await?;
    let begin = Instant::now();
    let mut connections = Vec::new();
    for _ in 0..size.connections {
        let mut client = Client::connect(cluster.at("net")).await?;
        client.send_bytes(b"\0").await?;
        connections.push(client);
    }
    let opened = begin.elapsed();
    let all = u64::from(size.connections) + 1;
    cluster.until("net", "has every session", |node| node["sessions"] == all).await?;
    let open = cluster.memory("net").await?;
    let timeout = Duration::from_secs(size.first_message_s);
    say(&format!("{} connections sent one byte each within {opened:?}", size.connections));
    // The harness is patient for a limited time only.
    ensure!(timeout + SLACK < wait::PATIENCE, "--first-message-s is to be less");
    cluster.until("net", "has closed them", |node| node["sessions"] == 1).await?;
    let took = begin.elapsed();
    let after = cluster.memory("net").await?;
    for client in &mut connections {
        client.until_closed().await?;
    }
    player.call(1, b"after").await?;
    say(&format!(
        "closed after {took:?}; memory of net: {} before, {} open, {} after, {} at most",
        mib(before.now),
        mib(open.now),
        mib(after.now),
        mib(after.peak)
    ));
    let mut verdict = Verdict::default();
    let (least, most) = (timeout, timeout + opened + SLACK);
    verdict.hold(
        (least..=most).contains(&took),
        format_args!("closed after {took:?}, not {least:?} to {most:?}"),
    );
    let bound = before.now + u64::from(size.connections) * BYTES_EACH_MAX;
    verdict
        .hold(after.peak <= bound, format_args!("memory rose to {}, above {}", mib(after.peak), mib(bound)));
    verdict.end(say)
}
