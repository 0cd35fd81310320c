//! What authors write: the app with its hooks, and handlers as functions.

#[allow(clippy::module_inception, reason = "the type that the room is named for")]
pub(crate) mod app;
pub(crate) mod client_protocol;
pub mod handler;
pub(crate) mod hooks;
pub(crate) mod route;
pub(crate) mod verdict;
