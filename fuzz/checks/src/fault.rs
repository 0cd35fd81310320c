//! The body of a fault frame.

use ffproto::fault::{Fault, MESSAGE_BYTES_MAX};
use ffproto::{Code, Executed};

/// `code u16 little-endian, body`: what is read can be written and read again, and a body as this version
/// writes it keeps its bytes.
///
/// # Panics
/// One of these does not hold.
pub fn fault(data: &[u8]) {
    let Some((number, body)) = data.split_first_chunk::<2>() else { return };
    let number = u16::from_le_bytes(*number);
    let code = Code::from_number(number);
    assert_eq!(code.number(), number);
    assert!(!code.name().is_empty());
    let Ok(fault) = Fault::read_body(code, body) else { return };
    assert_eq!(fault.code, code);
    assert_eq!(fault.executed == Executed::No, body.first() == Some(&0));
    assert!(!fault.to_string().is_empty());

    let mut again = Vec::new();
    fault.write_body(&mut again);
    let message_at = 2 + fault.at.as_str().len();
    let message = body.get(message_at..).unwrap_or_default();
    let ours = body[0] <= 1 && message.len() <= MESSAGE_BYTES_MAX && std::str::from_utf8(message).is_ok();
    if ours {
        assert_eq!(again, body, "another encoding");
    }
    assert!(again.len() <= message_at + MESSAGE_BYTES_MAX);
    let read = Fault::read_body(code, &again);
    assert!(read.is_ok(), "what was written is malformed");
    // Bytes that are no text become longer when they are read, so the end may be cut.
    let cut = read.as_ref().map_or("", |read| &read.message);
    assert!(fault.message.starts_with(cut));
    assert_eq!(cut.len() < fault.message.len(), fault.message.len() > MESSAGE_BYTES_MAX, "cut without need");
    assert_eq!(read, Ok(Fault { message: cut.to_owned(), ..fault }));
}
