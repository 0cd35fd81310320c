//! Hooks: an app's functions for what happens to its node, its sessions and its children.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use ffproto::NodeName;

use crate::error::HandlerError;
use crate::node::Node;
use crate::session::handle::Session;

pub(crate) type Later<T> = Pin<Box<dyn Future<Output = T> + Send>>;
pub(crate) type NodeHook = Arc<dyn Fn(Node) -> Later<Result<(), HandlerError>> + Send + Sync>;
pub(crate) type SessionHook = Arc<dyn Fn(Node, Session, SessionEvent) -> Later<()> + Send + Sync>;
pub(crate) type ChildHook = Arc<dyn Fn(Node, NodeName) -> Later<()> + Send + Sync>;
pub(crate) type FreezeHook = Arc<dyn Fn(Node) -> Later<Result<Vec<u8>, HandlerError>> + Send + Sync>;
pub(crate) type ThawHook = Arc<dyn Fn(Node, Frozen) -> Later<Result<(), HandlerError>> + Send + Sync>;

/// The hooks of one app.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) started: Option<NodeHook>,
    pub(crate) stopping: Option<NodeHook>,
    pub(crate) freeze: Option<(u32, FreezeHook)>,
    pub(crate) thaw: Option<ThawHook>,
    pub(crate) child_connected: Option<ChildHook>,
    pub(crate) child_lost: Option<ChildHook>,
    /// The hooks for sessions, by [`SessionEventKind`].
    session: BTreeMap<SessionEventKind, SessionHook>,
}

impl Hooks {
    /// The hook for a kind of session events.
    pub(crate) fn of(&self, kind: SessionEventKind) -> Option<&SessionHook> {
        self.session.get(&kind)
    }

    pub(super) fn set(&mut self, kind: SessionEventKind, hook: SessionHook) {
        self.session.insert(kind, hook);
    }

    /// Whether a node with these hooks handles a client's message only when its session is known.
    pub(crate) fn need_sessions(&self) -> bool {
        // A lost node is told of on the session's own net node, where it is known.
        self.session.keys().any(|kind| *kind != SessionEventKind::LostNode)
    }
}

/// An event of a session, for the app.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum SessionEvent {
    Opened,
    Verified,
    Closed,
    LostNode(NodeName),
    Entered(MoveEntered),
    Left,
    NotMoved(NotMoved),
}

/// The kind of a [`SessionEvent`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum SessionEventKind {
    Opened,
    Verified,
    Closed,
    LostNode,
    Entered,
    Left,
    NotMoved,
}

impl SessionEventKind {
    /// The name of the hook, for the log.
    pub(crate) fn hook_name(self) -> &'static str {
        match self {
            Self::Opened => "on_session_opened",
            Self::Verified => "on_session_verified",
            Self::Closed => "on_session_closed",
            Self::LostNode => "on_session_lost_node",
            Self::Entered => "on_session_entered",
            Self::Left => "on_session_left",
            Self::NotMoved => "on_session_not_moved",
        }
    }
}

impl SessionEvent {
    pub(crate) fn kind(&self) -> SessionEventKind {
        match self {
            Self::Opened => SessionEventKind::Opened,
            Self::Verified => SessionEventKind::Verified,
            Self::Closed => SessionEventKind::Closed,
            Self::LostNode(_) => SessionEventKind::LostNode,
            Self::Entered(_) => SessionEventKind::Entered,
            Self::Left => SessionEventKind::Left,
            Self::NotMoved(_) => SessionEventKind::NotMoved,
        }
    }
}

/// How a session has come to a node by a move: see [`Session::move_to`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MoveEntered {
    /// The node where the session was; the one that has moved it, when it was at none of that kind.
    pub from: NodeName,
    /// The bytes that were given to [`Session::move_to`].
    pub extra: Bytes,
}

/// A move that has come to nothing: see [`Session::move_to`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotMoved {
    /// The node that the session should have gone to.
    pub to: NodeName,
    /// The bytes that were given to [`Session::move_to`], and were not taken.
    pub extra: Bytes,
}

/// The frozen state of an app, on its way from a predecessor to its successor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// The version that the predecessor gave to [`App::freeze`](crate::App::freeze).
    pub version: u32,
    /// The bytes that the predecessor's hook returned.
    pub bytes: Vec<u8>,
}
