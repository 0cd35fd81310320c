//! The move of a session to another node of a kind: its messages wait, requests under way end where they are, the new
//! node is told, and the old node is told.
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

use ffconfig::Target;
use ffproto::relay::{AFFINITY, AffinityNotice, AffinityWord, MoveEntry, MoveOrder, Op, Reachable};
use ffproto::{Fault, NodeName, NodeNumber, SessionId};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{info, warn};

use super::Sessions;
use crate::cluster::payload::encode;
use crate::identity::counters::count;
use crate::session::errors::MoveError;
use crate::session::local::LocalSession;
use crate::transit::envelope::about;

/// The wait before a node that could not be told is told again.
const AGAIN: Duration = Duration::from_millis(20);

/// Moving a session of this node.
impl Sessions {
    /// Begins to move a session, at most `limits.park_ms` later: the target may be out of reach for a moment, while a
    /// gate on the way is replaced or has ended.
    ///
    /// # Errors
    /// [`MoveError`]: everything stays as it was.
    pub(crate) async fn begin_move_soon(
        &self,
        session: &LocalSession,
        caller: NodeNumber,
        order: MoveOrder,
    ) -> Result<(), MoveError> {
        let latest = Instant::now() + self.identity().limits().park;
        let mut reached = self.transit().membership().reached();
        loop {
            let begun = self.begin_move(session, caller, order.clone());
            let Err(MoveError::NoNode(name)) = &begun else { return begun };
            let awaited = self.transit().awaited_until(name).filter(|_| Instant::now() < latest);
            let Some(until) = awaited else { return begun };
            let _ = timeout_at(until.min(latest), reached.changed()).await;
        }
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
        let membership = self.transit().membership();
        let target = membership.named(&order.node);
        let target = target.ok_or_else(|| MoveError::NoNode(order.node.clone()))?;
        let key = target_key(&target.kind);
        if !self.identity().config().route.rules().iter().any(|rule| *rule.to.key() == key) {
            return Err(MoveError::NotRouted(target.kind));
        }
        if session.is_ending() || session.is_gone() {
            return Err(MoveError::Gone);
        }
        if !session.begin_move() {
            return Err(MoveError::Moving);
        }
        let of_kind = |number: &NodeNumber| membership.get(*number).filter(|node| node.kind == target.kind);
        let watchers = session.watchers();
        let before = watchers.iter().filter_map(of_kind).filter(|node| node.number != target.number);
        let before: Vec<Reachable> = before.collect();
        let known = self.transit().affinity().end(session.id(), &key).filter(|name| *name != target.name);
        let from = known
            .or_else(|| of_kind(&caller).map(|node| node.name))
            .or_else(|| before.first().map(|node| node.name.clone()))
            .or_else(|| membership.name(caller))
            .unwrap_or_else(|| self.identity().name().clone());
        let entry = MoveEntry { from, extra: order.extra, number: session.next_move() };
        let before = before.into_iter().map(|node| node.number).collect();
        let (sessions, session) = (self.clone(), session.clone());
        drop(self.identity().tasks().calls().spawn(async move {
            if !sessions.carry_out(&session, &target, &entry, before).await {
                sessions.tell_not_moved(&session, caller, target.name, entry.extra).await;
            }
            session.end_move();
        }));
        Ok(())
    }

    /// Carries the move out; `before` has been handling the session's messages for the target's kind. False when the
    /// target is lost.
    async fn carry_out(
        &self,
        session: &LocalSession,
        target: &Reachable,
        entry: &MoveEntry,
        before: Vec<NodeNumber>,
    ) -> bool {
        session.quiet_or_gone().await;
        if session.is_gone() {
            return true;
        }
        let deadline = Instant::now() + self.identity().limits().call_timeout;
        if let Err(fault) = self.insist(session, target, &encode(entry), deadline).await {
            warn!(limited_by = "", session = %session.id(), to = %target.name, "not moved: {fault}");
            count(&self.identity().counters().moves_failed);
            // The target may have been told, and the answer lost.
            self.transit().tell_about(session.id(), target.number, Op::Left, target.kind.as_bytes());
            return false;
        }
        self.lead(session.id(), &target_key(&target.kind), target);
        if session.is_gone() {
            // The session ended meanwhile, and its choices were forgotten before this one.
            self.ended(session.id());
        }
        for old in before {
            self.transit().tell_about(session.id(), old, Op::Left, target.kind.as_bytes());
        }
        info!(limited_by = "", session = %session.id(), from = %entry.from, to = %target.name, "moved");
        true
    }

    /// Tells the app of the node that wanted it that a session has stayed, before the session goes on.
    async fn tell_not_moved(&self, session: &LocalSession, caller: NodeNumber, to: NodeName, extra: Vec<u8>) {
        if session.is_gone() {
            return;
        }
        let order = MoveOrder { node: to, extra };
        if caller == session.id().node() {
            return self.events().not_moved(session.id(), order).await;
        }
        if let Err(error) =
            self.transit().ask_about(session.id(), caller, Op::NotMoved, &encode(&order)).await
        {
            warn!(limited_by = "", session = %session.id(), "the app is not told that it was not moved: {error}");
        }
    }

    /// Asks a node until there is an answer, the node is gone, or the time is over.
    async fn insist(
        &self,
        session: &LocalSession,
        target: &Reachable,
        payload: &[u8],
        deadline: Instant,
    ) -> Result<(), Fault> {
        let (mut seen, mut reached) = (Instant::now(), self.transit().membership().reached());
        loop {
            let asked = self.transit().ask_about(session.id(), target.number, Op::Enter, payload).await;
            let fault = match asked {
                Ok(_) => return Ok(()),
                Err(error) => error.fault().clone(),
            };
            let now = Instant::now();
            if self.transit().membership().is_reached(target.number) {
                seen = now;
            }
            if now - seen >= self.identity().limits().park || now >= deadline || session.is_gone() {
                return Err(fault);
            }
            let _ = timeout(AGAIN, reached.changed()).await;
        }
    }

    /// Makes the target the node of the session's messages for that kind. Each node on the way is told so before the
    /// first of them ([`Transit::hop`](crate::transit::Transit::hop)).
    fn lead(&self, id: SessionId, key: &Arc<str>, target: &Reachable) {
        let went = self.transit().affinity().lead(id, key, target.name.clone());
        let next =
            self.transit().membership().neighbour_to(target.number, None, None, id.0).map(|at| at.name);
        if let Some(neighbour) = went.filter(|neighbour| Some(neighbour) != next.as_ref()) {
            let notice = AffinityNotice { what: AffinityWord::Forget, target: key, node: "" };
            self.transit().tell(&neighbour, AFFINITY, &notice.write(), about(id));
        }
    }
}

fn target_key(kind: &str) -> Arc<str> {
    Target::kind(kind).key().clone()
}
