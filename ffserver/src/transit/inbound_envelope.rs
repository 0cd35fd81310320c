//! An inbound envelope: an envelope with the link that it has arrived on.

use ffnet::Link;
use ffproto::SessionId;
use ffproto::link::Head;
use tokio::time::Instant;

use crate::cluster::side::PeerKey;

/// An envelope with its frame and the link that it has arrived on.
#[derive(Clone, Copy)]
pub(crate) struct InboundEnvelope<'a> {
    pub(crate) at: &'a PeerKey,
    pub(crate) link: &'a Link,
    pub(crate) head: &'a Head,
    pub(crate) body: &'a [u8],
    pub(crate) now: Instant,
}

impl InboundEnvelope<'_> {
    /// The session that the envelope is about.
    pub(crate) fn session(&self) -> Option<SessionId> {
        self.head.client.map(|client| client.session)
    }

    /// When the sender stops waiting for the answer.
    pub(crate) fn deadline(&self) -> Instant {
        self.now + self.head.time_left()
    }
}
