//! Who is where in the cluster, and which node a session's messages go to: tables, no I/O.

pub(crate) mod affinity;
pub(crate) mod configured_routes;
pub(crate) mod membership;
pub(crate) mod peers;
pub(crate) mod reachability;
