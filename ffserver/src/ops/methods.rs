//! Methods, as neighbours tell that they take others than before.

use tracing::warn;

use crate::cluster::payload::decode;
use crate::transit::Transit;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Takes a neighbour's word that it takes other methods on this link. Where a session's messages go is looked up again: the
/// neighbour may take them now, or no longer.
pub(crate) fn notice(transit: &Transit, inbound: &InboundEnvelope<'_>) {
    match decode(inbound.body) {
        Some(change) => {
            inbound.link.change_methods(&change);
            transit.membership().note_methods();
            transit.look_at_parked();
        }
        None => warn!(peer = %inbound.at.name, "a malformed message about methods is ignored"),
    }
}
