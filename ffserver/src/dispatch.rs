//! Which function runs: the tables of a node's handlers, built and checked once at start, and the running
//! of one handler with its panic caught and its deadline kept.

use std::any::TypeId;
use std::collections::HashMap;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use ffnet::Link;
use ffnet::link::Service;
use ffproto::link::Head;
use ffproto::{Code, CommandId, Executed};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::app::App;
use crate::error::HandlerError;
use crate::handler::{Facts, From, HandlerFuture, Key, Outcome, Request, Route, has_parent};
use crate::node::{Node, Phase, States};

/// A node's handlers by who may call them.
#[derive(Clone, Default)]
pub(crate) struct Dispatch {
    net: Arc<HashMap<u32, Route>>,
    /// For children; the place is the method's number.
    root: Arc<[Route]>,
    /// For parents; the keys name the parent.
    remote: Arc<[Route]>,
}

impl Dispatch {
    /// Builds the tables and collects every fault: duplicates, and what handlers need and the node's
    /// config does not have.
    pub(crate) fn build(app: &App, config: &ffconfig::Node) -> Result<Self, Vec<String>> {
        let mut faults = Vec::new();
        let mut seen: HashMap<Key, &Route> = HashMap::new();
        for route in &app.routes {
            if let Some(first) = seen.insert(route.key, route) {
                let (key, a, b) = (route.key, place(first), place(route));
                faults.push(format!("{key} is claimed by {a} and {b}"));
            }
            if let Err(why) = check(route, config, &app.states) {
                faults.push(format!("{} {why}", place(route)));
            }
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let of = |wanted: fn(&Key) -> bool| -> Vec<Route> {
            app.routes.iter().filter(|route| wanted(&route.key)).cloned().collect()
        };
        let net = of(|key| matches!(key, Key::Net(_)));
        Ok(Self {
            net: Arc::new(net.into_iter().filter_map(|r| command(&r.key).map(|c| (c, r))).collect()),
            root: of(|key| matches!(key, Key::Root(_))).into(),
            remote: of(|key| matches!(key, Key::Remote { .. })).into(),
        })
    }

    /// The handler of a client's command.
    pub(crate) fn net(&self, command: CommandId) -> Option<&Route> {
        self.net.get(&command.0)
    }

    /// What children may call, in the order of the methods' numbers.
    pub(crate) fn for_children(&self) -> Arc<[Route]> {
        self.root.clone()
    }

    /// What this parent may call, in the order of the methods' numbers.
    pub(crate) fn for_parent(&self, parent: &ffconfig::Parent) -> Arc<[Route]> {
        let is_meant = |route: &&Route| match route.key {
            Key::Remote { parent: who, .. } => parent.name == *who || parent.key == who,
            _ => false,
        };
        self.remote.iter().filter(is_meant).cloned().collect()
    }
}

/// The names of methods, as the handshake tells them.
pub(crate) fn method_names(routes: &[Route]) -> Vec<String> {
    let name = |route: &Route| match route.key {
        Key::Root(method) | Key::Remote { method, .. } => method.to_owned(),
        Key::Net(command) => command.to_string(),
    };
    routes.iter().map(name).collect()
}

fn command(key: &Key) -> Option<u32> {
    if let Key::Net(command) = key { Some(*command) } else { None }
}

fn place(route: &Route) -> String {
    let (file, line) = route.place;
    format!("`{}` ({file}:{line})", route.name)
}

fn check(route: &Route, config: &ffconfig::Node, states: &States) -> Result<(), String> {
    match route.key {
        Key::Net(_) if config.netport.is_none() => {
            return Err("handles a client's command, but the node has no netport".into());
        }
        Key::Root(_) if config.rootport.is_none() => {
            return Err("is for children, but the node has no rootport".into());
        }
        Key::Remote { parent, .. } => has_parent(config, parent)?,
        _ => {}
    }
    let has_state = |id: TypeId| states.contains_key(&id);
    (route.check)(&Facts { config, has_state: &has_state, key: &route.key })
}

/// A handler whose panic becomes an error.
pub(crate) struct Guarded(HandlerFuture);

impl Guarded {
    /// Runs the route on `request`. Nothing happens before the first poll.
    pub(crate) fn new(route: &Route, request: Request) -> Self {
        let run = route.run;
        // The extraction of arguments runs inside as well, so a panic there is caught, too.
        Self(Box::pin(async move { run(request).await }))
    }

    /// Any other future of the app, such as a hook.
    pub(crate) fn hook(hook: impl Future<Output = Outcome> + Send + 'static) -> Self {
        Self(Box::pin(hook))
    }
}

impl Future for Guarded {
    type Output = Outcome;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        let inner = self.0.as_mut();
        match catch_unwind(AssertUnwindSafe(|| inner.poll(cx))) {
            Ok(polled) => polled,
            Err(payload) => {
                let text = payload
                    .downcast_ref::<&str>()
                    .map(|text| (*text).to_owned())
                    .or_else(|| payload.downcast_ref::<String>().cloned())
                    .unwrap_or_default();
                Poll::Ready(Err(HandlerError::panic(text)))
            }
        }
    }
}

/// Runs a handler that is late or detached to its deadline.
pub(crate) async fn until(deadline: Instant, handler: Guarded) -> Outcome {
    tokio::time::timeout_at(deadline, handler).await.unwrap_or_else(|_| Err(HandlerError::timeout()))
}

/// What a node's links are served with: the methods that the peer may call.
pub(crate) struct Methods {
    node: Node,
    routes: Arc<[Route]>,
}

impl Methods {
    pub(crate) fn new(node: Node, routes: Arc<[Route]>) -> Self {
        Self { node, routes }
    }

    fn request(&self, link: &Link, head: &Head, body: &[u8], time: Duration) -> Request {
        Request {
            node: self.node.clone(),
            from: From::Node(link.peer().name.clone()),
            client: head.client,
            deadline: Instant::now() + time,
            body: Some(Bytes::copy_from_slice(body)),
        }
    }

    /// Starts the handler at once, so that calls start in the order in which they arrived. A handler that
    /// does not wait ends here, without a task; another one goes on in a task of its own.
    fn start(&self, link: &Link, head: &Head, body: &[u8], time: Duration, done: impl Done) {
        let Some(route) = self.routes.get(usize::from(head.method)) else {
            let text = format!("method number {} is unknown", head.method);
            return done.done(
                &self.node,
                Err(HandlerError::passed(self.node.fault(Code::NoMethod, Executed::No, text))),
            );
        };
        if self.node.may_log_call() {
            info!(from = %link.peer().name, session = head.client.map(|c| c.session.to_string()), "call method {}", route.name);
        }
        let request = self.request(link, head, body, time);
        let deadline = request.deadline;
        let mut handler = Guarded::new(route, request);
        // The waker is of no use: a handler that waits is polled again by its own task.
        match Pin::new(&mut handler).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(outcome) => done.done(&self.node, outcome),
            Poll::Pending => {
                let node = self.node.clone();
                self.node.calls().spawn(async move { done.done(&node, until(deadline, handler).await) });
            }
        }
    }
}

/// What is done with a handler's outcome.
trait Done: Send + 'static {
    fn done(self, node: &Node, outcome: Outcome);
}

struct Answer {
    link: Link,
    head: Head,
    method: &'static str,
}

impl Done for Answer {
    fn done(self, node: &Node, outcome: Outcome) {
        match outcome {
            // A call always has an answer; a handler without a value gives an empty one.
            Ok(body) => self.link.reply(self.head.call, self.head.client, &body.unwrap_or_default()),
            Err(error) => {
                log_error(self.method, &error);
                self.link.reply_fault(self.head.call, self.head.client, &error.into_fault(node.name()));
            }
        }
    }
}

struct LogOnly {
    method: &'static str,
}

impl Done for LogOnly {
    fn done(self, _: &Node, outcome: Outcome) {
        if let Err(error) = outcome {
            log_error(self.method, &error);
        }
    }
}

/// Faults of other nodes are logged where they happened; here only what this node's handler did.
pub(crate) fn log_error(method: &str, error: &HandlerError) {
    if matches!(error.code(), Code::Handler | Code::Panic | Code::BadRequest | Code::Timeout) {
        warn!(code = %error.code(), "handler {method}: {}", error.log_text());
    }
}

impl Service for Methods {
    fn call(&self, link: &Link, head: &Head, body: &[u8]) {
        let method = self.routes.get(usize::from(head.method)).map_or("?", |route| route.name);
        let answer = Answer { link: link.clone(), head: *head, method };
        if self.node.phase() == Phase::Stopping {
            let text = format!("`{}` is stopping", self.node.name());
            let stopping = self.node.fault(Code::Stopping, Executed::No, text);
            return link.reply_fault(head.call, head.client, &stopping);
        }
        self.start(link, head, body, Duration::from_millis(head.time_left_ms.into()), answer);
    }

    fn notify(&self, link: &Link, head: &Head, body: &[u8]) {
        let method = self.routes.get(usize::from(head.method)).map_or("?", |route| route.name);
        let time = self.node.config().limits.call_timeout;
        self.start(link, head, body, time, LogOnly { method });
    }
}
