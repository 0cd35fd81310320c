//! Links in memory between the nodes of one process: all of a cluster (`appmain --all`), or some of them (`appmain A B C`), whose
//! links to the others are TCP.

use std::collections::HashMap;
use std::sync::Arc;

use ffproto::{Incarnation, NodeName};
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
    parents: Mutex<HashMap<ParentStart, Entrance>>,
    opened: Notify,
    residents: watch::Sender<Residents>,
    /// What links go over where a test cuts and delays them; else nothing stands between two nodes.
    wires: Option<Wires>,
}

/// One start of a parent: while a process is replaced, the other start of the same name is in another process.
type ParentStart = (NodeName, Incarnation);

/// Where the children of one parent come in.
#[derive(Clone)]
struct Entrance {
    to: mpsc::Sender<DuplexStream>,
    /// Whether the parent's ports are open: they are closed while it hands over.
    ports: watch::Receiver<bool>,
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

    /// The children of a start of `parent` arrive here from now on; `ports` says whether its ports are open.
    pub(crate) fn listen(
        &self,
        parent: NodeName,
        incarnation: Incarnation,
        ports: watch::Receiver<bool>,
    ) -> mpsc::Receiver<DuplexStream> {
        let (to, receiver) = mpsc::channel(WAITING_MAX);
        let mut parents = self.0.parents.lock();
        parents.retain(|_, entrance| !entrance.to.is_closed());
        parents.insert((parent, incarnation), Entrance { to, ports });
        drop(parents);
        self.0.opened.notify_waiters();
        receiver
    }

    /// Connects `child` to a start of `parent`, once it listens. Cancel-safe.
    pub(crate) async fn dial(
        &self,
        child: &NodeName,
        parent: &NodeName,
        incarnation: Incarnation,
    ) -> DuplexStream {
        loop {
            // Asked for before looking, so that an opening between the two is not missed.
            let opened = self.0.opened.notified();
            if let Some(entrance) = self.entrance(parent, incarnation) {
                let ends = match &self.0.wires {
                    Some(wires) => wires.connect(child, parent, PIPE_BYTES).await,
                    None => tokio::io::duplex(PIPE_BYTES),
                };
                if let Some(stream) = entrance.enter(ends).await {
                    return stream;
                }
            }
            opened.await;
        }
    }

    /// Connects to a start of `parent` when it listens here, with its ports open; `None` when it does not, as one of another
    /// process. Cancel-safe.
    pub(crate) async fn dial_if_here(
        &self,
        parent: &NodeName,
        incarnation: Incarnation,
    ) -> Option<DuplexStream> {
        let entrance = self.entrance(parent, incarnation)?;
        // One that hands over lets nobody in: over TCP its successor does, whose socket is the same.
        let is_open = *entrance.ports.borrow();
        if is_open { entrance.enter(tokio::io::duplex(PIPE_BYTES)).await } else { None }
    }

    fn entrance(&self, parent: &NodeName, incarnation: Incarnation) -> Option<Entrance> {
        let parents = self.0.parents.lock();
        parents.get(&(parent.clone(), incarnation)).filter(|entrance| !entrance.to.is_closed()).cloned()
    }
}

impl Entrance {
    /// The child's end of a new link, of both; `None` when the parent listens no more.
    async fn enter(&self, (ours, theirs): (DuplexStream, DuplexStream)) -> Option<DuplexStream> {
        self.to.send(theirs).await.ok().map(|()| ours)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_parent_is_linked_in_memory_by_those_that_mean_its_start_while_it_lets_children_in() {
        let (net, gate) = (InProcessNet::default(), NodeName::try_from("gate").unwrap());
        let ports = watch::Sender::new(true);
        let is_here = async |incarnation| net.dial_if_here(&gate, Incarnation(incarnation)).await.is_some();
        assert!(!is_here(7).await, "nobody listens");
        let mut arriving = net.listen(gate.clone(), Incarnation(7), ports.subscribe());
        assert!(is_here(7).await);
        assert!(!is_here(6).await && !is_here(8).await, "those are in other processes");
        ports.send_replace(false);
        assert!(!is_here(7).await, "it hands over");
        ports.send_replace(true);
        assert!(is_here(7).await, "it has taken back");
        for _ in 0..2 {
            assert!(arriving.try_recv().is_ok());
        }
        drop(arriving);
        assert!(!is_here(7).await, "it has ended");
        let _next = net.listen(gate.clone(), Incarnation(8), ports.subscribe());
        assert_eq!(net.0.parents.lock().len(), 1, "what has ended is not kept");
    }
}
