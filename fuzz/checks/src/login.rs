//! The verdict over a login: what a handler has answered.

use bincode::Options;
use ffproto::login::{MARK, Verdict};

use crate::coding;

/// An answer: what is read as a verdict has no other encoding, and no length asks for more memory than has
/// arrived.
///
/// # Panics
/// One of these does not hold.
pub fn login(data: &[u8]) {
    let Some(payload) = data.strip_prefix(&MARK) else { return };
    let Ok(verdict) = coding(payload.len()).deserialize::<Verdict>(payload) else { return };
    let again = coding(usize::MAX >> 1).serialize(&verdict).unwrap_or_default();
    assert_eq!(again, payload, "another encoding");
}
