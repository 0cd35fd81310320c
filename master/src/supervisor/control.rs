//! The control port: nodes register there; each connection is one task between the node and the supervisor.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ffambient::Clock;
use ffnet::admission::{Admission, Slot};
use ffnet::channel::{self, Channel};
use ffnet::control::MasterSide;
use ffnet::handshake::{HandshakeError, Local, Peer};
use ffproto::control::{ToMaster, ToNode};
use ffproto::credential::Credential;
use ffproto::encrypt::Encrypt;
use ffproto::handshake::{Purpose, Refusal, fence};
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream, lookup_host};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::event::Event;
use super::machine::{ClusterView, PhaseView, Tell, Wire};
use crate::asker::Told;
use crate::metrics::Gatherer;

/// Messages that may wait for one node. A node that does not take a few hundred is stuck.
const OUTBOX_MAX: usize = 256;
/// How long one message may take to be written.
const WRITE_MAX: Duration = Duration::from_secs(5);
/// Nodes speak twice a second; one that is silent this long has lost its connection. A node that hangs is
/// noticed by the machine, long before.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// How long a node may be silent that cannot be written to any more.
const LAST_WORDS_MAX: Duration = Duration::from_secs(1);
/// How long a host's name may take to be looked up.
const LOOKUP_MAX: Duration = Duration::from_secs(2);
/// After a failed accept (no more descriptors), before the next.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every connection needs.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) local: watch::Receiver<Arc<Local>>,
    pub(crate) encrypt: Encrypt,
    /// Connections that have proved nothing: bounded in number here, and in time by the handshake.
    pub(crate) admission: Admission,
    /// The places of nodes that have registered.
    pub(crate) registered: Arc<Semaphore>,
    pub(crate) view: watch::Receiver<Arc<ClusterView>>,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) gatherer: Gatherer,
    pub(crate) stop: CancellationToken,
}

impl Server {
    /// Accepts nodes until it is told to stop.
    pub(crate) async fn serve(self, listener: TcpListener) {
        let connections = AtomicU64::new(1);
        loop {
            let accepted = tokio::select! {
                () = self.stop.cancelled() => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, from)) => {
                    // Where nobody can make room, the newcomer ends.
                    let Some(slot) = self.admission.admit(from.ip()) else { continue };
                    let number = connections.fetch_add(1, Ordering::Relaxed);
                    let (server, stop) = (self.clone(), self.stop.clone());
                    tokio::spawn(async move {
                        stop.run_until_cancelled(server.connection(stream, from, number, slot)).await;
                    });
                }
                Err(error) => {
                    warn!(limited_by = "", "the control port cannot accept: {error}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    async fn connection(self, stream: TcpStream, from: SocketAddr, conn: u64, slot: Slot) {
        let _ = stream.set_nodelay(true);
        let Ok(at) = stream.local_addr() else { return };
        let local = Local::clone(&self.local.borrow());
        let clock = local.clock.clone();
        let admit = |node: &Credential| self.admit(node, &clock);
        let opened = channel::accept(stream, self.encrypt, Purpose::Control, local, Some(&slot), admit);
        let (channel, peer) = match opened.await {
            Ok(opened) => opened,
            Err(why @ HandshakeError::Crowded) => return debug!(peer = %from, "no node registered: {why}"),
            Err(why) => return warn!(peer = %from, "no node registered: {}", fftelemetry::chain(&why)),
        };
        drop(slot);
        let Ok(_place) = Arc::clone(&self.registered).try_acquire_owned() else {
            return warn!(peer = %from, "no node registered: too many have, for the limit of open files (ulimit -n)");
        };
        let wire = Wire { peer: from.ip().to_canonical(), local: at.ip().to_canonical() };
        let (outbox, tells) = mpsc::channel(OUTBOX_MAX);
        let Peer { name: node, incarnation, pid, version, root, .. } = peer;
        let process = (node.clone(), incarnation);
        self.gatherer.asker().linked(process.clone(), conn, version, outbox.clone());
        let linked = Event::Linked { node: node.clone(), incarnation, pid, wire, conn, root, outbox };
        if self.events.send(linked).await.is_err() {
            return self.gatherer.asker().unlinked(&process, conn);
        }
        let ended = self.converse(MasterSide::new(channel, version), tells, |message| match message {
            // The supervisor has nothing to decide about them, and may be busy.
            ToMaster::Metrics { ask, text } => {
                self.gatherer.told(process.clone(), ask, Told::Metrics(text));
                None
            }
            ToMaster::Answer { ask, answer } => {
                self.gatherer.told(process.clone(), ask, Told::Answer(answer));
                None
            }
            message => Some(Event::Said { node: node.clone(), incarnation, conn, message }),
        });
        if let Err(error) = ended.await {
            debug!(peer = %node, "the control connection ended: {error}");
        }
        self.gatherer.asker().unlinked(&process, conn);
        let _ = self.events.send(Event::Unlinked { node, incarnation, conn }).await;
    }

    /// Only what is known now: the machine decides again when the node registers.
    fn admit(&self, credential: &Credential, clock: &Clock) -> Result<(), Refusal> {
        let (name, incarnation) = (&credential.claims.name, credential.incarnation);
        let view = self.view.borrow();
        let node = view.node(name.as_str()).ok_or_else(|| Refusal::Unknown(name.clone()))?;
        let beside = node.beside.as_ref().and_then(|beside| beside.incarnation);
        // While one process replaces the other, both belong here.
        let known = [node.incarnation, beside].contains(&Some(incarnation));
        if !known {
            if !incarnation.may_register_at(clock.now_ms()) {
                return Err(Refusal::Future(incarnation));
            }
            fence(name, node.incarnation, incarnation)?;
        }
        let stopping = matches!(view.state, PhaseView::Stopping | PhaseView::Ended);
        // A node that is being stopped may come back to be told so.
        if stopping && !known { Err(Refusal::Stopping) } else { Ok(()) }
    }

    async fn converse(
        &self,
        mut frames: MasterSide<Channel>,
        mut tells: mpsc::Receiver<Tell>,
        said: impl Fn(ToMaster) -> Option<Event>,
    ) -> io::Result<()> {
        // A node that has left has said why before: that is read all the same.
        let mut unwritable = None;
        loop {
            let silence_max = if unwritable.is_none() { SILENCE_MAX } else { LAST_WORDS_MAX };
            tokio::select! {
                tell = tells.recv(), if unwritable.is_none() => {
                    // The supervisor has hung up.
                    let Some(tell) = tell else { return Ok(()) };
                    if let Some(message) = resolve(tell).await {
                        unwritable = timeout(WRITE_MAX, frames.send(message)).await?.err();
                    }
                }
                message = timeout(silence_max, frames.next()) => match message? {
                    Some(message) => {
                        if let Some(event) = said(message?)
                            && self.events.send(event).await.is_err()
                        {
                            return Ok(());
                        }
                    }
                    None => return unwritable.map_or(Ok(()), Err),
                },
            }
        }
    }
}

/// Looks up the host of a parent, where the config names it.
async fn resolve(tell: Tell) -> Option<ToNode> {
    match tell {
        Tell::Message(message) => Some(message),
        Tell::ParentUp { name, host, port, incarnation } => {
            let found = match timeout(LOOKUP_MAX, lookup_host((host.as_str(), port))).await {
                Ok(Ok(found)) => found.collect::<Vec<_>>(),
                Ok(Err(error)) => {
                    warn!("roothost `{host}` of parent {name}: {error}");
                    return None;
                }
                Err(_late) => {
                    warn!("roothost `{host}` of parent {name}: no answer from the name service");
                    return None;
                }
            };
            // A listener on 127.0.0.1 or 0.0.0.0 is the usual case, so IPv4 goes first.
            let at = found.iter().find(|at| at.is_ipv4()).or(found.first()).copied()?;
            Some(ToNode::ParentUp { name, at, incarnation })
        }
    }
}
