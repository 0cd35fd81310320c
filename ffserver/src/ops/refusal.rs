//! Refusals of messages that a neighbour may not send, or has written wrongly.

use ffproto::{Code, Executed, Fault, NodeName, SessionId};
use tracing::warn;

use crate::cluster::side::PeerKey;
use crate::exec::executor::Executor;
use crate::identity::counters::count;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Counts and logs a message that a neighbour may not send.
pub(super) fn refused(executor: &Executor, at: &PeerKey, session: Option<SessionId>, what: &str) {
    count(&executor.node.identity().counters().forged);
    let session = session.map(|id| id.to_string());
    warn!(peer = %at.name, session, "{what} was refused: the session is not of a node behind that link");
}

/// Counts and logs a message of a node that has no right to what it asks for.
pub(super) fn forbidden(executor: &Executor, from: &NodeName, what: &str) -> Fault {
    let identity = executor.node.identity();
    count(&identity.counters().forbidden);
    warn!(peer = %from, "{what} was refused: the config gives that node no right to it");
    let text = format!("`{from}` has no right to {what} at `{}`", identity.name());
    identity.fault(Code::Forbidden, Executed::No, text)
}

/// Answers an envelope of a kind that this node does not answer.
pub(super) fn reply_bad(executor: &Executor, inbound: &InboundEnvelope<'_>, text: &str) {
    let fault = executor.node.identity().fault(Code::BadRequest, Executed::No, text);
    inbound.link.reply_fault(inbound.head.call, &fault);
}
