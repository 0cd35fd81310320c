//! The decoder of firefly frames: bytes in as they come, messages out. It does no I/O.

use bytes::{Buf, Bytes, BytesMut};
use ffproto::frame::{Firefly, FrameFault};

use crate::message::Message;
use crate::options::Options;

/// The bytes of a server that are no whole message yet.
#[derive(Debug)]
pub(crate) struct Decoder {
    framing: Firefly,
    length_max: u32,
    received: BytesMut,
}

impl Decoder {
    pub(crate) fn new(options: &Options) -> Self {
        Self { framing: options.framing, length_max: options.reply_bytes_max, received: BytesMut::new() }
    }

    /// Where bytes that arrive are appended.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        &mut self.received
    }

    /// The next whole message, if there is one.
    pub(crate) fn next(&mut self) -> Result<Option<Message>, FrameFault> {
        let Some(frame) = self.framing.read(&self.received, self.length_max)? else { return Ok(None) };
        // A copy, so that a message that is kept does not keep its neighbours.
        let message = Message { command: frame.command, body: Bytes::copy_from_slice(frame.body) };
        let bytes = frame.bytes;
        self.received.advance(bytes);
        Ok(Some(message))
    }

    /// `n` bytes as they came, if they are there.
    pub(crate) fn take(&mut self, n: usize) -> Option<Bytes> {
        (self.received.len() >= n).then(|| self.received.split_to(n).freeze())
    }
}
