//! The node's connection to its master: registers, tells its status, and does what it is told. The data
//! path does not need it: without a master the node goes on and keeps trying.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use ffnet::backoff::Backoff;
use ffnet::control::NodeSide;
use ffnet::handshake::{HandshakeError, dial};
use ffproto::NodeName;
use ffproto::control::{ToMaster, ToNode};
use ffproto::handshake::Purpose;
use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::node::Node;
use crate::parent::{Whereabouts, random01};
use crate::stop::Stop;

/// At most this often is the status told.
const STATUS_EVERY_MIN: Duration = Duration::from_millis(100);
/// At least this often, so that the master sees that the node's loop turns.
const STATUS_EVERY_MAX: Duration = Duration::from_millis(500);

/// What the rest of the node tells the master through this task.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Word {
    /// Nothing yet.
    Starting,
    /// [`ToMaster::Ready`], [`ToMaster::CannotStart`] or [`ToMaster::Stopping`]; said again after a
    /// reconnect.
    Say(ToMaster),
}

pub(crate) struct Control {
    pub(crate) node: Node,
    pub(crate) master: ffconfig::Master,
    pub(crate) parents: HashMap<NodeName, watch::Sender<Whereabouts>>,
    pub(crate) word: watch::Receiver<Word>,
    /// Becomes the last word that the master has been sent.
    pub(crate) said: watch::Sender<Word>,
    /// Becomes true with the first registration.
    pub(crate) registered: watch::Sender<bool>,
    pub(crate) stop: Stop,
}

impl Control {
    /// Runs for as long as it is polled.
    pub(crate) async fn run(mut self) {
        let mut backoff =
            Backoff::new(Duration::from_millis(50), Duration::from_secs(2), Duration::from_secs(5));
        let mut complained = false;
        loop {
            let begun = Instant::now();
            let why = match self.open().await {
                Ok(connection) => {
                    complained = false;
                    info!("registered at the master");
                    match self.talk(connection).await {
                        Ok(()) => "it closed the connection".to_owned(),
                        Err(error) => error.to_string(),
                    }
                }
                Err(error) => fftelemetry::chain(&error),
            };
            if !complained && !self.stop.is_stopping() {
                complained = true;
                let (host, port) = self.master_address();
                warn!("no master at {host}:{port}, going on without and trying on: {why}");
            }
            tokio::time::sleep(backoff.next(random01(), begun.elapsed())).await;
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

    async fn open(&self) -> Result<TcpStream, HandshakeError> {
        let connecting = TcpStream::connect(self.master_address());
        let connected = tokio::time::timeout(Duration::from_secs(2), connecting).await;
        let mut stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
        stream.set_nodelay(true)?;
        dial(&mut stream, Purpose::Control, &self.node.local(Vec::new()), &NodeName::master()).await?;
        Ok(stream)
    }

    async fn talk(&mut self, stream: TcpStream) -> io::Result<()> {
        let mut master = NodeSide::new(stream);
        let mut last_status = None;
        self.word.mark_changed();
        loop {
            tokio::select! {
                told = master.next() => match told {
                    Some(told) => self.obey(told?),
                    None => return Ok(()),
                },
                Ok(()) = self.word.changed() => {
                    let word = self.word.borrow_and_update().clone();
                    if let Word::Say(message) = &word {
                        // So that whoever sees the node ready sees its links as well.
                        master.send(ToMaster::Status(self.node.status())).await?;
                        master.send(message.clone()).await?;
                    }
                    self.said.send_replace(word);
                }
                () = status_due(&self.node, last_status) => {
                    last_status = Some(Instant::now());
                    master.send(ToMaster::Status(self.node.status())).await?;
                }
            }
        }
    }

    fn obey(&self, told: ToNode) {
        match told {
            ToNode::Registered { number } => {
                self.node.set_number(number);
                self.registered.send_replace(true);
            }
            ToNode::ParentUp { name, at, incarnation } => {
                if let Some(parent) = self.parents.get(&name) {
                    parent.send_replace(Some((at, incarnation)));
                }
            }
            ToNode::ParentGone { name, incarnation } => {
                if let Some(parent) = self.parents.get(&name) {
                    parent.send_if_modified(|place| {
                        let gone = place.is_some_and(|(_, known)| known <= incarnation);
                        if gone {
                            *place = None;
                        }
                        gone
                    });
                }
            }
            ToNode::Stop { drain_ms } => self.stop.begin(Some(Duration::from_millis(drain_ms))),
            ToNode::HandOver { .. } | ToNode::HandBack { .. } => {}
        }
    }
}

/// Returns when the status should be told: on a change, but not too often, and at least twice a second.
async fn status_due(node: &Node, last: Option<Instant>) {
    let Some(last) = last else { return };
    let _ = tokio::time::timeout_at(last + STATUS_EVERY_MAX, node.changed().notified()).await;
    tokio::time::sleep_until(last + STATUS_EVERY_MIN).await;
}
