//! What the relays do with the bytes of a batch, without any I/O; shared by the two backends.

use anyhow::bail;
use ffproto::frame::firefly::Firefly;
use ffproto::link::{self, Client, Head, Kind};
use ffproto::{Incarnation, NodeNumber, SessionId};

/// The framing of the clients: all constants zero, the default.
pub(super) const FIREFLY: Firefly = Firefly { head: [0; 4], proto_version: 0, server_version: 0 };
/// As `limits.frame_bytes_max` and `limits.link_frame_bytes_max` have by default.
pub(super) const FRAME_MAX: u32 = 64 * 1024;
const LINK_FRAME_MAX: u32 = 16 * 1024 * 1024;
/// As `limits.call_timeout_ms` has by default.
const TIME_LEFT_MS: u32 = 5_000;

/// The session of the net relay's client number `slot`.
pub(crate) fn session_of(slot: usize) -> SessionId {
    // The first 2020 millisecond, so the counter is the slot itself.
    let first = SessionId::first(NodeNumber(1), Incarnation(0));
    SessionId(first.0 + slot as u64)
}

/// The client number of a session.
#[inline]
pub(crate) fn slot_of(session: SessionId) -> usize {
    session.0 as u32 as usize
}

/// net: turns the whole client frames at the start of `bytes` into calls on the link. Returns the bytes used.
#[inline]
pub(crate) fn calls(
    bytes: &[u8],
    session: SessionId,
    call: &mut u32,
    link: &mut Vec<u8>,
) -> anyhow::Result<usize> {
    let mut used = 0;
    while let Some(frame) = FIREFLY.read(&bytes[used..], FRAME_MAX)? {
        *call = call.wrapping_add(1);
        let client = Some(Client { session, command: frame.command, stateless: false });
        let head = Head { call: *call, time_left_ms: TIME_LEFT_MS, client, ..Head::new(Kind::Call) };
        head.write(frame.body, link);
        used += frame.bytes;
    }
    Ok(used)
}

/// Reads the whole link frames at the start of `bytes`: `each` gets the client's slot, the header, the body
/// and how many bytes lie before the frame. Returns the bytes used.
#[inline]
pub(crate) fn frames(
    bytes: &[u8],
    mut each: impl FnMut(usize, &link::Frame<'_>, usize),
) -> anyhow::Result<usize> {
    let mut used = 0;
    while let Some(frame) = link::read(&bytes[used..], LINK_FRAME_MAX)? {
        let Some(client) = frame.head.client else { bail!("a link frame without a client") };
        each(slot_of(client.session), &frame, used);
        used += frame.bytes;
    }
    Ok(used)
}

/// net: turns a reply from the link into the client's frame.
#[inline]
pub(crate) fn answer(frame: &link::Frame<'_>, out: &mut Vec<u8>) {
    if let Some(client) = frame.head.client {
        FIREFLY.write(client.command, frame.body, out);
    }
}

/// gate: cuts whole frames into runs that go to the same link, so that each run is copied once.
/// `owner` says whose a slot is; `deliver` gets the owner and the run.
#[inline]
pub(crate) fn runs(
    bytes: &[u8],
    owner: impl Fn(usize) -> Option<usize>,
    mut deliver: impl FnMut(usize, &[u8]),
) -> anyhow::Result<usize> {
    let (mut start, mut current) = (0, None);
    let used = frames(bytes, |slot, _, at| {
        let next = owner(slot);
        if next != current {
            if let Some(owner) = current {
                deliver(owner, &bytes[start..at]);
            }
            (start, current) = (at, next);
        }
    })?;
    if let Some(owner) = current {
        deliver(owner, &bytes[start..used]);
    }
    Ok(used)
}

/// game: answers every whole call with its own body. Returns the bytes used.
#[inline]
pub(crate) fn echoes(bytes: &[u8], out: &mut Vec<u8>) -> anyhow::Result<usize> {
    frames(bytes, |_, frame, _| {
        Head { kind: Kind::Reply, method: 0, time_left_ms: 0, ..frame.head }.write(frame.body, out);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use ffproto::CommandId;

    fn requests(n: u32) -> Vec<u8> {
        let mut wire = Vec::new();
        (0..n).for_each(|i| FIREFLY.write(CommandId(100 + i), format!("body {i}").as_bytes(), &mut wire));
        wire
    }

    #[test]
    fn a_request_comes_back_as_it_was_sent() {
        let wire = requests(3);
        let (mut call, mut link, mut back, mut out) = (0, vec![], vec![], vec![]);
        assert_eq!(calls(&wire, session_of(7), &mut call, &mut link).unwrap(), wire.len());
        assert_eq!(echoes(&link, &mut back).unwrap(), link.len());
        let used = frames(&back, |slot, frame, _| {
            assert_eq!((slot, frame.head.kind), (7, Kind::Reply));
            answer(frame, &mut out);
        });
        assert_eq!((used.unwrap(), out, call), (back.len(), wire, 3));
    }

    #[test]
    fn a_partial_frame_is_left_alone() {
        let wire = requests(2);
        let (mut call, mut link) = (0, vec![]);
        let used = calls(&wire[..wire.len() - 1], session_of(0), &mut call, &mut link).unwrap();
        assert_eq!((used, call), (wire.len() / 2, 1));
        assert_eq!(echoes(&link[..link.len() - 1], &mut vec![]).unwrap(), 0);
    }

    #[test]
    fn runs_end_where_the_owner_changes() {
        let mut wire = vec![];
        for slot in [1, 1, 2, 9, 1] {
            calls(&requests(1), session_of(slot), &mut 0, &mut wire).unwrap();
        }
        let one = wire.len() / 5;
        let mut got = vec![];
        let owner = |slot| (slot != 9).then_some(slot * 10);
        let used = runs(&wire, owner, |owner, run| got.push((owner, run.len() / one))).unwrap();
        assert_eq!((used, got), (wire.len(), vec![(10, 2), (20, 1), (10, 1)]));
    }

    #[test]
    fn garbage_is_an_error() {
        assert!(calls(b"GET / HTTP/1.1", session_of(0), &mut 0, &mut vec![]).is_err());
        assert!(echoes(&[0; 16], &mut vec![]).is_err());
    }
}
