//! The hook that tells an app of the user of a session.

use std::sync::Arc;

use ffproto::SessionId;
use tokio::time::Instant;

use crate::app::SessionHook;
use crate::dispatch::{Guarded, log_error, until};
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
    let hook = hook(node.clone(), session);
    let ended = Guarded::hook(async move {
        hook.await;
        Ok(None)
    });
    if let Err(error) = until(Instant::now() + node.session_timeout(), ended).await {
        log_error("on_session_verified", &error);
    }
}
