//! The systems that are measured: how each is started, where it listens, which processes it has.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::cli::Common;
use crate::floor::{Backend, Floor};
use crate::ours::{self, Cluster, Setup};

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    FloorEpoll,
    FloorTokioCtTask,
    OursForward,
    OursForwardTls,
    OursHandler,
    OursAll,
    OursWebsocket,
    FloorBroadcast,
    OursBroadcast,
    OursLogin,
}

impl System {
    /// With its name, and whether `--systems` may name it: it answers a request by its body, at any point.
    const ALL: [(Self, &'static str, bool); 10] = [
        (Self::FloorEpoll, "floor-epoll", true),
        (Self::FloorTokioCtTask, "floor-tokio-ct-task", true),
        (Self::OursForward, "ours-forward", true),
        (Self::OursForwardTls, "ours-forward-tls", true),
        (Self::OursHandler, "ours-handler", true),
        (Self::OursAll, "ours-all", true),
        (Self::OursWebsocket, "ours-websocket", true),
        (Self::FloorBroadcast, "floor-broadcast", false),
        (Self::OursBroadcast, "ours-broadcast", false),
        (Self::OursLogin, "ours-login", false),
    ];

    pub(crate) fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(system, ..)| *system == self).map_or("", |(_, name, _)| name)
    }

    pub(crate) fn is_ours(self) -> bool {
        !matches!(self, Self::FloorEpoll | Self::FloorTokioCtTask | Self::FloorBroadcast)
    }

    /// The command that its clients send.
    fn command(self) -> u32 {
        match self {
            Self::FloorEpoll | Self::FloorTokioCtTask => ours::FORWARDED_COMMAND,
            Self::OursForward | Self::OursForwardTls | Self::OursWebsocket | Self::OursLogin => {
                ours::FORWARDED_COMMAND
            }
            Self::OursHandler | Self::OursAll => ours::HANDLED_COMMAND,
            Self::FloorBroadcast | Self::OursBroadcast => ours::BROADCAST_COMMAND,
        }
    }

    /// Which cluster it is a path through; `None` for a floor.
    fn setup(self) -> Option<Setup> {
        match self {
            Self::FloorEpoll | Self::FloorTokioCtTask | Self::FloorBroadcast => None,
            Self::OursForward | Self::OursHandler | Self::OursWebsocket | Self::OursBroadcast => {
                Some(Setup::Processes)
            }
            Self::OursForwardTls => Some(Setup::Encrypted),
            Self::OursAll => Some(Setup::OneProcess),
            Self::OursLogin => Some(Setup::Login),
        }
    }

    /// What its clients must send first.
    pub(crate) fn login(self) -> Option<u32> {
        (self == Self::OursLogin).then_some(ours::LOGIN_COMMAND)
    }

    pub(crate) fn speaks_websocket(self) -> bool {
        self == Self::OursWebsocket
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
        let mut named = Self::ALL.into_iter().filter(|(.., named)| *named);
        let found = named.clone().find(|(_, name, _)| *name == text).map(|(system, ..)| system);
        found.ok_or_else(|| {
            let names: Vec<_> = named.by_ref().map(|(_, name, _)| name).collect();
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
    /// Where its master tells about it.
    pub(crate) web: Option<SocketAddr>,
    /// Ends the processes with the last system that uses them.
    _processes: Rc<dyn std::any::Any>,
}

impl Running {
    fn new(system: System, addr: SocketAddr, nodes: &[Node], processes: Rc<dyn std::any::Any>) -> Self {
        let (command, nodes, web) = (system.command(), nodes.to_vec(), None);
        Self { system, addr, command, nodes, web, _processes: processes }
    }

    pub(crate) fn pids(&self) -> Vec<i32> {
        self.nodes.iter().map(|node| node.pid).collect()
    }
}

/// The systems of one run. An idle one costs the others nothing, so they all stay up and take turns.
pub(crate) fn start_all(systems: &[System], options: &Common) -> anyhow::Result<Vec<Running>> {
    let programs = ours::Programs::find(systems, options)?;
    let mut clusters: BTreeMap<Setup, Rc<Cluster>> = BTreeMap::new();
    let mut start = |system: System| -> anyhow::Result<Running> {
        let Some(setup) = system.setup() else {
            let floor = Rc::new(match system {
                System::FloorBroadcast => Floor::start_broadcast()?,
                System::FloorTokioCtTask => Floor::start(Backend::TokioCtTask)?,
                _ => Floor::start(Backend::Epoll)?,
            });
            return Ok(Running::new(system, floor.addr, &floor.nodes, floor.clone()));
        };
        // Several paths are commands of the same nodes.
        let cluster = match clusters.get(&setup) {
            Some(cluster) => cluster.clone(),
            None => Rc::new(Cluster::start(&programs, options, setup)?),
        };
        clusters.insert(setup, cluster.clone());
        let running = Running::new(system, cluster.addr, &cluster.nodes, cluster.clone());
        Ok(Running { web: cluster.web, ..running })
    };
    systems.iter().map(|&system| start(system)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_is_known_by_its_name() {
        for (system, name, named) in System::ALL {
            assert_eq!(name.parse().ok(), named.then_some(system));
            assert_eq!(serde_json::to_string(&system).unwrap(), format!("\"{name}\""));
        }
        assert!("floor".parse::<System>().unwrap_err().contains("ours-forward"));
    }
}
