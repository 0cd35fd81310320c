//! The sessions of other nodes here: each is asked for before its first message runs, and closed, once, behind its
//! last one.

use std::sync::Arc;

use ffproto::relay::{Op, SessionState};
use ffproto::{Code, Executed, Fault, SessionId};
use tokio::time::Instant;

use crate::cluster::membership::decode;
use crate::cluster::reachability::At;
use crate::exec::dispatch::Shared;
use crate::exec::execution::run_hook;
use crate::identity::counters::count;
use crate::ops::envelopes::CHECK_IDS_MAX;
use crate::session::handle::Session;
use crate::session::queue::QueueLimits;
use crate::session::remote_sessions::{Admitted, Job, Remote};

/// Every how many seconds a node asks whether the sessions that it knows are still there: what told it of an
/// end may have been lost with a link.
const CHECK_EVERY_S: u64 = 5;

/// The life of other nodes' sessions here.
impl Shared {
    /// Lets `job`, which keeps so many bytes, run when the session is known here: at once, if it is. The first asks the
    /// session's net node and runs the app's hook.
    pub(crate) fn when_known(self: &Arc<Self>, id: SessionId, via: &At, bytes: usize, job: Job) {
        let limits = &self.node.config().limits;
        let (messages_max, bytes_max) = (limits.session_queue_max, limits.session_queue_bytes_max);
        match self.node.cluster().known.admit(id, QueueLimits { messages_max, bytes_max }, bytes, job) {
            Admitted::Now(job) => job(Ok(())),
            Admitted::Waits => {}
            Admitted::Full(job) => {
                count(&self.node.counters().session_queue_full);
                let text = format!(
                    "too much of the session waits at `{}`: limits.session_queue_max",
                    self.node.name()
                );
                job(Err(self.node.fault(Code::Overloaded, Executed::No, text)));
            }
            Admitted::First => drop(self.node.calls().spawn(self.clone().open(id, via.clone()))),
        }
    }

    async fn open(self: Arc<Self>, id: SessionId, via: At) {
        let known = &self.node.cluster().known;
        let asked = self.node.ask(id, Op::Touch, &[], Some(&via)).await;
        let state = asked.map(|answer| decode::<SessionState>(&answer));
        let fault = match state {
            Ok(Some(state)) => {
                let remote = known.told(id, state, via);
                self.run_hook(&remote, true).await;
                remote.set_opened();
                if remote.becomes_verified() {
                    self.node.tell_verified(id).await;
                }
                while let Some(job) = known.next_job(id) {
                    job(Ok(()));
                }
                return self.session_idle(id);
            }
            Ok(None) => self.node.fault(Code::NoNode, Executed::No, "the session has ended"),
            Err(error) => Fault { executed: Executed::No, ..error.fault().clone() },
        };
        for job in known.not_known(id) {
            job(Err(fault.clone()));
        }
    }

    async fn run_hook(&self, remote: &Arc<Remote>, opened: bool) {
        let hooks = &self.hooks;
        let (hook, name) = if opened {
            (&hooks.session_opened, "on_session_opened")
        } else {
            (&hooks.session_closed, "on_session_closed")
        };
        let Some(hook) = hook else { return };
        let _turn = remote.turn.lock().await;
        let hook = hook(self.node.clone(), Session::there(self.node.clone(), remote.clone()));
        run_hook(&self.node, name, hook).await;
    }

    /// A session of another node has ended: it is closed behind the last of its messages.
    pub(crate) fn session_gone(self: &Arc<Self>, id: SessionId) {
        // First nobody keeps a record for it any more, then what is kept is let go.
        self.node.cluster().known.ended(id);
        self.node.session_ended(id);
        if !self.queues.is_running(id) {
            self.session_idle(id);
        }
    }

    /// Nothing of that session runs or waits here: if it has ended it is closed, once.
    pub(crate) fn session_idle(self: &Arc<Self>, id: SessionId) {
        if let Some(remote) = self.node.cluster().known.close(id) {
            let shared = self.clone();
            self.node.calls().spawn(async move { shared.run_hook(&remote, false).await });
        }
    }

    /// Closes the sessions of net nodes that were started anew or given up, and asks the others (`all`, or
    /// those that were not reached for a while) which sessions they still have. Called once a second.
    pub(crate) fn look_at_sessions(self: &Arc<Self>, all: bool) {
        let (cluster, sticky) = (self.node.cluster(), self.node.sticky());
        let mut nets = sticky.nets();
        nets.extend(cluster.known.nodes());
        // This node's own are forgotten where they end.
        cluster.number().map(|own| nets.remove(&own));
        let look = cluster.look(&nets, Instant::now(), self.node.config().limits.net_lost);
        let all_of = |number| {
            let known = cluster.known.of(number);
            let passing = sticky.of(number).into_iter().filter(|id| cluster.known.get(*id).is_none());
            (passing.collect::<Vec<_>>(), known)
        };
        for number in look.lost {
            let (passing, known) = all_of(number);
            passing.into_iter().chain(known).for_each(|id| self.session_gone(id));
        }
        for (number, since) in look.reached {
            let (passing, known) = all_of(number);
            for (ids, op) in [(known, Op::Check), (passing, Op::Ways)] {
                let (old, there): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| *id < since);
                old.into_iter().for_each(|id| self.session_gone(id));
                for ids in there.chunks(CHECK_IDS_MAX).filter(|_| all) {
                    let payload: Vec<u8> = ids.iter().flat_map(|id| id.0.to_le_bytes()).collect();
                    // The next one is sent in a few seconds.
                    let _ = self.node.tell_node(number, op, None, &payload, None);
                }
            }
        }
    }

    /// Called once a second, with the seconds since the start.
    pub(crate) fn every_second(self: &Arc<Self>, second: u64) {
        self.look_at_sessions(second.is_multiple_of(CHECK_EVERY_S));
        self.node.tell_claims();
        self.look_at_ends();
    }
}
