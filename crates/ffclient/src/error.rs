//! The errors of a client, an enum for each operation.

use std::io;
use std::time::Duration;

use ffproto::Executed;
use ffproto::frame::FrameFault;

use crate::fault::{BadFault, Fault};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, the name is unknown, or the network is down.
    #[error("no connection: {0}")]
    Io(#[from] io::Error),
    /// Nobody has answered within [`connect_timeout`](crate::Options::connect_timeout).
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    /// The server speaks no WebSocket, or refuses it.
    #[error("no WebSocket: {0}")]
    Handshake(String),
}

/// Why a message was not sent, or may not have been.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The body is longer than [`request_bytes_max`](crate::Options::request_bytes_max); nothing was sent.
    #[error("the body is longer than a request may be")]
    TooLong,
    /// The server takes nothing: there was no room within [`send_timeout`](crate::Options::send_timeout).
    #[error("the server has taken nothing for {0:?}")]
    Timeout(Duration),
    /// The connection is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why no message came.
#[derive(Debug, thiserror::Error)]
pub enum ReceiveError {
    /// None came within [`call_timeout`](crate::Options::call_timeout).
    #[error("silence: no message within {0:?}")]
    Timeout(Duration),
    /// The connection is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a call has no reply.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The server answered with an error frame.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// No answer came in time. One that comes later is thrown away.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// As many calls as [`calls_max`](crate::Options::calls_max) wait for their reply; nothing was sent.
    #[error("too many calls are under way")]
    Overloaded,
    /// The body is longer than [`request_bytes_max`](crate::Options::request_bytes_max); nothing was sent.
    #[error("the body is longer than a request may be")]
    TooLong,
    /// The connection is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

impl CallError {
    /// Whether the handler may have run.
    pub fn executed(&self) -> Executed {
        match self {
            Self::Fault(fault) => fault.executed,
            Self::Overloaded | Self::TooLong => Executed::No,
            Self::Timeout(_) | Self::Closed(_) => Executed::Unknown,
        }
    }
}

/// Why a client is not logged in.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// The server refuses this login, and closes the connection.
    #[error("refused: {}", .0.message)]
    Refused(Fault),
    /// The login could not be decided, or another message came before it.
    #[error(transparent)]
    Fault(Fault),
    /// There was no error frame either.
    #[error(transparent)]
    Call(CallError),
}

impl From<CallError> for LoginError {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Fault(fault) if fault.code == ffproto::Code::Refused => Self::Refused(fault),
            CallError::Fault(fault) => Self::Fault(fault),
            other => Self::Call(other),
        }
    }
}

/// Why there is no push.
#[derive(Debug, thiserror::Error)]
pub enum PushError {
    /// The server sent an error frame that is no call's: of a request without one, or the last word before it closes the
    /// connection. More may come.
    #[error(transparent)]
    Fault(Fault),
    /// So many pushes were lost before the next one: they came faster than they were taken. More may come.
    #[error("{0} pushes were lost: they came faster than they were taken")]
    Lagged(u64),
    /// The connection is gone.
    #[error(transparent)]
    Closed(#[from] Closed),
}

/// Why a connection did not end in good order.
#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    /// The server has not closed its side within [`close_timeout`](crate::Options::close_timeout).
    #[error("the server has not closed its side within {0:?}")]
    Timeout(Duration),
    /// The connection broke before.
    #[error(transparent)]
    Broken(Closed),
}

/// Why a connection is gone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Closed {
    /// This client closed it.
    #[error("this client closed the connection")]
    ByClient,
    /// The server closed it.
    #[error("the server closed the connection")]
    ByServer,
    /// The server closed its WebSocket with this code and reason; the reason of a fault is `CODE: MESSAGE`.
    #[error("the server closed the connection: {code} {reason}")]
    WithReason {
        /// The close code of RFC 6455, 7.4.
        code: u16,
        /// What the server said.
        reason: String,
    },
    /// The network broke, or took nothing for too long.
    #[error("the connection broke: {0}")]
    Broken(String),
    /// The server sent what is no frame of this cluster.
    #[error("the server sent no frame: {0}")]
    BadFrame(#[from] FrameFault),
    /// The server sent what the protocol does not have.
    #[error("the server broke the protocol: {0}")]
    Protocol(String),
}

impl From<io::Error> for Closed {
    fn from(error: io::Error) -> Self {
        Self::Broken(error.to_string())
    }
}

impl From<BadFault> for Closed {
    fn from(error: BadFault) -> Self {
        Self::Protocol(error.to_string())
    }
}
