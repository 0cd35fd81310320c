//! The parent dialer: one task for each parent, that dials where discovery says the parent is, and dials again for as
//! long as it is said.

use std::sync::Arc;
use std::time::Duration;

use ffambient::Chance;
use ffnet::Link;
use ffnet::backoff::Backoff;
use ffnet::channel::{self, Channel};
use ffnet::handshake::{HandshakeError, Local, Peer, dial_start};
use ffnet::link::{Closed, Driver};
use ffproto::Incarnation;
use ffproto::handshake::Purpose;
use fftelemetry::tagged;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::cluster::found::LinkAddress;
use crate::cluster::side::{PeerKey, Side};
use crate::exec::tables::{Audience, HandlerTables};
use crate::identity::lifecycle::Phase;
use crate::ops::inbound::Inbound;
use crate::ops::link_service::LinkService;
use crate::runtime::in_process::InProcessNet;

/// What discovery says of a parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Whereabouts {
    /// Nothing, or nothing any more: no new link is made, and a link that lives ends in good order.
    Unknown,
    /// An incarnation of the parent listens there.
    At(LinkAddress, Incarnation),
    /// The parent's process has ended, and so do its links.
    Ended,
}

/// A connection to a neighbour on the same host takes a millisecond, across hosts some more.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The keeper of one parent's link, with all that the link needs.
struct ParentLink {
    inbound: Arc<Inbound>,
    config: ffconfig::Parent,
    audience: Audience,
    /// Where parents listen that this process hosts, if it hosts any.
    net: Option<InProcessNet>,
    /// Jitter, so that the children of one parent do not come back in step.
    chance: Chance,
}

/// A peer, where it was reached, and the tables whose methods the handshake has told it.
struct ToldPeer {
    peer: Peer,
    at: LinkAddress,
    tables: Arc<HandlerTables>,
}

/// A connection to a parent.
enum Connection {
    Tcp(TcpStream),
    InProcess(DuplexStream),
}

/// Keeps the link to one parent for as long as the sender of its whereabouts lives, and then until its links have ended.
pub(crate) async fn keep(
    inbound: Arc<Inbound>,
    config: ffconfig::Parent,
    net: Option<InProcessNet>,
    whereabouts: watch::Receiver<Whereabouts>,
) {
    let node = inbound.executor.node.config();
    let Some(audience) = Audience::parent(node, config.name.as_str(), &config.key) else { return };
    let chance = inbound.executor.node.identity().chance().stream(&format!("parent {}", config.name));
    let keeper = ParentLink { inbound, config, audience, net, chance };
    // Beside the current link those of predecessors, until they end; all end with this future.
    let mut links = JoinSet::new();
    Arc::new(keeper).keep(whereabouts, &mut links).await;
    while links.join_next().await.is_some() {}
}

impl ParentLink {
    /// Returns when the sender of the whereabouts is gone.
    async fn keep(self: Arc<Self>, mut whereabouts: watch::Receiver<Whereabouts>, links: &mut JoinSet<()>) {
        let mut backoff =
            Backoff::new(Duration::from_millis(50), Duration::from_secs(2), Duration::from_secs(5));
        let mut complained = false;
        loop {
            let Whereabouts::At(at, incarnation) = *whereabouts.borrow_and_update() else {
                if whereabouts.changed().await.is_err() {
                    return;
                }
                continue;
            };
            // No link is wanted while the link of a predecessor lives that goes on because its successor has failed, and while
            // this process has a successor itself, unless it takes back.
            tokio::select! {
                biased;
                () = self.inbound.executor.node.transit().parent_wanted(&self.config.name, incarnation) => {}
                changed = whereabouts.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            }
            let begun = Instant::now();
            match self.connect(at, incarnation, &mut whereabouts, links).await {
                Ok(()) => complained = false,
                Err(error) if !complained => {
                    // Once per outage: the next line about this parent is the one that says it is linked.
                    complained = true;
                    let (name, why) = (&self.config.name, fftelemetry::chain(&error));
                    warn!(parent = %name, %at, %incarnation, "parent not reached, trying on: {why}");
                }
                Err(_) => {}
            }
            let wait = backoff.next(self.chance.share(), begun.elapsed());
            // Word from discovery cuts the wait short.
            let _ = tokio::time::timeout(wait, whereabouts.changed()).await;
            if whereabouts.has_changed().is_err() {
                return;
            }
        }
    }

    /// Links to that start of the parent, or a later one: a predecessor may still accept what its successor shall have. Serves
    /// the link.
    async fn connect(
        self: &Arc<Self>,
        at: LinkAddress,
        incarnation: Incarnation,
        whereabouts: &mut watch::Receiver<Whereabouts>,
        links: &mut JoinSet<()>,
    ) -> Result<(), HandshakeError> {
        match self.open(at, incarnation).await? {
            Connection::Tcp(stream) => {
                let (tables, local) = self.introduce()?;
                let (to, encrypt) = (&self.config.name, self.inbound.executor.node.identity().encrypt());
                let opened = channel::dial(stream, encrypt, Purpose::Link, local, to, incarnation);
                let (channel, peer) = opened.await?;
                let told = ToldPeer { peer, at, tables };
                // What carries the load is looked at once, and not in each read and write.
                match channel {
                    Channel::Plain(stream) => self.link(stream, told, whereabouts, links).await,
                    Channel::Sealed(stream) => self.link(stream, told, whereabouts, links).await,
                }
            }
            Connection::InProcess(mut stream) => {
                let (tables, local) = self.introduce()?;
                let to = &self.config.name;
                let peer = dial_start(&mut stream, Purpose::Link, &local, to, incarnation).await?;
                let told = ToldPeer { peer, at: LinkAddress::InProcess, tables };
                self.link(stream, told, whereabouts, links).await;
            }
        }
        Ok(())
    }

    /// Connects to that start of the parent: in memory when this process hosts it, wherever else it is said to listen.
    async fn open(&self, at: LinkAddress, incarnation: Incarnation) -> Result<Connection, HandshakeError> {
        let name = &self.config.name;
        let opened = async {
            match (at, &self.net) {
                (LinkAddress::Tcp(at), net) => {
                    if let Some(net) = net
                        && let Some(stream) = net.dial_if_here(name, incarnation).await
                    {
                        return Ok(Connection::InProcess(stream));
                    }
                    let stream = TcpStream::connect(at).await?;
                    stream.set_nodelay(true)?;
                    Ok(Connection::Tcp(stream))
                }
                (LinkAddress::InProcess, Some(net)) => {
                    let child = self.inbound.executor.node.name();
                    Ok(Connection::InProcess(net.dial(child, name, incarnation).await))
                }
                (LinkAddress::InProcess, None) => {
                    let why = "it is shown in this process, which has no InProcessNet";
                    Err(std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, why))
                }
            }
        };
        let opened = tokio::time::timeout(CONNECT_TIMEOUT, opened).await;
        Ok(opened.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))?)
    }

    /// Runs a link until it ends, or until discovery says that this start of the parent has ended. When it shows a successor,
    /// the link goes on beside the next one until the parent ends it.
    async fn link<S>(
        self: &Arc<Self>,
        stream: S,
        told: ToldPeer,
        whereabouts: &mut watch::Receiver<Whereabouts>,
        links: &mut JoinSet<()>,
    ) where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let linked = told.peer.incarnation;
        let (mut own, keeper) = (whereabouts.clone(), self.clone());
        let (end, ended) = oneshot::channel::<()>();
        links.spawn(tagged(async move {
            let gone = async move {
                // Gone is gone; a newer start alone is not: it may be this one's successor. Nor is what discovery does not
                // say any more: such a link ends when nothing is left on it.
                if own.wait_for(|at| *at == Whereabouts::Ended).await.is_err() {
                    std::future::pending::<()>().await;
                }
                "discovery says that it is gone".to_owned()
            };
            keeper.serve(told, |link, methods| Driver::new(link, stream, methods).until(gone)).await;
            drop(end);
        }));
        tokio::select! {
            _ = ended => {}
            _ = whereabouts.wait_for(|at| matches!(at, Whereabouts::At(_, known) if *known > linked)) => {}
        }
        while links.try_join_next().is_some() {}
    }

    /// This node as it introduces itself now, with the tables whose methods it tells.
    fn introduce(&self) -> Result<(Arc<HandlerTables>, Local), HandshakeError> {
        let executor = &self.inbound.executor;
        let tables = executor.tables.get();
        let local = executor.node.identity().local(tables.names(self.audience))?;
        Ok((tables, Local { chance: self.chance.clone(), ..local }))
    }

    /// Runs the link with the driver that is made for it until it ends.
    async fn serve<D: Future<Output = Closed>>(
        &self,
        ToldPeer { peer, at: address, tables }: ToldPeer,
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
        info!(parent = %name, %incarnation, at = %address, "parent linked");
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
