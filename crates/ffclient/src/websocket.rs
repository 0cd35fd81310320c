//! A connection that speaks WebSocket: a firefly frame in each binary message, without a task behind it.

use bytes::Bytes;
use ffproto::CommandId;
use ffproto::frame::Firefly;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{FutureExt, Sink, SinkExt, Stream, StreamExt};
use tokio::net::{TcpStream, ToSocketAddrs};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, Error};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use crate::connection::{open, within};
use crate::error::{Closed, ConnectError, ReceiveError, SendError};
use crate::half::{ReadHalf, WriteHalf};
use crate::message::Message;
use crate::options::Options;

/// Bytes of a frame that its `length` does not count, above which no binary message is.
const UNCOUNTED_BYTES: usize = ffproto::frame::firefly::UNCOUNTED_BYTES;
const NORMAL: u16 = 1000;

/// One connection to a netport, as a browser has it.
#[derive(Debug)]
pub struct WebSocket {
    socket: WebSocketStream<TcpStream>,
    options: Options,
}

impl WebSocket {
    /// Connects to a netport, and begins a WebSocket there.
    ///
    /// # Errors
    /// [`ConnectError`].
    pub async fn connect(address: impl ToSocketAddrs, options: Options) -> Result<Self, ConnectError> {
        let stream = open(address, &options).await?;
        stream.set_nodelay(true)?;
        let url = format!("ws://{}/", stream.peer_addr()?);
        let bytes_max = options.reply_bytes_max as usize + UNCOUNTED_BYTES;
        let config =
            WebSocketConfig::default().max_message_size(Some(bytes_max)).max_frame_size(Some(bytes_max));
        let max = options.connect_timeout;
        let begun = timeout(max, client_async_with_config(url, stream, Some(config))).await;
        let begun = begun.map_err(|_| ConnectError::Timeout(max))?;
        let (socket, _) = begun.map_err(|e| ConnectError::Handshake(e.to_string()))?;
        Ok(Self { socket, options })
    }

    /// Sends one request.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send(&mut self, command: CommandId, body: &[u8]) -> Result<(), SendError> {
        send(&mut self.socket, command, body, &self.options).await
    }

    /// The next message that carries a frame: a reply, a push, or an error frame. Cancel-safe.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub async fn receive(&mut self) -> Result<Message, ReceiveError> {
        within(self.options.call_timeout, receive(&mut self.socket, &self.options)).await
    }

    /// Sends a message of WebSocket as it is: a text with JSON, a ping.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn send_message(&mut self, message: tungstenite::Message) -> Result<(), SendError> {
        send_message(&mut self.socket, message, &self.options).await
    }

    /// The next message of WebSocket, whatever it is. Cancel-safe.
    ///
    /// # Errors
    /// [`ReceiveError`].
    pub async fn receive_message(&mut self) -> Result<tungstenite::Message, ReceiveError> {
        within(self.options.call_timeout, receive_message(&mut self.socket)).await
    }

    /// Says that this client leaves, with code 1000.
    ///
    /// # Errors
    /// [`SendError`].
    pub async fn finish(&mut self) -> Result<(), SendError> {
        finish(&mut self.socket, &self.options).await
    }

    pub(crate) fn into_halves(self) -> (MessageReader, MessageWriter, Options) {
        let (write, read) = self.socket.split();
        let reader = MessageReader { stream: read, options: self.options.clone() };
        let writer = MessageWriter { sink: write, options: self.options.clone() };
        (reader, writer, self.options)
    }
}

/// The half of a WebSocket that a client reads from.
pub(crate) struct MessageReader {
    stream: SplitStream<WebSocketStream<TcpStream>>,
    options: Options,
}

impl ReadHalf for MessageReader {
    async fn receive(&mut self) -> Result<Message, Closed> {
        receive(&mut self.stream, &self.options).await
    }
}

/// The half of a WebSocket that a client writes to.
pub(crate) struct MessageWriter {
    sink: SplitSink<WebSocketStream<TcpStream>, tungstenite::Message>,
    options: Options,
}

impl WriteHalf for MessageWriter {
    async fn send(&mut self, command: CommandId, body: &[u8]) -> Result<(), SendError> {
        send(&mut self.sink, command, body, &self.options).await
    }

    async fn finish(&mut self) -> Result<(), SendError> {
        finish(&mut self.sink, &self.options).await
    }
}

type Incoming = Result<tungstenite::Message, Error>;

async fn send(
    sink: &mut (impl Sink<tungstenite::Message, Error = Error> + Unpin),
    command: CommandId,
    body: &[u8],
    options: &Options,
) -> Result<(), SendError> {
    let mut frame = Vec::new();
    if !options.write(command, body, &mut frame) {
        return Err(SendError::TooLong);
    }
    send_message(sink, tungstenite::Message::binary(frame), options).await
}

async fn send_message(
    sink: &mut (impl Sink<tungstenite::Message, Error = Error> + Unpin),
    message: tungstenite::Message,
    options: &Options,
) -> Result<(), SendError> {
    let max = options.send_timeout;
    let sent = timeout(max, sink.send(message)).await.map_err(|_| SendError::Timeout(max))?;
    Ok(sent.map_err(closed)?)
}

async fn finish(
    sink: &mut (impl Sink<tungstenite::Message, Error = Error> + Unpin),
    options: &Options,
) -> Result<(), SendError> {
    let frame = CloseFrame { code: NORMAL.into(), reason: "done".into() };
    send_message(sink, tungstenite::Message::Close(Some(frame)), options).await
}

async fn receive(
    stream: &mut (impl Stream<Item = Incoming> + Unpin),
    options: &Options,
) -> Result<Message, Closed> {
    use tungstenite::Message as Web;
    loop {
        match receive_message(stream).await? {
            Web::Binary(bytes) => return one_frame(&bytes, &options.framing, options.reply_bytes_max),
            // tungstenite answers pings by itself.
            Web::Ping(_) | Web::Pong(_) | Web::Frame(_) => {}
            Web::Text(_) => return Err(Closed::Protocol("a text among binary messages".to_owned())),
            Web::Close(frame) => {
                // One more look at the socket writes tungstenite's answer to the close.
                let _ = stream.next().now_or_never();
                return Err(close_reason(frame));
            }
        }
    }
}

async fn receive_message(
    stream: &mut (impl Stream<Item = Incoming> + Unpin),
) -> Result<tungstenite::Message, Closed> {
    stream.next().await.ok_or(Closed::ByServer)?.map_err(closed)
}

fn one_frame(bytes: &[u8], framing: &Firefly, length_max: u32) -> Result<Message, Closed> {
    match framing.read(bytes, length_max)? {
        Some(frame) if frame.bytes == bytes.len() => {
            Ok(Message { command: frame.command, body: Bytes::copy_from_slice(frame.body) })
        }
        Some(_) => Err(Closed::Protocol("more than one frame in a message".to_owned())),
        None => Err(Closed::Protocol("a part of a frame in a message".to_owned())),
    }
}

fn close_reason(frame: Option<CloseFrame>) -> Closed {
    match frame {
        Some(CloseFrame { code, reason }) => {
            Closed::WithReason { code: code.into(), reason: reason.to_string() }
        }
        None => Closed::ByServer,
    }
}

fn closed(error: Error) -> Closed {
    match error {
        Error::ConnectionClosed | Error::AlreadyClosed => Closed::ByServer,
        Error::Protocol(fault) => Closed::Protocol(fault.to_string()),
        other => Closed::Broken(other.to_string()),
    }
}
