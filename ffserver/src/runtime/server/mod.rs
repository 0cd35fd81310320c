//! A node as a server: put together from its config and its app, started, run until it is stopped or replaced, and stopped
//! in order.

mod assembly;
mod built_in;
mod errors;
mod listeners;
mod presence;
mod shut_down;
mod start;

use std::sync::Arc;
use std::time::Duration;

use ffambient::Ambient;
use ffconfig::Finding;
use ffnet::listen::Inherited;
use ffnet::transport::{Transport, tcp};
use ffproto::control::ToMaster;
use ffproto::credential::Claims;
use ffproto::protocol::Protocols;
use ffproto::{Incarnation, NodeNumber};
use ffstore::Registered;
use fftelemetry::tagged;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::app::app::{App, Mounts};
use crate::app::client_protocol::protocols_of;
use crate::app::hooks::Hooks;
use crate::cluster::configured_routes::ConfiguredRoutes;
use crate::exec::tables::{HandlerContext, HandlerTables};
use crate::handover::receiver::TakeOverError;
use crate::handover::sender::hand_over;
use crate::identity::Identity;
use crate::identity::counters::count;
use crate::identity::key_by_hand;
use crate::identity::keys::{KeyBringer, Startup};
use crate::identity::lifecycle::{KillList, Phase, Tasks};
use crate::identity::stop::Stop;
use crate::identity::watchdog::Watchdog;
use crate::node::conf::ConfType;
use crate::node::{Node, States};
use crate::runtime::control::MasterNotice;
use crate::runtime::discovery::Discovery;
use crate::runtime::discovery::backend::Backend;
use crate::runtime::in_process::InProcessNet;
use crate::runtime::web::DevNotice;
use crate::session::local::frames;
use assembly::{Content, Foundation};
use built_in::BuiltIn;
use start::{ControlTask, RunningNode};

#[cfg(test)]
pub(crate) use assembly::{bare, bare_speaking};
pub use errors::{BuildError, RunError};

/// A node, put together and not yet running.
// Fields: what config, app and program give a node; each goes to another part of it when the node starts.
pub struct FFServer {
    cluster: ffconfig::Cluster,
    identity: Identity,
    handlers: FirstHandlers,
    hooks: Hooks,
    states: States,
    tables: Vec<Registered>,
    mounts: Mounts,
    /// What `master dev` says to the node's pages, when the node runs under it.
    dev: Option<DevNotice>,
    /// Whether a reload loses state that the app has; the master is told so by a counter.
    loses_state: bool,
    /// Whether the config has a `conf` that no type of the app reads.
    ignored_conf: bool,
    edge: ClientEdge,
    stop: Stop,
    place: NodePlace,
    /// The program's own discovery; `None` is that of the node's place.
    discovery: Option<Backend>,
    /// What brings the node its keys while it runs, until it runs.
    key_bringer: Option<KeyBringer>,
    /// The node, as soon as it is whole.
    whole: watch::Sender<Option<Node>>,
}

/// The node of that name, and the app that it runs.
fn node_and_app(
    cluster: &ffconfig::Cluster,
    name: &str,
    apps: Vec<App>,
) -> Result<(ffconfig::Node, App), BuildError> {
    let config = cluster.node(name).cloned().ok_or_else(|| {
        let nodes: Vec<&str> = cluster.nodes.iter().map(|node| node.name.as_str()).collect();
        let (known, nearest) = among(name, &nodes);
        BuildError::NoNode { name: name.to_owned(), known, nearest }
    })?;
    let names: Vec<&str> = apps.iter().map(App::name).collect();
    let app = apps.into_iter().find(|app| app.name() == config.app).ok_or_else(|| {
        let (node, app, (known, nearest)) =
            (config.name.clone(), config.app.clone(), among(&config.app, &names));
        BuildError::NoApp { node, app, known, nearest }
    })?;
    Ok((config, app))
}

/// Keys that are there are the node's own.
fn check_keys(identity: &Identity, bringer: &KeyBringer) -> Result<(), BuildError> {
    match bringer.to.borrow().as_ref().filter(|keys| !identity.owns(keys)) {
        None => Ok(()),
        Some(keys) => {
            let Claims { cluster, name, kind, .. } = keys.claims().clone();
            let (node, incarnation) = (identity.name().clone(), keys.incarnation());
            Err(BuildError::Key { node, name, kind, incarnation, cluster })
        }
    }
}

/// The node's `conf` as the app's type, for its states.
fn conf_of(app: &App, config: &ffconfig::Node) -> Result<States, Box<Finding>> {
    let read = |conf: &ConfType| Ok((conf.id(), conf.read(&config.conf).map_err(Box::new)?));
    app.conf.iter().map(read).collect()
}

/// The handlers that a node starts with.
struct FirstHandlers {
    tables: Arc<HandlerTables>,
    /// What the tables take clients' messages for; the transit has the same, and knows a target by its place in memory.
    targets: Arc<ConfiguredRoutes>,
    watchdog: Arc<Watchdog>,
}

/// How clients speak with the node.
struct ClientEdge {
    protocols: Arc<Protocols>,
    transport: Arc<dyn Transport>,
}

impl ClientEdge {
    /// Of an app, as the config wants it; else what is wrong.
    fn of(app: &App, config: &ffconfig::Node) -> Result<Self, Vec<String>> {
        let protocols = protocols_of(&app.protocols, frames(&config.client), config);
        // The name says over what a connection of another process goes on.
        if app.brings_transport && app.transport.name() == tcp::NAME {
            let mut faults =
                vec!["the app's transport is called `tcp`, which is the built-in one".to_owned()];
            faults.extend(protocols.err().map(|fault| fault.to_string()));
            return Err(faults);
        }
        let protocols = Arc::new(protocols.map_err(|fault| vec![fault.to_string()])?);
        Ok(Self { protocols, transport: app.transport.clone() })
    }
}

/// Where a node runs.
enum NodePlace {
    /// By itself, with a master that may be there.
    Alone,
    /// In a process that hosts all nodes of its cluster.
    InProcess(InProcessNet, NodeNumber),
    /// In a process of its own, `launched` by a master or by hand; with `succeeds` it takes over from an old one. With `shared` the
    /// process is also that of others.
    OwnProcess { succeeds: bool, launched: bool, shared: Option<SharedProcess> },
}

/// A process that several nodes share, and not all of their cluster.
struct SharedProcess {
    /// Where the nodes of the process link in memory.
    net: InProcessNet,
    /// The number of nodes that it was started with.
    members: u32,
}

impl FFServer {
    /// Puts the node `name` of `cluster` together, with its app from `apps`, on the system's clock and chance. Nothing is opened.
    /// It has no keys, so it links to nobody: see [`FFServer::with_startup`].
    ///
    /// # Errors
    /// [`BuildError`], with every fault of the app at once.
    pub fn new(
        cluster: &ffconfig::Cluster,
        name: &str,
        apps: Vec<App>,
        incarnation: Incarnation,
    ) -> Result<Self, BuildError> {
        Self::with_startup(cluster, name, apps, Startup::without_keys(incarnation), &Ambient::system())
    }

    /// The same with keys, and on the clock and the chance of `ambient`, of which the node draws from a stream of its own.
    ///
    /// ```
    /// use ffserver::keys::{ClusterKeys, ClusterSecret, Startup};
    /// use ffserver::{Ambient, App, FFServer};
    ///
    /// /// A program that runs nodes without a master makes their keys itself, all of one secret.
    /// fn server(cluster: &ffconfig::Cluster, name: &str) -> Result<FFServer, Box<dyn std::error::Error>> {
    ///     let ambient = Ambient::system();
    ///     let secret = ClusterSecret::of_token("a token of the program", &cluster.name);
    ///     let keys = ClusterKeys::new(&secret, 0, None)?;
    ///     let node = cluster.node(name).ok_or("no such node")?;
    ///     let incarnation = ffserver::discovery::Incarnation(ambient.clock.now_ms());
    ///     let startup = Startup::with_keys(keys.start(cluster.claims(node), incarnation, &ambient.chance)?);
    ///     Ok(FFServer::with_startup(cluster, name, vec![App::new("game")], startup, &ambient)?)
    /// }
    /// ```
    ///
    /// # Errors
    /// As [`FFServer::new`], and [`BuildError::Key`] when the keys are not of that start of that node.
    pub fn with_startup(
        cluster: &ffconfig::Cluster,
        name: &str,
        apps: Vec<App>,
        startup: Startup,
        ambient: &Ambient,
    ) -> Result<Self, BuildError> {
        Self::with_tasks(cluster, name, apps, startup, ambient, Tasks::default())
    }

    /// A node of a test, whose tasks end when the list is killed.
    pub(crate) fn killed_by(
        cluster: &ffconfig::Cluster,
        name: &str,
        apps: Vec<App>,
        startup: Startup,
        ambient: &Ambient,
        list: KillList,
    ) -> Result<Self, BuildError> {
        Self::with_tasks(cluster, name, apps, startup, ambient, Tasks::killed_by(list))
    }

    fn with_tasks(
        cluster: &ffconfig::Cluster,
        name: &str,
        apps: Vec<App>,
        startup: Startup,
        ambient: &Ambient,
        tasks: Tasks,
    ) -> Result<Self, BuildError> {
        let (config, mut app) = node_and_app(cluster, name, apps)?;
        let Startup { incarnation, keys, versions } = startup;
        let (own_keys, key_bringer) = keys.begin(versions);
        let identity = Identity::new(cluster, config, incarnation, own_keys, ambient, tasks);
        check_keys(&identity, &key_bringer)?;
        let (config, watchdog) = (identity.config(), Arc::new(Watchdog::new()));
        let targets = Arc::new(ConfiguredRoutes::of(cluster, config));
        let context = HandlerContext {
            config,
            targets: &targets,
            has_state: &|id| app.states.contains_key(&id),
            hooks_need_sessions: app.hooks.need_sessions(),
            watchdog: &watchdog,
            metrics: identity.metrics(),
        };
        let lacking = BuiltIn::HERE.lacking(cluster, config);
        let built = HandlerTables::build(app.routes.clone(), &context);
        let (tables, edge) = match (built, ClientEdge::of(&app, config), conf_of(&app, config)) {
            (Ok(tables), Ok(edge), Ok(conf)) if lacking.is_empty() => {
                app.states.extend(conf);
                (Arc::new(tables), edge)
            }
            (built, edge, conf) => {
                let mut faults = lacking;
                faults.extend(built.err().into_iter().flatten());
                faults.extend(edge.err().into_iter().flatten());
                let (app, node) = (app.name.to_owned(), config.name.clone());
                return Err(BuildError::Faults { app, node, faults, conf: conf.err() });
            }
        };
        let ignored_conf = config.conf.is_given() && app.conf.is_none();
        let stop = Stop::new(config.drain);
        let loses_state = app.loses_state();
        if loses_state {
            count(&identity.counters().state_without_freeze);
        }
        Ok(Self {
            identity,
            cluster: cluster.clone(),
            handlers: FirstHandlers { tables, targets, watchdog },
            hooks: app.hooks,
            states: app.states,
            tables: app.tables,
            mounts: app.mounts,
            dev: None,
            loses_state,
            ignored_conf,
            edge,
            stop,
            place: NodePlace::Alone,
            discovery: None,
            key_bringer: Some(key_bringer),
            whole: watch::Sender::new(None),
        })
    }

    /// What the config says of the node.
    pub fn config(&self) -> &ffconfig::Node {
        self.identity.config()
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    pub(crate) fn watchdog(&self) -> &Arc<Watchdog> {
        &self.handlers.watchdog
    }

    pub(crate) fn cluster(&self) -> &ffconfig::Cluster {
        &self.cluster
    }

    pub(crate) fn tables(&self) -> &[Registered] {
        &self.tables
    }

    /// The node, from when it is whole.
    pub(crate) fn whole(&self) -> watch::Receiver<Option<Node>> {
        self.whole.subscribe()
    }

    /// Stops it: on a signal, or at the end of a test.
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Makes this a node of a process that hosts all nodes of its cluster: its links are in memory, `hub`
    /// is where the nodes find each other, and there is no master. `number` must be its own in the process.
    #[must_use]
    pub fn in_process(mut self, hub: InProcessNet, number: NodeNumber) -> Self {
        self.place = NodePlace::InProcess(hub, number);
        self
    }

    /// Makes this the node of a process of its own: a new master may take the listening sockets back and give
    /// it new standard streams. With `succeeds` it takes over from a predecessor of the node, which serves
    /// until this one can ([`SUCCEEDS_ENV`](crate::process::SUCCEEDS_ENV)).
    #[must_use]
    pub fn own_process(mut self, succeeds: bool) -> Self {
        self.place = NodePlace::OwnProcess { succeeds, launched: succeeds, shared: None };
        self
    }

    /// Makes the process of this node one that it shares with others, `members` with itself: it links in memory to those that are
    /// given the same `net`, and to any other over TCP.
    #[must_use]
    pub(crate) fn shares_process(mut self, net: InProcessNet, members: u32) -> Self {
        if let NodePlace::OwnProcess { shared, .. } = &mut self.place {
            *shared = Some(SharedProcess { net, members });
        }
        self
    }

    /// Lets the node's pages show what `master dev` writes into that file.
    #[must_use]
    pub(crate) fn under_dev(mut self, notice: DevNotice) -> Self {
        self.dev = Some(notice);
        self
    }

    /// Makes a master's this node of a process of its own, which is of no use when both cannot speak with each other.
    #[must_use]
    pub(crate) fn launched_by_master(mut self) -> Self {
        if let NodePlace::OwnProcess { launched, .. } = &mut self.place {
            *launched = true;
        }
        self
    }

    /// Makes the node find others, and be found, by a backend of the program's own: an etcd, a NATS, a table. Nodes that no
    /// config names come and go while the node runs, see [`Discovery`]. Its number is the backend's; a master goes on
    /// supervising it, and is not asked where its parents are.
    ///
    /// A node without a netport that is stopped leaves discovery first, and stops when its neighbours have nothing under way
    /// there any more, at most for its `drain_s`.
    ///
    /// ```
    /// use ffserver::discovery::{Discovery, DiscoveryError, NodeNumber, OwnNode, Snapshot};
    /// use ffserver::{App, FFServer};
    /// use tokio::sync::watch;
    ///
    /// /// Shows nobody: the node is alone, and has the number 1.
    /// struct Nobody;
    ///
    /// impl Discovery for Nobody {
    ///     async fn run(
    ///         &mut self,
    ///         own: &mut watch::Receiver<OwnNode>,
    ///         shown: &watch::Sender<Snapshot>,
    ///     ) -> Result<(), DiscoveryError> {
    ///         shown.send_modify(|snapshot| snapshot.number = Some(NodeNumber(1)));
    ///         let _ = own.wait_for(|own| own.leaving).await;
    ///         Ok(())
    ///     }
    /// }
    ///
    /// fn server(cluster: &ffconfig::Cluster) -> Result<FFServer, ffserver::BuildError> {
    ///     let incarnation = ffserver::discovery::Incarnation(1);
    ///     Ok(FFServer::new(cluster, "game", vec![App::new("game")], incarnation)?.discovery(Nobody))
    /// }
    /// ```
    #[must_use]
    pub fn discovery(mut self, discovery: impl Discovery) -> Self {
        self.discovery = Some(Backend::new(discovery));
        self
    }

    /// Whether the node leaves discovery before it stops. The master does not show that to others; and what a node with clients
    /// of its own calls for them is not over while they are there.
    fn leaves_first(&self) -> bool {
        let shows = self.discovery.is_some() || matches!(self.place, NodePlace::InProcess(..));
        shows && self.config().netport.is_none()
    }

    /// The nodes that take over one after the other with this one, itself included.
    fn members_of_process(&self) -> u32 {
        match &self.place {
            NodePlace::OwnProcess { shared: Some(shared), .. } => shared.members,
            _ => 1,
        }
    }

    fn succeeds(&self) -> bool {
        matches!(self.place, NodePlace::OwnProcess { succeeds: true, .. })
    }

    /// Runs the node until it is stopped, by the master or through [`FFServer::stop_handle`]. Uses the
    /// inherited sockets; a port without one is opened here (a node started by hand).
    ///
    /// # Errors
    /// [`RunError`] when it cannot start; the master has been told. After a start it always ends well.
    pub async fn run(mut self, inherited: Inherited) -> Result<(), RunError> {
        self.warn_of_losses();
        let foundation = Foundation::new(
            self.identity.clone(),
            &self.cluster,
            self.handlers.targets.clone(),
            self.edge.protocols.clone(),
        );
        let bringer = self.key_bringer.take();
        let _bringing = bringer.map(|bringer| {
            AbortOnDropHandle::new(tokio::spawn(tagged(key_by_hand::bring(self.identity.clone(), bringer))))
        });
        let (word, mut control) = self.start_control(&foundation);
        let started = Instant::now();
        let outcome = tokio::select! {
            outcome = self.start(foundation, inherited, &control, &word) => outcome,
            bad = control.unspoken() => Err(RunError::Master(bad)),
        };
        match outcome {
            Ok(running) => {
                let (ms, name) = (started.elapsed().as_millis(), self.identity.name());
                info!(
                    kind = self.identity.kind(),
                    pid = std::process::id(),
                    version = env!("FF_VERSION"),
                    "{name} is ready after {ms} ms"
                );
                self.identity.lifecycle().set_phase(Phase::Ready);
                control.presence.advertise(running.address);
                word.send_replace(MasterNotice::Say(running.ready()));
                let ended = self.run_on(running, &mut control, &word).await;
                control.task.abort();
                info!("{} has stopped", self.identity.name());
                ended.map_err(Into::into)
            }
            Err(cannot) => {
                self.tell_cannot_start(&cannot, &control, &word).await;
                control.task.abort();
                Err(cannot)
            }
        }
    }

    /// A `conf` that no type of the app reads; `None` when there is none.
    pub(crate) fn ignored_conf(&self) -> Option<Finding> {
        let app = &self.config().app;
        self.ignored_conf.then(|| {
            self.config().conf.finding(format!("app {app} has no .conf::<T>(), so no type of it reads this"))
        })
    }

    /// What the config says in vain, and what a reload loses: only a node with a process of its own is reloaded.
    fn warn_of_losses(&self) {
        if let Some(ignored) = self.ignored_conf() {
            warn!("{ignored}");
        }
        if let (NodePlace::OwnProcess { .. }, Some(lost)) = (&self.place, self.lost_state()) {
            warn!("{lost}");
        }
    }

    /// What becomes of an app's state that nobody hands over, and what to do; `None` when a reload loses none.
    pub(crate) fn lost_state(&self) -> Option<String> {
        let app = &self.config().app;
        self.loses_state.then(|| {
            format!(
                "app {app} has .state(…) and no .freeze(…): a reload loses it (App::freeze and thaw hand it over; \
                 App::state_may_be_lost says that it may go)"
            )
        })
    }

    async fn run_on(
        &self,
        mut running: RunningNode,
        control: &mut ControlTask,
        word: &watch::Sender<MasterNotice>,
    ) -> Result<(), TakeOverError> {
        match self.live(&mut running, control, word).await {
            LifeEnd::Stopped => {
                let begun = Instant::now();
                control.presence.leave(&running.handover, begun + self.stop.drain() / 2).await;
                self.shut_down(running, word, begun + self.stop.drain()).await;
            }
            LifeEnd::HandedOver => {
                // A state that went to the successor is the successor's to save.
                if self.hooks.freeze.is_none() {
                    self.run_stopping(running.own_node(), Instant::now() + self.stop.drain()).await;
                }
                shut_down::write_records(running.own_node(), Instant::now() + self.stop.drain()).await;
                self.close_down(running).await;
            }
            LifeEnd::NotWanted(error) => {
                shut_down::write_records(running.own_node(), Instant::now()).await;
                return Err(error);
            }
        }
        Ok(())
    }

    async fn tell_cannot_start(
        &self,
        cannot: &RunError,
        control: &ControlTask,
        word: &watch::Sender<MasterNotice>,
    ) {
        let last = MasterNotice::Say(ToMaster::CannotStart { reason: fftelemetry::chain(cannot) });
        word.send_replace(last.clone());
        // The master prints the reason; without a master it stands in this node's own log.
        let mut sent = control.sent.subscribe();
        let masterless = matches!(cannot, RunError::TakeOver(TakeOverError::NoMaster) | RunError::Master(_));
        if !matches!(self.place, NodePlace::InProcess(..)) && !masterless {
            let _ = timeout(Duration::from_secs(1), sent.wait_for(|sent| *sent == last)).await;
        }
    }

    /// Serves until the node is stopped, or a successor has taken over, or the predecessor has taken back.
    async fn live(
        &self,
        running: &mut RunningNode,
        control: &mut ControlTask,
        word: &watch::Sender<MasterNotice>,
    ) -> LifeEnd {
        if let Some(receiver) = running.receiver.take()
            && let Err(error) = receiver.serve(&running.handover, &self.stop).await
        {
            return LifeEnd::NotWanted(error);
        }
        loop {
            let door = tokio::select! {
                () = self.stop.begun() => return LifeEnd::Stopped,
                () = presence::while_taken_away(&running.handover) => continue,
                Some(door) = control.hand_over.recv() => door,
            };
            let handed_over = || drop(word.send_replace(MasterNotice::Say(ToMaster::HandedOver)));
            match hand_over(&running.handover, &door, &self.stop, &handed_over).await {
                Ok(()) => return LifeEnd::HandedOver,
                Err(error) => {
                    let reason = error.to_string();
                    warn!("not handed over, going on: {reason}");
                    word.send_replace(MasterNotice::Say(ToMaster::TookBack { reason }));
                }
            }
        }
    }
}

/// Why a node's life is over.
enum LifeEnd {
    Stopped,
    HandedOver,
    /// The predecessor serves on.
    NotWanted(TakeOverError),
}

/// All names, and the one that was meant by another.
fn among(name: &str, known: &[&str]) -> (String, Option<String>) {
    let listed: Vec<String> = known.iter().map(|known| format!("`{known}`")).collect();
    (listed.join(", "), ffconfig::nearest(name, known.iter().copied()))
}
