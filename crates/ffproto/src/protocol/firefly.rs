//! The protocol of firefly's clients: frames one after the other, whose errors are frames of a reserved command.

use super::{Begins, ClientProtocol, Decoder, FaultSaid, Next, ProtocolFault, ReplyTo};
use crate::frame::firefly::{HEADER_BYTES, UNCOUNTED_BYTES};
use crate::frame::{Firefly, FrameFault, json};
use crate::{CommandId, Fault};

/// Firefly frames.
#[derive(Debug, Clone, Copy)]
pub struct FireflyFrames {
    /// The constants of the frames.
    pub framing: Firefly,
    /// The command of error frames.
    pub error_command: CommandId,
}

struct FireflyDecoder {
    framing: Firefly,
    constants: [u8; CONSTANTS],
}

/// The bytes of the constants that begin every header.
const CONSTANTS: usize = 9;
/// The bytes of a command, which the length counts.
const COMMAND_BYTES: usize = 4;

/// The name of firefly's frames.
pub const NAME: &str = "firefly";

/// So many of the first bytes tell firefly's constants from the beginning of another protocol.
const FIRST_BYTES: usize = 4;

impl ClientProtocol for FireflyFrames {
    fn name(&self) -> &'static str {
        NAME
    }

    fn begins(&self, bytes: &[u8]) -> Result<Begins, ProtocolFault> {
        let seen = bytes.len().min(FIRST_BYTES);
        Ok(Begins::by(Some(bytes[..seen] == self.framing.constants()[..seen])))
    }

    fn decoder(&self, _: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
        let (framing, constants) = (self.framing, self.framing.constants());
        Ok(Box::new(FireflyDecoder { framing, constants }))
    }

    fn push(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
        self.framing.write(command, body, out);
    }

    fn fault(&self, to: ReplyTo, fault: &Fault, out: &mut Vec<u8>) -> FaultSaid {
        self.framing.write(self.error_command, &json::error_body(to.command, fault), out);
        FaultSaid::Told
    }
}

impl Decoder for FireflyDecoder {
    fn next<'a>(&self, bytes: &'a [u8], message_bytes_max: usize) -> Result<Option<Next<'a>>, ProtocolFault> {
        // The common case, a legal header, is told by a few comparisons.
        if let Some((head, rest)) = bytes.split_first_chunk::<HEADER_BYTES>()
            && head[..CONSTANTS] == self.constants
        {
            let length = u32::from_be_bytes([head[9], head[10], head[11], head[12]]) as usize;
            if (COMMAND_BYTES..=message_bytes_max).contains(&length) {
                let command = CommandId(u32::from_be_bytes([head[13], head[14], head[15], head[16]]));
                let body = rest.get(..length - COMMAND_BYTES);
                return Ok(body.map(|body| Next::message(UNCOUNTED_BYTES + length, command, body)));
            }
        }
        let max = u32::try_from(message_bytes_max).unwrap_or(u32::MAX);
        let frame = self.framing.read(bytes, max)?;
        Ok(frame.map(|frame| Next::message(frame.bytes, frame.command, frame.body)))
    }
}

impl From<FrameFault> for ProtocolFault {
    fn from(fault: FrameFault) -> Self {
        ProtocolFault::new(format!("illegal frame: {fault}"))
    }
}
