//! The protocols of game clients as values: how bytes become messages, and answers, pushes and faults become bytes.
//! Without I/O and time; a connection carries its [`Decoder`] to another process as a few bytes.
//!
//! One file each: [`FireflyFrames`], [`WebSocketBinary`], [`WebSocketJson`]; what the last two have in common is in
//! [`websocket`]. An author's program brings its own: a value that implements [`ClientProtocol`].

pub mod firefly;
mod list;
pub mod websocket;
mod websocket_binary;
mod websocket_json;

use std::borrow::Cow;
use std::fmt;

use crate::{CommandId, Fault};
pub use firefly::FireflyFrames;
pub use list::{ListFault, PROTOCOLS_MAX, ProtocolId, Protocols, Started};
pub use websocket_binary::WebSocketBinary;
pub use websocket_json::WebSocketJson;

/// The bytes of every built-in framing before a body, at most: what a whole frame may take beside `message_bytes_max`. An
/// author's protocol, too, has to say within these that a frame is whole, or wrong: more is not read.
pub const HEADERS_BYTES_MAX: usize = 64;

/// The names of the protocols that every program has.
pub const BUILT_IN: [&str; 3] = [firefly::NAME, websocket::BINARY, websocket::JSON];

/// A protocol of game clients. One value serves all connections of a node.
///
/// ```
/// use ffproto::protocol::{Begins, ClientProtocol, Decoder, FaultSaid, Next, ProtocolFault, ReplyTo};
/// use ffproto::{CommandId, Fault};
///
/// /// `COMMAND BODY\n`, both ways.
/// #[derive(Debug)]
/// struct Lines;
///
/// struct LinesDecoder;
///
/// impl ClientProtocol for Lines {
///     fn name(&self) -> &'static str {
///         "lines"
///     }
///     fn begins(&self, bytes: &[u8]) -> Result<Begins, ProtocolFault> {
///         Ok(Begins::by(bytes.first().map(u8::is_ascii_digit)))
///     }
///     fn decoder(&self, _state: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault> {
///         Ok(Box::new(LinesDecoder))
///     }
///     fn push(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
///         out.extend_from_slice(format!("{command} ").as_bytes());
///         out.extend_from_slice(body);
///         out.push(b'\n');
///     }
///     fn fault(&self, to: ReplyTo, fault: &Fault, out: &mut Vec<u8>) -> FaultSaid {
///         out.extend_from_slice(format!("!{} {}\n", to.command, fault.message).as_bytes());
///         FaultSaid::Told
///     }
/// }
///
/// impl Decoder for LinesDecoder {
///     fn next<'a>(&self, bytes: &'a [u8], max: usize) -> Result<Option<Next<'a>>, ProtocolFault> {
///         let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
///             return if bytes.len() > max { Err(ProtocolFault::new("a line that is too long")) } else { Ok(None) };
///         };
///         let text = std::str::from_utf8(&bytes[..end]).map_err(|_| ProtocolFault::new("no UTF-8"))?;
///         let (command, body) = text.split_once(' ').ok_or(ProtocolFault::new("no body"))?;
///         let command = command.parse().map_err(|_| ProtocolFault::new("no command"))?;
///         Ok(Some(Next::message(end + 1, CommandId(command), body.as_bytes())))
///     }
/// }
///
/// let decoder = Lines.decoder(&[]).unwrap();
/// let bytes = b"100 hello\n101 b";
/// let next = decoder.next(bytes, 1000).unwrap().unwrap();
/// assert_eq!(next, Next::message(10, CommandId(100), b"hello"));
/// assert!(decoder.next(&bytes[next.bytes()..], 1000).unwrap().is_none());
/// ```
pub trait ClientProtocol: fmt::Debug + Send + Sync + 'static {
    /// The name in `client.protocols`, in logs and metrics, and beside a connection that goes to another process. It must
    /// stay the same over releases, and be nobody else's.
    fn name(&self) -> &'static str;

    /// Tells from a connection's first bytes, of which there is at least one, whether its client speaks this protocol. Not
    /// asked when a node speaks one protocol only that [needs no opening](ClientProtocol::opening_bytes_max).
    ///
    /// # Errors
    /// [`ProtocolFault`]: this is what the client wants to speak, and it does so wrongly.
    fn begins(&self, bytes: &[u8]) -> Result<Begins, ProtocolFault>;

    /// The most bytes that [`ClientProtocol::begins`] may wait for; 0 when a message is what a connection begins with.
    fn opening_bytes_max(&self) -> usize {
        0
    }

    /// The decoder of a connection: of a new one when `state` is empty, else of one that had that [state](Decoder::state)
    /// in another process, which may have run an earlier release.
    ///
    /// # Errors
    /// [`ProtocolFault`]: the state is none of this protocol; the client is disconnected.
    fn decoder(&self, state: &[u8]) -> Result<Box<dyn Decoder>, ProtocolFault>;

    /// Appends a message that the client has not asked for.
    ///
    /// The bytes must be the same for every connection: a broadcast is encoded once for all that speak the protocol.
    fn push(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>);

    /// Appends the answer to a request.
    fn reply(&self, to: ReplyTo, body: &[u8], out: &mut Vec<u8>) {
        self.push(to.command, body, out);
    }

    /// Appends the error of a request, or says what is done without: a protocol may have no word for errors.
    fn fault(&self, to: ReplyTo, fault: &Fault, out: &mut Vec<u8>) -> FaultSaid;
}

/// The input of one connection: makes messages of bytes. What is no whole frame yet stays with the caller, so that a
/// decoder is small, or nothing at all.
pub trait Decoder: Send {
    /// The frame at the start of `bytes`, when it is whole; nothing is taken. A message may have `message_bytes_max` bytes,
    /// command and body together, and its frame [`HEADERS_BYTES_MAX`] more: a connection of which so much has come and no
    /// frame is whole ends.
    ///
    /// # Errors
    /// [`ProtocolFault`] as soon as the bytes cannot become a frame: the connection ends.
    fn next<'a>(&self, bytes: &'a [u8], message_bytes_max: usize) -> Result<Option<Next<'a>>, ProtocolFault>;

    /// Takes the whole [`Next::Frame`] that [`Decoder::next`] has found; a protocol whose frames are all messages needs none.
    /// `scratch` is room for what has to be unpacked; its content does not matter.
    ///
    /// # Errors
    /// [`ProtocolFault`]: the connection ends.
    fn take<'a>(
        &mut self,
        _frame: &'a [u8],
        _scratch: &'a mut Vec<u8>,
    ) -> Result<Received<'a>, ProtocolFault> {
        Err(ProtocolFault::new("a frame that its protocol finds and does not take"))
    }

    /// The bytes with which the client is told why its connection ends, if the protocol has a word for that.
    fn farewell(&self, _why: Ending<'_>) -> Option<Vec<u8>> {
        None
    }

    /// All that has to be known between two frames, beside the bytes that are unread. Empty when that is nothing.
    fn state(&self) -> Vec<u8> {
        Vec::new()
    }
}

/// What an answer is sent to: the command of the request, and what else the protocol needs to tell whose answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// The command of the request.
    pub command: CommandId,
    /// The id of the request, for protocols that have one; its meaning is theirs. Else 0.
    pub request: u32,
}

impl ReplyTo {
    /// As one number.
    pub fn token(self) -> u64 {
        u64::from(self.request) << 32 | u64::from(self.command.0)
    }

    /// Of the number that [`ReplyTo::token`] has made.
    pub fn of_token(token: u64) -> Self {
        Self { command: CommandId(token as u32), request: (token >> 32) as u32 }
    }
}

impl From<CommandId> for ReplyTo {
    fn from(command: CommandId) -> Self {
        Self { command, request: 0 }
    }
}

/// The meaning of a connection's first bytes for a protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begins {
    /// Another protocol's.
    Not,
    /// More bytes must come.
    More,
    /// The client speaks this protocol. So many bytes have done their work, and these are the first that it gets.
    Here {
        /// The bytes of the opening; 0 when there is none.
        bytes: usize,
        /// The answer to it.
        answer: Vec<u8>,
    },
}

impl Begins {
    /// For a protocol without an opening: whether the first bytes are its; `None` when more must come.
    pub fn by(is_this: Option<bool>) -> Self {
        match is_this {
            None => Begins::More,
            Some(false) => Begins::Not,
            Some(true) => Begins::Here { bytes: 0, answer: Vec::new() },
        }
    }
}

/// A whole frame at the start of some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next<'a> {
    /// A message that lies there as it is, and changes nothing in the decoder. It waits for its turn, and is not taken: it is
    /// looked at again when the turn has come.
    Message {
        /// The bytes of the frame: where the next one starts.
        bytes: usize,
        /// What an answer goes to.
        to: ReplyTo,
        /// The body.
        body: &'a [u8],
    },
    /// A frame that [`Decoder::take`] takes.
    Frame {
        /// Its bytes: where the next frame starts.
        bytes: usize,
        /// Whether a message is whole with it: then it waits for its turn.
        is_message: bool,
    },
}

impl<'a> Next<'a> {
    /// A message of a protocol whose requests have no ids.
    #[inline]
    pub fn message(bytes: usize, command: CommandId, body: &'a [u8]) -> Self {
        Self::Message { bytes, to: command.into(), body }
    }

    /// The bytes of the frame.
    #[inline]
    pub fn bytes(&self) -> usize {
        let (Self::Message { bytes, .. } | Self::Frame { bytes, .. }) = self;
        *bytes
    }

    /// Whether a message is whole with the frame.
    #[inline]
    pub fn is_message(&self) -> bool {
        !matches!(self, Self::Frame { is_message: false, .. })
    }
}

/// The meaning of a frame that was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received<'a> {
    /// A message.
    Message {
        /// What an answer goes to.
        to: ReplyTo,
        /// The body.
        body: Cow<'a, [u8]>,
        /// The name of the protocol in which the client is spoken to from now on, when that is known only by now: the
        /// decoder stays. In another process that protocol makes the decoder, of the state that this one has.
        spoken: Option<&'static str>,
    },
    /// A sign of life, or a part of a message.
    Beat,
    /// A sign of life that is answered with these bytes.
    Answered(Vec<u8>),
    /// The client has nothing more to say; what it has asked is still answered.
    End,
}

impl<'a> Received<'a> {
    /// A message of a protocol whose requests have no ids.
    pub fn message(command: CommandId, body: &'a [u8]) -> Self {
        Received::Message { to: command.into(), body: Cow::Borrowed(body), spoken: None }
    }
}

/// What has become of a fault that was to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultSaid {
    /// The client is told.
    Told,
    /// The protocol has no word for it, and the client goes on without.
    Untold,
    /// The protocol has no word for it, and a client that waits for an answer cannot be left alone: its connection ends.
    Closes,
}

/// Why a connection cannot go on.
// Boxed: what a decoder returns for each frame is small then.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.text)]
pub struct ProtocolFault(Box<FaultParts>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct FaultParts {
    text: String,
    farewell: Option<Vec<u8>>,
}

impl ProtocolFault {
    /// With one sentence for the log.
    #[cold]
    pub fn new(text: impl Into<String>) -> Self {
        Self(Box::new(FaultParts { text: text.into(), farewell: None }))
    }

    /// With the bytes that the client gets before its connection is closed.
    #[must_use]
    pub fn with_farewell(mut self, bytes: Vec<u8>) -> Self {
        self.0.farewell = Some(bytes);
        self
    }

    /// The bytes that the client gets before its connection is closed.
    pub fn farewell(&self) -> Option<&[u8]> {
        self.0.farewell.as_deref()
    }
}

/// Why a connection ends whose client has made no mistake of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending<'a> {
    /// The app, or a limit, closes it.
    Closed(&'a str),
    /// The client does not keep to the rules of this server.
    Policy(&'a str),
    /// The node is stopping.
    Stopping(&'a str),
    /// The client has ended it.
    ByClient,
}
