//! An operator's `curl`, with one request per connection, and a program's keep-alive connection.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A status code and a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Response {
    /// For instance 200.
    pub status: u16,
    /// The header lines, as they came.
    pub head: String,
    /// The text after the headers.
    pub body: String,
}

impl Response {
    /// The body as JSON.
    ///
    /// # Errors
    /// It is none.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }
}

/// `curl -X METHOD http://ADDRESS/PATH`.
///
/// # Errors
/// Nobody answers within 60 seconds (a reload restarts every node before it answers).
pub async fn request(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
) -> Result<Response> {
    request_with(address, method, path, headers, b"").await
}

/// The same with a body: `curl -X METHOD --data-binary BODY http://ADDRESS/PATH`.
///
/// # Errors
/// As [`request`].
pub async fn request_with(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<Response> {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await?;
        let length = body.len();
        let mut head =
            format!("{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            head.push_str(&format!("Host: {address}\r\n"));
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        stream.write_all(format!("{head}\r\n").as_bytes()).await?;
        stream.write_all(body).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        parse(&String::from_utf8_lossy(&answer))
    };
    timeout(Duration::from_secs(60), exchange)
        .await
        .with_context(|| format!("{method} {path}: no answer"))?
        .with_context(|| format!("{method} http://{address}{path}"))
}

/// A keep-alive connection.
pub struct KeptAlive {
    stream: TcpStream,
    received: Vec<u8>,
}

impl KeptAlive {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("no web server at {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new() })
    }

    /// One request, and its answer, which must say how long it is.
    ///
    /// # Errors
    /// The connection ended, nobody answers within 10 seconds, or the answer says that the connection ends.
    pub async fn get(&mut self, path: &str) -> Result<Response> {
        timeout(Duration::from_secs(10), self.exchange(path))
            .await
            .with_context(|| format!("GET {path}: no answer"))?
            .with_context(|| format!("GET {path}"))
    }

    async fn exchange(&mut self, path: &str) -> Result<Response> {
        let request = format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n");
        self.stream.write_all(request.as_bytes()).await?;
        let end = loop {
            if let Some(at) = self.received.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more().await?;
        };
        let head = String::from_utf8_lossy(&self.received[..end]).to_ascii_lowercase();
        ensure!(!head.contains("connection: close"), "{head}");
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.context("no Content-Length")?.trim().parse()?;
        while self.received.len() < end + length {
            self.more().await?;
        }
        let answer: Vec<u8> = self.received.drain(..end + length).collect();
        parse(&String::from_utf8_lossy(&answer))
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(self.stream.read_buf(&mut self.received).await? > 0, "the server closed the connection");
        Ok(())
    }
}

fn parse(answer: &str) -> Result<Response> {
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of headers")?;
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status code")?;
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    let body = if chunked { unchunk(body)? } else { body.to_owned() };
    Ok(Response { status, head: head.to_owned(), body })
}

fn unchunk(mut rest: &str) -> Result<String> {
    let mut body = String::new();
    loop {
        let (size, after) = rest.split_once("\r\n").context("no chunk size")?;
        let size = usize::from_str_radix(size.trim(), 16)?;
        if size == 0 {
            return Ok(body);
        }
        body.push_str(after.get(..size).context("a cut chunk")?);
        rest = after.get(size + 2..).context("a cut chunk")?;
    }
}
