//! Calls from one node to another: of neighbours, and of any node by name or kind.

pub(crate) mod neighbours;
pub(crate) mod nodes;
