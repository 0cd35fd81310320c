//! The replacement of a node's process without loss.

pub mod receiver;
pub(crate) mod sender;
