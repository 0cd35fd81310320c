//! The counters of a node: what it has refused, dropped or cut since it started, each under the name of its queue or
//! limit. The master shows what is not zero in /status; /metrics has all of them, as `ff_NAME_total`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ffnet::link::LinkCounters;
use ffproto::control::STATE_WITHOUT_FREEZE;
use fftelemetry::metrics::{Counter, Registry};

use crate::identity::traffic::Traffic;

/// The counters of one node.
// Fields: a list of counters, each with the name of its limit; what groups them is their names.
#[derive(Debug)]
pub(crate) struct Counters {
    pub(crate) links: Arc<LinkCounters>,
    pub(crate) traffic: Traffic,
    /// Messages refused because too much of their session waited.
    pub(crate) session_queue_full: Counter,
    /// Clients disconnected because they did not read.
    pub(crate) outbox_full: Counter,
    /// Pushes dropped because the client did not read (`slow_client: "drop"`).
    pub(crate) pushes_dropped: Counter,
    /// Messages refused because too much waited for another node.
    pub(crate) park_full: Counter,
    /// Pushes to sessions that had ended.
    pub(crate) pushes_to_gone: Counter,
    /// Broadcasts that came to this net node: one frame each, whatever its members.
    pub(crate) broadcasts: Counter,
    /// Broadcasts of a predecessor that were too much to be passed on to its successor.
    pub(crate) broadcasts_lost: Counter,
    /// Messages of broadcasts that were queued for a client without a copy.
    pub(crate) pushes_shared: Counter,
    /// Envelopes that were dropped because no neighbour led to the node that they were for.
    pub(crate) unrouted: Counter,
    /// Messages that neighbours sent on behalf of sessions that are not behind their link.
    pub(crate) forged: Counter,
    /// Messages of nodes that have no right to what they ask for.
    pub(crate) forbidden: Counter,
    /// Nodes of which neighbours have said that they reach them, and cannot.
    pub(crate) false_reach: Counter,
    /// Clients refused by `sessions_max` or `connections_per_address`.
    pub(crate) clients_refused: Counter,
    /// Clients disconnected by `idle_s` or `first_message_s`.
    pub(crate) clients_silent: Counter,
    /// Clients disconnected for a message before they had logged in.
    pub(crate) logins_early: Counter,
    /// Clients disconnected by `login.timeout_s`.
    pub(crate) logins_late: Counter,
    /// Logins that were refused.
    pub(crate) logins_refused: Counter,
    /// Moves of sessions that came to nothing after they had begun.
    pub(crate) moves_failed: Counter,
    /// 1 when the app has state that a reload loses: the master repeats it in the reload's answer.
    pub(crate) state_without_freeze: Counter,
    /// Sessions closed because their user has another one.
    pub(crate) users_kicked: Counter,
    /// Clients that were taken in.
    pub(crate) sessions_opened: Counter,
    /// Logins that were accepted.
    pub(crate) logins_accepted: Counter,
}

/// Counts one more.
#[inline]
pub(crate) fn count(counter: &Counter) {
    counter.inc();
}

#[cfg(test)]
impl Default for Counters {
    fn default() -> Self {
        Self::new(&Registry::new())
    }
}

impl Counters {
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| Registry::counter(registry, &format!("ff_{name}"), help);
        Self {
            links: Arc::default(),
            traffic: Traffic::default(),
            // Shown as a gauge: the node's app has such state, or has not.
            state_without_freeze: Counter::default(),
            session_queue_full: counter(
                "session_queue_full",
                "Messages refused because too much of their session waited",
            ),
            outbox_full: counter("outbox_full", "Clients disconnected because they did not read"),
            pushes_dropped: counter(
                "pushes_dropped",
                "Pushes dropped because the client did not read (slow_client: drop)",
            ),
            park_full: counter("park_full", "Messages refused because too much waited for another node"),
            pushes_to_gone: counter("pushes_to_gone", "Pushes to sessions that had ended"),
            broadcasts: counter(
                "broadcasts",
                "Broadcasts that came to this net node: one frame each, whatever its members",
            ),
            broadcasts_lost: counter(
                "broadcasts_lost",
                "Broadcasts of a predecessor that were too much to be passed on to its successor",
            ),
            pushes_shared: counter(
                "pushes_shared",
                "Messages of broadcasts that were queued for a client without a copy",
            ),
            unrouted: counter(
                "unrouted",
                "Envelopes that were dropped because no neighbour led to the node that they were for",
            ),
            forged: counter(
                "forged_sessions",
                "Messages that neighbours sent on behalf of sessions that are not behind their link",
            ),
            forbidden: counter("forbidden", "Messages of nodes that have no right to what they ask for"),
            false_reach: counter(
                "false_reach",
                "Nodes of which neighbours have said that they reach them, and cannot",
            ),
            clients_refused: counter(
                "clients_refused",
                "Clients refused by sessions_max or connections_per_address",
            ),
            clients_silent: counter("clients_silent", "Clients disconnected by idle_s or first_message_s"),
            logins_early: counter(
                "logins_early",
                "Clients disconnected for a message before they had logged in",
            ),
            logins_late: counter("logins_late", "Clients disconnected by login.timeout_s"),
            logins_refused: counter("logins_refused", "Logins that were refused"),
            moves_failed: counter(
                "moves_failed",
                "Moves of sessions that came to nothing after they had begun",
            ),
            users_kicked: counter("users_kicked", "Sessions closed because their user has another one"),
            sessions_opened: counter("sessions_opened", "Clients that were taken in by this net node"),
            logins_accepted: counter("logins_accepted", "Logins that were accepted"),
        }
    }

    /// The counters that are not zero, by name.
    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        let links = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let all = [
            ("broadcasts", self.broadcasts.get()),
            ("broadcasts_lost", self.broadcasts_lost.get()),
            ("calls_full", links(&self.links.calls_full)),
            ("clients_refused", self.clients_refused.get()),
            ("clients_silent", self.clients_silent.get()),
            ("false_reach", self.false_reach.get()),
            ("forbidden", self.forbidden.get()),
            ("forged_sessions", self.forged.get()),
            ("late_replies", links(&self.links.late_replies)),
            ("link_outbox_full", links(&self.links.outbox_full)),
            ("logins_early", self.logins_early.get()),
            ("logins_late", self.logins_late.get()),
            ("logins_refused", self.logins_refused.get()),
            ("moves_failed", self.moves_failed.get()),
            ("outbox_full", self.outbox_full.get()),
            ("park_full", self.park_full.get()),
            ("pushes_dropped", self.pushes_dropped.get()),
            ("pushes_shared", self.pushes_shared.get()),
            ("pushes_to_gone", self.pushes_to_gone.get()),
            ("session_queue_full", self.session_queue_full.get()),
            (STATE_WITHOUT_FREEZE, self.state_without_freeze.get()),
            ("unrouted", self.unrouted.get()),
            ("users_kicked", self.users_kicked.get()),
        ];
        let counted = all.into_iter().map(|(name, count)| (name.to_owned(), count));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}
