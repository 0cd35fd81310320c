//! A client of a test: a player's connection over memory, in firefly frames.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use ffnet::transport::memory::MemoryClient;
use ffproto::protocol::FireflyFrames;
use ffproto::{Code, CommandId, Executed};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::time::timeout;

use super::error::ClientError;

/// A message of the node to a client: a reply, or a push.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The command.
    pub command: CommandId,
    /// The body.
    pub body: Bytes,
}

/// A player's connection to a net node. Dropping it ends the connection.
///
/// A reply is what comes under the command of a call; everything else is a push, and waits for [`push`](Client::push). Futures of
/// it may be dropped: what comes later is a push then.
#[derive(Debug)]
pub struct Client {
    stream: MemoryClient,
    frames: FireflyFrames,
    received: BytesMut,
    /// What has come and nobody has taken.
    waiting: VecDeque<Message>,
    /// How long nothing may come; on a paused clock for ever.
    patience: Option<Duration>,
}

#[derive(Deserialize)]
struct FaultBody {
    command: CommandId,
    code: String,
    message: String,
    executed: String,
}

impl Client {
    pub(super) fn new(stream: MemoryClient, frames: FireflyFrames, patience: Option<Duration>) -> Self {
        Self { stream, frames, received: BytesMut::new(), waiting: VecDeque::new(), patience }
    }

    /// Sends a message and waits for its reply.
    ///
    /// # Errors
    /// [`ClientError::Fault`] when the node answers with an error frame; else the connection has ended, or nothing comes for
    /// 20 seconds (on a paused clock: `paused` says so).
    pub async fn call(&mut self, command: u32, body: impl AsRef<[u8]>) -> Result<Bytes, ClientError> {
        self.send(command, body).await?;
        loop {
            let message = self.receive().await?;
            if let Some(fault) = self.fault(&message)? {
                if matches!(fault, ClientError::Fault { command: failed, .. } if failed == CommandId(command))
                {
                    return Err(fault);
                }
            } else if message.command == CommandId(command) {
                return Ok(message.body);
            }
            self.waiting.push_back(message);
        }
    }

    /// Sends a message, and waits for no reply.
    ///
    /// # Errors
    /// [`ClientError::Closed`].
    pub async fn send(&mut self, command: u32, body: impl AsRef<[u8]>) -> Result<(), ClientError> {
        let mut frame = Vec::new();
        self.frames.framing.write(CommandId(command), body.as_ref(), &mut frame);
        self.stream.write_all(&frame).await.map_err(|_| ClientError::Closed)
    }

    /// The body of the next push of that command. Pushes of other commands stay, each for its own.
    ///
    /// # Errors
    /// As [`call`](Self::call).
    pub async fn push(&mut self, command: u32) -> Result<Bytes, ClientError> {
        loop {
            if let Some(at) = self.waiting.iter().position(|message| message.command == CommandId(command)) {
                return Ok(self.waiting.remove(at).map_or_else(Bytes::new, |message| message.body));
            }
            let message = self.receive().await?;
            self.waiting.push_back(message);
        }
    }

    /// Takes every message that is here and that nobody has taken, without waiting for more: to see that nothing has come.
    pub async fn taken(&mut self) -> Vec<Message> {
        poll_fn(|cx| {
            let mut chunk = [0; 4096];
            loop {
                let mut room = ReadBuf::new(&mut chunk);
                match Pin::new(&mut self.stream).poll_read(cx, &mut room) {
                    Poll::Ready(Ok(())) if !room.filled().is_empty() => {
                        self.received.extend_from_slice(room.filled())
                    }
                    _ => return Poll::Ready(()),
                }
            }
        })
        .await;
        while let Ok(Some(message)) = self.next() {
            self.waiting.push_back(message);
        }
        self.waiting.drain(..).collect()
    }

    /// Waits until the node ends the connection; what came before is taken. The last word says why, where there is one: a kick, a
    /// refusal.
    ///
    /// # Errors
    /// [`ClientError::Late`] when the node does not end it.
    pub async fn closed(&mut self) -> Result<Option<ClientError>, ClientError> {
        loop {
            match self.receive().await {
                Ok(message) => self.waiting.push_back(message),
                Err(ClientError::Closed) => break,
                Err(error) => return Err(error),
            }
        }
        match self.waiting.back().cloned() {
            Some(last) => self.fault(&last),
            None => Ok(None),
        }
    }

    /// Leaves in good order: what was sent is answered, then the node ends its side.
    ///
    /// # Errors
    /// As [`closed`](Self::closed).
    pub async fn close(mut self) -> Result<(), ClientError> {
        self.stream.shutdown().await.map_err(|_| ClientError::Closed)?;
        self.closed().await.map(drop)
    }

    async fn receive(&mut self) -> Result<Message, ClientError> {
        let patience = self.patience;
        let receive = async {
            loop {
                if let Some(message) = self.next()? {
                    return Ok(message);
                }
                match self.stream.read_buf(&mut self.received).await {
                    Ok(1..) => {}
                    Ok(0) | Err(_) => return Err(ClientError::Closed),
                }
            }
        };
        match patience {
            Some(patience) => timeout(patience, receive).await.map_err(|_| ClientError::Late(patience))?,
            None => receive.await,
        }
    }

    fn next(&mut self) -> Result<Option<Message>, ClientError> {
        let frame = self.frames.framing.read(&self.received, u32::MAX);
        let Some(frame) = frame.map_err(|fault| ClientError::BadFrame(fault.to_string()))? else {
            return Ok(None);
        };
        let message = Message { command: frame.command, body: Bytes::copy_from_slice(frame.body) };
        let bytes = frame.bytes;
        self.received.advance(bytes);
        Ok(Some(message))
    }

    /// The fault of an error frame; `None` for another message.
    fn fault(&self, message: &Message) -> Result<Option<ClientError>, ClientError> {
        if message.command != self.frames.error_command {
            return Ok(None);
        }
        let body = serde_json::from_slice::<FaultBody>(&message.body);
        let FaultBody { command, code, message, executed } =
            body.map_err(|error| ClientError::BadFrame(format!("an error frame: {error}")))?;
        let executed = if executed == Executed::No.name() { Executed::No } else { Executed::Unknown };
        Ok(Some(ClientError::Fault { command, code: Code::from_name(&code), message, executed }))
    }
}
