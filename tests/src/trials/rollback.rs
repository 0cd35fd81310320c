//! New binaries that fail, each in its own way: the old process goes on, and `/reload` says why.

use anyhow::Result;
use clap::Args;
use tokio::time::Instant;

use super::reload::{pids, reload_all};
use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::counted::{Account, Load, Plan};
use crate::fixtures::Fixture;

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Client connections in closed loop
    #[arg(long, default_value_t = 200)]
    pub connections: u32,
    /// What each waits after an answer
    #[arg(long, default_value_t = 5)]
    pub pause_ms: u64,
    /// HTTP keep-alive connections in closed loop to the webports of net and gate, to each
    #[arg(long, default_value_t = 5)]
    pub http: u32,
    /// Only these faults, by their first word [default: all of them]
    #[arg(long)]
    pub only: Vec<String>,
}

/// What a new binary does wrong (`tests/apps/src/trial/misbehaves.rs`), and what the answer must say of it. Nothing
/// is lost: it never served.
const FAULTS: [(&str, &str); 7] = [
    ("panics all", ""),
    ("aborts game.1", "game.1"),
    ("refuses game.2", "this binary does not like its database"),
    ("never-ready game.1", "game.1"),
    ("cannot-thaw game.2", "this binary does not know that world"),
    ("cannot-thaw gate", "this binary does not know that world"),
    ("cannot-thaw net", "this binary does not know that world"),
];
/// The same of one that has served: what it was doing when it died, and what it has counted, is lost with it.
const LATE_FAULTS: [(&str, &str); 2] =
    [("dies-soon game.1", "the old process goes on"), ("dies-soon gate", "the old process goes on")];

/// Tries each faulty binary under load, and then a good one.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let cluster = Cluster::processes(Fixture::replaced()?.with_worlds()).await?;
    let result = try_it(&cluster, size, say).await;
    with_log(cluster, result)?.stop().await
}

async fn try_it(cluster: &Cluster, size: &Size, say: Say<'_>) -> Result<()> {
    let plan = Plan { http: size.http, ..Plan::busy(size.connections, size.pause_ms) };
    let mut verdict = Verdict::default();
    let account = try_all(cluster, &FAULTS, &plan, size, &mut verdict, say).await?;
    verdict.add(account.faults());
    verdict.hold(account.closed == 0, format_args!("{} connections were closed", account.closed));
    // HTTP connections cannot come back from a process that has died.
    let plan = Plan { http: 0, ..plan };
    let account = try_all(cluster, &LATE_FAULTS, &plan, size, &mut verdict, say).await?;
    verdict.hold(account.closed == 0, format_args!("{} clients were closed", account.closed));
    verdict.end(say)
}

/// Tries each faulty binary, and then a good one.
async fn try_all(
    cluster: &Cluster,
    faults: &[(&str, &str)],
    plan: &Plan,
    size: &Size,
    verdict: &mut Verdict,
    say: Say<'_>,
) -> Result<Account> {
    let load = Load::start(cluster, plan).await?;
    let wanted =
        |how: &str| size.only.is_empty() || size.only.iter().any(|only| how.starts_with(only.as_str()));
    for (how, why) in faults.iter().filter(|(how, _)| wanted(how)) {
        load.next_round();
        verdict.add(rolled_back(cluster, how, why, say).await.err().map(|e| format!("{how}: {e:#}")));
    }
    load.next_round();
    verdict.add(reload_all(cluster).await.err().map(|e| format!("a good binary: {e:#}")));
    let account = load.stop().await?;
    say(&account.to_string());
    verdict.hold(account.answers > 0, "nothing was answered");
    Ok(account)
}

async fn rolled_back(cluster: &Cluster, how: &str, why: &str, say: Say<'_>) -> Result<()> {
    let before = pids(cluster).await?;
    cluster.misbehave(Some(how))?;
    let begin = Instant::now();
    let answer = cluster.admin("POST", "/reload").await;
    cluster.misbehave(None)?;
    let answer = answer?;
    let told = answer.body.split_whitespace().collect::<Vec<_>>().join(" ");
    say(&format!("{how}: {} after {:?}: {told}", answer.status, begin.elapsed()));
    let mut verdict = Verdict::default();
    verdict.hold(answer.status >= 400, format_args!("/reload says {}", answer.status));
    verdict.hold(told.contains(why), format_args!("the answer does not say `{why}`: {told}"));
    let after = pids(cluster).await?;
    let whom = how.split(' ').nth(1).unwrap_or_default();
    for (name, pid) in before.iter().filter(|(name, _)| whom == "all" || *name == whom) {
        let now = after.get(name);
        verdict.hold(now == Some(pid), format_args!("{name} was {pid} and is {now:?}"));
    }
    verdict.end(&|_| {})
}
