//! The map of the cluster: which nodes there are, which neighbour leads to them, and which one a session's messages go
//! to. Tables without I/O.

pub(crate) mod affinity;
pub(crate) mod affinity_delta;
pub(crate) mod configured_routes;
pub(crate) mod found;
pub(crate) mod link_rules;
pub(crate) mod membership;
pub(crate) mod payload;
pub(crate) mod peers;
pub(crate) mod reach_rules;
pub(crate) mod reachability;
pub(crate) mod rights;
pub(crate) mod select;
pub(crate) mod served;
pub(crate) mod side;
