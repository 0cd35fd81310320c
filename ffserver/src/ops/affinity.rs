//! Affinity, as neighbours tell it: which node a session's messages go to.

use ffproto::NodeName;
use ffproto::link::Client;
use ffproto::relay::{AFFINITY, AffinityNotice, AffinityWord};
use tracing::warn;

use crate::transit::Transit;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Takes a neighbour's word about which node a session's messages go to; `may_speak` says whether it may for that
/// session.
pub(crate) fn notice(
    transit: &Transit,
    inbound: &InboundEnvelope<'_>,
    client: Client,
    may_speak: impl Fn() -> bool,
) {
    let (affinity, session, from) = (transit.affinity(), client.session, inbound.at);
    match AffinityNotice::read(inbound.body) {
        Some(AffinityNotice { what: AffinityWord::Prefer, target, node: end }) if may_speak() => {
            if let Ok(end) = NodeName::try_from(end)
                && let Some(neighbour) = affinity.prefer(session, target, end, from)
            {
                let notice = AffinityNotice { what: AffinityWord::Forget, target, node: "" };
                transit.tell(&neighbour, AFFINITY, &notice.write(), client);
            }
        }
        Some(notice @ AffinityNotice { what: AffinityWord::Forget, .. }) if may_speak() => {
            if let Some(neighbour) = affinity.forget_one(session, notice.target) {
                transit.tell(&neighbour, AFFINITY, &notice.write(), client);
            }
        }
        Some(AffinityNotice { what: AffinityWord::Chosen, target, node: end }) => {
            if let Ok(end) = NodeName::try_from(end) {
                let moved = affinity.chosen(session, target, &from.name, end);
                transit.tell_moved(client, target, moved);
            }
        }
        Some(_) => {}
        None => warn!(peer = %from.name, "a malformed message about a session's node is ignored"),
    }
}
