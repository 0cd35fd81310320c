//! The verdict over a login: what the handler that decides answers to the net node of the client, as the body of its
//! reply.
//!
//! ```text
//! off 0  4 bytes  ff 56 44 01     no text and no JSON begins so: another answer is not taken for a verdict
//! off 4           [`Verdict`]     as the typed payloads of links
//! ```

use serde::{Deserialize, Serialize};

/// What a verdict begins with; the last byte is its version.
pub const MARK: [u8; 4] = *b"\xffVD\x01";

/// Whether a client is who it says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// The client is not who it says, or may not come in.
    Refuse {
        /// Why, for the client.
        reason: String,
    },
    /// The client is in.
    Accept {
        /// The user that the client is.
        user: String,
        /// The body of the answer to its login.
        greeting: Vec<u8>,
        /// The attributes of the session.
        attributes: Vec<(String, String)>,
    },
}
