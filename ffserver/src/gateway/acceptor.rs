//! The acceptor of game clients, and one task for each connection. Only this room and `ffproto::frame` know client
//! framings.

use std::future::poll_fn;
use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use ffnet::transport::{ClientListener, ClientStream, Transport};
use ffproto::{SessionId, handover};
use fftelemetry::tagged;
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::connection::{Closed, Connection};
use crate::app::hooks::{SessionEvent, SessionEventKind};
use crate::exec::events::tell_session;
use crate::exec::executor::Executor;
use crate::identity::counters::count;
use crate::identity::lifecycle::TaskGroup;
use crate::session::handle::Session;
use crate::session::local::{Directive, LocalSession};

/// The rest of a connection's task, after its last turn.
type LastStep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The bound on connections that wait to be sent to a successor; the others wait in their own tasks.
const LEAVING_MAX: usize = 64;

/// The wait of a connection that may not leave after all, before it tries again: descriptors may be short.
const LEAVE_AGAIN: Duration = Duration::from_millis(2);

/// A connection on its way to the node's successor.
pub(crate) struct LeavingConnection {
    pub(crate) socket: OwnedFd,
    pub(crate) record: handover::Session,
    /// The session's choices.
    pub(crate) choices: Vec<handover::AffinityEntry>,
}

/// The clients of a node. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Clients {
    executor: Arc<Executor>,
    transport: Arc<dyn Transport>,
    connections: TaskGroup,
    /// The way of connections that leave; while there is none, no connection leaves.
    successor: Arc<Mutex<Option<mpsc::Sender<LeavingConnection>>>>,
}

impl Clients {
    pub(crate) fn new(executor: Arc<Executor>, transport: Arc<dyn Transport>) -> Self {
        let connections = executor.node.identity().tasks().group();
        // A closed tracker takes connections as before; the end of the last one is an event.
        connections.close();
        Self { executor, transport, connections, successor: Arc::default() }
    }

    /// Accepts clients while `open`, until `stop`; then tells every connection to drain, and waits until all have.
    pub(crate) async fn serve(
        self,
        mut listener: Box<dyn ClientListener>,
        mut open: OpenPorts,
        stop: CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                accepted = open.accept(|cx| listener.poll_accept(cx)) => match accepted {
                    Ok(stream) => self.open(stream),
                    Err(error) => accept_failed("netport", &error).await,
                },
            }
        }
        drop(listener);
        self.executor.node.all_sessions().registry().direct(Directive::Drain);
        self.connections.wait().await;
    }

    /// Sends every connection to the successor, each when nothing runs for it. They go a few at a time, so that a busy
    /// one delays no other. A connection that is taken and cannot be sent is to be given back to
    /// [`Clients::take_back`].
    pub(crate) fn leave(&self) -> Departure {
        let (sender, leaving) = mpsc::channel(LEAVING_MAX);
        *self.successor.lock() = Some(sender);
        let all = self.executor.node.all_sessions().registry().begin_directive(Directive::Leave);
        let (to_tell, staying) = all.into_iter().partition(LocalSession::can_travel);
        Departure { leaving, to_tell, staying, clients: self.clone() }
    }

    /// Ends the leaving: connections that are still here go on.
    pub(crate) fn stay(&self) {
        *self.successor.lock() = None;
        self.executor.node.all_sessions().registry().direct(Directive::Run);
    }

    /// The name of the transport over which they come.
    pub(crate) fn transport(&self) -> &'static str {
        self.transport.name()
    }

    fn are_gone(&self) -> bool {
        self.connections.is_empty()
    }

    /// Waits until no connection is here. Cancel-safe.
    pub(crate) async fn gone(&self) {
        self.connections.wait().await;
    }

    fn open(&self, stream: Arc<dyn ClientStream>) {
        let address = stream.peer();
        let session = match self.executor.node.all_sessions().registry().open(address) {
            Ok(session) => session,
            Err(why) => {
                count(&self.executor.node.identity().counters().clients_refused);
                return warn!(peer = %address, "client refused: {why}");
            }
        };
        count(&self.executor.node.identity().counters().sessions_opened);
        info!(session = %session.id(), peer = %address, "client connected");
        self.run(Connection::new(stream, session, self.executor.clone()));
    }

    /// Goes on with a connection that the predecessor has sent.
    ///
    /// # Errors
    /// The socket or the record is of no use; the client is disconnected.
    pub(crate) fn adopt(&self, socket: OwnedFd, record: handover::Session) -> io::Result<()> {
        let connection = Connection::adopt(&*self.transport, socket, record, self.executor.clone());
        self.run(connection.map_err(io::Error::other)?);
        Ok(())
    }

    /// The one task of a connection. The room for its end is made at its end: ten thousand idle connections shall not
    /// own it.
    fn run(&self, connection: Connection) {
        let (clients, mut connection) = (self.clone(), Box::new(connection));
        self.connections.spawn(tagged(async move {
            let end = loop {
                let closed = (&mut connection).await;
                match clients.end(connection, closed) {
                    Ok(end) => break end,
                    Err(stays) => connection = stays,
                }
                // Something has begun for the session meanwhile, or there is no descriptor to spare: it leaves a little
                // later.
                Box::pin(tokio::time::sleep(LEAVE_AGAIN)).await;
            };
            end.await;
        }));
    }

    /// Ends a connection; gives it back when it cannot leave now.
    fn end(&self, mut connection: Box<Connection>, closed: Closed) -> Result<LastStep, Box<Connection>> {
        let clients = self.clone();
        if !matches!(closed, Closed::Leaving) {
            return Ok(Box::pin(clients.close(connection, closed)));
        }
        let Some((socket, record)) = connection.leave(&*self.transport) else { return Err(connection) };
        let session = connection.session().clone();
        drop(connection);
        let choices = self.executor.node.all_sessions().left(&session);
        Ok(Box::pin(clients.send(LeavingConnection { socket, record, choices })))
    }

    async fn send(self, leaving: LeavingConnection) {
        let successor = self.successor.lock().clone();
        let back = match successor {
            Some(successor) => successor.send(leaving).await.err().map(|refused| refused.0),
            None => Some(leaving),
        };
        if let Some(leaving) = back {
            self.take_back(leaving);
        }
    }

    /// Takes a connection back that the successor does not take after all.
    pub(crate) fn take_back(&self, leaving: LeavingConnection) {
        let LeavingConnection { socket, record, choices } = leaving;
        let id = record.id;
        choices.into_iter().for_each(|choices| self.executor.node.transit().affinity().take_over(choices));
        if let Err(error) = self.adopt(socket, record) {
            warn!(session = %id, limited_by = "", "the client is lost: {error}");
        }
    }

    async fn close(self, mut connection: Box<Connection>, closed: Closed) {
        let (executor, session) = (&self.executor, connection.session().clone());
        let sessions = executor.node.all_sessions();
        sessions.end(&session);
        sessions.tell_ended(&session);
        connection.say_why(&closed).await;
        drop(connection);
        if executor.hooks.of(SessionEventKind::Closed).is_some() {
            // The session ends behind what it has begun, which runs to its end or its deadline although the client is
            // gone.
            let _ = timeout(executor.node.identity().limits().call_timeout, session.quiet()).await;
            let _turn = session.turn().lock().await;
            let handle = Session::here(sessions.clone(), session.clone());
            tell_session(&executor.hooks, &executor.node, handle, SessionEvent::Closed).await;
        }
        let (peer, kind) = (session.address(), closed.kind());
        info!(session = %session.id(), %peer, limited_by = kind, "client logged out: {closed}");
    }
}

/// The departure of a node's connections to its successor. Dropping it brings back those that have not been taken.
pub(crate) struct Departure {
    leaving: mpsc::Receiver<LeavingConnection>,
    /// The sessions that have not been told to leave yet.
    to_tell: Vec<LocalSession>,
    /// The sessions whose connections cannot leave: they go on here until the goodbye.
    staying: Vec<LocalSession>,
    clients: Clients,
}

impl Departure {
    /// The next connection that leaves; for ever none when there is none left. Cancel-safe.
    pub(crate) async fn next(&mut self) -> LeavingConnection {
        match self.leaving.recv().await {
            Some(one) => {
                self.tell(1);
                one
            }
            // The channel's other end lives as long as the clients.
            None => std::future::pending().await,
        }
    }

    /// Whether some have not been told yet.
    pub(crate) fn has_more_to_tell(&self) -> bool {
        !self.to_tell.is_empty()
    }

    /// Tells some more sessions to leave: one for which something runs must not hold up the others. To be called every
    /// few milliseconds.
    pub(crate) fn tell_more(&mut self) {
        self.tell(LEAVING_MAX);
    }

    /// The sessions whose connections cannot leave.
    pub(crate) fn staying(&self) -> Vec<SessionId> {
        self.staying.iter().map(LocalSession::id).collect()
    }

    /// Tells the clients that could not leave the end, each when what it has asked is answered.
    pub(crate) fn say_goodbye(&mut self) {
        self.staying.drain(..).for_each(|session| session.set_directive(Directive::Drain));
    }

    /// Whether all connections have left or ended.
    pub(crate) fn is_over(&self) -> bool {
        self.clients.are_gone() && self.leaving.is_empty()
    }

    fn tell(&mut self, n: usize) {
        let rest = self.to_tell.len().saturating_sub(n);
        self.to_tell.drain(rest..).for_each(|session| session.set_directive(Directive::Leave));
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        // A connection that has not been taken yet comes back by itself.
        self.leaving.close();
        while let Ok(one) = self.leaving.try_recv() {
            self.clients.take_back(one);
        }
    }
}

/// Whether a node's ports accept. Cheap to clone.
#[derive(Clone)]
pub(crate) struct OpenPorts(watch::Receiver<bool>);

impl OpenPorts {
    pub(crate) fn new(open: watch::Receiver<bool>) -> Self {
        Self(open)
    }

    /// Accepts, as `poll` does, while the ports are open. Cancel-safe.
    pub(crate) async fn accept<T>(
        &mut self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> io::Result<T> {
        loop {
            if !*self.0.borrow_and_update() {
                // The sender, which opens and closes the ports, is gone only with the node.
                if self.0.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                continue;
            }
            tokio::select! {
                biased;
                changed = self.0.changed() => if changed.is_err() {
                    return poll_fn(&mut poll).await;
                },
                accepted = poll_fn(&mut poll) => return accepted,
            }
        }
    }
}

/// Logs a failed accept and waits: out of descriptors, or a client that left while it waited. Neither ends the
/// acceptor, and the wait keeps the first from turning into a busy loop.
pub(crate) async fn accept_failed(port: &str, error: &io::Error) {
    warn!(limited_by = port, "{port}: a connection could not be accepted: {error}");
    tokio::time::sleep(Duration::from_millis(50)).await;
}
