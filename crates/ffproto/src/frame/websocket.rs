//! WebSocket messages (RFC 6455, section 5), server side: what clients send is masked and may come in
//! fragments, what the server sends is neither. The header is read and written by tungstenite; which frames
//! may follow each other, and how they become messages, is decided here, without a buffer of its own: what
//! is no whole frame yet stays with the caller.

use std::io::Cursor;

use serde::{Deserialize, Serialize};
use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};

use super::json::JsonFault;
use super::{FrameFault, upgrade::RequestFault};

/// The most bytes that a control frame carries.
pub const CONTROL_BYTES_MAX: usize = 125;
/// The most bytes of a frame before its payload.
pub const HEAD_BYTES_MAX: usize = 14;

/// The opcode of a frame: what kind it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opcode {
    /// The next fragment of a message.
    Continue,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// The end.
    Close,
    /// Asks for a Pong.
    Ping,
    /// Answers a Ping, or comes unasked.
    Pong,
}

impl Opcode {
    fn is_control(self) -> bool {
        matches!(self, Opcode::Close | Opcode::Ping | Opcode::Pong)
    }

    fn of(code: OpCode) -> Option<Self> {
        Some(match code {
            OpCode::Data(Data::Continue) => Opcode::Continue,
            OpCode::Data(Data::Text) => Opcode::Text,
            OpCode::Data(Data::Binary) => Opcode::Binary,
            OpCode::Control(Control::Close) => Opcode::Close,
            OpCode::Control(Control::Ping) => Opcode::Ping,
            OpCode::Control(Control::Pong) => Opcode::Pong,
            OpCode::Data(Data::Reserved(_)) | OpCode::Control(Control::Reserved(_)) => return None,
        })
    }

    fn code(self) -> OpCode {
        match self {
            Opcode::Continue => OpCode::Data(Data::Continue),
            Opcode::Text => OpCode::Data(Data::Text),
            Opcode::Binary => OpCode::Data(Data::Binary),
            Opcode::Close => OpCode::Control(Control::Close),
            Opcode::Ping => OpCode::Control(Control::Ping),
            Opcode::Pong => OpCode::Control(Control::Pong),
        }
    }
}

/// Why a client's WebSocket cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WebSocketFault {
    /// The WebSocket did not begin.
    #[error("no WebSocket: {0}")]
    Request(#[from] RequestFault),
    /// A reserved bit is set: an extension that was not agreed on.
    #[error("a reserved bit is set, and no extension was agreed on")]
    Reserved,
    /// A reserved opcode.
    #[error("opcode {0} is reserved")]
    Opcode(u8),
    /// A client masks its frames.
    #[error("a frame without a mask")]
    Unmasked,
    /// The length could have been written with fewer bytes.
    #[error("a length that is written with more bytes than it needs")]
    Length,
    /// A control frame is whole and short.
    #[error("a control frame that is a fragment or longer than {CONTROL_BYTES_MAX} bytes")]
    Control,
    /// A fragment of nothing.
    #[error("a continuation without a message that it continues")]
    NothingToContinue,
    /// A message inside another.
    #[error("a new message before the end of the last one")]
    Interleaved,
    /// The message is above the limit.
    #[error("a message of {bytes} bytes or more is above limits.frame_bytes_max and a header = {max}")]
    TooLong {
        /// The message's bytes as far as they are known.
        bytes: u64,
        /// The largest that is allowed.
        max: usize,
    },
    /// A close frame without a legal code.
    #[error("a close frame with half a code or an illegal one")]
    CloseCode,
    /// A text, or the reason of a close frame, is no UTF-8.
    #[error("a text that is no UTF-8")]
    Utf8,
    /// A binary message carries a malformed firefly frame.
    #[error("the frame in a binary message: {0}")]
    Frame(#[from] FrameFault),
    /// A binary message carries something else than one whole frame.
    #[error("a binary message that is not exactly one frame")]
    NotOneFrame,
    /// A text message is no message.
    #[error("{0}")]
    Json(#[from] JsonFault),
}

impl WebSocketFault {
    /// The code with which the connection is closed (RFC 6455, section 7.4.1).
    pub fn close_code(&self) -> u16 {
        match self {
            WebSocketFault::TooLong { .. } | WebSocketFault::Frame(FrameFault::TooLong { .. }) => 1009,
            WebSocketFault::Utf8
            | WebSocketFault::Frame(_)
            | WebSocketFault::NotOneFrame
            | WebSocketFault::Json(_) => 1007,
            _ => 1002,
        }
    }
}

/// The assembly of a client's messages, besides the bytes that wait to be read: between two whole frames it can be
/// carried to another process. Empty unless a message has begun and not ended.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Assembly {
    partial: Option<Partial>,
}

/// A message of which fragments have come, and more will.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Partial {
    text: bool,
    payload: Vec<u8>,
}

/// The whole frame at the start of some bytes, checked and not yet taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Next {
    opcode: Opcode,
    is_final: bool,
    mask: [u8; 4],
    head: usize,
    /// The frame's length with the header: where the next frame starts.
    pub bytes: usize,
}

impl Next {
    /// Whether a message is whole with this frame.
    pub fn ends_message(&self) -> bool {
        self.is_final && !self.opcode.is_control()
    }
}

/// The meaning of a frame that was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken<'a> {
    /// A message is whole.
    Message {
        /// Whether it is a text message: its payload is UTF-8 then.
        text: bool,
        /// The payload.
        payload: &'a [u8],
    },
    /// More of the message will come.
    Fragment,
    /// A Ping, to be answered with a Pong of the same payload.
    Ping(&'a [u8]),
    /// A Pong: nothing to do.
    Pong,
    /// The client has nothing more to say; with its code, if it gave one.
    Close(Option<u16>),
}

impl Assembly {
    /// The frame at the start of `bytes`, when it is whole; its header is checked as soon as that is. A message
    /// may have at most `message_bytes_max` bytes in all its fragments.
    ///
    /// # Errors
    /// [`WebSocketFault`] as soon as the bytes cannot become a frame that may come now.
    pub fn next(&self, bytes: &[u8], message_bytes_max: usize) -> Result<Option<Next>, WebSocketFault> {
        let mut cursor = Cursor::new(&bytes[..bytes.len().min(HEAD_BYTES_MAX)]);
        let (header, length) = match FrameHeader::parse(&mut cursor) {
            Ok(Some(parsed)) => parsed,
            Ok(None) => return Ok(None),
            Err(Error::Protocol(ProtocolError::InvalidOpcode(code))) => {
                return Err(WebSocketFault::Opcode(code));
            }
            // Reading from a slice does not fail.
            Err(_) => return Ok(None),
        };
        let opcode = Opcode::of(header.opcode).ok_or(WebSocketFault::Opcode(0))?;
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(WebSocketFault::Reserved);
        }
        let mask = header.mask.ok_or(WebSocketFault::Unmasked)?;
        let head = cursor.position() as usize;
        if header.len(length) != head {
            return Err(WebSocketFault::Length);
        }
        self.check(opcode, header.is_final, length, message_bytes_max)?;
        let whole = head + length as usize; // It has been checked against the limit.
        let is_final = header.is_final;
        Ok((bytes.len() >= whole).then_some(Next { opcode, is_final, mask, head, bytes: whole }))
    }

    fn check(&self, opcode: Opcode, is_final: bool, length: u64, max: usize) -> Result<(), WebSocketFault> {
        if opcode.is_control() {
            let legal = is_final && length <= CONTROL_BYTES_MAX as u64;
            return if legal { Ok(()) } else { Err(WebSocketFault::Control) };
        }
        match (opcode, &self.partial) {
            (Opcode::Continue, None) => return Err(WebSocketFault::NothingToContinue),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(WebSocketFault::Interleaved),
            _ => {}
        }
        let before = self.partial.as_ref().map_or(0, |partial| partial.payload.len()) as u64;
        let bytes = before.saturating_add(length);
        if bytes > max as u64 { Err(WebSocketFault::TooLong { bytes, max }) } else { Ok(()) }
    }

    /// Takes the frame `next`, which starts `bytes`. Its payload is in `scratch` without its mask.
    ///
    /// # Errors
    /// [`WebSocketFault`].
    pub fn take<'a>(
        &mut self,
        next: &Next,
        bytes: &[u8],
        scratch: &'a mut Vec<u8>,
    ) -> Result<Taken<'a>, WebSocketFault> {
        scratch.clear();
        let payload = bytes.get(next.head..next.bytes).unwrap_or_default();
        match next.opcode {
            Opcode::Ping => {
                unmask(payload, next.mask, scratch);
                Ok(Taken::Ping(scratch))
            }
            Opcode::Pong => Ok(Taken::Pong),
            Opcode::Close => {
                unmask(payload, next.mask, scratch);
                close_code(scratch).map(Taken::Close)
            }
            Opcode::Continue | Opcode::Text | Opcode::Binary if !next.is_final => {
                let text = next.opcode == Opcode::Text;
                let partial = self.partial.get_or_insert_with(|| Partial { text, payload: Vec::new() });
                unmask(payload, next.mask, &mut partial.payload);
                Ok(Taken::Fragment)
            }
            Opcode::Continue | Opcode::Text | Opcode::Binary => {
                let mut text = next.opcode == Opcode::Text;
                if let Some(partial) = self.partial.take() {
                    text = partial.text;
                    *scratch = partial.payload;
                }
                unmask(payload, next.mask, scratch);
                if text && std::str::from_utf8(scratch).is_err() {
                    return Err(WebSocketFault::Utf8);
                }
                Ok(Taken::Message { text, payload: scratch })
            }
        }
    }
}

/// Appends `payload` without its mask.
fn unmask(payload: &[u8], mask: [u8; 4], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(payload);
    let (words, rest) = out[start..].as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, WebSocketFault> {
    let Some((code, reason)) = payload.split_first_chunk::<2>() else {
        return if payload.is_empty() { Ok(None) } else { Err(WebSocketFault::CloseCode) };
    };
    let code = u16::from_be_bytes(*code);
    if !CloseCode::from(code).is_allowed() {
        return Err(WebSocketFault::CloseCode);
    }
    std::str::from_utf8(reason).map_err(|_| WebSocketFault::Utf8)?;
    Ok(Some(code))
}

/// Appends the header of a frame of the server whose payload has `bytes`.
#[inline]
pub fn write_head(opcode: Opcode, bytes: usize, out: &mut Vec<u8>) {
    let header = FrameHeader { opcode: opcode.code(), ..FrameHeader::default() };
    out.reserve(HEAD_BYTES_MAX + bytes);
    // Writing to a vector does not fail.
    let _ = header.format(bytes as u64, out);
}

/// Appends a frame of the server.
pub fn write(opcode: Opcode, payload: &[u8], out: &mut Vec<u8>) {
    write_head(opcode, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a close frame; a reason that is too long is cut at a character.
pub fn write_close(code: u16, reason: &str, out: &mut Vec<u8>) {
    let end = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
    write_head(Opcode::Close, 2 + end, out);
    out.extend_from_slice(&code.to_be_bytes());
    out.extend_from_slice(&reason.as_bytes()[..end]);
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

    /// A client's frame.
    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let opcode = OpCode::from(first & 0x0f);
        let header = FrameHeader {
            is_final: first & 0x80 != 0,
            rsv1: first & 0x40 != 0,
            opcode,
            mask: Some(MASK),
            ..FrameHeader::default()
        };
        let mut out = Vec::new();
        header.format(payload.len() as u64, &mut out).unwrap();
        unmask(payload, MASK, &mut out);
        out
    }

    /// What frames mean, one after the other.
    fn meant(frames: &[Vec<u8>]) -> Result<Vec<String>, WebSocketFault> {
        let (mut assembly, mut scratch, mut all) = (Assembly::default(), Vec::new(), Vec::new());
        for frame in frames {
            let next = assembly.next(frame, MAX)?.unwrap();
            assert_eq!(next.bytes, frame.len());
            all.push(match assembly.take(&next, frame, &mut scratch)? {
                Taken::Message { text, payload } => format!("{text} {}", String::from_utf8_lossy(payload)),
                other => format!("{other:?}"),
            });
        }
        Ok(all)
    }

    #[test]
    fn the_rfcs_masked_hello_is_read_once_it_is_whole() {
        let wire = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58];
        assert_eq!(wire.to_vec(), frame(0x81, b"Hello"));
        for end in 0..wire.len() {
            assert_eq!(Assembly::default().next(&wire[..end], MAX), Ok(None), "at {end}");
        }
        assert_eq!(meant(&[wire.to_vec()]).unwrap(), ["true Hello"]);
    }

    #[test]
    fn fragments_become_one_message_with_control_frames_between_them() {
        let frames = [
            frame(0x01, b"frag"),
            frame(0x89, b"ping"),
            frame(0x00, b""),
            frame(0x8a, b""),
            frame(0x80, "mént".as_bytes()),
            frame(0x82, b"next"),
        ];
        let ping = format!("{:?}", Taken::Ping(b"ping"));
        let want = ["Fragment", &ping, "Fragment", "Pong", "true fragmént", "false next"];
        assert_eq!(meant(&frames).unwrap(), want);
    }

    #[test]
    fn utf8_is_judged_over_the_whole_message() {
        let frames = [frame(0x01, &[0xc3]), frame(0x80, &[0xa9])];
        assert_eq!(meant(&frames).unwrap(), ["Fragment", "true é"]);
        assert_eq!(meant(&[frame(0x81, &[0xc3])]), Err(WebSocketFault::Utf8));
        assert_eq!(meant(&[frame(0x82, &[0xc3])]).map(|all| all.len()), Ok(1));
    }

    #[test]
    fn what_the_rfc_forbids_has_its_fault_and_code() {
        let mut unmasked = Vec::new();
        write(Opcode::Text, b"Hello", &mut unmasked);
        for (frames, fault, code) in [
            (vec![unmasked], WebSocketFault::Unmasked, 1002),
            (vec![frame(0xc1, b"x")], WebSocketFault::Reserved, 1002),
            (vec![vec![0x83, 0x80, 0, 0, 0, 0]], WebSocketFault::Opcode(3), 1002),
            (vec![vec![0x8b, 0x80, 0, 0, 0, 0]], WebSocketFault::Opcode(11), 1002),
            (vec![vec![0x81, 0xfe, 0, 5, 0, 0, 0, 0]], WebSocketFault::Length, 1002),
            (vec![frame(0x09, b"")], WebSocketFault::Control, 1002),
            (vec![frame(0x89, &[0; 126])], WebSocketFault::Control, 1002),
            (vec![frame(0x80, b"")], WebSocketFault::NothingToContinue, 1002),
            (vec![frame(0x01, b""), frame(0x81, b"")], WebSocketFault::Interleaved, 1002),
            (vec![frame(0x88, &[3])], WebSocketFault::CloseCode, 1002),
            (vec![frame(0x88, &1005u16.to_be_bytes())], WebSocketFault::CloseCode, 1002),
            (vec![frame(0x88, &999u16.to_be_bytes())], WebSocketFault::CloseCode, 1002),
            (vec![frame(0x88, &[3, 0xe8, 0xff])], WebSocketFault::Utf8, 1007),
            (vec![frame(0x82, &[0; 1001])], WebSocketFault::TooLong { bytes: 1001, max: MAX }, 1009),
            (
                vec![frame(0x02, &[0; 600]), frame(0x80, &[0; 401])],
                WebSocketFault::TooLong { bytes: 1001, max: MAX },
                1009,
            ),
        ] {
            assert_eq!(fault.close_code(), code);
            assert_eq!(meant(&frames), Err(fault));
        }
        assert_eq!(meant(&[frame(0x88, b"")]).unwrap(), ["Close(None)"]);
        assert_eq!(meant(&[frame(0x88, &[0x0f, 0xa0, b'x'])]).unwrap(), ["Close(Some(4000))"]);
    }

    #[test]
    fn a_length_above_the_limit_is_known_before_the_payload_arrives() {
        let huge = [0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let fault = Assembly::default().next(&huge, MAX).unwrap_err();
        assert!(matches!(fault, WebSocketFault::TooLong { .. }), "{fault}");
    }

    #[test]
    fn a_close_reason_is_cut_at_a_character() {
        let mut wire = Vec::new();
        write_close(1000, &"é".repeat(100), &mut wire);
        assert_eq!(wire[..4], [0x88, 124, 3, 0xe8]);
        assert_eq!(std::str::from_utf8(&wire[4..]).unwrap(), "é".repeat(61));
    }
}
