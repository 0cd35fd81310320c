//! The session handle: what handlers hold of a client, the same type on its net node and on every other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use ffproto::link::Client;
use ffproto::relay::{GroupAnswer, MoveAnswer, MoveOrder, Op, SessionChange, SessionState};
use ffproto::{Code, CommandId, Fault, NodeName, SessionId};

use super::Sessions;
use crate::cluster::payload::{decode, encode};
use crate::cluster::side::PeerKey;
use crate::identity::counters::count;
pub use crate::session::errors::{MoveError, SessionError};
use crate::session::local::{LocalSession, PushError, StateTooLarge};
use crate::session::remote_sessions::RemoteSession;

/// A client's connection, wherever in the cluster it is. Cheap to clone; usable from any task, and after
/// the request that gave it.
///
/// The address, user and attributes are those that this node has been told last: a change made on another node arrives
/// a moment later.
///
/// ```
/// use ffserver::prelude::*;
///
/// const WELCOME: CommandId = CommandId(11);
///
/// #[net_handle(4)]
/// async fn enter(session: Session, Body(room): Body<String>) -> Result<(), HandlerError> {
///     session.join(&room).await?;
///     session.set("room", room).await?; // Every node that knows the session is told.
///     let name = session.user().unwrap_or_else(|| "guest".to_owned());
///     session.push(WELCOME, name.as_bytes())?;
///     Ok(())
/// }
/// # let _ = App::new("net").handlers(handlers![enter]);
/// ```
#[derive(Clone)]
pub struct Session {
    sessions: Sessions,
    at: SessionPlace,
}

#[derive(Clone)]
enum SessionPlace {
    Here(LocalSession),
    There(Arc<RemoteSession>),
}

impl Session {
    pub(crate) fn here(sessions: Sessions, session: LocalSession) -> Self {
        Self { sessions, at: SessionPlace::Here(session) }
    }

    pub(crate) fn there(sessions: Sessions, remote: Arc<RemoteSession>) -> Self {
        Self { sessions, at: SessionPlace::There(remote) }
    }

    /// The id, unique in the cluster and never reused.
    pub fn id(&self) -> SessionId {
        match &self.at {
            SessionPlace::Here(session) => session.id(),
            SessionPlace::There(remote) => remote.id,
        }
    }

    /// Where the client connects from.
    pub fn address(&self) -> SocketAddr {
        self.state().address
    }

    /// The client's user, once the app has said so with [`Session::bind`].
    pub fn user(&self) -> Option<String> {
        self.state().user.clone()
    }

    /// The attribute that the app has noted under `key`.
    pub fn get(&self, key: &str) -> Option<String> {
        self.state().attributes.get(key).cloned()
    }

    /// Every attribute that the app has noted.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        self.state().attributes.clone()
    }

    /// Whether the session has ended, as far as this node knows.
    pub fn is_gone(&self) -> bool {
        match &self.at {
            SessionPlace::Here(session) => session.is_gone(),
            SessionPlace::There(remote) => remote.is_gone(),
        }
    }

    fn state(&self) -> Arc<SessionState> {
        match &self.at {
            SessionPlace::Here(session) => session.state(),
            SessionPlace::There(remote) => remote.state(),
        }
    }

    /// Sends a message to the client. The message is queued at once, after everything that this node has sent the
    /// client before, and goes the way of the client's own messages.
    ///
    /// # Errors
    /// [`PushError`]; the client will not see the message then. On another node than the session's own `Ok`
    /// says that the message is on its way: should the client leave meanwhile, its net node counts it
    /// (`pushes_to_gone`).
    pub fn push(&self, command: CommandId, body: &[u8]) -> Result<(), PushError> {
        let remote = match &self.at {
            SessionPlace::Here(session) => {
                let pushed = session.push(command, body);
                if pushed == Err(PushError::Gone) {
                    if session.has_left() && self.sessions.push_to_left(session.id(), command, body) {
                        return Ok(());
                    }
                    count(&self.sessions.identity().counters().pushes_to_gone);
                }
                return pushed;
            }
            SessionPlace::There(remote) => remote,
        };
        if remote.is_gone() {
            count(&self.sessions.identity().counters().pushes_to_gone);
            return Err(PushError::Gone);
        }
        self.tell(remote, Op::Push, command, body).map_err(|_| PushError::Unreachable)
    }

    /// Ends the session: what was sent to it before is written first. `reason` is logged, and told to a
    /// WebSocket client.
    pub fn close(&self, reason: &str) {
        match &self.at {
            SessionPlace::Here(session) => session.close(reason),
            SessionPlace::There(remote) => {
                if let Err(fault) = self.tell(remote, Op::Close, CommandId(0), reason.as_bytes()) {
                    tracing::warn!(limited_by = "", session = %remote.id, "not closed: {fault}");
                }
            }
        }
    }

    /// Notes an attribute, `value` under `key`, for every node that handles the session. Not cancel-safe: the change
    /// may have been made.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn set(&self, key: &str, value: impl Into<String>) -> Result<(), SessionError> {
        let attributes = vec![(key.to_owned(), Some(value.into()))];
        self.change(SessionChange { user: None, attributes }).await
    }

    /// Removes the attribute under `key`. As [`Session::set`].
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn unset(&self, key: &str) -> Result<(), SessionError> {
        let attributes = vec![(key.to_owned(), None)];
        self.change(SessionChange { user: None, attributes }).await
    }

    /// Gives the session its user, for every node that handles the session. Another session of that user, wherever in
    /// the cluster, is closed, or keeps it, as the config's `second_login` says. As [`Session::set`].
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn bind(&self, user: impl Into<String>) -> Result<(), SessionError> {
        self.change(SessionChange { user: Some(user.into()), attributes: Vec::new() }).await
    }

    /// Takes the session into a group, for [`Broadcasts::to_group`](crate::Broadcasts::to_group): any text of at most
    /// 128 bytes. The session is in the group until it leaves it or ends.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn join(&self, group: &str) -> Result<(), SessionError> {
        self.group(Op::Join, group).await
    }

    /// Takes the session out of a group.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn leave(&self, group: &str) -> Result<(), SessionError> {
        self.group(Op::Leave, group).await
    }

    /// Moves the session to another node: its messages for that node's kind go there from now on. Requests of the
    /// session that run or are under way now end where they are; what the client sends from now on waits at its net
    /// node, until [`App::on_session_entered`](crate::App::on_session_entered) has run on the new node with `extra`.
    /// The node that had the session is told by [`App::on_session_left`](crate::App::on_session_left).
    ///
    /// The future ends when the net node has begun: the request that asks must end before the session can go. Should
    /// the new node be lost until then, the session stays where it was (counter `moves_failed`), and this node is told
    /// by [`App::on_session_not_moved`](crate::App::on_session_not_moved). A node that is not reached now, but was
    /// within `limits.park_ms`, is waited for so long. Not cancel-safe: the move may have begun.
    ///
    /// # Errors
    /// [`MoveError`]: everything stays as it was.
    pub async fn move_to(&self, node: &NodeName, extra: impl AsRef<[u8]>) -> Result<(), MoveError> {
        let (extra, max) = (extra.as_ref(), self.sessions.identity().limits().frame_bytes_max as usize);
        if extra.len() > max {
            return Err(MoveError::TooLarge { bytes: extra.len(), max });
        }
        let order = MoveOrder { node: node.clone(), extra: extra.to_vec() };
        let remote = match &self.at {
            SessionPlace::Here(session) => {
                return self.sessions.begin_move_soon(session, session.id().node(), order).await;
            }
            SessionPlace::There(remote) => remote,
        };
        let kind = || {
            let known = self.sessions.transit().membership().named(node);
            known.map_or_else(|| self.sessions.identity().kind().to_owned(), |other| other.kind)
        };
        let answer = self
            .sessions
            .transit()
            .ask(remote.id, Op::Move, &encode(&order), Some(&self.neighbour(remote)))
            .await?;
        match answer.first().and_then(|byte| MoveAnswer::from_number(*byte)) {
            Some(MoveAnswer::Begun) => Ok(()),
            Some(MoveAnswer::NoNode) => Err(MoveError::NoNode(node.clone())),
            Some(MoveAnswer::NotRouted) => Err(MoveError::NotRouted(kind())),
            Some(MoveAnswer::Moving) => Err(MoveError::Moving),
            Some(MoveAnswer::Gone) | None => Err(MoveError::Gone),
        }
    }

    async fn group(&self, op: Op, group: &str) -> Result<(), SessionError> {
        let answer = match &self.at {
            SessionPlace::Here(session) if session.is_gone() => GroupAnswer::Gone,
            SessionPlace::Here(session) => self.sessions.change_group(op == Op::Join, session, group),
            SessionPlace::There(remote) => {
                let (transit, neighbour) = (self.sessions.transit(), self.neighbour(remote));
                let answer = transit.ask(remote.id, op, group.as_bytes(), Some(&neighbour)).await?;
                let byte = answer.first().copied().unwrap_or(GroupAnswer::Gone.number());
                GroupAnswer::from_number(byte).unwrap_or(GroupAnswer::TooMany)
            }
        };
        match answer {
            GroupAnswer::Done => Ok(()),
            GroupAnswer::Gone => Err(SessionError::Gone),
            GroupAnswer::TooMany => Err(SessionError::TooManyGroups),
        }
    }

    async fn change(&self, change: SessionChange) -> Result<(), SessionError> {
        if change.user.as_ref().is_some_and(String::is_empty) {
            return Err(SessionError::NoName);
        }
        let remote = match &self.at {
            SessionPlace::Here(session) => {
                return self.sessions.bind_session(session, change, None).await.map(drop);
            }
            SessionPlace::There(remote) => remote,
        };
        let max = self.sessions.identity().limits().session_state_bytes_max;
        StateTooLarge::check(&remote.state().with(change.clone()), max)?;
        let asked = self
            .sessions
            .transit()
            .ask(remote.id, Op::Set, &encode(&change), Some(&self.neighbour(remote)))
            .await;
        let answer = asked.map_err(|error| match error.fault().code {
            Code::Refused => SessionError::UserTaken,
            _ => SessionError::Call(error),
        })?;
        let state = decode(&answer).ok_or(SessionError::Gone)?;
        remote.update(state);
        if remote.becomes_verified() {
            self.sessions.spawn_verified(remote.id);
        }
        Ok(())
    }

    /// The neighbour that leads to a replica's net node: the one that the session's messages come from, or another one
    /// for good when that one does not lead there any more, so that pushes keep their order.
    fn neighbour(&self, remote: &RemoteSession) -> PeerKey {
        let kept = remote.neighbour();
        let (membership, id) = (self.sessions.transit().membership(), remote.id);
        match membership.neighbour_to(id.node(), None, Some(&kept), id.0) {
            Some(other) if other != kept => {
                remote.turn_to(other.clone());
                other
            }
            _ => kept,
        }
    }

    fn tell(&self, remote: &RemoteSession, op: Op, command: CommandId, payload: &[u8]) -> Result<(), Fault> {
        let client = Client { session: remote.id, command, stateless: false };
        self.sessions.transit().tell_node(
            remote.id.node(),
            op,
            Some(client),
            payload,
            Some(&self.neighbour(remote)),
        )
    }
}

impl Sessions {
    /// The open session of that id: of this node, or of another node if its messages come here.
    pub(crate) fn session(&self, id: SessionId) -> Option<Session> {
        let here = self.local(id).map(|session| Session::here(self.clone(), session));
        here.or_else(|| {
            let remote = self.remote().get(id)?;
            Some(Session::there(self.clone(), remote))
        })
    }
}

impl PartialEq for Session {
    /// Whether both are the same client connection.
    fn eq(&self, other: &Self) -> bool {
        self.id() == other.id()
    }
}
impl Eq for Session {}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} of {}", self.id(), self.address())
    }
}
