//! Starting and ending the processes of nodes, behind a trait so that tests can run nodes without processes.

use std::io::{self, Write};
use std::net::TcpListener;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ffconfig::{Cluster, Node};
use ffkeys::NodeKeys;
use ffnet::launch::{INCARNATION_ENV, KEY_ENV, SUCCEEDS_ENV, Succeeds};
use ffnet::listen::{self, Passed, Port};
use ffnet::notify;
use ffproto::Incarnation;
use futures_util::future::BoxFuture;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;
use tokio::task::JoinSet;

use super::adopted::{self, Adopted};
use super::machine::Exit;
use super::proc;
use super::program::Programs;
use crate::keys::CREDENTIALS;
use crate::output::{NodeOutput, Splitter};

/// How long a node's allocator keeps memory that is free, in milliseconds. mimalloc's own default, a second, lets a burst
/// of slow clients cost more than their bound; none costs page faults in every wave of messages.
const PURGE_DELAY: (&str, &str) = ("MIMALLOC_PURGE_DELAY", "10");
/// Pages of 2 MiB make a node's process 9 MiB larger and an idle client up to 0.4 KiB, and save no time but perhaps a little of a single client.
const HUGE_PAGES: (&str, &str) = ("MIMALLOC_ALLOW_THP", "0");
/// What a pipe holds (pipe(7)) when nobody asks for more.
const PIPE_BYTES: usize = 64 * 1024;
/// How long the last lines of an ended process are waited for; a grandchild may hold the pipe open.
const LAST_LINES_MAX: Duration = Duration::from_millis(200);

/// What a process is started with.
#[derive(Debug)]
pub struct LaunchSpec {
    /// The nodes that it runs, in the order of the config; one at least.
    pub nodes: Vec<LaunchNode>,
    /// The config of the whole.
    pub cluster: Arc<Cluster>,
    /// Which start of its nodes this is.
    pub incarnation: Incarnation,
    /// Where its lines go.
    pub output: NodeOutput,
    /// Where it says that it is ready and that its loop turns: the value of [`notify::ENV`].
    pub notify: Option<String>,
}

/// What a process is given for one of its nodes.
#[derive(Debug)]
pub struct LaunchNode {
    /// The node's config.
    pub node: Arc<Node>,
    /// The keys of this start of it.
    pub keys: Arc<NodeKeys>,
    /// Which start of it serves, and is to hand over to this one.
    pub succeeds: Option<Incarnation>,
    /// Its listening sockets.
    pub listeners: Vec<(Port, TcpListener)>,
}

/// A process that has been started.
pub struct Launched {
    /// Its process.
    pub pid: u32,
    /// Ends when it has ended; must be polled to its end, or a zombie is left.
    pub exit: BoxFuture<'static, Exit>,
    /// To end it.
    pub signals: Arc<dyn Signals>,
}

/// How a process is made to end. Both do nothing when it has ended.
pub trait Signals: Send + Sync {
    /// Asks it: SIGTERM.
    fn terminate(&self);
    /// Ends it and what it has started: SIGKILL.
    fn kill(&self);
}

/// Starts the processes of nodes.
pub trait Launcher: Send {
    /// Starts one. Returns as soon as it runs; its nodes tell the master themselves when they are ready.
    ///
    /// # Errors
    /// When it cannot be started at all.
    fn launch(&mut self, spec: LaunchSpec) -> io::Result<Launched>;

    /// Takes over a process that a master before this one has launched and that was started then, in clock
    /// ticks since the boot; `None` when it has ended.
    ///
    /// # Errors
    /// When it cannot be watched.
    fn adopt(&mut self, pid: u32, started: u64) -> io::Result<Option<Adopted>> {
        adopted::watch(pid, started)
    }

    /// When a process was started, in clock ticks since the boot; `None` when it has ended.
    fn started(&self, pid: u32) -> Option<u64> {
        proc::started(pid)
    }
}

/// A program that cannot be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {}: {source}", program.display())]
struct CannotStart {
    program: PathBuf,
    source: io::Error,
}

/// The same error with the program's name, and with the system's code as its source: a shortage is told by that.
fn cannot_start(program: PathBuf, source: io::Error) -> io::Error {
    io::Error::new(source.kind(), CannotStart { program, source })
}

/// Starts each process as `appmain NODE CONFIG`, or `appmain NODE NODE … CONFIG` ([`ffnet::launch`]).
#[derive(Debug, Clone)]
pub struct ProcessLauncher {
    programs: Programs,
    config: PathBuf,
}

impl ProcessLauncher {
    /// With those programs, unless the config of a start names another one, and with that config file.
    pub fn new(programs: Programs, config: PathBuf) -> Self {
        Self { programs, config }
    }
}

impl Launcher for ProcessLauncher {
    fn launch(&mut self, spec: LaunchSpec) -> io::Result<Launched> {
        let (passed, keys, succeeds) = match &*spec.nodes {
            [one] => (pass(one)?, one.keys.to_bytes(), one.succeeds.map(|old| old.to_string())),
            several => {
                let keys = NodeKeys::several_to_bytes(several.iter().map(|one| &*one.keys));
                let succeeds = several.iter().filter_map(|one| Some((one.node.name.clone(), one.succeeds?)));
                let succeeds: Succeeds = succeeds.collect();
                let succeeds = (!succeeds.is_empty()).then(|| succeeds.to_string());
                (pass_to_several(several)?, keys, succeeds)
            }
        };
        let keys = over_a_pipe(&keys.map_err(io::Error::other)?)?;
        let program = self.programs.of(spec.cluster.appmain.as_deref());
        let mut command = Command::new(&program.path);
        command
            .args(spec.nodes.iter().map(|one| one.node.name.as_str()))
            .arg(&self.config)
            .env(INCARNATION_ENV, spec.incarnation.to_string())
            .env(listen::ENV, passed.env_value())
            .env_remove(SUCCEEDS_ENV)
            // What systemd has given the master is for the master.
            .env_remove(CREDENTIALS)
            .env(KEY_ENV, "stdin")
            .stdin(keys)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C on the terminal is for the master, which stops its nodes in order.
            .process_group(0)
            // A node outlives a master that was killed.
            .kill_on_drop(false);
        for (name, value) in [PURGE_DELAY, HUGE_PAGES] {
            if std::env::var_os(name).is_none() {
                command.env(name, value);
            }
        }
        match spec.notify {
            Some(socket) => command.env(notify::ENV, socket),
            // What this process was given is for itself.
            None => command.env_remove(notify::ENV),
        };
        if let Some(succeeds) = succeeds {
            command.env(SUCCEEDS_ENV, succeeds);
        }
        let spawned = command.spawn();
        drop(passed);
        let mut child = spawned.map_err(|source| cannot_start(program.path, source))?;
        let pid = child.id().ok_or_else(|| io::Error::other("it ended at once"))?;
        let mut readers = JoinSet::new();
        if let Some(stdout) = child.stdout.take() {
            readers.spawn(pump(stdout, spec.output.clone()));
        }
        if let Some(stderr) = child.stderr.take() {
            readers.spawn(pump(stderr, spec.output));
        }
        let ended = Arc::new(AtomicBool::new(false));
        let signals = ProcessSignals { pid, ended: Arc::clone(&ended) };
        let exit = async move {
            let status = child.wait().await;
            ended.store(true, Ordering::Release);
            let all_lines = async { while readers.join_next().await.is_some() {} };
            let _ = tokio::time::timeout(LAST_LINES_MAX, all_lines).await;
            readers.detach_all();
            status.map_or_else(|e| Exit::Unknown(e.to_string()), exit_of)
        };
        Ok(Launched { pid, exit: Box::pin(exit), signals: Arc::new(signals) })
    }
}

fn pass(one: &LaunchNode) -> io::Result<Passed> {
    let listeners: Vec<_> = one.listeners.iter().map(|(port, listener)| (*port, listener)).collect();
    listen::pass(&listeners)
}

fn pass_to_several(several: &[LaunchNode]) -> io::Result<Passed> {
    let mut listeners = Vec::new();
    for LaunchNode { node, listeners: own, .. } in several {
        listeners.extend(own.iter().map(|(port, listener)| (&node.name, *port, listener)));
    }
    listen::pass_to_several(&listeners)
}

/// The keys as the standard input of their process: no argument and no variable, which others of the user can read; and, other
/// than with a descriptor that stays open over an `exec`, no process that is started meanwhile gets them.
fn over_a_pipe(keys: &[u8]) -> io::Result<Stdio> {
    let (reader, mut writer) = io::pipe()?;
    // They fit the pipe, so nobody waits; those of a great many nodes need a larger one.
    if keys.len() > PIPE_BYTES {
        let bytes = i32::try_from(keys.len()).map_err(io::Error::other)?;
        fcntl(writer.as_fd(), FcntlArg::F_SETPIPE_SZ(bytes))?;
    }
    writer.write_all(keys)?;
    Ok(reader.into())
}

pub(super) fn exit_of(status: ExitStatus) -> Exit {
    match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Unknown(status.to_string()),
    }
}

/// Moves what a pipe gives to the node's output, to its end.
pub(super) async fn pump(mut pipe: impl AsyncRead + Unpin, output: NodeOutput) {
    let mut splitter = Splitter::default();
    let mut buffer = vec![0; 8 * 1024];
    while let Ok(n @ 1..) = pipe.read(&mut buffer).await {
        splitter.push(buffer.get(..n).unwrap_or_default(), |line| output.line(line));
    }
    splitter.end(|line| output.line(line));
}

/// Signals to a process that is waited for: its number is not given to another while it has not ended.
#[derive(Debug)]
struct ProcessSignals {
    pid: u32,
    ended: Arc<AtomicBool>,
}

impl ProcessSignals {
    fn pid(&self) -> Option<Pid> {
        let pid = i32::try_from(self.pid).ok().filter(|pid| *pid > 1)?;
        (!self.ended.load(Ordering::Acquire)).then(|| Pid::from_raw(pid))
    }
}

impl Signals for ProcessSignals {
    fn terminate(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGTERM);
        }
    }

    fn kill(&self) {
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGKILL);
            // Each node leads a process group of its own.
            let _ = killpg(pid, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use ffambient::Chance;
    use ffproto::NodeName;
    use nix::errno::Errno;
    use nix::sys::resource::{Resource, setrlimit};

    use super::*;
    use crate::descriptors::is_shortage;
    use crate::fixture::{self, cluster};
    use crate::output::Logs;

    /// Held while a script is written and while a process is made: a fork that inherits the file open for
    /// writing would make the kernel refuse to execute it.
    static FORK: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

    /// A launcher whose `appmain` is a shell script, in a folder that lives as long.
    async fn script(body: &str) -> (ProcessLauncher, tempfile::TempDir) {
        let _guard = FORK.lock().await;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("appmain");
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        (ProcessLauncher::new(Programs::only(path), "config.json".into()), folder)
    }

    async fn launch(launcher: &mut ProcessLauncher, listeners: Vec<(Port, TcpListener)>) -> (Launched, Logs) {
        let _guard = FORK.lock().await;
        let (spec, logs) = spec(listeners);
        (launcher.launch(spec).unwrap(), logs)
    }

    fn spec(listeners: Vec<(Port, TcpListener)>) -> (LaunchSpec, Logs) {
        let cluster = Arc::new(cluster(&["gate"]));
        let node = Arc::new(cluster.nodes[0].clone());
        let logs = Logs::default();
        let output = logs.of(&node.name, Incarnation(42), 4);
        let incarnation = Incarnation(42);
        let keys = fixture::keys().start(cluster.claims(&node), incarnation, &Chance::system()).unwrap();
        let keys = Arc::new(keys);
        let nodes = vec![LaunchNode { node, keys, succeeds: None, listeners }];
        (LaunchSpec { nodes, cluster, incarnation, output, notify: None }, logs)
    }

    async fn run(body: &str) -> (Exit, Vec<String>) {
        let (mut launcher, _folder) = script(body).await;
        let (launched, logs) = launch(&mut launcher, vec![]).await;
        (launched.exit.await, logs.last("gate"))
    }

    #[tokio::test]
    async fn a_node_gets_its_name_its_config_its_incarnation_and_its_sockets() {
        let (mut launcher, _folder) = script(
            r#"echo "$1 $2 $FF_INCARNATION"; n=${FF_LISTEN#net=}; [ -S /proc/self/fd/$n ] && echo inherited"#,
        )
        .await;
        let listener = listen::open("127.0.0.1:0".parse().unwrap()).unwrap();
        let (launched, logs) = launch(&mut launcher, vec![(Port::Net, listener)]).await;
        assert_eq!(launched.exit.await, Exit::Code(0));
        assert_eq!(logs.last("gate"), ["gate config.json 42", "inherited"]);
    }

    #[tokio::test]
    async fn a_process_of_several_nodes_gets_all_their_names_sockets_and_keys_and_one_incarnation() {
        let body = r#"echo "$* $FF_INCARNATION $FF_SUCCEEDS"; echo $FF_LISTEN | sed 's/=[0-9]*/=N/g'; wc -c"#;
        let (mut launcher, _folder) = script(body).await;
        let (incarnation, cluster) = (Incarnation(42), Arc::new(cluster(&["gate", "game > gate", "hall"])));
        let one = |node: &Node| {
            let keys = fixture::keys().start(cluster.claims(node), incarnation, &Chance::system()).unwrap();
            let listener = listen::open("127.0.0.1:0".parse().unwrap()).unwrap();
            let succeeds = (node.name != *"hall").then_some(Incarnation(7));
            let listeners = vec![(Port::Net, listener)];
            LaunchNode { node: Arc::new(node.clone()), keys: Arc::new(keys), succeeds, listeners }
        };
        let nodes: Vec<LaunchNode> = cluster.nodes.iter().map(one).collect();
        let names: Vec<NodeName> = cluster.nodes.iter().map(|node| node.name.clone()).collect();
        let bytes = NodeKeys::several_to_bytes(nodes.iter().map(|one| &*one.keys)).unwrap().len();
        let logs = Logs::default();
        let output = logs.of_process(&fixture::name("world"), &names, incarnation, 5);
        let spec = LaunchSpec { nodes, cluster, incarnation, output, notify: None };
        let launched = {
            let _guard = FORK.lock().await;
            launcher.launch(spec).unwrap()
        };
        assert_eq!(launched.exit.await, Exit::Code(0));
        let lines = [
            "gate game hall config.json 42 game=7,gate=7".to_owned(),
            "gate:net=N,game:net=N,hall:net=N".to_owned(),
            bytes.to_string(),
        ];
        assert_eq!((logs.last("gate"), logs.last("hall")), (lines.to_vec(), lines.to_vec()));
    }

    #[test]
    fn the_keys_of_a_great_many_nodes_fit_the_pipe_that_nobody_reads_yet() {
        assert!(over_a_pipe(&vec![1; 10 * PIPE_BYTES]).is_ok());
    }

    #[tokio::test]
    async fn ends_are_told_apart_and_the_last_lines_are_there() {
        assert_eq!(run("echo out; echo err >&2; exit 3").await.0.to_string(), "exit code 3");
        let (exit, lines) = run("printf 'no end'; kill -9 $$").await;
        assert_eq!((exit.to_string().as_str(), lines), ("signal 9 (SIGKILL)", vec!["no end".to_owned()]));
    }

    #[tokio::test]
    async fn terminate_asks_and_kill_takes_the_children_too() {
        let (mut launcher, _folder) =
            script("trap 'exit 7' TERM; echo up; while :; do sleep 0.01; done").await;
        let (launched, logs) = launch(&mut launcher, vec![]).await;
        wait_for_line(&logs).await;
        launched.signals.terminate();
        assert_eq!(launched.exit.await, Exit::Code(7));

        let (mut launcher, _folder) = script("trap '' TERM; sleep 1000 & echo $!; wait; sleep 1000").await;
        let (launched, logs) = launch(&mut launcher, vec![]).await;
        wait_for_line(&logs).await;
        let grandchild: i32 = logs.last("gate")[0].parse().unwrap();
        launched.signals.terminate();
        launched.signals.kill();
        assert_eq!(launched.exit.await, Exit::Signal(9));
        launched.signals.kill(); // it has ended: nothing is signalled
        let state = || fs::read_to_string(format!("/proc/{grandchild}/stat")).unwrap_or_default();
        until(|| state().is_empty() || state().contains(") Z ")).await;
    }

    #[tokio::test]
    async fn a_grandchild_that_holds_the_pipe_does_not_hold_the_exit() {
        let (exit, lines) = run("sleep 1000 & echo $!; exit 5").await;
        assert_eq!(exit, Exit::Code(5));
        let _ = kill(Pid::from_raw(lines[0].parse().unwrap()), Signal::SIGKILL);
    }

    #[test]
    fn a_program_that_cannot_be_started_is_named_and_a_shortage_stays_one() {
        for errno in [Errno::EAGAIN, Errno::ENOMEM, Errno::EMFILE] {
            let error = cannot_start("appmain".into(), errno.into());
            assert!(is_shortage(&error), "{error:?}");
            assert_eq!(error.to_string(), format!("cannot start appmain: {}", io::Error::from(errno)));
        }
        assert!(!is_shortage(&cannot_start("appmain".into(), Errno::ENOENT.into())));
    }

    /// Set in the process of a test's own, where it may take all descriptors.
    const ALONE: &str = "FF_TEST_ALONE";

    #[tokio::test]
    async fn a_launch_that_finds_no_descriptors_for_its_pipes_is_a_shortage() {
        if std::env::var_os(ALONE).is_none() {
            let test =
                "supervisor::process::tests::a_launch_that_finds_no_descriptors_for_its_pipes_is_a_shortage";
            let mut alone = std::process::Command::new(std::env::current_exe().unwrap());
            let output = alone.args([test, "--exact"]).env(ALONE, "1").output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && said.contains("1 passed"), "{said}");
            return;
        }
        let (mut launcher, _folder) = script("exit 0").await;
        let (spec, _logs) = spec(vec![]);
        setrlimit(Resource::RLIMIT_NOFILE, 64, 64).unwrap();
        let mut taken: Vec<_> = std::iter::from_fn(|| fs::File::open("/dev/null").ok()).collect();
        // Enough for the pipe of the keys, and not for those of its output.
        taken.truncate(taken.len() - 3);
        let error = launcher.launch(spec).err().unwrap();
        assert!(error.to_string().starts_with("cannot start "), "{error}");
        assert!(is_shortage(&error), "{error:?}");
    }

    async fn wait_for_line(logs: &Logs) {
        until(|| !logs.last("gate").is_empty()).await;
    }

    async fn until(what: impl Fn() -> bool) {
        let wait = async {
            while !what() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap();
    }
}
