//! The parent dialer: one task for each parent, that dials where the master says the parent is, and dials again for
//! ever.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ffambient::Chance;
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

use crate::cluster::side::{PeerKey, Side};
use crate::exec::tables::{Audience, HandlerTables};
use crate::identity::lifecycle::Phase;
use crate::ops::inbound::Inbound;
use crate::ops::link_service::LinkService;
use crate::runtime::in_process::InProcessNet;

/// Where a parent is up, as the master says; `None` while it is not.
pub(crate) type Whereabouts = Option<(SocketAddr, Incarnation)>;

/// A connection to a neighbour on the same host takes a millisecond, across hosts some more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The way in which a parent is found.
#[derive(Clone)]
pub(crate) enum ParentSource {
    /// Where the master says.
    Master(watch::Receiver<Whereabouts>),
    /// In this process.
    Memory(InProcessNet),
}

/// The keeper of one parent's link, with all that the link needs.
struct ParentLink {
    inbound: Arc<Inbound>,
    config: ffconfig::Parent,
    audience: Audience,
    /// Jitter, so that the children of one parent do not come back in step.
    chance: Chance,
}

/// A peer, and the tables whose methods the handshake has told it.
struct ToldPeer {
    peer: Peer,
    tables: Arc<HandlerTables>,
}

/// Keeps the link to one parent for as long as it is polled.
pub(crate) async fn keep(inbound: Arc<Inbound>, config: ffconfig::Parent, way: ParentSource) {
    let node = &inbound.executor.node;
    let Some(audience) = Audience::parent(node.config(), config.name.as_str()) else { return };
    let chance = node.identity().chance().stream(&format!("parent {}", config.name));
    let keeper = ParentLink { inbound, config, audience, chance };
    match way {
        ParentSource::Master(whereabouts) => keeper.keep_by_master(whereabouts).await,
        ParentSource::Memory(hub) => keeper.keep_in_memory(hub).await,
    }
}

impl ParentLink {
    async fn keep_by_master(self, mut whereabouts: watch::Receiver<Whereabouts>) {
        let keeper = Arc::new(self);
        // Beside the current link those of predecessors, until they end; all end with this future.
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
            // No link is wanted while the link of a predecessor lives that goes on because its successor has failed, and while
            // this process has a successor itself, unless it takes back.
            tokio::select! {
                biased;
                () = keeper.inbound.executor.node.transit().parent_wanted(&keeper.config.name, incarnation) => {}
                changed = whereabouts.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            let begun = Instant::now();
            match keeper.open(at, incarnation).await {
                Ok((stream, told)) => {
                    complained = false;
                    keeper.serve_by_master(stream, told, &mut whereabouts, &mut links).await;
                }
                Err(error) if !complained => {
                    // Once per outage: the next line about this parent is the one that says it is linked.
                    complained = true;
                    let (name, why) = (&keeper.config.name, fftelemetry::chain(&error));
                    warn!(parent = %name, %at, %incarnation, "parent not reached, trying on: {why}");
                }
                Err(_) => {}
            }
            let wait = backoff.next(keeper.chance.share(), begun.elapsed());
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
        told: ToldPeer,
        whereabouts: &mut watch::Receiver<Whereabouts>,
        links: &mut JoinSet<()>,
    ) {
        let linked = told.peer.incarnation;
        let (mut own, keeper) = (whereabouts.clone(), self.clone());
        let (end, ended) = oneshot::channel::<()>();
        links.spawn(async move {
            let gone = async move {
                // Gone is gone; a newer start alone is not: it may be this one's successor.
                let _ = own.wait_for(Option::is_none).await;
                "the master says that it is gone".to_owned()
            };
            keeper.serve(told, |link, methods| Driver::new(link, stream, methods).until(gone)).await;
            drop(end);
        });
        tokio::select! {
            _ = ended => {}
            _ = whereabouts.wait_for(|place| place.is_some_and(|(_, known)| known > linked)) => {}
        }
        while links.try_join_next().is_some() {}
    }

    async fn keep_in_memory(self, hub: InProcessNet) {
        let mut backoff =
            Backoff::new(Duration::from_millis(50), Duration::from_secs(2), Duration::from_secs(5));
        loop {
            let begun = Instant::now();
            let mut stream = hub.dial(&self.config.name).await;
            let (tables, local) = self.introduce();
            match dial(&mut stream, Purpose::Link, &local, &self.config.name).await {
                Ok(peer) => {
                    let told = ToldPeer { peer, tables };
                    self.serve(told, |link, methods| Driver::new(link, stream, methods)).await;
                }
                Err(error) => warn!(parent = %self.config.name, "parent not linked: {error}"),
            }
            tokio::time::sleep(backoff.next(self.chance.share(), begun.elapsed())).await;
        }
    }

    /// This node as it introduces itself now, with the tables whose methods it tells.
    fn introduce(&self) -> (Arc<HandlerTables>, Local) {
        let executor = &self.inbound.executor;
        let tables = executor.tables.get();
        let local = executor.node.identity().local(tables.names(self.audience));
        let local = Local { chance: self.chance.clone(), ..local };
        (tables, local)
    }

    /// Links to that start of the parent, or a later one: a predecessor may still accept what its successor
    /// shall have.
    async fn open(
        &self,
        at: SocketAddr,
        since: Incarnation,
    ) -> Result<(TcpStream, ToldPeer), HandshakeError> {
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, TcpStream::connect(at)).await;
        let mut stream = connected.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        let (tables, local) = self.introduce();
        let peer = dial_start(&mut stream, Purpose::Link, &local, &self.config.name, since).await?;
        Ok((stream, ToldPeer { peer, tables }))
    }

    /// Runs the link with the driver that is made for it until it ends.
    async fn serve<D: Future<Output = Closed>>(
        &self,
        ToldPeer { peer, tables }: ToldPeer,
        driver: impl FnOnce(Link, LinkService) -> D,
    ) {
        let executor = &self.inbound.executor;
        let (identity, transit) = (executor.node.identity(), executor.node.transit());
        let (name, incarnation) = (peer.name.clone(), peer.incarnation);
        let link = transit.new_link(peer);
        transit.link_up(Side::Parent, &link);
        transit.add_parent(link.clone());
        executor.tables.begin_link(&link, self.audience, &tables);
        drop(tables);
        info!(parent = %name, %incarnation, "parent linked");
        let at = PeerKey::new(Side::Parent, name.clone());
        let service = LinkService::new(self.inbound.clone(), at, self.audience);
        let why = driver(link.clone(), service).await;
        transit.link_down(Side::Parent, &link);
        executor.node.all_sessions().tell_claims();
        let lost = transit.remove_parent(&link);
        match why {
            Closed::Bye(_) => info!(parent = %name, %incarnation, "parent left: {why}"),
            _ if !lost || matches!(identity.lifecycle().phase(), Phase::Stopping | Phase::HandedOver) => {}
            _ => warn!(parent = %name, %incarnation, "parent lost: {why}"),
        }
    }
}
