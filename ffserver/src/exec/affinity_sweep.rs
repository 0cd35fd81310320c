//! The affinity sweep: once a second it finds sessions of this node whose node for a route is gone, and the app is
//! told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::app::hooks::{SessionEvent, SessionEventKind};
use crate::exec::events::tell_session;
use crate::exec::executor::Executor;
use crate::session::handle::Session;
use crate::transit::Transit;

/// Forgets the choices whose node has been out of reach for too long. Called once a second; every session has to be
/// looked at only when the cluster has changed.
pub(crate) fn forget_lost_nodes(transit: &Transit) {
    let (membership, affinity) = (transit.membership(), transit.affinity());
    let known = membership.changes();
    if affinity.looked_at.swap(known, Ordering::Relaxed) != known || affinity.misses() {
        let others: BTreeSet<_> = membership.names();
        affinity.forget_lost(|end| others.contains(end), |end| transit.may_be_reached_soon(end));
    }
}

/// Runs the app's hook for sessions that have lost a node. Runs as long as the node.
pub(crate) async fn tell_lost_nodes(executor: Arc<Executor>) {
    let affinity = executor.node.transit().affinity();
    loop {
        affinity.lost_one.notified().await;
        for (id, lost) in affinity.take_lost() {
            let sessions = executor.node.all_sessions();
            let (Some(_), Some(local)) = (executor.hooks.of(SessionEventKind::LostNode), sessions.local(id))
            else {
                continue;
            };
            // The pin keeps what the hook changes from getting lost with a session that leaves for a successor
            // meanwhile.
            let pin = local.pin();
            let (told, session) = (executor.clone(), Session::here(sessions.clone(), local));
            drop(executor.node.identity().tasks().calls().spawn(async move {
                tell_session(&told.hooks, &told.node, session, SessionEvent::LostNode(lost)).await;
                drop(pin);
            }));
        }
    }
}
