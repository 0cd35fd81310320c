//! The master is killed under load: nobody notices, and a new one takes over what runs.

use std::time::Duration;

use anyhow::Result;
use clap::Args;
use tokio::time::{Instant, sleep};

use super::reload::{pids, reload_all};
use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::counted::{Load, Plan};
use crate::fixtures::Fixture;

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Client connections in closed loop
    #[arg(long, default_value_t = 500)]
    pub connections: u32,
    /// What each waits after an answer
    #[arg(long, default_value_t = 0)]
    pub pause_ms: u64,
    /// HTTP keep-alive connections in closed loop to the webports of net and gate, to each
    #[arg(long, default_value_t = 10)]
    pub http: u32,
    /// How long there is no master
    #[arg(long, default_value_t = 3000)]
    pub without_ms: u64,
    /// These entries of the config in one process
    #[arg(long, value_delimiter = ',')]
    pub together: Vec<String>,
    /// How often
    #[arg(long, default_value_t = 3)]
    pub times: u32,
}

/// Kills the master and starts another one, and then reloads and stops through that.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let together: Vec<&str> = size.together.iter().map(String::as_str).collect();
    let fixture = Fixture::replaced()?.with_worlds().together(&together);
    let mut cluster = Cluster::processes(fixture).await?;
    let result = try_it(&mut cluster, size, say).await;
    with_log(cluster, result)?.stop().await
}

async fn try_it(cluster: &mut Cluster, size: &Size, say: Say<'_>) -> Result<()> {
    let plan = Plan { http: size.http, ..Plan::busy(size.connections, size.pause_ms) };
    let load = Load::start(cluster, &plan).await?;
    let mut verdict = Verdict::default();
    for _ in 0..size.times {
        load.next_round();
        let before = pids(cluster).await?;
        cluster.kill_master().await?;
        let begin = Instant::now();
        sleep(Duration::from_millis(size.without_ms)).await;
        cluster.start_master_again().await?;
        for name in before.keys() {
            cluster.until(name, "adopted", |node| node["state"] == "ready").await?;
        }
        let after = pids(cluster).await?;
        say(&format!("no master for {:?}; before {before:?}, adopted {after:?}", begin.elapsed()));
        verdict.hold(before == after, format_args!("other processes: {before:?}, {after:?}"));
    }
    load.next_round();
    verdict.add(reload_all(cluster).await.err().map(|e| format!("reload by the new master: {e:#}")));
    let account = load.stop().await?;
    say(&account.to_string());
    verdict.add(account.faults());
    verdict.hold(account.closed == 0, format_args!("{} connections were closed", account.closed));
    verdict.hold(account.answers > 0, "nothing was answered");
    verdict.end(say)
}
