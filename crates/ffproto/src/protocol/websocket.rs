//! WebSocket as a protocol of game clients: what its two forms of messages have in common. A client may send both; it is
//! answered in the form of its first message.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{Begins, Decoder, Ending, Next, ProtocolFault, Received};
use crate::frame::upgrade::{self, RequestFault};
use crate::frame::websocket::{self, Assembly, Opcode, Taken, WebSocketFault};
use crate::frame::{Firefly, firefly, json};

/// The name of the form in binary messages.
pub const BINARY: &str = "websocket-binary";
/// The name of the form in text messages.
pub const JSON: &str = "websocket-json";

/// The state of a WebSocket between two frames, as it travels to another process.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct WebSocketState {
    /// The message of which fragments have come.
    pub assembly: Assembly,
    /// The form of the client's first message, which its answers take.
    pub form: Option<MessageForm>,
    /// The client has closed, with that code if it gave one.
    pub closed: Option<Option<u16>>,
}

/// The form of a WebSocket's messages.
// The numbers are those of the forms that earlier releases wrote, of which the first was no WebSocket's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageForm {
    /// Of a connection that is no WebSocket's: never here.
    Firefly,
    /// Binary messages, each one firefly frame.
    Binary,
    /// Text messages, each one JSON object.
    Text,
}

/// The decoder of a WebSocket.
pub(super) struct WebSocketDecoder {
    framing: Firefly,
    state: WebSocketState,
}

/// Reads the request with which a WebSocket begins.
pub(super) fn begins(bytes: &[u8]) -> Result<Begins, ProtocolFault> {
    if !upgrade::may_begin(bytes) {
        return Ok(Begins::Not);
    }
    match upgrade::read(bytes) {
        Ok(None) => Ok(Begins::More),
        Ok(Some(granted)) => Ok(Begins::Here { bytes: granted.bytes, answer: granted.response }),
        Err(fault) => Err(no_websocket(fault)),
    }
}

fn no_websocket(fault: RequestFault) -> ProtocolFault {
    let farewell = fault.response();
    ProtocolFault::new(format!("illegal: {}", WebSocketFault::from(fault))).with_farewell(farewell)
}

impl WebSocketDecoder {
    /// Of a new connection, or of one that had this state elsewhere.
    pub(super) fn boxed(framing: Firefly, state: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
        let state = match state {
            [] => WebSocketState::default(),
            bytes => bincode::deserialize(bytes).map_err(|error| ProtocolFault::new(error.to_string()))?,
        };
        Ok(Box::new(Self { framing, state }))
    }

    fn message<'a>(
        &mut self,
        text: bool,
        payload: &'a [u8],
        spoken: Option<&'static str>,
    ) -> Result<Received<'a>, WebSocketFault> {
        let (command, body) = if text {
            json::read(std::str::from_utf8(payload).map_err(|_| WebSocketFault::Utf8)?)?
        } else {
            // Its length has been checked with the message's.
            match self.framing.read(payload, u32::MAX)? {
                Some(frame) if frame.bytes == payload.len() => (frame.command, Cow::Borrowed(frame.body)),
                _ => return Err(WebSocketFault::NotOneFrame),
            }
        };
        Ok(Received::Message { to: command.into(), body, spoken })
    }

    fn received<'a>(
        &mut self,
        frame: &'a [u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Received<'a>, WebSocketFault> {
        // It has been checked against the limit.
        let Some(next) = self.state.assembly.next(frame, usize::MAX)? else {
            return Err(WebSocketFault::NotOneFrame);
        };
        match self.state.assembly.take(&next, frame, scratch)? {
            Taken::Message { text, payload } => {
                let (form, name) =
                    if text { (MessageForm::Text, JSON) } else { (MessageForm::Binary, BINARY) };
                let spoken = self.state.form.is_none().then_some(name);
                self.state.form.get_or_insert(form);
                self.message(text, payload, spoken)
            }
            Taken::Ping(payload) => {
                let mut pong = Vec::new();
                websocket::write(Opcode::Pong, payload, &mut pong);
                Ok(Received::Answered(pong))
            }
            Taken::Fragment | Taken::Pong => Ok(Received::Beat),
            Taken::Close(code) => {
                self.state.closed = Some(code);
                Ok(Received::End)
            }
        }
    }
}

impl Decoder for WebSocketDecoder {
    fn next<'a>(&self, bytes: &'a [u8], message_bytes_max: usize) -> Result<Option<Next<'a>>, ProtocolFault> {
        let next = self.state.assembly.next(bytes, message_bytes_max + firefly::UNCOUNTED_BYTES)?;
        Ok(next.map(|next| Next::Frame { bytes: next.bytes, is_message: next.ends_message() }))
    }

    fn take<'a>(&mut self, frame: &'a [u8], scratch: &'a mut Vec<u8>) -> Result<Received<'a>, ProtocolFault> {
        Ok(self.received(frame, scratch)?)
    }

    fn farewell(&self, why: Ending<'_>) -> Option<Vec<u8>> {
        let (code, text) = match why {
            Ending::Closed(text) => (1000, text),
            Ending::Policy(text) => (1008, text),
            Ending::Stopping(text) => (1001, text),
            Ending::ByClient => match self.state.closed? {
                Some(code) => (code, ""),
                None => {
                    let mut bare = Vec::new();
                    websocket::write(Opcode::Close, &[], &mut bare);
                    return Some(bare);
                }
            },
        };
        Some(close(code, text))
    }

    fn state(&self) -> Vec<u8> {
        // Writing to a vector does not fail.
        bincode::serialize(&self.state).unwrap_or_default()
    }
}

impl From<WebSocketFault> for ProtocolFault {
    fn from(fault: WebSocketFault) -> Self {
        let text = fault.to_string();
        let farewell = close(fault.close_code(), &text);
        ProtocolFault::new(format!("illegal: {text}")).with_farewell(farewell)
    }
}

fn close(code: u16, text: &str) -> Vec<u8> {
    let mut frame = Vec::new();
    websocket::write_close(code, text, &mut frame);
    frame
}
