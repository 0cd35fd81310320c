//! Kills, stops and reloads at random over all nodes and the master, under load: no answer is missing or
//! doubled, and no client is closed but those of a killed net node.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use super::outcome::both_ways;
use super::slow::mib;
use super::{Say, Verdict, with_log};
use crate::cluster::Cluster;
use crate::fixtures::Fixture;
use crate::host::Host;
use crate::ledger::{Door, Load};
use crate::process::{self, Memory};
use crate::random::Random;
use crate::single::Single;
use crate::wait;

/// How large the trial is.
#[derive(Debug, Clone, Args)]
pub struct Size {
    /// For how long
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// What happens when is a function of this number alone
    #[arg(long, default_value_t = 1)]
    pub seed: u32,
    /// Client connections, spread over two net nodes: half of them go through handlers, the others are forwarded
    #[arg(long, default_value_t = 200)]
    pub connections: u32,
    /// Requests of one connection without an answer
    #[arg(long, default_value_t = 1)]
    pub deep: usize,
    /// Requests of all connections in a second
    #[arg(long, default_value_t = 1000.0)]
    pub per_s: f64,
    /// Links and control connections are encrypted
    #[arg(long)]
    pub encrypt: bool,
    /// The game nodes are on another host, which is a network namespace: needs root and iproute2
    #[arg(long)]
    pub two_hosts: bool,
    /// Only say what would happen
    #[arg(long)]
    pub plan: bool,
}

const NODES: [&str; 5] = ["gate", "net1", "net2", "game.1", "game.2"];
/// Those of them that are on the other host, where there are two.
const FAR: [&str; 2] = ["game.1", "game.2"];
/// A node that is stopped goes on before this is over, so that it is not killed for hanging.
const HANG_S: u64 = 10;
const STOP_MS_MAX: u64 = 4000;
/// Between two acts.
const PAUSE_MS: (u64, u64) = (500, 4000);
/// The last act is that long before the end, so that all can be whole again.
const QUIET: Duration = Duration::from_secs(5);
/// What memory and descriptors of a process of the cluster may have more of at the end.
const MORE_BYTES_MAX: u64 = 16 << 20;
const MORE_DESCRIPTORS_MAX: usize = 16;
/// Far above every deadline: stopped processes cannot keep theirs.
const ANY_DELAY: Duration = Duration::from_secs(60);

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Act {
    /// `kill -9` of a node.
    Kill(&'static str),
    /// SIGSTOP of a node, for so long.
    Stop(&'static str, Duration),
    /// `/reload`.
    Reload,
    /// `/nodes/NAME/reload`.
    ReloadNode(&'static str),
    /// `kill -9` of the master; a new one starts after so long.
    KillMaster(Duration),
    /// SIGSTOP of the master, for so long.
    StopMaster(Duration),
    /// The cable to the other host is out, for so long.
    Unplug(Duration),
}

/// What happens when, from the begin on. Of two hosts, nothing reloads the nodes of the other one: their cable is unplugged
/// then.
fn schedule(seed: u32, length: Duration, two_hosts: bool) -> Vec<(Duration, Act)> {
    let mut random = Random::new(seed.into());
    let mut ms = |least: u64, most: u64| Duration::from_millis(least + random.below(most - least));
    let (mut at, mut acts) = (Duration::from_secs(2), Vec::new());
    while at + QUIET < length {
        let node = NODES[ms(0, NODES.len() as u64).as_millis() as usize];
        let act = match ms(0, 100).as_millis() {
            0..30 => Act::Kill(node),
            30..55 => Act::Stop(node, ms(100, STOP_MS_MAX)),
            55..70 => Act::Reload,
            70..80 if two_hosts && FAR.contains(&node) => Act::Unplug(ms(100, STOP_MS_MAX)),
            70..80 => Act::ReloadNode(node),
            80..90 => Act::KillMaster(ms(100, 3000)),
            _ => Act::StopMaster(ms(100, STOP_MS_MAX)),
        };
        acts.push((at, act));
        at += ms(PAUSE_MS.0, PAUSE_MS.1);
    }
    acts
}

/// Lets it happen.
///
/// # Errors
/// The promise is not kept.
pub async fn run(size: &Size, say: Say<'_>) -> Result<()> {
    let acts = schedule(size.seed, Duration::from_secs(size.seconds), size.two_hosts);
    if size.plan {
        acts.iter().for_each(|(at, act)| say(&format!("{:>6.1} s: {act:?}", at.as_secs_f64())));
        return Ok(());
    }
    let fixture = Fixture::chaos(HANG_S)?;
    let fixture = if size.encrypt { fixture.encrypted() } else { fixture };
    let (fixture, far) = match size.two_hosts {
        true => {
            let host = Host::new()?;
            (fixture.with_games_at(&host), Some(host))
        }
        false => (fixture, None),
    };
    let cluster = Cluster::processes(fixture).await?;
    let far = far.map(|host| Far::start(host, &cluster)).transpose()?;
    let mut chaos = Chaos::new(cluster, far);
    let result = chaos.run(size, acts, say).await;
    chaos.go_on_all();
    let cluster = with_log(chaos.cluster, result)?;
    match chaos.far {
        Some(far) => cluster.stop_with(far.singles).await,
        None => cluster.stop().await,
    }
}

/// The other host, and what runs there.
struct Far {
    host: Host,
    singles: Vec<Single>,
    /// When its cable is plugged in again.
    plugged_at: Option<Instant>,
}

impl Far {
    fn start(host: Host, cluster: &Cluster) -> Result<Self> {
        let singles = FAR.iter().map(|node| host.single(node, cluster)).collect::<Result<_>>()?;
        Ok(Self { host, singles, plugged_at: None })
    }
}

struct Chaos {
    cluster: Cluster,
    doors: BTreeMap<&'static str, Door>,
    /// Stopped processes, and when they go on.
    stopped: Vec<(Instant, i32)>,
    /// When a killed master is followed by another one.
    master_at: Option<Instant>,
    far: Option<Far>,
    reloads: JoinSet<String>,
}

impl Chaos {
    fn new(cluster: Cluster, far: Option<Far>) -> Self {
        let doors = ["net1", "net2"].map(|name| (name, Door::to(cluster.at(name))));
        Self {
            cluster,
            doors: BTreeMap::from(doors),
            stopped: Vec::new(),
            master_at: None,
            far,
            reloads: JoinSet::new(),
        }
    }

    async fn run(&mut self, size: &Size, acts: Vec<(Duration, Act)>, say: Say<'_>) -> Result<()> {
        self.calm_down(say).await?;
        let plan = both_ways(size.connections, size.deep, size.per_s);
        let doors: Vec<Door> = self.doors.values().cloned().collect();
        let load = Load::start_at(&doors, &plan).await?;
        let begin = Instant::now();
        say(&format!("seed {}: {} acts", size.seed, acts.len()));
        sleep(Duration::from_secs(1)).await;
        let before = Footprint::take(&self.cluster).await?;
        for (at, act) in acts {
            self.until(begin + at, say).await?;
            let told = self.act(&act).await.with_context(|| format!("{act:?}"))?;
            say(&format!("{:>6.1} s: {act:?}: {told}", begin.elapsed().as_secs_f64()));
        }
        self.calm_down(say).await?;
        self.until(begin + Duration::from_secs(size.seconds), say).await?;
        let after = Footprint::take(&self.cluster).await?;
        let ledger = load.stop().await?;
        say(&ledger.to_string());
        let mut verdict = Verdict::default();
        verdict.add(ledger.faults());
        verdict.add(ledger.faults_of_notes(&self.cluster.ran(), ANY_DELAY)?);
        verdict.hold(ledger.replies() > 0, "nothing was answered well");
        verdict.add(after.faults_since(&before, say));
        verdict.end(say)
    }

    /// Waits, while what is due happens.
    async fn until(&mut self, at: Instant, say: Say<'_>) -> Result<()> {
        loop {
            let go_on = self.stopped.iter().map(|(at, _)| *at).min();
            let plugged_at = self.far.as_ref().and_then(|far| far.plugged_at);
            let next =
                [Some(at), go_on, self.master_at, plugged_at].into_iter().flatten().min().unwrap_or(at);
            sleep_until(next).await;
            if let Some(far) = self.far.as_mut().filter(|_| plugged_at.is_some_and(|at| at <= next)) {
                far.host.plug(true)?;
                far.plugged_at = None;
            }
            self.stopped.retain(|(at, pid)| {
                let due = *at <= next;
                if due {
                    signal(*pid, Signal::SIGCONT);
                }
                !due
            });
            if self.master_at.is_some_and(|at| at <= next) {
                self.master_at = None;
                self.cluster.launch_master_again()?;
            }
            while let Some(told) = self.reloads.try_join_next() {
                say(&format!("          {}", told?));
            }
            if next >= at {
                return Ok(());
            }
        }
    }

    /// Does it; what it was done to.
    async fn act(&mut self, act: &Act) -> Result<String> {
        let there = self.master_at.is_none();
        Ok(match act {
            Act::Kill(node) => {
                let pids = self.pids(node)?;
                let door = self.doors.get(node).filter(|_| !pids.is_empty());
                let unheld = door.filter(|_| !self.holds_port_of(node));
                match (unheld, door) {
                    (Some(door), _) => door.kill_unheld(),
                    (None, Some(door)) => door.kill(),
                    (None, None) => {}
                }
                pids.iter().for_each(|pid| signal(*pid, Signal::SIGKILL));
                if let Some(door) = unheld {
                    let left = || pids.iter().find(|pid| process::is_alive(**pid));
                    wait::until("killed", async || left().map_or(Ok(()), Err)).await?;
                    door.gone();
                }
                format!("{pids:?}")
            }
            Act::Stop(node, length) => match self.pids(node)?.first() {
                Some(&pid) => {
                    let told = self.stop(pid, *length);
                    if !self.reloads.is_empty() {
                        self.expect_kills_of_stopped()?;
                    }
                    told
                }
                None => "has no process".to_owned(),
            },
            Act::Reload if there => self.reload("/reload".to_owned())?,
            Act::ReloadNode(node) if there => self.reload(format!("/nodes/{node}/reload"))?,
            Act::KillMaster(length) if there => {
                // One that is stopped is not killed a second later by name.
                let pid = i32::try_from(self.cluster.master_pid()?)?;
                self.stopped.retain(|(_, stopped)| *stopped != pid);
                self.cluster.kill_master().await?;
                self.master_at = Some(Instant::now() + *length);
                pid.to_string()
            }
            Act::StopMaster(length) if there => {
                let pid = i32::try_from(self.cluster.master_pid()?)?;
                self.stop(pid, *length)
            }
            Act::Unplug(length) => match &mut self.far {
                Some(far) => {
                    far.host.plug(false)?;
                    far.plugged_at = Some(Instant::now() + *length);
                    "the cable is out".to_owned()
                }
                None => "there is no cable".to_owned(),
            },
            _ => "there is no master".to_owned(),
        })
    }

    /// Whether a master has the node's listening sockets: one that has started it, or adopted it to the end.
    fn holds_port_of(&self, node: &str) -> bool {
        let has = |line: &str| {
            let said = line.split_once(" INFO ").map_or("", |(_, said)| said);
            said.starts_with(&format!("{node} is ready: "))
                || said.starts_with(&format!("{node} (pid ")) && said.contains("is adopted")
        };
        self.master_at.is_none() && self.cluster.log().lines().any(has)
    }

    fn pids(&self, node: &str) -> Result<Vec<i32>> {
        Ok(self.cluster.processes_of_nodes()?.remove(node).unwrap_or_default())
    }

    fn stop(&mut self, pid: i32, length: Duration) -> String {
        // One that is stopped already goes on when that is over.
        if self.stopped.iter().all(|(_, stopped)| *stopped != pid) {
            signal(pid, Signal::SIGSTOP);
            self.stopped.push((Instant::now() + length, pid));
        }
        pid.to_string()
    }

    /// A reload kills a node that hangs, for it can hand nothing over (docs/operations.md).
    fn expect_kills_of_stopped(&self) -> Result<()> {
        for (node, door) in &self.doors {
            let pids = self.pids(node)?;
            if self.stopped.iter().any(|(_, pid)| pids.contains(pid)) {
                door.kill();
            }
        }
        Ok(())
    }

    fn reload(&mut self, path: String) -> Result<String> {
        self.expect_kills_of_stopped()?;
        let asked = self.cluster.asked("POST", &path);
        self.reloads.spawn(async move {
            match asked.await {
                Ok(answer) => {
                    let text = answer.body.split_whitespace().collect::<Vec<_>>().join(" ");
                    format!("{path}: {} {text}", answer.status)
                }
                Err(why) => format!("{path}: {why:#}"),
            }
        });
        Ok("asked".to_owned())
    }

    /// Everything runs again, and is linked.
    async fn calm_down(&mut self, say: Say<'_>) -> Result<()> {
        let plugged_at = self.far.as_ref().and_then(|far| far.plugged_at);
        let last = self.stopped.iter().map(|(at, _)| *at).chain(self.master_at).chain(plugged_at).max();
        self.until(last.unwrap_or_else(Instant::now), say).await?;
        for node in NODES {
            self.cluster.until(node, "ready in the end", |node| node["state"] == "ready").await?;
        }
        for child in ["net1", "net2", "game.1", "game.2"] {
            self.cluster.until_linked(child, "gate").await?;
        }
        while let Some(told) = self.reloads.join_next().await {
            say(&format!("          {}", told?));
        }
        // A reload that ended last may have left an old process that finishes what it had begun.
        crate::wait::until("one process for each node", async || {
            let all = self.cluster.processes_of_nodes().map_err(|e| format!("{e:#}"))?;
            if all.len() == NODES.len() && all.values().all(|pids| pids.len() == 1) {
                return Ok(());
            }
            Err(format!("{all:?}"))
        })
        .await
    }

    fn go_on_all(&mut self) {
        self.stopped.drain(..).for_each(|(_, pid)| signal(pid, Signal::SIGCONT));
    }
}

/// The process may have ended a moment ago.
fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Memory and descriptors of every process of the cluster.
struct Footprint(BTreeMap<String, (u64, usize)>);

impl Footprint {
    async fn take(cluster: &Cluster) -> Result<Self> {
        let mut pids = BTreeMap::from([("master".to_owned(), i32::try_from(cluster.master_pid()?)?)]);
        for (name, pid) in super::reload::pids(cluster).await? {
            pids.insert(name, i32::try_from(pid)?);
        }
        let each = pids.into_iter().map(|(name, pid)| {
            let what = || format!("{name}, process {pid}");
            let memory = Memory::of(pid).with_context(what)?.now;
            let descriptors = process::descriptors(pid).with_context(what)?;
            Ok((name, (memory, descriptors)))
        });
        Ok(Self(each.collect::<Result<_>>()?))
    }

    fn faults_since(&self, before: &Self, say: Say<'_>) -> Vec<String> {
        let mut faults = Vec::new();
        for (name, (memory, descriptors)) in &self.0 {
            let (was, had) = before.0.get(name).copied().unwrap_or_default();
            let what = format!(
                "{name}: {} and {descriptors} descriptors, before {} and {had}",
                mib(*memory),
                mib(was)
            );
            say(&what);
            if *memory > was + MORE_BYTES_MAX || *descriptors > had + MORE_DESCRIPTORS_MAX {
                faults.push(what);
            }
        }
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_happens_is_a_function_of_the_seed_alone() {
        let length = Duration::from_secs(600);
        let acts = schedule(7, length, false);
        assert_eq!(acts, schedule(7, length, false));
        assert_ne!(acts, schedule(8, length, false));
        assert!(acts.is_sorted_by(|(a, _), (b, _)| a < b));
        assert!(acts.last().is_some_and(|(at, _)| *at + QUIET < length));
        let has = |is: fn(&Act) -> bool| acts.iter().any(|(_, act)| is(act));
        assert!(has(|act| matches!(act, Act::Kill(_))) && has(|act| matches!(act, Act::Stop(..))));
        assert!(has(|act| *act == Act::Reload) && has(|act| matches!(act, Act::ReloadNode(_))));
        assert!(has(|act| matches!(act, Act::KillMaster(_))) && has(|act| matches!(act, Act::StopMaster(_))));
        let far = schedule(7, length, true);
        assert!(far.iter().any(|(_, act)| matches!(act, Act::Unplug(_))));
        assert!(!far.iter().any(|(_, act)| matches!(act, Act::ReloadNode(node) if FAR.contains(node))));
    }

    #[test]
    fn a_minute_has_some_of_it() {
        assert!(schedule(1, Duration::from_secs(60), false).len() > 15);
    }
}
