//! The beginning, the frames and the messages of a WebSocket, as a stream that arrives in pieces.

use ffproto::CommandId;
use ffproto::frame::json;
use ffproto::frame::upgrade::{self, REQUEST_BYTES_MAX};
use ffproto::frame::websocket::{Assembly, CONTROL_BYTES_MAX, Next, Taken, WebSocketFault};

use crate::input::Input;

/// Frames of a client (an odd variant: after the request that begins a WebSocket): a frame is that of its
/// bytes and of no others, is judged by its header, no message is above the limit, texts are UTF-8, and where
/// the stream was cut makes no difference. What a text message means can be written and read again.
///
/// # Panics
/// One of these does not hold.
pub fn websocket(data: &[u8]) {
    let input = Input::of(data);
    let from_request = input.variant % 2 == 1;
    let max = input.length_max as usize;
    let arriving = meant(input.stream, input.arrivals(), max, from_request);
    let whole = meant(input.stream, [input.stream.len()].into_iter(), max, from_request);
    assert_eq!(arriving, whole, "it depends on where the stream is cut");
}

/// Everything that a stream meant, and its fault.
fn meant(
    stream: &[u8],
    arrivals: impl Iterator<Item = usize>,
    max: usize,
    from_request: bool,
) -> (Vec<String>, Option<WebSocketFault>) {
    let (mut all, mut at) = (Vec::new(), 0);
    let mut socket = (!from_request).then(Assembly::default);
    let mut scratch = Vec::new();
    for seen in arrivals {
        if socket.is_none() {
            match request(&stream[at..seen]) {
                Ok(Some(bytes)) => {
                    at += bytes;
                    socket = Some(Assembly::default());
                }
                Ok(None) => continue,
                Err(fault) => return (all, Some(fault)),
            }
        }
        let Some(assembly) = &mut socket else { continue };
        loop {
            let rest = &stream[at..seen];
            let next = match assembly.next(rest, max) {
                Ok(Some(next)) => next,
                Ok(None) => break,
                Err(fault) => return (all, Some(fault)),
            };
            judge(assembly, &next, rest, max);
            at += next.bytes;
            match assembly.take(&next, rest, &mut scratch) {
                Ok(taken) => all.push(understood(taken, max)),
                Err(fault) => return (all, Some(fault)),
            }
        }
    }
    (all, None)
}

/// How many bytes the request has; `None` while it is not whole, or there is none.
fn request(bytes: &[u8]) -> Result<Option<usize>, WebSocketFault> {
    if !upgrade::may_begin(bytes) {
        return Ok(None);
    }
    let Some(upgrade) = upgrade::read(bytes).inspect_err(|fault| {
        assert!(fault.response().starts_with(b"HTTP/1.1 4"));
    })?
    else {
        assert!(bytes.len() < REQUEST_BYTES_MAX);
        return Ok(None);
    };
    assert!(upgrade.response.ends_with(b"\r\n\r\n"));
    assert_eq!(upgrade::read(&bytes[..upgrade.bytes]).ok().flatten().as_ref(), Some(&upgrade));
    Ok(Some(upgrade.bytes))
}

fn judge(assembly: &Assembly, next: &Next, rest: &[u8], max: usize) {
    assert_eq!(assembly.next(&rest[..next.bytes], max), Ok(Some(*next)), "it depends on what follows");
    for end in 0..next.bytes {
        assert_eq!(assembly.next(&rest[..end], max), Ok(None), "a frame of {end} bytes");
    }
}

fn understood(taken: Taken<'_>, max: usize) -> String {
    match taken {
        Taken::Message { text, payload } => {
            assert!(payload.len() <= max);
            if text && let Ok((command, body)) = json::read(std::str::from_utf8(payload).unwrap_or_default())
            {
                written(command, &body);
            }
            assert!(!text || std::str::from_utf8(payload).is_ok());
        }
        Taken::Ping(payload) => assert!(payload.len() <= CONTROL_BYTES_MAX),
        Taken::Close(code) => assert!(code.is_none_or(|code| (1000..5000).contains(&code))),
        Taken::Fragment | Taken::Pong => {}
    }
    format!("{taken:?}")
}

/// The server's message of the same body is read as that, too.
fn written(command: CommandId, body: &[u8]) {
    let again = json::message(command, body);
    let text = std::str::from_utf8(&again).unwrap_or_default();
    let read = json::read(text).map(|(command, body)| (command, body.into_owned()));
    assert_eq!(read, Ok((command, body.to_vec())), "{text}");
}
