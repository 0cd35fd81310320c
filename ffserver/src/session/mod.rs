//! One client as the whole cluster sees it.

pub(crate) mod broadcast;
pub(crate) mod broadcast_handoff;
pub(crate) mod conflated_broadcast;
pub(crate) mod exclusive_login;
pub(crate) mod groups;
pub mod handle;
pub(crate) mod local;
pub(crate) mod migration;
pub(crate) mod queue;
pub(crate) mod remote_sessions;
pub(crate) mod user_directory;
