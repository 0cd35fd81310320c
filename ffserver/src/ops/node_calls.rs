//! Calls of nodes that are no neighbours, as they arrive: which handler runs.

use std::sync::Arc;
use std::time::Duration;

use ffproto::relay::Call;
use ffproto::{Code, Executed, NodeName};
use tracing::warn;

use crate::exec::dispatch::{Answer, LogOnly, Message, Shared};
use crate::ops::envelopes::Arrived;

impl Shared {
    /// Another node calls a method of this one.
    pub(crate) fn called(self: &Arc<Self>, arrived: &Arrived<'_>, from: NodeName, payload: &[u8]) {
        let (node, link, call) = (&self.node, arrived.link, arrived.head.call);
        let Some(Call { method, body }) = Call::read(payload) else {
            let text = "a malformed call";
            return link.reply_fault(call, &node.fault(Code::BadRequest, Executed::No, text));
        };
        let Some(route) = self.dispatch.for_nodes(method) else {
            let text = format!("`{}` has no method `{method}` for other nodes", node.name());
            return link.reply_fault(call, &node.fault(Code::NoMethod, Executed::No, text));
        };
        let deadline = arrived.now + Duration::from_millis(arrived.head.time_left_ms.into());
        let message = Message { link, head: arrived.head, body, deadline, from: Some(from) };
        let done = Answer { link: link.clone(), call, method: route.name };
        self.start_known(arrived.at, route, message, done);
    }

    /// Another node tells a method of this one something.
    pub(crate) fn notified(self: &Arc<Self>, arrived: &Arrived<'_>, from: NodeName, payload: &[u8]) {
        let called = Call::read(payload);
        let route = called.and_then(|called| Some((called.body, self.dispatch.for_nodes(called.method)?)));
        let Some((body, route)) = route else {
            warn!(%from, "a notify for a method that this node does not have is ignored");
            return;
        };
        let deadline = arrived.now + self.node.config().limits.call_timeout;
        let message = Message { link: arrived.link, head: arrived.head, body, deadline, from: Some(from) };
        self.start_known(arrived.at, route, message, LogOnly { method: route.name });
    }
}
