//! The protocol of firefly's clients: frames one after the other, whose errors are frames of a reserved command.

use super::{Begins, ClientProtocol, Decoder, FaultSaid, Next, ProtocolFault, Received, ReplyTo};
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
    fn next(&self, bytes: &[u8], message_bytes_max: usize) -> Result<Option<Next>, ProtocolFault> {
        // The common case, a legal header, is told by a few comparisons.
        if let Some((head, _)) = bytes.split_first_chunk::<HEADER_BYTES>()
            && head[..CONSTANTS] == self.constants
        {
            let length = u32::from_be_bytes([head[9], head[10], head[11], head[12]]) as usize;
            if (4..=message_bytes_max).contains(&length) {
                let whole = UNCOUNTED_BYTES + length;
                return Ok((bytes.len() >= whole).then_some(Next { bytes: whole, is_message: true }));
            }
        }
        let max = u32::try_from(message_bytes_max).unwrap_or(u32::MAX);
        let frame = self.framing.read(bytes, max)?;
        Ok(frame.map(|frame| Next { bytes: frame.bytes, is_message: true }))
    }

    #[inline]
    fn take<'a>(&mut self, frame: &'a [u8], _: &'a mut Vec<u8>) -> Result<Received<'a>, ProtocolFault> {
        // It has been looked at as a whole.
        let command = frame.get(UNCOUNTED_BYTES..HEADER_BYTES).and_then(|bytes| bytes.first_chunk());
        let (Some(command), Some(body)) = (command, frame.get(HEADER_BYTES..)) else {
            return Err(ProtocolFault::new("illegal frame: it is not whole"));
        };
        Ok(Received::message(CommandId(u32::from_be_bytes(*command)), body))
    }
}

impl From<FrameFault> for ProtocolFault {
    fn from(fault: FrameFault) -> Self {
        ProtocolFault::new(format!("illegal frame: {fault}"))
    }
}
