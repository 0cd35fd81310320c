//! One HTTP connection of a client: served here until it ends, or until another process can go on with it.

use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::debug;

use crate::config::{FrontConfig, Timeouts};
use crate::monitor::Monitor;
use crate::owner::Asked;
use crate::phase::Phase;
use crate::places::Place;
use crate::prefixed_stream::PrefixedStream;
use crate::proxy::Proxy;
use crate::socket::Socket;

/// The bytes that a connection may hold of a request that is not whole.
const READ_BYTES_MAX: usize = 64 * 1024;
/// How often a connection is asked whether its client is silent.
const LOOK: Duration = Duration::from_secs(1);
/// How long the server's end of an upgrade may take; the server has agreed, so its socket is there at once.
const UPGRADE_WAIT: Duration = Duration::from_secs(5);

type Http = http1::Connection<TokioIo<PrefixedStream>, Proxy>;

/// The client of a connection: its address, and its place at the front.
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) place: Place,
    /// Both ends, where the front asks who is at the other one.
    pub(crate) asked: Option<Asked>,
}

/// Why a connection is not served here any more.
pub(crate) enum End {
    /// The connection ended, or was cut.
    Closed,
    /// The connection is between two requests: its socket, and what has been read of the next.
    Moves(TcpStream, Bytes),
}

/// Serves a connection, of which `unread` has been read before.
pub(crate) async fn serve(
    stream: Socket,
    client: Client,
    unread: Bytes,
    config: &FrontConfig,
    phases: &mut watch::Receiver<Phase>,
) -> End {
    let monitor = Monitor::new(client.place);
    let encrypted = stream.is_encrypted();
    let stream = PrefixedStream::new(stream, unread, monitor.clone());
    let proxy = Proxy::new(config, (client.address, client.asked, encrypted), monitor.clone());
    let http = http1::Builder::new()
        .preserve_header_case(true)
        .max_buf_size(READ_BYTES_MAX)
        // Silence is judged by the monitor.
        .header_read_timeout(None)
        .serve_connection(TokioIo::new(stream), proxy);
    let (timeouts, address) = (config.timeouts, client.address);
    Served { http, monitor, timeouts, encrypted, address }.run(phases).await
}

struct Served {
    http: Http,
    monitor: Arc<Monitor>,
    timeouts: Timeouts,
    /// The keys of TLS are here: the connection cannot move.
    encrypted: bool,
    address: IpAddr,
}

/// The result of polling.
enum HttpTurn {
    Ended(hyper::Result<()>),
    CanMove,
}

impl Served {
    async fn run(mut self, phases: &mut watch::Receiver<Phase>) -> End {
        loop {
            let phase = *phases.borrow_and_update();
            self.monitor.traffic.lock().hold(matches!(phase, Phase::Retires { .. }) && !self.encrypted);
            let retires = matches!(phase, Phase::Retires { .. });
            if retires && self.encrypted {
                self.monitor.traffic.lock().pin();
            }
            if matches!(phase, Phase::Ends { .. }) || retires && self.encrypted {
                Pin::new(&mut self.http).graceful_shutdown();
            }
            let look = phase.until().map_or(Instant::now() + LOOK, |until| until.min(Instant::now() + LOOK));
            let turn = tokio::select! {
                biased;
                // First, so that no answer is begun in the phase before.
                changed = phases.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return End::Closed,
                },
                turn = poll_fn(|cx| poll(&mut self.http, &self.monitor, cx, phase)) => turn,
                () = self.monitor.changed.notified() => continue,
                () = self.monitor.slot.evicted() => {
                    debug!(peer = %self.address, "webport: a connection was cut: it has made room for another one");
                    return End::Closed;
                }
                () = sleep_until(look) => match self.why_cut(phase) {
                    Some(why) => {
                        debug!(peer = %self.address, "webport: a connection was cut: {why}");
                        return End::Closed;
                    }
                    None => continue,
                },
            };
            match turn {
                HttpTurn::CanMove if self.is_between_requests() => {
                    return match self.into_parts() {
                        (Socket::Plain(stream), unread) => End::Moves(stream, unread),
                        (Socket::Encrypted(_), _) => End::Closed,
                    };
                }
                // It ends after its answer, as at a stop.
                HttpTurn::CanMove => self.monitor.traffic.lock().pin(),
                HttpTurn::Ended(Ok(())) => return self.ended(phases).await,
                HttpTurn::Ended(Err(e)) => {
                    debug!(peer = %self.address, "webport: a connection broke: {e}");
                    return End::Closed;
                }
            }
        }
    }

    fn why_cut(&self, phase: Phase) -> Option<&'static str> {
        let now = Instant::now();
        if phase.until().is_some_and(|until| until <= now) {
            return Some("its request did not end in time");
        }
        self.monitor
            .traffic
            .lock()
            .is_silent(now, self.timeouts)
            .then_some("its client was silent for too long")
    }

    /// hyper has the last word: a connection between two requests ends at once when it is told to, and has
    /// written everything.
    fn is_between_requests(&mut self) -> bool {
        if !self.monitor.traffic.lock().is_used() {
            return true;
        }
        Pin::new(&mut self.http).graceful_shutdown();
        let polled = self.http.poll_without_shutdown(&mut Context::from_waker(Waker::noop()));
        matches!(polled, Poll::Ready(Ok(())))
    }

    fn into_parts(self) -> (Socket, Bytes) {
        let parts = self.http.into_parts();
        parts.io.into_inner().into_parts(parts.read_buf)
    }

    /// The connection has ended, or goes on with another protocol.
    async fn ended(self, phases: &mut watch::Receiver<Phase>) -> End {
        let Some(upgraded) = self.monitor.upgrade.lock().take() else { return End::Closed };
        let address = self.address;
        let (stream, unread) = self.into_parts();
        tokio::select! {
            () = tunnel(stream, address, unread, upgraded) => {}
            () = over(phases) => {}
        }
        End::Closed
    }
}

fn poll(http: &mut Http, monitor: &Monitor, cx: &mut Context<'_>, phase: Phase) -> Poll<HttpTurn> {
    let polled = Pin::new(http).poll(cx).map(HttpTurn::Ended);
    let retires = matches!(phase, Phase::Retires { .. });
    if polled.is_pending() && retires && monitor.traffic.lock().can_move() {
        return Poll::Ready(HttpTurn::CanMove);
    }
    polled
}

/// Carries both directions of an upgraded connection until it ends. Such a connection cannot move.
async fn tunnel(mut client: Socket, address: IpAddr, unread: Bytes, upgraded: OnUpgrade) {
    let upgraded = match timeout(UPGRADE_WAIT, upgraded).await {
        Ok(Ok(upgraded)) => upgraded,
        Ok(Err(e)) => return debug!(peer = %address, "webport: no upgrade: {e}"),
        Err(_) => return debug!(peer = %address, "webport: no upgrade within {UPGRADE_WAIT:?}"),
    };
    let mut upgraded = TokioIo::new(upgraded);
    let moved = async {
        upgraded.write_all(&unread).await?;
        copy_bidirectional(&mut client, &mut upgraded).await
    };
    if let Err(e) = moved.await {
        debug!(peer = %address, "webport: an upgraded connection broke: {e}");
    }
}

/// Waits until the time of a retirement or an end is over.
async fn over(phases: &mut watch::Receiver<Phase>) {
    loop {
        let until = phases.borrow_and_update().until();
        tokio::select! {
            () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => return,
            changed = phases.changed() => if changed.is_err() { return },
        }
    }
}
