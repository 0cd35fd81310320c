//! A message of the server: a frame as its client reads it.

use bytes::Bytes;
use ffproto::CommandId;

/// A command with its body: a reply, a push, or an error frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What the message is for.
    pub command: CommandId,
    /// What the message carries.
    pub body: Bytes,
}
