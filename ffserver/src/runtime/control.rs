//! The control connection of a node to its master: the node registers, tells its status, and does what it is told. The
//! data path does not need it: without a master the node goes on and keeps trying.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use ffkeys::TrustRoots;
use ffnet::backoff::Backoff;
use ffnet::channel::{self, Channel};
use ffnet::control::NodeSide;
use ffnet::door;
use ffnet::handshake::HandshakeError;
use ffproto::control::{Door, LogOrder, MESSAGE_BYTES_MAX, NodeStatus, ToMaster, ToNode};
use ffproto::handshake::{BadPreamble, Purpose, Refusal};
use ffproto::{Incarnation, NodeName, Version, Versions, handover};
use fftelemetry::metrics::exposition;
use fftelemetry::tagged;
use futures_util::{SinkExt, StreamExt};
use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tracing::{debug, info, warn};

use crate::cluster::found::{Found, LinkAddress, Snapshot};
use crate::identity::Identity;
use crate::identity::lifecycle::Phase;
use crate::identity::stop::Stop;
use crate::node::{self, Node};
use crate::runtime::{metrics, questions};
use crate::session::registry::Registry;
use crate::transit::Transit;

/// At most this often is the status told.
const STATUS_EVERY_MIN: Duration = Duration::from_millis(100);
/// At least this often, so that the master sees that the node's loop turns.
const STATUS_EVERY_MAX: Duration = Duration::from_millis(500);

/// The longest text of metrics that a control message has room for.
const TEXT_BYTES_MAX: usize = MESSAGE_BYTES_MAX - 64;

/// How long a new master may take for the listening sockets.
const HAND_BACK_MAX: Duration = Duration::from_secs(5);

/// A word that the rest of the node has for the master, sent by this task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum MasterNotice {
    /// Nothing yet.
    Starting,
    /// [`ToMaster::Ready`], [`ToMaster::CannotStart`] or [`ToMaster::Stopping`]; said again after a
    /// reconnect.
    Say(ToMaster),
}

/// The connection of one node to its master.
pub(crate) struct Control {
    pub(crate) reported: Reported,
    pub(crate) master: ffconfig::Master,
    /// What the master says of the node's number and parents, for [`crate::runtime::discovery::master`].
    pub(crate) told: watch::Sender<Snapshot>,
    /// The kind of each parent, which the master does not say.
    pub(crate) kinds: Vec<(NodeName, String)>,
    pub(crate) word: watch::Receiver<MasterNotice>,
    /// Becomes the last word that the master has been sent.
    pub(crate) sent: watch::Sender<MasterNotice>,
    pub(crate) stop: Stop,
    /// Becomes true when there is no connection to the master any more, or none could be made.
    pub(crate) lost: watch::Sender<bool>,
    /// Where a successor waits.
    pub(crate) hand_over: mpsc::Sender<Door>,
    /// Becomes what keeps a process that starts from ever speaking with the master that has started it; `None` for one that no
    /// master has started.
    pub(crate) unspoken: Option<watch::Sender<Option<BadPreamble>>>,
    /// Whether the process is the node's own.
    pub(crate) own_process: bool,
    /// The listening sockets, for a new master, as soon as they are open.
    pub(crate) sockets: watch::Receiver<Option<Arc<Sockets>>>,
}

/// What of a node its master is told, and the parts that its number goes to.
pub(crate) struct Reported {
    pub(crate) transit: Transit,
    pub(crate) registry: Arc<Registry>,
    /// The node, as soon as its stores are open.
    pub(crate) node: watch::Receiver<Option<Node>>,
}

/// Copies of a node's listening sockets.
#[derive(Debug, Default)]
pub(crate) struct Sockets {
    pub(crate) net: Option<OwnedFd>,
    pub(crate) root: Option<OwnedFd>,
    pub(crate) web: Option<OwnedFd>,
}

impl Control {
    /// Runs for as long as it is polled.
    pub(crate) async fn run(mut self) {
        // Until a new master has the listening sockets nobody else holds them, so it is found soon.
        let mut backoff =
            Backoff::new(Duration::from_millis(50), Duration::from_millis(500), Duration::from_secs(5));
        let (mut complained, chance) = (false, self.reported.transit.identity().chance().stream("control"));
        loop {
            let begun = Instant::now();
            let why = match self.open().await {
                Ok(connection) => {
                    complained = false;
                    info!("registered at the master");
                    match self.talk(connection).await {
                        Ok(()) => "it closed the connection".to_owned(),
                        // An encrypted stream that is cut says so, and a killed master cuts it.
                        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => "it is gone".to_owned(),
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => {
                    if self.tell_unspoken(&error) {
                        // The start ends with this, and nothing else is a reason for it: no word of a lost master.
                        return std::future::pending().await;
                    }
                    self.leave_if_newer_serves(&error);
                    fftelemetry::chain(&error)
                }
            };
            self.lost.send_replace(true);
            if !complained && !self.stop.is_stopping() {
                complained = true;
                if self.own_process
                    && let Err(e) = print_to_nobody()
                {
                    warn!("the standard streams of the old master cannot be closed: {e}");
                }
                let (host, port) = self.master_address();
                warn!("no master at {host}:{port}, going on without and trying on: {why}");
            }
            tokio::time::sleep(backoff.next(chance.share(), begun.elapsed())).await;
        }
    }

    /// Tells the start that this process and the master that has just started it have no version in common, when that is so: dialling
    /// on helps nobody, and whoever waits for the start should know. One that serves already, or that a person has started, goes on.
    fn tell_unspoken(&self, error: &HandshakeError) -> bool {
        let starts = self.reported.transit.identity().lifecycle().phase() == Phase::Starting;
        match (error, &self.unspoken) {
            (HandshakeError::Preamble(bad @ BadPreamble::Version { .. }), Some(unspoken)) if starts => {
                unspoken.send_replace(Some(*bad));
                true
            }
            _ => false,
        }
    }

    /// A newer start of this node has this one's place: what this one has ends in good order. One that has
    /// handed over does so anyway.
    fn leave_if_newer_serves(&self, error: &HandshakeError) {
        if let HandshakeError::RefusedByPeer(Refusal::Older { newer, older, .. }) = error
            && matches!(self.reported.transit.identity().lifecycle().phase(), Phase::Starting | Phase::Ready)
            && !self.stop.is_stopping()
        {
            warn!("a newer start of this node ({newer}) has its place: this one ({older}) stops");
            self.stop.begin(None);
        }
    }

    /// `roothost`, or where rootport listens when that is a single address beyond loopback.
    fn master_address(&self) -> (String, u16) {
        let ip = self.master.rootport.ip();
        let host = if self.master.roothost == "localhost" && !ip.is_unspecified() {
            ip.to_string()
        } else {
            self.master.roothost.clone()
        };
        (host, self.master.rootport.port())
    }

    async fn open(&self) -> Result<NodeSide<Channel>, HandshakeError> {
        let identity = self.reported.transit.identity();
        let local = identity.local(Vec::new())?;
        let connecting = TcpStream::connect(self.master_address());
        let connected = tokio::time::timeout(Duration::from_secs(2), connecting).await;
        let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        let (encrypt, to) = (identity.encrypt(), NodeName::master());
        let opened = channel::dial(stream, encrypt, Purpose::Control, local, &to, Incarnation(0));
        let (channel, master) = opened.await?;
        Ok(NodeSide::new(channel, master.version))
    }

    async fn talk(&mut self, mut master: NodeSide<Channel>) -> io::Result<()> {
        if master.version().has(Version::RELEASE) {
            master.send(ToMaster::Release { release: env!("FF_RELEASE").into() }).await?;
        }
        let mut last_status = None;
        // Of this connection: a new master counts its questions from the start.
        let (later, mut answers) = mpsc::channel(questions::ANSWERS_MAX);
        self.word.mark_changed();
        loop {
            tokio::select! {
                told = master.next() => match told {
                    Some(told) => match told? {
                        ToNode::Metrics { ask } => master.send(self.metrics(ask)).await?,
                        ToNode::Ask { ask, question } => {
                            let node = self.reported.node.borrow().clone();
                            if let Some(answer) = questions::answer(node.as_ref(), ask, question, &later) {
                                master.send(answer).await?;
                            }
                        }
                        told => self.obey(told),
                    },
                    None => return Ok(()),
                },
                Some(answer) = answers.recv() => master.send(answer).await?,
                Ok(()) = self.word.changed() => {
                    let word = self.word.borrow_and_update().clone();
                    if let MasterNotice::Say(message) = &word {
                        // So that whoever sees the node ready sees its links as well.
                        master.send(ToMaster::Status(self.status())).await?;
                        // What a process that leaves has counted shall not be lost with it.
                        if matches!(message, ToMaster::Stopping | ToMaster::HandedOver) {
                            master.send(self.metrics(0)).await?;
                        }
                        master.send(message.clone()).await?;
                    }
                    self.sent.send_replace(word);
                }
                () = status_due(self.reported.transit.identity(), last_status) => {
                    last_status = Some(Instant::now());
                    master.send(ToMaster::Status(self.status())).await?;
                }
            }
        }
    }

    fn status(&self) -> NodeStatus {
        node::status(&self.reported.transit, &self.reported.registry, self.reported.node.borrow().as_ref())
    }

    fn metrics(&self, ask: u64) -> ToMaster {
        let Reported { transit, registry, node } = &self.reported;
        let text = metrics::text(transit, registry, node.borrow().as_ref());
        let fits = exposition::cut(&text, TEXT_BYTES_MAX);
        if fits.len() < text.len() {
            warn!("the node has {} bytes of metrics: the master is told {} of them", text.len(), fits.len());
        }
        ToMaster::Metrics { ask, text: fits.to_owned() }
    }

    /// A parent of this node as discovery shows it; `None` when the config knows no such parent.
    fn parent(&self, name: NodeName, at: LinkAddress, incarnation: Incarnation) -> Option<Found> {
        let (_, kind) = self.kinds.iter().find(|(parent, _)| *parent == name)?;
        let (kind, since_ms) = (kind.clone(), self.reported.transit.identity().now_ms());
        let (number, version, load, address) = (None, None, None, Some(at));
        Some(Found { name, kind, incarnation, number, address, version, load, since_ms, ended: false })
    }

    fn trust(&self, roots: TrustRoots) {
        let transit = &self.reported.transit;
        let identity = transit.identity();
        if identity.trust(roots) {
            info!("the cluster's keys have changed; those of before the change are valid until the next one");
            transit.hang_up_on_strangers();
        }
        if !identity.has_valid_key() {
            warn!("this node's key is of before that, and nobody takes it any more: start the node again");
        }
    }

    fn obey(&self, told: ToNode) {
        match told {
            ToNode::Registered { number, release } => {
                if let Some(release) = release {
                    debug!("the master is of release {release}");
                }
                self.told.send_modify(|told| told.number = Some(number));
            }
            ToNode::ParentUp { name, at, incarnation } => {
                let parent = self.parent(name, LinkAddress::Tcp(at), incarnation);
                if let Some(parent) = parent {
                    // Whatever was said before: a predecessor that takes back is an older incarnation.
                    self.told.send_modify(|told| drop(told.nodes.insert(parent.name.clone(), parent)));
                }
            }
            ToNode::ParentGone { name, incarnation } => {
                self.told.send_if_modified(|told| told.end(name.as_str(), incarnation));
            }
            ToNode::Stop { drain_ms } => self.stop.begin(Some(Duration::from_millis(drain_ms))),
            ToNode::HandOver { door } => {
                // One at a time: the master waits for what becomes of the first.
                let _ = self.hand_over.try_send(door);
            }
            ToNode::Roots { current, previous } => self.trust(TrustRoots { current, previous }),
            ToNode::Log(order) => obey_about_log(order),
            // Answered where it is read.
            ToNode::Metrics { .. } | ToNode::Ask { .. } => {}
            ToNode::HandBack { door } => {
                let Some(sockets) = self.sockets.borrow().clone() else { return };
                let versions = self.reported.transit.identity().versions();
                tokio::spawn(tagged(async move {
                    match timeout(HAND_BACK_MAX, hand_back(&door, &sockets, versions)).await {
                        Ok(Ok(())) => info!("the new master has the listening sockets"),
                        Ok(Err(e)) => warn!("the new master did not take the listening sockets: {e}"),
                        Err(_) => warn!("the new master did not take the listening sockets in time"),
                    }
                }));
            }
        }
    }
}

/// The log is the process's, which has none where a test runs nodes.
fn obey_about_log(order: LogOrder) {
    let Some(log) = fftelemetry::current() else { return };
    match order {
        LogOrder::Reopen => log.reopen(),
        LogOrder::Levels(levels) => match log.set_levels(&levels) {
            Ok(()) => info!("the log shows {} from now on", log.levels()),
            Err(error) => warn!("the log shows what it has shown: {error}"),
        },
    }
}

/// Gives a new master copies of the listening sockets, and takes new pipes for what is printed: the old ones
/// ended with the old master.
async fn hand_back(door: &Door, sockets: &Sockets, versions: Versions) -> io::Result<()> {
    let mut passage = door::enter::<handover::Output, handover::Listeners>(door)?;
    let (net, root, web) = (sockets.net.as_ref(), sockets.root.as_ref(), sockets.web.as_ref());
    let said = handover::Listeners { versions, net: net.is_some(), root: root.is_some(), web: web.is_some() };
    let descriptors: Vec<_> = [net, root, web].into_iter().flatten().map(AsFd::as_fd).collect();
    passage.send(&said, &descriptors).await?;
    let Some((handover::Output, pipes)) = passage.receive().await? else { return Ok(()) };
    if let [stdout, stderr] = pipes.as_slice() {
        let _one_at_a_time = STREAMS.lock();
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
    }
    Ok(())
}

/// The standard streams belong to the process, and each of its nodes may find at any time that they are broken, or have new ones
/// for it: what one of them has looked at is not changed by another one before it acts.
static STREAMS: Mutex<()> = Mutex::new(());

/// Without a master nobody reads what is printed: an app's `println!` must not fail for that. Streams that a new master has given
/// to another node of this process stay.
fn print_to_nobody() -> io::Result<()> {
    let broken = |fd| -> io::Result<bool> {
        let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::OUT)];
        rustix::event::poll(&mut fds, Some(&rustix::event::Timespec::default()))?;
        Ok(fds[0].revents().contains(rustix::event::PollFlags::ERR))
    };
    let _one_at_a_time = STREAMS.lock();
    let nobody = std::fs::OpenOptions::new().write(true).open("/dev/null")?;
    if broken(rustix::stdio::stdout())? {
        rustix::stdio::dup2_stdout(&nobody)?;
    }
    if broken(rustix::stdio::stderr())? {
        rustix::stdio::dup2_stderr(&nobody)?;
    }
    Ok(())
}

/// Returns when the status should be told: on a change, but not too often, and at least twice a second.
async fn status_due(identity: &Identity, last: Option<Instant>) {
    let Some(last) = last else { return };
    let _ =
        tokio::time::timeout_at(last + STATUS_EVERY_MAX, identity.lifecycle().status_changed().notified())
            .await;
    tokio::time::sleep_until(last + STATUS_EVERY_MIN).await;
}
