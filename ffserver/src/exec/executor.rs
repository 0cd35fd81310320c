//! The executor of a node: runs handlers for clients' messages, one at a time for each session, and for other nodes' calls.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use ffnet::Link;
use ffproto::link::{Client, Head};
use ffproto::{Code, Executed, Fault, NodeName};
use tokio::time::Instant;
use tracing::info;

use crate::app::handler::{Outcome, Request, Sender};
use crate::app::hooks::Hooks;
use crate::app::route::Route;
use crate::cluster::side::PeerKey;
use crate::error::CallError;
use crate::exec::current_tables::CurrentTables;
use crate::exec::deadlines::{Bounded, Deadlines};
use crate::exec::execution::{Execution, log_error, poll_once};
use crate::exec::replicas::Replicas;
use crate::identity::counters::count;
use crate::identity::watchdog::Watchdog;
use crate::node::Node;
use crate::session::queue::{Admission, SessionQueues};

/// The executor of one node; all links and all connections of the node have it in common.
pub(crate) struct Executor {
    pub(crate) node: Node,
    pub(crate) tables: Arc<CurrentTables>,
    pub(crate) queues: Arc<SessionQueues<QueuedMessage>>,
    pub(crate) replicas: Arc<Replicas>,
    pub(crate) hooks: Hooks,
    pub(crate) watchdog: Arc<Watchdog>,
    pub(crate) deadlines: Arc<Deadlines>,
}

/// A client's message that waits for its turn.
pub(crate) struct QueuedMessage {
    pub(crate) client: Client,
    /// The handler, by the tables with which the message was taken up; `None` when they have none.
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) link: Link,
    pub(crate) call: u32,
    pub(crate) deadline: Instant,
}

impl Executor {
    /// Starts a handler for another node's call: at once, unless the handler takes a session that has no open replica
    /// here yet.
    pub(crate) fn start_call(
        self: &Arc<Self>,
        at: &PeerKey,
        route: &Arc<Route>,
        message: NodeCall<'_>,
        done: impl OnOutcome,
    ) {
        let client = message.head.client.filter(|client| {
            route.takes_session
                && !self.node.all_sessions().registry().has(client.session)
                && !self.node.all_sessions().remote().is_open(client.session)
        });
        let Some(client) = client else { return self.start_method(route, message, done) };
        let NodeCall { link, head, body, deadline, from } = message;
        let (route, link, head, bytes, body) =
            (route.clone(), link.clone(), *head, body.len(), body.to_vec());
        let executor = self.clone();
        let job = move |known: Result<(), Fault>| match known {
            Ok(()) => {
                let message = NodeCall { link: &link, head: &head, body: &body, deadline, from };
                executor.start_method(&route, message, done);
            }
            Err(fault) => done.done(&executor.node, &route.name, Err(CallError::from(fault).into())),
        };
        self.replicas.when_open(client.session, at, bytes, Box::new(job));
    }

    /// Starts a handler at once, so that calls start in the order in which they arrived. A handler that does not wait
    /// ends here, without a task; another one goes on in a task of its own.
    fn start_method(&self, route: &Arc<Route>, message: NodeCall<'_>, done: impl OnOutcome) {
        let node = &self.node;
        if node.identity().may_log_call(message.head.client.map(|client| client.command)) {
            info!(from = %message.link.peer().name, session = message.session(), "call method {}", route.name);
        }
        let deadline = message.deadline;
        let mut handler = Execution::new(route, message.request(node));
        match poll_once(&mut handler) {
            Poll::Ready(outcome) => done.done(node, &route.name, outcome),
            Poll::Pending => {
                let (handler, done) = (self.deadlines.run(deadline, handler), Some(done));
                let waiting = WaitingMethod { handler, node: node.clone(), route: route.clone(), done };
                drop(node.identity().tasks().calls().spawn(waiting));
            }
        }
    }

    /// Runs a client's message now, or queues it behind the session's running one.
    pub(crate) fn admit(self: Arc<Self>, waiting: QueuedMessage, body: Bytes) {
        let (session, command) = (waiting.client.session, waiting.client.command);
        let Some(route) = &waiting.route else {
            let text = format!("`{}` has no handler for command {command}", self.node.name());
            let fault = self.node.identity().fault(Code::NoRoute, Executed::No, text);
            return waiting.link.reply_fault(waiting.call, &fault);
        };
        if route.concurrent {
            let mut handler = self.handler(route, &waiting, body);
            if let Poll::Ready(outcome) = poll_once(&mut handler) {
                return self.answer(&waiting, outcome);
            }
            let (kept, handler) = (self.clone(), self.deadlines.run(waiting.deadline, handler));
            drop(self.node.identity().tasks().calls().spawn(async move {
                let outcome = handler.await;
                kept.answer(&waiting, outcome);
            }));
            return;
        }
        match self.queues.admit(session, waiting, body) {
            Admission::Run(waiting, body) => self.run(waiting, body),
            Admission::Waits => {}
            Admission::Overloaded(waiting) => {
                count(&self.node.identity().counters().session_queue_full);
                let text = format!(
                    "too much of the session waits at `{}`: limits.session_queue_max",
                    self.node.name()
                );
                let fault = self.node.identity().fault(Code::Overloaded, Executed::No, text);
                waiting.link.reply_fault(waiting.call, &fault);
            }
        }
    }

    /// Runs messages of one session until none waits; from the first handler that waits on, in a task.
    fn run(self: Arc<Self>, waiting: QueuedMessage, body: Bytes) {
        let mut next = Some((waiting, body));
        while let Some((waiting, body)) = next {
            let session = waiting.client.session;
            if let Some(mut handler) = self.start(&waiting, body) {
                match poll_once(&mut handler) {
                    Poll::Ready(outcome) => self.answer(&waiting, outcome),
                    Poll::Pending => {
                        let node = self.node.clone();
                        drop(node.identity().tasks().calls().spawn(self.run_on(waiting, handler)));
                        return;
                    }
                }
            }
            next = self.queues.next(session);
            if next.is_none() {
                self.replicas.idle(session);
            }
        }
    }

    async fn run_on(self: Arc<Self>, waiting: QueuedMessage, handler: Execution) {
        let session = waiting.client.session;
        let outcome = self.deadlines.run(waiting.deadline, handler).await;
        self.answer(&waiting, outcome);
        while let Some((waiting, body)) = self.queues.next(session) {
            if let Some(handler) = self.start(&waiting, body) {
                let outcome = self.deadlines.run(waiting.deadline, handler).await;
                self.answer(&waiting, outcome);
            }
        }
        self.replicas.idle(session);
    }

    /// The handler of a message whose turn has come. `None` when the message's time is over, or the link that it came
    /// on: its caller has been told so, and the session goes on elsewhere. The handler is not started then.
    fn start(&self, waiting: &QueuedMessage, body: Bytes) -> Option<Execution> {
        let expired = Instant::now() >= waiting.deadline || waiting.link.is_closed();
        match waiting.route.as_ref().filter(|_| !expired) {
            Some(route) => Some(self.handler(route, waiting, body)),
            None => {
                let fault = self.node.identity().fault(
                    Code::Timeout,
                    Executed::No,
                    "the deadline passed in the queue",
                );
                waiting.link.reply_fault(waiting.call, &fault);
                None
            }
        }
    }

    fn handler(&self, route: &Route, waiting: &QueuedMessage, body: Bytes) -> Execution {
        let QueuedMessage { client, link, deadline, .. } = waiting;
        let from = Sender::Node(link.peer().name.clone());
        if self.node.identity().may_log_call(Some(client.command)) {
            info!(from = %link.peer().name, session = %client.session, "call command {}: {}", client.command, route.name);
        }
        let (node, client, deadline) = (self.node.clone(), Some(*client), *deadline);
        let request = Request { node, from, client, deadline, body: Some(body) };
        Execution::new(route, request)
    }

    fn answer(&self, waiting: &QueuedMessage, outcome: Outcome) {
        match outcome {
            Ok(Some(body)) => waiting.link.reply(waiting.call, &body),
            Ok(None) => waiting.link.reply_done(waiting.call),
            Err(error) => {
                log_error(&waiting.client.command.to_string(), &error);
                waiting.link.reply_fault(waiting.call, &error.into_fault(self.node.name()));
            }
        }
    }
}

/// A method that waits, in a task of its own. A future by hand, for an async block would hold the handler twice.
struct WaitingMethod<D> {
    handler: Bounded,
    node: Node,
    route: Arc<Route>,
    /// Taken with the outcome.
    done: Option<D>,
}

impl<D: OnOutcome> Future for WaitingMethod<D> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let outcome = ready!(Pin::new(&mut self.handler).poll(cx));
        if let Some(done) = self.done.take() {
            done.done(&self.node, &self.route.name, outcome);
        }
        Poll::Ready(())
    }
}

/// A call or a notify of another node, as it was read.
pub(crate) struct NodeCall<'a> {
    pub(crate) link: &'a Link,
    pub(crate) head: &'a Head,
    pub(crate) body: &'a [u8],
    pub(crate) deadline: Instant,
    /// The node that sent it, when that is not the peer of the link.
    pub(crate) from: Option<NodeName>,
}

impl NodeCall<'_> {
    fn session(&self) -> Option<String> {
        self.head.client.map(|client| client.session.to_string())
    }

    fn from(&self) -> Sender {
        let peer = &self.link.peer().name;
        match &self.from {
            Some(from) if from != peer => Sender::Far { node: from.clone(), by: peer.clone() },
            _ => Sender::Node(peer.clone()),
        }
    }

    fn request(&self, node: &Node) -> Request {
        Request {
            node: node.clone(),
            from: self.from(),
            client: self.head.client,
            deadline: self.deadline,
            body: Some(Bytes::copy_from_slice(self.body)),
        }
    }
}

/// The receiver of the outcome of a handler of that name.
pub(crate) trait OnOutcome: Send + Unpin + 'static {
    fn done(self, node: &Node, name: &str, outcome: Outcome);
}

pub(crate) struct AnswerCall {
    pub(crate) link: Link,
    pub(crate) call: u32,
}

impl OnOutcome for AnswerCall {
    fn done(self, node: &Node, name: &str, outcome: Outcome) {
        match outcome {
            // A call always has an answer; a handler without a value gives an empty one.
            Ok(body) => self.link.reply(self.call, &body.unwrap_or_default()),
            Err(error) => {
                log_error(name, &error);
                self.link.reply_fault(self.call, &error.into_fault(node.name()));
            }
        }
    }
}

pub(crate) struct LogOnly;

impl OnOutcome for LogOnly {
    fn done(self, _: &Node, name: &str, outcome: Outcome) {
        if let Err(error) = outcome {
            log_error(name, &error);
        }
    }
}
