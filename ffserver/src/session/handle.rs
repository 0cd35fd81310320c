//! A session as the whole cluster sees it: the same type on its net node and on every other.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffproto::link::Client;
use ffproto::relay::{MoveAnswer, MoveOrder, Op, SessionChange, SessionState};
use ffproto::{Code, CommandId, Fault, NodeName, SessionId};

use crate::cluster::membership::{decode, encode};
use crate::cluster::reachability::At;
use crate::error::CallError;
use crate::identity::counters::count;
use crate::node::Node;
use crate::session::local::{LocalSession, PushError, StateTooLarge};
use crate::session::remote_sessions::Remote;

/// A client's connection, wherever in the cluster it is. Cheap to clone; usable from any task, and after
/// the request that gave it.
///
/// What it says of the client (address, user, attributes) is what this node has been told last: a change
/// made on another node arrives a moment later.
#[derive(Clone)]
pub struct Session {
    node: Node,
    at: Place,
}

#[derive(Clone)]
enum Place {
    Here(LocalSession),
    There(Arc<Remote>),
}

/// Why a session's state was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SessionError {
    /// It has ended.
    #[error("the session is gone")]
    Gone,
    /// User and attributes would take more than `limits.session_state_bytes_max`.
    #[error("user and attributes of {bytes} bytes are above limits.session_state_bytes_max = {max}")]
    TooLarge {
        /// What they would take.
        bytes: usize,
        /// What they may take.
        max: usize,
    },
    /// The user has another session, and the config says `"second_login": "refuse_new"`.
    #[error("the user has another session")]
    UserTaken,
    /// A user without a name.
    #[error("a user's name is not empty")]
    NoName,
    /// It is in `limits.session_groups_max` groups, or the group's name is longer than 128 bytes.
    #[error("the session is in limits.session_groups_max groups, or the name is above 128 bytes")]
    TooManyGroups,
    /// Its net node could not be asked, or refused.
    #[error(transparent)]
    Call(#[from] CallError),
}

/// Why a session is not moved: everything stays as it was.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MoveError {
    /// It has ended.
    #[error("the session is gone")]
    Gone,
    /// Its net node does not reach a node of that name now.
    #[error("no node `{0}` is reached")]
    NoNode(NodeName),
    /// No command of its net node goes to nodes of that kind.
    #[error("no command goes to nodes of the kind `{0}`")]
    NotRouted(String),
    /// Another move of it is under way.
    #[error("the session is being moved already")]
    Moving,
    /// More than `limits.frame_bytes_max` shall go with it.
    #[error("{bytes} bytes shall go with the session, above limits.frame_bytes_max = {max}")]
    TooLarge {
        /// What shall go.
        bytes: usize,
        /// What may go.
        max: usize,
    },
    /// Its net node could not be asked.
    #[error(transparent)]
    Call(#[from] CallError),
}

impl From<StateTooLarge> for SessionError {
    fn from(StateTooLarge { bytes, max }: StateTooLarge) -> Self {
        Self::TooLarge { bytes, max }
    }
}

impl Session {
    pub(crate) fn here(node: Node, session: LocalSession) -> Self {
        Self { node, at: Place::Here(session) }
    }

    pub(crate) fn there(node: Node, remote: Arc<Remote>) -> Self {
        Self { node, at: Place::There(remote) }
    }

    /// The id, unique in the cluster and never reused.
    pub fn id(&self) -> SessionId {
        match &self.at {
            Place::Here(session) => session.id(),
            Place::There(remote) => remote.id,
        }
    }

    /// Where the client connects from.
    pub fn address(&self) -> SocketAddr {
        self.state().address
    }

    /// Who the client is, once the app has said so with [`Session::bind`].
    pub fn user(&self) -> Option<String> {
        self.state().user.clone()
    }

    /// What the app has noted under `key`.
    pub fn get(&self, key: &str) -> Option<String> {
        self.state().attributes.get(key).cloned()
    }

    /// Everything that the app has noted.
    pub fn attributes(&self) -> BTreeMap<String, String> {
        self.state().attributes.clone()
    }

    /// Whether it has ended, as far as this node knows.
    pub fn is_gone(&self) -> bool {
        match &self.at {
            Place::Here(session) => session.is_gone(),
            Place::There(remote) => remote.is_gone(),
        }
    }

    fn state(&self) -> Arc<SessionState> {
        match &self.at {
            Place::Here(session) => session.state(),
            Place::There(remote) => remote.state(),
        }
    }

    /// Sends a message to the client. It is queued at once, after everything that this node has sent it
    /// before, and goes the way of the client's own messages.
    ///
    /// # Errors
    /// [`PushError`]; the client will not see the message then. On another node than the session's own `Ok`
    /// says that the message is on its way: should the client leave meanwhile, its net node counts it
    /// (`pushes_to_gone`).
    pub fn push(&self, command: CommandId, body: &[u8]) -> Result<(), PushError> {
        let remote = match &self.at {
            Place::Here(session) => {
                let pushed = session.push(command, body);
                if pushed == Err(PushError::Gone) {
                    if session.has_left() && self.node.push_to_left(session.id(), command, body) {
                        return Ok(());
                    }
                    count(&self.node.counters().pushes_to_gone);
                }
                return pushed;
            }
            Place::There(remote) => remote,
        };
        if remote.is_gone() {
            count(&self.node.counters().pushes_to_gone);
            return Err(PushError::Gone);
        }
        self.tell(remote, Op::Push, command, body).map_err(|_| PushError::Unreachable)
    }

    /// Ends the session: what was sent to it before is written first. `reason` is logged, and told to a
    /// WebSocket client.
    pub fn close(&self, reason: &str) {
        match &self.at {
            Place::Here(session) => session.close(reason),
            Place::There(remote) => {
                if let Err(fault) = self.tell(remote, Op::Close, CommandId(0), reason.as_bytes()) {
                    tracing::warn!(session = %remote.id, "not closed: {fault}");
                }
            }
        }
    }

    /// Notes `value` under `key`, for every node that handles the session. Not cancel-safe: the change may
    /// have been made.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn set(&self, key: &str, value: impl Into<String>) -> Result<(), SessionError> {
        let attributes = vec![(key.to_owned(), Some(value.into()))];
        self.change(SessionChange { user: None, attributes }).await
    }

    /// Removes what was noted under `key`. As [`Session::set`].
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn unset(&self, key: &str) -> Result<(), SessionError> {
        let attributes = vec![(key.to_owned(), None)];
        self.change(SessionChange { user: None, attributes }).await
    }

    /// Says who the client is, for every node that handles the session. Another session of that user, wherever in
    /// the cluster, is closed, or keeps it, as the config's `second_login` says. As [`Session::set`].
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn bind(&self, user: impl Into<String>) -> Result<(), SessionError> {
        self.change(SessionChange { user: Some(user.into()), attributes: Vec::new() }).await
    }

    /// Takes it into a group, for [`Broadcasts::to_group`](crate::Broadcasts::to_group): any text of at most 128
    /// bytes. It is in the group until it leaves it or ends.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn join(&self, group: &str) -> Result<(), SessionError> {
        self.group(Op::Join, group).await
    }

    /// Takes it out of a group.
    ///
    /// # Errors
    /// [`SessionError`].
    pub async fn leave(&self, group: &str) -> Result<(), SessionError> {
        self.group(Op::Leave, group).await
    }

    /// Moves the session to another node: its messages for that node's kind go there from now on. What of it runs or
    /// is under way now ends where it is; what the client sends from now on waits at its net node, until
    /// [`App::on_session_entered`](crate::App::on_session_entered) has run on the new node with `extra`. The old node
    /// is told by [`App::on_session_left`](crate::App::on_session_left).
    ///
    /// It returns when the net node has begun: the request that asks must end before the session can go. Should the
    /// new node be lost until then, the session stays where it was (counter `moves_failed`), and this node is told by
    /// [`App::on_session_not_moved`](crate::App::on_session_not_moved). A node that is not reached now, but was within
    /// `limits.park_ms`, is waited for so long. Not cancel-safe: the move may have begun.
    ///
    /// # Errors
    /// [`MoveError`]: everything stays as it was.
    pub async fn move_to(&self, node: &NodeName, extra: impl AsRef<[u8]>) -> Result<(), MoveError> {
        let (extra, max) = (extra.as_ref(), self.node.config().limits.frame_bytes_max as usize);
        if extra.len() > max {
            return Err(MoveError::TooLarge { bytes: extra.len(), max });
        }
        let order = MoveOrder { node: node.clone(), extra: extra.to_vec() };
        let remote = match &self.at {
            Place::Here(session) => {
                return self.node.begin_move_soon(session, session.id().node(), order).await;
            }
            Place::There(remote) => remote,
        };
        let kind = || {
            let known = self.node.cluster().others().into_values().find(|other| other.name == *node);
            known.map_or_else(|| self.node.kind().to_owned(), |other| other.kind)
        };
        let answer = self.node.ask(remote.id, Op::Move, &encode(&order), Some(&self.via(remote))).await?;
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
            Place::Here(session) if session.is_gone() => 1,
            Place::Here(session) => self.node.group_here(op == Op::Join, session, group),
            Place::There(remote) => {
                let answer = self.node.ask(remote.id, op, group.as_bytes(), Some(&self.via(remote))).await?;
                answer.first().copied().unwrap_or(1)
            }
        };
        match answer {
            0 => Ok(()),
            1 => Err(SessionError::Gone),
            _ => Err(SessionError::TooManyGroups),
        }
    }

    async fn change(&self, change: SessionChange) -> Result<(), SessionError> {
        if change.user.as_ref().is_some_and(String::is_empty) {
            return Err(SessionError::NoName);
        }
        let remote = match &self.at {
            Place::Here(session) => return self.node.bind_session(session, change, None).await.map(drop),
            Place::There(remote) => remote,
        };
        let max = self.node.config().limits.session_state_bytes_max;
        let next = remote.state().with(change.clone());
        if next.bytes() > max {
            return Err(SessionError::TooLarge { bytes: next.bytes(), max });
        }
        let asked = self.node.ask(remote.id, Op::Set, &encode(&change), Some(&self.via(remote))).await;
        let answer = asked.map_err(|error| match error.fault().code {
            Code::Refused => SessionError::UserTaken,
            _ => SessionError::Call(error),
        })?;
        let state = decode(&answer).ok_or(SessionError::Gone)?;
        remote.update(state);
        if remote.becomes_verified() {
            self.node.spawn_verified(remote.id);
        }
        Ok(())
    }

    /// The neighbour that leads to it: the one that its messages come from, or another one for good when that one does
    /// not any more, so that pushes keep their order.
    fn via(&self, remote: &Remote) -> At {
        let kept = remote.via();
        let (cluster, id) = (self.node.cluster(), remote.id);
        match cluster.way(id.node(), None, Some(&kept), id.0) {
            Some(way) if way != kept => {
                remote.turn_to(way.clone());
                way
            }
            _ => kept,
        }
    }

    fn tell(&self, remote: &Remote, op: Op, command: CommandId, payload: &[u8]) -> Result<(), Fault> {
        let client = Client { session: remote.id, command, stateless: false };
        self.node.tell_node(remote.id.node(), op, Some(client), payload, Some(&self.via(remote)))
    }
}

/// What [`Node`] can do for sessions.
impl Node {
    /// The open session of that id: of this node, or of another node if its messages come here.
    pub fn session(&self, id: SessionId) -> Option<Session> {
        let here = self.local_session(id).map(|session| Session::here(self.clone(), session));
        here.or_else(|| {
            let remote = self.cluster().known.get(id)?;
            Some(Session::there(self.clone(), remote))
        })
    }

    /// Every open session whose net node this is.
    pub fn sessions(&self) -> Vec<Session> {
        let here = |session| Session::here(self.clone(), session);
        self.local_sessions().into_iter().map(here).collect()
    }

    /// How long a call for a session may take.
    pub(crate) fn session_timeout(&self) -> Duration {
        self.config().limits.call_timeout
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
