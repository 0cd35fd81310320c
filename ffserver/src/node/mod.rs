//! The handle to one running node: a façade over its parts, for authors' code. No global knows it; everything
//! that needs the node is given this handle, so one process can host many.

pub(crate) mod conf;
pub(crate) mod metrics;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Weak};

use ffambient::{Chance, Clock};
use ffproto::control::NodeStatus;
use ffproto::{Incarnation, NodeName, NodeNumber, SessionId};
use ffstore::Stores;
use ffstore::cache::Cache;
use ffstore::db::Db;
use ffstore::record::{Record, Records, Table};

use crate::calls::neighbours::{Children, Parents};
use crate::calls::nodes::Nodes;
use crate::cluster::found::{Found, Load};
use crate::identity::Identity;
pub use crate::identity::lifecycle::Phase;
use crate::node::conf::Conf;
use crate::session::Sessions;
use crate::session::broadcast::Broadcasts;
use crate::session::handle::Session;
use crate::session::registry::Registry;
use crate::transit::Transit;
use crate::transit::call::Origin;

/// A handle to a running node. Cheap to clone, usable from any task and from Rocket's routes (as
/// `&rocket::State<Node>`).
///
/// ```
/// use ffserver::prelude::*;
///
/// #[net_handle(9)]
/// async fn about(node: Node) -> String {
///     format!("{} of the kind {}, with {} clients", node.name(), node.kind(), node.sessions().len())
/// }
/// # let _ = App::new("net").handlers(handlers![about]);
/// ```
#[derive(Clone)]
pub struct Node(Arc<Parts>);

/// The parts of a node, each of them whole.
struct Parts {
    identity: Identity,
    transit: Transit,
    sessions: Sessions,
    stores: Stores,
    states: States,
}

/// The states of the app, by type.
pub(crate) type States = HashMap<TypeId, Arc<dyn Any + Send + Sync>>;

/// A weak handle to a node, for parts that the node itself owns.
#[derive(Clone)]
pub(crate) struct WeakNode(Weak<Parts>);

impl WeakNode {
    /// The node, while it lives.
    pub(crate) fn upgrade(&self) -> Option<Node> {
        self.0.upgrade().map(Node)
    }
}

impl Node {
    /// Puts a node together; `sessions` makes the part that tells the node of its sessions' events.
    pub(crate) fn new(
        transit: Transit,
        stores: Stores,
        states: States,
        sessions: impl FnOnce(WeakNode) -> Sessions,
    ) -> Self {
        Self(Arc::new_cyclic(|weak| {
            let sessions = sessions(WeakNode(weak.clone()));
            Parts { identity: transit.identity().clone(), transit, sessions, stores, states }
        }))
    }

    #[inline]
    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    #[inline]
    pub(crate) fn transit(&self) -> &Transit {
        &self.0.transit
    }

    /// The sessions of this node, and the replicas of other nodes' here.
    #[inline]
    pub(crate) fn all_sessions(&self) -> &Sessions {
        &self.0.sessions
    }

    /// The node's name: the key under `servers`.
    pub fn name(&self) -> &NodeName {
        self.identity().name()
    }

    /// The node's kind.
    pub fn kind(&self) -> &str {
        self.identity().kind()
    }

    /// The node's part of the config.
    pub fn config(&self) -> &ffconfig::Node {
        self.identity().config()
    }

    /// The incarnation of this process.
    pub fn incarnation(&self) -> Incarnation {
        self.identity().incarnation()
    }

    /// The time of day, for handlers: a test may give the node a clock of its own.
    ///
    /// ```
    /// # use ffserver::Node;
    /// fn stamp(node: &Node) -> u64 {
    ///     node.clock().now_ms() // Milliseconds since 1970.
    /// }
    /// ```
    pub fn clock(&self) -> &Clock {
        &self.identity().ambient().clock
    }

    /// Random bytes, for handlers: the system's, which nobody can guess, or from a test's seed.
    ///
    /// ```
    /// # use ffserver::{HandlerError, Node};
    /// fn dice(node: &Node) -> Result<u64, HandlerError> {
    ///     Ok(node.chance().u64()? % 6 + 1)
    /// }
    /// ```
    pub fn chance(&self) -> &Chance {
        self.identity().app_chance()
    }

    /// The phase of the node's life.
    pub fn phase(&self) -> Phase {
        self.identity().lifecycle().phase()
    }

    /// The database, when the config says `"db": true`.
    pub fn db(&self) -> Option<&Db> {
        self.0.stores.db.as_ref()
    }

    /// The database of that name under the config's `databases`, when the config says `"db": true`.
    pub fn database(&self, name: &str) -> Option<&Db> {
        self.0.stores.databases.get(name)
    }

    /// Every database of this node, each under what the config calls it: `db`, and those of `databases`.
    pub fn databases(&self) -> impl Iterator<Item = (&str, &Db)> {
        self.0.stores.all_databases()
    }

    /// The cache: memcached when the config says `"mem": true`, else in this process.
    pub fn cache(&self) -> &Cache {
        &self.0.stores.cache
    }

    /// The table of a record that the app has named with [`App::table`](crate::App::table).
    pub fn table<T: Record>(&self) -> Option<Table<T>> {
        self.records()?.table()
    }

    /// The records of this node, when its app has tables.
    pub(crate) fn records(&self) -> Option<&Records> {
        self.0.stores.records.as_ref()
    }

    /// The app's value of type `T` ([`App::state`](crate::App::state)).
    pub fn state<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.states.get(&TypeId::of::<T>()).cloned()?.downcast().ok()
    }

    /// The node's `conf` as the app's type ([`App::conf`](crate::App::conf)), for hooks; `None` when that is another one.
    ///
    /// ```
    /// # use ffserver::{App, Node};
    /// #[derive(serde::Deserialize)]
    /// struct Rules {
    ///     motto: String,
    /// }
    ///
    /// let app = App::new("hall").conf::<Rules>().on_started(|node| async move {
    ///     let rules = node.conf::<Rules>().ok_or("no rules")?;
    ///     println!("{}", rules.motto);
    ///     Ok(())
    /// });
    /// # let _ = app;
    /// ```
    pub fn conf<T: Send + Sync + 'static>(&self) -> Option<Conf<T>> {
        self.state::<Conf<T>>().map(|conf| Conf::clone(&conf))
    }

    /// Whether the app has a value of that type.
    pub(crate) fn has_state(&self, id: TypeId) -> bool {
        self.0.states.contains_key(&id)
    }

    /// The status that the master is told.
    #[cfg_attr(not(feature = "web"), allow(dead_code, reason = "only the web server asks"))]
    pub(crate) fn status(&self) -> NodeStatus {
        status(self.transit(), self.all_sessions().registry(), Some(self))
    }

    /// The children that are linked now.
    pub fn children(&self) -> Vec<NodeName> {
        self.transit().linked_children()
    }

    /// Every other node of the cluster that can be reached from here now, whoever its neighbours are.
    pub fn reachable(&self) -> Vec<NodeName> {
        self.transit().membership().names()
    }

    /// Every node that discovery shows this one, linked or not, with its number, address, version and load as far as the
    /// backend knows them; this node's own entry when the backend has it. The master shows the parents.
    pub fn found(&self) -> Vec<Found> {
        self.transit().membership().found().borrow().nodes.values().cloned().collect()
    }

    /// The number of this node, once discovery has given one.
    pub fn number(&self) -> Option<NodeNumber> {
        self.transit().membership().number()
    }

    /// Takes the number that discovery shows, unless the node has it.
    pub(crate) fn take_number(&self) {
        let number = self.transit().membership().found().borrow().number;
        if let Some(number) = number {
            self.all_sessions().registry().set_number(number);
            self.transit().introduce(number);
        }
    }

    /// The load of this node now.
    pub(crate) fn own_load(&self) -> Load {
        let sessions = self.all_sessions().registry().len() as u64;
        Load { sessions, running: self.identity().tasks().running_calls() as u64 }
    }

    /// The open session of that id: of this node, or of another node if its messages come here.
    pub fn session(&self, id: SessionId) -> Option<Session> {
        self.all_sessions().session(id)
    }

    /// Every open session whose net node this is.
    pub fn sessions(&self) -> Vec<Session> {
        let sessions = self.all_sessions();
        let here = |session| Session::here(sessions.clone(), session);
        sessions.registry().all().into_iter().map(here).collect()
    }

    /// Broadcasts: messages to many clients.
    pub fn broadcasts(&self) -> Broadcasts {
        Broadcasts::new(self.all_sessions().clone())
    }

    /// The parents, to call outside of a request: from a hook or a timer.
    pub fn call_parents(&self) -> Parents {
        Parents::new(Origin::of(self.transit()))
    }

    /// The children, to call outside of a request: from a hook or a timer.
    pub fn call_children(&self) -> Children {
        Children::new(Origin::of(self.transit()))
    }

    /// Every node of the cluster, to call outside of a request: from a hook or a timer.
    pub fn call_nodes(&self) -> Nodes {
        Nodes::new(Origin::of(self.transit()))
    }
}

/// The status of a node, for its master; with the counters of `node`'s stores as soon as they are open.
pub(crate) fn status(transit: &Transit, registry: &Registry, node: Option<&Node>) -> NodeStatus {
    let routed = match transit.affinity().len() {
        0 => None,
        n => Some(("sessions_routed".to_owned(), n as u64)),
    };
    let counted = transit.identity().counters().list().into_iter().chain(routed);
    let stored = node.into_iter().flat_map(|node| {
        let lost = node.databases().filter(|(_, db)| !db.health().is_up()).count() as u64;
        let lost = (lost > 0).then(|| ("databases_down".to_owned(), lost));
        lost.into_iter().chain(node.records().map(Records::counters).unwrap_or_default())
    });
    NodeStatus {
        sessions: registry.len() as u64,
        parents: transit.parent_list(),
        children: transit.linked_children(),
        counters: counted.chain(stored).collect(),
    }
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.identity())
    }
}
