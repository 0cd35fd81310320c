//! Links in memory between the nodes of one process: for `appmain --all`, small deployments and debuggers.

use std::collections::HashMap;
use std::sync::Arc;

use ffproto::NodeName;
use parking_lot::Mutex;
use tokio::io::DuplexStream;
use tokio::sync::{Notify, mpsc, watch};

use crate::runtime::discovery::memory::Residents;
use crate::runtime::wires::Wires;

/// Bytes in flight on a link in memory, each way: what a socket buffer would hold.
const PIPE_BYTES: usize = 256 * 1024;
/// Children that may wait to be taken by their parent.
const WAITING_MAX: usize = 64;

/// Where the nodes of one process find each other. Cheap to clone; a value, so that a process can have
/// several.
#[derive(Clone, Default)]
pub struct InProcessNet(Arc<Inner>);

#[derive(Default)]
struct Inner {
    parents: Mutex<HashMap<NodeName, mpsc::Sender<DuplexStream>>>,
    opened: Notify,
    residents: watch::Sender<Residents>,
    /// What links go over where a test cuts and delays them; else nothing stands between two nodes.
    wires: Option<Wires>,
}

impl InProcessNet {
    /// A net whose links go over these wires.
    pub(crate) fn over(wires: Wires) -> Self {
        Self(Arc::new(Inner { wires: Some(wires), ..Inner::default() }))
    }

    /// Notes that a node has ended without a word, as a master does who has seen the end of its process.
    pub(crate) fn ended(&self, name: &str) {
        self.residents()
            .send_modify(|all| all.nodes.get_mut(name).into_iter().for_each(|node| node.ended = true));
    }

    /// Has its children dial a parent at once, which they wait to dial again.
    pub(crate) fn dial_now(&self, parent: &str) {
        self.residents()
            .send_modify(|all| all.nodes.get_mut(parent).into_iter().for_each(|node| node.since_ms += 1));
    }

    /// The nodes that are here, see [`crate::runtime::discovery::memory`].
    pub(crate) fn residents(&self) -> &watch::Sender<Residents> {
        &self.0.residents
    }

    /// The children of `parent` arrive here from now on.
    pub(crate) fn listen(&self, parent: NodeName) -> mpsc::Receiver<DuplexStream> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        self.0.parents.lock().insert(parent, sender);
        self.0.opened.notify_waiters();
        receiver
    }

    /// Connects `child` to `parent`, once it listens. Cancel-safe.
    pub(crate) async fn dial(&self, child: &NodeName, parent: &NodeName) -> DuplexStream {
        loop {
            // Asked for before looking, so that an opening between the two is not missed.
            let opened = self.0.opened.notified();
            let known = self.0.parents.lock().get(parent).cloned();
            if let Some(sender) = known.filter(|sender| !sender.is_closed()) {
                let (ours, theirs) = match &self.0.wires {
                    Some(wires) => wires.connect(child, parent, PIPE_BYTES).await,
                    None => tokio::io::duplex(PIPE_BYTES),
                };
                if sender.send(theirs).await.is_ok() {
                    return ours;
                }
            }
            opened.await;
        }
    }
}
