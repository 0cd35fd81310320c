//! The client's side of a WebSocket (RFC 6455) as far as a load client needs it: what it sends is masked, what
//! it gets are whole, unmasked binary messages. Written apart from the server's, so that the two check each other.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{bail, ensure};

/// The key of the RFC's example, and what a server makes of it.
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
const RESPONSE_BYTES_MAX: usize = 4096;

const FINAL_BINARY: u8 = 0x82;
const MASKED: u8 = 0x80;

/// Asks for a WebSocket on a blocking connection, and waits until it is granted.
pub(super) fn upgrade(stream: &mut TcpStream, host: SocketAddr) -> anyhow::Result<()> {
    write!(
        stream,
        "GET / HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n"
    )?;
    let mut response = Vec::new();
    while !response.ends_with(b"\r\n\r\n") {
        // A byte at a time: what follows the response is not ours to read.
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        response.extend_from_slice(&byte);
        ensure!(response.len() < RESPONSE_BYTES_MAX, "the answer to the WebSocket request does not end");
    }
    check(&String::from_utf8_lossy(&response))
}

fn check(response: &str) -> anyhow::Result<()> {
    ensure!(response.starts_with("HTTP/1.1 101 "), "no WebSocket: {}", response.lines().next().unwrap_or(""));
    let accept = response.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-accept").then(|| value.trim())
    });
    ensure!(accept == Some(ACCEPT), "a wrong Sec-WebSocket-Accept: {accept:?}");
    Ok(())
}

/// The key with which a client masks. One for all that it sends: nobody between us is to be protected from it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Mask([u8; 4]);

impl Mask {
    /// Of the client with that number; never zero, which would leave the server nothing to do.
    pub(super) fn of(number: u32) -> Self {
        Self((number.wrapping_mul(0x9e37_79b9) | 0x0101_0101).to_be_bytes())
    }

    /// Appends the header of a binary message of `bytes`; returns where its payload starts.
    #[inline]
    pub(super) fn begin(self, bytes: usize, out: &mut Vec<u8>) -> usize {
        match (bytes, u16::try_from(bytes)) {
            (0..126, _) => out.extend_from_slice(&[FINAL_BINARY, MASKED | bytes as u8]),
            (_, Ok(bytes)) => {
                out.extend_from_slice(&[FINAL_BINARY, MASKED | 126]);
                out.extend_from_slice(&bytes.to_be_bytes());
            }
            (_, Err(_)) => {
                out.extend_from_slice(&[FINAL_BINARY, MASKED | 127]);
                out.extend_from_slice(&(bytes as u64).to_be_bytes());
            }
        }
        out.extend_from_slice(&self.0);
        out.len()
    }

    /// Masks a payload, or takes its mask off.
    #[inline]
    pub(super) fn apply(self, payload: &mut [u8]) {
        let (words, rest) = payload.as_chunks_mut::<4>();
        for word in words {
            *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(self.0)).to_ne_bytes();
        }
        rest.iter_mut().zip(self.0).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// A message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) payload: &'a [u8],
    /// With its header.
    pub(super) bytes: usize,
}

/// The whole binary message at the start of `bytes`; an error for anything else that a server may send.
#[inline]
pub(super) fn read(bytes: &[u8], payload_max: u32) -> anyhow::Result<Option<Message<'_>>> {
    let Some(([first, second], rest)) = bytes.split_first_chunk() else { return Ok(None) };
    if *first != FINAL_BINARY {
        bail!("not a whole binary message, but {first:#04x}: {}", String::from_utf8_lossy(rest));
    }
    let (length, head) = match second {
        0..126 => (u64::from(*second), 2),
        126 => match rest.first_chunk() {
            Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
            None => return Ok(None),
        },
        127 => match rest.first_chunk() {
            Some(length) => (u64::from_be_bytes(*length), 10),
            None => return Ok(None),
        },
        _ => bail!("a server's message with a mask"),
    };
    ensure!(length <= u64::from(payload_max), "a message of {length} bytes");
    let whole = head + length as usize;
    Ok(bytes.get(head..whole).map(|payload| Message { payload, bytes: whole }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ffproto::frame::websocket::{Assembly, Opcode, Taken, write};

    const MAX: usize = 100_000;
    const LENGTHS: [usize; 6] = [0, 1, 125, 126, 65_535, 65_536];

    #[test]
    fn the_server_reads_what_the_client_masks() {
        for bytes in LENGTHS {
            let payload: Vec<u8> = (0..bytes).map(|n| n as u8).collect();
            let mask = Mask::of(7);
            let mut wire = b"before".to_vec();
            let start = mask.begin(bytes, &mut wire);
            wire.extend_from_slice(&payload);
            mask.apply(&mut wire[start..]);
            let wire = &wire[b"before".len()..];
            assert!(bytes < 4 || !wire.ends_with(&payload), "{bytes} bytes without a mask");

            let (mut assembly, mut scratch) = (Assembly::default(), Vec::new());
            let next = assembly.next(wire, MAX).unwrap().unwrap();
            assert_eq!(next.bytes, wire.len());
            let taken = assembly.take(&next, wire, &mut scratch).unwrap();
            assert_eq!(taken, Taken::Message { text: false, payload: &payload });
        }
    }

    #[test]
    fn the_client_reads_what_the_server_writes_once_it_is_whole() {
        for bytes in LENGTHS {
            let payload = vec![b'x'; bytes];
            let mut wire = Vec::new();
            write(Opcode::Binary, &payload, &mut wire);
            for end in [0, 1, 2, 3, 9, wire.len() - 1].into_iter().filter(|end| *end < wire.len()) {
                assert_eq!(read(&wire[..end], MAX as u32).unwrap(), None, "{end} of {bytes}");
            }
            let whole = wire.len();
            wire.push(FINAL_BINARY);
            assert_eq!(read(&wire, MAX as u32).unwrap(), Some(Message { payload: &payload, bytes: whole }));
        }
    }

    #[test]
    fn what_is_no_binary_message_is_an_error() {
        let mut close = Vec::new();
        write(Opcode::Close, b"\x03\xe8bye", &mut close);
        let error = read(&close, 100).unwrap_err().to_string();
        assert!(error.contains("0x88") && error.contains("bye"), "{error}");
        for bad in [&[FINAL_BINARY, MASKED | 5][..], &[FINAL_BINARY, 101], &[0x02, 1, 1]] {
            assert!(read(bad, 100).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_granted_request_is_one() {
        let good = format!("HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: {ACCEPT}\r\n\r\n");
        assert!(check(&good).is_ok());
        assert!(check(&good.replace("s3p", "xxx")).is_err());
        let error = check("HTTP/1.1 426 Upgrade Required\r\n\r\n").unwrap_err();
        assert_eq!(error.to_string(), "no WebSocket: HTTP/1.1 426 Upgrade Required");
    }
}
