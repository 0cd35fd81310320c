//! Claims, as they arrive from other net nodes: users that sessions of theirs have, or want.

use ffproto::relay::{Claim, Envelope};

use crate::cluster::payload::decode;
use crate::exec::executor::Executor;
use crate::ops::refusal::{refused, reply_bad};
use crate::transit::inbound_envelope::InboundEnvelope;

/// Judges the claims of a net node over users of its own sessions.
pub(super) fn request(executor: &Executor, inbound: &InboundEnvelope<'_>, envelope: &Envelope<'_>) {
    match decode::<Vec<Claim>>(envelope.payload) {
        Some(claims) if claims.iter().all(|claim| claim.session.node() == envelope.from) => {
            let losers = executor.node.all_sessions().judge(&claims);
            inbound.link.reply(inbound.head.call, &losers);
        }
        _ => {
            refused(executor, inbound.at, None, "a claim");
            reply_bad(executor, inbound, "a malformed claim");
        }
    }
}
