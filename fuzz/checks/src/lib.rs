//! What must hold for any bytes that a stranger sends, or a disk gives back: one function per decoder.
//!
//! The fuzz targets call these with what the fuzzer makes up, the tests of this package with the committed
//! corpus (`fuzz/corpus`). A check returns, or it panics: that is a finding.

mod config;
#[cfg(feature = "stateful")]
mod conversation;
mod fault;
mod frames;
mod input;
mod journal;
mod log;
mod login;
mod messages;
mod protocol;
mod relay;
mod websocket;

pub use config::config;
#[cfg(feature = "stateful")]
pub use conversation::{Conversation, conversation, converse};
pub use fault::fault;
pub use frames::{client_frame, link_frame};
pub use journal::journal;
pub use log::log;
pub use login::login;
pub use messages::{coding, control, handshake};
pub use protocol::protocol;
pub use relay::relay;
pub use websocket::websocket;

/// A check of one decoder.
pub type Check = fn(&[u8]);

/// Every check, by the name of its fuzz target and of its folder in the corpus.
pub const CHECKS: &[(&str, Check)] = &[
    ("client_frame", client_frame),
    ("link_frame", link_frame),
    ("websocket", websocket),
    ("protocol", protocol),
    ("relay", relay),
    ("login", login),
    ("fault", fault),
    ("config", config),
    ("handshake", handshake),
    ("control", control),
    ("journal", journal),
    ("log", log),
    #[cfg(feature = "stateful")]
    ("conversation", conversation),
];
