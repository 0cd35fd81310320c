//! Which function runs: the tables of a node's handlers, built and checked once at start, and the running
//! of one handler with its panic caught and its deadline kept.

use std::any::TypeId;
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use ffconfig::RouteRule;
use ffnet::Link;
use ffnet::link::{Change, Service};
use ffproto::link::{Client, Head};
use ffproto::relay::{REACH, STICK, Stick, StickWhat, TO};
use ffproto::{Code, CommandId, Executed, Fault, NodeName, SessionId};
use rustc_hash::FxHashMap;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::app::app::{App, Hooks};
use crate::app::handler::{Facts, From, Key, Outcome, Request, Route, has_parent};
use crate::cluster::affinity::{SESSION_ENDED, Taken, is_reserved, method_of};
use crate::cluster::reachability::At;
use crate::error::CallError;
use crate::exec::execution::{Guarded, log_error, poll_once, until};
use crate::identity::counters::count;
use crate::node::{Node, Phase, States};
use crate::ops::envelopes::Arrived;
use crate::session::queue::{Admitted, Queues};
use crate::transit::next_hop::Forwarded;

/// A node's handlers by who may call them.
#[derive(Clone, Default)]
pub(crate) struct Dispatch {
    net: Arc<FxHashMap<u32, Route>>,
    /// For clients' commands that have neither a handler nor a route here.
    default: Option<Arc<Route>>,
    /// For clients' commands that have no handler here.
    routes: Arc<ffconfig::Route>,
    /// For children; the place is the method's number.
    root: Arc<[Route]>,
    /// For parents; the keys name the parent.
    remote: Arc<[Route]>,
    /// For every node, by method.
    nodes: Arc<FxHashMap<&'static str, Route>>,
    /// Whether a client's message is handled only when its session is known.
    needs_sessions: bool,
}

impl Dispatch {
    /// Builds the tables and collects every fault: duplicates, and what handlers need and the node's
    /// config does not have.
    pub(crate) fn build(app: &App, config: &ffconfig::Node) -> Result<Self, Vec<String>> {
        let (mut faults, mut takes) = (Vec::new(), Vec::new());
        let mut seen: HashMap<Key, &Route> = HashMap::new();
        for route in &app.routes {
            if let Some(first) = seen.insert(route.key, route) {
                let (key, a, b) = (route.key, place(first), place(route));
                faults.push(format!("{key} is claimed by {a} and {b}"));
            }
            match check(route, config, &app.states) {
                Ok(takes_session) => takes.push(takes_session),
                Err(why) => faults.push(format!("{} {why}", place(route))),
            }
        }
        let known = |command: CommandId| app.routes.iter().any(|route| route.key == Key::Net(command.0));
        if let Some(ffconfig::Login { command, .. }) = config.login
            && !known(command)
            && config.route.find(command).is_none()
        {
            faults.push(format!("nobody decides over logins: command {command} (login.command) has neither a handler nor a route"));
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        let of = |wanted: fn(&Key) -> bool| -> Vec<Route> {
            // Their places in the list, from 1, are their numbers: see `Dispatch::names`.
            let numbered = (1..).zip(app.routes.iter().zip(&takes));
            let numbered = numbered.filter(|(_, (route, _))| wanted(&route.key));
            let told = |(number, (route, takes)): (u32, (&Route, &bool))| Route {
                number,
                takes_session: *takes,
                ..route.clone()
            };
            numbered.map(told).collect()
        };
        let net = of(|key| matches!(key, Key::Net(_)));
        let default = of(|key| matches!(key, Key::Default)).pop().map(Arc::new);
        let Hooks { session_opened, session_verified, session_closed, session_entered, session_left, .. } =
            &app.hooks;
        let moves = session_entered.is_some() || app.hooks.session_not_moved.is_some();
        let hooks = [session_opened, session_verified, session_closed, session_left];
        let hooks = hooks.into_iter().any(Option::is_some) || moves;
        Ok(Self {
            needs_sessions: hooks || net.iter().chain(default.as_deref()).any(|route| route.takes_session),
            default,
            routes: Arc::new(config.route.clone()),
            net: Arc::new(net.into_iter().filter_map(|r| command(&r.key).map(|c| (c, r))).collect()),
            root: of(|key| matches!(key, Key::Root(_))).into(),
            remote: of(|key| matches!(key, Key::Remote { .. })).into(),
            nodes: Arc::new(
                of(|key| matches!(key, Key::Node(_)))
                    .into_iter()
                    .filter_map(
                        |route| if let Key::Node(method) = route.key { Some((method, route)) } else { None },
                    )
                    .collect(),
            ),
        })
    }

    /// The handlers' names by number, with what calls them.
    pub(crate) fn names(app: &App) -> Vec<String> {
        app.routes.iter().map(|route| format!("`{}` ({})", route.name, route.key)).collect()
    }

    /// Whether clients' messages are for this node: it handles them, or its route says who does.
    pub(crate) fn handles_clients(&self) -> bool {
        !self.net.is_empty() || self.default.is_some() || !self.routes.is_empty()
    }

    /// Whether a client's message of another net node is handled only when its session is known.
    pub(crate) fn needs_sessions(&self) -> bool {
        self.needs_sessions
    }

    /// Where a command without a handler here goes.
    #[inline]
    pub(crate) fn route(&self, command: CommandId) -> Option<&RouteRule> {
        self.routes.find(command)
    }

    /// The handler of a client's command: its own, or the default one when no route takes it.
    #[inline]
    pub(crate) fn net(&self, command: CommandId) -> Option<&Route> {
        let default = || self.default.as_deref().filter(|_| self.routes.find(command).is_none());
        self.net.get(&command.0).or_else(default)
    }

    /// What every node may call by that name.
    pub(crate) fn for_nodes(&self, method: &str) -> Option<&Route> {
        self.nodes.get(method)
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

/// What the handshake tells the peer, in the order of numbers: handlers, then the kinds whose clients'
/// messages are taken, then what nodes tell each other.
pub(crate) fn told_methods(routes: &[Route], kinds: &[String]) -> Vec<String> {
    let kinds = kinds.iter().map(|kind| method_of(kind));
    method_names(routes).into_iter().chain(kinds).chain(RESERVED.map(str::to_owned)).collect()
}

/// What nodes tell each other, in the order of the numbers after those of handlers and kinds.
const RESERVED: [&str; 4] = [SESSION_ENDED, REACH, TO, STICK];

fn method_names(routes: &[Route]) -> Vec<String> {
    let name = |route: &Route| match route.key {
        Key::Root(method) | Key::Remote { method, .. } | Key::Node(method) => method.to_owned(),
        Key::Net(command) => command.to_string(),
        Key::Default => "default".to_owned(),
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

/// Whether it takes a session.
fn check(route: &Route, config: &ffconfig::Node, states: &States) -> Result<bool, String> {
    match route.key {
        Key::Root(method) | Key::Remote { method, .. } | Key::Node(method) if is_reserved(method) => {
            return Err("has an `@` in its method's name, which is reserved".into());
        }
        Key::Root(_) if config.rootport.is_none() => {
            return Err("is for children, but the node has no rootport".into());
        }
        Key::Remote { parent, .. } => has_parent(config, parent)?,
        _ => {}
    }
    let has_state = |id: TypeId| states.contains_key(&id);
    let takes_session = Cell::new(false);
    (route.check)(&Facts { config, has_state: &has_state, takes_session: &takes_session })?;
    Ok(takes_session.get())
}

/// What a node's links are served with: the methods that the peer may call, and the clients' messages
/// that it may send on.
pub(crate) struct Methods {
    shared: Arc<Shared>,
    at: At,
    /// The last session's net node that was found to be behind this link, and when the node last knew.
    behind: AtomicU64,
    routes: Arc<[Route]>,
    taken: Arc<[Taken]>,
}

/// What all links of a node serve with.
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) dispatch: Dispatch,
    pub(crate) queues: Queues<Waiting>,
    pub(crate) hooks: Hooks,
}

/// A client's message that waits for its turn.
pub(crate) struct Waiting {
    client: Client,
    link: Link,
    call: u32,
    deadline: Instant,
}

impl Methods {
    /// `taken` are told after `routes` in the handshake, so their numbers follow.
    pub(crate) fn new(shared: Arc<Shared>, at: At, routes: Arc<[Route]>, taken: Arc<[Taken]>) -> Self {
        Self { shared, at, behind: AtomicU64::new(u64::MAX), routes, taken }
    }

    /// Whether the peer may send what a client has said: the client's net node is behind this link, or the peer
    /// has got messages of that session from here, and its own route sends one on.
    fn may_speak_for(&self, link: &Link, session: SessionId) -> bool {
        let now = self.shared.node.cluster().changes() << 16 | u64::from(session.node().0);
        if self.behind.load(Ordering::Relaxed) == now {
            return true;
        }
        if self.shared.node.cluster().leads(&self.at, link, session.node()) {
            self.behind.store(now, Ordering::Relaxed);
            return true;
        }
        let sticky = self.shared.node.sticky();
        sticky.goes_to(session, &self.at.1)
            || link.has_message_of(session)
            || self.shared.may_speak_for(&self.at, link, session)
    }
}

impl Shared {
    /// Starts the handler, at once unless it takes a session that is not known here yet.
    pub(crate) fn start_known(
        self: &Arc<Self>,
        at: &At,
        route: &Route,
        message: Message<'_>,
        done: impl Done,
    ) {
        let client = message.head.client.filter(|client| {
            route.takes_session
                && self.node.local_session(client.session).is_none()
                && !self.node.cluster().known.is_open(client.session)
        });
        let Some(client) = client else { return self.start_method(route, message, done) };
        let Message { link, head, body, deadline, from } = message;
        let (route, link, head, bytes, body) =
            (route.clone(), link.clone(), *head, body.len(), body.to_vec());
        let shared = self.clone();
        let job = move |known: Result<(), Fault>| match known {
            Ok(()) => {
                let message = Message { link: &link, head: &head, body: &body, deadline, from };
                shared.start_method(&route, message, done);
            }
            Err(fault) => done.done(&shared.node, Err(CallError::from(fault).into())),
        };
        self.when_known(client.session, at, bytes, Box::new(job));
    }

    /// Starts the handler at once, so that calls start in the order in which they arrived. A handler that
    /// does not wait ends here, without a task; another one goes on in a task of its own.
    fn start_method(&self, route: &Route, message: Message<'_>, done: impl Done) {
        let node = &self.node;
        if node.may_log_call() {
            info!(from = %message.link.peer().name, session = message.session(), "call method {}", route.name);
        }
        let deadline = message.deadline;
        let mut handler = Guarded::new(route, message.request(node));
        match poll_once(&mut handler) {
            Poll::Ready(outcome) => done.done(node, outcome),
            Poll::Pending => {
                let kept = node.clone();
                node.calls().spawn(async move { done.done(&kept, until(deadline, handler).await) });
            }
        }
    }
}

impl Methods {
    /// What nodes tell each other, by its number.
    fn reserved(&self, number: usize) -> Option<&'static str> {
        RESERVED.get(number.wrapping_sub(self.routes.len() + self.taken.len())).copied()
    }

    /// A client's message for this node or for another one.
    fn client_message(&self, link: &Link, head: &Head, body: &[u8], now: Instant) {
        let node = &self.shared.node;
        let deadline = now + Duration::from_millis(head.time_left_ms.into());
        let place = usize::from(head.method).wrapping_sub(self.routes.len());
        let (Some(taken), Some(client)) = (self.taken.get(place), head.client) else {
            let text = format!("method number {} is unknown", head.method);
            return link.reply_fault(head.call, &node.fault(Code::NoMethod, Executed::No, text));
        };
        if !self.may_speak_for(link, client.session) {
            let text = format!("session {} is not of a node behind `{}`", client.session, self.at.1);
            return link.reply_fault(head.call, &node.fault(Code::BadRequest, Executed::No, text));
        }
        let (target, routed_here, client) = match taken {
            Taken::Beyond(target) => (Some(target), false, client),
            Taken::Here if self.shared.dispatch.net(client.command).is_some() => (None, false, client),
            // This node's own route says who handles it.
            Taken::Here => match self.shared.dispatch.route(client.command) {
                Some(rule) => (Some(rule.to.key()), true, Client { stateless: rule.stateless, ..client }),
                None => (None, false, client),
            },
        };
        match target {
            Some(target) => {
                let (from, hops) = (Some(&self.at), head.hops + 1);
                let message = Forwarded { target, from, routed_here, hops, client, body, deadline, now };
                let sent = match hops < node.config().limits.hops_max {
                    true => node.forward(&message, link.sink(), head.call.into()),
                    false => Err(node.too_many_hops(hops)),
                };
                if let Err(fault) = sent {
                    link.reply_fault(head.call, &fault);
                }
            }
            None => {
                let waiting = Waiting { client, link: link.clone(), call: head.call, deadline };
                let (shared, bytes, body) = (self.shared.clone(), body.len(), Bytes::copy_from_slice(body));
                let session = client.session;
                let stays = !client.stateless;
                let known = &node.cluster().known;
                let leads = |at: &At| node.cluster().leads_now(at, session.node());
                if !shared.dispatch.needs_sessions() || known.takes_message(session, stays, &self.at, leads) {
                    return shared.admit(waiting, body);
                }
                let job = move |known: Result<(), Fault>| match known {
                    Ok(()) => {
                        if stays {
                            shared.node.cluster().known.is_here(session);
                        }
                        shared.admit(waiting, body);
                    }
                    Err(fault) => waiting.link.reply_fault(waiting.call, &fault),
                };
                self.shared.when_known(session, &self.at, bytes, Box::new(job));
            }
        }
    }
}

impl Methods {
    /// A neighbour says which node a session's messages go to.
    fn stuck(&self, link: &Link, client: Client, body: &[u8]) {
        let (node, session) = (&self.shared.node, client.session);
        let from = &self.at;
        match Stick::read(body) {
            Some(Stick { what: StickWhat::Prefer, target, node: end })
                if self.may_speak_for(link, session) =>
            {
                if let Ok(end) = NodeName::try_from(end)
                    && let Some(via) = node.sticky().prefer(session, target, end, from)
                {
                    let stick = Stick { what: StickWhat::Forget, target, node: "" };
                    node.tell(&via, STICK, &stick.write(), client);
                }
            }
            Some(stick @ Stick { what: StickWhat::Forget, .. }) if self.may_speak_for(link, session) => {
                if let Some(via) = node.sticky().forget_one(session, stick.target) {
                    node.tell(&via, STICK, &stick.write(), client);
                }
            }
            Some(Stick { what: StickWhat::Chosen, target, node: end }) => {
                if let Ok(end) = NodeName::try_from(end) {
                    let moved = node.sticky().chosen(session, target, &from.1, end);
                    node.tell_moved(client, target, moved);
                }
            }
            Some(_) => {}
            None => warn!(from = %from.1, "a malformed message about a session's node is ignored"),
        }
    }
}

impl Shared {
    /// Runs a client's message now, or queues it behind the session's running one.
    fn admit(self: Arc<Self>, waiting: Waiting, body: Bytes) {
        let (session, command) = (waiting.client.session, waiting.client.command);
        let Some(route) = self.dispatch.net(command) else {
            let text = format!("`{}` has no handler for command {command}", self.node.name());
            let fault = self.node.fault(Code::NoRoute, Executed::No, text);
            return waiting.link.reply_fault(waiting.call, &fault);
        };
        if route.concurrent {
            let mut handler = self.handler(route, &waiting, body);
            if let Poll::Ready(outcome) = poll_once(&mut handler) {
                return self.answer(&waiting, outcome);
            }
            let kept = self.clone();
            self.node.calls().spawn(async move {
                let outcome = until(waiting.deadline, handler).await;
                kept.answer(&waiting, outcome);
            });
            return;
        }
        match self.queues.admit(session, waiting, body) {
            Admitted::Run(waiting, body) => self.run(waiting, body),
            Admitted::Waits => {}
            Admitted::Overloaded(waiting) => {
                count(&self.node.counters().session_queue_full);
                let text = format!(
                    "too much of the session waits at `{}`: limits.session_queue_max",
                    self.node.name()
                );
                let fault = self.node.fault(Code::Overloaded, Executed::No, text);
                waiting.link.reply_fault(waiting.call, &fault);
            }
        }
    }

    /// Runs messages of one session until none waits; from the first handler that waits on, in a task.
    fn run(self: Arc<Self>, waiting: Waiting, body: Bytes) {
        let mut next = Some((waiting, body));
        while let Some((waiting, body)) = next {
            let session = waiting.client.session;
            if let Some(mut handler) = self.start(&waiting, body) {
                match poll_once(&mut handler) {
                    Poll::Ready(outcome) => self.answer(&waiting, outcome),
                    Poll::Pending => {
                        let node = self.node.clone();
                        drop(node.calls().spawn(self.run_on(waiting, handler)));
                        return;
                    }
                }
            }
            next = self.queues.next(session);
            if next.is_none() {
                self.session_idle(session);
            }
        }
    }

    async fn run_on(self: Arc<Self>, waiting: Waiting, handler: Guarded) {
        let session = waiting.client.session;
        let outcome = until(waiting.deadline, handler).await;
        self.answer(&waiting, outcome);
        while let Some((waiting, body)) = self.queues.next(session) {
            if let Some(handler) = self.start(&waiting, body) {
                let outcome = until(waiting.deadline, handler).await;
                self.answer(&waiting, outcome);
            }
        }
        self.session_idle(session);
    }

    /// The handler of a message whose turn has come; `None` when its time is over, or the link that it came
    /// on: its caller has been told so, and the session goes on elsewhere. It is not started then.
    fn start(&self, waiting: &Waiting, body: Bytes) -> Option<Guarded> {
        let expired = Instant::now() >= waiting.deadline || waiting.link.is_closed();
        match self.dispatch.net(waiting.client.command).filter(|_| !expired) {
            Some(route) => Some(self.handler(route, waiting, body)),
            None => {
                let fault = self.node.fault(Code::Timeout, Executed::No, "the deadline passed in the queue");
                waiting.link.reply_fault(waiting.call, &fault);
                None
            }
        }
    }

    fn handler(&self, route: &Route, waiting: &Waiting, body: Bytes) -> Guarded {
        let Waiting { client, link, deadline, .. } = waiting;
        let from = From::Node(link.peer().name.clone());
        if self.node.may_log_call() {
            info!(from = %link.peer().name, session = %client.session, "call command {}: {}", client.command, route.name);
        }
        let (node, client, deadline) = (self.node.clone(), Some(*client), *deadline);
        Guarded::new(route, Request { node, from, client, deadline, body: Some(body) })
    }

    fn answer(&self, waiting: &Waiting, outcome: Outcome) {
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

/// A call or a notify of another node, as it was read.
pub(crate) struct Message<'a> {
    pub(crate) link: &'a Link,
    pub(crate) head: &'a Head,
    pub(crate) body: &'a [u8],
    pub(crate) deadline: Instant,
    /// Who sent it, when that is not the peer.
    pub(crate) from: Option<NodeName>,
}

impl Message<'_> {
    fn session(&self) -> Option<String> {
        self.head.client.map(|client| client.session.to_string())
    }

    fn from(&self) -> From {
        let peer = &self.link.peer().name;
        match &self.from {
            Some(from) if from != peer => From::Far { node: from.clone(), by: peer.clone() },
            _ => From::Node(peer.clone()),
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

/// What is done with a handler's outcome.
pub(crate) trait Done: Send + 'static {
    fn done(self, node: &Node, outcome: Outcome);
}

pub(crate) struct Answer {
    pub(crate) link: Link,
    pub(crate) call: u32,
    pub(crate) method: &'static str,
}

impl Done for Answer {
    fn done(self, node: &Node, outcome: Outcome) {
        match outcome {
            // A call always has an answer; a handler without a value gives an empty one.
            Ok(body) => self.link.reply(self.call, &body.unwrap_or_default()),
            Err(error) => {
                log_error(self.method, &error);
                self.link.reply_fault(self.call, &error.into_fault(node.name()));
            }
        }
    }
}

pub(crate) struct LogOnly {
    pub(crate) method: &'static str,
}

impl Done for LogOnly {
    fn done(self, _: &Node, outcome: Outcome) {
        if let Err(error) = outcome {
            log_error(self.method, &error);
        }
    }
}

impl Service for Methods {
    fn call(&self, link: &Link, head: &Head, body: &[u8], now: Instant) {
        let node = &self.shared.node;
        if node.phase() == Phase::Stopping {
            let text = format!("`{}` is stopping", node.name());
            return link.reply_fault(head.call, &node.fault(Code::Stopping, Executed::No, text));
        }
        if let Some(client) = head.client.filter(|_| link.is_young()) {
            let first = node.neighbours(self.at.0.into()).turned(link, client.session);
            if first {
                // What waits for it goes before what this starts.
                node.look_at_parked_of(client.session);
            }
        }
        let number = usize::from(head.method);
        if self.reserved(number) == Some(TO) {
            return self.shared.asked(&Arrived { at: &self.at, link, head, body, now });
        }
        let Some(route) = self.routes.get(number) else {
            return self.client_message(link, head, body, now);
        };
        let deadline = now + Duration::from_millis(head.time_left_ms.into());
        let answer = Answer { link: link.clone(), call: head.call, method: route.name };
        self.shared.start_known(&self.at, route, Message { link, head, body, deadline, from: None }, answer);
    }

    fn notify(&self, link: &Link, head: &Head, body: &[u8], now: Instant) {
        let node = &self.shared.node;
        let number = usize::from(head.method);
        if let Some(route) = self.routes.get(number) {
            let deadline = now + node.config().limits.call_timeout;
            let done = LogOnly { method: route.name };
            let message = Message { link, head, body, deadline, from: None };
            return self.shared.start_known(&self.at, route, message, done);
        }
        let arrived = Arrived { at: &self.at, link, head, body, now };
        match (self.reserved(number), head.client) {
            (Some(SESSION_ENDED), Some(client)) if self.may_speak_for(link, client.session) => {
                node.session_ended(client.session);
            }
            (Some(REACH), None) => self.shared.reach_told(&arrived),
            (Some(TO), _) => self.shared.told(&arrived),
            (Some(STICK), Some(client)) => self.stuck(link, client, body),
            _ => {}
        }
    }

    fn begin(&self) {
        crate::session::local::gather();
    }

    fn settle(&self) {
        crate::session::local::write_gathered();
    }

    fn changed(&self, link: &Link, change: Change) {
        self.shared.node.link_changed(link, change);
        if change == Change::Switched {
            self.shared.leave_old_link(&self.at, link);
        }
    }
}
