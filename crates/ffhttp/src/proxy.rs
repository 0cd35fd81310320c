//! The way of one request through the front: on to the web server with the client's address in its headers, and
//! the answer back; both bodies pass piece by piece.

use std::convert::Infallible;
use std::error::Error;
use std::fmt::Display;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{self, HeaderMap, HeaderName, HeaderValue};
use hyper::service::Service;
use hyper::{Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::config::FrontConfig;
use crate::monitor::Monitor;
use crate::owner::Asked;
use crate::peer::Peer;
use crate::upstream::{SECRET, Upstream};

/// The header in which the web server finds the client's address; what a client says there is replaced.
pub(crate) const REAL_IP: &str = "X-Real-IP";

const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const PEER: HeaderName = HeaderName::from_static("x-ff-peer");
/// The headers by which a proxy says that it is one.
const OF_PROXIES: [HeaderName; 6] = [
    X_REAL_IP,
    X_FORWARDED_FOR,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    header::FORWARDED,
    header::VIA,
];
/// The headers that are meant for the next hop only (RFC 9110, 7.6.1), besides what `Connection` names.
const HOP_BY_HOP: [HeaderName; 7] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The requests of one client connection. They come one after the other, and go on over one connection to
/// the web server, which is opened for the first.
pub(crate) struct Proxy {
    exchange: Exchange,
}

impl Proxy {
    /// Of a client: its address, both ends of its connection where its front asks who it is, and whether the connection is encrypted.
    pub(crate) fn new(
        config: &FrontConfig,
        (client, asked, encrypted): (IpAddr, Option<Asked>, bool),
        monitor: Arc<Monitor>,
    ) -> Self {
        let (server, always) = (config.upstream.clone(), config.places.always);
        let upstream = Arc::default();
        Self { exchange: Exchange { server, always, client, asked, encrypted, monitor, upstream } }
    }
}

impl Service<Request<Incoming>> for Proxy {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let monitor = &self.exchange.monitor;
        monitor.slot.busy();
        monitor.traffic.lock().request(!request.body().is_end_stream());
        let request = request.map(|body| Upload { body, monitor: monitor.clone() });
        let exchange = self.exchange.clone();
        Box::pin(async move {
            let answer = exchange.answer(request).await;
            exchange.monitor.traffic.lock().answers();
            let monitor = exchange.monitor;
            Ok(answer.map(|body| Answer { body, monitor, ended: false }))
        })
    }
}

type AnswerBody = Either<Incoming, Full<Bytes>>;

#[derive(Clone)]
struct Exchange {
    server: Arc<Upstream>,
    always: &'static [&'static str],
    client: IpAddr,
    /// Both ends of the connection, where its front asks who is at the other one.
    asked: Option<Asked>,
    encrypted: bool,
    monitor: Arc<Monitor>,
    upstream: Arc<Mutex<Option<SendRequest<Upload>>>>,
}

impl Exchange {
    /// The peer of a request with these headers, looked up now. Whose owner cannot be found has none.
    async fn peer(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let Asked { ends, owners } = self.asked.as_ref()?;
        let forwarded = OF_PROXIES.iter().any(|name| headers.contains_key(name));
        let owner = owners.of(*ends).await.unwrap_or_else(|e| {
            warn!(peer = %self.client, "webport: the owner of a connection over loopback cannot be found: {e}");
            None
        });
        let (client, server) = (ends.client, ends.server);
        let peer = Peer { client, server, owner, encrypted: self.encrypted, forwarded };
        HeaderValue::try_from(peer.to_string()).ok()
    }

    async fn answer(&self, mut request: Request<Upload>) -> Response<AnswerBody> {
        let Some(uri) = path_of(&request) else {
            return plain(StatusCode::NOT_IMPLEMENTED, "this is no proxy for other servers");
        };
        if !has_one_host(&request) {
            return plain(StatusCode::BAD_REQUEST, "a request has one Host header");
        }
        if self.monitor.reserved && !self.always.contains(&uri.path()) {
            let mut busy = plain(StatusCode::SERVICE_UNAVAILABLE, "too many requests run already");
            busy.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return busy;
        }
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_11;
        // This front's own end of an upgrade is not the web server's.
        drop(hyper::upgrade::on(&mut request));
        let peer = self.peer(request.headers()).await;
        prepare(request.headers_mut(), self.client);
        request.headers_mut().remove(PEER);
        if let Some(peer) = peer {
            request.headers_mut().insert(PEER, peer);
        }
        request.headers_mut().insert(SECRET, self.server.secret());
        match self.send(request).await {
            Ok(answer) => self.pass(answer),
            Err(why) if self.monitor.upload_broke.load(Ordering::Relaxed) => {
                debug!(peer = %self.client, "webport: a request's body breaks off, or is none: {why}");
                plain(StatusCode::BAD_REQUEST, "the body of this request breaks off, or is none")
            }
            Err(why) => {
                warn!(peer = %self.client, "webport: the web server behind it does not answer: {why}");
                plain(StatusCode::BAD_GATEWAY, "the web server of this node does not answer")
            }
        }
    }

    async fn send(&self, mut request: Request<Upload>) -> Result<Response<Incoming>, Failed> {
        let kept = self.upstream.lock().take();
        if let Some(mut sender) = kept
            && sender.ready().await.is_ok()
        {
            match sender.try_send_request(request).await {
                Ok(answer) => return Ok(self.keep(sender, answer)),
                // Nothing of it was sent: the connection had ended.
                Err(mut failed) => match failed.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(failed.into_error().into()),
                },
            }
        }
        let mut sender = self.connect().await?;
        let answer = sender.send_request(request).await?;
        Ok(self.keep(sender, answer))
    }

    fn keep(&self, sender: SendRequest<Upload>, answer: Response<Incoming>) -> Response<Incoming> {
        *self.upstream.lock() = Some(sender);
        answer
    }

    async fn connect(&self) -> Result<SendRequest<Upload>, Failed> {
        let stream = self.server.connect().await?;
        let mut builder = http1::Builder::new();
        builder.preserve_header_case(true);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        // Ends when the sender and the last answer's body are gone.
        tokio::spawn(async move {
            if let Err(e) = connection.with_upgrades().await {
                debug!(limited_by = "", "webport: the connection to the web server broke: {e}");
            }
        });
        sender.ready().await?;
        Ok(sender)
    }

    fn pass(&self, mut answer: Response<Incoming>) -> Response<AnswerBody> {
        let upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        let protocol = answer.headers().get(header::UPGRADE).cloned();
        strip(answer.headers_mut());
        if upgraded {
            *self.monitor.upgrade.lock() = Some(hyper::upgrade::on(&mut answer));
            upgrade(answer.headers_mut(), protocol);
        }
        answer.map(Either::Left)
    }
}

type Failed = Box<dyn Error + Send + Sync>;

/// Path and query alone, however the client has written its target; `None` for what asks for a tunnel.
fn path_of<B>(request: &Request<B>) -> Option<Uri> {
    if request.method() == Method::CONNECT {
        return None;
    }
    let path = request.uri().path_and_query()?;
    Uri::builder().path_and_query(path.clone()).build().ok()
}

/// Whether a request says once which host it is for (RFC 9112, 3.2). Two could mean one thing to a guard and another to who serves.
fn has_one_host<B>(request: &Request<B>) -> bool {
    let hosts = request.headers().get_all(header::HOST).iter().count();
    hosts == 1 || hosts == 0 && request.version() < Version::HTTP_11
}

/// Writes the headers that the web server is to see: the client's address from its socket and nowhere else.
fn prepare(headers: &mut HeaderMap, client: IpAddr) {
    let upgrades = has_token(headers, &header::CONNECTION, "upgrade");
    let protocol = headers.get(header::UPGRADE).filter(|_| upgrades).cloned();
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    strip(headers);
    // This front says `100 Continue` itself, as soon as the web server reads the body.
    headers.remove(header::EXPECT);
    headers.remove(header::FORWARDED);
    // IPv4 clients of an IPv6 socket are shown as what they are.
    if let Ok(address) = HeaderValue::try_from(client.to_canonical().to_string()) {
        headers.insert(X_REAL_IP, address.clone());
        headers.insert(X_FORWARDED_FOR, address);
    }
    if protocol.is_some() {
        upgrade(headers, protocol);
    }
}

fn upgrade(headers: &mut HeaderMap, protocol: Option<HeaderValue>) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        headers.insert(header::UPGRADE, protocol);
    }
}

/// Removes what was meant for this hop.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
        .filter_map(|token| token.parse().ok())
        // A connection's end is not the place to take these away.
        .filter(|name| !matches!(*name, header::CONTENT_LENGTH | header::HOST))
        .collect();
    for name in HOP_BY_HOP.into_iter().chain(named) {
        headers.remove(name);
    }
}

fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim)
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token))
}

fn plain(status: StatusCode, text: impl Display) -> Response<AnswerBody> {
    let mut answer = Response::new(Either::Right(Full::new(Bytes::from(format!("{text}\n")))));
    *answer.status_mut() = status;
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(header::CONTENT_TYPE, text);
    answer
}

/// A request's body on its way to the web server.
struct Upload {
    body: Incoming,
    monitor: Arc<Monitor>,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match polled {
            Poll::Ready(None) => self.end(true),
            // What the client sends is no fault of the web server.
            Poll::Ready(Some(Err(_))) => self.monitor.upload_broke.store(true, Ordering::Relaxed),
            _ => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Upload {
    fn end(&self, whole: bool) {
        self.monitor.traffic.lock().body_ended(whole);
        self.monitor.changed.notify_one();
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.end(self.body.is_end_stream());
    }
}

/// An answer's body on its way to the client.
pub(crate) struct Answer {
    body: AnswerBody,
    monitor: Arc<Monitor>,
    ended: bool,
}

impl Body for Answer {
    type Data = Bytes;
    type Error = Failed;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failed>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        match polled {
            Poll::Ready(Some(_)) => self.monitor.traffic.lock().answers(),
            Poll::Ready(None) => self.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        let whole = self.ended || self.body.is_end_stream();
        self.monitor.traffic.lock().answered(Instant::now(), whole);
        // What has become another protocol is never idle.
        if self.monitor.upgrade.lock().is_none() {
            self.monitor.slot.idle();
        }
    }
}
