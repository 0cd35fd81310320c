//! The gateway: the client's edge of the cluster. It accepts connections, reads clients' messages, and decides over
//! each.

pub(crate) mod acceptor;
pub(crate) mod busy_poll;
mod connection;
pub(crate) mod idle_reaper;
mod login_stage;
