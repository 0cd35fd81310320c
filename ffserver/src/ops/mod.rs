//! What other nodes say and ask in envelopes.

pub(crate) mod envelopes;
pub(crate) mod node_calls;
pub(crate) mod session_requests;
