//! The wire and the ids of a cluster, as values: bytes in, messages out, and back.
//!
//! This crate does no I/O and reads no clock; randomness and time come in as arguments. Malformed input
//! is a value (an error enum), never a panic, and every length is checked before memory is taken for it.
//!
//! * [`id`] — names and numbers: node, cluster, session, command, incarnation.
//! * [`fault`] — the fault of a failed call: code, node, and whether the handler ran.
//! * [`frame`] — the framings of game clients: firefly frames, WebSocket, JSON.
//! * [`protocol`] — the protocols of game clients, made of those framings or an author's own.
//! * [`link`] — the frames of a link: one fixed header, then the body untouched.
//! * [`version`] — the versions of what nodes and masters say to each other.
//! * [`credential`] — what a cluster's key says of one start of a node.
//! * [`encrypt`] — when connections between nodes are encrypted.
//! * [`handshake`] — how a link or a control connection starts: versions, and who each side is.
//! * [`relay`] — envelopes between nodes that are no neighbours, and which nodes can be reached.
//! * [`login`] — the verdict over a login.
//! * [`control`] — the messages between the master and its nodes.
//! * [`question`] — what the master asks its nodes for an operator.
//! * [`handover`] — the messages between a predecessor and its successor, and an adopted node and its new master.

pub mod id;
pub mod fault;
pub mod frame;
pub mod protocol;
pub mod link;
pub mod version;
pub mod credential;
pub mod encrypt;
pub mod handshake;
pub mod question;
pub mod control;
pub mod relay;
pub mod login;
pub mod handover;

pub use fault::{Code, Executed, Fault};
pub use id::{BadName, ClusterName, CommandId, Incarnation, NodeName, NodeNumber, SessionId};
pub use version::{Version, Versions};
