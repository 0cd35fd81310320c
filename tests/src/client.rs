//! A game client of the firefly framing, for tests.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use ffclient::{CommandId, Connection, Fault, Firefly, Message, Options, ReceiveError};
use tokio::net::TcpSocket;
use tokio::time::timeout;

/// Longer than any deadline of the cluster: a client that waits longer has found a silence.
const PATIENCE: Duration = Duration::from_secs(10);

/// A client as tests want it: nothing is too long to be sent, and a server may take its time to take it.
pub(crate) fn options() -> Options {
    const NO_DEADLINE: Duration = Duration::from_secs(3600);
    Options {
        connect_timeout: PATIENCE,
        call_timeout: PATIENCE,
        send_timeout: NO_DEADLINE,
        request_bytes_max: u32::MAX,
        ..Options::default()
    }
}

/// One connection to a net node: messages one by one, in the order in which they come.
pub struct Client(Connection);

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
        let connection = Connection::connect(address, options()).await;
        Ok(Self(connection.with_context(|| format!("no net node at {address}"))?))
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
        Ok(Self(Connection::from_stream(stream, options())?))
    }

    /// Ends as one that loses its network does: with a reset, not in good order.
    ///
    /// # Errors
    /// The socket does not take the option.
    pub fn reset(self) -> Result<()> {
        let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
        Ok(nix::sys::socket::setsockopt(self.0.stream(), nix::sys::socket::sockopt::Linger, &at_once)?)
    }

    /// Sends one request.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, command: u32, body: &[u8]) -> Result<()> {
        Ok(self.0.send(CommandId(command), body).await?)
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.0.send_bytes(bytes).await?)
    }

    /// The bytes of a request.
    pub fn frame(&self, command: u32, body: &[u8]) -> Vec<u8> {
        let mut frame = Vec::new();
        Firefly::default().write(CommandId(command), body, &mut frame);
        frame
    }

    /// The next frame: its command and its body.
    ///
    /// # Errors
    /// The server closed the connection, or is silent.
    pub async fn receive(&mut self) -> Result<(u32, Bytes)> {
        let Message { command, body } = self.0.receive().await?;
        Ok((command.0, body))
    }

    /// The bytes that arrive until `n` are there.
    ///
    /// # Errors
    /// The server closed the connection, or is silent.
    pub async fn receive_bytes(&mut self, n: usize) -> Result<Vec<u8>> {
        Ok(self.0.receive_bytes(n).await?.into())
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
        match self.0.receive_bytes(1).await {
            Err(ReceiveError::Closed(_)) => Ok(()),
            Err(silence) => Err(silence).context("still open"),
            Ok(byte) => bail!("{byte:?} instead of the end"),
        }
    }

    /// Sends no more; what was sent is still answered.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn half_close(&mut self) -> Result<()> {
        Ok(self.0.finish().await?)
    }
}

/// Reads the body of an error frame.
///
/// # Errors
/// It is not the JSON that docs/protocol.md promises.
pub fn parse_error(body: &[u8]) -> Result<ErrorFrame> {
    let Fault { command, code, message, executed } = Fault::read(body)?;
    Ok(ErrorFrame {
        command: command.0.into(),
        code: code.name().to_owned(),
        message,
        executed: executed.name().to_owned(),
    })
}
