//! The front: it accepts HTTP connections, serves them with the web server behind it, and gives those that are
//! between two requests away when another process takes over.

#[cfg(test)]
mod tests;

use std::io;
use std::net::TcpStream as StdStream;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustls::ServerConfig;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::certificates::Certificates;
use crate::config::FrontConfig;
use crate::connection::{self, Client, End};
use crate::owner::{Asked, Ends, Owners};
use crate::phase::Phase;
use crate::places::FrontAdmission;
use crate::socket::Socket;

/// The pause after a failed `accept`: without it, a process without free descriptors would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The answer to a request that is not encrypted and should be.
const NO_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\nContent-Length: 29\r\n\r\nthis port speaks HTTPS alone\n";

/// A connection that another process can go on with: its socket, and what has been read of its next request.
pub type Handoff = (StdStream, Vec<u8>);

/// Serves the connections of one listening socket. Dropping it cuts them.
#[derive(Debug)]
pub struct Front {
    shared: Arc<FrontShared>,
}

#[derive(Debug)]
struct FrontShared {
    config: FrontConfig,
    runtime: Handle,
    phase: watch::Sender<Phase>,
    open: watch::Sender<Open>,
    admission: FrontAdmission,
    /// Encrypts what is accepted.
    tls: Option<Arc<ServerConfig>>,
    /// Finds who is at the other end of connections.
    owners: Arc<Owners>,
    /// Takes the connections of a retirement.
    taker: Mutex<Option<mpsc::Sender<(TcpStream, Bytes)>>>,
}

#[derive(Debug, Default)]
struct Open {
    accepts: bool,
    connections: usize,
}

impl Front {
    /// Serves `listener` on `runtime`, as many connections at a time as `config.places` has. When requests run on all of them, those
    /// that come get a reserved place: what is always answered is answered there, everything else with 503. Only when requests run
    /// on those, too, they wait in the backlog.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn start(listener: std::net::TcpListener, config: FrontConfig, runtime: Handle) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = {
            let _here = runtime.enter();
            TcpListener::from_std(listener)?
        };
        let tls = config.asks.tls.as_ref().map(Certificates::settings).transpose()?;
        let shared = Arc::new(FrontShared {
            tls,
            owners: Arc::new(Owners::new()),
            admission: FrontAdmission::new(config.places),
            config,
            runtime,
            phase: watch::Sender::new(Phase::Serves),
            open: watch::Sender::default(),
            taker: Mutex::default(),
        });
        shared.runtime.spawn(accept(listener, shared.clone()));
        Ok(Self { shared })
    }

    /// Accepts nothing from now on (new clients wait in the backlog, for this process or its successor) and
    /// gives its connections away: each one as soon as it is between two requests, with what has been read
    /// of the next. Those whose request is running finish it first, and are cut at `until`.
    pub fn retire(&self, until: Instant) -> Retirement {
        // Each connection goes in once; those of a predecessor that could have more are among the open ones.
        let open = self.shared.open.borrow().connections;
        let (give, take) = mpsc::channel(self.shared.config.places.connections.max(open) + 1);
        *self.shared.taker.lock() = Some(give);
        self.shared.phase.send_replace(Phase::Retires { until });
        Retirement {
            shared: self.shared.clone(),
            take,
            open: self.shared.open.subscribe(),
            until,
            ended: false,
        }
    }

    /// Accepts and serves again after a retirement: the successor has failed.
    pub fn resume(&self) {
        self.shared.resume();
    }

    /// Serves a connection that another process has given away; `unread` is what that has read of it.
    ///
    /// # Errors
    /// The socket cannot be used.
    pub fn adopt(&self, stream: StdStream, unread: Vec<u8>) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        let stream = {
            let _here = self.shared.runtime.enter();
            TcpStream::from_std(stream)?
        };
        self.shared.take_in(stream, unread.into());
        Ok(())
    }

    /// Accepts nothing from now on, ends the connections that are between two requests, and waits until the
    /// others have finished their request (the answer says `Connection: close`) or `until` has come, when
    /// they are cut. Cancel-safe; begun is begun.
    pub async fn end(&self, until: Instant) {
        self.shared.phase.send_replace(Phase::Ends { until });
        let mut open = self.shared.open.subscribe();
        tokio::select! {
            _ = open.wait_for(Open::is_over) => {}
            () = sleep_until(until) => {}
        }
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.shared.open.borrow().connections
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.shared.phase.send_replace(Phase::Ends { until: Instant::now() });
    }
}

/// The connections of a front that retires. Dropping it before its end resumes the front, with those that
/// have not been taken.
#[derive(Debug)]
pub struct Retirement {
    shared: Arc<FrontShared>,
    take: mpsc::Receiver<(TcpStream, Bytes)>,
    open: watch::Receiver<Open>,
    until: Instant,
    ended: bool,
}

impl Retirement {
    /// The next connection to be given away; `None` when there is none left, or the time is over. Cancel-safe:
    /// nothing is lost when the future is dropped.
    pub async fn next(&mut self) -> Option<Handoff> {
        while !self.ended {
            let (stream, unread) = tokio::select! {
                biased;
                next = self.take.recv() => next?,
                _ = self.open.wait_for(Open::is_over) => match self.take.try_recv() {
                    Ok(next) => next,
                    Err(_) => break,
                },
                () = sleep_until(self.until) => break,
            };
            match stream.into_std() {
                Ok(stream) => return Some((stream, unread.into())),
                Err(e) => debug!(limited_by = "", "webport: a connection cannot be given away: {e}"),
            }
        }
        self.ended = true;
        None
    }
}

impl Drop for Retirement {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        self.shared.resume();
        self.take.close();
        while let Ok((stream, unread)) = self.take.try_recv() {
            self.shared.take_in(stream, unread);
        }
    }
}

impl Open {
    fn is_over(&self) -> bool {
        !self.accepts && self.connections == 0
    }
}

impl FrontShared {
    fn resume(&self) {
        self.taker.lock().take();
        self.phase.send_replace(Phase::Serves);
    }

    /// Serves a connection that has been served before, whatever the bounds are.
    fn take_in(self: &Arc<Self>, stream: TcpStream, unread: Bytes) {
        let Ok(peer) = stream.peer_addr() else { return };
        let place = self.admission.take_in(peer.ip());
        let asked = self.asked(&stream);
        self.open(stream, Client { address: peer.ip(), place, asked }, unread);
    }

    /// What is to be known of a connection, where that is asked for.
    fn asked(&self, stream: &TcpStream) -> Option<Asked> {
        let ends = self.config.asks.peer.then(|| Ends::of(stream).ok()).flatten()?;
        Some(Asked { ends, owners: self.owners.clone() })
    }

    fn open(self: &Arc<Self>, stream: TcpStream, client: Client, unread: Bytes) {
        self.open.send_modify(|open| open.connections += 1);
        let counted = Counted(self.clone());
        self.runtime.spawn(async move { counted.0.serve(stream, client, unread).await });
    }

    async fn serve(&self, stream: TcpStream, mut client: Client, unread: Bytes) {
        let (address, asked) = (client.address, client.asked.clone());
        // Whole answers are written at once, so the kernel's coalescing would only add delay.
        let _ = stream.set_nodelay(true);
        let mut phases = self.phase.subscribe();
        if let Some(tls) = &self.tls {
            let Some(stream) = self.encrypt(tls, stream, &client, &mut phases).await else { return };
            // It never moves.
            connection::serve(stream, client, unread, &self.config, &mut phases).await;
            return;
        }
        let mut one = (stream, unread);
        loop {
            let (stream, unread) = one;
            let stream = Socket::Plain(stream);
            one = match connection::serve(stream, client, unread, &self.config, &mut phases).await {
                End::Closed => return,
                End::Moves(stream, unread) => (stream, unread),
            };
            one = match self.give_away(one) {
                Ok(()) => return,
                Err(one) => one,
            };
            if let Phase::Retires { .. } = *self.phase.borrow() {
                return debug!(peer = %address, "webport: a connection was cut: nobody takes it any more");
            }
            client = Client { address, place: self.admission.take_in(address), asked: asked.clone() };
        }
    }

    /// Shakes hands, within the time that a request's head has; who is not done when others need the place, or when this front
    /// stops serving, is cut.
    async fn encrypt(
        &self,
        tls: &Arc<ServerConfig>,
        stream: TcpStream,
        client: &Client,
        phases: &mut watch::Receiver<Phase>,
    ) -> Option<Socket> {
        let shakes = async {
            let mut first = [0];
            if stream.peek(&mut first).await? > 0 && first != [ffnet::tls::FIRST_BYTE] {
                // Who speaks HTTP here gets one line; it is not read what for.
                let _ = stream.try_write(NO_TLS);
                return Err(io::Error::other("it does not speak TLS"));
            }
            TlsAcceptor::from(tls.clone()).accept(stream).await
        };
        tokio::select! {
            shaken = timeout(self.config.timeouts.head, shakes) => match shaken {
                Ok(Ok(stream)) => Some(Socket::Encrypted(Box::new(stream))),
                Ok(Err(e)) => {
                    debug!(peer = %client.address, "webport: no TLS: {e}");
                    None
                }
                Err(_) => None,
            },
            () = client.place.slot.evicted() => None,
            _ = phases.wait_for(|phase| *phase != Phase::Serves) => None,
        }
    }

    fn give_away(&self, one: (TcpStream, Bytes)) -> Result<(), (TcpStream, Bytes)> {
        match &*self.taker.lock() {
            Some(taker) => taker.try_send(one).map_err(TrySendError::into_inner),
            None => Err(one),
        }
    }
}

/// One open connection.
struct Counted(Arc<FrontShared>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.open.send_modify(|open| open.connections -= 1);
    }
}

async fn accept(listener: TcpListener, shared: Arc<FrontShared>) {
    let mut phases = shared.phase.subscribe();
    loop {
        let phase = *phases.borrow_and_update();
        let serves = phase == Phase::Serves;
        // From here on nothing is accepted that a retirement does not see.
        shared.open.send_modify(|open| open.accepts = serves);
        if let Phase::Ends { .. } = phase {
            return;
        }
        let accepted = async {
            shared.admission.room().await;
            listener.accept().await
        };
        tokio::select! {
            biased;
            changed = phases.changed() => if changed.is_err() { return },
            accepted = accepted, if serves => match accepted {
                Ok((stream, from)) => {
                    // Where an address has too many requests running, its next connection ends.
                    if let Some(place) = shared.admission.admit(from.ip()) {
                        let asked = shared.asked(&stream);
                        shared.open(stream, Client { address: from.ip(), place, asked }, Bytes::new());
                    }
                    // In a flood of connections, one that has sent its request is not idle any more when the next ones come.
                    yield_now().await;
                }
                Err(e) => {
                    warn!(limited_by = "", "webport: a connection could not be accepted: {e}");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
}
