//! Every request has one outcome, whatever is killed.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, sleep_until};

use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::ledger::{Ledger, Load, Plan, Way};

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Client connections: half of them go through handlers on net, gate and game, the others are forwarded
    #[arg(long, default_value_t = 200)]
    pub connections: u32,
    /// Requests of one connection without an answer
    #[arg(long, default_value_t = 1)]
    pub deep: usize,
    /// Requests of all connections in a second
    #[arg(long, default_value_t = 2000.0)]
    pub per_s: f64,
    /// How many nodes are killed, game nodes and the gate in turn
    #[arg(long, default_value_t = 20)]
    pub kills: u32,
    /// How often
    #[arg(long, default_value_t = 3000)]
    pub kill_every_ms: u64,
}

pub(super) const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// An error that says that a node died must not wait for a deadline.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Keeps the books of a load while game nodes and the gate are killed.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    // Parking is shorter than the time in which an error must be there.
    let fixture = Fixture::trial_with(CALL_TIMEOUT.as_millis() as u64)?
        .replace(r#""limits": { "#, r#""limits": { "park_ms": 500, "#);
    let cluster = Cluster::processes(fixture).await?;
    let result = try_it(&cluster, size, say).await;
    with_log(cluster, result)?.stop().await
}

async fn try_it(cluster: &Cluster, size: &Size, say: Say<'_>) -> Result<()> {
    let plan = both_ways(size.connections, size.deep, size.per_s);
    let load = Load::start(cluster, &plan).await?;
    let begin = Instant::now();
    for (n, name) in (1..=size.kills).zip(["game.1", "gate", "game.2", "gate"].into_iter().cycle()) {
        sleep_until(begin + Duration::from_millis(size.kill_every_ms) * n).await;
        cluster.until(name, "ready to be killed", |node| node["state"] == "ready").await?;
        let pid = cluster.kill_hard(name).await?;
        say(&format!("{:>6.1} s: kill -9 of {name} (process {pid})", begin.elapsed().as_secs_f64()));
    }
    for name in ["game.1", "game.2"] {
        cluster.until_linked(name, "gate").await?;
    }
    let ledger = load.stop().await?;
    say(&ledger.to_string());
    let mut verdict = judge(&ledger, cluster, CALL_TIMEOUT)?;
    let slowest = ledger.slowest_error;
    verdict.hold(slowest < AT_ONCE, format_args!("an error came only after {slowest:?}"));
    let errors = ledger.errors.values().sum::<u64>();
    verdict.hold(errors > 0, "no request met a dead node: the trial has shown nothing");
    verdict.end(say)
}

/// A load over the forwarded path and the handler path, until it is stopped; what runs takes a moment.
pub(super) fn both_ways(connections: u32, deep: usize, per_s: f64) -> Plan {
    let ways = vec![Way { command: 1004, handled_by_net: false }, Way { command: 14, handled_by_net: true }];
    Plan { ways, connections, deep, requests: None, per_s: Some(per_s), unique: true, sleep_ms_max: 3 }
}

/// What must hold whatever happens to the nodes.
pub(super) fn judge(ledger: &Ledger, cluster: &Cluster, deadline: Duration) -> Result<Verdict> {
    // Clocks and schedulers of a busy machine.
    const SLACK: Duration = Duration::from_millis(200);
    let mut verdict = Verdict::default();
    verdict.add(ledger.faults());
    verdict.add(ledger.faults_of_notes(&cluster.ran(), deadline + SLACK)?);
    verdict.hold(ledger.replies() > 0, "nothing was answered well");
    Ok(verdict)
}
