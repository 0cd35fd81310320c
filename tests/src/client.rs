//! A game client of the firefly framing, for tests.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ffproto::CommandId;
use ffproto::frame::Firefly;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

/// Longer than any deadline of the cluster: a client that waits longer has found a silence.
const PATIENCE: Duration = Duration::from_secs(10);
const REPLY_BYTES_MAX: u32 = 16 << 20;

/// One connection to a net node.
pub struct Client {
    stream: TcpStream,
    received: Vec<u8>,
    framing: Firefly,
}

/// An error frame, as a client reads it.
#[derive(Debug, PartialEq, Eq)]
pub struct ErrorFrame {
    /// Which command failed.
    pub command: u64,
    /// How, for programs.
    pub code: String,
    /// How, for people.
    pub message: String,
    /// `no` or `unknown`.
    pub executed: String,
}

impl Client {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        let stream = timeout(PATIENCE, TcpStream::connect(address))
            .await?
            .with_context(|| format!("no net node at {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new(), framing: Firefly::default() })
    }

    /// Connects as over a network: the kernel keeps kilobytes for the client, not the megabytes that it
    /// keeps on loopback.
    ///
    /// # Errors
    /// Nobody listens there.
    pub async fn connect_narrow(address: SocketAddr) -> Result<Self> {
        const ETHERNET_SEGMENT: u32 = 1460;
        const RECEIVE_BUFFER_BYTES: u32 = 32 * 1024;
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
        nix::sys::socket::setsockopt(&socket, nix::sys::socket::sockopt::TcpMaxSeg, &ETHERNET_SEGMENT)?;
        let stream = timeout(PATIENCE, socket.connect(address))
            .await?
            .with_context(|| format!("no net node at {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, received: Vec::new(), framing: Firefly::default() })
    }

    /// Ends as one that loses its network does: with a reset, not in good order.
    ///
    /// # Errors
    /// The socket does not take the option.
    pub fn reset(self) -> Result<()> {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        Ok(nix::sys::socket::setsockopt(&self.stream, nix::sys::socket::sockopt::Linger, &at_once)?)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, command: u32, body: &[u8]) -> Result<()> {
        let mut frame = Vec::new();
        self.framing.write(CommandId(command), body, &mut frame);
        self.send_bytes(&frame).await
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The bytes of a request.
    pub fn frame(&self, command: u32, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        self.framing.write(CommandId(command), body, &mut frame);
        frame
    }

    /// The next frame: its command and its body.
    ///
    /// # Errors
    /// The server closed the connection, or is silent.
    pub async fn receive(&mut self) -> Result<(u32, Bytes)> {
        timeout(PATIENCE, async {
            loop {
                if let Some(frame) = self.framing.read(&self.received, REPLY_BYTES_MAX)? {
                    let (command, body, bytes) =
                        (frame.command.0, Bytes::copy_from_slice(frame.body), frame.bytes);
                    self.received.drain(..bytes);
                    return Ok((command, body));
                }
                if self.stream.read_buf(&mut self.received).await? == 0 {
                    bail!("the server closed the connection");
                }
            }
        })
        .await
        .context("silence: no frame within 10 s")?
    }

    /// The bytes that arrive until `n` are there.
    ///
    /// # Errors
    /// The server closed the connection, or is silent.
    pub async fn receive_bytes(&mut self, n: usize) -> Result<Vec<u8>> {
        let read = async {
            while self.received.len() < n {
                if self.stream.read_buf(&mut self.received).await? == 0 {
                    bail!("the server closed the connection");
                }
            }
            Ok(self.received.drain(..n).collect())
        };
        timeout(PATIENCE, read).await.context("silence")?
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The connection is gone, or another command was answered (an error frame, too).
    pub async fn call(&mut self, command: u32, body: &[u8]) -> Result<Bytes> {
        self.send(command, body).await?;
        let (got, answer) = self.receive().await?;
        ensure!(
            got == command,
            "command {command} was answered by {got}: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(answer)
    }

    /// Sends a request and waits for its error frame.
    ///
    /// # Errors
    /// The connection is gone, or there was a good answer.
    pub async fn call_error(&mut self, command: u32, body: &[u8]) -> Result<ErrorFrame> {
        self.send(command, body).await?;
        let (got, answer) = self.receive().await?;
        ensure!(got == u32::MAX, "command {command} was answered well by {got}");
        parse_error(&answer)
    }

    /// The next frame, which is an error frame.
    ///
    /// # Errors
    /// It is another one, or there is none.
    pub async fn receive_error(&mut self) -> Result<ErrorFrame> {
        let (got, answer) = self.receive().await?;
        ensure!(got == u32::MAX, "{got} {answer:?} instead of an error frame");
        parse_error(&answer)
    }

    /// Waits until the server closes the connection.
    ///
    /// # Errors
    /// It sends something else, or stays silent.
    pub async fn until_closed(&mut self) -> Result<()> {
        match timeout(PATIENCE, self.stream.read_buf(&mut self.received)).await.context("still open")? {
            Ok(0) | Err(_) => Ok(()),
            Ok(n) => bail!("{n} bytes instead of the end: {:?}", self.received),
        }
    }

    /// Sends no more; what was sent is still answered.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn half_close(&mut self) -> Result<()> {
        Ok(self.stream.shutdown().await?)
    }
}

/// Reads the body of an error frame.
///
/// # Errors
/// It is not the JSON that docs/protocol.md promises.
pub fn parse_error(body: &[u8]) -> Result<ErrorFrame> {
    let json: serde_json::Value = serde_json::from_slice(body)?;
    let text =
        |key: &str| json[key].as_str().map(str::to_owned).with_context(|| format!("no `{key}` in {json}"));
    Ok(ErrorFrame {
        command: json["command"].as_u64().context("no `command`")?,
        code: text("code")?,
        message: text("message")?,
        executed: text("executed")?,
    })
}
