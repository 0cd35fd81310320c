//! Which link a message takes to another node, or how long it waits for one.

pub(crate) mod envelope_hold;
pub(crate) mod flush_barrier;
pub(crate) mod next_hop;
pub(crate) mod park;
