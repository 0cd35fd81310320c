//! The context of a hand-over: the parts of a running node that it needs. With [`super::questions`] the only file of
//! this room that asks the node for anything.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::task::Poll;

use ffnet::Link;
use ffnet::transport::tcp;
use ffproto::handover::{FromPredecessor, ProcessIdentity, Spoken};
use ffstore::record::Records;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::warn;

use super::http::{Front, Handoff, Retirement};
use super::questions::Questions;
use super::receiver_machine::{Abilities, ReceiverMachine};
use super::sender_machine::{Awaits, Facts, Terms};
use crate::app::hooks::{Frozen, Hooks};
use crate::cluster::affinity_delta::AffinityDelta;
use crate::error::HandlerError;
use crate::exec::execution::run_until;
use crate::gateway::acceptor::{Clients, Departure, LeavingConnection};
use crate::identity::lifecycle::Phase;
use crate::node::Node;
use crate::ops::session_requests::{PassedBack, answer_successor};
use crate::session::local::Directive;

/// The number of choices that travel together.
pub(super) const CHOICES_AT_ONCE: usize = 4096;
/// The number of sessions, records or users that travel together.
const RECORDS_AT_ONCE: usize = 1024;

/// The parts of a running node that are handed over.
pub(crate) struct HandoverContext {
    pub(crate) node: Node,
    pub(crate) hooks: Hooks,
    /// Whether the ports accept.
    pub(crate) ports: watch::Sender<bool>,
    /// The node's clients, when it has a netport.
    pub(crate) clients: Option<Clients>,
    /// The node's HTTP connections, when it has a webport.
    pub(crate) front: Option<Front>,
}

/// While this lives the end of the last call is an event.
struct EventfulCalls<'a>(&'a Node);

impl<'a> EventfulCalls<'a> {
    fn begin(node: &'a Node) -> Self {
        node.identity().tasks().calls().close();
        Self(node)
    }
}

impl Drop for EventfulCalls<'_> {
    fn drop(&mut self) {
        self.0.identity().tasks().calls().reopen();
    }
}

/// The predecessor's half: what is looked at.
impl HandoverContext {
    pub(super) fn terms(&self) -> Terms {
        let config = self.node.config();
        Terms {
            ours: who(&self.node),
            freezes: self.hooks.freeze.is_some(),
            has_clients: self.clients.is_some(),
            drains: self.clients.as_ref().is_some_and(|clients| clients.transport() != tcp::NAME),
            speaks: self.spoken(),
            park: config.limits.park,
            drain: config.drain,
            prove: config.limits.prove,
        }
    }

    /// What clients speak that not every release has.
    fn spoken(&self) -> Spoken {
        let registry = self.node.all_sessions().registry();
        let transport = self.clients.as_ref().map(Clients::transport).filter(|name| *name != tcp::NAME);
        Spoken {
            protocols: registry.spoken_protocols(),
            transport: transport.filter(|_| registry.has_traveller()).map(str::to_owned),
        }
    }

    /// The links to all neighbours.
    pub(super) fn links(&self) -> Vec<Link> {
        self.node.transit().links()
    }

    /// The state of the node now, as far as it matters to what is awaited; `awaited` are the links whose other ends are
    /// to answer a Pause, or to switch. Links and sessions are looked at only when nothing cheaper is left: with every
    /// client that leaves there is a look.
    pub(super) fn look(
        &self,
        awaits: Awaits,
        awaited: &[Link],
        leaving: Option<&Departure>,
        http_left: bool,
    ) -> Facts {
        match awaits {
            Awaits::Nothing | Awaits::Word | Awaits::Http => Facts::default(),
            Awaits::Rest => {
                Facts { answered: awaited.iter().all(Link::peer_is_paused), ..self.look_for_rest() }
            }
            Awaits::Switch => {
                Facts { switched: awaited.iter().all(Link::peer_has_switched), ..Facts::default() }
            }
            Awaits::Leave => {
                let clients_left = leaving.is_none_or(Departure::is_over);
                let no_sender = clients_left && http_left;
                let children_switched =
                    no_sender && self.node.transit().children().links().all(Link::peer_has_switched);
                let rest = if children_switched { self.look_for_rest() } else { Facts::default() };
                let switched = rest.quiet && self.node.transit().links().iter().all(Link::peer_has_switched);
                Facts { clients_left, http_left, children_switched, switched, ..rest }
            }
        }
    }

    /// Waits until every neighbour sends what is new elsewhere, and nothing of anybody runs or waits here. Cancel-safe.
    pub(crate) async fn at_rest(&self) {
        let _eventful = EventfulCalls::begin(&self.node);
        loop {
            let facts = self.look(Awaits::Leave, &[], None, true);
            if facts.quiet && facts.switched {
                return;
            }
            self.changed(Awaits::Leave, &facts).await;
        }
    }

    /// What runs here, or waits, for anybody.
    fn look_for_rest(&self) -> Facts {
        let handlers = self.node.identity().tasks().running_calls();
        let parked = self.node.transit().park().any();
        let answers_of = self.answers_of();
        let quiet = handlers == 0
            && !parked
            && answers_of.is_empty()
            && !self.node.all_sessions().registry().has_session_at_work();
        Facts { quiet, handlers, parked, answers_of, ..Facts::default() }
    }

    /// Waits until something may have changed of what [`HandoverContext::look`] has shown. Everything that is waited
    /// for has an event: nothing is looked at by the clock. The wait is for what was shown, not for what is there now: what
    /// has ended in between, on another thread, would wake nobody.
    pub(super) async fn changed(&self, awaits: Awaits, shown: &Facts) {
        let node = &self.node;
        // What runs matters only then, and it may run for a while.
        let rest = awaits == Awaits::Rest || shown.children_switched;
        let leave = awaits == Awaits::Leave;
        let links = if rest { node.transit().links() } else { Vec::new() };
        let busy: Vec<&Link> = links.iter().filter(|link| link.waiting_calls() > 0).collect();
        if busy.len() < shown.answers_of.len() {
            return;
        }
        tokio::select! {
            () = node.transit().turned().notified() => {}
            () = node.all_sessions().registry().rested().notified(), if rest => {}
            () = node.transit().park().emptied(), if shown.parked => {}
            () = node.identity().tasks().calls().wait(), if shown.handlers > 0 => {}
            () = one_is_idle(&busy), if !busy.is_empty() => {}
            () = clients_gone(self.clients.as_ref()), if leave && !shown.clients_left => {}
        }
    }

    fn answers_of(&self) -> Vec<String> {
        self.names(|link| link.waiting_calls() > 0)
    }

    fn names(&self, of: impl Fn(&Link) -> bool) -> Vec<String> {
        let links = self.node.transit().links();
        links.iter().filter(|link| of(link)).map(|link| link.peer().name.to_string()).collect()
    }

    /// The rest that is left here, for the operator.
    pub(super) fn what_is_left(&self, http_left: bool) -> String {
        let (sessions, handlers) = (self.node.sessions().len(), self.node.identity().tasks().running_calls());
        let unswitched = self.names(|link| !link.peer_has_switched()).join(", ");
        let left = [
            (sessions > 0).then(|| format!("{sessions} clients")),
            (!http_left).then(|| "HTTP connections".to_owned()),
            (handlers > 0).then(|| format!("{handlers} handlers")),
            self.node.transit().park().any().then(|| "messages that wait for other nodes".to_owned()),
            Some(format!("links that were not switched: [{unswitched}]")),
            Some(format!("answers of: [{}]", self.answers_of().join(", "))),
        ];
        left.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

/// The neighbours that still send new messages here, for the operator.
pub(super) fn unswitched(awaited: &[Link]) -> String {
    let late = awaited.iter().filter(|link| !link.peer_has_switched());
    let name = |link: &Link| format!("{} (start {})", link.peer().name, link.peer().incarnation);
    late.map(name).collect::<Vec<_>>().join(", ")
}

/// The predecessor's half: what is done.
impl HandoverContext {
    /// Begins: the end of the last call is an event from now on, until [`HandoverContext::go_on`].
    pub(super) fn begin(&self) {
        self.node.identity().tasks().calls().close();
    }

    /// Holds clients: they start nothing new.
    pub(super) fn hold_clients(&self) {
        self.node.all_sessions().registry().direct(Directive::Hold);
    }

    /// Runs the app's freeze hook until `deadline`.
    pub(super) async fn freeze(&self, deadline: Instant) -> Result<Option<Frozen>, HandlerError> {
        let Some((version, hook)) = &self.hooks.freeze else { return Ok(None) };
        let bytes = run_until(deadline, || hook(self.node.clone())).await?;
        Ok(Some(Frozen { version: *version, bytes }))
    }

    /// Gives the app its frozen state again. That may take as long as a call: callers have given up by then, and a node
    /// that waits for its app does not go on.
    pub(super) async fn thaw(&self, frozen: Frozen) {
        let deadline = Instant::now() + self.node.config().limits.call_timeout;
        if let Some(hook) = &self.hooks.thaw
            && let Err(e) = run_until(deadline, || hook(self.node.clone(), frozen)).await
        {
            warn!("the app's thaw hook failed in the old process: {}", e.log_text());
        }
    }

    /// The affinity, for the successor; `chosen` gets every choice from now on.
    pub(super) fn choices(&self, chosen: Arc<AffinityDelta>) -> Vec<FromPredecessor> {
        let all = self.node.transit().affinity().hand_over(chosen);
        all.chunks(CHOICES_AT_ONCE).map(|some| FromPredecessor::Choices(some.to_vec())).collect()
    }

    /// The replicas that are open here, and the records that are bound to sessions.
    pub(super) fn replicas_and_bindings(&self) -> Vec<FromPredecessor> {
        let replicas = self.node.all_sessions().remote().hand_over();
        let bindings = self.node.records().map(Records::bindings).unwrap_or_default();
        let replicas = replicas.chunks(RECORDS_AT_ONCE).map(|some| FromPredecessor::Replicas(some.to_vec()));
        replicas
            .chain(bindings.chunks(RECORDS_AT_ONCE).map(|some| FromPredecessor::Bindings(some.to_vec())))
            .collect()
    }

    /// The users of this node's sessions.
    pub(super) fn users(&self) -> Vec<FromPredecessor> {
        let all = self.node.all_sessions().users().hand_over();
        all.chunks(RECORDS_AT_ONCE).map(|some| FromPredecessor::Users(some.to_vec())).collect()
    }

    /// Closes the ports: clients that connect from now on wait for the successor.
    pub(super) fn close_ports(&self) {
        self.ports.send_replace(false);
    }

    /// Retires the HTTP connections: they wait for the successor from now on, each as soon as it is between two
    /// requests.
    pub(super) fn retire_http(&self) -> Option<Retirement> {
        let until = Instant::now() + self.node.config().drain;
        self.front.as_ref().map(|front| front.retire(until))
    }

    /// Retires the node: the successor serves.
    pub(super) fn mark_handed_over(&self) {
        self.node.identity().lifecycle().set_phase(Phase::HandedOver);
    }

    /// Begins the departure of clients, each when nothing runs for it; broadcasts go to those that have left, too.
    pub(super) fn begin_leaving(&self) -> Option<Departure> {
        self.node.all_sessions().handoff().begin();
        self.clients.as_ref().map(Clients::leave)
    }

    /// Answers the successor, which asks about a session that is, perhaps, still here.
    pub(super) fn answer(&self, to: &mpsc::Sender<FromPredecessor>, passed: &PassedBack) {
        answer_successor(self.node.all_sessions(), to, passed);
    }

    /// Sends a message for many to the clients that stay.
    pub(super) fn broadcast_to_staying(&self, payload: &[u8]) {
        self.node.all_sessions().broadcast_to_staying(payload);
    }

    /// The next broadcast for clients that have left. Cancel-safe.
    pub(super) async fn next_broadcast(&self) -> FromPredecessor {
        FromPredecessor::Broadcast(self.node.all_sessions().handoff().next().await)
    }

    /// The next broadcast for clients that have left, when there is one.
    pub(super) fn take_broadcast(&self) -> Option<FromPredecessor> {
        self.node.all_sessions().handoff().take().map(FromPredecessor::Broadcast)
    }

    /// Tells the neighbours that nothing new comes from here.
    pub(super) fn last_call(&self) {
        self.node.transit().links().iter().for_each(Link::last_call);
    }

    /// Takes a client back that could not be sent.
    pub(super) fn take_back_client(&self, one: LeavingConnection) {
        if let Some(clients) = &self.clients {
            clients.take_back(one);
        }
    }

    /// Goes on as before the hand-over; `travellers` are HTTP connections that have not gone.
    pub(super) fn go_on(&self, travellers: Vec<Handoff>) {
        if let Some(front) = &self.front {
            front.resume();
            for (stream, unread) in travellers {
                if let Err(e) = front.adopt(stream, unread) {
                    warn!(limited_by = "", "an HTTP connection is lost: {e}");
                }
            }
        }
        self.node.identity().tasks().calls().reopen();
        self.node.transit().affinity().keep();
        self.node.all_sessions().handoff().end();
        self.node.transit().links().iter().for_each(Link::resume);
        match &self.clients {
            Some(clients) => clients.stay(),
            None => self.node.all_sessions().registry().direct(Directive::Run),
        }
        self.node.identity().lifecycle().set_phase(Phase::Ready);
        self.ports.send_replace(true);
    }
}

/// The successor's half.
impl HandoverContext {
    /// Takes a message of the predecessor; the socket belongs to a client, or to an HTTP connection.
    pub(super) fn take(&self, said: FromPredecessor, socket: Option<OwnedFd>) {
        match (said, socket) {
            (FromPredecessor::Session(record), Some(socket)) => {
                let id = record.id;
                let taken = self.clients.as_ref().map(|clients| clients.adopt(socket, *record));
                if let Some(Err(error)) = taken {
                    warn!(limited_by = "", session = %id, "a client could not be taken over: {error}");
                }
            }
            (FromPredecessor::Http { unread }, Some(socket)) => {
                let taken = self.front.as_ref().map(|front| front.adopt(socket.into(), unread));
                if let Some(Err(error)) = taken {
                    warn!(limited_by = "", "an HTTP connection could not be taken over: {error}");
                }
            }
            (FromPredecessor::Stay(sessions), _) => {
                self.node.transit().hold().set_staying(sessions);
                self.node.all_sessions().kick_staying();
            }
            (FromPredecessor::Broadcast(payload), _) => self.node.all_sessions().broadcast_passed(&payload),
            (said, _) => take_knowledge(&self.node, said),
        }
    }

    /// Notes that nothing more comes from the predecessor.
    pub(super) fn all_arrived(&self) {
        self.node.all_sessions().all_arrived();
    }

    /// Forgets the records that are bound to sessions which have ended at the predecessor.
    pub(super) fn forget_ended(&self) {
        if let Some(records) = self.node.records() {
            records.retain_bindings(&|session| self.node.session(session).is_some());
        }
    }
}

/// A node whose ports are not open yet, as the successor of another process.
pub(super) struct Successor<'a> {
    pub(super) node: &'a Node,
    pub(super) hooks: &'a Hooks,
    /// The name of the transport of clients.
    pub(super) transport: &'static str,
}

impl Successor<'_> {
    /// The machine of the successor's half; the predecessor's state is to be here at `start_by`.
    pub(super) fn machine(&self, start_by: Instant) -> ReceiverMachine {
        let protocols = self.node.all_sessions().registry().protocols().names().collect();
        let (thaws, prove) = (self.hooks.thaw.is_some(), self.node.config().limits.prove);
        let abilities = Abilities { thaws, protocols, transport: self.transport, prove };
        ReceiverMachine::new(who(self.node), abilities, start_by, Instant::now())
    }

    /// Takes a message of the predecessor with a part of what it knows.
    pub(super) fn take(&self, said: FromPredecessor) {
        take_knowledge(self.node, said);
    }

    /// Gives the app the predecessor's frozen state, until `deadline`; the text of its error otherwise.
    pub(super) async fn thaw(&self, frozen: Frozen, deadline: Instant) -> Result<(), String> {
        // The machine has looked before whether there is a hook.
        let Some(hook) = &self.hooks.thaw else { return Ok(()) };
        run_until(deadline, || hook(self.node.clone(), frozen)).await.map_err(|e| e.log_text())
    }

    /// Makes this process the successor: everything is here. Questions are collected before the first link is there on
    /// which they may come.
    pub(super) fn succeed(&self) -> Questions {
        let questions = Questions::new(self.node);
        self.node.transit().hold().set_expecting(true);
        self.node.transit().membership().succeed();
        questions
    }
}

fn take_knowledge(node: &Node, said: FromPredecessor) {
    match said {
        FromPredecessor::Choices(all) => {
            all.into_iter().for_each(|choice| node.transit().affinity().take_over(choice))
        }
        FromPredecessor::Replicas(all) => {
            all.into_iter().for_each(|session| node.all_sessions().remote().take_over(session))
        }
        FromPredecessor::Users(all) => {
            all.into_iter().for_each(|claim| node.all_sessions().users().note_expected(claim))
        }
        FromPredecessor::Bindings(all) => {
            if let Some(records) = node.records() {
                records.bind_again(&all);
            }
        }
        _ => {}
    }
}

fn who(node: &Node) -> ProcessIdentity {
    let cluster = node.identity().cluster().to_string();
    let (name, versions) = (node.name().clone(), node.identity().versions());
    ProcessIdentity { cluster, name, incarnation: node.incarnation(), versions }
}

/// Waits until no call waits on one of these links.
async fn one_is_idle(links: &[&Link]) {
    poll_fn(|cx| {
        let mut idle = Poll::Pending;
        // Every link is to remember the waker.
        links.iter().filter(|link| link.poll_idle(cx).is_ready()).for_each(|_| idle = Poll::Ready(()));
        idle
    })
    .await;
}

async fn clients_gone(clients: Option<&Clients>) {
    match clients {
        Some(clients) => clients.gone().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests;
