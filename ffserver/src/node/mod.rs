//! The handle to one running node: its name, state, sessions and links. No global knows it; everything
//! that needs the node is given this handle, so one process can host many.

mod sessions;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use ffnet::Link;
use ffnet::handshake::{Local, Peer};
use ffnet::link::{Change, LinkLimits};
use ffproto::control::NodeStatus;
use ffproto::handshake::Refusal;
use ffproto::relay::MoveOrder;
use ffproto::{ClusterName, Code, Executed, Fault, Incarnation, NodeName, SessionId};
use ffstore::record::Records;
use ffstore::{Cache, Db, Record, Stores, Table};
use parking_lot::{Mutex, MutexGuard};
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use crate::cluster::affinity::Sticky;
use crate::cluster::configured_routes::Places;
use crate::cluster::membership::Cluster;
use crate::cluster::peers::Neighbours;
use crate::identity::counters::Counters;
use crate::identity::watchdog::Doing;
use crate::session::local::{Course, LocalSession};
use crate::session::user_directory::Users;
use crate::transit::park::{Park, ParkLimits, Side};

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not everything serves yet.
    Starting,
    /// Everything serves.
    Ready,
    /// Its successor serves; what it had begun ends here.
    HandedOver,
    /// It takes nothing new; what runs may end.
    Stopping,
}

/// A handle to a running node. Cheap to clone, usable from any task and from Rocket's routes (as
/// `&rocket::State<Node>`).
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    cluster_name: ClusterName,
    token: String,
    config: ffconfig::Node,
    incarnation: Incarnation,
    phase: watch::Sender<Phase>,
    states: States,
    stores: OnceLock<Stores>,
    verified: OnceLock<Verified>,
    running: OnceLock<Running>,
    not_moved: OnceLock<NotMoved>,
    sessions: Mutex<Sessions>,
    parents: Mutex<Neighbours>,
    children: Mutex<Neighbours>,
    turn: AtomicU64,
    sticky: Sticky,
    park: Park,
    changed: Notify,
    calls: TaskTracker,
    tickers: AtomicUsize,
    call_lines: AtomicU32,
    counters: Arc<Counters>,
    doing: Arc<Doing>,
    cluster: Cluster,
    started: Instant,
    started_ms: u64,
    places: Places,
}

#[derive(Default)]
struct Sessions {
    open: FxHashMap<SessionId, LocalSession>,
    by_address: FxHashMap<IpAddr, u32>,
    next: Option<SessionId>,
    /// What new ones do.
    course: Course,
}

/// Why a client was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotOpened {
    #[error("limits.sessions_max sessions are open")]
    TooMany,
    #[error("limits.connections_per_address connections are open from there")]
    TooManyFromThere,
    #[error("the master has not given this node its number yet")]
    NoNumber,
}

/// Whether a message of a session runs here.
pub(crate) type Running = Box<dyn Fn(SessionId) -> bool + Send + Sync>;

/// Tells the app that a session of this node has stayed.
pub(crate) type NotMoved =
    Arc<dyn Fn(Node, SessionId, MoveOrder) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Tells the app that a session has a user.
pub(crate) type Verified =
    Arc<dyn Fn(Node, SessionId) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// The app's values by type.
pub(crate) type States = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

impl Node {
    pub(crate) fn new(
        cluster: &ffconfig::Cluster,
        config: ffconfig::Node,
        incarnation: Incarnation,
        states: States,
        handlers: Vec<String>,
    ) -> Self {
        let now = Instant::now();
        let parents = config.parents.iter().map(|parent| (parent.name.clone(), parent.key.clone()));
        let parents = Neighbours::expect(parents, now);
        let children =
            cluster.children_of(&config.name).map(|child| (child.name.clone(), child.kind.clone()));
        let children = Neighbours::expect(children, now);
        let (limits, places) = (&config.limits, Places::of(cluster, &config));
        let park = ParkLimits { messages_max: limits.park_max, bytes_max: limits.park_bytes_max };
        Self(Arc::new(Inner {
            cluster_name: cluster.name.clone(),
            token: cluster.master.token.clone().unwrap_or_default(),
            config,
            incarnation,
            phase: watch::Sender::new(Phase::Starting),
            states,
            stores: OnceLock::new(),
            verified: OnceLock::new(),
            running: OnceLock::new(),
            not_moved: OnceLock::new(),
            sessions: Mutex::default(),
            parents: Mutex::new(parents),
            children: Mutex::new(children),
            turn: AtomicU64::new(0),
            sticky: Sticky::default(),
            park: Park::new(park),
            changed: Notify::new(),
            calls: TaskTracker::new(),
            tickers: AtomicUsize::new(0),
            call_lines: AtomicU32::new(0),
            counters: Arc::default(),
            doing: Arc::new(Doing::new(handlers)),
            cluster: Cluster::new(Users::new(cluster.second_login)),
            started: now,
            // The incarnation was given before the process was launched, which takes longer for one than for another:
            // claims of two nodes would not compare.
            started_ms: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
                .max(incarnation.0),
            places,
        }))
    }

    /// Its name: the key under `servers`.
    pub fn name(&self) -> &NodeName {
        &self.0.config.name
    }

    /// What it is an instance of.
    pub fn kind(&self) -> &str {
        &self.0.config.kind
    }

    /// What the config says of it.
    pub fn config(&self) -> &ffconfig::Node {
        &self.0.config
    }

    /// Which start of it this is.
    pub fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// Milliseconds since 1970, as the system's clock said at the start of this process: never back.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.started_ms + self.0.started.elapsed().as_millis() as u64
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// The database, when the config says `"db": true`.
    pub fn db(&self) -> Option<&Db> {
        self.0.stores.get()?.db.as_ref()
    }

    /// The database of that name under the config's `databases`, when the config says `"db": true`.
    pub fn database(&self, name: &str) -> Option<&Db> {
        self.0.stores.get()?.databases.get(name)
    }

    /// Every database of this node, each under what the config calls it: `db`, and those of `databases`.
    pub fn databases(&self) -> impl Iterator<Item = (&str, &Db)> {
        self.0.stores.get().into_iter().flat_map(Stores::all_databases)
    }

    /// The cache: memcached when the config says `"mem": true`, else in this process.
    pub fn cache(&self) -> &Cache {
        &self.0.stores.get_or_init(|| Stores::in_process(self.0.config.limits.cache_bytes_max)).cache
    }

    /// The table of a record that the app has named with [`App::table`](crate::App::table).
    pub fn table<T: Record>(&self) -> Option<Table<T>> {
        self.records()?.table()
    }

    /// The records of this node, when its app has tables.
    pub fn records(&self) -> Option<&Records> {
        self.0.stores.get()?.records.as_ref()
    }

    /// The app's value of type `T` ([`App::state`](crate::App::state)).
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.states.get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }

    /// The open session of that id, if this node has it.
    pub(crate) fn local_session(&self, id: SessionId) -> Option<LocalSession> {
        self.0.sessions.lock().open.get(&id).cloned()
    }

    /// Whether a client's session has ended, as far as this node knows: it is of this node, and is not here, nor on its
    /// way here from the process that this one replaces.
    pub(crate) fn has_ended(&self, id: SessionId) -> bool {
        let is_own = self.0.cluster.number() == Some(id.node());
        is_own && !self.0.cluster.held.is_expecting() && self.local_session(id).is_none()
    }

    /// Every open session of this node.
    pub(crate) fn local_sessions(&self) -> Vec<LocalSession> {
        self.0.sessions.lock().open.values().cloned().collect()
    }

    /// The children that are linked now.
    pub fn children(&self) -> Vec<NodeName> {
        let children = self.0.children.lock();
        children.iter().filter(|child| child.link().is_some()).map(|child| child.name.clone()).collect()
    }

    /// What the master is told.
    pub(crate) fn status(&self) -> NodeStatus {
        NodeStatus {
            sessions: self.0.sessions.lock().open.len() as u64,
            parents: self.0.parents.lock().iter().map(|p| (p.name.clone(), p.link().is_some())).collect(),
            children: self.children(),
            counters: self.counter_list(),
        }
    }

    fn counter_list(&self) -> Vec<(String, u64)> {
        let records = self.records().map(Records::counters).unwrap_or_default();
        let routed = match self.0.sticky.len() {
            0 => None,
            n => Some(("sessions_routed".to_owned(), n as u64)),
        };
        let counted = self.0.counters.list().into_iter().chain(routed);
        counted.chain(self.lost_databases()).chain(records).collect()
    }

    /// A counter for the databases that do not answer now; none when all do.
    fn lost_databases(&self) -> Option<(String, u64)> {
        let lost = self.databases().filter(|(_, db)| !db.health().is_up()).count() as u64;
        (lost > 0).then(|| ("databases_down".to_owned(), lost))
    }

    /// Wakes who tells the master.
    pub(crate) fn changed(&self) -> &Notify {
        &self.0.changed
    }

    /// The tasks of calls that have not ended: a stop waits for them.
    pub(crate) fn calls(&self) -> &TaskTracker {
        &self.0.calls
    }

    /// Those of them that somebody waits for: not the ticks of [`Latest`](crate::Latest), which may never end.
    pub(crate) fn running_calls(&self) -> usize {
        self.0.calls.len().saturating_sub(self.0.tickers.load(Ordering::Relaxed))
    }

    /// How many tasks are ticks.
    pub(crate) fn tickers(&self) -> &AtomicUsize {
        &self.0.tickers
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.0.phase.send_replace(phase);
    }

    /// Gives the node its stores: once, before anything serves.
    pub(crate) fn set_stores(&self, stores: Stores) {
        let set = self.0.stores.set(stores);
        debug_assert!(set.is_ok(), "{} has its stores already", self.name());
    }

    /// Whether a session lives, as far as the node knows. What has the answer does not keep the node.
    pub(crate) fn session_lives(&self) -> impl Fn(SessionId) -> bool + Send + Sync + 'static {
        let node = Arc::downgrade(&self.0);
        move |session| {
            let session = node.upgrade().and_then(|node| Self(node).session(session));
            session.is_some_and(|session| !session.is_gone())
        }
    }

    pub(crate) fn set_verified(&self, told: Verified) {
        let _ = self.0.verified.set(told);
    }

    /// Tells the app that a session has a user; whoever calls this has made sure that it is the first time.
    pub(crate) async fn tell_verified(&self, session: SessionId) {
        if let Some(told) = self.0.verified.get() {
            told(self.clone(), session).await;
        }
    }

    /// The same, in a task of its own.
    pub(crate) fn spawn_verified(&self, session: SessionId) {
        if self.0.verified.get().is_some() {
            // What the hook changes is not lost with a session that leaves for a successor meanwhile.
            let (node, stays) = (self.clone(), self.local_session(session).map(|local| local.stay()));
            drop(self.calls().spawn(async move {
                node.tell_verified(session).await;
                drop(stays);
            }));
        }
    }

    /// What this node says of itself in a handshake.
    pub(crate) fn local(&self, methods: Vec<String>) -> Local {
        Local {
            cluster: self.0.cluster_name.clone(),
            name: self.name().clone(),
            kind: self.kind().to_owned(),
            incarnation: self.0.incarnation,
            methods,
            token: self.0.token.clone(),
        }
    }

    /// A link of this node to `peer`.
    pub(crate) fn new_link(&self, peer: Peer) -> Link {
        let limits = &self.0.config.limits;
        let limits = LinkLimits {
            frame_bytes_max: limits.link_frame_bytes_max,
            outbox_bytes_max: limits.link_outbox_bytes_max,
            calls_max: limits.calls_max,
            heartbeat: limits.heartbeat,
        };
        Link::new(self.name().clone(), peer, limits, self.0.counters.links.clone())
    }

    pub(crate) fn set_not_moved(&self, told: NotMoved) {
        let _ = self.0.not_moved.set(told);
    }

    /// Tells the app, if it wants to hear it.
    pub(crate) async fn tell_not_moved_here(&self, session: SessionId, order: MoveOrder) {
        if let Some(told) = self.0.not_moved.get() {
            told(self.clone(), session, order).await;
        }
    }

    pub(crate) fn set_running(&self, running: Running) {
        let _ = self.0.running.set(running);
    }

    /// Whether a message of a session runs, or waits for its turn, at this node.
    pub(crate) fn runs_here(&self, session: SessionId) -> bool {
        self.0.running.get().is_some_and(|running| running(session))
    }

    /// Which handler runs, and whether the loop turns.
    pub(crate) fn doing(&self) -> &Arc<Doing> {
        &self.0.doing
    }

    /// Its place among the others.
    pub(crate) fn cluster(&self) -> &Cluster {
        &self.0.cluster
    }

    /// What its neighbours take clients' messages for.
    pub(crate) fn places(&self) -> &Places {
        &self.0.places
    }

    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// A fault that this node notices.
    pub(crate) fn fault(&self, code: Code, executed: Executed, message: impl Into<String>) -> Fault {
        Fault { code, at: self.name().clone(), executed, message: message.into() }
    }

    /// Whether one more call may be logged: the first few of each second are, so that a newcomer sees
    /// what happens and a busy node does not drown. See [`Node::end_log_second`].
    pub(crate) fn may_log_call(&self) -> bool {
        const CALL_LINES_PER_SECOND: u32 = 20;
        self.0.call_lines.load(Ordering::Relaxed) < CALL_LINES_PER_SECOND
            && self.0.call_lines.fetch_add(1, Ordering::Relaxed) < CALL_LINES_PER_SECOND
    }

    /// Begins a new second for [`Node::may_log_call`].
    pub(crate) fn end_log_second(&self) {
        self.0.call_lines.store(0, Ordering::Relaxed);
    }
}

/// Links.
impl Node {
    /// Takes the link to a parent; an older start's is retired.
    pub(crate) fn add_parent(&self, link: Link) {
        let key = || link.peer().name.to_string();
        self.0.parents.lock().take(link.clone(), key, Instant::now());
        self.links_changed();
    }

    /// Forgets the link to a parent that has ended. True when that parent is linked no more.
    pub(crate) fn remove_parent(&self, link: &Link) -> bool {
        let gone = self.0.parents.lock().ended(link, Instant::now());
        self.links_changed();
        gone
    }

    /// Whether a start of a parent is linked, also one that is being replaced.
    pub(crate) fn has_parent(&self, name: &NodeName, incarnation: Incarnation) -> bool {
        self.0.parents.lock().has(name, incarnation)
    }

    /// Whether a child of that name and start may link. Whoever knows the token may be a child: a config
    /// that adds one is taken over by the children first.
    pub(crate) fn admit_child(&self, name: &NodeName, theirs: Incarnation) -> Result<(), Refusal> {
        if self.phase() == Phase::Stopping {
            return Err(Refusal::Stopping);
        }
        self.0.children.lock().admit(name, theirs)
    }

    /// Takes a child's link; an older start's is retired, one of the same start is closed. False when a newer
    /// start has come meanwhile.
    pub(crate) fn add_child(&self, link: Link) -> bool {
        let kind = || link.peer().kind.clone();
        let taken = self.0.children.lock().take(link.clone(), kind, Instant::now());
        self.links_changed();
        taken
    }

    /// Forgets a child's link. True when that child is linked no more.
    pub(crate) fn remove_child(&self, link: &Link) -> bool {
        let gone = self.0.children.lock().ended(link, Instant::now());
        self.links_changed();
        gone
    }

    /// The neighbours are to link now; with `come` they were linked to this process's predecessor.
    pub(crate) fn expect_neighbours(&self, come: bool) {
        let now = Instant::now();
        self.0.parents.lock().expect_from(now, come);
        self.0.children.lock().expect_from(now, come);
    }

    /// What a neighbour has said about its link as a whole.
    pub(crate) fn link_changed(&self, link: &Link, change: Change) {
        let now = Instant::now();
        match change {
            Change::Paused => {
                let _ = self.0.parents.lock().paused(link, now) || self.0.children.lock().paused(link, now);
            }
            Change::Resumed => {
                self.0.parents.lock().resumed(link);
                self.0.children.lock().resumed(link);
            }
            Change::Quieter => {
                // This comes with every read: only those are looked at that have waited for it.
                return link.take_released().into_iter().for_each(|session| self.look_at_parked_of(session));
            }
            Change::Switched => {}
        }
        self.look_at_parked();
    }

    fn links_changed(&self) {
        self.0.changed.notify_one();
        self.look_at_parked();
    }

    pub(crate) fn parents(&self) -> MutexGuard<'_, Neighbours> {
        self.0.parents.lock()
    }

    pub(crate) fn child_nodes(&self) -> MutexGuard<'_, Neighbours> {
        self.0.children.lock()
    }

    pub(crate) fn neighbours(&self, side: Side) -> MutexGuard<'_, Neighbours> {
        match side {
            Side::Parent => self.parents(),
            Side::Child => self.child_nodes(),
        }
    }

    pub(crate) fn park(&self) -> &Park {
        &self.0.park
    }

    pub(crate) fn sticky(&self) -> &Sticky {
        &self.0.sticky
    }

    pub(crate) fn next_turn(&self) -> u64 {
        self.0.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Every link that lives, of parents and children, also of those that are being replaced.
    pub(crate) fn links(&self) -> Vec<Link> {
        let mut links: Vec<Link> = self.0.parents.lock().links().cloned().collect();
        links.extend(self.0.children.lock().links().cloned());
        links
    }

    /// Ends every link in good order.
    pub(crate) fn close_links(&self, why: &str) {
        self.links().iter().for_each(|link| link.close(why));
    }

    /// Whether no parent is linked any more, and each has been told so.
    pub(crate) fn parents_gone(&self) -> bool {
        self.0.parents.lock().are_over()
    }

    /// Whether every configured parent is linked.
    pub(crate) fn parents_up(&self) -> bool {
        self.0.parents.lock().iter().all(|parent| parent.link().is_some())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({:?})", self.name(), self.phase())
    }
}
