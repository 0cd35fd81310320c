//! The activity of a session: when its client connected and was last heard, and its last requests.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use ffproto::CommandId;
use ffproto::question::RecentRequest;
use tokio::time::Instant;

/// How many of a session's last requests are remembered: a power of two, and few, for every idle client pays for them.
const RECENT: usize = 4;

/// The activity of a session, noted by its connection alone: a load and a store do where others would need an addition in one step.
pub(super) struct Activity {
    pub(super) opened: Instant,
    /// When the client was last heard, in milliseconds after `opened`; 0 before its first message.
    pub(super) heard_ms: AtomicU64,
    /// The requests that were taken up here.
    requests: AtomicU32,
    /// The last of them, each its command and, in the low half, the milliseconds after `opened`; after seven weeks they begin anew.
    recent: [AtomicU64; RECENT],
}

impl Activity {
    pub(super) fn new(opened: Instant, heard_ms: u64) -> Self {
        Self {
            opened,
            heard_ms: AtomicU64::new(heard_ms),
            requests: AtomicU32::new(0),
            recent: Default::default(),
        }
    }

    /// Notes a request, at the time at which the client was last heard.
    #[inline]
    pub(super) fn note_request(&self, command: CommandId) {
        let (n, ms) = (self.requests.load(Ordering::Relaxed), self.heard_ms.load(Ordering::Relaxed));
        let noted = u64::from(command.0) << 32 | ms & u64::from(u32::MAX);
        self.recent[n as usize % RECENT].store(noted, Ordering::Relaxed);
        self.requests.store(n.wrapping_add(1), Ordering::Relaxed);
    }

    /// How many requests were taken up here.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The last requests, the newest first.
    pub(super) fn recent(&self, now: Instant) -> impl Iterator<Item = RecentRequest> {
        let (all, open_ms) = (self.requests(), ms(now.saturating_duration_since(self.opened)));
        let newest_first = (1..=RECENT as u32).take_while(move |back| *back <= all);
        newest_first.map(move |back| {
            let noted = self.recent[all.wrapping_sub(back) as usize % RECENT].load(Ordering::Relaxed);
            // One that comes meanwhile is heard after `now`.
            let ago = (open_ms as u32).wrapping_sub(noted as u32);
            let ago_ms = if ago > u32::MAX / 2 { 0 } else { ago.into() };
            RecentRequest { command: CommandId((noted >> 32) as u32), ago_ms }
        })
    }
}

/// A duration in milliseconds.
pub(super) fn ms(duration: Duration) -> u64 {
    duration.as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_last_requests_are_remembered_the_newest_first() {
        let activity = Activity::new(Instant::now(), 0);
        let shown =
            || activity.recent(Instant::now()).map(|one| (one.command.0, one.ago_ms)).collect::<Vec<_>>();
        assert_eq!(shown(), []);
        for command in 1..=3 {
            activity.heard_ms.store(u64::from(command) * 1000, Ordering::Relaxed);
            activity.note_request(CommandId(command));
        }
        tokio::time::advance(Duration::from_secs(10)).await;
        assert_eq!(shown(), [(3, 7000), (2, 8000), (1, 9000)]);
        for command in [u32::MAX, 5] {
            activity.note_request(CommandId(command));
        }
        assert_eq!(shown(), [(5, 7000), (u32::MAX, 7000), (3, 7000), (2, 8000)]);
        assert_eq!(activity.requests(), 5);
    }
}
