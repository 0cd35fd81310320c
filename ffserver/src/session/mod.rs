//! Sessions: one client as the whole cluster sees it, on its net node and on every other.

pub(crate) mod broadcast;
pub(crate) mod broadcast_handoff;
pub(crate) mod conflated_broadcast;
pub(crate) mod errors;
pub(crate) mod events;
pub(crate) mod exclusive_login;
pub(crate) mod groups;
pub(crate) mod handle;
pub(crate) mod inspection;
pub(crate) mod local;
pub(crate) mod migration;
pub(crate) mod queue;
pub(crate) mod registry;
pub(crate) mod remote_sessions;
pub(crate) mod user_directory;

use std::fmt;
use std::sync::Arc;

use ffproto::relay::{GroupAnswer, Op, SessionChange, SessionState};
use ffproto::{Code, CommandId, Executed, NodeNumber, SessionId, handover};

use crate::cluster::payload::encode;
use crate::cluster::served::SESSION_ENDED;
use crate::identity::Identity;
use crate::identity::counters::count;
use crate::transit::Transit;
use crate::transit::envelope::about;
use broadcast_handoff::BroadcastHandoff;
use events::SessionEvents;
use groups::{Groups, NAME_BYTES_MAX};
use local::{LocalSession, SessionHandoff, StateTooLarge};
use registry::Registry;
use remote_sessions::RemoteSessions;
use user_directory::UserDirectory;

/// The sessions that one node knows: its own, and the replicas of other net nodes'. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sessions(Arc<Parts>);

struct Parts {
    transit: Transit,
    registry: Arc<Registry>,
    remote: Arc<RemoteSessions>,
    groups: Groups,
    users: UserDirectory,
    handoff: BroadcastHandoff,
    events: Arc<dyn SessionEvents>,
}

impl Sessions {
    pub(crate) fn new(
        transit: Transit,
        registry: Arc<Registry>,
        remote: Arc<RemoteSessions>,
        users: UserDirectory,
        events: Arc<dyn SessionEvents>,
    ) -> Self {
        let (groups, handoff) = (Groups::default(), BroadcastHandoff::default());
        Self(Arc::new(Parts { transit, registry, remote, groups, users, handoff, events }))
    }

    /// The identity of this node.
    #[inline]
    pub(crate) fn identity(&self) -> &Identity {
        self.0.transit.identity()
    }

    #[inline]
    pub(crate) fn transit(&self) -> &Transit {
        &self.0.transit
    }

    /// The sessions whose net node this is.
    #[inline]
    pub(crate) fn registry(&self) -> &Arc<Registry> {
        &self.0.registry
    }

    /// The replicas: sessions of other net nodes.
    #[inline]
    pub(crate) fn remote(&self) -> &RemoteSessions {
        &self.0.remote
    }

    pub(crate) fn groups(&self) -> &Groups {
        &self.0.groups
    }

    pub(crate) fn users(&self) -> &UserDirectory {
        &self.0.users
    }

    /// The hand-off of broadcasts to a successor of this process.
    pub(crate) fn handoff(&self) -> &BroadcastHandoff {
        &self.0.handoff
    }

    pub(crate) fn events(&self) -> &Arc<dyn SessionEvents> {
        &self.0.events
    }

    /// The open local session of that id, if this node is its net node.
    #[inline]
    pub(crate) fn local(&self, id: SessionId) -> Option<LocalSession> {
        self.0.registry.get(id)
    }

    /// Takes over a session that the predecessor has opened.
    pub(crate) fn adopt(&self, record: &handover::Session, handoff: SessionHandoff) -> LocalSession {
        let (groups, user, stamp) = (handoff.groups.clone(), handoff.user(), handoff.stamp);
        let received = handoff.broadcasts_received;
        let session = self.registry().adopt(record, handoff);
        for group in groups {
            self.groups().join(&group, &session, usize::MAX);
        }
        self.registry().insert(&session);
        self.transit().hold().arrived(session.id(), received);
        if let Some(user) = user {
            let lost = self.users().arrived(&user, session.id(), stamp.unwrap_or_default());
            lost.into_iter().for_each(|lost| self.kick(lost, &user));
        }
        session
    }

    /// Takes a session out of this process as it leaves for the successor: `leave`'s record and hand-off, with what
    /// only the node knows of them. `None` when the session cannot leave.
    pub(crate) fn leave(&self, session: &LocalSession) -> Option<(handover::Session, SessionHandoff)> {
        let (left, received) = self.handoff().leave(|| session.leave());
        let (record, mut handoff) = left?;
        handoff.broadcasts_received = received;
        handoff.groups = self.groups().leave_all(record.id);
        handoff.stamp = handoff.user().and_then(|user| self.users().free(&user, record.id));
        Some((record, handoff))
    }

    /// Forgets a session, here and at the nodes that its messages went to.
    pub(crate) fn end(&self, session: &LocalSession) {
        session.end();
        self.forget(session);
        self.ended(session.id());
    }

    /// Forgets a session that goes on in the successor; returns its choices, for the successor to know.
    pub(crate) fn left(&self, session: &LocalSession) -> Vec<handover::AffinityEntry> {
        self.forget(session);
        self.transit().affinity().leave(session.id())
    }

    /// Notes that no session is on its way here from the predecessor any more.
    pub(crate) fn all_arrived(&self) {
        self.transit().hold().set_expecting(false);
        self.users().all_arrived();
    }

    fn forget(&self, session: &LocalSession) {
        self.groups().leave_all(session.id());
        if let Some(user) = &session.state().user {
            self.users().free(user, session.id());
        }
        self.registry().remove(session);
    }

    /// Forgets the way of a session's messages and tells those along it.
    pub(crate) fn ended(&self, session: SessionId) {
        self.events().ended(session);
        for name in self.transit().affinity().forget(session) {
            self.transit().tell(&name, SESSION_ENDED, &[], about(session));
        }
        // Messages of its client that are still parked are not begun.
        self.transit().look_at_parked_of(session);
    }

    /// Tells the nodes that have handled a session of this node that it has ended.
    pub(crate) fn tell_ended(&self, session: &LocalSession) {
        for watcher in session.watchers() {
            self.transit().tell_about(session.id(), watcher, Op::Ended, &[]);
        }
    }

    /// Changes the state of a session of this node, and tells the nodes that handle it; the node `but` knows already.
    pub(crate) fn change(
        &self,
        session: &LocalSession,
        change: SessionChange,
        but: Option<NodeNumber>,
    ) -> Result<Arc<SessionState>, StateTooLarge> {
        let max = self.identity().limits().session_state_bytes_max;
        let tell = |state: &SessionState, watchers: &[NodeNumber]| {
            let payload = encode(state);
            for watcher in watchers.iter().filter(|watcher| Some(**watcher) != but) {
                self.transit().tell_about(session.id(), *watcher, Op::State, &payload);
            }
        };
        session.change(change, max, tell)
    }

    /// Tells the app, in a task of its own, that a session has a user; the caller has made sure that it is the first time.
    pub(crate) fn spawn_verified(&self, session: SessionId) {
        if !self.events().wants_verified() {
            return;
        }
        // The pin keeps what the hook changes from getting lost with a session that leaves for a successor meanwhile.
        let pin = self.local(session).map(|local| local.pin());
        let hook = self.events().verified(session);
        drop(self.identity().tasks().calls().spawn(async move {
            hook.await;
            drop(pin);
        }));
    }

    /// Takes a session of this node into a group, or out of it.
    pub(crate) fn change_group(&self, join: bool, session: &LocalSession, group: &str) -> GroupAnswer {
        let groups = self.groups();
        if !join {
            groups.leave(group, session.id());
            return GroupAnswer::Done;
        }
        let max = self.identity().limits().session_groups_max;
        let joined = group.len() <= NAME_BYTES_MAX && groups.join(group, session, max);
        if session.is_gone() {
            // The session ended meanwhile, and nothing else would take it out.
            groups.leave_all(session.id());
        }
        if joined { GroupAnswer::Done } else { GroupAnswer::TooMany }
    }

    /// Closes the sessions that have lost their user to another one and stay with the predecessor: they do not come.
    pub(crate) fn kick_staying(&self) {
        let hold = self.transit().hold();
        for session in self.users().take_lost(|session| hold.stays(session)) {
            hold.close_staying(session, "the user has another session");
            count(&self.identity().counters().users_kicked);
        }
    }

    /// Closes a session that has lost its user to another one, and tells its client.
    pub(crate) fn kick(&self, id: SessionId, user: &str) {
        let Some(session) = self.local(id) else {
            // The session is on its way here from the predecessor; or it has ended.
            if self.transit().hold().is_expecting() {
                self.users().note_lost(id);
                self.kick_staying();
            }
            return;
        };
        let identity = self.identity();
        let command = identity.config().login.map_or(CommandId(0), |login| login.command);
        let text = format!("`{user}` has another session");
        if session.close_with(command.into(), &identity.fault(Code::Kicked, Executed::No, text)) {
            count(&identity.counters().users_kicked);
        }
    }
}

impl fmt::Debug for Sessions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sessions of {:?}", self.identity())
    }
}
