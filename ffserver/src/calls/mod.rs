//! Calls from one node to another: of neighbours, and of any node by name or kind.

pub mod neighbours;
pub mod nodes;
