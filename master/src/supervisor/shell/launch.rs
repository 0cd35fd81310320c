//! The launch of processes: what each of their nodes is given, and who waits for their end.

use std::sync::Arc;

use ffproto::credential::PublicKey;
use ffproto::{Incarnation, NodeName};
use futures_util::future::BoxFuture;

use super::{Process, Shell};
use crate::descriptors::is_shortage;
use crate::output::NodeOutput;
use crate::supervisor::event::Event;
use crate::supervisor::machine::{Exit, Seen};
use crate::supervisor::process::{LaunchNode, LaunchSpec, Launched, Signals};

/// A node that a process is started for, and which start of it that one is to take over from.
type Start = (NodeName, Option<Incarnation>);

impl Shell {
    /// Starts one process for these nodes. What came of it, as a fact.
    pub(super) fn launch(&mut self, nodes: &[Start], incarnation: Incarnation) -> Seen {
        // A process runs a node at least.
        let Some((node, _)) = nodes.first().cloned() else { return Seen::Tick };
        match self.try_launch(nodes, incarnation) {
            Ok(pid) => Seen::Launched { node, incarnation, pid },
            Err(error) => {
                let (reason, shortage) = (error.to_string(), is_shortage(&error));
                Seen::LaunchFailed { node, incarnation, reason, shortage }
            }
        }
    }

    fn try_launch(&mut self, nodes: &[Start], incarnation: Incarnation) -> std::io::Result<u32> {
        let given = nodes.iter().map(|(name, succeeds)| self.launch_node(name, incarnation, *succeeds));
        let given = given.collect::<std::io::Result<Vec<LaunchNode>>>()?;
        let names: Arc<[NodeName]> = nodes.iter().map(|(name, _)| name.clone()).collect();
        let spec = LaunchSpec {
            nodes: given,
            cluster: Arc::clone(&self.cluster),
            incarnation,
            output: self.output_of(&names, incarnation),
            notify: None,
        };
        let Launched { pid, exit, signals } = self.launcher.launch(spec)?;
        // One that has ended already is gone by the time anybody looks for it.
        let started = self.launcher.started(pid).unwrap_or_default();
        let root = Some(self.keys.cluster().roots().current);
        self.supervise(&names, incarnation, (pid, started), root, (exit, signals));
        Ok(pid)
    }

    /// Where the lines of a process go that runs these nodes: under its own name when they are several.
    pub(super) fn output_of(&self, nodes: &[NodeName], incarnation: Incarnation) -> NodeOutput {
        let name = nodes.first().map_or_else(NodeName::master, |node| {
            self.machine.name_of_process(node, incarnation).unwrap_or_else(|| node.clone())
        });
        self.logs.of_process(&name, nodes, incarnation, self.width())
    }

    fn launch_node(
        &mut self,
        name: &NodeName,
        incarnation: Incarnation,
        succeeds: Option<Incarnation>,
    ) -> std::io::Result<LaunchNode> {
        let node = self.machine.node(name, incarnation);
        let node = node.ok_or_else(|| std::io::Error::other("it is not configured"))?;
        self.sockets.ensure(&node).map_err(|fault| {
            // With the system's code, where there is one: a shortage is told by it.
            let short = fault.error.code().map(std::io::Error::from_raw_os_error).filter(is_shortage);
            short.unwrap_or_else(|| std::io::Error::other(fault.to_string()))
        })?;
        let keys = self.keys.cluster().start(self.cluster.claims(&node), incarnation, &self.ambient.chance);
        let keys = Arc::new(keys.map_err(std::io::Error::other)?);
        Ok(LaunchNode { listeners: self.sockets.of(&node)?, node, keys, succeeds })
    }

    /// Takes in a process that runs these nodes.
    pub(super) fn supervise(
        &mut self,
        nodes: &Arc<[NodeName]>,
        incarnation: Incarnation,
        (pid, started): (u32, u64),
        root: Option<PublicKey>,
        (exit, signals): (BoxFuture<'static, Exit>, Arc<dyn Signals>),
    ) {
        for node in &**nodes {
            let process =
                Process { nodes: Arc::clone(nodes), pid, root, started, signals: Arc::clone(&signals) };
            self.processes.insert((node.clone(), incarnation), process);
        }
        self.unlisted = true;
        let (events, nodes) = (self.to_self.clone(), Arc::clone(nodes));
        tokio::spawn(async move {
            let exit = exit.await;
            // When the supervisor is gone, nobody wants to know.
            let _ = events.send(Event::Exited { nodes, incarnation, exit }).await;
        });
    }

    /// The length of the longest name of a node or a process.
    fn width(&self) -> usize {
        let names = |node: &ffconfig::Node| {
            let process = node.process.as_ref().map_or(0, |process| process.as_str().len());
            node.name.as_str().len().max(process)
        };
        self.machine.nodes().map(names).max().unwrap_or(0)
    }
}
