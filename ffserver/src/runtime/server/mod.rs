//! Puts a node together from its config and runs it: listeners, links, web server, database, cache,
//! handlers. The only module that sees all the others.

mod errors;
mod storage;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ffnet::door::DoorListener;
use ffnet::listen::{self, Inherited};
use ffproto::control::{Door, ToMaster};
use ffproto::{Incarnation, NodeNumber};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};

use crate::app::app::{App, Hooks};
use crate::cluster::affinity::taken;
use crate::error::HandlerError;
use crate::exec::dispatch::{Dispatch, Shared};
use crate::exec::execution::Guarded;
use crate::exec::verified;
use crate::gateway::acceptor;
use crate::gateway::acceptor::{Clients, Open};
use crate::handover::receiver::{InheritError, Inheriting};
use crate::handover::sender::{Estate, HandOverError, Kept};
use crate::identity::stop::Stop;
use crate::identity::watchdog::BEAT_EVERY;
use crate::node::{Node, Phase};
use crate::runtime::child_listener;
use crate::runtime::control::{Control, Sockets, Word};
use crate::runtime::in_process::Hub;
use crate::runtime::parent_dialer;
use crate::runtime::parent_dialer::Way;
use crate::runtime::web::{Front, Web};
use crate::session::migration;
use crate::session::queue::{QueueLimits, Queues};
use crate::transit::park::Side;
use ffstore::Registered;

/// How long a node waits for its parents before it is ready without them: they may be late.
const PARENTS_WAIT: Duration = Duration::from_secs(2);

/// How long links may take to write what is queued.
const LAST_WORDS_MAX: Duration = Duration::from_millis(500);

pub use errors::{BuildError, RunError};

/// A node, put together and not yet running.
pub struct FFServer {
    cluster: ffconfig::Cluster,
    node: Node,
    dispatch: Dispatch,
    hooks: Hooks,
    tables: Vec<Registered>,
    mounts: Vec<(&'static str, Vec<rocket::Route>)>,
    stop: Stop,
    hub: Option<Hub>,
    own_process: bool,
    succeeds: bool,
}

impl FFServer {
    /// Puts the node `name` of `cluster` together, with its app from `apps`. Nothing is opened.
    ///
    /// # Errors
    /// [`BuildError`], with every fault of the app at once.
    pub fn new(
        cluster: &ffconfig::Cluster,
        name: &str,
        apps: Vec<App>,
        incarnation: Incarnation,
    ) -> Result<Self, BuildError> {
        let config = cluster.node(name).cloned().ok_or_else(|| BuildError::NoNode {
            name: name.to_owned(),
            known: join(cluster.nodes.iter().map(|node| node.name.as_str())),
        })?;
        let known = join(apps.iter().map(App::name));
        let app = apps.into_iter().find(|app| app.name() == config.app).ok_or_else(|| BuildError::NoApp {
            node: config.name.clone(),
            app: config.app.clone(),
            known,
        })?;
        let dispatch = Dispatch::build(&app, &config).map_err(|faults| BuildError::Faults {
            app: app.name.to_owned(),
            node: config.name.clone(),
            faults,
        })?;
        let stop = Stop::new(config.drain);
        let handlers = Dispatch::names(&app);
        let node = Node::new(cluster, config, incarnation, app.states, handlers);
        if let Some(hook) = app.hooks.session_verified.clone() {
            node.set_verified(verified::told(hook));
        }
        if let Some(hook) = app.hooks.session_not_moved.clone() {
            node.set_not_moved(migration::told(hook));
        }
        Ok(Self {
            cluster: cluster.clone(),
            node,
            dispatch,
            hooks: app.hooks,
            tables: app.tables,
            mounts: app.mounts,
            stop,
            hub: None,
            own_process: false,
            succeeds: false,
        })
    }

    /// The handle to the node.
    pub fn node(&self) -> Node {
        self.node.clone()
    }

    pub(crate) fn cluster(&self) -> &ffconfig::Cluster {
        &self.cluster
    }

    pub(crate) fn tables(&self) -> &[Registered] {
        &self.tables
    }

    /// Stops it: on a signal, or at the end of a test.
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Makes this a node of a process that hosts all nodes of its cluster: its links are in memory, `hub`
    /// is where the nodes find each other, and there is no master. `number` must be its own in the process.
    #[must_use]
    pub fn in_process(mut self, hub: Hub, number: NodeNumber) -> Self {
        self.node.set_number(number);
        self.node.introduce(number);
        self.hub = Some(hub);
        self
    }

    /// Makes this the node of a process of its own: a new master may take the listening sockets back and give
    /// it new standard streams. With `succeeds` it takes over from an old process of the node, which serves
    /// until this one can ([`SUCCEEDS_ENV`](crate::runtime::process::SUCCEEDS_ENV)).
    #[must_use]
    pub fn own_process(mut self, succeeds: bool) -> Self {
        (self.own_process, self.succeeds) = (true, succeeds);
        self
    }

    /// Runs the node until it is stopped, by the master or through [`FFServer::stop_handle`]. Uses the
    /// inherited sockets; a port without one is opened here (a node started by hand).
    ///
    /// # Errors
    /// [`RunError`] when it cannot start; the master has been told. After a start it always ends well.
    pub async fn run(self, inherited: Inherited) -> Result<(), RunError> {
        let (word, mut control) = self.start_control();
        let started = Instant::now();
        match self.start(inherited, &control, &word).await {
            Ok(mut running) => {
                let ms = started.elapsed().as_millis();
                info!(
                    kind = self.node.kind(),
                    pid = std::process::id(),
                    "{} is ready after {ms} ms",
                    self.node.name()
                );
                self.node.set_phase(Phase::Ready);
                word.send_replace(Word::Say(running.ready()));
                let ended = self.live(&mut running, &mut control, &word).await;
                match ended {
                    Ended::Stopped => self.shut_down(running, &word).await,
                    Ended::HandedOver => {
                        // A state that went to the successor is the successor's to save.
                        if self.hooks.freeze.is_none() {
                            self.run_stopping(Instant::now() + self.stop.drain()).await;
                        }
                        self.write_records(Instant::now() + self.stop.drain()).await;
                        self.close_down(running).await;
                    }
                    Ended::NotWanted(_) => self.write_records(Instant::now()).await,
                }
                control.task.abort();
                info!("{} has stopped", self.node.name());
                match ended {
                    Ended::NotWanted(error) => Err(error.into()),
                    Ended::Stopped | Ended::HandedOver => Ok(()),
                }
            }
            Err(cannot) => {
                let last = Word::Say(ToMaster::CannotStart { reason: fftelemetry::chain(&cannot) });
                word.send_replace(last.clone());
                // The master prints the reason; without a master it stands in this node's own log.
                let mut said = control.said.subscribe();
                let masterless = matches!(cannot, RunError::Inherit(InheritError::NoMaster));
                if self.hub.is_none() && !masterless {
                    let _ = timeout(Duration::from_secs(1), said.wait_for(|said| *said == last)).await;
                }
                control.task.abort();
                Err(cannot)
            }
        }
    }

    /// Serves until the node is stopped, or a successor has taken over, or the old process has taken back.
    async fn live(
        &self,
        running: &mut Running,
        control: &mut ControlTask,
        word: &watch::Sender<Word>,
    ) -> Ended {
        if let Some(inheriting) = running.inheriting.take()
            && let Err(error) = inheriting.serve(&running.estate, &self.stop).await
        {
            return Ended::NotWanted(error);
        }
        loop {
            let door = tokio::select! {
                () = self.stop.begun() => return Ended::Stopped,
                Some(door) = control.hand_over.recv() => door,
            };
            let mut kept = Kept::default();
            match self.hand_over(&running.estate, &door, word, &mut kept).await {
                Ok(()) => return Ended::HandedOver,
                Err(error) => {
                    let reason = error.to_string();
                    warn!("not handed over, going on: {reason}");
                    running.estate.take_back(kept).await;
                    word.send_replace(Word::Say(ToMaster::TookBack { reason }));
                }
            }
        }
    }

    async fn hand_over(
        &self,
        estate: &Estate,
        door: &Door,
        word: &watch::Sender<Word>,
        kept: &mut Kept,
    ) -> Result<(), HandOverError> {
        let handing = tokio::select! {
            () = self.stop.begun() => return Err(HandOverError::Stopped),
            handing = estate.hand_over(door, kept) => handing?,
        };
        let deadline = Instant::now() + self.node.config().drain;
        let ended = || drop(word.send_replace(Word::Say(ToMaster::HandedOver)));
        tokio::select! {
            // The successor serves: nothing is taken back any more.
            () = self.stop.begun() => Ok(()),
            left = estate.leave(handing, deadline, kept, ended) => left,
        }
    }

    fn start_control(&self) -> (watch::Sender<Word>, ControlTask) {
        let word = watch::Sender::new(Word::Starting);
        let said = watch::Sender::new(Word::Starting);
        let registered = watch::Sender::new(false);
        let mut parents = HashMap::new();
        let mut whereabouts = Vec::new();
        for config in &self.node.config().parents {
            let (tell, hear) = watch::channel(None);
            parents.insert(config.name.clone(), tell);
            let way = self.hub.clone().map_or(Way::Master(hear), Way::Memory);
            whereabouts.push((config.clone(), way));
        }
        let lost = watch::Sender::new(false);
        let (tell_door, hand_over) = mpsc::channel(1);
        let sockets = self.own_process.then(Arc::<Sockets>::default);
        if self.hub.is_some() {
            registered.send_replace(true);
            let task = tokio::spawn(std::future::pending());
            let (registered, lost) = (registered.subscribe(), watch::Sender::new(false).subscribe());
            return (word, ControlTask { task, said, registered, whereabouts, lost, hand_over, sockets });
        }
        let control = Control {
            node: self.node.clone(),
            master: self.cluster.master.clone(),
            parents,
            word: word.subscribe(),
            said: said.clone(),
            registered: registered.clone(),
            stop: self.stop.clone(),
            lost: lost.clone(),
            hand_over: tell_door,
            sockets: sockets.clone(),
        };
        let task = tokio::spawn(control.run());
        let (registered, lost) = (registered.subscribe(), lost.subscribe());
        (word, ControlTask { task, said, registered, whereabouts, lost, hand_over, sockets })
    }

    /// Everything that must hold before the node is ready, in the order in which it can fail.
    async fn start(
        &self,
        inherited: Inherited,
        control: &ControlTask,
        word: &watch::Sender<Word>,
    ) -> Result<Running, RunError> {
        self.open_storage().await?;
        let listeners = self.listeners(inherited)?;
        if let Some(sockets) = &control.sockets {
            listeners.keep_copies(sockets);
        }
        if let Some(hook) = &self.hooks.started {
            let hook = hook(self.node.clone());
            run_hook(hook).await.map_err(|e| RunError::Hook(e.log_text()))?;
        }
        let web = match &listeners.web {
            Some(_) => Some(self.start_web().await?),
            None => None,
        };
        let inheriting = if self.succeeds { Some(self.inherit(control, word).await?) } else { None };
        let mut running = self.open(listeners, web, control).await?;
        running.inheriting = inheriting;
        Ok(running)
    }

    /// Everything is prepared: waits for the old process, and takes its state.
    async fn inherit(
        &self,
        control: &ControlTask,
        word: &watch::Sender<Word>,
    ) -> Result<Inheriting, RunError> {
        let passage = async {
            self.wait_for_number(control).await;
            let door = DoorListener::open().map_err(InheritError::from)?;
            word.send_replace(Word::Say(ToMaster::Prepared { door: door.door() }));
            door.accept().await.map_err(InheritError::from)
        };
        let alone = || InheritError::Alone(self.node.name().clone());
        let until = Instant::now() + self.node.config().limits.start;
        let mut lost = control.lost.clone();
        let passage = tokio::select! {
            () = self.stop.begun() => return Err(alone().into()),
            // The next master knows nothing of this process: it would take it for somebody else's.
            _ = lost.wait_for(|lost| *lost) => return Err(InheritError::NoMaster.into()),
            passage = timeout_at(until, passage) => passage.map_err(|_late| alone())??,
        };
        Ok(Inheriting::new(passage, &self.node, &self.hooks, until).await?)
    }

    /// Opens the ports and links to the parents; the clients come last.
    async fn open(
        &self,
        listeners: Listeners,
        web: Option<Web>,
        control: &ControlTask,
    ) -> Result<Running, RunError> {
        let addresses = listeners.addresses();
        let Listeners { net, root, web: web_listener } = listeners;
        let ports = watch::Sender::new(true);
        let open = || Open::new(ports.subscribe());
        let links = TaskTracker::new();
        let shared = self.shared();
        let mut tasks = vec![
            tokio::spawn(count_seconds(shared.clone())),
            tokio::spawn(shared.clone().release_held()),
            tokio::spawn(shared.clone().tell_lost_nodes()),
        ];
        if self.own_process {
            tasks.push(tokio::spawn(beat(self.node.clone())));
        }
        tasks.extend(self.node.databases().map(|(name, db)| {
            let (name, db) = (name.to_owned(), db.clone());
            tokio::spawn(async move { db.health().watch(&name).await })
        }));
        self.node.expect_neighbours(self.succeeds);
        if let Some(listener) = root {
            let root = Arc::new(self.root(&shared, &links));
            if let Some(hub) = &self.hub {
                let arriving = hub.listen(self.node.name().clone());
                tasks.push(tokio::spawn(child_listener::serve_memory(
                    arriving,
                    root.clone(),
                    self.stop.token(),
                )));
            }
            tasks.push(tokio::spawn(child_listener::serve(listener, root, open(), self.stop.token())));
        }
        for (config, way) in &control.whereabouts {
            tasks.push(tokio::spawn(parent_dialer::keep(shared.clone(), config.clone(), way.clone())));
        }
        let front = web.as_ref().zip(web_listener).map(|(web, listener)| self.front(web, listener));
        let front = front.transpose()?;
        self.wait_for_parents().await;
        let (mut clients, mut serving) = (None, None);
        if let Some(listener) = net {
            self.wait_for_number(control).await;
            let (node, dispatch, hooks) = (self.node.clone(), self.dispatch.clone(), self.hooks.clone());
            let all = Clients::new(acceptor::Shared { node, dispatch, hooks });
            serving = Some(tokio::spawn(all.clone().serve(listener, open(), self.stop.token())));
            clients = Some(all);
        }
        let (node, hooks) = (self.node.clone(), self.hooks.clone());
        let estate = Estate { node, hooks, ports, clients, front };
        Ok(Running { addresses, serving, links, tasks, estate, inheriting: None, _web: web })
    }

    fn shared(&self) -> Arc<Shared> {
        let limits = &self.node.config().limits;
        let limits =
            QueueLimits { messages_max: limits.session_queue_max, bytes_max: limits.session_queue_bytes_max };
        let (node, dispatch) = (self.node.clone(), self.dispatch.clone());
        let (queues, hooks) = (Queues::new(limits), self.hooks.clone());
        let shared = Arc::new(Shared { node, dispatch, queues, hooks });
        let weak = Arc::downgrade(&shared);
        self.node.set_running(Box::new(move |session| {
            weak.upgrade().is_some_and(|shared| shared.queues.is_running(session))
        }));
        shared
    }

    fn root(&self, shared: &Arc<Shared>, links: &TaskTracker) -> child_listener::Root {
        let taken = taken(self.node.places(), Side::Child, self.dispatch.handles_clients());
        let (targets, taken): (_, Vec<_>) = taken.into_iter().unzip();
        let (hooks, links) = (self.hooks.clone(), links.clone());
        child_listener::Root { shared: shared.clone(), hooks, targets, taken: taken.into(), links }
    }

    fn listeners(&self, inherited: Inherited) -> Result<Listeners, RunError> {
        let Inherited { net, root, web } = inherited;
        let config = self.node.config();
        Ok(Listeners {
            net: self.listener("netport", net, config.netport)?,
            root: self.listener("rootport", root, config.rootport)?,
            web: self.listener("webport", web, config.webport)?,
        })
    }

    fn listener(
        &self,
        key: &'static str,
        inherited: Option<std::net::TcpListener>,
        at: Option<SocketAddr>,
    ) -> Result<Option<TcpListener>, RunError> {
        let node = self.node.name();
        let listener = match (inherited, at) {
            (Some(listener), _) => listener,
            (None, None) => return Ok(None),
            (None, Some(at)) => {
                listen::open(at).map_err(|source| RunError::Listen { node: node.clone(), key, source })?
            }
        };
        TcpListener::from_std(listener).map(Some).map_err(|source| RunError::Socket {
            node: node.clone(),
            key,
            source,
        })
    }

    async fn start_web(&self) -> Result<Web, RunError> {
        let node = self.node.name().clone();
        let web = Web::start(self.node.clone(), self.mounts.clone()).await;
        web.map_err(|why| RunError::Web { node, why })
    }

    fn front(&self, web: &Web, listener: TcpListener) -> Result<Front, RunError> {
        let front = listener.into_std().and_then(|listener| web.front(listener));
        front.map_err(|e| RunError::Web { node: self.node.name().clone(), why: e.to_string() })
    }

    async fn wait_for_parents(&self) {
        let up = async {
            while !self.node.parents_up() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        // Messages may be waiting for a successor.
        let wait = if self.succeeds { PARENTS_WAIT / 8 } else { PARENTS_WAIT };
        if timeout(wait, up).await.is_err() {
            warn!("not every parent is linked yet, going on without");
        }
    }

    /// Session ids need the number that the master gives; until then clients wait in the backlog.
    async fn wait_for_number(&self, control: &ControlTask) {
        let mut registered = control.registered.clone();
        tokio::select! {
            _ = registered.wait_for(|yes| *yes) => {}
            () = self.stop.begun() => {}
        }
    }

    /// Stops in order: clients, calls, the app, links; each bounded by what is left of the drain time.
    async fn shut_down(&self, running: Running, word: &watch::Sender<Word>) {
        let deadline = Instant::now() + self.stop.drain();
        info!("{} is stopping, within {:?}", self.node.name(), self.stop.drain());
        self.node.set_phase(Phase::Stopping);
        word.send_replace(Word::Say(ToMaster::Stopping));
        let mut running = running;
        let http = async {
            if let Some(front) = &running.estate.front {
                front.end(deadline).await;
            }
        };
        http.await;
        if let Some(mut serving) = running.serving.take()
            && timeout_at(deadline, &mut serving).await.is_err()
        {
            warn!("clients were cut off: their handlers did not end in time");
            serving.abort();
        }
        self.node.calls().close();
        if timeout_at(deadline, self.node.calls().wait()).await.is_err() {
            warn!("{} handlers did not end in time", self.node.calls().len());
        }
        self.run_stopping(deadline).await;
        self.write_records(deadline).await;
        self.close_down(running).await;
    }

    async fn run_stopping(&self, deadline: Instant) {
        if let Some(hook) = &self.hooks.stopping {
            match timeout_at(deadline, run_hook(hook(self.node.clone()))).await {
                Ok(Ok(())) => {}
                Ok(Err(e)) => error!("the app's on_stopping hook failed: {}", e.log_text()),
                Err(_) => error!("the app's on_stopping hook did not end in time"),
            }
        }
    }

    /// Ends what is left: the links, in good order, and the storage.
    async fn close_down(&self, running: Running) {
        self.node.close_links("the node is stopping");
        running.links.close();
        // The last words of the links are a few bytes each; a dead peer must not hold up the stop.
        let last_words = async {
            running.links.wait().await;
            while !self.node.parents_gone() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let _ = timeout(LAST_WORDS_MAX, last_words).await;
        running.tasks.iter().for_each(JoinHandle::abort);
        for (_, db) in self.node.databases() {
            let _ = timeout(Duration::from_secs(2), db.close()).await;
        }
    }
}

struct ControlTask {
    task: JoinHandle<()>,
    said: watch::Sender<Word>,
    registered: watch::Receiver<bool>,
    whereabouts: Vec<(ffconfig::Parent, Way)>,
    /// True when there is no connection to the master any more.
    lost: watch::Receiver<bool>,
    /// Where a successor waits.
    hand_over: mpsc::Receiver<Door>,
    /// For a new master.
    sockets: Option<Arc<Sockets>>,
}

impl Drop for ControlTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The open ports of a node.
struct Listeners {
    net: Option<TcpListener>,
    root: Option<TcpListener>,
    web: Option<TcpListener>,
}

impl Listeners {
    fn addresses(&self) -> ToMaster {
        let address = |listener: &Option<TcpListener>| listener.as_ref().and_then(|l| l.local_addr().ok());
        ToMaster::Ready { root: address(&self.root), net: address(&self.net), web: address(&self.web) }
    }

    fn keep_copies(&self, sockets: &Sockets) {
        let keep = |slot: &OnceLock<OwnedFd>, listener: &Option<TcpListener>| {
            let copy = listener.as_ref().and_then(|listener| listener.as_fd().try_clone_to_owned().ok());
            copy.map(|copy| slot.set(copy));
        };
        keep(&sockets.net, &self.net);
        keep(&sockets.root, &self.root);
        keep(&sockets.web, &self.web);
    }
}

/// What runs in a node that is ready.
struct Running {
    /// [`ToMaster::Ready`], with where it listens.
    addresses: ToMaster,
    /// Ends when no client is left after a stop.
    serving: Option<JoinHandle<()>>,
    links: TaskTracker,
    tasks: Vec<JoinHandle<()>>,
    estate: Estate,
    /// The old process, as long as it has something to give.
    inheriting: Option<Inheriting>,
    /// Rocket, behind the estate's front.
    _web: Option<Web>,
}

impl Running {
    fn ready(&self) -> ToMaster {
        self.addresses.clone()
    }
}

/// Why a node's life is over.
enum Ended {
    Stopped,
    HandedOver,
    /// The old process serves on.
    NotWanted(InheritError),
}

async fn run_hook(
    hook: impl Future<Output = Result<(), HandlerError>> + Send + 'static,
) -> Result<(), HandlerError> {
    Guarded::hook(async move { hook.await.map(|()| None) }).await.map(drop)
}

/// Shows the watch of [`crate::runtime::process::watch_loop`] that the loop turns.
async fn beat(node: Node) {
    let mut beats = tokio::time::interval(BEAT_EVERY);
    loop {
        beats.tick().await;
        node.doing().beat();
    }
}

async fn count_seconds(shared: Arc<Shared>) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for second in 0.. {
        seconds.tick().await;
        shared.node.end_log_second();
        shared.node.end_silent_sessions();
        shared.every_second(second);
    }
}

fn join<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}
