//! Reachability, as neighbours tell it.

use std::sync::Arc;

use ffproto::NodeName;
use tracing::warn;

use crate::cluster::membership::Disbelieved;
use crate::cluster::payload::decode;
use crate::exec::executor::Executor;
use crate::identity::Identity;
use crate::identity::counters::count;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Takes a neighbour's word that it reaches other nodes than before.
pub(crate) fn notice(executor: &Arc<Executor>, inbound: &InboundEnvelope<'_>) {
    let transit = executor.node.transit();
    match decode(inbound.body) {
        Some(change) => {
            for said in transit.membership().take_notice(inbound.at, inbound.link, change) {
                disbelieve(executor.node.identity(), &inbound.at.name, &said);
            }
            executor.replicas.look_at_all(false);
            executor.node.all_sessions().tell_claims();
            // A hop may be there now that parked messages wait for.
            transit.look_at_parked();
        }
        None => warn!(peer = %inbound.at.name, "a malformed message about who can be reached is ignored"),
    }
}

/// Counts what a neighbour has said and cannot be, and logs it the first time.
fn disbelieve(identity: &Identity, from: &NodeName, said: &Disbelieved) {
    count(&identity.counters().false_reach);
    let Disbelieved { node, number, owner, is_news } = said;
    match owner {
        _ if !is_news => {}
        None => {
            warn!(peer = %from, %node, "it is not believed that this node is behind that link: the config has it elsewhere")
        }
        Some(owner) => {
            warn!(peer = %from, %node, number = number.0, %owner, "a number is not believed: it is another node's, or the node has another one");
        }
    }
}
