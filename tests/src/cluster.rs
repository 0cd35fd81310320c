//! A whole cluster behind one handle: what a test does to it is the same for real processes and for nodes
//! in this process.

mod keys;
mod programs;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Child;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use ffserver::{App, Stop, process};

use crate::client::Client;
use crate::fixtures::Fixture;
use crate::process::{Memory, is_alive, until_stopped};
use crate::single::Single;
use crate::{bins, http, wait};
use programs::{install, program_of, spawn_master};

/// Where trial's game nodes note what they have begun, see [`crate::ledger`].
pub(crate) const RAN: &str = "ran";
/// What trial's new processes do wrong while it is there, see `tests/apps/src/trial/misbehaves.rs`.
const MISBEHAVES: &str = "misbehaves";

/// Where the master keeps its lock, its list of processes and crash reports.
pub(crate) const RUN: &str = "run";

/// The program that runs a node, when a test has put one of its own into the folder.
const APPMAIN: &str = "appmain";
/// And the one that supervises them.
const MASTER: &str = "master";

/// A running cluster. Dropping it kills it; its folder with config and logs is
/// kept unless it was stopped in order.
pub struct Cluster {
    fixture: Fixture,
    folder: Option<TempDir>,
    master: Master,
}

enum Master {
    /// `master config.json`, with its nodes as processes.
    Process(Child),
    /// Every node in this process, on a thread of its own, with links in memory and no master.
    Here { stop: Stop, ended: Option<JoinHandle<Result<()>>> },
}

impl Cluster {
    /// Starts `master config.json` and waits until the cluster is up.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub async fn processes(fixture: Fixture) -> Result<Self> {
        let mut cluster = Self::launch(fixture)?;
        cluster.until_up().await?;
        Ok(cluster)
    }

    /// Starts `master config.json` and waits for nothing.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn launch(fixture: Fixture) -> Result<Self> {
        Self::launch_for(fixture, None)
    }

    /// The same as a service manager does it: the master is to tell it at that socket (`NOTIFY_SOCKET`).
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn notifying(fixture: Fixture, manager: &str) -> Result<Self> {
        Self::launch_for(fixture, Some(manager))
    }

    /// Starts `master config.json` with a limit of open files, its nodes' as well, and waits until the cluster is up.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub async fn limited(fixture: Fixture, descriptors: u32) -> Result<Self> {
        let folder = Self::folder_for(&fixture)?;
        let master = spawn_master(folder.path(), None, Some(descriptors))?;
        let mut cluster = Self { fixture, folder: Some(folder), master: Master::Process(master) };
        cluster.until_up().await?;
        Ok(cluster)
    }

    fn launch_for(fixture: Fixture, manager: Option<&str>) -> Result<Self> {
        let folder = Self::folder_for(&fixture)?;
        let master = spawn_master(folder.path(), manager, None)?;
        Ok(Self { fixture, folder: Some(folder), master: Master::Process(master) })
    }

    fn folder_for(fixture: &Fixture) -> Result<TempDir> {
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir()?;
        std::fs::write(folder.path().join("config.json"), &fixture.text)?;
        std::fs::create_dir(folder.path().join(RAN))?;
        Ok(folder)
    }

    /// Starts programs of another release, as `install_master` and `install_node` put them there, and waits until the cluster
    /// is up.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub async fn installed(fixture: Fixture, master: &Path, node: &Path) -> Result<Self> {
        let folder = Self::folder_for(&fixture)?;
        install(folder.path(), MASTER, master)?;
        install(folder.path(), APPMAIN, node)?;
        let master = spawn_master(folder.path(), None, None)?;
        let mut cluster = Self { fixture, folder: Some(folder), master: Master::Process(master) };
        cluster.until_up().await?;
        Ok(cluster)
    }

    /// Makes another program the one that runs nodes from now on, as an operator does it: under the name of the one
    /// before, all at once.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn install_node(&self, program: &Path) -> Result<()> {
        install(self.folder(), APPMAIN, program)
    }

    /// The same for the program that is started as master.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn install_master(&self, program: &Path) -> Result<()> {
        install(self.folder(), MASTER, program)
    }

    /// Starts `master config.json` with a shell script in the place of `appmain` and waits until the cluster is
    /// up. The script finds the real program in `$real` and the cluster's folder in `$folder`.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub async fn scripted(fixture: Fixture, script: &str) -> Result<Self> {
        let folder = Self::folder_for(&fixture)?;
        let (path, real) = (folder.path().join(APPMAIN), program_of(&fixture.text)?);
        let (at, real) = (folder.path().display(), real.display());
        std::fs::write(
            &path,
            format!("#!/bin/sh\nfolder='{at}' real='{real}'\n{script}\nexec $real \"$@\"\n"),
        )?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
        let master = spawn_master(folder.path(), None, None)?;
        let mut cluster = Self { fixture, folder: Some(folder), master: Master::Process(master) };
        cluster.until_up().await?;
        Ok(cluster)
    }

    /// Starts every node of the config in this process: faster, and in a debugger's reach. There is no
    /// master, so nothing that asks it works.
    ///
    /// # Errors
    /// A node cannot start.
    pub async fn in_process(fixture: Fixture) -> Result<Self> {
        Self::in_process_of(fixture, testapps::all, process::runtime_of_all).await
    }

    /// The same with these apps, on this runtime.
    ///
    /// # Errors
    /// A node cannot start.
    pub async fn in_process_of(
        fixture: Fixture,
        apps: impl Fn() -> Vec<App> + Send + 'static,
        runtime: fn() -> std::io::Result<Runtime>,
    ) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("cluster-").tempdir()?;
        let config = ffconfig::parse(&fixture.text, &folder.path().join("config.json"), &|_| None)?.cluster;
        let stop = Stop::new(Duration::from_secs(10));
        let stopped = stop.clone();
        let ended = std::thread::spawn(move || {
            let ambient = ffserver::Ambient::system();
            let incarnation = process::incarnation(None, &ambient.clock)?;
            let all = process::run_all(&config, apps, incarnation, stopped, &ambient);
            Ok(runtime()?.block_on(all)?)
        });
        let mut cluster =
            Self { fixture, folder: Some(folder), master: Master::Here { stop, ended: Some(ended) } };
        cluster.until_listening().await?;
        Ok(cluster)
    }

    /// The netport is opened last, when the parents are linked.
    async fn until_listening(&mut self) -> Result<()> {
        let at = self.at("net");
        wait::until("the net node takes clients", async || {
            if let Master::Here { ended, .. } = &mut self.master
                && ended.as_ref().is_some_and(JoinHandle::is_finished)
            {
                return Err(format!("ended: {:?}", ended.take().map(JoinHandle::join)));
            }
            Client::connect(at).await.map(drop).map_err(|e| format!("{e:#}"))
        })
        .await
    }

    /// Where the master has its run folder.
    pub fn run_dir(&self) -> PathBuf {
        self.folder().join(RUN)
    }

    /// Writes another config in the place of the cluster's: what the next reload and the next master find.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn configure(&mut self, fixture: Fixture) -> Result<()> {
        std::fs::write(self.folder().join("config.json"), &fixture.text)?;
        self.fixture = fixture;
        Ok(())
    }

    async fn until_up(&mut self) -> Result<()> {
        let log = self.log_path();
        wait::until("cluster is up", async || {
            if self.log().contains("cluster is up") {
                return Ok(());
            }
            let Master::Process(child) = &mut self.master else { return Ok(()) };
            match child.try_wait() {
                Ok(None) => Err(format!("starting; log {}", log.display())),
                ended => Err(format!("ended: {ended:?}; log:\n{}", self.log())),
            }
        })
        .await
    }

    /// The folder with the config.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.as_ref().map_or(Path::new(""), TempDir::path)
    }

    /// The folder with what trial's game nodes note of what they have begun.
    #[must_use]
    pub fn ran(&self) -> PathBuf {
        self.folder().join(RAN)
    }

    /// What trial's processes that start from now on do wrong, as `HOW NODE`; `None`: nothing.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn misbehave(&self, how: Option<&str>) -> Result<()> {
        let file = self.folder().join(MISBEHAVES);
        match how {
            Some(how) => std::fs::write(file, how)?,
            None => std::fs::remove_file(file)?,
        }
        Ok(())
    }

    /// The path of the log.
    #[must_use]
    pub fn log_path(&self) -> PathBuf {
        self.folder().join("master.log")
    }

    /// Everything that master and nodes have printed.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until the log has the text.
    ///
    /// # Errors
    /// It does not.
    pub async fn until_logged(&self, text: &str) -> Result<()> {
        wait::until(&format!("`{text}` in the log"), async || {
            if self.log().contains(text) { Ok(()) } else { Err(self.log()) }
        })
        .await
    }

    /// Where the port of that name in the fixture is.
    #[must_use]
    pub fn at(&self, name: &str) -> SocketAddr {
        self.fixture.at(name)
    }

    /// A client of the net node whose netport is `@net`.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn client(&self) -> Result<Client> {
        Client::connect(self.at("net")).await
    }

    /// Waits until a new client's `command` is answered well, over all nodes that it takes.
    ///
    /// # Errors
    /// It is not, in time.
    pub async fn until_answered(&self, command: u32) -> Result<()> {
        wait::until(&format!("command {command} is answered"), async || {
            let asked = async { self.client().await?.call(command, b"again").await };
            asked.await.map(drop).map_err(|e| format!("{e:#}"))
        })
        .await
    }

    /// What the master's webport (`@admin`) answers to its own user, who needs no token.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn admin(&self, method: &str, path: &str) -> Result<http::Response> {
        self.asked(method, path).await
    }

    /// The same, for a task of its own.
    ///
    /// # Errors
    /// No answer.
    pub fn asked(&self, method: &str, path: &str) -> impl Future<Output = Result<http::Response>> + use<> {
        let (at, method, path) = (self.at("admin"), method.to_owned(), path.to_owned());
        async move { http::request(at, &method, &path, &[]).await }
    }

    /// `GET /status`.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn status(&self) -> Result<Value> {
        self.admin("GET", "/status").await?.json()
    }

    /// One node of `GET /status`.
    ///
    /// # Errors
    /// It is not there.
    pub async fn node(&self, name: &str) -> Result<Value> {
        let status = self.status().await?;
        let nodes = status["nodes"].as_array().context("no nodes")?;
        let found = nodes.iter().find(|node| node["name"] == name).cloned();
        found.with_context(|| format!("no {name} in {status}"))
    }

    /// The process id of a node.
    ///
    /// # Errors
    /// It has none now.
    pub async fn pid(&self, name: &str) -> Result<i32> {
        let node = self.node(name).await?;
        let pid = node["pid"].as_i64().with_context(|| format!("no pid: {node}"))?;
        Ok(i32::try_from(pid)?)
    }

    /// Waits until the node of `/status` satisfies `what`.
    ///
    /// # Errors
    /// It does not; with the last status and the log's path.
    pub async fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Result<Value> {
        let what = format!("{name}: {what}");
        let waited = wait::until(&what, async || {
            let node = self.node(name).await.map_err(|e| Value::String(format!("{e:#}")))?;
            if is(&node) { Ok(node) } else { Err(node) }
        });
        waited.await.with_context(|| format!("log: {}\n{}", self.log_path().display(), tail(&self.log())))
    }

    /// `kill -9` of a node; returns its process id.
    ///
    /// # Errors
    /// It has no process now.
    pub async fn kill_hard(&self, name: &str) -> Result<i32> {
        self.signal(name, Signal::SIGKILL).await
    }

    /// Sends a signal to a node; returns its process id. After SIGSTOP it has stopped.
    ///
    /// # Errors
    /// It has no process now.
    pub async fn signal(&self, name: &str, signal: Signal) -> Result<i32> {
        let pid = self.pid(name).await?;
        kill(Pid::from_raw(pid), signal)?;
        if signal == Signal::SIGSTOP {
            until_stopped(pid).await?;
        }
        Ok(pid)
    }

    /// Bytes of memory that a node occupies now, and the most that it ever did.
    ///
    /// # Errors
    /// It has no process now.
    pub async fn memory(&self, name: &str) -> Result<Memory> {
        let pid = self.pid(name).await?;
        Memory::of(pid)
    }

    /// Waits until a killed node is back: ready, and another process than `old`.
    ///
    /// # Errors
    /// It is not.
    pub async fn until_back(&self, name: &str, old: i32) -> Result<Value> {
        self.until(name, "back after kill -9", |node| node["state"] == "ready" && node["pid"] != old).await
    }

    /// Waits until both ends of the demo's links are up again, seen from `/status`.
    ///
    /// # Errors
    /// They are not.
    pub async fn until_linked(&self, child: &str, parent: &str) -> Result<Value> {
        self.until(parent, &format!("has the child {child}"), |node| {
            node["children"].as_array().is_some_and(|children| children.iter().any(|c| c == child))
        })
        .await
    }

    /// The process id of the master.
    ///
    /// # Errors
    /// It is gone.
    pub fn master_pid(&self) -> Result<u32> {
        let Master::Process(child) = &self.master else { bail!("there is no master process") };
        child.id().context("the master has ended")
    }

    /// Sends a signal to the master.
    ///
    /// # Errors
    /// It is gone.
    pub fn signal_master(&self, signal: Signal) -> Result<()> {
        let Master::Process(child) = &self.master else { bail!("there is no master process") };
        let pid = child.id().context("the master has ended")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// `kill -9` of the master, and waits until it is gone.
    ///
    /// # Errors
    /// It does not go.
    pub async fn kill_master(&mut self) -> Result<()> {
        self.signal_master(Signal::SIGKILL)?;
        let code = self.exit_code().await?;
        ensure!(code.is_none(), "killed by a signal, not {code:?}");
        Ok(())
    }

    /// Starts another master for the same folder, when the one before has ended, and waits for nothing.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn launch_master_again(&mut self) -> Result<()> {
        let old = (1..).map(|n| self.folder().join(format!("master.{n}.log"))).find(|path| !path.exists());
        std::fs::rename(self.log_path(), old.unwrap_or_default())?;
        self.master = Master::Process(spawn_master(self.folder(), None, None)?);
        Ok(())
    }

    /// The same, and waits until the cluster is up.
    ///
    /// # Errors
    /// It does not come up; with the end of its log.
    pub async fn start_master_again(&mut self) -> Result<()> {
        self.launch_master_again()?;
        self.until_up().await
    }

    /// The processes of this cluster's nodes by their names, oldest first, as the system knows them: while a
    /// node is replaced it has two. Needs no master.
    ///
    /// # Errors
    /// `/proc` cannot be read.
    pub fn processes_of_nodes(&self) -> Result<BTreeMap<String, Vec<i32>>> {
        let config = self.folder().join("config.json").into_os_string().into_encoded_bytes();
        let mut all: Vec<(i32, String)> = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else { continue };
            // One that has just ended has none; one that is a zombie has an empty one.
            let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { continue };
            let arguments: Vec<&[u8]> = line.split(|&byte| byte == 0).collect();
            if let [program, rest @ ..] = &arguments[..]
                && bins::runs_nodes(program)
                && let Some(end) = rest.iter().position(|at| *at == config)
            {
                let nodes = rest.iter().take(end);
                all.extend(nodes.map(|node| (pid, String::from_utf8_lossy(node).into_owned())));
            }
        }
        all.sort_unstable();
        let mut nodes: BTreeMap<String, Vec<i32>> = BTreeMap::new();
        for (pid, node) in all {
            nodes.entry(node).or_default().push(pid);
        }
        Ok(nodes)
    }

    /// Waits for the end of the master; its exit code.
    ///
    /// # Errors
    /// It does not end.
    pub async fn exit_code(&mut self) -> Result<Option<i32>> {
        let Master::Process(child) = &mut self.master else { bail!("there is no master process") };
        let status = timeout(wait::PATIENCE, child.wait()).await.context("the master does not end")??;
        Ok(status.code())
    }

    /// `/stop`, and everything that must hold after it: exit code 0, no process, no port.
    ///
    /// # Errors
    /// Something is left.
    pub async fn stop(self) -> Result<()> {
        self.stop_and_keep().await.map(drop)
    }

    /// The same; what is in its folder can be looked at.
    ///
    /// # Errors
    /// Something is left.
    pub async fn stop_and_keep(mut self) -> Result<Option<TempDir>> {
        if let Master::Here { stop, ended } = &mut self.master {
            stop.begin(None);
            let ended = ended.take().context("stopped before")?;
            let joined = tokio::task::spawn_blocking(move || ended.join());
            let joined = timeout(wait::PATIENCE, joined).await.context("the nodes do not end")??;
            joined.map_err(|panic| anyhow::anyhow!("a node panicked: {panic:?}"))??;
            self.nothing_left(&[])?;
            return Ok(None);
        }
        let pids = self.stop_master().await?;
        self.nothing_left(&pids)?;
        Ok(self.folder.take())
    }

    /// The same with nodes that `master single`s supervise: the master tells them to stop, and does not wait for their
    /// processes.
    ///
    /// # Errors
    /// Something is left.
    pub async fn stop_with(mut self, singles: impl IntoIterator<Item = Single>) -> Result<()> {
        let pids = self.stop_master().await?;
        for single in singles {
            single.stopped_with_the_cluster().await?;
        }
        self.nothing_left(&pids)?;
        self.folder = None;
        Ok(())
    }

    /// `/stop`, and the end of the master; gives the process ids that its nodes had.
    async fn stop_master(&mut self) -> Result<Vec<i32>> {
        let pids = self.pids().await?;
        let answer = self.admin("POST", "/stop").await?;
        ensure!(answer.status < 300, "/stop: {answer:?}");
        let code = self.exit_code().await?;
        ensure!(code == Some(0), "exit code {code:?}\n{}", tail(&self.log()));
        Ok(pids)
    }

    /// Kills it and keeps its folder, which it returns.
    #[must_use]
    pub fn keep(mut self) -> PathBuf {
        self.folder.take().map(TempDir::keep).unwrap_or_default()
    }

    /// The process ids of all nodes.
    ///
    /// # Errors
    /// The master does not answer.
    pub async fn pids(&self) -> Result<Vec<i32>> {
        let status = self.status().await?;
        let nodes = status["nodes"].as_array().context("no nodes")?;
        Ok(nodes
            .iter()
            .filter_map(|node| node["pid"].as_i64())
            .filter_map(|pid| i32::try_from(pid).ok())
            .collect())
    }

    /// No process of `pids` lives, and every port of the fixture can be opened.
    ///
    /// # Errors
    /// What is left.
    pub fn nothing_left(&self, pids: &[i32]) -> Result<()> {
        for pid in pids {
            ensure!(!is_alive(*pid), "process {pid} is left");
        }
        for (name, at) in self.fixture.ports() {
            if let Err(e) = std::net::TcpListener::bind(at) {
                bail!("port @{name} ({at}) is left: {e}");
            }
        }
        Ok(())
    }
}

impl Drop for Cluster {
    #[allow(clippy::print_stderr, reason = "a failed test says where its log is")]
    fn drop(&mut self) {
        let left = self.processes_of_nodes().unwrap_or_default();
        let child = match &mut self.master {
            Master::Process(child) => child,
            Master::Here { stop, .. } => return stop.begin(None),
        };
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()) {
            // Children have process groups of their own, so the master is asked to take them along: the
            // second signal means at once.
            let pid = Pid::from_raw(pid);
            for _ in 0..2 {
                let _ = kill(pid, Signal::SIGTERM);
                wait_a_moment_for(child, Duration::from_millis(300));
            }
            let _ = child.start_kill();
        }
        // Nodes outlive a master that was killed.
        for pid in left.into_values().flatten() {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        // A test that fails, by a panic or an error, has not stopped its cluster.
        if let Some(folder) = self.folder.take() {
            let kept = folder.keep();
            eprintln!("the cluster's config and log are kept in {}", kept.display());
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "a destructor cannot await")]
fn wait_a_moment_for(child: &mut Child, limit: Duration) {
    let end = std::time::Instant::now() + limit;
    while std::time::Instant::now() < end && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}
