//! Our cluster as it is measured: its config, its start and its end as real processes.
//!
//! What depends on the apps and on the config's keys stands in the constants and in [`config`].

use std::collections::{BTreeMap, VecDeque};
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::Common;
use crate::http;
use crate::machine;
use crate::system::{Node, System};

/// No handler of net has it: it follows net's route to a node of the kind [`GAME`].
pub(crate) const FORWARDED_COMMAND: u32 = 1;
/// net's handler calls its parent's method `relay`, which calls a child's `echo`.
pub(crate) const HANDLED_COMMAND: u32 = 2;
/// Asks game to send its body to everybody who has joined, under [`DELIVERED_COMMAND`].
pub(crate) const BROADCAST_COMMAND: u32 = 3;
pub(crate) const DELIVERED_COMMAND: u32 = 4;
/// net's handler takes the client among those who get broadcasts.
pub(crate) const JOIN_COMMAND: u32 = 5;
/// The login, over which game decides. It answers the login's body.
pub(crate) const LOGIN_COMMAND: u32 = 6;

const NET: &str = "benchnet";
const GATE: &str = "benchgate";
const GAME: &str = "benchgame";
/// What master prints when every node is ready.
const UP: &str = "cluster is up";

const START_PATIENCE: Duration = Duration::from_secs(60);
const STOP_PATIENCE: Duration = Duration::from_secs(15);
const LINES_KEPT: usize = 40;

/// What the cluster is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Setup {
    /// master, net, gate and game.
    Processes,
    /// `benchnode --all`.
    OneProcess,
    /// The same processes, whose links and control connections are encrypted.
    Encrypted,
    /// The same processes; clients must log in.
    Login,
}

/// Where a cluster's ports are. The kernel takes those of outgoing connections from 32768 on, so no client of anybody
/// can get one between the choice and the start.
const PORTS: Range<u16> = 30_000..32_000;

struct Ports {
    root: u16,
    web: u16,
    gate: u16,
    net: u16,
}

impl Ports {
    /// Four that are free now. Benches that start at the same time look in different places, each with room for
    /// four clusters.
    fn pick() -> anyhow::Result<Self> {
        let by = std::process::id() as usize * 16 % PORTS.len();
        let all = PORTS.cycle().skip(by).take(PORTS.len());
        // All four are held until all four are known, so they differ.
        let listen = |port| Some((port, TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?));
        let held: Vec<(u16, TcpListener)> = all.filter_map(listen).take(4).collect();
        let ports: Vec<u16> = held.iter().map(|(port, _)| *port).collect();
        let [root, web, gate, net] = ports[..] else { bail!("no four ports of {PORTS:?} are free") };
        Ok(Self { root, web, gate, net })
    }
}

/// Limits beyond their defaults: the bench has more clients, and pipelines deeper, than a player would.
fn limits(more: &[(String, u64)]) -> Value {
    // `idle` opens ten thousand connections that say nothing.
    let mut limits = json!({ "sessions_max": 20_000, "first_message_s": 0, "idle_s": 0 });
    for (key, number) in more {
        limits[key] = json!(number);
    }
    limits
}

/// The config: net and game dial gate, as in firefly.
fn config(ports: &Ports, setup: Setup, more_limits: &[(String, u64)]) -> Value {
    let gate = json!([{ "rootname": "gate", "rootport": ports.gate }]);
    let mut net = json!({ "app": NET, "netport": ports.net, "remoteport": gate });
    net["route"] = json!({ "special": { GAME: [FORWARDED_COMMAND, BROADCAST_COMMAND, LOGIN_COMMAND] } });
    if setup == Setup::Login {
        net["login"] = json!({ "command": LOGIN_COMMAND, "timeout_s": 10 });
    }
    let servers = json!({
        "gate": { "app": GATE, "rootport": ports.gate },
        "game": { "app": GAME, "remoteport": gate },
        "net": net,
    });
    let mut master = json!({ "rootport": ports.root, "webport": ports.web });
    if setup == Setup::Encrypted {
        master["encrypt"] = json!("always");
    }
    json!({ "master": master, "limits": limits(more_limits), "servers": servers })
}

/// The programs that may run a node of ours, what is preferred first. In releases from before the benchmark's apps had a
/// program of their own, they are in `appmain`.
const NODE_PROGRAMS: [&str; 2] = ["benchnode", "appmain"];

/// Where the programs are.
pub(crate) struct Programs {
    master: PathBuf,
    node: PathBuf,
}

impl Programs {
    /// Checks that they are there, if a system of ours is asked for.
    pub(crate) fn find(systems: &[System], options: &Common) -> anyhow::Result<Self> {
        let own = std::env::current_exe()?;
        let beside = own.parent().context("this program is in no folder")?;
        let dir = options.bin_dir.as_deref().unwrap_or(beside);
        Self::find_in(dir, systems.iter().any(|s| s.is_ours()))
    }

    fn find_in(dir: &Path, needed: bool) -> anyhow::Result<Self> {
        let found = |name: &&str| dir.join(name).is_file();
        let node = NODE_PROGRAMS.into_iter().find(found);
        for (name, there) in [("master", found(&"master")), (NODE_PROGRAMS[0], node.is_some())] {
            ensure!(
                !needed || there,
                "no `{name}` in {}: run `cargo build --release --workspace` first",
                dir.display()
            );
        }
        Ok(Self { master: dir.join("master"), node: dir.join(node.unwrap_or(NODE_PROGRAMS[0])) })
    }

    fn command(&self, setup: Setup, config: &Path) -> anyhow::Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("leash").arg("--");
        if setup == Setup::OneProcess {
            command.arg(&self.node).arg("--all");
        } else {
            command.arg(&self.master).arg("--appmain").arg(&self.node);
        }
        command.arg(config);
        Ok(command)
    }
}

/// A running cluster; it is stopped when this is dropped.
pub(crate) struct Cluster {
    pub(crate) addr: SocketAddr,
    pub(crate) nodes: Vec<Node>,
    /// master, or the one process.
    root: Child,
    /// Where master takes `/stop`.
    pub(crate) web: Option<SocketAddr>,
    _folder: TempDir,
}

impl Cluster {
    pub(crate) fn start(programs: &Programs, options: &Common, setup: Setup) -> anyhow::Result<Self> {
        let ports = Ports::pick()?;
        let folder = tempfile::Builder::new().prefix("bench-").tempdir()?;
        let path = folder.path().join("config.json");
        let text = serde_json::to_string_pretty(&config(&ports, setup, &options.limit))?;
        std::fs::write(&path, text)?;

        let mut command = programs.command(setup, &path)?;
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let root = command.spawn().context("starting our cluster")?;
        let loopback = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let web = (setup != Setup::OneProcess).then_some(loopback(ports.web));
        let mut cluster = Self { addr: loopback(ports.net), nodes: vec![], root, web, _folder: folder };
        let output = Output::of(&mut cluster.root);
        cluster.wait_until_up(&output)?;
        cluster.nodes = cluster.find_nodes()?;
        Ok(cluster)
    }

    fn wait_until_up(&mut self, output: &Output) -> anyhow::Result<()> {
        let mut ended = None;
        let addr = self.addr;
        let in_one = self.web.is_none();
        let up = machine::wait_until(START_PATIENCE, || {
            ended = self.root.try_wait().ok().flatten();
            ended.is_some() || output.up() || in_one && TcpStream::connect(addr).is_ok()
        });
        match ended {
            Some(status) => bail!("our cluster ended while starting ({status}):\n{}", output.last_lines()),
            None if up => Ok(()),
            None => bail!("our cluster was not up in {START_PATIENCE:?}:\n{}", output.last_lines()),
        }
    }

    fn find_nodes(&self) -> anyhow::Result<Vec<Node>> {
        let root = |name: &str| Node { name: name.into(), pid: self.root.id() as i32 };
        let Some(web) = self.web else { return Ok(vec![root("all")]) };
        let mut nodes = nodes_of(&http::request(web, "GET", "/status")?)?;
        // It is not on the data path; its time shows that.
        nodes.push(root("master"));
        Ok(nodes)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.root.id() as i32);
        // The polite way first; whatever fails is followed by the firm way.
        let asked = self.web.is_some_and(|web| http::request(web, "POST", "/stop").is_ok());
        if !asked {
            let _ = kill(pid, Signal::SIGTERM);
        }
        if !machine::wait_until(STOP_PATIENCE, || !matches!(self.root.try_wait(), Ok(None))) {
            eprintln!("bench: our cluster did not stop in {STOP_PATIENCE:?}; killing it");
            for node in &self.nodes {
                let _ = kill(Pid::from_raw(node.pid), Signal::SIGKILL);
            }
            let _ = self.root.kill();
            let _ = self.root.wait();
        }
    }
}

#[derive(Deserialize)]
struct Status {
    nodes: Vec<StatusNode>,
}

#[derive(Deserialize)]
struct StatusNode {
    name: String,
    pid: Option<i32>,
    #[serde(default)]
    counters: BTreeMap<String, u64>,
}

/// What a node of the cluster whose master is at `web` has counted, as it last told the master.
pub(crate) fn counter(web: SocketAddr, node: &str, counter: &str) -> anyhow::Result<u64> {
    let status: Status = serde_json::from_str(&http::request(web, "GET", "/status")?)?;
    let found = status.nodes.into_iter().find(|n| n.name == node);
    let found = found.with_context(|| format!("/status has no node `{node}`"))?;
    // What is zero is left out.
    Ok(found.counters.get(counter).copied().unwrap_or_default())
}

/// The processes in the answer to `GET /status`.
fn nodes_of(status: &str) -> anyhow::Result<Vec<Node>> {
    let status: Status = serde_json::from_str(status).context("the answer to /status")?;
    let node = |node: StatusNode| {
        let pid = node.pid.with_context(|| format!("/status knows no pid of {}", node.name))?;
        Ok(Node { name: node.name, pid })
    };
    status.nodes.into_iter().map(node).collect()
}

/// What the cluster prints: read all the time so that it never blocks, the last lines kept for error messages.
struct Output {
    lines: Arc<Mutex<(VecDeque<String>, bool)>>,
}

impl Output {
    fn of(child: &mut Child) -> Self {
        let lines = Arc::default();
        let streams: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
            child.stderr.take().map(|s| Box::new(s) as Box<dyn Read + Send>),
        ];
        for stream in streams.into_iter().flatten() {
            let output = Self { lines: Arc::clone(&lines) };
            std::thread::spawn(move || output.read(stream));
        }
        Self { lines }
    }

    fn read(&self, stream: impl Read) {
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            let mut kept = self.lock();
            kept.1 |= line.contains(UP);
            kept.0.push_back(line);
            if kept.0.len() > LINES_KEPT {
                kept.0.pop_front();
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, (VecDeque<String>, bool)> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn up(&self) -> bool {
        self.lock().1
    }

    fn last_lines(&self) -> String {
        // The readers may be a moment behind a process that has just ended.
        machine::pause(Duration::from_millis(100));
        self.lock().0.iter().map(|line| format!("  {line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: Ports = Ports { root: 1, web: 2, gate: 3, net: 4 };

    #[test]
    fn clients_must_log_in_only_where_that_is_measured() {
        let net = |setup| config(&SOME, setup, &[])["servers"]["net"].clone();
        assert_eq!(net(Setup::Login)["login"]["command"], LOGIN_COMMAND);
        assert!(net(Setup::Processes).get("login").is_none());
        assert_eq!(net(Setup::Processes)["route"]["special"][GAME][0], FORWARDED_COMMAND);
    }

    #[test]
    fn limits_can_be_added() {
        let config = config(&SOME, Setup::Processes, &[("idle_s".into(), 600)]);
        assert_eq!(config["limits"], json!({ "sessions_max": 20_000, "first_message_s": 0, "idle_s": 600 }));
    }

    #[test]
    fn nodes_run_by_the_programs_own_node_or_by_that_of_an_older_release() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str| std::fs::write(folder.path().join(name), "").unwrap();
        let node = || Programs::find_in(folder.path(), true).map(|found| found.node);
        let missing = || node().unwrap_err().to_string();
        assert!(Programs::find_in(folder.path(), false).is_ok(), "a floor needs none");
        assert!(missing().starts_with("no `master` in "), "{}", missing());
        put("master");
        assert!(missing().starts_with("no `benchnode` in "), "{}", missing());
        put("appmain");
        assert_eq!(node().unwrap(), folder.path().join("appmain"));
        put("benchnode");
        assert_eq!(node().unwrap(), folder.path().join("benchnode"));
    }

    #[test]
    fn nodes_are_read_from_the_status() {
        let status =
            r#"{"cluster":"c","nodes":[{"name":"net","pid":7,"state":"running"},{"name":"gate","pid":8}]}"#;
        let node = |name: &str, pid| Node { name: name.into(), pid };
        assert_eq!(nodes_of(status).unwrap(), [node("net", 7), node("gate", 8)]);
        let error = nodes_of(r#"{"nodes":[{"name":"net","pid":null}]}"#).unwrap_err();
        assert_eq!(error.to_string(), "/status knows no pid of net");
    }

    #[test]
    fn picked_ports_differ() {
        let ports = Ports::pick().unwrap();
        let set = std::collections::BTreeSet::from([ports.root, ports.web, ports.gate, ports.net]);
        assert_eq!(set.len(), 4);
        assert!(set.iter().all(|port| PORTS.contains(port)), "{set:?}");
    }
}
