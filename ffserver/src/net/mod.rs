//! Game clients: the acceptor, and one task per connection. The only place, with `ffproto::frame`, that
//! knows client framings.

mod connection;
mod spoken;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::app::Hooks;
use crate::counters::count;
use crate::dispatch::{Dispatch, Guarded, log_error};
use crate::node::Node;
use crate::session::Session;
use connection::Connection;

/// What every connection of a node shares.
pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) dispatch: Dispatch,
    pub(crate) hooks: Hooks,
}

/// Accepts clients until `stop`, then tells every connection to drain and waits until they have.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    let connections = TaskTracker::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => open(stream, &shared, &connections),
                Err(error) => accept_failed("netport", &error).await,
            },
        }
    }
    drop(listener);
    shared.node.sessions().iter().for_each(Session::drain);
    connections.close();
    connections.wait().await;
}

/// Out of descriptors, or a client that left while it waited: neither ends the acceptor, and the wait
/// keeps the first from turning into a busy loop.
pub(crate) async fn accept_failed(port: &str, error: &io::Error) {
    warn!("{port}: a connection could not be accepted: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}

fn open(stream: TcpStream, shared: &Arc<Shared>, connections: &TaskTracker) {
    // Coalescing is ours (one write per turn), so the kernel's would only add delay.
    let _ = stream.set_nodelay(true);
    let Ok(address) = stream.peer_addr() else { return };
    let session = match shared.node.open_session(address) {
        Ok(session) => session,
        Err(why) => {
            count(&shared.node.counters().clients_refused);
            if shared.node.may_log_call() {
                warn!(%address, "client refused: {why}");
            }
            return;
        }
    };
    info!(session = %session.id(), %address, "client logged in");
    let shared = shared.clone();
    connections.spawn(async move {
        let mut connection = Connection::new(stream, session.clone(), shared.clone());
        let closed = (&mut connection).await;
        shared.node.end_session(&session);
        connection.say_why(&closed).await;
        drop(connection);
        if let Some(hook) = &shared.hooks.session_closed {
            let hook = hook(shared.node.clone(), session.clone());
            let ended = Guarded::hook(async move {
                hook.await;
                Ok(None)
            });
            ended.await.unwrap_or_else(|e| {
                log_error("on_session_closed", &e);
                None
            });
        }
        info!(session = %session.id(), "client logged out: {closed}");
    });
}
