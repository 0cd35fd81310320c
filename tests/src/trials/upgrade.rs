//! A cluster of an older release becomes one of this release under load, its nodes and its master: nobody notices.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Args, ValueEnum};
use tokio::time::{Instant, sleep};

use super::outcome::{CALL_TIMEOUT, both_ways, judge};
use super::reload::{pids, reload_all};
use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::counted::{self, Plan};
use crate::fixtures::Fixture;
use crate::process;
use crate::{bins, ledger};

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// Where the older release's programs are: `master`, and `testnode` or an `appmain` that has the apps of the tests
    #[arg(long, value_name = "DIR")]
    pub from: PathBuf,
    /// How long each cluster runs beside the time that its steps take
    #[arg(long, default_value_t = 20)]
    pub seconds: u64,
    /// Client connections in closed loop whose requests the nodes count
    #[arg(long, default_value_t = 200)]
    pub connections: u32,
    /// And connections with several requests at a time, whose order and outcomes are booked
    #[arg(long, default_value_t = 50)]
    pub booked: u32,
    /// HTTP keep-alive connections in closed loop to the webports of net and gate, to each
    #[arg(long, default_value_t = 5)]
    pub http: u32,
    /// Only this order [default: one cluster for each]
    #[arg(long)]
    pub order: Option<Order>,
}

/// What is upgraded first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// The old master starts new nodes, and leaves them to the new one.
    NodesFirst,
    /// The new master adopts old nodes, and replaces them.
    MasterFirst,
}

/// What is done to the cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// The new node program is installed, and `/reload`.
    Nodes,
    /// The new master is installed, `/detach`, and it is started.
    Master,
    /// `/reload`: what was adopted or handed over by the old release is handed over once more.
    Again,
}

impl Order {
    fn steps(self) -> [Step; 3] {
        match self {
            Self::NodesFirst => [Step::Nodes, Step::Master, Step::Again],
            Self::MasterFirst => [Step::Master, Step::Nodes, Step::Again],
        }
    }
}

/// The two programs of a release.
struct Release {
    master: PathBuf,
    node: PathBuf,
}

impl Release {
    fn in_folder(folder: &Path) -> Result<Self> {
        let master = folder.join("master");
        ensure!(master.is_file(), "no master in {}", folder.display());
        let node =
            ["testnode", "appmain"].map(|name| folder.join(name)).into_iter().find(|path| path.is_file());
        let node = node.with_context(|| format!("no program for nodes in {}", folder.display()))?;
        Ok(Self { master: master.canonicalize()?, node: node.canonicalize()? })
    }
}

/// Upgrades one cluster in each order.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    // The same number again in a successor, and some.
    process::raise_descriptors(u64::from(size.connections + size.booked) + 200)?;
    let (old, new) = (Release::in_folder(&size.from)?, Release::in_folder(&bins::folder()?)?);
    let orders = [Order::NodesFirst, Order::MasterFirst];
    for order in orders.into_iter().filter(|order| size.order.is_none_or(|only| only == *order)) {
        say(&format!("{order:?}: from {} to {}", old.node.display(), new.node.display()));
        let fixture = Fixture::replaced()?.with_worlds();
        let mut cluster = Cluster::installed(fixture, &old.master, &old.node).await?;
        let result = try_it(&mut cluster, size, order, &new, say).await;
        with_log(cluster, result)?.stop().await?;
    }
    Ok(())
}

async fn try_it(cluster: &mut Cluster, size: &Size, order: Order, new: &Release, say: Say<'_>) -> Result<()> {
    let plan = Plan { http: size.http, ..Plan::busy(size.connections, 5) };
    let counted = counted::Load::start(cluster, &plan).await?;
    let booked = both_ways(size.booked, 4, 500.0);
    let booked = ledger::Load::start(cluster, &booked).await?;
    let pause = Duration::from_secs(size.seconds) / 4;
    let begin = Instant::now();
    let mut verdict = Verdict::default();
    for step in order.steps() {
        sleep(pause).await;
        counted.next_round();
        let done = do_it(cluster, step, new).await;
        say(&format!("{:>6.1} s: {step:?}: {done:?}", begin.elapsed().as_secs_f64()));
        verdict.add(done.err().map(|e| format!("{step:?}: {e:#}")));
    }
    sleep(pause).await;
    let account = counted.stop().await?;
    let ledger = booked.stop().await?;
    say(&account.to_string());
    say(&ledger.to_string());
    verdict.add(account.faults());
    verdict.hold(account.closed == 0, format_args!("{} connections were closed", account.closed));
    verdict.hold(account.answers > 0, "nothing was answered");
    verdict.hold(ledger.errors.is_empty(), format_args!("no request fails: {:?}", ledger.errors));
    verdict.add(judge(&ledger, cluster, CALL_TIMEOUT)?.faults);
    verdict.end(say)
}

/// Does a step, and makes sure of whose programs run.
async fn do_it(cluster: &mut Cluster, step: Step, new: &Release) -> Result<()> {
    match step {
        Step::Nodes => {
            cluster.install_node(&new.node)?;
            reload_all(cluster).await?;
            all_run(cluster, &new.node).await
        }
        Step::Master => {
            let before = pids(cluster).await?;
            cluster.install_master(&new.master)?;
            let answer = cluster.admin("POST", "/detach").await?;
            ensure!(answer.status == 202, "/detach: {answer:?}");
            let code = cluster.exit_code().await?;
            ensure!(code == Some(0), "the old master left with exit code {code:?}");
            cluster.start_master_again().await?;
            for name in before.keys() {
                cluster.until(name, "adopted", |node| node["state"] == "ready").await?;
            }
            let after = pids(cluster).await?;
            ensure!(before == after, "other processes: {before:?}, {after:?}");
            let master = program_of(cluster.master_pid()?.into())?;
            ensure!(master == new.master, "the master is {}", master.display());
            Ok(())
        }
        Step::Again => {
            reload_all(cluster).await?;
            all_run(cluster, &new.node).await
        }
    }
}

/// Every node is a process of that program.
async fn all_run(cluster: &Cluster, program: &Path) -> Result<()> {
    let pids = pids(cluster).await?;
    let programs = pids.values().map(|&pid| program_of(pid)).collect::<Result<BTreeSet<_>>>()?;
    ensure!(programs.iter().eq([program]), "nodes are {programs:?}, not {}", program.display());
    Ok(())
}

fn program_of(pid: i64) -> Result<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/exe")).with_context(|| format!("the program of process {pid}"))
}
