//! The gateway: the client's edge of the cluster. Connections are accepted, what clients say is read, and decided over.

pub(crate) mod acceptor;
pub(crate) mod busy_poll;
mod connection;
pub(crate) mod idle_reaper;
mod login_stage;
