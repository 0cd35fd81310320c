//! The two halves of a connection, as a client's task drives them: messages in, and requests out.

use std::future::Future;

use ffproto::CommandId;

use crate::error::{Closed, SendError};
use crate::message::Message;

/// The half that reads.
pub(crate) trait ReadHalf: Send + 'static {
    /// The next message. Cancel-safe.
    fn receive(&mut self) -> impl Future<Output = Result<Message, Closed>> + Send;
}

/// The half that writes.
pub(crate) trait WriteHalf: Send + 'static {
    /// Sends one request, within the deadline of the options.
    fn send(&mut self, command: CommandId, body: &[u8])
    -> impl Future<Output = Result<(), SendError>> + Send;

    /// Says that nothing more comes.
    fn finish(&mut self) -> impl Future<Output = Result<(), SendError>> + Send;
}
