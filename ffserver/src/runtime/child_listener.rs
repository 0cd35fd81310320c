//! The child listener: the acceptor on rootport, and one task for each child's link.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Waker};

use ffnet::Link;
use ffnet::admission::{Admission, Bounds, Slot};
use ffnet::channel::{self, Channel};
use ffnet::handshake::{self, HandshakeError, Local, Peer};
use ffnet::link::{Closed, Driver};
use ffproto::NodeName;
use ffproto::credential::Credential;
use ffproto::handshake::Purpose;
use fftelemetry::tagged;
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::app::hooks::ChildHook;
use crate::cluster::side::{PeerKey, Side};
use crate::exec::execution::run_hook;
use crate::exec::executor::Executor;
use crate::exec::tables::{Audience, HandlerTables};
use crate::gateway::acceptor::{OpenPorts, accept_failed};
use crate::identity::lifecycle::{Phase, TaskGroup};
use crate::ops::inbound::Inbound;
use crate::ops::link_service::LinkService;
use crate::transit::links::STRANGER;

pub(crate) struct ChildListener {
    pub(crate) inbound: Arc<Inbound>,
    /// Every link of the node, so that a stop can wait for their last words.
    pub(crate) links: TaskGroup,
    /// The admission of links that have proved nothing.
    pub(crate) admission: Admission,
    pub(crate) turns: HookTurns,
}

/// The bounds on links that have proved nothing: all children of a large node may come at once. The handshake bounds their time.
pub(crate) const UNPROVEN: Bounds = Bounds { connections: 256, per_block: 64 };

/// The turns of the hooks about each child: they run in the order in which they have asked for their turn, for tokio's mutex
/// is fair. Nothing is kept of a child about which no hook runs.
#[derive(Default)]
pub(crate) struct HookTurns(Arc<Mutex<TurnsByChild>>);

type TurnsByChild = BTreeMap<NodeName, Arc<tokio::sync::Mutex<()>>>;

/// A place in the line of the hooks about one child.
struct HookTurn {
    turns: Arc<Mutex<TurnsByChild>>,
    child: NodeName,
    turn: Arc<tokio::sync::Mutex<()>>,
}

impl HookTurns {
    fn of(&self, child: &NodeName) -> HookTurn {
        let turn = self.0.lock().entry(child.clone()).or_default().clone();
        HookTurn { turns: self.0.clone(), child: child.clone(), turn }
    }
}

impl Drop for HookTurn {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        // This place's and the table's. Under the lock nobody else can get in line.
        if Arc::strong_count(&self.turn) == 2 {
            turns.remove(&self.child);
        }
    }
}

/// Accepts children while `open`, until `stop`; their links live on until they are closed.
pub(crate) async fn serve(
    listener: TcpListener,
    root: Arc<ChildListener>,
    mut open: OpenPorts,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            accepted = open.accept(|cx| listener.poll_accept(cx)) => match accepted {
                Ok((stream, from)) => take(stream, from, &root),
                Err(error) => accept_failed("rootport", &error).await,
            },
        }
    }
}

/// Accepts the children of this process until `stop`.
pub(crate) async fn serve_memory(
    mut arriving: mpsc::Receiver<DuplexStream>,
    root: Arc<ChildListener>,
    stop: CancellationToken,
) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            stream = arriving.recv() => match stream {
                Some(stream) => drop(root.links.spawn(tagged(child_in_process(stream, root.clone())))),
                None => return,
            },
        }
    }
}

fn take(stream: TcpStream, from: SocketAddr, root: &Arc<ChildListener>) {
    // Where nobody can make room, the newcomer ends.
    let Some(slot) = root.admission.admit(from.ip()) else { return };
    let _ = stream.set_nodelay(true);
    root.links.spawn(tagged(child(stream, from.to_string(), slot, root.clone())));
}

/// A child that has proved who it is, from where, and the tables whose methods the handshake has told it.
struct Admitted {
    peer: Peer,
    from: String,
    tables: Arc<HandlerTables>,
}

/// Serves one link. Until the peer has proved itself the link has a `slot`, and ends when it makes room for another one.
async fn child(stream: TcpStream, address: String, slot: Slot, root: Arc<ChildListener>) {
    let node = &root.inbound.executor.node;
    let admit = |child: &Credential| node.transit().admit_child(child);
    let encrypt = node.identity().encrypt();
    let opened = open(&address, &root, async |local| {
        channel::accept(stream, encrypt, Purpose::Link, local, Some(&slot), admit).await
    });
    let opened = opened.await;
    drop(slot);
    // What carries the load is looked at once, and not in each read and write.
    match opened {
        Some((Channel::Plain(stream), child)) => serve_child(stream, child, root).await,
        Some((Channel::Sealed(stream), child)) => serve_child(stream, child, root).await,
        None => {}
    }
}

async fn child_in_process(mut stream: DuplexStream, root: Arc<ChildListener>) {
    let transit = root.inbound.executor.node.transit();
    let admit = |child: &Credential| transit.admit_child(child);
    let opened = open("this process", &root, async |local| {
        let peer = handshake::accept(&mut stream, Purpose::Link, &local, None, admit).await?;
        Ok((stream, peer))
    });
    if let Some((stream, child)) = opened.await {
        serve_child(stream, child, root).await;
    }
}

/// The child that a handshake brings, with what it is spoken to over; `None` when it brings none.
async fn open<S>(
    address: &str,
    root: &ChildListener,
    handshake: impl AsyncFnOnce(Local) -> Result<(S, Peer), HandshakeError>,
) -> Option<(S, Admitted)> {
    let executor = &root.inbound.executor;
    let tables = executor.tables.get();
    let opened = match executor.node.identity().local(tables.names(Audience::CHILDREN)) {
        Ok(local) => handshake(local).await,
        Err(error) => Err(error),
    };
    match opened {
        // The keys may have changed meanwhile.
        Ok((_, peer)) if !executor.node.identity().trusts(peer.root) => {
            warn!(peer = %address, "no child: {STRANGER}")
        }
        Ok((stream, peer)) => return Some((stream, Admitted { peer, from: address.to_owned(), tables })),
        Err(error @ HandshakeError::Crowded) => debug!(peer = %address, "no child: {error}"),
        Err(error) => warn!(peer = %address, "no child: {}", fftelemetry::chain(&error)),
    }
    None
}

async fn serve_child<S>(stream: S, child: Admitted, root: Arc<ChildListener>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let executor = &root.inbound.executor;
    let (identity, transit) = (executor.node.identity(), executor.node.transit());
    let Admitted { peer, from, tables } = child;
    let link = transit.new_link(peer);
    transit.link_up(Side::Child, &link);
    if !transit.add_child(link.clone()) {
        return link_down(executor, &link);
    }
    executor.tables.begin_link(&link, Audience::CHILDREN, &tables);
    drop(tables);
    let name = link.peer().name.clone();
    info!(child = %name, incarnation = %link.peer().incarnation, %from, "child linked");
    drop(from);
    drop(tell(&root, "on_child_connected", executor.hooks.child_connected.as_ref(), &link));
    let at = PeerKey::new(Side::Child, name.clone());
    let service = LinkService::new(root.inbound.clone(), at, Audience::CHILDREN);
    let closed = Driver::new(link.clone(), stream, service).await;
    link_down(executor, &link);
    if transit.remove_child(&link) {
        let phase = identity.lifecycle().phase();
        match closed {
            Closed::Bye(_) => info!(child = %name, "child left: {closed}"),
            _ if matches!(phase, Phase::Stopping | Phase::HandedOver) => {}
            _ => warn!(child = %name, "child lost: {closed}"),
        }
        // After a hand-over the child has not been lost: the successor has it.
        if phase != Phase::HandedOver
            && let Some(told) = tell(&root, "on_child_lost", executor.hooks.child_lost.as_ref(), &link)
        {
            // A stop waits for this task, and so for the hook.
            let _ = told.await;
        }
        if phase == Phase::Ready {
            transit.let_older_serve(&name).await;
        }
    }
}

fn link_down(executor: &Executor, link: &Link) {
    executor.node.transit().link_down(Side::Child, link);
    executor.node.all_sessions().tell_claims();
}

/// Begins a hook about the link's child, in a task of its own: neither the link nor a message of the child waits for the
/// hook. The hooks about one child run one after the other, in the order of the calls of this. What a hook does before
/// it first waits is done when this returns, unless an earlier one still runs.
fn tell(
    root: &ChildListener,
    name: &'static str,
    hook: Option<&ChildHook>,
    link: &Link,
) -> Option<JoinHandle<()>> {
    let (hook, node) = (hook?.clone(), root.inbound.executor.node.clone());
    let child = link.peer().name.clone();
    let place = root.turns.of(&child);
    let tasks = node.identity().clone();
    let mut hook = Box::pin(async move {
        // Unconstrained, because a task that has used up its budget would not get in line with the poll below.
        let turn = unconstrained(place.turn.lock()).await;
        let (identity, about) = (node.identity().clone(), child.clone());
        run_hook(&identity, name, async move { hook(node, about).await }).await;
        drop(turn);
    });
    if hook.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
        return None;
    }
    Some(tasks.tasks().calls().spawn(hook))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn nothing_is_left_of_a_thousand_children_about_which_no_hook_runs() {
        let turns = HookTurns::default();
        let running = turns.of(&NodeName::try_from("game1").unwrap());
        for n in 0..1_000 {
            let name = NodeName::try_from(format!("guest{n}").as_str()).unwrap();
            let (first, second) = (turns.of(&name), turns.of(&name));
            let turn = first.turn.lock().await;
            assert!(second.turn.try_lock().is_err(), "they are in one line");
            drop(turn);
            drop(first);
            assert!(turns.0.lock().contains_key(&name), "one is still in line");
            drop(second);
        }
        assert_eq!(turns.0.lock().len(), 1);
        drop(running);
        assert!(turns.0.lock().is_empty());
    }
}
