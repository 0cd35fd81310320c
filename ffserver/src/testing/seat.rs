//! The seat of one node in a test's cluster: what stays while the node is down, and the start that runs now.

use std::time::Duration;

use ffnet::transport::MemoryTransport;
use ffproto::{Incarnation, NodeName, NodeNumber};
use tokio::sync::watch;
use tokio::task::{JoinHandle, yield_now};

use super::adapted::Sockets;
use super::clock::PausedClock;
use super::error::{NodeError, StartError};
use super::transport::TestTransport;
use crate::app::app::App;
use crate::identity::Identity;
use crate::identity::keys::Startup;
use crate::identity::lifecycle::{KillList, Phase};
use crate::identity::stop::Stop;
use crate::node::Node;
use crate::runtime::in_process::InProcessNet;
use crate::runtime::server::{FFServer, RunError};
use ffambient::Ambient;
use ffkeys::ClusterKeys;

/// What all nodes of a cluster are given.
pub(super) struct Surroundings {
    pub(super) config: ffconfig::Cluster,
    pub(super) net: InProcessNet,
    pub(super) keys: ClusterKeys,
    pub(super) ambient: Ambient,
    pub(super) clock: Option<PausedClock>,
}

/// The seat of one node.
pub(super) struct Seat {
    name: NodeName,
    number: NodeNumber,
    sockets: Sockets,
    memory: MemoryTransport,
    /// How many starts there were: the incarnation is the number of the start, so that a seed draws the same again.
    starts: u64,
    start: Option<NodeStart>,
}

/// One start of a node.
struct NodeStart {
    task: JoinHandle<Result<(), RunError>>,
    stop: Stop,
    identity: Identity,
    killed: KillList,
    whole: watch::Receiver<Option<Node>>,
}

impl Seat {
    pub(super) fn new(name: NodeName, number: NodeNumber, sockets: Sockets) -> Self {
        Self { name, number, sockets, memory: MemoryTransport::default(), starts: 0, start: None }
    }

    pub(super) fn name(&self) -> &NodeName {
        &self.name
    }

    pub(super) fn memory(&self) -> &MemoryTransport {
        &self.memory
    }

    pub(super) fn is_up(&self) -> bool {
        self.start.is_some()
    }

    /// Begins a start with the node's app from `apps`.
    pub(super) fn begin(&mut self, all: &Surroundings, mut apps: Vec<App>) -> Result<(), StartError> {
        if self.is_up() {
            return Err(NodeError::Up(self.name.clone()).into());
        }
        for app in &mut apps {
            let sockets = app.transport.clone();
            app.transport = std::sync::Arc::new(TestTransport { sockets, memory: self.memory.clone() });
            app.brings_transport = true;
        }
        self.starts += 1;
        let chance = all.ambient.chance.stream(&format!("key of {}@{}", self.name, self.starts));
        let node = all.config.node(self.name.as_str()).ok_or_else(|| NodeError::Down(self.name.clone()))?;
        let keys = all.keys.start(all.config.claims(node), Incarnation(self.starts), &chance)?;
        let (startup, killed) = (Startup::with_keys(keys), KillList::default());
        let name = self.name.as_str();
        let server = FFServer::killed_by(&all.config, name, apps, startup, &all.ambient, killed.clone())?;
        let server = server.in_process(all.net.clone(), self.number);
        let (identity, stop, whole) = (server.identity().clone(), server.stop_handle(), server.whole());
        if let Some(clock) = &all.clock {
            let whole = whole.clone();
            clock.stands_while(move || whole.borrow().as_ref().is_some_and(works));
        }
        let task = tokio::spawn(server.run(self.sockets.inherited()?));
        self.start = Some(NodeStart { task, stop, identity, killed, whole });
        Ok(())
    }

    /// Waits until the node is ready.
    pub(super) async fn until_ready(&mut self) -> Result<(), StartError> {
        let name = self.name.clone();
        let Some(start) = &mut self.start else { return Err(NodeError::Down(name).into()) };
        let lifecycle = start.identity.lifecycle();
        let ready = async {
            loop {
                let mut changed = std::pin::pin!(lifecycle.phase_changed().notified());
                // Enabled before the look, so that no change is missed between the two.
                changed.as_mut().enable();
                if lifecycle.phase() != Phase::Starting {
                    return;
                }
                changed.await;
            }
        };
        let after = start.identity.limits().start;
        let ended = tokio::select! {
            biased;
            () = ready => return Ok(()),
            ended = &mut start.task => ended,
            () = tokio::time::sleep(after) => return Err(StartError::Late { node: name, after }),
        };
        self.start = None;
        Err(match ended {
            Ok(Ok(())) => StartError::Ended { node: name, source: None },
            Ok(Err(source)) => StartError::Run { node: name, source: Box::new(source) },
            Err(source) => StartError::Ended { node: name, source: Some(source) },
        })
    }

    /// The node that runs.
    pub(super) fn node(&self) -> Result<Node, NodeError> {
        let node = self.start.as_ref().and_then(|start| start.whole.borrow().clone());
        node.ok_or_else(|| NodeError::Down(self.name.clone()))
    }

    /// Tells the node to stop, and waits for its end.
    pub(super) async fn stop(&mut self) -> Result<(), NodeError> {
        let Some(start) = self.start.take() else { return Ok(()) };
        start.stop.begin(None);
        let why = match start.task.await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => fftelemetry::chain(&error),
            Err(error) => error.to_string(),
        };
        Err(NodeError::BadEnd { node: self.name.clone(), why })
    }

    /// Ends the node as `kill -9` ends a process: no task of it goes on, nothing is said to anybody, nothing is written any more.
    pub(super) async fn kill(&mut self, net: &InProcessNet) -> Result<(), NodeError> {
        let Some(start) = self.start.take() else { return Err(NodeError::Down(self.name.clone())) };
        // What a master sees of a child, and tells at once.
        net.ended(self.name.as_str());
        start.end();
        self.memory.cut();
        let _ = start.task.await;
        while !start.killed.is_over() {
            yield_now().await;
        }
        let node = start.whole.borrow().clone();
        if let Some(records) = node.as_ref().and_then(Node::records) {
            records.abandon().await;
        }
        Ok(())
    }
}

impl NodeStart {
    fn end(&self) {
        self.task.abort();
        self.killed.kill();
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.start.iter().for_each(NodeStart::end);
        self.memory.cut();
    }
}

/// Whether a database or the journal of the node works now.
fn works(node: &Node) -> bool {
    let is_used = |db: &ffstore::Db| {
        let size = db.pool_size();
        size.open > size.idle
    };
    node.databases().any(|(_, db)| is_used(db))
        || node.records().is_some_and(|records| records.journal_writes() > 0)
}

/// How long what is about to happen is waited for, on the clock of the test.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);
