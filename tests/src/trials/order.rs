//! Numbered requests, pipelined, to handlers that sleep: each session's run in order and one at a time.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::{MissedTickBehavior, interval};

use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::ledger::{Load, Plan, Way};

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Client connections
    #[arg(long, default_value_t = 200)]
    pub connections: u32,
    /// Requests of each
    #[arg(long, default_value_t = 2000)]
    pub requests: u32,
    /// Requests of one connection without an answer
    #[arg(long, default_value_t = 32)]
    pub deep: usize,
    /// In the second round, a game node that no session uses is killed this often
    #[arg(long, default_value_t = 1000)]
    pub kill_every_ms: u64,
}

/// Runs the requests twice: undisturbed, and while an unrelated game node is killed again and again.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let cluster = Cluster::processes(Fixture::trial_with(5000)?.with_spare()).await?;
    let result = async {
        say("all nodes stay");
        round(&cluster, size, false, say).await?;
        say(&format!("an unrelated game node is killed every {} ms", size.kill_every_ms));
        round(&cluster, size, true, say).await
    };
    let result = result.await;
    with_log(cluster, result)?.stop().await
}

async fn round(cluster: &Cluster, size: &Size, kill: bool, say: Say<'_>) -> Result<()> {
    let plan = Plan {
        ways: vec![Way { command: 1000, handled_by_net: false }],
        connections: size.connections,
        deep: size.deep,
        requests: Some(size.requests),
        per_s: None,
        unique: false,
        sleep_ms_max: 3,
    };
    let load = Load::start(cluster, &plan).await?;
    let mut kills = 0;
    let ledger = tokio::select! {
        ledger = load.finish() => ledger?,
        failed = kill_again_and_again(cluster, Duration::from_millis(size.kill_every_ms), &mut kills), if kill => {
            return failed;
        }
    };
    say(&ledger.to_string());
    let mut verdict = Verdict::default();
    verdict.add(ledger.faults());
    verdict.hold(ledger.errors.is_empty(), format_args!("no request fails: {:?}", ledger.errors));
    let several = ledger.nodes.iter().filter(|nodes| nodes.len() != 1).count();
    verdict.hold(several == 0, format_args!("{several} sessions were handled by other than one node"));
    let used: BTreeSet<_> = ledger.nodes.iter().flatten().collect();
    verdict.hold(used.len() == 2, format_args!("both game nodes are used: {used:?}"));
    if kill {
        say(&format!("{kills} kills"));
        verdict.hold(kills > 0, "the load ended before the first kill");
    }
    verdict.end(say)
}

async fn kill_again_and_again(cluster: &Cluster, every: Duration, kills: &mut u32) -> Result<()> {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        cluster.until("spare", "ready to be killed", |node| node["state"] == "ready").await?;
        cluster.kill_hard("spare").await?;
        *kills += 1;
    }
}
