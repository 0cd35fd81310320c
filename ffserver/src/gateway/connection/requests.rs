//! The requests of a client: a handler of this node is started, or the message sent on, and the end of each is answered.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use ffconfig::RouteRule;
use ffnet::link::{NotForwarded, Sink};
use ffproto::Fault;
use ffproto::link::Client;
use ffproto::protocol::ReplyTo;
use tokio::time::Instant;
use tracing::info;

use crate::app::handler::{Outcome, Request, Sender};
use crate::app::hooks::SessionEventKind;
use crate::app::route::Route;
use crate::cluster::affinity::Hop;
use crate::exec::deadlines::Bounded;
use crate::exec::execution::{Execution, log_error, poll_once};
use crate::exec::executor::Executor;
use crate::gateway::login_stage;
use crate::session::local::{LocalSession, Stage};
use crate::transit::Transit;
use crate::transit::forward_counters::ForwardTally;
use crate::transit::next_hop::{Forwarded, forward_over};

/// The running handler of a connection, which waits for something.
pub(super) struct RunningHandler {
    pub(super) handler: Execution,
    /// Whom the reply is for, and the handler. `None` for the hook at the opening, which has no reply.
    pub(super) request: Option<(ReplyTo, Arc<Route>)>,
    pub(super) deadline: Instant,
}

impl RunningHandler {
    /// The name for the log.
    pub(super) fn name(&self) -> &str {
        self.request.as_ref().map_or(SessionEventKind::Opened.hook_name(), |(_, route)| route.name())
    }
}

/// One message of a client, and when it was read.
#[derive(Clone, Copy)]
pub(super) struct Message<'a> {
    pub(super) to: ReplyTo,
    pub(super) body: &'a [u8],
    pub(super) now: Instant,
    /// When the client stops waiting.
    pub(super) deadline: Instant,
}

/// The hop that the session's last stateful message took: the next one mostly takes it, too.
#[derive(Default)]
pub(super) struct LastHop {
    hop: Option<(Arc<str>, Hop)>,
}

/// Starts a handler of this node; gives it back when it waits for something, and the session's next messages for it.
pub(super) fn start(
    executor: &Arc<Executor>,
    session: &LocalSession,
    route: &Arc<Route>,
    message: &Message<'_>,
    cx: &mut Context<'_>,
) -> Option<RunningHandler> {
    let Message { to, body, deadline, .. } = *message;
    let command = to.command;
    let identity = executor.node.identity();
    if identity.may_log_call(Some(command)) {
        info!(session = %session.id(), "call command {command}: {}", route.name);
    }
    let request = Request {
        node: executor.node.clone(),
        from: Sender::Session(session.clone()),
        client: Some(Client { session: session.id(), command, stateless: false }),
        deadline,
        body: Some(Bytes::copy_from_slice(body)),
    };
    let mut handler = Execution::new(route, request);
    let polled = if route.concurrent { poll_once(&mut handler) } else { Pin::new(&mut handler).poll(cx) };
    match polled {
        Poll::Ready(outcome) => {
            finish(session, executor, Some(to), &route.name, outcome);
            None
        }
        Poll::Pending if route.concurrent => {
            session.request_waits();
            let (handler, session) = (executor.deadlines.run(deadline, handler), session.clone());
            let beside =
                BesideRequest { handler, session, executor: executor.clone(), to, route: route.clone() };
            drop(identity.tasks().calls().spawn(beside));
            None
        }
        Poll::Pending => Some(RunningHandler { handler, request: Some((to, route.clone())), deadline }),
    }
}

/// A request that runs in a task of its own, beside its session's order. A future by hand: a block would hold the handler
/// twice, and so large a future is copied by a call each of the four times that tokio moves it.
struct BesideRequest {
    handler: Bounded,
    session: LocalSession,
    executor: Arc<Executor>,
    to: ReplyTo,
    route: Arc<Route>,
}

impl Future for BesideRequest {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let outcome = ready!(Pin::new(&mut self.handler).poll(cx));
        finish(&self.session, &self.executor, Some(self.to), &self.route.name, outcome);
        self.session.request_ended();
        Poll::Ready(())
    }
}

/// Sends a command on that has no handler here; its outcome comes back to the session.
pub(super) fn forward(
    executor: &Arc<Executor>,
    session: &LocalSession,
    (last_hop, moves): (&mut LastHop, &mut u32),
    tally: &mut ForwardTally,
    rule: &RouteRule,
    message: &Message<'_>,
) {
    let Message { to, body, now, deadline } = *message;
    let transit = executor.node.transit();
    let client = Client { session: session.id(), command: to.command, stateless: rule.stateless };
    let target = rule.to.key();
    let (from, routed_here, hops) = (None, true, 0);
    let message = Forwarded { target, from, routed_here, hops, client, body, deadline, now };
    transit.forwarded().count(target, tally);
    let asked = session.stage() == Stage::Asked;
    let sink = if asked { login_stage::sink(session, executor) } else { session.reply_sink() };
    session.request_waits();
    // The last hop is of before the session's last move.
    if std::mem::replace(moves, session.moves()) != session.moves() {
        last_hop.hop = None;
    }
    if let Err(fault) = last_hop.send(transit, &message, to, sink) {
        if asked {
            return login_stage::decide(session, executor, to, Err(fault));
        }
        session.request_ended();
        session.push_fault(to, &fault);
    }
}

impl LastHop {
    /// Sends a message this way, when it is still open and nothing of this node waits for another one; else the way that is
    /// found.
    fn send(
        &mut self,
        transit: &Transit,
        message: &Forwarded<'_>,
        to: ReplyTo,
        sink: Arc<dyn Sink>,
    ) -> Result<(), Fault> {
        let (target, client, token) = (message.target, message.client, to.token());
        let changes = transit.membership().changes();
        let known = self.hop.as_ref().filter(|(known, hop)| {
            let same = Arc::ptr_eq(known, target) && !client.stateless;
            same && hop.holds(changes) && !transit.park().any()
        });
        if let Some((_, hop)) = known {
            return match forward_over(hop, message, sink, token) {
                Ok(()) => Ok(()),
                Err(NotForwarded::Fault(fault)) => Err(fault),
                Err(NotForwarded::Later(sink)) => transit.forward(message, sink, token).map(drop),
            };
        }
        let hop = transit.forward(message, sink, token)?;
        if !client.stateless {
            self.hop = hop.map(|hop| (target.clone(), hop));
        }
        Ok(())
    }
}

/// The end of one request: a reply, an error frame, or nothing where the handler has no value.
pub(super) fn finish(
    session: &LocalSession,
    executor: &Arc<Executor>,
    to: Option<ReplyTo>,
    name: &str,
    outcome: Outcome,
) {
    let login = to.filter(|_| session.stage() == Stage::Asked);
    if let Some(to) = login {
        // The one request that may run now is the login.
        session.request_waits();
        let outcome = outcome.map_err(|error| {
            log_error(name, &error);
            error.into_fault(executor.node.name())
        });
        return login_stage::decide(session, executor, to, outcome);
    }
    let error = match (outcome, to) {
        (Ok(Some(body)), Some(to)) => {
            return session.reply(to, &body);
        }
        (Ok(_), _) => return,
        (Err(error), _) => error,
    };
    log_error(name, &error);
    if let Some(to) = to {
        session.push_fault(to, &error.into_fault(executor.node.name()));
    }
}
