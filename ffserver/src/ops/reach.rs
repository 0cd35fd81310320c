//! Reachability, as neighbours tell it.

use std::sync::Arc;

use tracing::warn;

use crate::cluster::payload::decode;
use crate::exec::executor::Executor;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Takes a neighbour's word that it reaches other nodes than before.
pub(crate) fn notice(executor: &Arc<Executor>, inbound: &InboundEnvelope<'_>) {
    let transit = executor.node.transit();
    match decode(inbound.body) {
        Some(change) => {
            transit.membership().take_notice(inbound.at, inbound.link, change);
            executor.replicas.look_at_all(false);
            executor.node.all_sessions().tell_claims();
            // A hop may be there now that parked messages wait for.
            transit.look_at_parked();
        }
        None => warn!(from = %inbound.at.name, "a malformed message about who can be reached is ignored"),
    }
}
