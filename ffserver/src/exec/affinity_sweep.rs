//! Sessions of this node whose node for a route is gone: they are found once a second, and the app is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::exec::dispatch::Shared;
use crate::exec::execution::run_hook;
use crate::session::handle::Session;

impl Shared {
    /// Forgets the choices whose node has been out of reach for too long. Called once a second; a look at
    /// every session is needed only when the cluster has changed.
    pub(crate) fn look_at_ends(&self) {
        let (node, sticky) = (&self.node, self.node.sticky());
        let known = node.cluster().changes();
        if sticky.looked_at.swap(known, Ordering::Relaxed) != known || sticky.misses() {
            let others: BTreeSet<_> = node.cluster().others().into_values().map(|other| other.name).collect();
            sticky.forget_lost(|end| others.contains(end), |end| node.may_be_reached_soon(end));
        }
    }

    /// Runs the app's hook for sessions that have lost a node. Runs as long as the node.
    pub(crate) async fn tell_lost_nodes(self: Arc<Self>) {
        loop {
            self.node.sticky().lost_one.notified().await;
            for (id, lost) in self.node.sticky().take_lost() {
                let (Some(hook), Some(session)) =
                    (&self.hooks.session_lost_node, self.node.local_session(id))
                else {
                    continue;
                };
                // What the hook changes is not lost with a session that leaves for a successor meanwhile.
                let stays = session.stay();
                let node = self.node.clone();
                let hook = hook(node.clone(), Session::here(node.clone(), session), lost);
                self.node.calls().spawn(async move {
                    run_hook(&node, "on_session_lost_node", hook).await;
                    drop(stays);
                });
            }
        }
    }
}
