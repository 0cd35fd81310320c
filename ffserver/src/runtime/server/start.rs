//! The start of a node: everything that must hold before it is ready, in the order in which it can fail.

use std::sync::Arc;
use std::time::Duration;

use ffnet::admission::Admission;
use ffnet::door::DoorListener;
use ffnet::listen::Inherited;
use ffproto::NodeName;
use ffproto::control::{Door, ToMaster};
use ffproto::handshake::BadPreamble;
use ffstore::Stores;
use fftelemetry::tagged;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::listeners::Listeners;
use super::presence::{Presence, advertised};
use super::{Content, FFServer, Foundation, NodePlace, RunError};
use crate::cluster::found::{LinkAddress, Snapshot};
use crate::exec::affinity_sweep;
use crate::exec::execution;
use crate::exec::executor::Executor;
use crate::gateway::acceptor::{Clients, OpenPorts};
use crate::gateway::idle_reaper;
use crate::handover::HandoverContext;
use crate::handover::http::Front;
use crate::handover::receiver::{Receiver, TakeOverError};
use crate::identity::Identity;
use crate::identity::lifecycle::TaskGroup;
use crate::identity::watchdog::{BEAT_EVERY, Watchdog};
use crate::node::Node;
use crate::ops::inbound::Inbound;
use crate::runtime::child_listener::{self, HookTurns};
use crate::runtime::control::{Control, MasterNotice, Reported, Sockets};
use crate::runtime::discovery::backend::Backend;
use crate::runtime::discovery::follower::Follower;
use crate::runtime::discovery::master::MasterDiscovery;
use crate::runtime::discovery::memory::MemoryDiscovery;
use crate::runtime::in_process::InProcessNet;
use crate::runtime::web::Web;

/// How long a node waits for its parents before it is ready without them: they may be late.
const PARENTS_WAIT: Duration = Duration::from_secs(2);

/// How long a net node waits for its number before it says so.
const NUMBER_WAIT: Duration = Duration::from_secs(1);

/// Every how many seconds a node asks whether the sessions that it knows are still there: what told it of an
/// end may have been lost with a link.
const CHECK_EVERY_S: u64 = 5;

/// The node's connections to its master and to discovery, and what they bring.
pub(super) struct ControlTask {
    pub(super) task: JoinHandle<()>,
    pub(super) sent: watch::Sender<MasterNotice>,
    pub(super) presence: Presence,
    /// True when there is no connection to the master any more.
    lost: watch::Receiver<bool>,
    /// What keeps this process from ever speaking with the master that has started it.
    unspoken: watch::Receiver<Option<BadPreamble>>,
    /// Where a successor waits.
    pub(super) hand_over: mpsc::Receiver<Door>,
    /// For a new master, in a process of the node's own.
    sockets: watch::Sender<Option<Arc<Sockets>>>,
    /// The node is told here as soon as it is whole.
    node: watch::Sender<Option<Node>>,
}

impl ControlTask {
    /// Waits until it is known that this process and the master that has started it have no version in common. Cancel-safe.
    pub(super) async fn unspoken(&self) -> BadPreamble {
        let mut seen = self.unspoken.clone();
        let bad = seen.wait_for(Option::is_some).await.map_or(None, |bad| *bad);
        match bad {
            Some(bad) => bad,
            // Nobody tells it any more.
            None => std::future::pending().await,
        }
    }
}

impl Drop for ControlTask {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// What runs in a node that is ready.
pub(super) struct RunningNode {
    /// [`ToMaster::Ready`], with where it listens.
    addresses: ToMaster,
    /// Where children link.
    pub(super) address: Option<LinkAddress>,
    /// Ends when no client is left after a stop.
    pub(super) serving: Option<JoinHandle<()>>,
    pub(super) links: TaskGroup,
    pub(super) tasks: Vec<JoinHandle<()>>,
    pub(super) handover: HandoverContext,
    /// The predecessor, as long as it has something to give.
    pub(super) receiver: Option<Receiver>,
    /// Rocket, behind the front.
    _web: Option<Web>,
}

impl RunningNode {
    pub(super) fn ready(&self) -> ToMaster {
        self.addresses.clone()
    }

    pub(super) fn own_node(&self) -> &Node {
        &self.handover.node
    }
}

impl FFServer {
    pub(super) fn start_control(
        &mut self,
        foundation: &Foundation,
    ) -> (watch::Sender<MasterNotice>, ControlTask) {
        let (word, sent) =
            (watch::Sender::new(MasterNotice::Starting), watch::Sender::new(MasterNotice::Starting));
        let lost = watch::Sender::new(false);
        let (tell_door, hand_over) = mpsc::channel(1);
        let (sockets, node) = (watch::Sender::new(None), self.whole.clone());
        let unspoken = watch::Sender::new(None);
        let unspoken_seen = unspoken.subscribe();
        let launched = matches!(self.place, NodePlace::OwnProcess { launched: true, .. });
        let (lost_seen, told) = (lost.subscribe(), watch::Sender::new(Snapshot::default()));
        let leaves_first = self.leaves_first();
        let presence = Presence::begin(foundation, self.backend(told.subscribe()), leaves_first);
        let task = if let NodePlace::InProcess(..) = self.place {
            tokio::spawn(std::future::pending())
        } else {
            let (transit, registry) = (foundation.transit.clone(), foundation.registry.clone());
            let control = Control {
                reported: Reported { transit, registry, node: node.subscribe() },
                master: self.cluster.master.clone(),
                told,
                kinds: self.parent_kinds(),
                word: word.subscribe(),
                sent: sent.clone(),
                stop: self.stop.clone(),
                lost,
                hand_over: tell_door,
                unspoken: launched.then_some(unspoken),
                own_process: matches!(self.place, NodePlace::OwnProcess { .. }),
                sockets: sockets.subscribe(),
            };
            tokio::spawn(tagged(control.run()))
        };
        let (lost, unspoken) = (lost_seen, unspoken_seen);
        let control = ControlTask { task, sent, presence, lost, unspoken, hand_over, sockets, node };
        (word, control)
    }

    fn parent_kinds(&self) -> Vec<(NodeName, String)> {
        let kind =
            |parent: &ffconfig::Parent| self.cluster.node(parent.name.as_str()).map(|node| node.kind.clone());
        self.config().parents.iter().filter_map(|parent| Some((parent.name.clone(), kind(parent)?))).collect()
    }

    /// The program's own backend of discovery, or that of the node's place.
    fn backend(&mut self, told: watch::Receiver<Snapshot>) -> Backend {
        self.discovery.take().unwrap_or_else(|| match &self.place {
            NodePlace::InProcess(net, number) => {
                Backend::new(MemoryDiscovery { net: net.clone(), number: *number })
            }
            NodePlace::Alone | NodePlace::OwnProcess { .. } => Backend::new(MasterDiscovery { told }),
        })
    }

    /// Everything that must hold before the node is ready, in the order in which it can fail.
    pub(super) async fn start(
        &mut self,
        foundation: Foundation,
        inherited: Inherited,
        control: &ControlTask,
        word: &watch::Sender<MasterNotice>,
    ) -> Result<RunningNode, RunError> {
        let stores = self.open_stores(&foundation).await?;
        let listeners = Listeners::open(self.config(), inherited)?;
        if matches!(self.place, NodePlace::OwnProcess { .. }) {
            control.sockets.send_replace(Some(Arc::new(listeners.copies())));
        }
        let content = Content {
            tables: self.handlers.tables.clone(),
            hooks: self.hooks.clone(),
            states: std::mem::take(&mut self.states),
            watchdog: self.handlers.watchdog.clone(),
        };
        let (node, executor) = foundation.complete(&self.cluster, stores, content);
        control.node.send_replace(Some(node.clone()));
        if let Some(hook) = &self.hooks.started {
            execution::run(|| hook(node.clone())).await.map_err(|e| RunError::Hook(e.log_text()))?;
        }
        let web = match &listeners.web {
            Some(_) => Some(self.start_web(&node).await?),
            None => None,
        };
        let receiver = match self.succeeds() {
            true => Some(self.take_over(&node, control, word).await?),
            false => None,
        };
        let mut running = self.open(executor, listeners, web, control).await?;
        running.receiver = receiver;
        Ok(running)
    }

    async fn open_stores(&self, foundation: &Foundation) -> Result<Stores, RunError> {
        let (name, incarnation) = (self.identity.name(), self.identity.incarnation());
        let ambient = self.identity.ambient().stream("stores");
        let random = ambient.chance.u64().map_or(std::process::id(), |random| random as u32);
        let id = format!("{name}@{incarnation}-{random:08x}");
        let lives = foundation.session_lives();
        Ok(Stores::open(&self.cluster, self.config(), id, &self.tables, lives, ambient).await?)
    }

    /// Everything is prepared: waits for the predecessor, and takes its state.
    async fn take_over(
        &self,
        node: &Node,
        control: &ControlTask,
        word: &watch::Sender<MasterNotice>,
    ) -> Result<Receiver, RunError> {
        let passage = async {
            self.wait_for_number(node).await;
            let door = DoorListener::open(self.identity.chance()).map_err(TakeOverError::from)?;
            word.send_replace(MasterNotice::Say(ToMaster::Prepared { door: door.door() }));
            door.accept().await.map_err(TakeOverError::from)
        };
        let alone = || TakeOverError::Alone(self.identity.name().clone());
        let (start, before) = (self.identity.limits().start, self.members_of_process());
        let until = Instant::now() + start * before;
        let mut lost = control.lost.clone();
        let passage = tokio::select! {
            () = self.stop.begun() => return Err(alone().into()),
            // The next master knows nothing of this process: it would take it for somebody else's.
            _ = lost.wait_for(|lost| *lost) => return Err(TakeOverError::NoMaster.into()),
            passage = timeout_at(until, passage) => passage.map_err(|_late| alone())??,
        };
        let until = until.min(Instant::now() + start);
        Ok(Receiver::new(passage, node, &self.hooks, self.edge.transport.name(), until).await?)
    }

    /// Opens the ports and links to the parents; the clients come last.
    async fn open(
        &self,
        executor: Arc<Executor>,
        listeners: Listeners,
        web: Option<Web>,
        control: &ControlTask,
    ) -> Result<RunningNode, RunError> {
        let addresses = listeners.addresses();
        let Listeners { net, root, web: web_listener } = listeners;
        let ports = watch::Sender::new(true);
        let open = || OpenPorts::new(ports.subscribe());
        let (node, links) = (executor.node.clone(), self.identity.tasks().group());
        let inbound = Arc::new(Inbound::new(executor.clone()));
        let mut tasks = self.start_tasks(&inbound);
        node.transit().expect_peers(self.succeeds());
        if let Some(listener) = root {
            let root = Arc::new(Self::root(&inbound, &links));
            if let Some(net) = self.in_process_net() {
                let incarnation = self.identity.incarnation();
                let arriving = net.listen(node.name().clone(), incarnation, ports.subscribe());
                let served = child_listener::serve_memory(arriving, root.clone(), self.stop.token());
                tasks.push(tokio::spawn(tagged(served)));
            }
            let served = child_listener::serve(listener, root, open(), self.stop.token());
            tasks.push(tokio::spawn(tagged(served)));
        }
        let address = self.link_address(&addresses);
        if !self.succeeds() {
            // A successor's children come when it serves.
            control.presence.advertise(address);
        }
        let follower = Follower::new(inbound, &self.cluster, self.in_process_net());
        tasks.push(tokio::spawn(tagged(follower.run())));
        tasks.push(tokio::spawn(control.presence.tell_load(node.clone())));
        let front = web.as_ref().zip(web_listener).map(|(web, listener)| self.open_front(web, listener));
        let front = front.transpose()?;
        self.wait_for_parents(&node).await;
        let (mut clients, mut serving) = (None, None);
        if let Some(listener) = net {
            self.wait_for_number(&node).await;
            let listener = self
                .edge
                .transport
                .listen(listener)
                .map_err(|source| self.not_a_socket("netport", source))?;
            let all = Clients::new(executor, self.edge.transport.clone());
            let served = all.clone().serve(listener, open(), self.stop.token());
            serving = Some(tokio::spawn(tagged(served)));
            clients = Some(all);
        }
        tasks.iter().chain(&serving).for_each(|task| self.identity.tasks().note(task));
        let handover = HandoverContext { node, hooks: self.hooks.clone(), ports, clients, front };
        Ok(RunningNode { addresses, address, serving, links, tasks, handover, receiver: None, _web: web })
    }

    fn not_a_socket(&self, key: &'static str, source: std::io::Error) -> RunError {
        RunError::Socket { node: self.identity.name().clone(), key, source }
    }

    fn start_tasks(&self, inbound: &Arc<Inbound>) -> Vec<JoinHandle<()>> {
        let executor = &inbound.executor;
        let mut tasks = vec![
            tokio::spawn(tagged(every_second(executor.clone()))),
            tokio::spawn(tagged(inbound.clone().release_held())),
            tokio::spawn(tagged(affinity_sweep::tell_lost_nodes(executor.clone()))),
        ];
        if matches!(self.place, NodePlace::OwnProcess { .. }) {
            tasks.push(tokio::spawn(beat(self.handlers.watchdog.clone(), self.identity.clone())));
        }
        tasks.extend(executor.node.databases().map(|(name, db)| {
            let (name, db) = (name.to_owned(), db.clone());
            tokio::spawn(tagged(async move { db.health().watch(&name).await }))
        }));
        tasks
    }

    fn root(inbound: &Arc<Inbound>, links: &TaskGroup) -> child_listener::ChildListener {
        let (inbound, links) = (inbound.clone(), links.clone());
        let admission = Admission::new(child_listener::UNPROVEN);
        child_listener::ChildListener { inbound, links, admission, turns: HookTurns::default() }
    }

    fn in_process_net(&self) -> Option<InProcessNet> {
        match &self.place {
            NodePlace::InProcess(net, _) => Some(net.clone()),
            NodePlace::OwnProcess { shared, .. } => shared.as_ref().map(|shared| shared.net.clone()),
            NodePlace::Alone => None,
        }
    }

    /// Where children link to the node.
    fn link_address(&self, listening: &ToMaster) -> Option<LinkAddress> {
        let ToMaster::Ready { root: Some(root), .. } = listening else { return None };
        match self.place {
            NodePlace::InProcess(..) => Some(LinkAddress::InProcess),
            NodePlace::Alone | NodePlace::OwnProcess { .. } => {
                Some(LinkAddress::Tcp(advertised(*root, self.config().host.as_deref())))
            }
        }
    }

    async fn start_web(&mut self, node: &Node) -> Result<Web, RunError> {
        let web = Web::start(node.clone(), std::mem::take(&mut self.mounts), self.dev.take()).await;
        web.map_err(|e| RunError::Web { node: self.identity.name().clone(), why: e.to_string() })
    }

    fn open_front(&self, web: &Web, listener: TcpListener) -> Result<Front, RunError> {
        let front = listener.into_std().and_then(|listener| web.open_front(listener));
        front.map_err(|e| RunError::Web { node: self.identity.name().clone(), why: e.to_string() })
    }

    async fn wait_for_parents(&self, node: &Node) {
        // Messages may be waiting for a successor.
        let wait = if self.succeeds() { PARENTS_WAIT / 8 } else { PARENTS_WAIT };
        if timeout(wait, node.transit().parents_up()).await.is_err() {
            // For a successor it is no matter: what is for them waits, and the predecessor links no sooner.
            let text = "not every parent is linked yet, going on without";
            if self.succeeds() { info!("{text}") } else { warn!("{text}") }
        }
    }

    /// Session ids need the number that the master gives; until then clients wait in the backlog.
    async fn wait_for_number(&self, node: &Node) {
        let mut shown = node.transit().membership().found().subscribe();
        let number = async {
            if timeout(NUMBER_WAIT, shown.wait_for(|shown| shown.number.is_some())).await.is_err() {
                self.say_what_is_missing();
                let _ = shown.wait_for(|shown| shown.number.is_some()).await;
            }
        };
        tokio::select! {
            () = number => node.take_number(),
            () = self.stop.begun() => {}
        }
    }

    /// A net node by hand, without its master, has nobody who gives it a number.
    fn say_what_is_missing(&self) {
        let (name, master) = (self.identity.name(), &self.cluster.master);
        warn!(
            "{name} takes no clients yet: its number comes from the master at {}:{}, and it waits for that; \
             every node without a master: appmain --all CONFIG",
            master.roothost,
            master.rootport.port()
        );
    }
}

/// Shows the watch of [`crate::runtime::process::watch_loop`] that the loop turns.
async fn beat(watchdog: Arc<Watchdog>, identity: Identity) {
    let mut beats = tokio::time::interval(BEAT_EVERY);
    // A beat that is late is one beat, not as many as were missed.
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let due = beats.tick().await;
        identity.metrics().loop_lag().observe(due.elapsed());
        watchdog.beat();
    }
}

/// What a node looks at once a second.
async fn every_second(executor: Arc<Executor>) {
    let node = &executor.node;
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    for second in 0_u64.. {
        seconds.tick().await;
        node.identity().end_log_second();
        executor.watchdog.end_second();
        idle_reaper::reap(node.all_sessions().registry(), node.identity());
        executor.replicas.look_at_all(second.is_multiple_of(CHECK_EVERY_S));
        node.all_sessions().tell_claims();
        affinity_sweep::forget_lost_nodes(node.transit());
    }
}
