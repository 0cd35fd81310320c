//! Children: the acceptor on rootport, and one task per child's link.

use std::sync::Arc;

use ffnet::Link;
use ffnet::handshake::{Peer, accept};
use ffnet::link::{Closed, Driver};
use ffproto::handshake::Purpose;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::app::app::{ChildHook, Hooks};
use crate::cluster::affinity::Taken;
use crate::cluster::reachability::Direction;
use crate::exec::dispatch::{Methods, Shared, told_methods};
use crate::exec::execution::run_hook;
use crate::gateway::acceptor::{Open, accept_failed};
use crate::node::Phase;

pub(crate) struct Root {
    pub(crate) shared: Arc<Shared>,
    pub(crate) hooks: Hooks,
    /// The targets whose clients' messages children may send here.
    pub(crate) targets: Vec<String>,
    pub(crate) taken: Arc<[Taken]>,
    /// Every link of the node, so that a stop can wait for their last words.
    pub(crate) links: TaskTracker,
}

/// Accepts children while `open`, until `stop`; their links live on until they are closed.
pub(crate) async fn serve(listener: TcpListener, root: Arc<Root>, mut open: Open, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = open.accept(&listener) => match accepted {
                Ok((stream, _)) => take(stream, &root),
                Err(error) => accept_failed("rootport", &error).await,
            },
        }
    }
}

/// Accepts the children of this process until `stop`.
pub(crate) async fn serve_memory(
    mut arriving: mpsc::Receiver<DuplexStream>,
    root: Arc<Root>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            stream = arriving.recv() => match stream {
                Some(stream) => drop(root.links.spawn(child(stream, "this process".to_owned(), root.clone()))),
                None => return,
            },
        }
    }
}

fn take(stream: TcpStream, root: &Arc<Root>) {
    let address = stream.peer_addr().map_or_else(|e| e.to_string(), |a| a.to_string());
    let _ = stream.set_nodelay(true);
    root.links.spawn(child(stream, address, root.clone()));
}

async fn child<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, address: String, root: Arc<Root>) {
    let node = &root.shared.node;
    let routes = root.shared.dispatch.for_children();
    let local = node.local(told_methods(&routes, &root.targets));
    let admit = |hello: &ffproto::handshake::Hello| node.admit_child(&hello.name, hello.incarnation);
    let peer: Peer = match accept(&mut stream, Purpose::Link, &local, admit).await {
        Ok(peer) => peer,
        Err(error) => return warn!(%address, "no child: {}", fftelemetry::chain(&error)),
    };
    let link = node.new_link(peer);
    root.shared.link_up(Direction::Down, &link);
    if !node.add_child(link.clone()) {
        return root.shared.link_down(Direction::Down, &link);
    }
    let name = link.peer().name.clone();
    info!(child = %name, incarnation = %link.peer().incarnation, "child linked");
    tell(&root, "on_child_connected", root.hooks.child_connected.as_ref(), &link).await;
    let at = (Direction::Down, name.clone());
    let methods = Methods::new(root.shared.clone(), at, routes, root.taken.clone());
    let closed = Driver::new(link.clone(), stream, methods).await;
    root.shared.link_down(Direction::Down, &link);
    if node.remove_child(&link) {
        match closed {
            Closed::Bye(_) => info!(child = %name, "child left: {closed}"),
            _ if matches!(root.shared.node.phase(), Phase::Stopping | Phase::HandedOver) => {}
            _ => warn!(child = %name, "child lost: {closed}"),
        }
        // After a hand-over the child has not been lost: the successor has it.
        if node.phase() != Phase::HandedOver {
            tell(&root, "on_child_lost", root.hooks.child_lost.as_ref(), &link).await;
        }
    }
}

async fn tell(root: &Root, name: &str, hook: Option<&ChildHook>, link: &Link) {
    if let Some(hook) = hook {
        let hook = hook(root.shared.node.clone(), link.peer().name.clone());
        run_hook(&root.shared.node, name, hook).await;
    }
}
