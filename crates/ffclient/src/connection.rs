//! A connection that speaks firefly frames: one message after the other, without a task behind it.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use ffproto::CommandId;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;

use crate::decoder::Decoder;
use crate::error::{Closed, ConnectError, ReceiveError, SendError};
use crate::half::{ReadHalf, WriteHalf};
use crate::message::Message;
use crate::options::Options;

/// One connection to a netport.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    decoder: Decoder,
    options: Options,
}

impl Connection {
    /// Connects to a netport.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(address: impl ToSocketAddrs, options: Options) -> Result<Self, ConnectError> {
        Ok(Self::from_stream(open(address, &options).await?, options)?)
    }

    /// Goes on with a stream that the caller has connected.
    ///
    /// # Errors
    /// The socket does not take the option TCP_NODELAY.
    pub fn from_stream(stream: TcpStream, options: Options) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self { stream, decoder: Decoder::new(&options), options })
    }

    /// Sends one request. A future that is dropped may have sent a part of it: the connection cannot go on then.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&mut self, command: CommandId, body: &[u8]) -> Result<(), SendError> {
        let mut frame = Vec::new();
        if !self.options.write(command, body, &mut frame) {
            return Err(SendError::TooLong);
        }
        self.send_bytes(&frame).await
    }

    /// The next message: a reply, a push, or an error frame. Cancel-safe.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub async fn receive(&mut self) -> Result<Message, ReceiveError> {
        let receive = receive(&mut self.stream, &mut self.decoder);
        within(self.options.call_timeout, receive).await
    }

    /// Sends bytes as they are, for tools that speak something else before or between frames.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_bytes(&mut self, bytes: &[u8]) -> Result<(), SendError> {
        write(&mut self.stream, bytes, self.options.send_timeout).await
    }

    /// The next `n` bytes as they come. Cancel-safe.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub async fn receive_bytes(&mut self, n: usize) -> Result<Bytes, ReceiveError> {
        let (stream, decoder) = (&mut self.stream, &mut self.decoder);
        let receive = async {
            loop {
                match decoder.take(n) {
                    Some(bytes) => return Ok(bytes),
                    None => more(stream, decoder).await?,
                }
            }
        };
        within(self.options.call_timeout, receive).await
    }

    /// Sends no more; requests that were sent are still answered.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn finish(&mut self) -> Result<(), SendError> {
        Ok(self.stream.shutdown().await.map_err(Closed::from)?)
    }

    /// The socket, for its options and addresses.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }

    pub(crate) fn into_halves(self) -> (FrameReader, FrameWriter, Options) {
        let (read, write) = self.stream.into_split();
        let reader = FrameReader { stream: read, decoder: self.decoder };
        let writer = FrameWriter { stream: write, buffer: Vec::new(), options: self.options.clone() };
        (reader, writer, self.options)
    }
}

/// The half of a connection that a client reads from.
pub(crate) struct FrameReader {
    stream: OwnedReadHalf,
    decoder: Decoder,
}

impl ReadHalf for FrameReader {
    async fn receive(&mut self) -> Result<Message, Closed> {
        receive(&mut self.stream, &mut self.decoder).await
    }
}

/// The half of a connection that a client writes to.
pub(crate) struct FrameWriter {
    stream: OwnedWriteHalf,
    buffer: Vec<u8>,
    options: Options,
}

impl WriteHalf for FrameWriter {
    async fn send(&mut self, command: CommandId, body: &[u8]) -> Result<(), SendError> {
        self.buffer.clear();
        if !self.options.write(command, body, &mut self.buffer) {
            return Err(SendError::TooLong);
        }
        write(&mut self.stream, &self.buffer, self.options.send_timeout).await
    }

    async fn finish(&mut self) -> Result<(), SendError> {
        Ok(self.stream.shutdown().await.map_err(Closed::from)?)
    }
}

/// Connects within the deadline of the options.
pub(crate) async fn open(address: impl ToSocketAddrs, options: &Options) -> Result<TcpStream, ConnectError> {
    let max = options.connect_timeout;
    let stream = timeout(max, TcpStream::connect(address)).await;
    Ok(stream.map_err(|_| ConnectError::Timeout(max))??)
}

/// Waits for what is received, at most `max`.
pub(crate) async fn within<T>(
    max: Duration,
    receive: impl Future<Output = Result<T, Closed>>,
) -> Result<T, ReceiveError> {
    let received = timeout(max, receive).await;
    Ok(received.map_err(|_| ReceiveError::Timeout(max))??)
}

async fn write(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8], max: Duration) -> Result<(), SendError> {
    let written = timeout(max, stream.write_all(bytes)).await.map_err(|_| SendError::Timeout(max))?;
    Ok(written.map_err(Closed::from)?)
}

async fn receive(stream: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> Result<Message, Closed> {
    loop {
        match decoder.next()? {
            Some(message) => return Ok(message),
            None => more(stream, decoder).await?,
        }
    }
}

async fn more(stream: &mut (impl AsyncRead + Unpin), decoder: &mut Decoder) -> Result<(), Closed> {
    match stream.read_buf(decoder.buffer()).await? {
        0 => Err(Closed::ByServer),
        _ => Ok(()),
    }
}
