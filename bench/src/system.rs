//! The systems that are measured: how each is started, where it listens, which processes it has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cli::Common;
use crate::floor::{Backend, Floor};
use crate::ours::{self, Cluster};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    FloorEpoll,
    FloorTokioCtTask,
    OursForward,
    OursHandler,
    OursAll,
}

impl System {
    const ALL: [(Self, &'static str); 5] = [
        (Self::FloorEpoll, "floor-epoll"),
        (Self::FloorTokioCtTask, "floor-tokio-ct-task"),
        (Self::OursForward, "ours-forward"),
        (Self::OursHandler, "ours-handler"),
        (Self::OursAll, "ours-all"),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(system, _)| *system == self).map_or("", |(_, name)| name)
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Self::OursForward | Self::OursHandler | Self::OursAll)
    }

    /// The command that its clients send.
    fn command(self) -> u32 {
        match self {
            Self::FloorEpoll | Self::FloorTokioCtTask | Self::OursForward => ours::FORWARDED_COMMAND,
            Self::OursHandler | Self::OursAll => ours::HANDLED_COMMAND,
        }
    }
}

impl std::fmt::Display for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for System {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|(_, name)| *name == text).map(|(system, _)| system);
        found.ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|(_, name)| *name).collect();
            format!("the systems are {}", names.join(", "))
        })
    }
}

/// A process of a system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) pid: i32,
}

/// A system that answers.
pub(crate) struct Running {
    pub(crate) system: System,
    pub(crate) addr: SocketAddr,
    pub(crate) command: u32,
    pub(crate) nodes: Vec<Node>,
    /// Ends the processes with the last system that uses them.
    _processes: Rc<dyn std::any::Any>,
}

impl Running {
    fn new(system: System, addr: SocketAddr, nodes: &[Node], processes: Rc<dyn std::any::Any>) -> Self {
        Self { system, addr, command: system.command(), nodes: nodes.to_vec(), _processes: processes }
    }

    pub(crate) fn pids(&self) -> Vec<i32> {
        self.nodes.iter().map(|node| node.pid).collect()
    }
}

/// The systems of one run. An idle one costs the others nothing, so they all stay up and take turns.
pub(crate) fn start_all(options: &Common) -> anyhow::Result<Vec<Running>> {
    let programs = ours::Programs::find(options)?;
    let mut clusters: BTreeMap<bool, Rc<Cluster>> = BTreeMap::new();
    let mut start = |system: System| -> anyhow::Result<Running> {
        let backend = match system {
            System::FloorEpoll => Backend::Epoll,
            System::FloorTokioCtTask => Backend::TokioCtTask,
            // The two paths are two commands of the same nodes.
            System::OursForward | System::OursHandler | System::OursAll => {
                let in_one = system == System::OursAll;
                let cluster = match clusters.get(&in_one) {
                    Some(cluster) => cluster.clone(),
                    None => Rc::new(Cluster::start(&programs, options, in_one)?),
                };
                clusters.insert(in_one, cluster.clone());
                return Ok(Running::new(system, cluster.addr, &cluster.nodes, cluster.clone()));
            }
        };
        let floor = Rc::new(Floor::start(backend)?);
        Ok(Running::new(system, floor.addr, &floor.nodes, floor.clone()))
    };
    options.systems.iter().map(|&system| start(system)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_is_known_by_its_name() {
        for (system, name) in System::ALL {
            assert_eq!(name.parse(), Ok(system));
            assert_eq!(serde_json::to_string(&system).unwrap(), format!("\"{name}\""));
        }
        assert!("floor".parse::<System>().unwrap_err().contains("ours-forward"));
    }
}
