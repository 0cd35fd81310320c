//! The hook that tells an app of the user of a session.

use std::sync::Arc;

use ffproto::SessionId;

use crate::app::app::SessionHook;
use crate::exec::execution::run_hook;
use crate::node::{Node, Verified};

/// The hook as the node calls it.
pub(crate) fn told(hook: SessionHook) -> Verified {
    Arc::new(move |node, id| Box::pin(run(hook.clone(), node, id)))
}

async fn run(hook: SessionHook, node: Node, id: SessionId) {
    let (local, remote) = (node.local_session(id), node.cluster().known.get(id));
    // Behind the hook at its opening, and before the one at its end.
    let _turn = match (&local, &remote) {
        (Some(local), _) => local.turn().lock().await,
        (None, Some(remote)) => remote.turn.lock().await,
        (None, None) => return,
    };
    let Some(session) = node.session(id) else { return };
    run_hook(&node, "on_session_verified", hook(node.clone(), session)).await;
}
