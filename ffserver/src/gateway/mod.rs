//! The client's edge: accepts connections, reads what clients say, and writes what they are told.

pub(crate) mod acceptor;
pub(crate) mod busy_poll;
mod connection;
mod idle_reaper;
mod login_stage;
mod protocol_detection;
