//! Starting a cluster: every check and every socket first, then the supervisor and the administration.

use std::fmt;
use std::net::TcpListener;
use std::sync::Arc;

use ffambient::Ambient;
use ffconfig::Cluster;
use ffnet::admission::{Admission, Bounds};
use ffnet::handshake::Local;
use ffproto::NodeName;
use ffproto::control::METRICS;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::console::Console;
use crate::descriptors::Shares;
use crate::metrics::ClusterMetrics;
use crate::output::Logs;
use crate::place;
use crate::run::{RosterNode, RosterProcess, RunFolder};
use crate::sockets::{self, PortFault, Sockets};
use crate::supervisor::control::Server;
use crate::supervisor::machine::{End, Found};
use crate::supervisor::process::Launcher;
use crate::supervisor::{Handle, Parts, Shell, Source, TakenOver};

/// Everything that a cluster is started from.
pub struct Setup {
    /// The config, checked against the apps that there are.
    pub cluster: Cluster,
    /// Where a reload reads the config again.
    pub source: Source,
    /// How nodes are started.
    pub launcher: Box<dyn Launcher>,
    /// Where the lines of nodes are shown.
    pub console: Console,
    /// Where the next master finds what runs; without one it finds nothing.
    pub run: Option<RunFolder>,
    /// How many connections strangers may hold open.
    pub descriptors: Shares,
    /// The clock and the chance of the supervisor.
    pub ambient: Ambient,
}

/// Why nothing was started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Ports that cannot be listened on: all of them.
    #[error("{}", Ports(.0))]
    Ports(Vec<PortFault>),
    /// The administration cannot start.
    #[error("master.webport: {0}")]
    Admin(String),
}

struct Ports<'a>(&'a [PortFault]);

impl fmt::Display for Ports<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

/// A cluster that is supervised by this process.
pub struct RunningMaster {
    handle: Handle,
    supervisor: JoinHandle<End>,
    control: CancellationToken,
    admin: Admin,
}

impl RunningMaster {
    /// To look at it and to command it.
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Waits until everything has ended, and closes what is left.
    pub async fn ended(self) -> End {
        let end = self.supervisor.await;
        self.control.cancel();
        self.admin.stop().await;
        end.unwrap_or_else(|panic| End::Failed(format!("the supervisor failed: {panic}")))
    }
}

/// Opens everything and begins to start the nodes; they come up while this has returned already
/// ([`Handle::up`] waits for them).
///
/// # Errors
/// [`StartError`]; nothing is left open and no process was started.
pub async fn start(setup: Setup) -> Result<RunningMaster, StartError> {
    let Setup { cluster, source, mut launcher, console, run, descriptors, ambient } = setup;
    let cluster = Arc::new(cluster);
    let left = run.as_ref().and_then(RunFolder::roster).map_or_else(Vec::new, |roster| roster.nodes);
    let living = living(&left, &mut *launcher);
    // What an adopted node listens on it brings itself.
    let mut not_here = place::elsewhere(&cluster);
    not_here.extend(living.iter().map(|process| process.found.node.clone()));
    let (sockets, control, web) = open_sockets(&cluster, &not_here).map_err(StartError::Ports)?;

    let logs = Logs::new(console);
    let local = Arc::new(local(&cluster, &ambient));
    let chance = ambient.chance.stream("admin");
    let metrics = ClusterMetrics::new();
    let (cluster_of, logs_of, meter) = (Arc::clone(&cluster), logs.clone(), metrics.meter());
    let parts = Parts { cluster: cluster_of, sockets, launcher, source, logs: logs_of, run, meter, ambient };
    let (mut shell, events) = Shell::new(parts);
    let numbers: Vec<_> = left.into_iter().map(|node| (node.name, node.number)).collect();
    shell.take_over(&numbers, living);
    let feed = shell.events();
    let gatherer = metrics.gatherer();
    let handle = Handle { events: shell.to_self.clone(), view: shell.view.subscribe(), logs, feed, metrics };
    let admin = admin::start(&cluster.master, web, handle.clone(), descriptors.admin, &chance).await;
    let admin = admin.map_err(StartError::Admin)?;
    let stop = CancellationToken::new();
    if let Some(missing) = descriptors.missing(cluster.nodes.len() - place::elsewhere(&cluster).len()) {
        warn!(
            "the limit of open files (ulimit -n) is too low for so many nodes: {missing} more would be enough"
        );
    }
    let server = Server {
        admission: Admission::new(Bounds {
            connections: descriptors.unproven,
            per_block: descriptors.unproven.div_ceil(4),
        }),
        registered: Arc::new(Semaphore::new(descriptors.registered)),
        local,
        view: handle.view.clone(),
        events: handle.events.clone(),
        gatherer,
        stop: stop.clone(),
    };
    let master = &cluster.master;
    let (control_at, admin_at) = (master.rootport, master.webport);
    info!("cluster `{}`: control at {control_at}, administration at http://{admin_at}", cluster.name);
    tokio::spawn(server.serve(control));
    let supervisor = tokio::spawn(shell.run(events));
    Ok(RunningMaster { handle, supervisor, control: stop, admin })
}

/// The processes of an earlier master that live. One that cannot be watched is left alone, with a line.
fn living(left: &[RosterNode], launcher: &mut dyn Launcher) -> Vec<TakenOver> {
    let mut living = Vec::new();
    for node in left {
        for &RosterProcess { incarnation, pid, started } in &node.processes {
            let found = Found { node: node.name.clone(), incarnation, pid };
            match launcher.adopt(pid, started) {
                Ok(Some(adopted)) => living.push(TakenOver { found, started, adopted }),
                Ok(None) => {}
                Err(error) => warn!("{} (pid {pid}) cannot be adopted: {error}", node.name),
            }
        }
    }
    living
}

/// All ports that cannot be opened are found in one run, the master's own included.
fn open_sockets(
    cluster: &Cluster,
    not_here: &[NodeName],
) -> Result<(Sockets, tokio::net::TcpListener, TcpListener), Vec<PortFault>> {
    let mut sockets = Sockets::default();
    let mut faults = sockets.open(cluster, not_here).err().unwrap_or_default();
    let control = sockets::open("master.rootport", cluster.master.rootport);
    let web = sockets::open("master.webport", cluster.master.webport);
    match (control, web) {
        (Ok(control), Ok(web)) if faults.is_empty() => {
            let at = cluster.master.rootport;
            let control = tokio::net::TcpListener::from_std(control);
            let unusable = |source| ffnet::listen::ListenError::new(at, source);
            control
                .map(|control| (sockets, control, web))
                .map_err(|e| vec![PortFault { key: "master.rootport".into(), error: unusable(e) }])
        }
        (control, web) => {
            faults.extend(web.err().into_iter().chain(control.err()));
            Err(faults)
        }
    }
}

/// What the master says of itself to nodes.
fn local(cluster: &Cluster, ambient: &Ambient) -> Local {
    Local {
        cluster: cluster.name.clone(),
        name: NodeName::master(),
        kind: "master".into(),
        incarnation: ffproto::Incarnation::next(ambient.clock.now_ms(), None),
        methods: vec![METRICS.to_owned()],
        token: cluster.master.token.clone().unwrap_or_default(),
        chance: ambient.chance.stream("control"),
    }
}
