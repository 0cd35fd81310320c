//! The traffic with clients: frames and bytes by protocol, both ways.

use std::sync::atomic::{AtomicU64, Ordering};

use ffproto::protocol::{PROTOCOLS_MAX, ProtocolId};

/// The traffic with the clients of one node: by the place of their protocol, which the node names when it is asked; and behind
/// the last place what was queued for clients that had not told theirs.
#[derive(Debug, Default)]
pub(crate) struct Traffic([ProtocolTraffic; PROTOCOLS_MAX + 1]);

/// Frames and bytes of one direction.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    frames: AtomicU64,
    bytes: AtomicU64,
}

#[derive(Debug, Default)]
struct ProtocolTraffic {
    read: Flow,
    queued: Flow,
}

impl Flow {
    #[inline]
    fn add(&self, frames: usize, bytes: usize) {
        self.frames.fetch_add(frames as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// The frames and the bytes so far.
    pub(crate) fn totals(&self) -> (u64, u64) {
        (self.frames.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }
}

impl Traffic {
    #[inline]
    fn of(&self, protocol: Option<ProtocolId>) -> &ProtocolTraffic {
        // The last place is theirs that have no protocol yet.
        let place = protocol.map_or(PROTOCOLS_MAX, ProtocolId::index);
        &self.0[place.min(PROTOCOLS_MAX)]
    }

    /// A read of a client has brought so many frames.
    #[inline]
    pub(crate) fn read(&self, protocol: Option<ProtocolId>, frames: usize, bytes: usize) {
        self.of(protocol).read.add(frames, bytes);
    }

    /// A message was queued for a client, or written to it.
    #[inline]
    pub(crate) fn queued(&self, protocol: Option<ProtocolId>, bytes: usize) {
        if bytes > 0 {
            self.of(protocol).queued.add(1, bytes);
        }
    }

    /// What was read and what was queued, of the protocols of these names, in order, and of clients that had not told theirs.
    pub(crate) fn by_name<'n>(
        &self,
        names: impl Iterator<Item = &'n str>,
    ) -> impl Iterator<Item = (&'n str, &Flow, &Flow)> {
        let (rest, known) =
            self.0.split_last().map_or((None, [].as_slice()), |(rest, known)| (Some(rest), known));
        let all = names.zip(known).chain(rest.map(|rest| ("unknown", rest)));
        all.map(|(name, traffic)| (name, &traffic.read, &traffic.queued))
    }
}
