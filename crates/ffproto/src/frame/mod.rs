//! The framings of game clients. Of a node, only this module and `ffserver::gateway` know them.

pub mod firefly;
pub mod json;
pub mod upgrade;
pub mod websocket;

use serde::{Deserialize, Serialize};

use crate::{CommandId, Fault};
pub use firefly::{Firefly, Frame, FrameFault};

/// The form in which messages to a client are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Form {
    /// Firefly frames, one after the other.
    #[default]
    Firefly,
    /// WebSocket: each message a binary one with one firefly frame.
    Binary,
    /// WebSocket: each message a text one with one JSON object.
    Text,
}

impl Form {
    /// Appends a message to `out`, with one copy of the body (JSON: escaped into a copy first).
    #[inline]
    pub fn write(self, framing: &Firefly, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
        match self {
            Form::Firefly => framing.write(command, body, out),
            Form::Binary => {
                let bytes = firefly::HEADER_BYTES + body.len();
                websocket::write_head(websocket::Opcode::Binary, bytes, out);
                framing.write(command, body, out);
            }
            Form::Text => websocket::write(websocket::Opcode::Text, &json::message(command, body), out),
        }
    }

    /// Appends the error of a request: as JSON `{command, code, message, executed}` under `error_command`, or
    /// in the form of a text message.
    pub fn write_error(
        self,
        framing: &Firefly,
        error_command: CommandId,
        command: CommandId,
        fault: &Fault,
        out: &mut Vec<u8>,
    ) {
        match self {
            Form::Firefly | Form::Binary => {
                self.write(framing, error_command, &json::error_body(command, fault), out);
            }
            Form::Text => websocket::write(websocket::Opcode::Text, &json::error(command, fault), out),
        }
    }
}
