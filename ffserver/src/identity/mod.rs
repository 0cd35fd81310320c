//! The identity of a node, and how it fares: its name and config, its clock, its phase, its tasks, its metrics.

pub(crate) mod counters;
pub(crate) mod handler_metrics;
pub(crate) mod key_by_hand;
pub(crate) mod keys;
pub(crate) mod lifecycle;
pub(crate) mod metrics;
pub(crate) mod startup;
pub(crate) mod stop;
pub(crate) mod traffic;
pub(crate) mod watchdog;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use ffambient::{Ambient, Chance, Clock};
use ffconfig::Limits;
#[cfg(feature = "web")]
use ffconfig::Operator;
#[cfg(feature = "web")]
use ffhttp::is_same_secret;
#[cfg(feature = "web")]
use ffkeys::operator_hash;
use ffkeys::{NodeKeys, TrustRoots};
use ffnet::handshake::{HandshakeError, Local};
use ffproto::credential::PublicKey;
use ffproto::encrypt::Encrypt;
use ffproto::{ClusterName, Code, CommandId, Executed, Fault, Incarnation, NodeName, Versions};
use tokio::time::Instant;

use counters::Counters;
use keys::OwnKeys;
use lifecycle::{Lifecycle, Tasks};
use metrics::NodeMetrics;

/// The identity of one node, which every other part of it is given. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Identity(Arc<Inner>);

// Fields: one for each thing that every part of a node may ask it; none belongs closer to another one.
struct Inner {
    cluster_name: ClusterName,
    keys: OwnKeys,
    #[cfg(feature = "web")]
    operators: Vec<Operator>,
    encrypt: Encrypt,
    config: ffconfig::Node,
    incarnation: Incarnation,
    ambient: Ambient,
    app_chance: Chance,
    claim_clock: ClaimClock,
    log_budget: LogBudget,
    metrics: NodeMetrics,
    counters: Arc<Counters>,
    lifecycle: Lifecycle,
    tasks: Tasks,
}

impl Identity {
    /// Of one incarnation of a node, which draws from a stream of its own of the chance that it is given.
    pub(crate) fn new(
        cluster: &ffconfig::Cluster,
        config: ffconfig::Node,
        incarnation: Incarnation,
        keys: OwnKeys,
        ambient: &Ambient,
        tasks: Tasks,
    ) -> Self {
        let ambient = ambient.stream(&format!("{}@{incarnation}", config.name));
        let metrics = NodeMetrics::new();
        Self(Arc::new(Inner {
            cluster_name: cluster.name.clone(),
            keys,
            #[cfg(feature = "web")]
            operators: cluster.master.operators.clone(),
            encrypt: cluster.master.encrypt,
            config,
            incarnation,
            claim_clock: ClaimClock::start(incarnation, &ambient.clock),
            app_chance: ambient.chance.stream("app"),
            ambient,
            log_budget: LogBudget::default(),
            counters: Arc::new(Counters::new(metrics.registry())),
            metrics,
            lifecycle: Lifecycle::default(),
            tasks,
        }))
    }

    /// Of a node that nobody runs: for tests.
    #[cfg(test)]
    pub(crate) fn bare(cluster: &ffconfig::Cluster, config: ffconfig::Node) -> Self {
        let (keys, _) = keys::KeySource::Nowhere.begin(Versions::OURS);
        Self::new(cluster, config, Incarnation(1), keys, &Ambient::system(), Tasks::default())
    }

    /// The node's name: the key under `servers`.
    pub(crate) fn name(&self) -> &NodeName {
        &self.0.config.name
    }

    /// The node's kind.
    pub(crate) fn kind(&self) -> &str {
        &self.0.config.kind
    }

    /// The node's part of the config.
    pub(crate) fn config(&self) -> &ffconfig::Node {
        &self.0.config
    }

    /// The node's limits.
    #[inline]
    pub(crate) fn limits(&self) -> &Limits {
        &self.0.config.limits
    }

    /// The incarnation of this process.
    pub(crate) fn incarnation(&self) -> Incarnation {
        self.0.incarnation
    }

    /// The clock and the chance of this incarnation.
    pub(crate) fn ambient(&self) -> &Ambient {
        &self.0.ambient
    }

    /// The chance for authors' code: what it draws does not depend on what the node itself has drawn.
    pub(crate) fn app_chance(&self) -> &Chance {
        &self.0.app_chance
    }

    /// The chance of this incarnation.
    pub(crate) fn chance(&self) -> &Chance {
        &self.0.ambient.chance
    }

    /// Milliseconds since 1970, as the clock said at the start of this process: never back.
    pub(crate) fn now_ms(&self) -> u64 {
        self.0.claim_clock.now_ms()
    }

    /// The metrics of the node.
    #[inline]
    pub(crate) fn metrics(&self) -> &NodeMetrics {
        &self.0.metrics
    }

    /// The counters of the node.
    #[inline]
    pub(crate) fn counters(&self) -> &Arc<Counters> {
        &self.0.counters
    }

    /// The lifecycle of the node.
    #[inline]
    pub(crate) fn lifecycle(&self) -> &Lifecycle {
        &self.0.lifecycle
    }

    /// The tasks that a stop of the node waits for.
    #[inline]
    pub(crate) fn tasks(&self) -> &Tasks {
        &self.0.tasks
    }

    /// The versions of the protocol between nodes that this process speaks.
    pub(crate) fn versions(&self) -> Versions {
        self.0.keys.versions
    }

    /// The name of the node's cluster.
    pub(crate) fn cluster(&self) -> &ClusterName {
        &self.0.cluster_name
    }

    /// Whether that is the token of an operator, by the config that this node was started with. Each role may look.
    #[cfg(feature = "web")]
    pub(crate) fn is_operators_token(&self, given: &str) -> bool {
        let hash = operator_hash(given);
        self.0.operators.iter().fold(false, |found, operator| found | is_same_secret(&hash, &operator.hash))
    }

    /// Whether those keys are of this start of this node.
    pub(crate) fn owns(&self, keys: &NodeKeys) -> bool {
        let claims = keys.claims();
        claims.cluster == self.0.cluster_name
            && claims.name == *self.name()
            && claims.kind == self.kind()
            && keys.incarnation() == self.0.incarnation
    }

    /// The node's own part of a handshake.
    pub(crate) fn local(&self, methods: Vec<String>) -> Result<Local, HandshakeError> {
        let keys = self.0.keys.keys.borrow().clone().ok_or(HandshakeError::NoKey)?;
        let (versions, chance, clock) =
            (self.0.keys.versions, self.chance().clone(), self.ambient().clock.clone());
        Ok(Local { keys, versions, methods, chance, clock, binding: Vec::new() })
    }

    /// Knows others by those roots from now on. Whether it has known them by others.
    pub(crate) fn trust(&self, roots: TrustRoots) -> bool {
        self.0.keys.keys.send_if_modified(|keys| match keys {
            Some(keys) if keys.roots() != roots => {
                *keys = Arc::new(keys.with_roots(roots));
                true
            }
            _ => false,
        })
    }

    /// Whether a credential of that key is taken here. Without keys, as in links in memory, nobody is asked for any.
    pub(crate) fn trusts(&self, root: PublicKey) -> bool {
        self.0.keys.keys.borrow().as_ref().is_none_or(|keys| keys.roots().has(root))
    }

    /// Whether others take this node's credential. One that has no key yet is none of them.
    pub(crate) fn has_valid_key(&self) -> bool {
        self.0.keys.keys.borrow().as_ref().is_none_or(|keys| keys.are_valid())
    }

    /// When the node's links and its control connection are encrypted.
    pub(crate) fn encrypt(&self) -> Encrypt {
        self.0.encrypt
    }

    /// A fault that this node notices.
    pub(crate) fn fault(&self, code: Code, executed: Executed, message: impl Into<String>) -> Fault {
        self.metrics().faults().count(code);
        Fault { code, at: self.name().clone(), executed, message: message.into() }
    }

    /// Whether one more call, for a message of that command, may be logged: the first few of each second are, so that a newcomer
    /// sees what happens and a busy node does not drown. Those of `log.quiet_commands` are not. See [`Identity::end_log_second`].
    #[inline]
    pub(crate) fn may_log_call(&self, command: Option<CommandId>) -> bool {
        let quiet = &self.0.config.log.quiet_commands;
        let is_quiet = |command| quiet.iter().any(|(first, last)| (*first..=*last).contains(&command));
        (quiet.is_empty() || !command.is_some_and(is_quiet)) && self.0.log_budget.take()
    }

    /// Begins a new second for [`Identity::may_log_call`].
    pub(crate) fn end_log_second(&self) {
        self.0.log_budget.refill();
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "node {} ({:?})", self.name(), self.lifecycle().phase())
    }
}

/// The claim clock: the time of day by which a process may order its own and others' claims. It never goes back.
struct ClaimClock {
    started: Instant,
    started_ms: u64,
}

impl ClaimClock {
    fn start(incarnation: Incarnation, clock: &Clock) -> Self {
        // The incarnation was given before the process was launched, which takes longer for one than for another:
        // claims of two nodes would not compare.
        Self { started: Instant::now(), started_ms: clock.now_ms().max(incarnation.0) }
    }

    fn now_ms(&self) -> u64 {
        self.started_ms + self.started.elapsed().as_millis() as u64
    }
}

/// The log budget: how many calls may still be logged in this second.
#[derive(Default)]
struct LogBudget {
    lines: AtomicU32,
}

impl LogBudget {
    const PER_SECOND: u32 = 20;

    #[inline]
    fn take(&self) -> bool {
        self.lines.load(Ordering::Relaxed) < Self::PER_SECOND
            && self.lines.fetch_add(1, Ordering::Relaxed) < Self::PER_SECOND
    }

    fn refill(&self) {
        self.lines.store(0, Ordering::Relaxed);
    }
}
