//! The process around nodes: its incarnation, its runtime, its processors, its signals, the watch of its loop. Of one node, of
//! several ([`run_nodes`]), or of all of a cluster without a master ([`run_all`]).

use std::io;
use std::sync::Arc;
use std::time::Duration;

use ffambient::Ambient;
use ffconfig::Cluster;
use ffkeys::KeyError;
use ffnet::launch::DEV_ENV;
pub use ffnet::launch::{INCARNATION_ENV, KEY_ENV, SPEAK_ENV, SUCCEEDS_ENV, allow_descriptors};
use ffnet::listen::Inherited;
use ffnet::notify::{self, Notifier};
use ffproto::{Incarnation, NodeNumber};
use fftelemetry::tagged_as;
use nix::sys::stat::{Mode, umask};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;
use tracing::{error, warn};

use crate::app::app::App;
use crate::exec::panics;
use crate::gateway::busy_poll;
use crate::identity::Identity;
use crate::identity::keys::{Startup, keys_of_all};
use crate::identity::lifecycle::Phase;
pub use crate::identity::startup::{KeyFileError, StartupError, incarnation, startup, startups};
use crate::identity::stop::Stop;
use crate::identity::watchdog::{LoopNotice, LoopWatch, Watchdog};
use crate::runtime::in_process::InProcessNet;
use crate::runtime::server::{BuildError, FFServer, RunError};
pub use crate::runtime::shared_process::{
    NodeFailed, NodeFailure, ProcessSettings, ShareError, own_nodes, run_nodes,
};
use crate::runtime::web::DevNotice;

const EVENT_INTERVAL: u32 = 256;

/// The runtime of a node: everything on one thread for `threads: 1`, which is how nodes scale best (by
/// processes); a work-stealing one otherwise.
///
/// # Errors
/// When the system has no threads or descriptors left.
pub fn runtime(threads: usize) -> io::Result<Runtime> {
    let mut builder = if threads <= 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
    if threads > 1 {
        builder.worker_threads(threads);
    }
    tuned(&mut builder).build()
}

/// The runtime of [`run_all`]: one thread, which stays awake for a moment (50 us) between messages of clients that
/// follow each other closely.
///
/// # Errors
/// When the system has no threads or descriptors left.
pub fn runtime_of_all() -> io::Result<Runtime> {
    let mut builder = Builder::new_current_thread();
    tuned(&mut builder);
    busy_poll::build(builder)
}

fn tuned(builder: &mut Builder) -> &mut Builder {
    // Between two looks at the sockets this many tasks are polled: with tokio's 61, a thousand clients cost
    // seventeen looks where four do, and the links' writes gather fewer messages.
    builder.event_interval(EVENT_INTERVAL).enable_all()
}

/// Lets this thread, and the threads that it starts, run on these processors only.
///
/// # Errors
/// When the system refuses: no such processor, or none of them is allowed.
pub fn pin_to_cpus(cpus: &[usize]) -> io::Result<()> {
    let mut set = nix::sched::CpuSet::new();
    for &cpu in cpus {
        set.set(cpu)?;
    }
    Ok(nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set)?)
}

/// Puts the node of this process together: whether it takes over is in the environment
/// (`env`), its loop is watched, and it may have as many descriptors as the system gives.
///
/// # Errors
/// The node cannot be put together, or the system refuses.
pub fn own_node(
    cluster: &Cluster,
    node: &str,
    apps: Vec<App>,
    startup: Startup,
    env: &dyn Fn(&str) -> Option<String>,
    ambient: &Ambient,
) -> Result<FFServer, OwnError> {
    allow_descriptors()?;
    let server = FFServer::with_startup(cluster, node, apps, startup, ambient)?;
    let server = server.own_process(env(SUCCEEDS_ENV).is_some());
    let server = if env(INCARNATION_ENV).is_some() { server.launched_by_master() } else { server };
    let server = told_by_dev(server, env);
    watch_loop(vec![(server.identity().clone(), server.watchdog().clone())], env(notify::ENV))?;
    Ok(server)
}

/// Why a process cannot run its node.
#[derive(Debug, thiserror::Error)]
pub enum OwnError {
    /// The node cannot be put together.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// The system refuses, or the master's word is no number.
    #[error("this process cannot run a node: {0}")]
    System(#[from] io::Error),
}

/// Keeps what this process makes from now on to its user: folders 0700, files 0600. Data, journals and logs hold what players have
/// told the game alone. To be called before there are threads.
pub fn keep_files_private() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// Lets the log say where authors' code has panicked, by file and line; any other panic is told on standard error as ever. To be
/// called in `main`, and again when something else has said how panics are told.
pub(crate) fn tell_panics_by_place() {
    panics::note_places();
}

/// The node with what `master dev` says to its pages, when it runs under it.
pub(crate) fn told_by_dev(server: FFServer, env: &dyn Fn(&str) -> Option<String>) -> FFServer {
    match env(DEV_ENV) {
        Some(file) => server.under_dev(DevNotice::in_file(file.into())),
        None => server,
    }
}

/// Watches from a thread of its own whether the loop of a process turns, and logs where it stands when it does not
/// for a second: the name of the handler is then the last line before the master ends the process. Who listens at
/// the socket `manager` ([`notify::ENV`]) is told that the nodes are ready, and that their loop turns.
///
/// # Errors
/// When the system has no threads left.
pub(crate) fn watch_loop(nodes: Vec<WatchedNode>, manager: Option<String>) -> io::Result<()> {
    const LOOK_EVERY: Duration = Duration::from_millis(250);
    let (mut manager, mut told) = (manager, None);
    #[allow(clippy::disallowed_methods, reason = "it is a thread of its own that sleeps, and not the loop")]
    let watch = move || {
        let (mut watch, mut looked) = (LoopWatch::default(), Instant::now());
        loop {
            std::thread::sleep(LOOK_EVERY);
            let away = looked.elapsed();
            looked = Instant::now();
            // Any node's beat is the loop's.
            let beats = nodes.iter().fold(0_u64, |beats, (_, watchdog)| beats.wrapping_add(watchdog.beats()));
            if let Some(socket) = manager.take() {
                told = ManagerNotifier::new(&socket);
            }
            if let Some(told) = &mut told {
                told.tell(phase_of(nodes.iter().map(|(node, _)| node.lifecycle().phase())), beats);
            }
            match watch.look(beats, away) {
                Some(LoopNotice::Stands(still)) => {
                    error!("the loop has not turned for {still:?}: it is in {}", place(&nodes));
                }
                Some(LoopNotice::TurnsAgain(still)) => warn!("the loop turns again, after {still:?}"),
                None => {}
            }
        }
    };
    std::thread::Builder::new().name("watch".into()).spawn(watch).map(drop)
}

/// A node whose loop is watched.
pub(crate) type WatchedNode = (Identity, Arc<Watchdog>);

/// The place at which the loop of these nodes is.
fn place(nodes: &[WatchedNode]) -> String {
    let polled = nodes.iter().find_map(|(node, watchdog)| Some((node, watchdog.handler()?)));
    match polled {
        Some((node, handler)) if nodes.len() > 1 => format!("{} of {}", handler.name(), node.name()),
        Some((_, handler)) => handler.name().to_owned(),
        None => "no handler (a task or a hook of the app)".to_owned(),
    }
}

/// The phase of a process, of those of its nodes: it is ready when all are, and stops when none serves.
fn phase_of(nodes: impl Iterator<Item = Phase> + Clone) -> Phase {
    let order = [Phase::Starting, Phase::Ready, Phase::Stopping];
    order.into_iter().find(|phase| nodes.clone().any(|node| node == *phase)).unwrap_or(Phase::HandedOver)
}

/// The manager of this process, and what it has been told.
struct ManagerNotifier {
    notifier: Notifier,
    phase: Phase,
    beats: u64,
}

impl ManagerNotifier {
    /// `None` when nobody listens there: a node serves without a manager, too.
    fn new(socket: &str) -> Option<Self> {
        match Notifier::to(socket) {
            Ok(notifier) => Some(Self { notifier, phase: Phase::Starting, beats: 0 }),
            Err(e) => {
                warn!("{}={socket}: nobody is told that the loop turns: {e}", notify::ENV);
                None
            }
        }
    }

    fn tell(&mut self, phase: Phase, beats: u64) {
        if phase != self.phase {
            let taken = match phase {
                Phase::Ready => self.notifier.say(&notify::Word::Ready),
                Phase::Stopping => self.notifier.say(&notify::Word::Stopping),
                Phase::Starting | Phase::HandedOver => true,
            };
            if taken {
                self.phase = phase;
            }
        }
        if beats != self.beats {
            self.beats = beats;
            // When it is not taken, the next one is.
            let _ = self.notifier.say(&notify::Word::Turns);
        }
    }
}

/// Runs every node of a config in this process, with links in memory and without a master. Nodes stop in
/// the order in which a cluster does: those with clients first. From one seed and clock, and on one paused thread, they draw
/// the same each time.
///
/// # Errors
/// The first node that cannot be put together or started; the others are stopped.
pub async fn run_all(
    cluster: &Cluster,
    apps: impl Fn() -> Vec<App>,
    incarnation: Incarnation,
    stop: Stop,
    ambient: &Ambient,
) -> Result<(), AllError> {
    let (hub, chance) = (InProcessNet::default(), ambient.chance.stream("keys"));
    let keys = keys_of_all(&chance)?;
    let (mut running, mut stops) = (JoinSet::new(), Vec::new());
    for (config, number) in cluster.nodes.iter().zip(1..) {
        let own = keys.start(cluster.claims(config), incarnation, &chance)?;
        let startup = Startup::with_keys(own);
        let server = FFServer::with_startup(cluster, config.name.as_str(), apps(), startup, ambient)?;
        let server = server.in_process(hub.clone(), NodeNumber(number));
        let (inner, stop) = (config.netport.is_none(), server.stop_handle());
        let run = tagged_as(config.name.as_str(), server.run(Inherited::default()));
        stops.push((inner, stop, running.spawn(run)));
    }
    stops.sort_by_key(|(inner, ..)| *inner);
    let mut outcome = Ok(());
    tokio::select! {
        () = stop.begun() => {}
        Some(ended) = running.join_next() => outcome = flatten(ended),
    }
    for (_, stop, node) in stops {
        stop.begin(None);
        // One that could not start has ended, and nobody is waited for in its place: the next is not told yet.
        while !node.is_finished()
            && let Some(ended) = running.join_next().await
        {
            outcome = outcome.and(flatten(ended));
        }
    }
    while let Some(ended) = running.join_next().await {
        outcome = outcome.and(flatten(ended));
    }
    outcome
}

fn flatten(ended: Result<Result<(), RunError>, JoinError>) -> Result<(), AllError> {
    Ok(ended??)
}

/// Why a process with all nodes ended.
#[derive(Debug, thiserror::Error)]
pub enum AllError {
    /// A node cannot be put together.
    #[error(transparent)]
    Build(#[from] BuildError),
    /// A node cannot start.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The nodes have no keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A node's task ended by a fault of the framework.
    #[error("a node's task ended")]
    Task(#[from] JoinError),
}

/// SIGTERM and SIGINT stop the node in good order; a second one leaves at once. SIGHUP does so where a person
/// has started the node, whose terminal is gone; a node of a master goes on (`hangup`).
#[allow(clippy::exit, reason = "a second signal means: now")]
pub async fn stop_on_signals(stop: Stop, hangup: Hangup) {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else { return };
    let Ok(mut interrupt) = signal(SignalKind::interrupt()) else { return };
    let Ok(mut hung_up) = signal(SignalKind::hangup()) else { return };
    for exit in [false, true] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hung_up.recv(), if hangup == Hangup::Stops => {}
        }
        if exit {
            std::process::exit(130);
        }
        stop.begin(None);
    }
}

/// SIGUSR1 opens the files of the log again, for as long as this runs.
pub async fn reopen_log_on_signals() {
    let Ok(mut reopen) = signal(SignalKind::user_defined1()) else { return };
    while reopen.recv().await.is_some() {
        if let Some(log) = fftelemetry::current() {
            log.reopen();
        }
    }
}

/// The effect of SIGHUP on a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hangup {
    /// The process stops in good order.
    Stops,
    /// Nothing. A node does not need its master; but the kernel sends SIGHUP to a process that happens to be
    /// stopped (SIGSTOP, a debugger) when its master dies, because nobody is left who would let it go on
    /// (POSIX, `_exit`: orphaned process groups). It comes with SIGCONT, and the node serves on.
    Ignored,
}

impl Hangup {
    /// Of this process: whether a master has started it is in the environment (`env`).
    pub fn of(env: &dyn Fn(&str) -> Option<String>) -> Self {
        if env(INCARNATION_ENV).is_some() { Self::Ignored } else { Self::Stops }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_ready_when_all_of_its_nodes_are_and_stops_when_none_serves() {
        use Phase::{HandedOver, Ready, Starting, Stopping};
        for (nodes, process) in [
            (&[Starting, Ready][..], Starting),
            (&[Ready, Ready], Ready),
            (&[Stopping, Ready, HandedOver], Ready),
            (&[Stopping, HandedOver], Stopping),
            (&[HandedOver], HandedOver),
        ] {
            assert_eq!(phase_of(nodes.iter().copied()), process, "{nodes:?}");
        }
    }
}
