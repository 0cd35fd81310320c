//! Refusals of messages that a neighbour may not send, or has written wrongly.

use ffproto::{Code, Executed, SessionId};
use tracing::warn;

use crate::cluster::side::PeerKey;
use crate::exec::executor::Executor;
use crate::identity::counters::count;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Counts and logs a message that a neighbour may not send.
pub(super) fn refused(executor: &Executor, at: &PeerKey, session: Option<SessionId>, what: &str) {
    let identity = executor.node.identity();
    count(&identity.counters().forged);
    if identity.may_log_call() {
        let session = session.map(|id| id.to_string());
        warn!(from = %at.name, session, "{what} was refused: the session is not of a node behind that link");
    }
}

/// Answers an envelope of a kind that this node does not answer.
pub(super) fn reply_bad(executor: &Executor, inbound: &InboundEnvelope<'_>, text: &str) {
    let fault = executor.node.identity().fault(Code::BadRequest, Executed::No, text);
    inbound.link.reply_fault(inbound.head.call, &fault);
}
