//! `/reload` of all nodes again and again under load: nobody notices.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Args;
use tokio::time::Instant;

use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::counted::{Load, Plan};
use crate::fixtures::Fixture;
use crate::process;

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Client connections in closed loop
    #[arg(long, default_value_t = 500)]
    pub connections: u32,
    /// What each waits after an answer
    #[arg(long, default_value_t = 0)]
    pub pause_ms: u64,
    /// The rest of it
    #[command(flatten)]
    pub more: More,
}

/// How large the trial with many idle clients is.
#[derive(Debug, Clone, Args)]
pub struct IdleSize {
    /// Client connections that ask from time to time
    #[arg(long, default_value_t = 5000)]
    pub connections: u32,
    /// How often each of them asks
    #[arg(long, default_value_t = 10_000)]
    pub pause_ms: u64,
    /// Client connections beside them that ask every 5 ms
    #[arg(long, default_value_t = 50)]
    pub busy: u32,
    /// The rest of it
    #[command(flatten)]
    pub more: More,
}

/// What both have.
#[derive(Debug, Clone, Default, Args)]
pub struct More {
    /// HTTP keep-alive connections in closed loop to the webports of net and gate, to each
    #[arg(long, default_value_t = 10)]
    pub http: u32,
    /// How often all nodes are reloaded
    #[arg(long, default_value_t = 10)]
    pub reloads: u32,
    /// net and gate have a state to hand over, too; without, both processes serve for a moment
    #[arg(long)]
    pub worlds: bool,
    /// Links and control connections are encrypted
    #[arg(long)]
    pub encrypt: bool,
    /// These entries of the config in one process
    #[arg(long, value_delimiter = ',')]
    pub together: Vec<String>,
    /// The longest wait of a client in a reload, 99th percentile of all clients and reloads
    #[arg(long, default_value_t = 200)]
    pub stall_ms: u64,
    /// Do not judge how long clients wait: on a busy machine it says nothing
    #[arg(long)]
    pub any_time: bool,
}

/// Reloads all nodes again and again while every client is in closed loop.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let plan = Plan {
        worlds: size.more.worlds,
        http: size.more.http,
        ..Plan::busy(size.connections, size.pause_ms)
    };
    reload(&plan, &size.more, say).await
}

/// Reloads all nodes again and again while most clients are idle.
///
/// # Errors
/// The promise is not kept.
pub async fn run_idle(size: &IdleSize, say: Say<'_>) -> Result<()> {
    let plan = Plan {
        busy: size.busy,
        pause: Duration::from_millis(5),
        idle: size.connections,
        idle_pause: Duration::from_millis(size.pause_ms),
        worlds: size.more.worlds,
        http: size.more.http,
    };
    reload(&plan, &size.more, say).await
}

async fn reload(plan: &Plan, more: &More, say: Say<'_>) -> Result<()> {
    // The same number again in the successor, and some.
    process::raise_descriptors(u64::from(plan.busy + plan.idle) + 200)?;
    let fixture = Fixture::replaced()?;
    let fixture = if plan.worlds { fixture.with_worlds() } else { fixture };
    let fixture = if more.encrypt { fixture.encrypted() } else { fixture };
    let together: Vec<&str> = more.together.iter().map(String::as_str).collect();
    let fixture = fixture.together(&together);
    let cluster = Cluster::processes(fixture).await?;
    let result = try_it(&cluster, plan, more, say).await;
    with_log(cluster, result)?.stop().await
}

async fn try_it(cluster: &Cluster, plan: &Plan, more: &More, say: Say<'_>) -> Result<()> {
    let (reloads, limit) = (more.reloads, Duration::from_millis(more.stall_ms));
    let load = Load::start(cluster, plan).await?;
    let begin = Instant::now();
    let mut verdict = Verdict::default();
    for n in 1..=reloads {
        load.next_round();
        verdict.add(reload_all(cluster).await.err().map(|e| format!("reload {n}: {e:#}")));
        say(&format!("{:>6.1} s: reload {n} of {reloads}", begin.elapsed().as_secs_f64()));
    }
    load.next_round();
    let account = load.stop().await?;
    say(&account.to_string());
    verdict.add(account.faults());
    verdict.hold(account.closed == 0, format_args!("{} connections were closed", account.closed));
    verdict.hold(account.answers > 0, "nothing was answered");
    let waited = cluster.log().lines().filter(|line| line.contains("before these have turned")).count();
    verdict.hold(waited == 0, format_args!("{waited} times clients waited for a node that did not turn"));
    let (p99, longest) = account.stall(1);
    say(&format!("longest wait of each client in each reload: p99 {p99:?}, at most {longest:?}"));
    let in_time = more.any_time || p99 < limit;
    verdict.hold(in_time, format_args!("clients wait for {p99:?} (p99), not less than {limit:?}"));
    verdict.end(say)
}

/// `/reload`, and a new process for every node.
pub(super) async fn reload_all(cluster: &Cluster) -> Result<()> {
    let before = pids(cluster).await?;
    let answer = cluster.admin("POST", "/reload").await?;
    ensure!(answer.status < 300, "/reload: {}", answer.body);
    let after = pids(cluster).await?;
    ensure!(before.keys().eq(after.keys()), "other nodes: {before:?}, {after:?}");
    let same: Vec<_> = before.iter().filter(|(name, pid)| after.get(*name) == Some(pid)).collect();
    ensure!(same.is_empty(), "not replaced: {same:?}; {}", answer.body);
    Ok(())
}

/// The process of each node, as `/status` has it.
pub(super) async fn pids(cluster: &Cluster) -> Result<BTreeMap<String, i64>> {
    let status = cluster.status().await?;
    let nodes = status["nodes"].as_array().context("no nodes")?;
    let each = nodes.iter().map(|node| {
        let name = node["name"].as_str().context("no name")?;
        let pid = node["pid"].as_i64().with_context(|| format!("no process: {node}"))?;
        Ok((name.to_owned(), pid))
    });
    each.collect()
}
