//! The client library: calls to a cluster's netport, its pushes, and its login, over firefly frames or WebSocket.
//!
//! [`Client`] is for programs that call: any number of calls at a time, pushes beside them, a deadline for each
//! operation, every queue bounded. [`Connection`] and [`WebSocket`] are the same wire without a task behind it: one
//! message after the other, for tools that look at the order in which everything comes.
//!
//! ```no_run
//! use ffclient::{CallError, Client, CommandId, Options};
//!
//! # async fn play() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:10001", Options::default()).await?;
//! match client.call(CommandId(100), b"msgdata").await {
//!     Ok(body) => println!("{}", String::from_utf8_lossy(&body)),
//!     Err(CallError::Fault(fault)) => println!("{}: {}", fault.code, fault.message),
//!     Err(error) => return Err(error.into()),
//! }
//! client.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! The frames carry no number of their request. A frame under the command of a call that is under way is that call's
//! reply, the oldest first; every other frame is a push. A game that pushes under the command of a request must tell the
//! two apart by their bodies, and calls of one command are answered in order unless its handler is `concurrent` or its
//! route `stateless` (docs/protocol.md).

mod calls;
mod client;
mod connection;
mod decoder;
mod error;
mod fault;
mod half;
mod message;
mod options;
mod pushes;
#[cfg(test)]
mod tests;
mod websocket;

pub use client::Client;
pub use connection::Connection;
pub use error::{
    CallError, CloseError, Closed, ConnectError, LoginError, PushError, ReceiveError, SendError,
};
pub use fault::{BadFault, Fault};
pub use ffproto::frame::{Firefly, FrameFault};
pub use ffproto::{Code, CommandId, Executed};
pub use message::Message;
pub use options::Options;
pub use tokio_tungstenite::tungstenite;
pub use websocket::WebSocket;
