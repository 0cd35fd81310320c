//! Starting a cluster: every check and every socket first, then the supervisor and the administration.

use std::fmt;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ffambient::Ambient;
use ffconfig::Cluster;
use ffkeys::KeyError;
use ffnet::admission::{Admission, Bounds};
use ffnet::key_desk::Desk;
use ffproto::{NodeName, Versions};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::admin::{self, Admin};
use crate::audit::Audit;
use crate::console::Console;
use crate::descriptors::Shares;
use crate::keys::MasterKeys;
use crate::metrics::ClusterMetrics;
use crate::output::Logs;
use crate::place;
use crate::run::{RosterNode, RosterProcess, RunError, RunFolder};
use crate::sockets::{self, PortFault, Sockets};
use crate::source::Source;
use crate::supervisor::control::Server;
use crate::supervisor::event::Event;
use crate::supervisor::machine::{End, Found};
use crate::supervisor::operators::Operators;
use crate::supervisor::process::Launcher;
use crate::supervisor::rotation::Keyring;
use crate::supervisor::{Handle, Parts, Shell, TakenOver};

/// After a failed accept at the key desk, before the next.
const DESK_PAUSE: Duration = Duration::from_millis(100);

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
    /// Where it is written down who commands the cluster: the path of the files, without their ends. Without one it is shown only.
    pub audit: Option<PathBuf>,
    /// Who the nodes are, proven.
    pub keys: MasterKeys,
    /// The versions of the protocol between nodes that the master speaks.
    pub versions: Versions,
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
    /// What the master before this one has left cannot be read.
    #[error(transparent)]
    Left(#[from] RunError),
    /// The master has no key of its own.
    #[error(transparent)]
    Key(#[from] KeyError),
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
    let Setup { cluster, source, mut launcher, console, run, audit, keys, versions, descriptors, ambient } =
        setup;
    let cluster = Arc::new(cluster);
    let left = run.as_ref().map(RunFolder::roster).transpose()?.flatten();
    let left = left.map_or_else(Vec::new, |roster| roster.nodes);
    let living = living(&left, &mut *launcher);
    // What an adopted node listens on it brings itself.
    let mut not_here = place::elsewhere(&cluster);
    not_here.extend(living.iter().flat_map(|process| &process.found).map(|found| found.node.clone()));
    let (sockets, control, web) = open_sockets(&cluster, &not_here).map_err(StartError::Ports)?;

    let logs = Logs::new(console);
    let keys = Keyring::new(keys, cluster.name.clone(), versions, &ambient)?;
    let (local, operators) = (keys.local(), Operators::of(&cluster.master.operators));
    let audit = Audit::open(audit, ambient.clock.clone());
    let desk = run.as_ref().and_then(open_desk);
    let chance = ambient.chance.stream("admin");
    let metrics = ClusterMetrics::new();
    let (cluster_of, logs_of, meter) = (Arc::clone(&cluster), logs.clone(), metrics.meter());
    let parts = Parts {
        cluster: cluster_of,
        sockets,
        launcher,
        source,
        logs: logs_of,
        run,
        keys,
        meter,
        operators: operators.clone(),
        ambient,
    };
    let (mut shell, events) = Shell::new(parts);
    let numbers: Vec<_> = left.into_iter().map(|node| (node.name, node.number)).collect();
    shell.take_over(&numbers, living);
    let feed = shell.events();
    let gatherer = metrics.gatherer();
    let (events_of, view) = (shell.to_self.clone(), shell.view.subscribe());
    let handle = Handle { events: events_of, view, logs, feed, metrics, audit };
    let admin =
        admin::start(&cluster.master, web, operators, handle.clone(), descriptors.admin, &chance).await;
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
        encrypt: cluster.master.encrypt,
        view: handle.view.clone(),
        events: handle.events.clone(),
        gatherer,
        stop: stop.clone(),
    };
    let master = &cluster.master;
    let scheme = if master.tls.is_some() { "https" } else { "http" };
    let (control_at, admin_at) = (master.rootport, master.webport);
    info!("cluster `{}`: control at {control_at}, administration at {scheme}://{admin_at}", cluster.name);
    tokio::spawn(server.serve(control));
    if let Some(desk) = desk {
        let (stop, events) = (stop.clone(), handle.events.clone());
        tokio::spawn(async move { stop.run_until_cancelled(serve_desk(desk, events)).await });
    }
    let supervisor = tokio::spawn(shell.run(events));
    Ok(RunningMaster { handle, supervisor, control: stop, admin })
}

/// The processes of an earlier master that live. One that cannot be watched is left alone, with a line.
fn living(left: &[RosterNode], launcher: &mut dyn Launcher) -> Vec<TakenOver> {
    let mut living: Vec<TakenOver> = Vec::new();
    for node in left {
        for &RosterProcess { incarnation, pid, started } in &node.processes {
            let found = Found { node: node.name.clone(), incarnation, pid };
            // A process of several nodes stands there once for each.
            let same = |process: &&mut TakenOver| {
                (process.found[0].pid, process.found[0].incarnation, process.started)
                    == (pid, incarnation, started)
            };
            if let Some(process) = living.iter_mut().find(same) {
                process.found.push(found);
                continue;
            }
            match launcher.adopt(pid, started) {
                Ok(Some(adopted)) => living.push(TakenOver { found: vec![found], started, adopted }),
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

/// Where nodes that are started by hand get their keys. Without it the cluster runs all the same.
fn open_desk(run: &RunFolder) -> Option<Desk> {
    let opened = Desk::open(run.path());
    let failed = |e| warn!("{}: {e}: nodes that are started by hand get no keys", run.path().display());
    opened.map_err(failed).ok()
}

async fn serve_desk(desk: Desk, events: mpsc::Sender<Event>) {
    loop {
        match desk.next().await {
            Ok(asking) => {
                let (reply, answer) = oneshot::channel();
                let (node, incarnation) = (asking.name.clone(), asking.incarnation);
                if events.send(Event::KeyAsked { node, incarnation, reply }).await.is_err() {
                    return;
                }
                tokio::spawn(async move {
                    let answer = answer.await.unwrap_or_else(|_| Err("the master is stopping".into()));
                    asking.answer(answer.as_ref().map(|keys| keys.as_slice()).map_err(String::as_str)).await;
                });
            }
            Err(error) => {
                warn!(limited_by = "", "the key desk cannot accept: {error}");
                tokio::time::sleep(DESK_PAUSE).await;
            }
        }
    }
}
