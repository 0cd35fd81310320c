//! The replacement of a node's process without loss: two pure machines, and what does what they say.

mod context;
mod questions;
pub mod receiver;
mod receiver_machine;
pub(crate) mod sender;
mod sender_machine;

pub(crate) use context::HandoverContext;
