//! The lifecycle of replicas, which are other nodes' sessions on this one: each is asked for before its first message
//! runs, and closed, once, behind its last message.

use std::sync::Arc;

use ffproto::relay::{Op, SessionState};
use ffproto::{Code, Executed, Fault, SessionId};
use tokio::time::Instant;

use crate::app::hooks::{Hooks, SessionEvent};
use crate::cluster::payload::decode;
use crate::cluster::side::PeerKey;
use crate::exec::events::tell_session;
use crate::exec::executor::QueuedMessage;
use crate::identity::counters::count;
use crate::node::Node;
use crate::session::handle::Session;
use crate::session::queue::{QueueLimits, SessionQueues};
use crate::session::remote_sessions::{JobAdmission, RemoteSession, RemoteSessions, ReplicaJob};

/// The number of ids that one Check carries.
pub(crate) const CHECK_IDS_MAX: usize = 4096;

/// The replicas on this node, and what their lifecycle depends on.
pub(crate) struct Replicas {
    pub(crate) node: Node,
    pub(crate) queues: Arc<SessionQueues<QueuedMessage>>,
    pub(crate) hooks: Hooks,
}

impl Replicas {
    fn replicas(&self) -> &RemoteSessions {
        self.node.all_sessions().remote()
    }

    fn session(&self, remote: &Arc<RemoteSession>) -> Session {
        Session::there(self.node.all_sessions().clone(), remote.clone())
    }

    /// Lets `job`, which keeps so many bytes, run when the session is known here: at once, if it is. The first job asks
    /// the session's net node and runs the app's hook.
    pub(crate) fn when_open(
        self: &Arc<Self>,
        id: SessionId,
        neighbour: &PeerKey,
        bytes: usize,
        job: ReplicaJob,
    ) {
        let identity = self.node.identity();
        let limits = identity.limits();
        let (messages_max, bytes_max) = (limits.session_queue_max, limits.session_queue_bytes_max);
        match self.replicas().admit(id, QueueLimits { messages_max, bytes_max }, bytes, job) {
            JobAdmission::Now(job) => job(Ok(())),
            JobAdmission::Waits => {}
            JobAdmission::Full(job) => {
                count(&identity.counters().session_queue_full);
                let text = format!(
                    "too much of the session waits at `{}`: limits.session_queue_max",
                    identity.name()
                );
                job(Err(identity.fault(Code::Overloaded, Executed::No, text)));
            }
            JobAdmission::First => {
                drop(identity.tasks().calls().spawn(self.clone().open(id, neighbour.clone())));
            }
        }
    }

    async fn open(self: Arc<Self>, id: SessionId, neighbour: PeerKey) {
        let answer = self.node.transit().ask(id, Op::Touch, &[], Some(&neighbour)).await;
        let state = answer.map(|answer| decode::<SessionState>(&answer));
        let fault = match state {
            Ok(Some(state)) => {
                let remote = self.replicas().add(id, state, neighbour);
                self.tell(&remote, SessionEvent::Opened).await;
                remote.set_opened();
                if remote.becomes_verified() {
                    self.node.all_sessions().events().verified(id).await;
                }
                while let Some(job) = self.replicas().next_job(id) {
                    job(Ok(()));
                }
                return self.idle(id);
            }
            Ok(None) => self.node.identity().fault(Code::NoNode, Executed::No, "the session has ended"),
            Err(error) => Fault { executed: Executed::No, ..error.fault().clone() },
        };
        for job in self.replicas().give_up(id) {
            job(Err(fault.clone()));
        }
    }

    /// Runs the app's hook for an event of a replica, behind the hooks about it that run already.
    pub(crate) async fn tell(&self, remote: &Arc<RemoteSession>, event: SessionEvent) {
        if self.hooks.of(event.kind()).is_some() {
            let _turn = remote.turn.lock().await;
            tell_session(&self.hooks, &self.node, self.session(remote), event).await;
        }
    }

    /// A session of another node has ended: it is closed behind the last of its messages.
    pub(crate) fn gone(self: &Arc<Self>, id: SessionId) {
        // First no record is bound to the session any more, then those that are bound are let go.
        self.replicas().ended(id);
        self.node.all_sessions().ended(id);
        if !self.queues.is_running(id) {
            self.idle(id);
        }
    }

    /// Closes a session, once, if it has ended; called when nothing of the session runs or waits here.
    pub(crate) fn idle(self: &Arc<Self>, id: SessionId) {
        if let Some(remote) = self.replicas().close(id) {
            let replicas = self.clone();
            let closed = async move { replicas.tell(&remote, SessionEvent::Closed).await };
            drop(self.node.identity().tasks().calls().spawn(closed));
        }
    }

    /// Closes the sessions of net nodes that were started anew or given up, and asks the others (`all`, or
    /// those that were not reached for a while) which sessions they still have. Called once a second.
    pub(crate) fn look_at_all(self: &Arc<Self>, all: bool) {
        let (transit, replicas) = (self.node.transit(), self.replicas());
        let (membership, affinity) = (transit.membership(), transit.affinity());
        let mut nets = affinity.nets();
        nets.extend(replicas.nodes());
        // This node's own sessions are forgotten where they end.
        membership.number().map(|own| nets.remove(&own));
        let look = membership.look(&nets, Instant::now(), self.node.config().limits.net_lost);
        let all_of = |number| {
            let of_number = replicas.of(number);
            let passing = affinity.of(number).into_iter().filter(|id| replicas.get(*id).is_none());
            (passing.collect::<Vec<_>>(), of_number)
        };
        for number in look.lost {
            let (passing, known) = all_of(number);
            passing.into_iter().chain(known).for_each(|id| self.gone(id));
        }
        for (number, since) in look.reached {
            let (passing, known) = all_of(number);
            for (ids, op) in [(known, Op::Check), (passing, Op::Ways)] {
                let (old, there): (Vec<_>, Vec<_>) = ids.into_iter().partition(|id| *id < since);
                old.into_iter().for_each(|id| self.gone(id));
                for ids in there.chunks(CHECK_IDS_MAX).filter(|_| all) {
                    let payload: Vec<u8> = ids.iter().flat_map(|id| id.0.to_le_bytes()).collect();
                    // A Check that is lost is made up for by the next one, in a few seconds.
                    let _ = transit.tell_node(number, op, None, &payload, None);
                }
            }
        }
    }
}
