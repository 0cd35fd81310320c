//! The hand-over: a node's process is replaced by a successor without loss. Two pure machines decide, one for each
//! half, and their shells do what the machines say.

mod context;
pub(crate) mod http;
#[cfg(test)]
mod test_fixture;
mod questions;
pub(crate) mod receiver;
mod receiver_machine;
mod say;
pub(crate) mod sender;
mod sender_machine;

pub(crate) use context::HandoverContext;
