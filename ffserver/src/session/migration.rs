//! A session moves to another node of a kind: its messages wait, those under way end where they are, the new node is
//! told, and the old node is told.
//!
//! ```text
//! handler ──Move──▶ net node: is the target there?  yes: what comes from the client waits from now on
//!                   … what runs for the session has ended …
//!                   ──Enter──▶ target: `on_session_entered`            fails: everything stays as it was
//!                   ──Left───▶ the old node: `on_session_left`
//!                   what has waited goes on
//! ```

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use ffconfig::Target;
use ffproto::link::Client;
use ffproto::relay::{Entry, MoveOrder, Op, Reachable, STICK, Stick, StickWhat};
use ffproto::{CommandId, Executed, Fault, NodeName, NodeNumber, SessionId};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use crate::app::app::{Entered, NotMoved, NotMovedHook};
use crate::cluster::membership::encode;
use crate::exec::dispatch::Shared;
use crate::exec::execution::run_hook;
use crate::identity::counters::count;
use crate::node::{self, Node};
use crate::ops::envelopes::Arrived;
use crate::session::handle::{MoveError, Session};
use crate::session::local::LocalSession;

/// How often it is looked whether what runs for a session has ended.
const LOOK_EVERY: Duration = Duration::from_millis(1);
/// How long is waited before a node that could not be told is told again.
const AGAIN: Duration = Duration::from_millis(20);

/// Moving a session of this node.
impl Node {
    /// Begins to move a session, at most `limits.park_ms` later: a node may be out of reach for a moment, while a gate on
    /// the way is replaced or has ended.
    ///
    /// # Errors
    /// [`MoveError`]: everything stays as it was.
    pub(crate) async fn begin_move_soon(
        &self,
        session: &LocalSession,
        caller: NodeNumber,
        order: MoveOrder,
    ) -> Result<(), MoveError> {
        let until = Instant::now() + self.config().limits.park;
        loop {
            match self.begin_move(session, caller, order.clone()) {
                Err(MoveError::NoNode(name)) if Instant::now() < until && self.may_be_reached_soon(&name) => {
                }
                begun => return begun,
            }
            sleep(AGAIN).await;
        }
    }

    /// Whether a node that is not reached now was within `limits.park_ms`, or this process has not looked for so long.
    pub(crate) fn may_be_reached_soon(&self, name: &NodeName) -> bool {
        let park = self.config().limits.park;
        self.cluster().has_left(Instant::now(), park, |left, _| left == name)
    }

    /// Begins to move a session; `caller` is the node whose handler wants it.
    ///
    /// # Errors
    /// [`MoveError`]: everything stays as it was.
    pub(crate) fn begin_move(
        &self,
        session: &LocalSession,
        caller: NodeNumber,
        order: MoveOrder,
    ) -> Result<(), MoveError> {
        let others = self.cluster().others();
        let target = others.values().find(|node| node.name == order.node).cloned();
        let target = target.ok_or_else(|| MoveError::NoNode(order.node.clone()))?;
        let key = target_key(&target.kind);
        if !self.config().route.rules().iter().any(|rule| *rule.to.key() == key) {
            return Err(MoveError::NotRouted(target.kind));
        }
        if session.is_ending() || session.is_gone() {
            return Err(MoveError::Gone);
        }
        if !session.begin_move() {
            return Err(MoveError::Moving);
        }
        let of_kind = |number: &NodeNumber| others.get(number).filter(|node| node.kind == target.kind);
        let watchers = session.watchers();
        let before = watchers.iter().filter_map(of_kind).filter(|node| node.number != target.number);
        let before: Vec<&Reachable> = before.collect();
        let known = self.sticky().end(session.id(), &key).filter(|name| *name != target.name);
        let from = known
            .or_else(|| of_kind(&caller).map(|node| node.name.clone()))
            .or_else(|| before.first().map(|node| node.name.clone()))
            .or_else(|| others.get(&caller).map(|node| node.name.clone()))
            .unwrap_or_else(|| self.name().clone());
        let entry = Entry { from, extra: order.extra, number: session.next_move() };
        let before = before.into_iter().map(|node| node.number).collect();
        let (node, session) = (self.clone(), session.clone());
        drop(self.calls().spawn(async move {
            if !node.carry_out(&session, &target, &entry, before).await {
                node.tell_not_moved(&session, caller, target.name, entry.extra).await;
            }
            session.end_move();
        }));
        Ok(())
    }

    /// `before` has been handling the session's messages for the target's kind. False when the target is lost.
    async fn carry_out(
        &self,
        session: &LocalSession,
        target: &Reachable,
        entry: &Entry,
        before: Vec<NodeNumber>,
    ) -> bool {
        while session.has_requests() {
            if session.is_gone() {
                return true;
            }
            sleep(LOOK_EVERY).await;
        }
        let deadline = Instant::now() + self.session_timeout();
        if let Err(fault) = self.insist(session, target, &encode(entry), deadline).await {
            warn!(session = %session.id(), to = %target.name, "not moved: {fault}");
            count(&self.counters().moves_failed);
            // It may have been told, and the answer lost.
            self.tell_about(session.id(), target.number, Op::Left, target.kind.as_bytes());
            return false;
        }
        self.lead(session.id(), &target_key(&target.kind), target);
        if session.is_gone() {
            // It ended meanwhile, and what it had chosen was forgotten before this.
            self.session_ended(session.id());
        }
        for old in before {
            self.tell_about(session.id(), old, Op::Left, target.kind.as_bytes());
        }
        info!(session = %session.id(), from = %entry.from, to = %target.name, "moved");
        true
    }

    /// Tells the app of the node that wanted it that a session has stayed, before the session goes on.
    async fn tell_not_moved(&self, session: &LocalSession, caller: NodeNumber, to: NodeName, extra: Vec<u8>) {
        if session.is_gone() {
            return;
        }
        let order = MoveOrder { node: to, extra };
        if caller == session.id().node() {
            return self.tell_not_moved_here(session.id(), order).await;
        }
        if let Err(error) = self.ask_about(session.id(), caller, Op::NotMoved, &encode(&order)).await {
            warn!(session = %session.id(), "the app is not told that it was not moved: {error}");
        }
    }

    /// Asks until there is an answer, the target is gone, or the time is over.
    async fn insist(
        &self,
        session: &LocalSession,
        target: &Reachable,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<(), Fault> {
        let mut seen = Instant::now();
        loop {
            let asked = self.ask_about(session.id(), target.number, Op::Enter, payload).await;
            let fault = match asked {
                Ok(_) => return Ok(()),
                Err(error) => error.fault().clone(),
            };
            let now = Instant::now();
            let others = self.cluster().others();
            if others.contains_key(&target.number) {
                seen = now;
            }
            if now - seen >= self.config().limits.park || now >= deadline || session.is_gone() {
                return Err(fault);
            }
            sleep(AGAIN).await;
        }
    }

    /// The session's messages for that kind go to the target from now on. Whoever is on the way is told so before the
    /// first of them ([`Node::hop`]).
    fn lead(&self, id: SessionId, key: &Arc<str>, target: &Reachable) {
        let went = self.sticky().lead(id, key, target.name.clone());
        let next = self.cluster().way(target.number, None, None, id.0).map(|(_, name)| name);
        if let Some(via) = went.filter(|via| Some(via) != next.as_ref()) {
            let client = Client { session: id, command: CommandId(0), stateless: false };
            let stick = Stick { what: StickWhat::Forget, target: key, node: "" };
            self.tell(&via, STICK, &stick.write(), client);
        }
    }
}

fn target_key(kind: &str) -> Arc<str> {
    Target::kind(kind).key().clone()
}

/// The hook of an app as its node calls it for its own sessions.
pub(crate) fn told(hook: NotMovedHook) -> node::NotMoved {
    Arc::new(move |node, id, order| Box::pin(run_not_moved(hook.clone(), node, id, order)))
}

async fn run_not_moved(hook: NotMovedHook, node: Node, id: SessionId, order: MoveOrder) {
    let Some(local) = node.local_session(id) else { return };
    let _turn = local.turn().lock().await;
    let failed = NotMoved { to: order.node, extra: Bytes::from(order.extra) };
    let session = Session::here(node.clone(), local.clone());
    run_hook(&node, "on_session_not_moved", hook(node.clone(), session, failed)).await;
}

/// What the others do.
impl Shared {
    /// A session is here from now on.
    pub(crate) fn enter(self: &Arc<Self>, arrived: &Arrived<'_>, id: SessionId, entry: Entry) {
        let (shared, link, call) = (self.clone(), arrived.link.clone(), arrived.head.call);
        let job = move |known: Result<(), Fault>| {
            if let Err(fault) = known {
                return link.reply_fault(call, &Fault { executed: Executed::No, ..fault });
            }
            let node = shared.node.clone();
            drop(node.calls().spawn(async move {
                shared.run_entered(id, entry).await;
                link.reply(call, &[]);
            }));
        };
        self.when_known(id, arrived.at, arrived.body.len(), Box::new(job));
    }

    /// A session has stayed that this node wanted to move.
    pub(crate) fn not_moved(self: &Arc<Self>, arrived: &Arrived<'_>, id: SessionId, order: MoveOrder) {
        let (shared, link, call) = (self.clone(), arrived.link.clone(), arrived.head.call);
        drop(self.node.calls().spawn(async move {
            let remote = shared.node.cluster().known.get(id);
            if let (Some(remote), Some(hook)) = (remote, &shared.hooks.session_not_moved) {
                let _turn = remote.turn.lock().await;
                let failed = NotMoved { to: order.node, extra: Bytes::from(order.extra) };
                let session = Session::there(shared.node.clone(), remote.clone());
                run_hook(&shared.node, "on_session_not_moved", hook(shared.node.clone(), session, failed))
                    .await;
            }
            link.reply(call, &[]);
        }));
    }

    async fn run_entered(&self, id: SessionId, entry: Entry) {
        let Some(remote) = self.node.cluster().known.get(id) else { return };
        let _turn = remote.turn.lock().await;
        // Asked again when the answer was lost: the app is told once.
        if !remote.enters(entry.number) {
            return;
        }
        let Some(hook) = &self.hooks.session_entered else { return };
        let entered = Entered { from: entry.from, extra: Bytes::from(entry.extra) };
        let hook = hook(self.node.clone(), Session::there(self.node.clone(), remote.clone()), entered);
        run_hook(&self.node, "on_session_entered", hook).await;
    }

    /// A session is here no longer.
    pub(crate) fn leave(self: &Arc<Self>, id: SessionId) {
        let Some(remote) = self.node.cluster().known.get(id).filter(|remote| remote.leaves()) else { return };
        let Some(hook) = self.hooks.session_left.clone() else { return };
        let shared = self.clone();
        drop(self.node.calls().spawn(async move {
            let _turn = remote.turn.lock().await;
            let session = Session::there(shared.node.clone(), remote.clone());
            run_hook(&shared.node, "on_session_left", hook(shared.node.clone(), session)).await;
        }));
    }
}
