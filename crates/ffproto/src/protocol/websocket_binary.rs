//! WebSocket in binary messages, each one firefly frame.

use super::websocket::{self, WebSocketDecoder};
use super::{Begins, ClientProtocol, Decoder, FaultSaid, FireflyFrames, ProtocolFault, ReplyTo};
use crate::frame::websocket::{Opcode, write, write_head};
use crate::frame::{firefly, json, upgrade};
use crate::{CommandId, Fault};

/// Binary messages of a WebSocket; also what a WebSocket's client gets before its first message has told its form.
#[derive(Debug, Clone, Copy)]
pub struct WebSocketBinary(pub FireflyFrames);

impl ClientProtocol for WebSocketBinary {
    fn name(&self) -> &'static str {
        websocket::BINARY
    }

    fn begins(&self, bytes: &[u8]) -> Result<Begins, ProtocolFault> {
        websocket::begins(bytes)
    }

    fn opening_bytes_max(&self) -> usize {
        upgrade::REQUEST_BYTES_MAX
    }

    fn decoder(&self, state: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
        WebSocketDecoder::boxed(self.0.framing, state)
    }

    fn push(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
        write_head(Opcode::Binary, firefly::HEADER_BYTES + body.len(), out);
        self.0.framing.write(command, body, out);
    }

    fn fault(&self, to: ReplyTo, fault: &Fault, out: &mut Vec<u8>) -> FaultSaid {
        let body = json::error_body(to.command, fault);
        let mut frame = Vec::new();
        self.0.framing.write(self.0.error_command, &body, &mut frame);
        write(Opcode::Binary, &frame, out);
        FaultSaid::Told
    }
}
