//! Broadcasts, as they arrive at a net node.

use ffproto::relay::Broadcast;
use tracing::warn;

use crate::exec::executor::Executor;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Queues a broadcast for this node's clients; before, `release` gives clients that have just arrived what they have
/// missed.
pub(super) fn notice(
    executor: &Executor,
    inbound: &InboundEnvelope<'_>,
    payload: &[u8],
    release: impl FnOnce(),
) {
    match Broadcast::read(payload) {
        Some(broadcast) => {
            let bytes_max = executor.node.identity().limits().park_bytes_max;
            executor.node.transit().hold().keep(payload, bytes_max);
            release();
            executor.node.all_sessions().broadcast_here(&broadcast);
        }
        None => warn!(peer = %inbound.at.name, "a malformed broadcast is ignored"),
    }
}
