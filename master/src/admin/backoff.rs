//! The back-off of who shows wrong tokens: each more lets that address wait longer. Values and their time, no I/O.

use std::collections::HashMap;
use std::time::Duration;

use ffhttp::Peer;
use ffnet::admission::AddressBlock;
use tokio::time::Instant;

/// So many wrong tokens cost nothing: a person has copied the wrong one.
const FREE: u32 = 5;
/// The first wait, which doubles with each wrong token.
const WAIT_MIN: Duration = Duration::from_secs(1);
/// No wait is longer.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// Who has been quiet for so long begins anew.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// Addresses that are kept in mind: some 300 KB.
const ENTRIES_MAX: usize = 4096;

/// Who shares a back-off: one IPv4 address, or one /64 of IPv6. On the master's host each user has one, or any user there
/// could keep the others out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Source {
    block: AddressBlock,
    uid: Option<u32>,
}

impl Source {
    /// The source of a request.
    pub(crate) fn of(peer: &Peer) -> Self {
        Self { block: AddressBlock::of(peer.client.ip()), uid: peer.owner.map(|owner| owner.uid) }
    }
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    wrong: u32,
    /// Nothing is looked at before.
    until: Instant,
    last: Instant,
}

/// The wrong tokens of the last minutes, by where they came from.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    entries: HashMap<Source, Entry>,
}

impl Backoff {
    /// How long tokens from there are not looked at yet.
    pub(super) fn wait(&self, source: Source, now: Instant) -> Option<Duration> {
        let entry = self.entries.get(&source)?;
        entry.until.checked_duration_since(now).filter(|wait| !wait.is_zero())
    }

    /// A wrong token came from there.
    pub(super) fn wrong(&mut self, source: Source, now: Instant) {
        if !self.entries.contains_key(&source) && self.entries.len() >= ENTRIES_MAX {
            self.make_room(now);
        }
        let entry = self.entries.entry(source).or_insert(Entry { wrong: 0, until: now, last: now });
        if now.duration_since(entry.last) >= FORGOTTEN {
            entry.wrong = 0;
        }
        entry.wrong += 1;
        entry.last = now;
        if let Some(doubled) = entry.wrong.checked_sub(FREE) {
            let wait = WAIT_MIN.saturating_mul(1 << doubled.min(16));
            entry.until = now + wait.min(WAIT_MAX);
        }
    }

    /// A right one came from there.
    pub(super) fn right(&mut self, source: Source) {
        self.entries.remove(&source);
    }

    /// Forgets the old ones, and where there are none the one that is oldest.
    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now.duration_since(entry.last) < FORGOTTEN);
        if self.entries.len() >= ENTRIES_MAX {
            let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.last).map(|(source, _)| *source);
            oldest.map(|oldest| self.entries.remove(&oldest));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(client: &str) -> Source {
        Source::of(&format!("{client} 192.0.2.1:9998 - http direct").parse().unwrap())
    }

    #[test]
    fn a_few_wrong_tokens_are_free_and_the_next_wait_longer_and_longer() {
        let (now, mut backoff) = (Instant::now(), Backoff::default());
        let ann = from("192.0.2.7:1");
        let mut waits = Vec::new();
        for _ in 0..14 {
            backoff.wrong(ann, now);
            waits.push(backoff.wait(ann, now).map_or(0, |wait| wait.as_secs()));
        }
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60]);
        assert_eq!(backoff.wait(ann, now + WAIT_MAX), None);
        assert_eq!(backoff.wait(from("192.0.2.8:1"), now), None, "others do not wait");
        backoff.wrong(ann, now + FORGOTTEN);
        assert_eq!(backoff.wait(ann, now + FORGOTTEN), None, "it has been quiet");
        backoff.right(ann);
        assert!(backoff.entries.is_empty());
    }

    #[test]
    fn a_network_of_ipv6_and_each_user_of_this_host_are_one_source() {
        assert_eq!(from("192.0.2.7:1"), from("[::ffff:192.0.2.7]:2"));
        assert_eq!(from("[2001:db8::1]:1"), from("[2001:db8::ffff:1]:2"));
        assert_ne!(from("[2001:db8::1]:1"), from("[2001:db8:0:1::1]:1"));
        let of = |uid| Source::of(&format!("127.0.0.1:1 127.0.0.1:2 {uid}/7 http direct").parse().unwrap());
        assert_ne!(of(1), of(2));
    }

    #[test]
    fn so_many_sources_are_kept_in_mind_and_the_oldest_goes_first() {
        let (now, mut backoff) = (Instant::now(), Backoff::default());
        let nth = |n: u32| from(&format!("10.{}.{}.{}:1", n >> 16, n >> 8 & 255, n & 255));
        for n in 0..ENTRIES_MAX as u32 + 10 {
            backoff.wrong(nth(n), now + Duration::from_millis(u64::from(n)));
        }
        assert_eq!(backoff.entries.len(), ENTRIES_MAX);
        assert!(!backoff.entries.contains_key(&nth(9)) && backoff.entries.contains_key(&nth(10)));
        backoff.wrong(nth(0), now + FORGOTTEN + Duration::from_secs(60));
        assert_eq!(backoff.entries.len(), 1, "the old ones are forgotten");
    }
}
