//! Garbage on every port as fast as it goes: the log stays small, its counts add up, and a warning in between is there.

use std::path::Path;

use anyhow::{Context, Result};
use clap::Args;

use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::logs::{nothing_acts, said, throw_garbage, without_the_apps};

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Connections to each port
    #[arg(long, default_value_t = 150_000)]
    pub connections: usize,
    /// From so many at once
    #[arg(long, default_value_t = 8)]
    pub at_once: usize,
    /// What each process may write, and all of them onto the terminal, in bytes
    #[arg(long, default_value_t = 1_000_000)]
    pub bytes: usize,
}

/// Throws the garbage, and reads the logs when the cluster has stopped.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let fixture = Fixture::trial()?
        .replace(r#""master": {"#, r#""master": { "log": "own.log","#)
        .replace(r#""app": "trialgate""#, r#""app": "trialgate", "log": "gate.log""#)
        .replace(r#""app": "trialnet""#, r#""app": "trialnet", "log": "net.log""#);
    let cluster = Cluster::processes(fixture).await?;
    let result = throw(&cluster, size, say).await;
    let cluster = with_log(cluster, result)?;
    let folder = cluster.stop_and_keep().await?.context("no folder")?;
    judge(folder.path(), size, say)
}

async fn throw(cluster: &Cluster, size: &Size, say: Say<'_>) -> Result<()> {
    cluster.until_answered(1).await?;
    for port in ["net", "gate", "master", "web", "admin"] {
        let (at, each) = (cluster.at(port), size.connections / size.at_once.max(1));
        let flood = (0..size.at_once).map(|_| tokio::spawn(throw_garbage(at, each)));
        let flood: Vec<_> = flood.collect();
        // In between.
        let mut client = cluster.client().await?;
        client.call_error(4, format!("while garbage comes to {port}").as_bytes()).await?;
        for thrown in flood {
            thrown.await??;
        }
        say(&format!("{} connections of garbage were thrown at {port}", each * size.at_once));
    }
    cluster.until_answered(1).await
}

fn judge(folder: &Path, size: &Size, say: Say<'_>) -> Result<()> {
    let mut verdict = Verdict::default();
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).context(name.to_owned());
    for name in ["own.log", "gate.log", "net.log", "master.log"] {
        let log = without_the_apps(&read(name)?);
        say(&format!("{name} has {} bytes", log.len()));
        verdict.hold(log.len() < size.bytes, format_args!("{name} has {} bytes", log.len()));
        verdict.add(nothing_acts(name, &log).err().map(|error| error.to_string()));
    }
    let net = read("net.log")?;
    for port in ["net", "gate", "master", "web", "admin"] {
        let warning = format!("handler fails: while garbage comes to {port}");
        verdict.hold(net.contains(&warning), format_args!("no `{warning}`"));
    }
    let thrown = (size.connections / size.at_once.max(1) * size.at_once) as u64;
    let (came, left) = (said(&net, "client connected")?, said(&net, "client logged out")?);
    let refused = said(&net, "client refused")?;
    say(&format!("net: {came} came, {left} left, {refused} were refused"));
    verdict.hold(came == left, format_args!("{came} came, and {left} left"));
    verdict
        .hold(came + refused >= thrown, format_args!("{came} came, and {refused} were refused, of {thrown}"));
    verdict.end(say)
}
