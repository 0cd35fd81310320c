//! The wire and the ids of a cluster, as values: bytes in, messages out, and back.
//!
//! This crate does no I/O and reads no clock; randomness and time come in as arguments. Malformed input
//! is a value (an error enum), never a panic, and every length is checked before memory is taken for it.
//!
//! * [`id`] — names and numbers: node, cluster, session, command, incarnation.
//! * [`fault`] — how a call fails: code, where, and whether it ran.
//! * [`frame`] — what game clients speak (the firefly framing).
//! * [`link`] — what nodes speak on a link: one fixed header, then the body untouched.
//! * [`handshake`] — how a link or a control connection starts and proves the token, both ways.
//! * [`relay`] — what nodes tell each other that are no neighbours: about sessions, and who can be reached.
//! * [`login`] — what a handler answers that decides over logins.
//! * [`control`] — what the master and its nodes tell each other.
//! * [`handover`] — what an old process tells its successor, and an adopted node its new master.

pub mod id;
pub mod fault;
pub mod frame;
pub mod link;
pub mod handshake;
pub mod control;
pub mod relay;
pub mod login;
pub mod handover;

pub use fault::{Code, Executed, Fault};
pub use id::{BadName, ClusterName, CommandId, Incarnation, NodeName, NodeNumber, SessionId};
