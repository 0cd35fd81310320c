//! Calls a handler of a neighbouring node: takes the link, sets the deadline, and brings the outcome to the caller.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use ffnet::Link;
use ffnet::link::{Call, CallOptions, Forward, NotForwarded, NotSent};
use ffproto::link::Client;
use ffproto::{Fault, NodeName, SessionId};
use tokio::time::Instant;

use super::Transit;
use crate::cluster::side::Side;
use crate::error::CallError;
use crate::transit::next_hop::{NextHop, is_for_client};
use crate::transit::park::{
    Destination, HandlerMessage, OutcomeSlot, ParkedKind, ParkedMessage, SlotOutcome,
};

/// The origin of a call: how far the call may go in time, and whose message made it.
#[derive(Debug, Clone)]
pub(crate) struct Origin {
    pub(crate) transit: Transit,
    pub(crate) client: Option<Client>,
    /// When the request that makes the call ends; `None` outside of a request.
    pub(crate) deadline: Option<Instant>,
    /// How long the call itself may take.
    pub(crate) timeout: Duration,
    /// The neighbour that waits for the request that makes the call.
    pub(crate) caller: Option<NodeName>,
}

impl Origin {
    pub(crate) fn of(transit: &Transit) -> Self {
        let timeout = transit.identity().limits().call_timeout;
        Self { transit: transit.clone(), client: None, deadline: None, timeout, caller: None }
    }

    /// The call's own timeout, but never beyond the request that makes it.
    fn options(&self, now: Instant) -> CallOptions {
        let own = now + self.timeout;
        CallOptions { deadline: self.deadline.map_or(own, |outer| outer.min(own)), client: self.client }
    }

    fn session(&self) -> Option<SessionId> {
        self.client.map(|client| client.session)
    }

    /// The link to a neighbour; `None` when the message must wait for it.
    fn link(&self, side: Side, who: &str, now: Instant) -> Result<Option<Link>, Fault> {
        let (transit, session) = (&self.transit, self.session());
        if transit.park().any() && transit.park().blocks(&Destination::Neighbour(side, who.into()), session) {
            return Ok(None);
        }
        match transit.link_to(side, who, session, now) {
            NextHop::Go(link) => Ok(Some(link)),
            NextHop::Wait => Ok(None),
            NextHop::None => Err(transit.not_there(side, who)),
        }
    }

    pub(crate) fn call(&self, side: Side, who: &str, method: &str, body: &[u8]) -> Calling {
        // Read once: it is a good part of what a call costs.
        let now = Instant::now();
        match self.link(side, who, now) {
            Ok(Some(link)) => {
                let options = self.options(now);
                Calling(CallingState::Sent(link.call_at(method, body, options, now)))
            }
            Ok(None) => self.call_later(side, who, method, body).unwrap_or_else(Calling::refused),
            Err(fault) => Calling::refused(fault),
        }
    }

    fn call_later(&self, side: Side, who: &str, method: &str, body: &[u8]) -> Result<Calling, Fault> {
        let (slot, options) = (Arc::new(OutcomeSlot::default()), self.options(Instant::now()));
        let calling = Calling(CallingState::Waits(SlotOutcome(slot.clone())));
        if let Some((link, method)) = self.nested(side, who, method) {
            let call = Forward {
                method,
                body,
                options,
                message_of: None,
                hops: 0,
                nested: true,
                sink: slot.clone(),
                token: 0,
            };
            match link.forward(call, Instant::now()) {
                Ok(()) => return Ok(calling),
                Err(NotForwarded::Fault(fault)) => return Err(fault),
                Err(NotForwarded::Later(_)) => {}
            }
        }
        let kind = ParkedKind::Call(HandlerMessage::new(side, who, method, self.client), (slot, 0));
        let (body, deadline) = (Bytes::copy_from_slice(body), options.deadline);
        self.transit.wait(ParkedMessage { kind, body, deadline })?;
        Ok(calling)
    }

    /// The paused link of the neighbour that waits for the request that makes the call: it cannot end before
    /// this call has, so the call must not wait for its end.
    fn nested(&self, side: Side, who: &str, method: &str) -> Option<(Link, u16)> {
        let known = self.transit.peers(side);
        let link = known.get(self.caller.as_ref()?.as_str())?.link()?.clone();
        let meant = known.meant(who).any(|known| known.name == link.peer().name);
        let number = link.method_number(method)?;
        (meant && link.is_paused()).then_some((link, number))
    }

    /// The paused link of a neighbour that a message for clients goes over all the same: an answer may follow it there,
    /// and the app that is being frozen does not see it.
    fn paused(&self, side: Side, who: &str, method: &str, body: &[u8]) -> Option<Link> {
        let link = self.transit.peers(side).get(who)?.link().filter(|link| link.is_paused())?.clone();
        let blocked = self.transit.park().blocks(&Destination::Neighbour(side, who.into()), self.session());
        (!blocked && is_for_client(method, body)).then_some(link)
    }

    pub(crate) fn notify(&self, side: Side, who: &str, method: &str, body: &[u8]) -> Result<(), Fault> {
        let now = Instant::now();
        let sent = match self.link(side, who, now)? {
            Some(link) => self.transit.notify_over(&link, side, method, body, self.client),
            None => match self.paused(side, who, method, body) {
                Some(link) => link.notify_beside(method, body, self.client),
                None => Err(NotSent::Later),
            },
        };
        match sent {
            Ok(()) => return Ok(()),
            Err(NotSent::Fault(fault)) => return Err(fault),
            Err(NotSent::Later) => {}
        }
        let kind = ParkedKind::Notify(HandlerMessage::new(side, who, method, self.client));
        let deadline = now + self.transit.identity().limits().call_timeout;
        self.transit.wait(ParkedMessage { kind, body: Bytes::copy_from_slice(body), deadline })
    }
}

/// A call on its way. Cancel-safe: dropping it forgets the answer; the call itself has been sent, or is sent when the
/// node that is waited for is there.
#[must_use = "a call does nothing for its caller unless its outcome is awaited"]
pub struct Calling(CallingState);

enum CallingState {
    Sent(Call),
    Waits(SlotOutcome),
    Refused(Option<CallError>),
    Later(Pin<Box<dyn Future<Output = Result<Bytes, CallError>> + Send>>),
}

impl Calling {
    pub(crate) fn refused(fault: Fault) -> Self {
        Self(CallingState::Refused(Some(fault.into())))
    }

    /// A call that is made when its node is there.
    pub(crate) fn later(call: impl Future<Output = Result<Bytes, CallError>> + Send + 'static) -> Self {
        Self(CallingState::Later(Box::pin(call)))
    }
}

impl Future for Calling {
    type Output = Result<Bytes, CallError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.0 {
            CallingState::Sent(call) => Pin::new(call).poll(cx).map_err(CallError::from),
            CallingState::Later(call) => call.as_mut().poll(cx),
            CallingState::Waits(outcome) => Pin::new(outcome).poll(cx).map_err(CallError::from),
            // The call was not even sent. Like every future, this one may be polled once after its end at most.
            CallingState::Refused(refused) => match refused.take() {
                Some(error) => Poll::Ready(Err(error)),
                None => Poll::Pending,
            },
        }
    }
}
