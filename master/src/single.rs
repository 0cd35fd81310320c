//! `master single NODE CONFIG`: starts one node on this host and starts it again when it ends.
//!
//! The node registers at the configured master by itself, so what is known here is its process alone.

use std::sync::Arc;
use std::time::Duration;

use ffconfig::{Cluster, Node};
use ffnet::backoff::Backoff;
use ffproto::Incarnation;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use crate::console::Console;
use crate::output::{Logs, NodeOutput};
use crate::signals::{Asked, Signals};
use crate::sockets::{PortFault, Sockets};
use crate::supervisor::machine::{End, Exit};
use crate::supervisor::moment;
use crate::supervisor::process::{LaunchSpec, Launched, Launcher};

/// From SIGTERM to SIGKILL, beyond what the node may take to drain.
const FIRM: Duration = Duration::from_secs(3);

/// Why the node is not supervised.
#[derive(Debug, thiserror::Error)]
pub enum SingleError {
    /// The config has no such node.
    #[error("there is no node `{name}` in the config; it has: {}", known.join(", "))]
    Unknown {
        /// As it was asked for.
        name: String,
        /// The names that exist.
        known: Vec<String>,
    },
    /// Its ports are not free: all of them.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Ports(Vec<PortFault>),
}

/// One node and what it is started with.
pub struct Single {
    cluster: Arc<Cluster>,
    node: Arc<Node>,
    sockets: Sockets,
    launcher: Box<dyn Launcher>,
    output: NodeOutput,
    incarnation: Option<Incarnation>,
}

/// What ended the wait for a process.
enum Waited {
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
        Ok(Self { cluster, node, sockets, launcher, output, incarnation: None })
    }

    /// Supervises it until it stops in order (exit code 0) or a signal says so.
    pub async fn run(mut self, mut signals: Signals) -> End {
        let restart = self.cluster.master.restart.clone();
        let mut backoff = Backoff::new(restart.backoff.min, restart.backoff.max, restart.healthy);
        loop {
            let born = Instant::now();
            let how = match self.launch() {
                Ok(launched) => match self.wait(launched, &mut signals).await {
                    // It was told to stop, by its master or by a person.
                    Waited::Exited(Exit::Code(0)) => return End::Stopped,
                    Waited::Leave(end) => return end,
                    Waited::Restart => {
                        backoff.reset();
                        continue;
                    }
                    Waited::Exited(exit) => exit.to_string(),
                },
                Err(error) => error.to_string(),
            };
            let wait = backoff.next(moment().chance, born.elapsed());
            let quick = backoff.quick_ends();
            let note = if quick >= restart.crash_loop {
                format!("; a crash loop, {quick} quick ends")
            } else {
                String::new()
            };
            warn!("{} ended: {how}{note}; again in {} ms", self.node.name, wait.as_millis());
            tokio::select! {
                () = sleep(wait) => {}
                asked = signals.next() => if !matches!(asked, Asked::Reload | Asked::Detach) {
                    return End::Stopped;
                }
            }
        }
    }

    fn launch(&mut self) -> std::io::Result<Launched> {
        let incarnation = Incarnation::next(moment().unix_ms, self.incarnation);
        self.incarnation = Some(incarnation);
        let launched = self.launcher.launch(LaunchSpec {
            node: Arc::clone(&self.node),
            cluster: Arc::clone(&self.cluster),
            incarnation,
            succeeds: None,
            listeners: self.sockets.of(&self.node)?,
            output: self.output.clone(),
        })?;
        info!("{} is started, pid {}; it registers at {}", self.node.name, launched.pid, self.master());
        Ok(launched)
    }

    fn master(&self) -> String {
        format!("{}:{}", self.cluster.master.roothost, self.cluster.master.rootport.port())
    }

    /// Waits for the process, and for signals: polite, firm, killed.
    async fn wait(&self, launched: Launched, signals: &mut Signals) -> Waited {
        let Launched { mut exit, signals: process, .. } = launched;
        let mut asked = None;
        let mut kill_at = None;
        loop {
            let far = Instant::now() + Duration::from_secs(3_600);
            tokio::select! {
                exit = &mut exit => return match asked {
                    None | Some(Asked::Detach) => Waited::Exited(exit),
                    Some(Asked::Reload) => Waited::Restart,
                    Some(Asked::Stop) => Waited::Leave(End::Stopped),
                    Some(Asked::Kill) => Waited::Leave(End::Forced),
                },
                signal = signals.next() => {
                    if signal == Asked::Detach {
                        warn!("only a master with a run folder can leave its nodes to the next one");
                        continue;
                    }
                    asked = Some(signal);
                    if signal == Asked::Kill {
                        process.kill();
                    } else {
                        process.terminate();
                        kill_at = Some(Instant::now() + self.node.drain + FIRM);
                    }
                }
                () = sleep_until(kill_at.unwrap_or(far)), if kill_at.is_some() => {
                    warn!("{} takes too long: killed", self.node.name);
                    kill_at = None;
                    process.kill();
                }
            }
        }
    }
}
