//! The counters of a node: what it has refused, dropped or cut since it started, each under the name of its queue or
//! limit. The master shows what is not zero in /status.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ffnet::link::LinkCounters;
use ffproto::control::STATE_WITHOUT_FREEZE;

/// The counters of one node.
// Fields: a list of counters, each with the name of its limit; what groups them is their names.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) links: Arc<LinkCounters>,
    /// Messages refused because too much of their session waited.
    pub(crate) session_queue_full: AtomicU64,
    /// Clients disconnected because they did not read.
    pub(crate) outbox_full: AtomicU64,
    /// Pushes dropped because the client did not read (`slow_client: "drop"`).
    pub(crate) pushes_dropped: AtomicU64,
    /// Messages refused because too much waited for another node.
    pub(crate) park_full: AtomicU64,
    /// Pushes to sessions that had ended.
    pub(crate) pushes_to_gone: AtomicU64,
    /// Broadcasts that came to this net node: one frame each, whatever its members.
    pub(crate) broadcasts: AtomicU64,
    /// Broadcasts of a predecessor that were too much to be passed on to its successor.
    pub(crate) broadcasts_lost: AtomicU64,
    /// Messages of broadcasts that were queued for a client without a copy.
    pub(crate) pushes_shared: AtomicU64,
    /// Envelopes that were dropped because no neighbour led to the node that they were for.
    pub(crate) unrouted: AtomicU64,
    /// Messages that neighbours sent on behalf of sessions that are not behind their link.
    pub(crate) forged: AtomicU64,
    /// Clients refused by `sessions_max` or `connections_per_address`.
    pub(crate) clients_refused: AtomicU64,
    /// Clients disconnected by `idle_s` or `first_message_s`.
    pub(crate) clients_silent: AtomicU64,
    /// Clients disconnected for a message before they had logged in.
    pub(crate) logins_early: AtomicU64,
    /// Clients disconnected by `login.timeout_s`.
    pub(crate) logins_late: AtomicU64,
    /// Logins that were refused.
    pub(crate) logins_refused: AtomicU64,
    /// Moves of sessions that came to nothing after they had begun.
    pub(crate) moves_failed: AtomicU64,
    /// 1 when the app has state that a reload loses: the master repeats it in the reload's answer.
    pub(crate) state_without_freeze: AtomicU64,
    /// Sessions closed because their user has another one.
    pub(crate) users_kicked: AtomicU64,
}

/// Counts one more.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl Counters {
    /// The counters that are not zero, by name.
    pub(crate) fn list(&self) -> Vec<(String, u64)> {
        let all = [
            ("broadcasts", &self.broadcasts),
            ("broadcasts_lost", &self.broadcasts_lost),
            ("calls_full", &self.links.calls_full),
            ("clients_refused", &self.clients_refused),
            ("clients_silent", &self.clients_silent),
            ("forged_sessions", &self.forged),
            ("late_replies", &self.links.late_replies),
            ("link_outbox_full", &self.links.outbox_full),
            ("logins_early", &self.logins_early),
            ("logins_late", &self.logins_late),
            ("logins_refused", &self.logins_refused),
            ("moves_failed", &self.moves_failed),
            ("outbox_full", &self.outbox_full),
            ("park_full", &self.park_full),
            ("pushes_dropped", &self.pushes_dropped),
            ("pushes_shared", &self.pushes_shared),
            ("pushes_to_gone", &self.pushes_to_gone),
            ("session_queue_full", &self.session_queue_full),
            (STATE_WITHOUT_FREEZE, &self.state_without_freeze),
            ("unrouted", &self.unrouted),
            ("users_kicked", &self.users_kicked),
        ];
        let counted =
            all.into_iter().map(|(name, counter)| (name.to_owned(), counter.load(Ordering::Relaxed)));
        counted.filter(|(_, count)| *count > 0).collect()
    }
}
