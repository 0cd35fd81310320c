//! The write buffer: bytes on their way to one client, its own and messages that it has in common with others. A
//! message of a broadcast lies in memory once, however many have not read it yet.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::Bytes;

/// The length from which on a message is shared: below it a copy costs less than the note that it is not one.
pub(crate) const SHARED_BYTES_MIN: usize = 256;

/// The bytes on their way to one client. Written bytes are taken from the front, new ones are added at the end.
#[derive(Debug, Default)]
pub(crate) struct WriteBuffer {
    own: Vec<u8>,
    /// The number of bytes of `own` that are written.
    written: usize,
    /// The messages in common with others: most clients have none most of the time, so room is made when there is one.
    shared: Option<Box<SharedMessages>>,
}

#[derive(Debug, Default)]
struct SharedMessages {
    /// The messages, each with its place: a message comes before the byte of `own` there.
    messages: VecDeque<(usize, Bytes)>,
    bytes: usize,
}

impl From<Vec<u8>> for WriteBuffer {
    fn from(own: Vec<u8>) -> Self {
        Self { own, ..Self::default() }
    }
}

impl WriteBuffer {
    /// The number of bytes that are not written.
    #[inline]
    pub(crate) fn len(&self) -> usize {
        self.own.len() - self.written + self.shared.as_ref().map_or(0, |shared| shared.bytes)
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The client's own bytes, to append to.
    #[inline]
    pub(crate) fn own(&mut self) -> &mut Vec<u8> {
        &mut self.own
    }

    /// Appends a message that others have, too. True when the message is shared, not copied.
    pub(crate) fn share(&mut self, message: &Bytes) -> bool {
        if message.len() < SHARED_BYTES_MIN {
            self.own.extend_from_slice(message);
            return false;
        }
        let shared = self.shared.get_or_insert_default();
        shared.bytes += message.len();
        shared.messages.push_back((self.own.len(), message.clone()));
        true
    }

    /// All bytes, when they are one piece.
    #[inline]
    pub(crate) fn whole(&self) -> Option<&[u8]> {
        self.shared.is_none().then(|| self.own.get(self.written..).unwrap_or_default())
    }

    /// Fills `room` with the first pieces; returns how many.
    pub(crate) fn pieces<'a>(&'a self, room: &mut [IoSlice<'a>]) -> usize {
        let (mut at, mut n) = (self.written, 0);
        let shared = self.shared.iter().flat_map(|shared| &shared.messages);
        let shared = shared.map(|(place, message)| (*place, &message[..]));
        for (place, message) in shared.chain([(self.own.len(), &[][..])]) {
            let own = self.own.get(at..place).unwrap_or_default();
            for piece in [own, message].into_iter().filter(|piece| !piece.is_empty()) {
                let Some(slot) = room.get_mut(n) else { return n };
                *slot = IoSlice::new(piece);
                n += 1;
            }
            at = place;
        }
        n
    }

    /// The first `n` bytes are written.
    pub(crate) fn advance(&mut self, mut n: usize) {
        while n > 0 {
            let next = self.shared.as_ref().and_then(|shared| shared.messages.front());
            let place = next.map_or(self.own.len(), |(place, _)| *place);
            let own = n.min(place.saturating_sub(self.written));
            self.written += own;
            n -= own;
            let Some(shared) = self.shared.as_mut().filter(|_| n > 0) else { return };
            let Some((_, message)) = shared.messages.front_mut() else { return };
            let part = n.min(message.len());
            bytes::Buf::advance(message, part);
            shared.bytes -= part;
            n -= part;
            if message.is_empty() {
                shared.messages.pop_front();
                if shared.messages.is_empty() {
                    self.shared = None;
                }
            }
        }
    }

    /// Empties the buffer, when everything is written; at most `keep` bytes of its memory are kept.
    pub(crate) fn clear(&mut self, keep: usize) {
        self.own.clear();
        self.own.shrink_to(keep);
        (self.written, self.shared) = (0, None);
    }

    /// Takes all bytes out, as one piece.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        let Self { mut own, written, shared } = std::mem::take(self);
        let Some(shared) = shared else {
            own.drain(..written);
            return own;
        };
        let (mut all, mut at) = (Vec::new(), written);
        for (place, message) in shared.messages {
            all.extend_from_slice(own.get(at..place).unwrap_or_default());
            all.extend_from_slice(&message);
            at = place;
        }
        all.extend_from_slice(own.get(at..).unwrap_or_default());
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(byte: u8) -> Bytes {
        vec![byte; SHARED_BYTES_MIN].into()
    }

    /// `own`, a shared one, two shared ones in a row, and own again: with what it says as one piece.
    fn sample() -> (WriteBuffer, Vec<u8>) {
        let (mut unwritten, mut all) = (WriteBuffer::from(b"first".to_vec()), b"first".to_vec());
        for (byte, own) in [(1, &b""[..]), (2, b"between"), (3, b"last")] {
            assert!(unwritten.share(&message(byte)));
            unwritten.own().extend_from_slice(own);
            all.extend_from_slice(&message(byte));
            all.extend_from_slice(own);
        }
        (unwritten, all)
    }

    fn shown(unwritten: &WriteBuffer, room: usize) -> Vec<u8> {
        let mut slots = vec![IoSlice::new(&[]); room];
        let n = unwritten.pieces(&mut slots);
        slots[..n].iter().flat_map(|slot| slot.iter().copied()).collect()
    }

    #[test]
    fn what_is_written_in_any_steps_is_what_was_added_in_order() {
        let (whole, all) = sample();
        assert_eq!((whole.len(), shown(&whole, 9)), (all.len(), all.clone()));
        assert!(whole.whole().is_none());
        for step in [1, 3, 5, 255, 256, 300, all.len()] {
            let (mut unwritten, _) = sample();
            let mut written = Vec::new();
            while !unwritten.is_empty() {
                let front = shown(&unwritten, 2);
                let n = step.min(front.len());
                written.extend_from_slice(&front[..n]);
                unwritten.advance(n);
                assert_eq!(unwritten.len() + written.len(), all.len());
            }
            assert_eq!(written, all, "in steps of {step}");
            // More may come behind.
            unwritten.own().push(7);
            assert_eq!(shown(&unwritten, 2), [7]);
            unwritten.clear(0);
            assert!(unwritten.is_empty() && unwritten.whole() == Some(&[]));
        }
    }

    #[test]
    fn it_goes_over_to_another_process_as_one_piece() {
        let (mut unwritten, all) = sample();
        unwritten.advance(300);
        assert_eq!(unwritten.take(), all[300..]);
        assert!(unwritten.is_empty());
        let mut own = WriteBuffer::from(b"hello".to_vec());
        own.advance(2);
        assert_eq!(own.whole(), Some(&b"llo"[..]));
        assert_eq!(own.take(), b"llo");
    }

    #[test]
    fn a_short_message_is_copied() {
        let mut unwritten = WriteBuffer::default();
        assert!(!unwritten.share(&Bytes::from_static(b"short")));
        assert_eq!(unwritten.whole(), Some(&b"short"[..]));
    }
}
