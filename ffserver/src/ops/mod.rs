//! What arrives from other nodes: the service of a link, and one file for each kind of envelope.

mod affinity;
mod broadcast;
mod claims;
pub(crate) mod inbound;
pub(crate) mod link_service;
mod methods;
mod migration;
mod node_calls;
mod permission;
mod reach;
mod refusal;
mod session_notices;
pub(crate) mod session_requests;
