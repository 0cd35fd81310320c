//! Parents: one task each, that dials where the master says the parent is, and dials again for ever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffnet::Link;
use ffnet::backoff::Backoff;
use ffnet::handshake::{HandshakeError, Local, Peer, dial};
use ffnet::link::Driver;
use ffproto::handshake::Purpose;
use ffproto::{Incarnation, NodeName};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::dispatch::{Dispatch, Methods, method_names};
use crate::handler::Route;
use crate::node::Node;

/// Where a parent is up, as the master says; `None` while it is not.
pub(crate) type Whereabouts = Option<(SocketAddr, Incarnation)>;

/// A connection to a neighbour on the same host takes a millisecond, across hosts some more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Keeps the link to one parent for as long as it is polled.
pub(crate) async fn keep(
    node: Node,
    dispatch: Dispatch,
    config: ffconfig::Parent,
    mut whereabouts: watch::Receiver<Whereabouts>,
) {
    let routes = dispatch.for_parent(&config);
    let local = node.local(method_names(&routes));
    let mut backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(2), Duration::from_secs(5));
    let mut complained = false;
    loop {
        let Some((at, incarnation)) = *whereabouts.borrow_and_update() else {
            if whereabouts.changed().await.is_err() {
                return;
            }
            continue;
        };
        let begun = Instant::now();
        match open(&local, at, &config.name).await {
            Ok((stream, peer)) => {
                complained = false;
                serve(&node, stream, peer, routes.clone(), &mut whereabouts).await;
            }
            Err(error) if !complained => {
                // Once per outage: the next line about this parent is the one that says it is linked.
                complained = true;
                let why = fftelemetry::chain(&error);
                warn!(parent = %config.name, %at, %incarnation, "parent not reached, trying on: {why}");
            }
            Err(_) => {}
        }
        let wait = backoff.next(random01(), begun.elapsed());
        // Word from the master cuts the wait short.
        let _ = tokio::time::timeout(wait, whereabouts.changed()).await;
        if whereabouts.has_changed().is_err() {
            return;
        }
    }
}

async fn open(local: &Local, at: SocketAddr, to: &NodeName) -> Result<(TcpStream, Peer), HandshakeError> {
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(at)).await;
    let mut stream = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
    stream.set_nodelay(true)?;
    let peer = dial(&mut stream, Purpose::Link, local, to).await?;
    Ok((stream, peer))
}

/// Runs the link until it ends, or until the master says that this start of the parent is gone.
async fn serve(
    node: &Node,
    stream: TcpStream,
    peer: Peer,
    routes: Arc<[Route]>,
    whereabouts: &mut watch::Receiver<Whereabouts>,
) {
    let (name, incarnation) = (peer.name.clone(), peer.incarnation);
    let link = Link::new(node.name().clone(), peer, node.link_limits());
    node.set_parent(&name, Some(link.clone()));
    info!(parent = %name, %incarnation, "parent linked");
    let driver = Driver::new(link, stream, Methods::new(node.clone(), routes));
    let gone = whereabouts.wait_for(|place| place.is_none_or(|(_, known)| known > incarnation));
    let why = tokio::select! {
        closed = driver => closed.to_string(),
        // Dropping the driver fails its calls at once, before a heartbeat would.
        _ = gone => "the master says that it is gone".to_owned(),
    };
    node.set_parent(&name, None);
    warn!(parent = %name, %incarnation, "parent lost: {why}");
}

/// Jitter, so that the children of one parent do not come back in step.
pub(crate) fn random01() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, and nothing else is lost.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
