//! Parents: one task each, that dials where the master says the parent is, and dials again for ever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffnet::Link;
use ffnet::backoff::Backoff;
use ffnet::handshake::{HandshakeError, Local, Peer, dial, dial_start};
use ffnet::link::{Closed, Driver};
use ffproto::Incarnation;
use ffproto::handshake::Purpose;
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::app::handler::Route;
use crate::cluster::affinity::{Taken, taken};
use crate::cluster::reachability::Direction;
use crate::exec::dispatch::{Methods, Shared, told_methods};
use crate::node::Phase;
use crate::runtime::in_process::Hub;
use crate::transit::park::Side;

/// Where a parent is up, as the master says; `None` while it is not.
pub(crate) type Whereabouts = Option<(SocketAddr, Incarnation)>;

/// A connection to a neighbour on the same host takes a millisecond, across hosts some more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How often a link of an old process that was kept is looked at: whether it still lives.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How a parent is found.
#[derive(Clone)]
pub(crate) enum Way {
    /// Where the master says.
    Master(watch::Receiver<Whereabouts>),
    /// In this process.
    Memory(Hub),
}

/// What one parent's link needs.
struct Keeper {
    shared: Arc<Shared>,
    config: ffconfig::Parent,
    routes: Arc<[Route]>,
    /// What the parent may send clients' messages for.
    taken: Arc<[Taken]>,
    local: Local,
}

/// Keeps the link to one parent for as long as it is polled.
pub(crate) async fn keep(shared: Arc<Shared>, config: ffconfig::Parent, way: Way) {
    let (node, dispatch) = (&shared.node, &shared.dispatch);
    let routes = dispatch.for_parent(&config);
    let taken = taken(node.places(), Side::Parent, dispatch.handles_clients());
    let (targets, taken): (Vec<_>, Vec<_>) = taken.into_iter().unzip();
    let local = node.local(told_methods(&routes, &targets));
    let keeper = Keeper { shared, config, routes, taken: taken.into(), local };
    match way {
        Way::Master(whereabouts) => keeper.keep_by_master(whereabouts).await,
        Way::Memory(hub) => keeper.keep_in_memory(hub).await,
    }
}

impl Keeper {
    async fn keep_by_master(self, mut whereabouts: watch::Receiver<Whereabouts>) {
        let keeper = Arc::new(self);
        // Beside the current link those of old processes, until they end; all end with this future.
        let mut links = JoinSet::new();
        let mut backoff =
            Backoff::new(Duration::from_millis(50), Duration::from_secs(2), Duration::from_secs(5));
        let mut complained = false;
        loop {
            let Some((at, incarnation)) = *whereabouts.borrow_and_update() else {
                if whereabouts.changed().await.is_err() {
                    return;
                }
                continue;
            };
            if keeper.shared.node.has_parent(&keeper.config.name, incarnation) {
                // A successor has failed, and the old process goes on: its link lives.
                let _ = tokio::time::timeout(LOOK_AGAIN, whereabouts.changed()).await;
                if whereabouts.has_changed().is_err() {
                    return;
                }
                continue;
            }
            let begun = Instant::now();
            match keeper.open(at, incarnation).await {
                Ok((stream, peer)) => {
                    complained = false;
                    keeper.serve_by_master(stream, peer, &mut whereabouts, &mut links).await;
                }
                Err(error) if !complained => {
                    // Once per outage: the next line about this parent is the one that says it is linked.
                    complained = true;
                    let (name, why) = (&keeper.config.name, fftelemetry::chain(&error));
                    warn!(parent = %name, %at, %incarnation, "parent not reached, trying on: {why}");
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

    /// Runs the link until it ends, or until the master says that this start of the parent is gone. When the
    /// master tells of a successor, the link goes on beside the next one until the parent ends it.
    async fn serve_by_master(
        self: &Arc<Self>,
        stream: TcpStream,
        peer: Peer,
        whereabouts: &mut watch::Receiver<Whereabouts>,
        links: &mut JoinSet<()>,
    ) {
        let told = peer.incarnation;
        let (mut own, keeper) = (whereabouts.clone(), self.clone());
        let (end, ended) = oneshot::channel::<()>();
        links.spawn(async move {
            let gone = async move {
                // Gone is gone; a newer start alone is not: it may be this one's successor.
                let _ = own.wait_for(Option::is_none).await;
                "the master says that it is gone".to_owned()
            };
            keeper.serve(peer, |link, methods| Driver::new(link, stream, methods).until(gone)).await;
            drop(end);
        });
        tokio::select! {
            _ = ended => {}
            _ = whereabouts.wait_for(|place| place.is_some_and(|(_, known)| known > told)) => {}
        }
        while links.try_join_next().is_some() {}
    }

    async fn keep_in_memory(self, hub: Hub) {
        let mut backoff =
            Backoff::new(Duration::from_millis(50), Duration::from_secs(2), Duration::from_secs(5));
        loop {
            let begun = Instant::now();
            let mut stream = hub.dial(&self.config.name).await;
            match dial(&mut stream, Purpose::Link, &self.local, &self.config.name).await {
                Ok(peer) => self.serve(peer, |link, methods| Driver::new(link, stream, methods)).await,
                Err(error) => warn!(parent = %self.config.name, "parent not linked: {error}"),
            }
            tokio::time::sleep(backoff.next(random01(), begun.elapsed())).await;
        }
    }

    /// Links to that start of the parent, or a later one: an old process may still accept what its successor
    /// shall have.
    async fn open(&self, at: SocketAddr, since: Incarnation) -> Result<(TcpStream, Peer), HandshakeError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(at)).await;
        let mut stream = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        let peer = dial_start(&mut stream, Purpose::Link, &self.local, &self.config.name, since).await?;
        Ok((stream, peer))
    }

    /// Runs the link with the driver that is made for it until it ends.
    async fn serve<D: Future<Output = Closed>>(&self, peer: Peer, driver: impl FnOnce(Link, Methods) -> D) {
        let node = &self.shared.node;
        let (name, incarnation) = (peer.name.clone(), peer.incarnation);
        let link = node.new_link(peer);
        self.shared.link_up(Direction::Up, &link);
        node.add_parent(link.clone());
        info!(parent = %name, %incarnation, "parent linked");
        let at = (Direction::Up, name.clone());
        let methods = Methods::new(self.shared.clone(), at, self.routes.clone(), self.taken.clone());
        let why = driver(link.clone(), methods).await;
        self.shared.link_down(Direction::Up, &link);
        let lost = node.remove_parent(&link);
        match why {
            Closed::Bye(_) => info!(parent = %name, %incarnation, "parent left: {why}"),
            _ if !lost || matches!(node.phase(), Phase::Stopping | Phase::HandedOver) => {}
            _ => warn!(parent = %name, %incarnation, "parent lost: {why}"),
        }
    }
}

/// Jitter, so that the children of one parent do not come back in step.
pub(crate) fn random01() -> f64 {
    let mut bytes = [0; 4];
    // Without randomness there is no jitter, and nothing else is lost.
    let _ = getrandom::fill(&mut bytes);
    f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
}
