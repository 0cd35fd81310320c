//! Transit: which link a message takes to another node, or how long the message waits for one.

pub(crate) mod call;
pub(crate) mod envelope;
pub(crate) mod envelope_hold;
pub(crate) mod flush_barrier;
pub(crate) mod forward_counters;
pub(crate) mod inbound_envelope;
pub(crate) mod links;
pub(crate) mod next_hop;
pub(crate) mod park;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ffnet::Link;
use ffproto::{NodeName, NodeNumber, SessionId};
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::cluster::affinity::Affinity;
use crate::cluster::configured_routes::ConfiguredRoutes;
use crate::cluster::membership::Membership;
use crate::cluster::peers::Peers;
use crate::cluster::reach_rules::ReachRules;
use crate::cluster::rights::RightsTable;
use crate::cluster::side::Side;
use crate::identity::Identity;
use envelope_hold::EnvelopeHold;
use forward_counters::ForwardCounters;
use park::{Park, ParkLimits};

/// The transit of one node: its links, its tables of the nodes behind them, and the messages that wait. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Transit(Arc<Parts>);

// Fields: each is a table or a bell of its own, with a file of its own; only `Transit` has them together.
struct Parts {
    identity: Identity,
    membership: Membership,
    parents: Mutex<Peers>,
    children: Mutex<Peers>,
    routes: Arc<ConfiguredRoutes>,
    rights: RightsTable,
    affinity: Affinity,
    park: Park,
    hold: EnvelopeHold,
    forwarded: ForwardCounters,
    turn: AtomicU64,
    /// Rings when a link has come or ended.
    linked: Notify,
    turned: Notify,
    work: Arc<dyn SessionWork>,
}

/// What the transit asks about sessions, which later rooms own.
pub(crate) trait SessionWork: Send + Sync {
    /// Whether the session is open on this node, as its net node.
    fn is_open(&self, session: SessionId) -> bool;

    /// Whether a message of the session runs, or waits for its turn, at this node.
    fn is_running(&self, session: SessionId) -> bool;

    /// How many messages wait for their turn at this node.
    fn waiting(&self) -> usize;
}

impl Transit {
    pub(crate) fn new(
        identity: Identity,
        cluster: &ffconfig::Cluster,
        routes: Arc<ConfiguredRoutes>,
        work: Arc<dyn SessionWork>,
    ) -> Self {
        let (config, now) = (identity.config(), Instant::now());
        let parents = config.parents.iter().map(|parent| (parent.name.clone(), parent.key.clone()));
        let parents = Peers::expecting(parents, now);
        let children =
            cluster.children_of(&config.name).map(|child| (child.name.clone(), child.kind.clone()));
        let children = Peers::expecting(children, now);
        let limits = &config.limits;
        let forwarded = ForwardCounters::new(identity.metrics().registry(), &config.route, &routes);
        let park = ParkLimits { messages_max: limits.park_max, bytes_max: limits.park_bytes_max };
        Self(Arc::new(Parts {
            membership: Membership::new(ReachRules::of(cluster, config)),
            rights: RightsTable::of(cluster, config),
            parents: Mutex::new(parents),
            children: Mutex::new(children),
            routes,
            affinity: Affinity::default(),
            park: Park::new(park),
            hold: EnvelopeHold::default(),
            forwarded,
            turn: AtomicU64::new(0),
            linked: Notify::new(),
            turned: Notify::new(),
            work,
            identity,
        }))
    }

    /// The identity of this node.
    #[inline]
    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    /// The membership: which nodes are reached now.
    #[inline]
    pub(crate) fn membership(&self) -> &Membership {
        &self.0.membership
    }

    pub(crate) fn parents(&self) -> MutexGuard<'_, Peers> {
        self.0.parents.lock()
    }

    pub(crate) fn children(&self) -> MutexGuard<'_, Peers> {
        self.0.children.lock()
    }

    pub(crate) fn peers(&self, side: Side) -> MutexGuard<'_, Peers> {
        match side {
            Side::Parent => self.parents(),
            Side::Child => self.children(),
        }
    }

    /// Every link that lives, of parents and children, also of those that are being replaced.
    pub(crate) fn links(&self) -> Vec<Link> {
        let mut links: Vec<Link> = self.parents().links().cloned().collect();
        links.extend(self.children().links().cloned());
        links
    }

    /// The configured routes: what the neighbours take clients' messages for.
    pub(crate) fn routes(&self) -> &ConfiguredRoutes {
        &self.0.routes
    }

    /// The rights of the other nodes at this one.
    #[inline]
    pub(crate) fn rights(&self) -> &RightsTable {
        &self.0.rights
    }

    /// The affinity: which neighbour takes each session's messages.
    #[inline]
    pub(crate) fn affinity(&self) -> &Affinity {
        &self.0.affinity
    }

    /// The park: the messages that wait for a neighbour.
    #[inline]
    pub(crate) fn park(&self) -> &Park {
        &self.0.park
    }

    /// The counters of clients' messages that this node sends on.
    #[inline]
    pub(crate) fn forwarded(&self) -> &ForwardCounters {
        &self.0.forwarded
    }

    /// The envelope hold: the envelopes that wait for their session or node.
    pub(crate) fn hold(&self) -> &EnvelopeHold {
        &self.0.hold
    }

    /// A number for the choice among equals: another one each time.
    pub(crate) fn next_turn(&self) -> u64 {
        self.0.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Wakes a hand-over when a neighbour has come, gone, paused or turned to a successor.
    pub(crate) fn turned(&self) -> &Notify {
        &self.0.turned
    }

    /// The number of this node; 0 until the master has given one, and nothing is linked before.
    pub(crate) fn number(&self) -> NodeNumber {
        self.membership().number().unwrap_or(NodeNumber(0))
    }

    /// Whether a client's session has ended, as far as this node knows: the session is of this node, and is neither
    /// here nor on its way here from the predecessor.
    pub(crate) fn has_ended(&self, session: SessionId) -> bool {
        let is_own = self.membership().number() == Some(session.node());
        is_own && !self.hold().is_expecting() && !self.0.work.is_open(session)
    }

    /// Whether a message of a session runs, or waits for its turn, at this node.
    pub(crate) fn runs_here(&self, session: SessionId) -> bool {
        self.0.work.is_running(session)
    }

    /// How many messages of sessions wait for their turn at this node.
    pub(crate) fn waiting_here(&self) -> usize {
        self.0.work.waiting()
    }

    /// Until when a node that is not reached now may be back: `limits.park_ms` after it was reached, or after the start of
    /// this process.
    pub(crate) fn awaited_until(&self, name: &NodeName) -> Option<Instant> {
        let park = self.identity().limits().park;
        self.membership().awaited_until(Instant::now(), park, |left, _| left == name)
    }

    /// Whether a node that is not reached now may be back, see [`Transit::awaited_until`].
    pub(crate) fn may_be_reached_soon(&self, name: &NodeName) -> bool {
        self.awaited_until(name).is_some()
    }
}

impl fmt::Debug for Transit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "transit of {:?}", self.identity())
    }
}
