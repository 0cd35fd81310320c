//! Typed payloads between nodes as bytes: what the envelopes and a login's verdict carry.

use bincode::Options;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The coding of typed payloads: bincode 1, fixed-size integers, little-endian, as in handshakes.
fn coding(bytes_max: usize) -> impl Options {
    bincode::DefaultOptions::new().with_fixint_encoding().with_limit(bytes_max as u64)
}

/// The bytes of a typed payload.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    // Maps, texts and numbers always have a form.
    bincode::DefaultOptions::new().with_fixint_encoding().serialize(value).unwrap_or_default()
}

/// A typed payload out of its bytes; `None` when they are malformed. No length in them can ask for more memory than has
/// arrived.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    coding(bytes.len()).deserialize(bytes).ok()
}
