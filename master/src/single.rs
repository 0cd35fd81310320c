//! `master single NODE CONFIG`: starts one node on this host and starts it again when it ends.
//!
//! The node registers at the configured master by itself; what is known here is its process, and what it tells by
//! `ffnet::notify`: that it is ready, and that its loop turns.

mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ffambient::Ambient;
use ffconfig::{Cluster, Node};
use ffnet::backoff::Backoff;
use ffnet::notify::{NotifyListener, Word};
use ffproto::Incarnation;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::console::Console;
use crate::descriptors::is_shortage;
use crate::keys::MasterKeys;
use crate::output::{Logs, NodeOutput};
use crate::signals::{SignalCommand, Signals};
use crate::sockets::{PortFault, Sockets};
use crate::supervisor::machine::{End, Exit, SILENT};
use crate::supervisor::proc;
use crate::supervisor::process::{self, LaunchNode, LaunchSpec, Launched, Launcher};

use watch::{Act, Watch};

/// From SIGTERM, or from the node's word that it stops, to SIGKILL, beyond what it may take to drain.
const FIRM: Duration = Duration::from_secs(3);

/// The wait while the host has no descriptors, memory or processes for a launch.
const SHORTAGE: Duration = Duration::from_millis(500);

/// Why the node is not supervised.
#[derive(Debug, thiserror::Error)]
pub enum SingleError {
    /// The config has no such node.
    #[error("there is no node `{name}` in the config; it has: {}", known.join(", "))]
    Unknown {
        /// The name as it was asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// Its ports are not free: all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Ports(Vec<PortFault>),
}

/// A node that is supervised alone, and what it is started with.
pub struct Single {
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    sockets: Sockets,
    launcher: Box<dyn Launcher>,
    output: NodeOutput,
    incarnation: Option<Incarnation>,
    keys: MasterKeys,
    /// Reads again what may have changed.
    renew: Option<Renew>,
    ambient: Ambient,
}

/// What a config says anew for the next start.
pub struct Renewed {
    /// The keys that it is signed by.
    pub keys: MasterKeys,
    /// The program that it names.
    pub appmain: Option<PathBuf>,
}

/// What is to be now, or why it stays as it was.
type Renew = Box<dyn Fn() -> Result<Renewed, String> + Send>;

/// A process of the node that runs.
struct Process {
    exit: BoxFuture<'static, Exit>,
    signals: Arc<dyn process::Signals>,
    pid: u32,
    /// The socket where the process tells of itself.
    notified: NotifyListener,
    watch: Watch,
    /// Why it was killed here.
    killed: Option<String>,
    /// Whether the process was killed because it did not leave, as it had said.
    stayed: bool,
}

/// The event that ended the wait for a process.
enum WaitEnd {
    Exited(Exit),
    Restart,
    Leave(End),
}

impl Single {
    /// Opens the node's sockets.
    ///
    /// # Errors
    /// [`SingleError`]; nothing is open then.
    pub fn new(
        cluster: Cluster,
        name: &str,
        launcher: Box<dyn Launcher>,
        console: Console,
        keys: MasterKeys,
        ambient: Ambient,
    ) -> Result<Self, SingleError> {
        let Some(node) = cluster.node(name).cloned() else {
            let known = cluster.nodes.iter().map(|node| node.name.to_string()).collect();
            return Err(SingleError::Unknown { name: name.to_owned(), known });
        };
        let others = cluster.nodes.iter().filter(|other| other.name != node.name);
        let others: Vec<_> = others.map(|other| other.name.clone()).collect();
        let mut sockets = Sockets::default();
        sockets.open(&cluster, &others).map_err(SingleError::Ports)?;
        let output = Logs::new(console).of(&node.name, Incarnation(0), name.len());
        let (cluster, node) = (Arc::new(cluster), Arc::new(node));
        Ok(Self { cluster, node, sockets, launcher, output, incarnation: None, keys, renew: None, ambient })
    }

    /// The same with what reads the keys and the program's name again at each start but the first: they may have changed.
    #[must_use]
    pub fn renewing(self, renew: impl Fn() -> Result<Renewed, String> + Send + 'static) -> Self {
        Self { renew: Some(Box::new(renew)), ..self }
    }

    /// Supervises it until it stops in order (exit code 0), a signal says so, or it has ended quickly too often
    /// (`master.restart.max`).
    pub async fn run(mut self, mut signals: Signals) -> End {
        let restart = self.cluster.master.restart.clone();
        let name = self.node.name.clone();
        let mut backoff = Backoff::new(restart.backoff.min, restart.backoff.max, restart.healthy);
        loop {
            let born = Instant::now();
            let mut short = false;
            let how = match self.launch() {
                Ok(mut process) => match self.wait(&mut process, &mut signals).await {
                    // It was told to stop, by its master or by a person.
                    WaitEnd::Exited(Exit::Code(0)) => return End::Stopped,
                    WaitEnd::Leave(end) => return end,
                    WaitEnd::Restart => {
                        backoff.reset();
                        continue;
                    }
                    WaitEnd::Exited(exit) => match process.killed {
                        Some(why) => format!("{exit}; {why}"),
                        None => exit.to_string(),
                    },
                },
                Err(error) => {
                    short = is_shortage(&error);
                    error.to_string()
                }
            };
            // That the host is short of something says nothing about the node: it is no quick end.
            let lived = born.elapsed();
            let wait = if short { SHORTAGE } else { backoff.next(self.ambient.chance.share(), lived) };
            let quick = backoff.quick_ends();
            if !short && restart.max.is_some_and(|max| quick >= max) {
                let why = format!(
                    "{name} ended: {how}; {quick} quick ends (master.restart.max): not tried any more"
                );
                return End::Failed(why);
            }
            let note = if quick >= restart.crash_loop {
                format!("; a crash loop, {quick} quick ends")
            } else {
                String::new()
            };
            warn!("{name} ended: {how}{note}; again in {} ms", wait.as_millis());
            tokio::select! {
                () = sleep(wait) => {}
                asked = signals.next() => if !matches!(asked, SignalCommand::Reload | SignalCommand::Detach) {
                    return End::Stopped;
                }
            }
        }
    }

    /// Reads the keys and the program's name again: they may have changed since the last start.
    fn renew(&mut self) {
        match self.renew.as_ref().map(|renew| renew()) {
            Some(Ok(Renewed { keys, appmain })) => {
                self.keys = keys;
                Arc::make_mut(&mut self.cluster).appmain = appmain;
            }
            Some(Err(why)) => warn!("the keys and the program stay as they are: {why}"),
            None => {}
        }
    }

    fn launch(&mut self) -> std::io::Result<Process> {
        if self.incarnation.is_some() {
            self.renew();
        }
        let incarnation = Incarnation::next(self.ambient.clock.now_ms(), self.incarnation);
        self.incarnation = Some(incarnation);
        let notified = NotifyListener::open(&self.ambient.chance)?;
        let claims = self.cluster.claims(&self.node);
        let keys = self.keys.cluster.start(claims, incarnation, &self.ambient.chance);
        let node = LaunchNode {
            node: Arc::clone(&self.node),
            keys: Arc::new(keys.map_err(std::io::Error::other)?),
            succeeds: None,
            listeners: self.sockets.of(&self.node)?,
        };
        let Launched { pid, exit, signals } = self.launcher.launch(LaunchSpec {
            nodes: vec![node],
            cluster: Arc::clone(&self.cluster),
            incarnation,
            output: self.output.clone(),
            notify: Some(notified.env_value()),
        })?;
        info!("{} is started, pid {pid}; it registers at {}", self.node.name, self.master());
        let watch = Watch::new(&self.node.limits, Instant::now());
        Ok(Process { exit, signals, pid, notified, watch, killed: None, stayed: false })
    }

    fn master(&self) -> String {
        format!("{}:{}", self.cluster.master.roothost, self.cluster.master.rootport.port())
    }

    /// Waits for the process, and for signals: polite, firm, killed.
    async fn wait(&self, process: &mut Process, signals: &mut Signals) -> WaitEnd {
        let mut asked = None;
        let mut kill_at = None;
        loop {
            let far = Instant::now() + Duration::from_secs(3_600);
            let silent_at = process.watch.due();
            tokio::select! {
                exit = &mut process.exit => return match asked {
                    None if process.stayed => WaitEnd::Leave(End::Forced),
                    None | Some(SignalCommand::Detach) => WaitEnd::Exited(exit),
                    Some(SignalCommand::Reload) => WaitEnd::Restart,
                    Some(SignalCommand::Stop) => WaitEnd::Leave(End::Stopped),
                    Some(SignalCommand::Kill) => WaitEnd::Leave(End::Forced),
                },
                signal = signals.next() => {
                    if signal == SignalCommand::Detach {
                        warn!("only a master with a run folder can leave its nodes to the next one");
                        continue;
                    }
                    asked = Some(signal);
                    process.watch.leaves(None);
                    if signal == SignalCommand::Kill {
                        process.signals.kill();
                    } else {
                        process.signals.terminate();
                        kill_at = Some(Instant::now() + self.node.drain + FIRM);
                    }
                }
                Ok(words) = process.notified.next() => self.heard(process, &words),
                () = sleep_until(silent_at.unwrap_or(far)), if silent_at.is_some() => self.silent(process),
                () = sleep_until(kill_at.unwrap_or(far)), if kill_at.is_some() => {
                    warn!("{} takes too long: killed", self.node.name);
                    kill_at = None;
                    process.signals.kill();
                }
            }
        }
    }

    fn heard(&self, process: &mut Process, words: &[Word]) {
        let now = Instant::now();
        for word in words {
            match word {
                Word::Ready => {
                    info!("{} serves, and shows that its loop turns", self.node.name);
                    process.watch.ready(now);
                }
                Word::Turns => {
                    if let Some(hung) = process.watch.turns(now) {
                        info!("{} goes on: it hung for {} ms", self.node.name, hung.as_millis());
                    }
                }
                Word::Stopping => {
                    let limit = self.node.drain + FIRM;
                    info!("{} stops, and is killed in {} s if it does not", self.node.name, limit.as_secs());
                    process.watch.leaves(Some(now + limit));
                }
                // A master's word.
                Word::Reloaded(_) => {}
            }
        }
    }

    fn silent(&self, process: &mut Process) {
        let name = &self.node.name;
        match process.watch.act(Instant::now()) {
            None => {}
            Some(Act::Report) => {
                let does = proc::describe(process.pid);
                let then = match self.node.limits.hang {
                    Some(limit) => format!("; killed after {} s", limit.as_secs()),
                    None => String::new(),
                };
                warn!(
                    "{name} hangs: nothing heard for {} ms, its process is {does}{then}",
                    SILENT.as_millis()
                );
            }
            Some(Act::End) => {
                let does = proc::describe(process.pid);
                warn!("{name} takes too long to stop, its process is {does}: killed");
                process.stayed = true;
                process.signals.kill();
            }
            Some(Act::Kill(why)) => {
                let does = proc::describe(process.pid);
                warn!("{name}: {why}; its process was {does}: killed, to be started again");
                process.killed = Some(why);
                process.signals.kill();
            }
        }
    }
}
