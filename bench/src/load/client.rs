//! One connection of the load client: writes numbered requests, reads and checks answers.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::Context;
use ffproto::CommandId;
use ffproto::frame::firefly::{Firefly, Frame, HEADER_BYTES};

use super::flight::{Flight, Landing};
use super::websocket::{self, Mask};

const FIREFLY: Firefly = Firefly { head: [0; 4], proto_version: 0, server_version: 0 };
/// Error frames may be longer than what was sent.
const FRAME_MAX: u32 = 1024 * 1024;

/// The request that every connection sends: a header, the request's number, the connection's number, filler.
pub(super) struct Template {
    bytes: Vec<u8>,
    command: CommandId,
    error_command: CommandId,
}

impl Template {
    pub(super) fn new(command: u32, error_command: u32, body_bytes: usize) -> Self {
        let filler: Vec<u8> = (0..body_bytes).map(|n| b'a' + (n % 26) as u8).collect();
        let mut bytes = Vec::new();
        FIREFLY.write(CommandId(command), &filler, &mut bytes);
        Self { bytes, command: CommandId(command), error_command: CommandId(error_command) }
    }

    #[inline]
    fn write(&self, number: u32, connection: u32, out: &mut Vec<u8>) {
        let body = out.len() + HEADER_BYTES;
        out.extend_from_slice(&self.bytes);
        out[body..body + 4].copy_from_slice(&number.to_le_bytes());
        out[body + 4..body + 8].copy_from_slice(&connection.to_le_bytes());
    }

    #[inline]
    pub(super) fn is_error(&self, frame: &Frame<'_>) -> bool {
        frame.command == self.error_command
    }

    /// The request's number, if the frame is the answer to one of `connection`.
    #[inline]
    pub(super) fn number_in(&self, frame: &Frame<'_>, connection: u32) -> Option<u32> {
        let (number, rest) = frame.body.split_first_chunk()?;
        let (from, filler) = rest.split_first_chunk()?;
        let same = frame.command == self.command
            && u32::from_le_bytes(*from) == connection
            && *filler == self.bytes[HEADER_BYTES + 8..];
        same.then(|| u32::from_le_bytes(*number))
    }
}

/// What a frame from the server was.
pub(super) enum Answer<'a> {
    /// The body came back; the request was sent then.
    Good(u64),
    /// The same, before the answer to an earlier one.
    Overtook(u64),
    /// An error frame, with its body.
    Error(&'a [u8]),
    /// None of ours.
    Wrong,
}

pub(super) struct Client {
    pub(super) stream: TcpStream,
    pub(super) flight: Flight,
    number: u32,
    /// WebSocket: the key of what this client sends.
    mask: Option<Mask>,
    partial: Vec<u8>,
    out: Vec<u8>,
    /// Waits for the socket to become writable.
    pub(super) blocked: bool,
    pub(super) open: bool,
}

impl Client {
    pub(super) fn connect(addr: SocketAddr, number: usize, websocket: bool) -> anyhow::Result<Self> {
        let mut stream =
            TcpStream::connect(addr).with_context(|| format!("connection {number} to {addr}"))?;
        stream.set_nodelay(true)?;
        if websocket {
            websocket::upgrade(&mut stream, addr)
                .with_context(|| format!("connection {number} to {addr}"))?;
        }
        let mut client = Self::over(stream, number)?;
        client.mask = websocket.then(|| Mask::of(number as u32));
        Ok(client)
    }

    /// A client over a connection that is there.
    pub(super) fn over(stream: TcpStream, number: usize) -> anyhow::Result<Self> {
        stream.set_nonblocking(true)?;
        let (flight, partial, out) = Default::default();
        let (number, mask) = (number as u32, None);
        Ok(Self { stream, flight, number, mask, partial, out, blocked: false, open: true })
    }

    /// Queues a request; `flush` sends it.
    #[inline]
    pub(super) fn request(&mut self, template: &Template, now: u64) {
        let number = self.flight.start(now);
        self.queue(template, number);
    }

    /// Queues a message of that number, whose answers the caller counts.
    #[inline]
    pub(super) fn queue(&mut self, template: &Template, number: u32) {
        match self.mask {
            None => template.write(number, self.number, &mut self.out),
            Some(mask) => {
                let start = mask.begin(template.bytes.len(), &mut self.out);
                template.write(number, self.number, &mut self.out);
                mask.apply(&mut self.out[start..]);
            }
        }
    }

    /// Writes what the socket takes. True when bytes are left.
    #[inline]
    pub(super) fn flush(&mut self) -> bool {
        if self.out.is_empty() {
            return false;
        }
        match self.stream.write(&self.out) {
            Ok(n) if n == self.out.len() => self.out.clear(),
            Ok(n) => drop(self.out.drain(..n)),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(_) => {
                self.open = false;
                self.out.clear();
            }
        }
        !self.out.is_empty()
    }

    /// Reads once and gives every answer to `each`; `each` may queue requests through the client it gets.
    /// An error means that the bytes are no frames.
    #[inline]
    pub(super) fn read(
        &mut self,
        template: &Template,
        buffer: &mut [u8],
        mut each: impl FnMut(&mut Self, Answer<'_>),
    ) -> anyhow::Result<()> {
        self.read_frames(buffer, |client, frame| {
            let answer = client.judge(template, frame);
            each(client, answer);
        })
    }

    /// The same for whatever frames come.
    #[inline]
    pub(super) fn read_frames(
        &mut self,
        buffer: &mut [u8],
        mut each: impl FnMut(&mut Self, &Frame<'_>),
    ) -> anyhow::Result<()> {
        let chunk = match self.stream.read(buffer) {
            Ok(n @ 1..) => &buffer[..n],
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return Ok(()),
            Ok(_) | Err(_) => {
                self.open = false;
                return Ok(());
            }
        };
        if self.partial.is_empty() {
            let used = self.frames(chunk, &mut each)?;
            self.partial.extend_from_slice(&chunk[used..]);
        } else {
            let mut bytes = std::mem::take(&mut self.partial);
            bytes.extend_from_slice(chunk);
            let used = self.frames(&bytes, &mut each)?;
            bytes.drain(..used);
            self.partial = bytes;
        }
        Ok(())
    }

    #[inline]
    fn frames(
        &mut self,
        bytes: &[u8],
        each: &mut impl FnMut(&mut Self, &Frame<'_>),
    ) -> anyhow::Result<usize> {
        let mut used = 0;
        if self.mask.is_some() {
            while let Some(message) = websocket::read(&bytes[used..], FRAME_MAX)? {
                let frame = FIREFLY.read(message.payload, FRAME_MAX)?;
                let whole = frame.filter(|frame| frame.bytes == message.payload.len());
                each(self, &whole.context("a message that is not exactly one frame")?);
                used += message.bytes;
            }
            return Ok(used);
        }
        while let Some(frame) = FIREFLY.read(&bytes[used..], FRAME_MAX)? {
            each(self, &frame);
            used += frame.bytes;
        }
        Ok(used)
    }

    #[inline]
    fn judge<'a>(&mut self, template: &Template, frame: &Frame<'a>) -> Answer<'a> {
        if template.is_error(frame) && self.flight.land_oldest() {
            return Answer::Error(frame.body);
        }
        match template.number_in(frame, self.number).map(|number| self.flight.land(number)) {
            Some(Landing::InOrder(since)) => Answer::Good(since),
            Some(Landing::Overtook(since)) => Answer::Overtook(since),
            Some(Landing::Unknown) | None => Answer::Wrong,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_known_by_command_connection_number_and_filler() {
        let template = Template::new(300, u32::MAX, 16);
        let mut wire = Vec::new();
        template.write(7, 3, &mut wire);
        let check = |wire: &[u8], connection| {
            let frame = FIREFLY.read(wire, FRAME_MAX).unwrap().unwrap();
            template.number_in(&frame, connection)
        };
        assert_eq!((check(&wire, 3), check(&wire, 4)), (Some(7), None));
        for at in [16, 24, wire.len() - 1] {
            let mut bad = wire.clone();
            bad[at] ^= 1;
            assert_eq!(check(&bad, 3), None, "byte {at}");
        }
        let mut longer = Vec::new();
        FIREFLY.write(CommandId(300), &[&wire[HEADER_BYTES..], b"x"].concat(), &mut longer);
        assert_eq!(check(&longer, 3), None);
    }
}
