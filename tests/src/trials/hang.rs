//! A node that hangs (SIGSTOP) keeps its TCP connection: the heartbeat notices, and nothing of what it
//! slept through happens afterwards.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use nix::sys::signal::Signal;
use tokio::time::sleep;

use super::outcome::{both_ways, judge};
use super::{Say, with_log};
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::ledger::Load;
use crate::wait;

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Client connections
    #[arg(long, default_value_t = 200)]
    pub connections: u32,
    /// Requests of one connection without an answer
    #[arg(long, default_value_t = 8)]
    pub deep: usize,
    /// Requests of all connections in a second
    #[arg(long, default_value_t = 2000.0)]
    pub per_s: f64,
    /// The node that is stopped
    #[arg(long, default_value = "game.1")]
    pub node: String,
    /// For how long
    #[arg(long, default_value_t = 10_000)]
    pub stop_ms: u64,
    /// The deadline of a request
    #[arg(long, default_value_t = 5000)]
    pub call_timeout_ms: u64,
}

/// Three heartbeats of 500 ms, and one more until that is looked at.
const NOTICED: Duration = Duration::from_secs(2);
/// A busy machine.
const SLACK: Duration = Duration::from_millis(700);

/// Keeps the books of a load while a node is stopped and goes on.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    // It shall go on by itself: the master kills what hangs for longer.
    let hang_s = size.stop_ms / 1000 + 20;
    let limits = format!("\"limits\": {{ \"hang_s\": {hang_s}, ");
    let fixture = Fixture::trial_with(size.call_timeout_ms)?.replace("\"limits\": { ", &limits);
    let cluster = Cluster::processes(fixture).await?;
    let result = try_it(&cluster, size, say).await;
    with_log(cluster, result)?.stop().await
}

async fn try_it(cluster: &Cluster, size: &Size, say: Say<'_>) -> Result<()> {
    let plan = both_ways(size.connections, size.deep, size.per_s);
    let load = Load::start(cluster, &plan).await?;
    until_served_by(cluster, &["game.1", "game.2"]).await?;
    // So that every session has its node.
    sleep(Duration::from_secs_f64(2.0 * f64::from(size.connections) / size.per_s)).await;
    let pid = cluster.signal(&size.node, Signal::SIGSTOP).await?;
    say(&format!("SIGSTOP of {} (process {pid})", size.node));
    sleep(Duration::from_millis(size.stop_ms)).await;
    let same = cluster.signal(&size.node, Signal::SIGCONT).await?;
    say("SIGCONT");
    cluster.until_linked("game.1", "gate").await?;
    until_served_by(cluster, &["game.1", "game.2"]).await?;
    say("both game nodes serve");
    let ledger = load.stop().await?;
    say(&ledger.to_string());
    let mut verdict = judge(&ledger, cluster, Duration::from_millis(size.call_timeout_ms))?;
    let limit = NOTICED.min(Duration::from_millis(size.call_timeout_ms)) + SLACK;
    let slowest = ledger.slowest_error_of_turn;
    verdict.hold(slowest < limit, format_args!("an error came only after {slowest:?}, not within {limit:?}"));
    verdict.hold(!ledger.errors.is_empty(), "no request met the stopped node: the trial has shown nothing");
    verdict.hold(same == pid, format_args!("it was process {pid} and is {same}: it was replaced"));
    verdict.end(say)
}

/// Each call of a stateless command goes to the node with the least load.
async fn until_served_by(cluster: &Cluster, nodes: &[&str]) -> Result<()> {
    let wanted: BTreeSet<String> = nodes.iter().map(|&name| name.to_owned()).collect();
    let mut client = cluster.client().await?;
    let mut seen = BTreeSet::new();
    wait::until(&format!("{nodes:?} answer"), async || {
        match client.call(1500, b"").await {
            Ok(name) => drop(seen.insert(String::from_utf8_lossy(&name).into_owned())),
            Err(error) => return Err(format!("{error:#}")),
        }
        if seen == wanted { Ok(()) } else { Err(format!("so far {seen:?}")) }
    })
    .await
}
