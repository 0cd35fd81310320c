//! Children: the acceptor on rootport, and one task per child's link.

use std::sync::Arc;

use ffnet::Link;
use ffnet::handshake::{Peer, accept};
use ffnet::link::Driver;
use ffproto::handshake::Purpose;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::app::{ChildHook, Hooks};
use crate::dispatch::{Dispatch, Guarded, Methods, log_error, method_names};
use crate::net::accept_failed;
use crate::node::Node;

pub(crate) struct Shared {
    pub(crate) node: Node,
    pub(crate) dispatch: Dispatch,
    pub(crate) hooks: Hooks,
    /// Every link of the node, so that a stop can wait for their last words.
    pub(crate) links: TaskTracker,
}

/// Accepts children until `stop`; their links live on until they are closed.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => drop(shared.links.spawn(child(stream, shared.clone()))),
                Err(error) => accept_failed("rootport", &error).await,
            },
        }
    }
}

async fn child(mut stream: TcpStream, shared: Arc<Shared>) {
    let node = &shared.node;
    let routes = shared.dispatch.for_children();
    let local = node.local(method_names(&routes));
    let address = stream.peer_addr().map_or_else(|e| e.to_string(), |a| a.to_string());
    let _ = stream.set_nodelay(true);
    let admit = |hello: &ffproto::handshake::Hello| node.admit_child(&hello.name, hello.incarnation);
    let peer: Peer = match accept(&mut stream, Purpose::Link, &local, admit).await {
        Ok(peer) => peer,
        Err(error) => return warn!(%address, "no child: {}", fftelemetry::chain(&error)),
    };
    let link = Link::new(node.name().clone(), peer, node.link_limits());
    if !node.add_child(link.clone()) {
        return;
    }
    let name = link.peer().name.clone();
    info!(child = %name, incarnation = %link.peer().incarnation, "child linked");
    run_hook(&shared, shared.hooks.child_connected.as_ref(), &link).await;
    let closed = Driver::new(link.clone(), stream, Methods::new(node.clone(), routes)).await;
    if node.remove_child(&link) {
        warn!(child = %name, "child lost: {closed}");
        run_hook(&shared, shared.hooks.child_lost.as_ref(), &link).await;
    }
}

async fn run_hook(shared: &Shared, hook: Option<&ChildHook>, link: &Link) {
    let Some(hook) = hook else { return };
    let hook = hook(shared.node.clone(), link.peer().name.clone());
    let ended = Guarded::hook(async move {
        hook.await;
        Ok(None)
    });
    if let Err(error) = ended.await {
        log_error("child hook", &error);
    }
}
