//! WebSocket in text messages, each one JSON object.

use super::websocket::{self, WebSocketDecoder};
use super::{Begins, ClientProtocol, Decoder, FaultSaid, ProtocolFault, ReplyTo};
use crate::frame::websocket::{Opcode, write};
use crate::frame::{Firefly, json, upgrade};
use crate::{CommandId, Fault};

/// Text messages of a WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct WebSocketJson {
    /// The constants of the frames that the client may send as well.
    pub framing: Firefly,
}

impl ClientProtocol for WebSocketJson {
    fn name(&self) -> &'static str {
        websocket::JSON
    }

    fn begins(&self, bytes: &[u8]) -> Result<Begins, ProtocolFault> {
        websocket::begins(bytes)
    }

    fn opening_bytes_max(&self) -> usize {
        upgrade::REQUEST_BYTES_MAX
    }

    fn decoder(&self, state: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
        WebSocketDecoder::boxed(self.framing, state)
    }

    fn push(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
        write(Opcode::Text, &json::message(command, body), out);
    }

    fn fault(&self, to: ReplyTo, fault: &Fault, out: &mut Vec<u8>) -> FaultSaid {
        write(Opcode::Text, &json::error(to.command, fault), out);
        FaultSaid::Told
    }
}
