//! The handle to one running node: its name, state, sessions and links. No global knows it; everything
//! that needs the node is given this handle, so one process can host many.

use std::any::{Any, TypeId};
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use ffnet::Link;
use ffnet::handshake::{Local, Peer};
use ffnet::link::LinkLimits;
use ffproto::control::NodeStatus;
use ffproto::frame::Firefly;
use ffproto::handshake::{Refusal, fence};
use ffproto::link::Client;
use ffproto::{ClusterName, Code, CommandId, Executed, Fault, Incarnation, NodeName, NodeNumber, SessionId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, watch};
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::counters::{Counters, count};
use crate::db::Db;
use crate::error::CallError;
use crate::routing::{Hop, SESSION_ENDED, Sticky};
use crate::session::{Session, Wire};

/// Where a node is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not everything serves yet.
    Starting,
    /// Everything serves.
    Ready,
    /// It takes nothing new; what runs may end.
    Stopping,
}

/// A handle to a running node. Cheap to clone, usable from any task and from Rocket's routes (as
/// `&rocket::State<Node>`).
#[derive(Clone)]
pub struct Node(Arc<Inner>);

struct Inner {
    cluster: ClusterName,
    token: String,
    config: ffconfig::Node,
    incarnation: Incarnation,
    phase: watch::Sender<Phase>,
    states: States,
    db: OnceLock<Db>,
    cache: OnceLock<Cache>,
    sessions: Mutex<Sessions>,
    parents: Mutex<BTreeMap<NodeName, ParentSlot>>,
    children: Mutex<BTreeMap<NodeName, Child>>,
    turn: AtomicU64,
    sticky: Sticky,
    changed: Notify,
    calls: TaskTracker,
    call_lines: AtomicU32,
    counters: Arc<Counters>,
}

#[derive(Default)]
struct Sessions {
    open: FxHashMap<SessionId, Session>,
    by_address: FxHashMap<IpAddr, u32>,
    next: Option<SessionId>,
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

struct ParentSlot {
    key: String,
    link: Option<Link>,
}

struct Child {
    kind: String,
    /// The newest start that has been seen; stays when the link ends, to fence older ones.
    incarnation: Incarnation,
    link: Option<Link>,
}

/// The app's values by type.
pub(crate) type States = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

impl Node {
    pub(crate) fn new(
        cluster: &ffconfig::Cluster,
        config: ffconfig::Node,
        incarnation: Incarnation,
        states: States,
    ) -> Self {
        let parents = config
            .parents
            .iter()
            .map(|parent| (parent.name.clone(), ParentSlot { key: parent.key.clone(), link: None }))
            .collect();
        Self(Arc::new(Inner {
            cluster: cluster.name.clone(),
            token: cluster.master.token.clone().unwrap_or_default(),
            config,
            incarnation,
            phase: watch::Sender::new(Phase::Starting),
            states,
            db: OnceLock::new(),
            cache: OnceLock::new(),
            sessions: Mutex::default(),
            parents: Mutex::new(parents),
            children: Mutex::default(),
            turn: AtomicU64::new(0),
            sticky: Sticky::default(),
            changed: Notify::new(),
            calls: TaskTracker::new(),
            call_lines: AtomicU32::new(0),
            counters: Arc::default(),
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

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        *self.0.phase.borrow()
    }

    /// The database, when the config says `"db": true`.
    pub fn db(&self) -> Option<&Db> {
        self.0.db.get()
    }

    /// The cache: memcached when the config says `"mem": true`, else in this process.
    pub fn cache(&self) -> &Cache {
        self.0.cache.get_or_init(Cache::default)
    }

    /// The app's value of type `T` ([`App::state`](crate::App::state)).
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.states.get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }

    /// The open session of that id, if this node has it.
    pub fn session(&self, id: SessionId) -> Option<Session> {
        self.0.sessions.lock().open.get(&id).cloned()
    }

    /// Every open session of this node.
    pub fn sessions(&self) -> Vec<Session> {
        self.0.sessions.lock().open.values().cloned().collect()
    }

    /// The children that are linked now.
    pub fn children(&self) -> Vec<NodeName> {
        let children = self.0.children.lock();
        children.iter().filter(|(_, child)| child.link.is_some()).map(|(name, _)| name.clone()).collect()
    }

    /// What the master is told.
    pub(crate) fn status(&self) -> NodeStatus {
        NodeStatus {
            sessions: self.0.sessions.lock().open.len() as u64,
            parents: self.0.parents.lock().iter().map(|(n, slot)| (n.clone(), slot.link.is_some())).collect(),
            children: self.children(),
            counters: self.0.counters.list(),
        }
    }

    /// Wakes who tells the master.
    pub(crate) fn changed(&self) -> &Notify {
        &self.0.changed
    }

    /// The tasks of calls that have not ended: a stop waits for them.
    pub(crate) fn calls(&self) -> &TaskTracker {
        &self.0.calls
    }

    pub(crate) fn set_phase(&self, phase: Phase) {
        self.0.phase.send_replace(phase);
    }

    pub(crate) fn set_db(&self, db: Db) {
        // Set once at start; a second value would be ignored.
        let _ = self.0.db.set(db);
    }

    pub(crate) fn set_cache(&self, cache: Cache) {
        let _ = self.0.cache.set(cache);
    }

    /// What this node says of itself in a handshake.
    pub(crate) fn local(&self, methods: Vec<String>) -> Local {
        Local {
            cluster: self.0.cluster.clone(),
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

/// Sessions.
impl Node {
    pub(crate) fn set_number(&self, number: NodeNumber) {
        let mut sessions = self.0.sessions.lock();
        // Told again after every reconnect to the master; the ids go on.
        sessions.next.get_or_insert_with(|| SessionId::first(number, self.0.incarnation));
    }

    /// Opens a session.
    pub(crate) fn open_session(&self, address: SocketAddr) -> Result<Session, NotOpened> {
        let limits = &self.0.config.limits;
        let mut sessions = self.0.sessions.lock();
        if sessions.open.len() >= limits.sessions_max {
            return Err(NotOpened::TooMany);
        }
        let id = sessions.next.ok_or(NotOpened::NoNumber)?;
        let from_there = sessions.by_address.entry(address.ip()).or_default();
        if limits.connections_per_address.is_some_and(|max| *from_there >= max) {
            return Err(NotOpened::TooManyFromThere);
        }
        *from_there += 1;
        sessions.next = Some(id.next());
        let session = Session::new(id, address, self.wire(), self.0.counters.clone());
        sessions.open.insert(id, session.clone());
        drop(sessions);
        self.0.changed.notify_one();
        Ok(session)
    }

    /// Forgets a session, here and at the nodes that its messages went to.
    pub(crate) fn end_session(&self, session: &Session) {
        session.end();
        let mut sessions = self.0.sessions.lock();
        sessions.open.remove(&session.id());
        let ip = session.address().ip();
        if let Some(from_there) = sessions.by_address.get_mut(&ip) {
            *from_there -= 1;
            if *from_there == 0 {
                sessions.by_address.remove(&ip);
            }
        }
        drop(sessions);
        self.session_ended(session.id());
        self.0.changed.notify_one();
    }

    /// Forgets the way of a session's messages and tells those along it.
    pub(crate) fn session_ended(&self, session: SessionId) {
        for link in self.0.sticky.forget(session) {
            let client = Client { session, command: CommandId(0), stateless: false };
            // A link that has ended has forgotten the session with everything else.
            let _ = link.notify(SESSION_ENDED, &[], Some(client));
        }
    }

    /// Ends the sessions that have been silent for too long, and cuts off those that were closed and whose
    /// clients do not read the rest. Called once a second.
    pub(crate) fn end_silent_sessions(&self) {
        const LINGER: Duration = Duration::from_secs(5);
        let limits = &self.0.config.limits;
        for session in self.0.sessions.lock().open.values() {
            session.cut_after(LINGER);
            let (first, silent) = session.silence();
            if first && limits.first_message.is_some_and(|max| silent > max) {
                count(&self.0.counters.clients_silent);
                session.close("no first message: limits.first_message_s");
            } else if !first && limits.idle.is_some_and(|max| silent > max) {
                count(&self.0.counters.clients_silent);
                session.close("idle: limits.idle_s");
            }
        }
    }

    fn wire(&self) -> Wire {
        let client = &self.0.config.client;
        Wire {
            framing: Firefly {
                head: client.head,
                proto_version: client.proto_version,
                server_version: client.server_version,
            },
            error_command: client.error_command,
            outbox_bytes_max: self.0.config.limits.outbox_bytes_max,
            slow_client: self.0.config.limits.slow_client,
        }
    }
}

/// Links.
impl Node {
    pub(crate) fn set_parent(&self, name: &NodeName, link: Option<Link>) {
        if let Some(slot) = self.0.parents.lock().get_mut(name) {
            slot.link = link;
        }
        self.0.changed.notify_one();
    }

    /// Whether a child of that name and start may link. Whoever knows the token may be a child: a config
    /// that adds one is taken over by the children first.
    pub(crate) fn admit_child(&self, name: &NodeName, theirs: Incarnation) -> Result<(), Refusal> {
        if self.phase() == Phase::Stopping {
            return Err(Refusal::Stopping);
        }
        let known = self.0.children.lock().get(name).map(|child| child.incarnation);
        fence(name, known, theirs)
    }

    /// Takes a child's link; one of an older or the same start is closed. False when a newer start has
    /// come meanwhile.
    pub(crate) fn add_child(&self, link: Link) -> bool {
        let (name, incarnation) = (link.peer().name.clone(), link.peer().incarnation);
        let kind = link.peer().kind.clone();
        let mut children = self.0.children.lock();
        if fence(&name, children.get(&name).map(|child| child.incarnation), incarnation).is_err() {
            return false;
        }
        let child = Child { kind, incarnation, link: Some(link) };
        if let Some(Child { link: Some(old), .. }) = children.insert(name, child) {
            old.close("a newer link of the same node took its place");
        }
        drop(children);
        self.0.changed.notify_one();
        true
    }

    /// Forgets a child's link, unless another has taken its place. True when it was the current one.
    pub(crate) fn remove_child(&self, link: &Link) -> bool {
        let mut children = self.0.children.lock();
        let Some(child) = children.get_mut(&link.peer().name) else { return false };
        let current = child.link.as_ref().is_some_and(|known| known.same(link));
        if current {
            child.link = None;
        }
        drop(children);
        self.0.changed.notify_one();
        current
    }

    /// The link to a parent, by its name, or by its key when that has several nodes: then one of the
    /// connected ones, the same for the same client session.
    pub(crate) fn parent_link(&self, who: &str, session: Option<SessionId>) -> Result<Link, CallError> {
        let parents = self.0.parents.lock();
        let matching = parents.iter().filter(|(name, slot)| **name == *who || slot.key == *who);
        let (known, up): (Vec<_>, Vec<_>) = matching.map(|(name, slot)| (name, slot.link.clone())).unzip();
        let up: Vec<Link> = up.into_iter().flatten().collect();
        let known_any = !known.is_empty();
        drop(parents);
        self.choose(up, session).ok_or_else(|| {
            let text = if known_any {
                format!("parent `{who}` is not connected to `{}`", self.name())
            } else {
                format!("`{}` has no parent `{who}`", self.name())
            };
            CallError::NoNode(self.fault(Code::NoNode, Executed::No, text))
        })
    }

    /// The link to a child, by its name or its kind; chosen as in [`Node::parent_link`].
    pub(crate) fn child_link(&self, who: &str, session: Option<SessionId>) -> Result<Link, CallError> {
        let children = self.0.children.lock();
        let exact = children.get(who).and_then(|child| child.link.clone());
        let up = match exact {
            Some(link) => vec![link],
            None => children.values().filter(|c| c.kind == *who).filter_map(|c| c.link.clone()).collect(),
        };
        drop(children);
        self.choose(up, session).ok_or_else(|| {
            let text = format!("child `{who}` is not connected to `{}`", self.name());
            CallError::NoNode(self.fault(Code::NoNode, Executed::No, text))
        })
    }

    pub(crate) fn sticky(&self) -> &Sticky {
        &self.0.sticky
    }

    pub(crate) fn next_turn(&self) -> u64 {
        self.0.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// The children of a kind that take clients' messages.
    pub(crate) fn children_of_kind(&self, kind: &str) -> Vec<Hop> {
        let children = self.0.children.lock();
        let links = children.values().filter(|child| child.kind == kind).filter_map(|c| c.link.clone());
        links.filter_map(|link| Hop::new(link, kind)).collect()
    }

    /// The parents that take clients' messages for a kind.
    pub(crate) fn parents_taking(&self, kind: &str) -> Vec<Hop> {
        let parents = self.0.parents.lock();
        let links = parents.values().filter_map(|slot| slot.link.clone());
        links.filter_map(|link| Hop::new(link, kind)).collect()
    }

    fn choose(&self, mut up: Vec<Link>, session: Option<SessionId>) -> Option<Link> {
        if up.is_empty() {
            return None;
        }
        let turn = session.map_or_else(|| self.next_turn(), |id| id.0);
        let at = (turn % up.len() as u64) as usize;
        Some(up.swap_remove(at))
    }

    /// Ends every link in good order.
    pub(crate) fn close_links(&self, why: &str) {
        for slot in self.0.parents.lock().values() {
            slot.link.iter().for_each(|link| link.close(why));
        }
        for child in self.0.children.lock().values() {
            child.link.iter().for_each(|link| link.close(why));
        }
    }

    /// Whether no parent is linked any more.
    pub(crate) fn parents_gone(&self) -> bool {
        self.0.parents.lock().values().all(|slot| slot.link.is_none())
    }

    /// Whether every configured parent is linked.
    pub(crate) fn parents_up(&self) -> bool {
        self.0.parents.lock().values().all(|slot| slot.link.is_some())
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({:?})", self.name(), self.phase())
    }
}
