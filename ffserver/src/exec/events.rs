//! The events of sessions, brought to the app: each hook in its turn, its panic caught, within the time of a call.

use std::sync::Arc;

use bytes::Bytes;
use ffproto::SessionId;
use ffproto::relay::MoveOrder;

use crate::app::hooks::{Hooks, NotMoved, SessionEvent, SessionEventKind};
use crate::exec::execution::run_hook;
use crate::node::{Node, WeakNode};
use crate::session::events::{Handled, SessionEvents};
use crate::session::handle::Session;

/// Runs the app's hook for an event of a session, if the app has one. The caller holds the session's turn.
pub(crate) async fn tell_session(hooks: &Hooks, node: &Node, session: Session, event: SessionEvent) {
    let kind = event.kind();
    if let Some(hook) = hooks.of(kind) {
        run_hook(node.identity(), kind.hook_name(), hook(node.clone(), session, event)).await;
    }
}

/// The listener to a node's sessions: it runs the app's hooks, and lets records go.
pub(crate) struct AppEvents {
    /// Weak, because the node owns its sessions, and they own this listener.
    node: WeakNode,
    hooks: Hooks,
}

impl AppEvents {
    pub(crate) fn new(node: WeakNode, hooks: Hooks) -> Arc<Self> {
        Arc::new(Self { node, hooks })
    }
}

impl SessionEvents for AppEvents {
    fn wants_verified(&self) -> bool {
        self.hooks.of(SessionEventKind::Verified).is_some()
    }

    fn verified(&self, session: SessionId) -> Handled {
        let (node, hooks) = (self.node.upgrade(), self.hooks.clone());
        Box::pin(async move {
            if let Some(node) = node.filter(|_| hooks.of(SessionEventKind::Verified).is_some()) {
                tell_verified(&hooks, &node, session).await;
            }
        })
    }

    fn not_moved(&self, session: SessionId, order: MoveOrder) -> Handled {
        let (node, hooks) = (self.node.upgrade(), self.hooks.clone());
        Box::pin(async move {
            if let Some(node) = node.filter(|_| hooks.of(SessionEventKind::NotMoved).is_some()) {
                tell_not_moved(&hooks, &node, session, order).await;
            }
        })
    }

    fn ended(&self, session: SessionId) {
        if let Some(node) = self.node.upgrade()
            && let Some(records) = node.records()
        {
            records.session_ended(session);
        }
    }
}

async fn tell_verified(hooks: &Hooks, node: &Node, id: SessionId) {
    let sessions = node.all_sessions();
    let (local, remote) = (sessions.local(id), sessions.remote().get(id));
    // The turn puts the hook behind the one at the session's opening, and before the one at its end.
    let _turn = match (&local, &remote) {
        (Some(local), _) => local.turn().lock().await,
        (None, Some(remote)) => remote.turn.lock().await,
        (None, None) => return,
    };
    let Some(session) = node.session(id) else { return };
    tell_session(hooks, node, session, SessionEvent::Verified).await;
}

async fn tell_not_moved(hooks: &Hooks, node: &Node, id: SessionId, order: MoveOrder) {
    let Some(local) = node.all_sessions().local(id) else { return };
    let _turn = local.turn().lock().await;
    let failed = NotMoved { to: order.node, extra: Bytes::from(order.extra) };
    let session = Session::here(node.all_sessions().clone(), local.clone());
    tell_session(hooks, node, session, SessionEvent::NotMoved(failed)).await;
}
