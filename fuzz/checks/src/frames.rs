//! The frames of clients and of links, as streams that arrive in pieces.

use ffproto::frame::firefly::HEADER_BYTES;
use ffproto::frame::{Firefly, FrameFault};
use ffproto::link::{self, Head, LinkFault};

use crate::input::Input;

/// Firefly frames: every frame is that of its bytes and of no others, its length is judged before its body
/// is there, and where the stream was cut makes no difference.
///
/// # Panics
/// One of these does not hold.
pub fn client_frame(data: &[u8]) {
    let input = Input::of(data);
    let framing = if input.variant.is_multiple_of(2) {
        Firefly::default()
    } else {
        Firefly { head: *b"GAME", proto_version: 7, server_version: 0x0102_0304 }
    };
    let read = |bytes: &[u8]| client_step(&framing, bytes, input.length_max);
    in_pieces(&input, read);
}

fn client_step(framing: &Firefly, bytes: &[u8], max: u32) -> Step<&'static str> {
    let length = bytes.get(9..).and_then(|rest| rest.first_chunk()).map(|b| u32::from_be_bytes(*b));
    match framing.read(bytes, max) {
        Ok(Some(frame)) => {
            let whole = &bytes[..frame.bytes];
            let mut again = Vec::new();
            framing.write(frame.command, frame.body, &mut again);
            assert_eq!(again, whole, "another encoding");
            assert_eq!(framing.read(whole, max), Ok(Some(frame)), "it depends on what follows");
            for end in 0..whole.len() {
                assert_eq!(framing.read(&whole[..end], max), Ok(None), "a frame of {end} bytes");
            }
            Step::Frame(frame.bytes)
        }
        Ok(None) => {
            if let Some(length) = length {
                assert!((4..=max).contains(&length), "waits for {length} bytes");
                assert!(bytes.len() < HEADER_BYTES - 4 + length as usize, "waits for what is there");
            }
            Step::More
        }
        Err(FrameFault::WrongHead { got, want }) => {
            let seen = bytes.len().min(9);
            assert_eq!(got[..seen], bytes[..seen]);
            assert_ne!(got[..seen], want[..seen]);
            Step::Fault("wrong head")
        }
        Err(FrameFault::TooShort(said)) => {
            assert_eq!(length, Some(said));
            assert!(said < 4);
            Step::Fault("too short")
        }
        Err(FrameFault::TooLong { length: said, max: allowed }) => {
            assert_eq!((length, max), (Some(said), allowed));
            assert!(said > max);
            Step::Fault("too long")
        }
    }
}

/// Link frames, with the same claims as [`client_frame`].
///
/// # Panics
/// One of them does not hold.
pub fn link_frame(data: &[u8]) {
    let input = Input::of(data);
    in_pieces(&input, |bytes| link_step(bytes, input.length_max));
}

fn link_step(bytes: &[u8], max: u32) -> Step<LinkFault> {
    let length = bytes.first_chunk().map(|b| u32::from_le_bytes(*b));
    match link::read(bytes, max) {
        Ok(Some(frame)) => {
            let whole = &bytes[..frame.bytes];
            assert_eq!(frame.head.bytes() + frame.body.len(), whole.len());
            let mut again = Vec::new();
            frame.head.write(frame.body, &mut again);
            assert_eq!(again, whole, "another encoding");
            // The other way to write: the body grows behind a header that does not know its length yet.
            again.clear();
            let start = frame.head.begin(0, &mut again);
            again.extend_from_slice(frame.body);
            Head::end(start, &mut again);
            assert_eq!(again, whole, "another encoding in steps");
            assert_eq!(link::read(whole, max), Ok(Some(frame)), "it depends on what follows");
            for end in 0..whole.len() {
                assert_eq!(link::read(&whole[..end], max), Ok(None), "a frame of {end} bytes");
            }
            Step::Frame(frame.bytes)
        }
        Ok(None) => {
            if let Some(length) = length {
                assert!((12..=max).contains(&length), "waits for {length} bytes");
                assert!(bytes.len() < 4 + length as usize, "waits for what is there");
            }
            Step::More
        }
        Err(fault) => {
            match fault {
                LinkFault::TooShort(said) => {
                    assert_eq!(length, Some(said));
                    assert!(said < 24, "the header with the client part fits into {said}");
                }
                LinkFault::TooLong { length: said, max: allowed } => {
                    assert_eq!((length, max), (Some(said), allowed));
                    assert!(said > max);
                }
                LinkFault::Kind(kind) => assert_eq!(bytes.get(4), Some(&kind)),
                LinkFault::Flags(flags) => assert_eq!(bytes.get(5), Some(&flags)),
            }
            Step::Fault(fault)
        }
    }
}

/// What a decoder says of the bytes at which the next frame starts.
#[derive(Debug, PartialEq)]
enum Step<F> {
    Frame(usize),
    More,
    Fault(F),
}

/// Reads the stream as it arrives, then whole, and expects the same frames and the same end.
fn in_pieces<F: PartialEq + std::fmt::Debug>(input: &Input<'_>, read: impl Fn(&[u8]) -> Step<F>) {
    let mut frames = Vec::new();
    let mut at = 0;
    let mut end = Step::More;
    'arriving: for seen in input.arrivals() {
        loop {
            end = read(&input.stream[at..seen]);
            match end {
                Step::Frame(bytes) => {
                    frames.push(bytes);
                    at += bytes;
                }
                Step::More => break,
                Step::Fault(_) => break 'arriving,
            }
        }
    }
    at = 0;
    for bytes in frames {
        assert_eq!(read(&input.stream[at..]), Step::Frame(bytes), "whole, at {at}");
        at += bytes;
    }
    assert_eq!(read(&input.stream[at..]), end, "the end, whole");
}
