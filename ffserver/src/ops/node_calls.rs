//! Calls of handlers by nodes that are no neighbours, as they arrive.

use std::sync::Arc;

use ffproto::relay::Call;
use ffproto::{Code, Executed, NodeName};
use tracing::warn;

use crate::exec::executor::{AnswerCall, Executor, LogOnly, NodeCall};
use crate::exec::tables::HandlerTables;
use crate::ops::refusal::reply_bad;
use crate::transit::inbound_envelope::InboundEnvelope;

/// Runs the handler of a method that another node calls.
pub(super) fn called(
    executor: &Arc<Executor>,
    tables: &HandlerTables,
    inbound: &InboundEnvelope<'_>,
    from: NodeName,
    payload: &[u8],
) {
    let (identity, link, call) = (executor.node.identity(), inbound.link, inbound.head.call);
    let Some(Call { method, body }) = Call::read(payload) else {
        return reply_bad(executor, inbound, "a malformed call");
    };
    let Some(route) = tables.for_nodes(method) else {
        let text = format!("`{}` has no method `{method}` for other nodes", identity.name());
        return link.reply_fault(call, &identity.fault(Code::NoMethod, Executed::No, text));
    };
    let deadline = inbound.deadline();
    let message = NodeCall { link, head: inbound.head, body, deadline, from: Some(from) };
    let done = AnswerCall { link: link.clone(), call };
    executor.start_call(inbound.at, route, message, done);
}

/// Runs the handler of a method that another node notifies.
pub(super) fn notified(
    executor: &Arc<Executor>,
    tables: &HandlerTables,
    inbound: &InboundEnvelope<'_>,
    from: NodeName,
    payload: &[u8],
) {
    let called = Call::read(payload);
    let route = called.and_then(|called| Some((called.body, tables.for_nodes(called.method)?)));
    let Some((body, route)) = route else {
        warn!(peer = %from, "a notify for a method that this node does not have is ignored");
        return;
    };
    let deadline = inbound.now + executor.node.identity().limits().call_timeout;
    let message = NodeCall { link: inbound.link, head: inbound.head, body, deadline, from: Some(from) };
    executor.start_call(inbound.at, route, message, LogOnly);
}
