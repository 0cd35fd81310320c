//! A game client that speaks WebSocket, for tests: the client library's, and one whose bytes are the test's.

use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use bytes::Bytes;
use ffclient::tungstenite::Message;
use ffclient::tungstenite::protocol::CloseFrame;
use ffclient::{CommandId, WebSocket};
use serde_json::Value;

use crate::client::{Client, options};

/// One connection to a net node.
pub struct WebClient(WebSocket);

impl WebClient {
    /// Connects, as a page at some other address would.
    ///
    /// # Errors
    /// Nobody listens there, or refuses.
    pub async fn connect(address: SocketAddr) -> Result<Self> {
        Ok(Self(WebSocket::connect(address, options()).await?))
    }

    /// Sends a binary message with one frame.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send(&mut self, command: u32, body: &[u8]) -> Result<()> {
        Ok(self.0.send(CommandId(command), body).await?)
    }

    /// Sends a text message.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_json(&mut self, message: &Value) -> Result<()> {
        self.send_message(Message::text(message.to_string())).await
    }

    /// Sends a message as it is.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn send_message(&mut self, message: Message) -> Result<()> {
        Ok(self.0.send_message(message).await?)
    }

    /// The next message, whatever it is.
    ///
    /// # Errors
    /// The connection is gone, or silent.
    pub async fn receive_message(&mut self) -> Result<Message> {
        Ok(self.0.receive_message().await?)
    }

    /// The next binary message, which is one frame: its command and its body.
    ///
    /// # Errors
    /// There is none.
    pub async fn receive(&mut self) -> Result<(u32, Bytes)> {
        let ffclient::Message { command, body } = self.0.receive().await?;
        Ok((command.0, body))
    }

    /// The next text message.
    ///
    /// # Errors
    /// There is none, or it is no JSON.
    pub async fn receive_json(&mut self) -> Result<Value> {
        match self.receive_message().await? {
            Message::Text(text) => Ok(serde_json::from_str(&text)?),
            other => bail!("{other:?} instead of a text message"),
        }
    }

    /// Sends a text message and waits for the next one.
    ///
    /// # Errors
    /// There is none.
    pub async fn call_json(&mut self, message: &Value) -> Result<Value> {
        self.send_json(message).await?;
        self.receive_json().await
    }

    /// Waits for the server's close: its code and reason.
    ///
    /// # Errors
    /// It sends something else, or stays silent.
    pub async fn closed(&mut self) -> Result<(u16, String)> {
        match self.receive_message().await? {
            Message::Close(Some(CloseFrame { code, reason })) => Ok((code.into(), reason.to_string())),
            other => bail!("{other:?} instead of a close with a code"),
        }
    }

    /// Says that it leaves, with code 1000.
    ///
    /// # Errors
    /// The connection is gone.
    pub async fn close(&mut self) -> Result<()> {
        Ok(self.0.finish().await?)
    }
}

/// The request that begins a WebSocket; its answer ends with an empty line.
pub const REQUEST: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A connection whose WebSocket has begun, and whose further bytes are the test's.
///
/// # Errors
/// Nobody listens there, or refuses.
pub async fn raw(address: SocketAddr) -> Result<Client> {
    let mut client = Client::connect(address).await?;
    client.send_bytes(REQUEST.as_bytes()).await?;
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        response.extend(client.receive_bytes(1).await?);
    }
    ensure!(response.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&response));
    Ok(client)
}

/// A client's frame: the first byte, the payload, and a mask over it.
#[must_use]
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match payload.len() {
        short @ 0..126 => out.push(0x80 | short as u8),
        middle @ 126..65_536 => {
            out.push(0x80 | 126);
            out.extend((middle as u16).to_be_bytes());
        }
        long => {
            out.push(0x80 | 127);
            out.extend((long as u64).to_be_bytes());
        }
    }
    out.extend(MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    out
}
