//! The messages of the hand-over, between two processes of one host over a [`Door`](crate::control::Door): a
//! predecessor and its successor, or an adopted node and its new master. Descriptors travel beside the messages
//! (`ffnet::door`).
//!
//! ```text
//! predecessor                            successor, which has prepared everything that it can
//!   Speaks?, Hello              ──────▶
//!                               ◀──────  Hello, or Failed
//!   Sticky*, Known*, Kept*,
//!   State*, Frozen              ──────▶  thaws the state, or says Failed
//!                               ◀──────  Thawed
//!   stops to accept
//!   YourTurn                    ──────▶  links to the parents, accepts
//!                               ◀──────  Serves                  the point after which nobody waits
//!   Sticky*, Session*, Http*,
//!   Broadcast*                  ──────▶
//!                               ◀──────  Asked*                  about sessions that have not come
//!   Answered*                   ──────▶
//!   Stay?                       ──────▶                          sessions whose connections cannot leave
//!                               ◀──────  Passed*, Broadcast*     what comes for them
//!   Done                        ──────▶  nothing more comes
//!                               ◀──────  Proven                  it has lived long enough; the other leaves
//! ```
//!
//! Until `Proven` the successor may close the door, or die: the predecessor then takes back what it has and
//! serves on. When the predecessor dies, the successor does without what it has not been told.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::relay::{Claim, SessionState};
use crate::{CommandId, Incarnation, NodeName, SessionId, Versions};

/// The longest message, in bytes. Both ends are processes of one user on one host; the bound is there so
/// that a damaged length is noticed.
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024 * 1024;
/// A frozen state travels in pieces of at most this many bytes, so that it may have any size.
pub const STATE_PIECE_BYTES: usize = 1024 * 1024;

/// A message from a predecessor to its successor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromPredecessor {
    /// The greeting: who this is.
    Hello(ProcessIdentity),
    /// A part of the affinity: choices of some sessions.
    Choices(Vec<AffinityEntry>),
    /// A piece of the frozen state.
    State(Vec<u8>),
    /// The frozen state is whole; its version as the app counts it, or `None` when the app freezes nothing.
    Frozen {
        /// The version.
        version: Option<u32>,
    },
    /// This process accepts nothing any more.
    YourTurn,
    /// A client's connection, with its socket.
    Session(Box<Session>),
    /// An HTTP connection between two requests, with its socket.
    Http {
        /// The bytes that have been read and belong to the connection's next request.
        unread: Vec<u8>,
    },
    /// Nothing more comes.
    Done,
    /// This process takes everything back and serves on: the successor must leave.
    TookBack,
    /// Some of the replicas that are open here.
    Replicas(Vec<ReplicaRecord>),
    /// Records that are to be saved when their session ends, some of them.
    Bindings(Vec<BoundRecord>),
    /// The users of this node's sessions, some of them: they come with their sessions.
    Users(Vec<Claim>),
    /// The answer to an [`FromSuccessor::Asked`].
    Answered {
        /// The number of the question.
        number: u64,
        /// The answer.
        answer: AskAnswer,
    },
    /// A message for many clients, for those that have left: a [`Broadcast`](crate::relay::Broadcast), as on links.
    Broadcast(Vec<u8>),
    /// What clients speak here that not every release has: said before the greeting, when there is any; and always
    /// where clients come over another transport than TCP, for only who can read this is told who stays. A successor that
    /// does not have it all says Failed, and nothing has begun.
    Speaks(Spoken),
    /// Sessions whose connections cannot leave: they stay here until the end of the drain. What comes for them is to be
    /// passed back.
    Stay(Vec<SessionId>),
}

/// What clients speak with a process, beside what every release has.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoken {
    /// The names of their protocols.
    pub protocols: Vec<String>,
    /// The name of the transport that they come over, when they travel over it.
    pub transport: Option<String>,
}

/// The answer to a question about a session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum AskAnswer {
    /// The body of the reply.
    Reply(Vec<u8>),
    /// The request failed.
    Fault {
        /// The code, as on links.
        code: u16,
        /// The body of the fault frame.
        body: Vec<u8>,
    },
    /// The session is not here any more.
    NotHere,
}

/// A message from a successor to its predecessor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FromSuccessor {
    /// The greeting: who this is.
    Hello(ProcessIdentity),
    /// The state has been taken; what the predecessor now sends is taken as well.
    Thawed,
    /// The successor cannot go on and leaves.
    Failed {
        /// Why, in one sentence for the operator.
        reason: String,
    },
    /// The successor serves.
    Serves,
    /// The successor has lived long enough to be trusted.
    Proven,
    /// Another node asks for something about a session that has not come yet: the request that makes it ask may be what
    /// the session waits for. The predecessor answers, if the session is still there.
    Asked {
        /// Repeated in the answer.
        number: u64,
        /// The session.
        session: SessionId,
        /// The envelope.
        body: Vec<u8>,
    },
    /// An envelope for a session that stays with the predecessor ([`FromPredecessor::Stay`]).
    Passed {
        /// Repeated in the answer, where the envelope is a request; else 0.
        number: u64,
        /// The session.
        session: SessionId,
        /// The command of a push.
        command: CommandId,
        /// The envelope.
        body: Vec<u8>,
    },
    /// A message for many clients, for those that stay with the predecessor: a [`Broadcast`](crate::relay::Broadcast).
    Broadcast(Vec<u8>),
}

/// The identity of one of the two processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// The cluster.
    pub cluster: String,
    /// The node: both have the same.
    pub name: NodeName,
    /// The process's incarnation.
    pub incarnation: Incarnation,
    /// The versions of the protocol between nodes that it speaks, which also say what these messages and records are.
    pub versions: Versions,
}

/// A record that is to be saved when a session ends.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BoundRecord {
    /// The session whose record it is.
    pub session: SessionId,
    /// The database of its table, as the config names it.
    pub database: String,
    /// The record's table.
    pub table: String,
    /// The record's key, as the journal writes it.
    pub key: Vec<u8>,
}

/// A replica that has been opened here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaRecord {
    /// The session's id.
    pub id: SessionId,
    /// The neighbour that the session's messages come from.
    pub neighbour: NodeName,
    /// Whether that neighbour is a parent.
    pub from_parent: bool,
    /// The session's state as it was told last.
    pub state: SessionState,
    /// Whether the session is here for a kind: it has sent messages here, or was moved here.
    pub here: bool,
    /// The last of the session's moves that it came here with; 0 for none.
    pub entered: u32,
}

/// A choice of the affinity: which node a session's messages for a kind go to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AffinityEntry {
    /// The session whose messages they are.
    pub session: SessionId,
    /// The kind, or the one node, that the messages are for.
    pub kind: String,
    /// The neighbour that the messages go to; `None` while only `end` is known: the session was moved there and has
    /// said nothing since.
    pub node: Option<NodeName>,
    /// The node that handles the messages, when that is known.
    pub end: Option<NodeName>,
    /// The neighbour that the messages come from, and whether that is a parent; `None` for a client's connection.
    pub from: Option<(bool, NodeName)>,
}

/// A client's connection between two of its messages: none of them runs, none waits elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// The session's id, which it keeps.
    pub id: SessionId,
    /// Where the client connects from.
    pub address: SocketAddr,
    /// How long the session has been open.
    pub open_ms: u64,
    /// After how many milliseconds of that the client was last heard; 0 before its first message.
    pub heard_ms: u64,
    /// The bytes that have been read and not handled.
    pub unread: Vec<u8>,
    /// The bytes that have been queued and not written.
    pub unsent: Vec<u8>,
    /// The client will send no more.
    pub ended: bool,
    /// The part of the layer above, in its own form.
    pub extra: Vec<u8>,
}

/// From an adopted node to its new master: which listening sockets come with this message, in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listeners {
    /// The versions of the protocol between nodes that the node speaks, which also say what these two messages are.
    pub versions: Versions,
    /// For clients.
    pub net: bool,
    /// For children.
    pub root: bool,
    /// For HTTP.
    pub web: bool,
}

/// From the new master to an adopted node: pipes for standard output and standard error come with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output;
