//! The client of a master's HTTP interface: one request a connection, and why a request came to nothing.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_util::either::Either;
use zeroize::Zeroizing;

use super::{PlaceError, exit};
use crate::cli;

/// How long a connection may take.
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// How long a page may take: the master answers also while nodes hang.
const PAGE_MAX: Duration = Duration::from_secs(15);
/// The longest answer: `/metrics` of 200 nodes has some 20 MB.
const BODY_BYTES_MAX: usize = 128 * 1024 * 1024;

/// Why nothing, or not what was wanted, came of a command.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It is not known whom to ask, or with which token.
    #[error(transparent)]
    Place(#[from] PlaceError),
    /// No master answers.
    #[error("no master answers at {url}: {why}{hint}")]
    NoMaster {
        /// Who was asked.
        url: String,
        /// Why not.
        why: String,
        /// Where it may be instead.
        hint: String,
    },
    /// The master refuses who asks.
    #[error("refused ({status}): {text}")]
    Refused {
        /// 401, 403 or 429.
        status: u16,
        /// The master's sentence.
        text: String,
    },
    /// Another command runs, or it does not fit.
    #[error("{0}")]
    Busy(String),
    /// There is no such node, session or command.
    #[error("{text}{}", .nearest.as_ref().map_or_else(String::new, |near| format!("; is `{near}` meant?")))]
    Unknown {
        /// The master's sentence.
        text: String,
        /// The name that is nearest.
        nearest: Option<String>,
    },
    /// The master does not have this yet.
    #[error("the master at {url} has no `{path}`: it is of a release before this command's")]
    NoRoute {
        /// Who was asked.
        url: String,
        /// What for.
        path: String,
    },
    /// The arguments make no sense.
    #[error("{0}")]
    Usage(String),
    /// The master could not, or has answered something that is not understood.
    #[error("{0}")]
    Failed(String),
    /// Nothing can be printed.
    #[error("standard output")]
    Output(#[source] std::io::Error),
}

impl AskError {
    /// The exit code that scripts see.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Place(PlaceError::Token { .. } | PlaceError::Certificate { .. }) => exit::FAILED,
            Self::Place(PlaceError::Url(_) | PlaceError::NoCertificate { .. }) | Self::Usage(_) => {
                cli::exit::USAGE
            }
            Self::Place(PlaceError::Config { .. } | PlaceError::Webport { .. }) => cli::exit::CONFIG,
            Self::NoMaster { .. } => exit::NO_MASTER,
            Self::Refused { .. } => exit::REFUSED,
            Self::Busy(_) => exit::BUSY,
            Self::Unknown { .. } => exit::UNKNOWN,
            Self::NoRoute { .. } | Self::Failed(_) | Self::Output(_) => exit::FAILED,
        }
    }
}

/// Why a text is no URL of a master.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUrl {
    /// Another scheme, a path, no host.
    #[error("`{0}` is no http://HOST:PORT, and no https://HOST:PORT")]
    Other(String),
}

/// The address of a master.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct At {
    /// `HOST:PORT`.
    authority: String,
    https: bool,
    /// The host that the config names for nodes elsewhere, when the address is this host's.
    elsewhere: Option<String>,
}

impl At {
    /// Of `http://HOST:PORT`, also without `http://`, or of `https://HOST:PORT`; nothing but `/` behind it.
    pub(super) fn parse(url: &str) -> Result<Self, BadUrl> {
        let bad = || BadUrl::Other(url.to_owned());
        let (https, rest) = match url.strip_prefix("https://") {
            Some(rest) => (true, rest),
            None => (false, url.strip_prefix("http://").unwrap_or(url)),
        };
        let rest = rest.trim_end_matches('/');
        let strange = |c: char| c.is_whitespace() || c.is_control() || "/?#@".contains(c);
        if rest.is_empty() || rest.contains(strange) {
            return Err(bad());
        }
        let authority = match rest.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && !port.contains(']') => {
                let _: u16 = port.parse().map_err(|_| bad())?;
                rest.to_owned()
            }
            Some((host, _)) if !host.starts_with('[') => return Err(bad()),
            _ => format!("{rest}:{}", if https { 443 } else { 80 }),
        };
        Ok(Self { authority, https, elsewhere: None })
    }

    /// Of a config's `webport` and `roothost`.
    pub(super) fn of_config(mut webport: SocketAddr, roothost: Option<String>, https: bool) -> Self {
        if webport.ip().is_unspecified() {
            match webport {
                SocketAddr::V4(_) => webport.set_ip(Ipv4Addr::LOCALHOST.into()),
                SocketAddr::V6(_) => webport.set_ip(Ipv6Addr::LOCALHOST.into()),
            }
        }
        let elsewhere = roothost.filter(|host| host != "localhost" && webport.ip().is_loopback());
        Self {
            authority: webport.to_string(),
            https,
            elsewhere: elsewhere.map(|host| format!("{host}:{}", webport.port())),
        }
    }

    pub(super) fn url(&self) -> String {
        format!("{}://{}", if self.https { "https" } else { "http" }, self.authority)
    }

    pub(super) fn is_https(&self) -> bool {
        self.https
    }

    /// The host's name, as a certificate has it.
    fn host(&self) -> &str {
        let host = self.authority.rsplit_once(':').map_or(self.authority.as_str(), |(host, _)| host);
        host.trim_start_matches('[').trim_end_matches(']')
    }
}

/// An answer of the master.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) text: String,
    path: String,
}

/// What a refusal says.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    #[serde(default)]
    faults: Vec<String>,
}

impl Answer {
    pub(super) fn is_good(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The answer as a value.
    pub(super) fn read<T: for<'de> Deserialize<'de>>(&self) -> Result<T, AskError> {
        let strange = |e| AskError::Failed(format!("{}: the answer is not understood: {e}", self.path));
        serde_json::from_str(&self.text).map_err(strange)
    }

    /// The sentence of a refusal; with every fault where there are some.
    fn sentence(&self) -> String {
        match serde_json::from_str::<Refusal>(&self.text) {
            Ok(Refusal { error, faults }) if faults.is_empty() => error,
            Ok(Refusal { faults, .. }) => faults.join("\n"),
            Err(_) => format!("{} was answered with {}", self.path, self.status),
        }
    }
}

/// The client of one master.
pub(super) struct Client {
    at: At,
    token: Option<Zeroizing<String>>,
    trusted: Option<TlsConnector>,
}

/// A connection to a master, plain or encrypted.
type Connection = Either<TcpStream, TlsStream<TcpStream>>;

impl Client {
    /// `trusted` is what connects to a master that speaks HTTPS.
    pub(super) fn new(at: At, token: Option<Zeroizing<String>>, trusted: Option<TlsConnector>) -> Self {
        Self { at, token, trusted }
    }

    pub(super) fn url(&self) -> String {
        self.at.url()
    }

    /// A page, which must be there.
    pub(super) async fn get(&self, path: &str) -> Result<Answer, AskError> {
        let exchange = async { self.whole(self.send(Method::GET, path, Vec::new()).await?, path).await };
        let late = || self.silent(format!("no answer to {path} within {} s", PAGE_MAX.as_secs()));
        timeout(PAGE_MAX, exchange).await.map_err(|_| late())?
    }

    /// A command, which takes as long as it takes.
    pub(super) async fn post(&self, path: &str, body: Vec<u8>) -> Result<Answer, AskError> {
        self.whole(self.send(Method::POST, path, body).await?, path).await
    }

    /// An answer that does not end; a refusal is an error.
    pub(super) async fn stream(&self, path: &str) -> Result<Incoming, AskError> {
        let sent = timeout(PAGE_MAX, self.send(Method::GET, path, Vec::new())).await;
        let response = sent.map_err(|_| self.silent("no answer".to_owned()))??;
        if response.status().is_success() {
            return Ok(response.into_body());
        }
        let answer = self.whole(response, path).await?;
        Err(self.refusal(&answer))
    }

    /// Why an answer that is not good is not.
    pub(super) fn refusal(&self, answer: &Answer) -> AskError {
        let text = answer.sentence();
        match answer.status {
            status @ (401 | 403 | 429) => AskError::Refused { status, text },
            404 | 405 if text.starts_with("there is no such page") || answer.status == 405 => {
                AskError::NoRoute { url: self.url(), path: answer.path.clone() }
            }
            404 => AskError::Unknown { text, nearest: None },
            409 => AskError::Busy(text),
            _ => AskError::Failed(text),
        }
    }

    /// The same of a command for a node: with the node that is meant.
    pub(super) async fn refusal_of(&self, answer: &Answer, node: Option<&str>) -> AskError {
        match (self.refusal(answer), node) {
            (AskError::Unknown { .. }, Some(node)) => {
                let nearest = self.nearest(node).await;
                AskError::Unknown {
                    text: format!("there is no node `{node}`; `master status` shows them"),
                    nearest,
                }
            }
            (refusal, _) => refusal,
        }
    }

    async fn nearest(&self, name: &str) -> Option<String> {
        let status: Value = self.get("/status").await.ok()?.read().ok()?;
        let nodes = status["nodes"].as_array()?.iter().filter_map(|node| node["name"].as_str());
        ffconfig::nearest(name, nodes)
    }

    fn silent(&self, why: String) -> AskError {
        let hint = match &self.at.elsewhere {
            Some(elsewhere) => format!("; one of another host: --at http://{elsewhere}"),
            None => String::new(),
        };
        AskError::NoMaster { url: self.url(), why, hint }
    }

    async fn connect(&self) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(&self.at.authority).await?;
        let Some(trusted) = self.trusted.as_ref().filter(|_| self.at.https) else {
            return Ok(Either::Left(stream));
        };
        let name = ServerName::try_from(self.at.host().to_owned()).map_err(std::io::Error::other)?;
        Ok(Either::Right(trusted.connect(name, stream).await?))
    }

    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<Response<Incoming>, AskError> {
        let silent = |error: &dyn std::error::Error| self.silent(fftelemetry::chain(error));
        let connected = timeout(CONNECT_MAX, self.connect()).await;
        let stream = connected.map_err(|e| silent(&e))?.map_err(|e| silent(&e))?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| silent(&e))?;
        // It ends with the answer; its error is the answer's.
        tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::builder().method(method).uri(path).header(HOST, &self.at.authority);
        request = request.header(ACCEPT, "application/json");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {}", token.as_str()));
        }
        let request = request.body(Full::new(Bytes::from(body)));
        let request = request.map_err(|e| AskError::Usage(format!("this cannot be sent: {e}")))?;
        sender.send_request(request).await.map_err(|e| silent(&e))
    }

    async fn whole(&self, response: Response<Incoming>, path: &str) -> Result<Answer, AskError> {
        let status = response.status().as_u16();
        let body = Limited::new(response.into_body(), BODY_BYTES_MAX).collect().await;
        let body = body.map_err(|e| self.silent(fftelemetry::chain(&*e)))?.to_bytes();
        let path = path.split('?').next().unwrap_or(path).to_owned();
        Ok(Answer { status, text: String::from_utf8_lossy(&body).into_owned(), path })
    }
}

/// A text as it may stand in a URL, between two separators.
pub(super) fn in_url(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            safe.push(char::from(byte));
        } else {
            let _ = write!(safe, "%{byte:02X}");
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(status: u16, text: &str) -> AskError {
        let client = Client::new(At::parse("h:1").unwrap(), None, None);
        client.refusal(&Answer { status, text: text.to_owned(), path: "/x".to_owned() })
    }

    #[test]
    fn each_refusal_has_its_exit_code() {
        let said = r#"{"ok": false, "error": "why"}"#;
        for (status, code) in [(401, 4), (403, 4), (429, 4), (404, 6), (409, 5), (422, 1), (500, 1), (503, 1)]
        {
            let refusal = refusal(status, said);
            assert_eq!(refusal.exit_code(), code, "{status}");
            assert!(refusal.to_string().contains("why"), "{refusal}");
        }
        let none = refusal(404, r#"{"error": "there is no such page; `/` shows what there is"}"#);
        assert_eq!(none.exit_code(), 1);
        assert!(none.to_string().contains("of a release before"), "{none}");
        let faults = refusal(422, r#"{"error": "two", "faults": ["one", "two"]}"#);
        assert_eq!(faults.to_string(), "one\ntwo");
        assert_eq!(refusal(502, "<html>").to_string(), "/x was answered with 502");
    }

    #[test]
    fn a_url_names_a_host_and_a_port() {
        let at = |url: &str| At::parse(url).map(|at| at.authority);
        assert_eq!(at("http://127.0.0.1:9998").as_deref(), Ok("127.0.0.1:9998"));
        assert_eq!(at("http://[::1]:9998/").as_deref(), Ok("[::1]:9998"));
        assert_eq!(at("http://[::1]").as_deref(), Ok("[::1]:80"));
        assert_eq!(at("game.example").as_deref(), Ok("game.example:80"));
        assert_eq!(at("https://game.example").as_deref(), Ok("game.example:443"));
        assert_eq!(At::parse("https://[::1]:9/").unwrap().host(), "::1");
        for bad in ["", "http://", "http://a/b", "a:b", ":9", "a b:1", "http://u@h:1", "http://a:99999"] {
            assert_eq!(at(bad), Err(BadUrl::Other(bad.to_owned())));
        }
    }

    #[test]
    fn a_silent_master_of_another_host_is_named() {
        let at = At::of_config("0.0.0.0:9998".parse().unwrap(), Some("game.example".into()), false);
        let said = Client::new(at, None, None).silent("refused".into()).to_string();
        assert!(
            said.contains(
                "http://127.0.0.1:9998: refused; one of another host: --at http://game.example:9998"
            ),
            "{said}"
        );
    }

    #[test]
    fn names_cannot_leave_their_place_in_a_url() {
        assert_eq!(in_url("game1"), "game1");
        assert_eq!(in_url("a/../b?c d"), "a%2F..%2Fb%3Fc%20d");
    }
}
