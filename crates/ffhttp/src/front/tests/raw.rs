//! An HTTP/1.1 client of the tests, byte by byte: it shows what comes, and when.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::PATIENCE;

/// An HTTP/1.1 client that shows what comes, byte by byte if need be.
pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) read: Vec<u8>,
}

#[derive(Debug, PartialEq)]
pub(super) struct Got {
    pub(super) status: u16,
    pub(super) head: String,
    pub(super) body: String,
}

impl Got {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

impl Client {
    pub(super) async fn connect(at: std::net::SocketAddr) -> Result<Self> {
        Ok(Self { stream: TcpStream::connect(at).await?, read: Vec::new() })
    }

    pub(super) async fn send(&mut self, text: &str) -> Result<()> {
        Ok(self.stream.write_all(text.as_bytes()).await?)
    }

    pub(super) async fn get(&mut self, path: &str) -> Result<Got> {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: here\r\n\r\n")).await?;
        self.receive().await
    }

    /// One whole answer.
    pub(super) async fn receive(&mut self) -> Result<Got> {
        self.receive_to("GET").await
    }

    pub(super) async fn receive_to(&mut self, method: &str) -> Result<Got> {
        timeout(PATIENCE, self.answer(method)).await.context("no answer")?
    }

    async fn answer(&mut self, method: &str) -> Result<Got> {
        let head = self.until("\r\n\r\n").await?;
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).context("no status")?;
        let mut got = Got { status, head, body: String::new() };
        if method == "HEAD" || status < 200 || status == 204 || status == 304 {
            return Ok(got);
        }
        if got.header("transfer-encoding") == Some("chunked") {
            loop {
                let piece = self.chunk().await?;
                if piece.is_empty() {
                    return Ok(got);
                }
                got.body.push_str(&piece);
            }
        }
        match got.header("content-length").map(str::parse) {
            Some(length) => got.body = self.take(length?).await?,
            None => got.body = self.rest().await?,
        }
        Ok(got)
    }

    pub(super) async fn chunk(&mut self) -> Result<String> {
        let size = self.until("\r\n").await?;
        let piece = self.take(usize::from_str_radix(size.trim(), 16)?).await?;
        self.until("\r\n").await?;
        Ok(piece)
    }

    pub(super) async fn until(&mut self, end: &str) -> Result<String> {
        loop {
            if let Some(at) = self.read.windows(end.len()).position(|window| window == end.as_bytes()) {
                return self.take(at + end.len()).await;
            }
            self.more().await?;
        }
    }

    pub(super) async fn take(&mut self, n: usize) -> Result<String> {
        while self.read.len() < n {
            self.more().await?;
        }
        Ok(String::from_utf8(self.read.drain(..n).collect())?)
    }

    async fn more(&mut self) -> Result<()> {
        ensure!(self.stream.read_buf(&mut self.read).await? > 0, "closed after {:?}", self.read);
        Ok(())
    }

    async fn rest(&mut self) -> Result<String> {
        while self.stream.read_buf(&mut self.read).await? > 0 {}
        Ok(String::from_utf8(std::mem::take(&mut self.read))?)
    }

    pub(super) async fn until_closed(&mut self) -> Result<Duration> {
        let begin = Instant::now();
        let rest = timeout(PATIENCE, self.rest()).await.context("not closed")?;
        match rest {
            Ok(rest) if rest.is_empty() => Ok(begin.elapsed()),
            Ok(rest) => bail!("{rest}"),
            Err(_reset) => Ok(begin.elapsed()),
        }
    }
}
