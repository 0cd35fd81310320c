//! The firefly framing, byte by byte (big-endian, the same in both directions):
//!
//! ```text
//! off 0..4  u8 ×4  head_0..head_3     constants of the cluster
//! off 4     u8     proto_version      constant of the cluster
//! off 5     u32    server_version     constant of the cluster
//! off 9     u32    length             body + 4: counts the command and the body
//! off 13    u32    command
//! off 17    body   (length - 4 bytes)
//! ```
//!
//! Source: firefly 1.3.3, `netconnect/datapack.py` (`struct '!sssss3I'`). Unlike there, a length below 4
//! or above the limit is a fault as soon as it is readable, before any memory is taken for the frame.

use crate::CommandId;

/// Bytes before the body.
pub const HEADER_BYTES: usize = 17;
/// Bytes that `length` does not count.
pub const UNCOUNTED_BYTES: usize = 13;

/// The constants in every header of a cluster's clients. All zero by default, as in firefly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Firefly {
    /// head_0 to head_3.
    pub head: [u8; 4],
    /// proto_version.
    pub proto_version: u8,
    /// server_version.
    pub server_version: u32,
}

/// One frame, borrowed from the bytes it was read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The command.
    pub command: CommandId,
    /// The body.
    pub body: &'a [u8],
    /// The frame's length with the header: where the next frame starts.
    pub bytes: usize,
}

/// Why a stream of bytes is no firefly client: the connection cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// One of the six constants differs.
    #[error("wrong head: the first bytes are {got:02x?}, this cluster's are {want:02x?}")]
    WrongHead {
        /// The first nine bytes (zeros where they had not arrived).
        got: [u8; 9],
        /// The bytes that they must be.
        want: [u8; 9],
    },
    /// The length does not even hold the command.
    #[error("length {0} is below 4, which the command alone takes")]
    TooShort(u32),
    /// The length is above the limit.
    #[error("length {length} is above limits.frame_bytes_max = {max}")]
    TooLong {
        /// The length that the frame gives.
        length: u32,
        /// The largest that is allowed.
        max: u32,
    },
}

impl Firefly {
    pub(crate) fn constants(&self) -> [u8; 9] {
        let [a, b, c, d] = self.head;
        let [v0, v1, v2, v3] = self.server_version.to_be_bytes();
        [a, b, c, d, self.proto_version, v0, v1, v2, v3]
    }

    /// Reads the frame at the start of `bytes`. `Ok(None)` means that more bytes must come.
    ///
    /// # Errors
    /// [`FrameFault`] as soon as the bytes cannot become a frame; `length` may be at most `length_max`.
    #[inline]
    pub fn read<'a>(&self, bytes: &'a [u8], length_max: u32) -> Result<Option<Frame<'a>>, FrameFault> {
        let want = self.constants();
        let seen = bytes.len().min(want.len());
        if bytes[..seen] != want[..seen] {
            let mut got = [0; 9];
            got[..seen].copy_from_slice(&bytes[..seen]);
            return Err(FrameFault::WrongHead { got, want });
        }
        let Some(length) = u32_at(bytes, 9) else { return Ok(None) };
        if length < 4 {
            return Err(FrameFault::TooShort(length));
        }
        if length > length_max {
            return Err(FrameFault::TooLong { length, max: length_max });
        }
        let whole = UNCOUNTED_BYTES + length as usize;
        let (Some(command), Some(body)) = (u32_at(bytes, UNCOUNTED_BYTES), bytes.get(HEADER_BYTES..whole))
        else {
            return Ok(None);
        };
        Ok(Some(Frame { command: CommandId(command), body, bytes: whole }))
    }

    /// Appends a frame to `out`, with one copy of the body.
    ///
    /// The body must be shorter than 4 GiB - 4; nothing that long is ever queued, because every outbox is
    /// bounded far below. A longer one would be cut.
    #[inline]
    pub fn write(&self, command: CommandId, body: &[u8], out: &mut Vec<u8>) {
        let body = &body[..body.len().min(u32::MAX as usize - 4)];
        out.reserve(HEADER_BYTES + body.len());
        out.extend_from_slice(&self.header(command, body.len()));
        out.extend_from_slice(body);
    }

    /// The seventeen bytes before a body of `body_len`.
    #[inline]
    pub fn header(&self, command: CommandId, body_len: usize) -> [u8; HEADER_BYTES] {
        let mut header = [0; HEADER_BYTES];
        header[..9].copy_from_slice(&self.constants());
        header[9..13].copy_from_slice(&(body_len as u32 + 4).to_be_bytes());
        header[13..].copy_from_slice(&command.0.to_be_bytes());
        header
    }
}

#[inline]
fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.get(at..at + 4)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Firefly = Firefly { head: [0; 4], proto_version: 0, server_version: 0 };
    const MAX: u32 = 65_536;

    fn bytes_of(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|two| u8::from_str_radix(std::str::from_utf8(two).unwrap(), 16).unwrap())
            .collect()
    }

    #[test]
    fn the_demo_request_has_fireflys_bytes() {
        let mut out = Vec::new();
        PLAIN.write(CommandId(100), b"msgdata", &mut out);
        assert_eq!(out, bytes_of("00 00 00 00 00 00000000 0000000b 00000064 6d736764617461"));
    }

    #[test]
    fn split_at_every_byte_a_frame_is_read_once_it_is_whole() {
        let codec = Firefly { head: *b"GAME", proto_version: 7, server_version: 0x0102_0304 };
        let mut wire = Vec::new();
        codec.write(CommandId(0xdead_beef), b"body", &mut wire);
        for end in 0..wire.len() {
            assert_eq!(codec.read(&wire[..end], MAX), Ok(None), "at {end}");
        }
        let frame = codec.read(&wire, MAX).unwrap().unwrap();
        assert_eq!((frame.command, frame.body, frame.bytes), (CommandId(0xdead_beef), &b"body"[..], 21));
    }

    #[test]
    fn glued_frames_are_read_one_after_the_other() {
        let mut wire = Vec::new();
        for n in 0..3 {
            PLAIN.write(CommandId(n), &vec![b'x'; n as usize], &mut wire);
        }
        let mut rest = &wire[..];
        for n in 0..3 {
            let frame = PLAIN.read(rest, MAX).unwrap().unwrap();
            assert_eq!((frame.command.0, frame.body.len()), (n, n as usize));
            rest = &rest[frame.bytes..];
        }
        assert!(rest.is_empty());
    }

    #[test]
    fn a_wrong_head_is_known_from_its_first_wrong_byte() {
        assert!(matches!(PLAIN.read(b"\0\0G", MAX), Err(FrameFault::WrongHead { .. })));
        assert!(matches!(PLAIN.read(b"GET / HTTP/1.1", MAX), Err(FrameFault::WrongHead { .. })));
    }

    #[test]
    fn a_bad_length_is_known_before_the_body_arrives() {
        let length = |n: u32| [&[0; 9][..], &n.to_be_bytes()].concat();
        assert_eq!(PLAIN.read(&length(3), MAX), Err(FrameFault::TooShort(3)));
        assert_eq!(PLAIN.read(&length(MAX + 1), MAX), Err(FrameFault::TooLong { length: MAX + 1, max: MAX }));
        assert_eq!(
            PLAIN.read(&length(u32::MAX), MAX),
            Err(FrameFault::TooLong { length: u32::MAX, max: MAX })
        );
        assert_eq!(PLAIN.read(&length(MAX), MAX), Ok(None));
    }
}
