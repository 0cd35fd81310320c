//! The limit of lines that repeat: how many of each event and address are written in a while, and how many were not. Pure.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use crate::escape::readable;

/// How much of an event may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Lines of one event and one address in a window.
    pub per_address: u32,
    /// Lines of one event in a window, whatever its addresses.
    pub per_event: u32,
    /// The length of a window, which begins with an event's first line.
    pub window: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { per_address: 20, per_event: 200, window: Duration::from_secs(10) }
    }
}

/// Addresses of an event that are counted each; the others are counted together, so that many addresses cost no memory.
const ADDRESSES_MAX: usize = 512;
/// Addresses of an event that are told each when its window ends: those with the most.
const TOLD_MAX: usize = 8;
/// The bytes of an address that is none, such as a name.
const ADDRESS_BYTES_MAX: usize = 64;

/// Lines of one event that were not written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppressed<E> {
    /// The event.
    pub event: E,
    /// The message of the first line of the window.
    pub first: String,
    /// From one address, or from so many others.
    pub from: From,
    /// How many.
    pub lines: u64,
}

/// Where suppressed lines came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum From {
    /// One address.
    Address(String),
    /// Several others: at least so many.
    Others(usize),
}

/// The counts of the events of a process. Every line that is asked for passes or is told as suppressed, once.
#[derive(Debug)]
pub struct Limiter<E> {
    limits: Limits,
    events: HashMap<E, Window>,
}

#[derive(Debug, Default)]
struct Window {
    begun: Duration,
    first: String,
    passed: u32,
    addresses: HashMap<String, Counts>,
    /// Suppressed lines of addresses that are not counted each.
    rest: u64,
}

#[derive(Debug, Default)]
struct Counts {
    passed: u32,
    suppressed: u64,
}

impl<E: Copy + Eq + Hash> Limiter<E> {
    /// A limiter that has seen nothing.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, events: HashMap::new() }
    }

    /// The events that are counted now.
    #[must_use]
    pub fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether one more line may be written. What the window before has suppressed, if it has ended, is put into `told`; `first`
    /// makes the message of a window's first line.
    pub fn pass(
        &mut self,
        event: E,
        address: &str,
        now: Duration,
        first: impl FnOnce() -> String,
        told: &mut Vec<Suppressed<E>>,
    ) -> bool {
        let Limits { per_address, per_event, window } = self.limits;
        let has_ended = self.events.get(&event).is_some_and(|counts| counts.has_ended(now, window));
        if has_ended && let Some(ended) = self.events.remove(&event) {
            ended.tell(event, told);
        }
        let counts = self.events.entry(event).or_insert_with(|| Window {
            begun: now,
            first: first(),
            ..Window::default()
        });
        let is_counted = counts.addresses.contains_key(address) || counts.addresses.len() < ADDRESSES_MAX;
        let of_address = is_counted.then(|| counts.addresses.entry(address.to_owned()).or_default());
        let passes = counts.passed < per_event
            && of_address.as_ref().is_some_and(|of_address| of_address.passed < per_address);
        match of_address {
            _ if passes => counts.passed += 1,
            None => counts.rest += 1,
            Some(_) => {}
        }
        if let Some(of_address) = of_address {
            if passes { of_address.passed += 1 } else { of_address.suppressed += 1 }
        }
        passes
    }

    /// Forgets the windows that have ended by now; what they have suppressed is put into `told`.
    pub fn end_windows(&mut self, now: Duration, told: &mut Vec<Suppressed<E>>) {
        let window = self.limits.window;
        let ended = self.events.extract_if(|_, counts| counts.has_ended(now, window));
        ended.for_each(|(event, counts)| counts.tell(event, told));
    }

    /// Forgets every window, at the end of a process.
    pub fn end_all(&mut self, told: &mut Vec<Suppressed<E>>) {
        self.events.drain().for_each(|(event, counts)| counts.tell(event, told));
    }
}

impl Window {
    /// A clock that was set back ends a window, too.
    fn has_ended(&self, now: Duration, window: Duration) -> bool {
        now < self.begun || now - self.begun >= window
    }

    fn tell<E: Copy>(self, event: E, told: &mut Vec<Suppressed<E>>) {
        let suppressed = self.addresses.into_iter().filter(|(_, counts)| counts.suppressed > 0);
        let mut all: Vec<(String, u64)> =
            suppressed.map(|(address, counts)| (address, counts.suppressed)).collect();
        all.sort_by(|(one, of_one), (other, of_other)| of_other.cmp(of_one).then_with(|| one.cmp(other)));
        let others = all.split_off(all.len().min(TOLD_MAX));
        let first = self.first;
        let one = |(address, lines)| Suppressed {
            event,
            first: first.clone(),
            from: From::Address(address),
            lines,
        };
        told.extend(all.into_iter().map(one));
        let lines = self.rest + others.iter().map(|(_, lines)| lines).sum::<u64>();
        if lines > 0 {
            let from = From::Others(others.len() + usize::from(self.rest > 0));
            told.push(Suppressed { event, first: first.clone(), from, lines });
        }
    }
}

/// What the lines of a peer are counted by: the address without its port, of IPv6 the network (/64) that one host mostly has for
/// itself; of anything else, such as a node's name, the text, cut.
#[must_use]
pub fn address(peer: &str) -> String {
    let ip = peer.parse::<SocketAddr>().map(|at| at.ip()).or_else(|_| peer.parse::<IpAddr>());
    match ip.map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Ok(IpAddr::V6(ip)) if ip.is_loopback() => ip.to_string(),
        Ok(IpAddr::V6(ip)) => format!("{}/64", Ipv6Addr::from(u128::from(ip) >> 64 << 64)),
        Err(_) => readable(peer, ADDRESS_BYTES_MAX).into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn limiter(per_address: u32, per_event: u32) -> Limiter<u8> {
        Limiter::new(Limits { per_address, per_event, window: 10 * SECOND })
    }

    fn pass(
        limiter: &mut Limiter<u8>,
        event: u8,
        address: &str,
        now: Duration,
    ) -> (bool, Vec<Suppressed<u8>>) {
        let mut told = vec![];
        (limiter.pass(event, address, now, || format!("event {event}"), &mut told), told)
    }

    fn of(address: &str, lines: u64) -> Suppressed<u8> {
        Suppressed { event: 1, first: "event 1".into(), from: From::Address(address.into()), lines }
    }

    #[test]
    fn an_address_has_its_lines_and_each_other_address_and_event_its_own() {
        let mut limiter = limiter(2, 100);
        for (event, address, passes) in
            [(1, "a", true), (1, "a", true), (1, "a", false), (1, "b", true), (2, "a", true), (1, "a", false)]
        {
            assert_eq!(pass(&mut limiter, event, address, SECOND), (passes, vec![]), "{event} {address}");
        }
        // The next window tells what the one before has kept back.
        assert_eq!(pass(&mut limiter, 1, "a", 11 * SECOND), (true, vec![of("a", 2)]));
        let mut told = vec![];
        limiter.end_all(&mut told);
        assert_eq!(told, []);
    }

    #[test]
    fn a_window_that_has_ended_is_told_without_a_next_line() {
        let mut limiter = limiter(1, 100);
        (0..5).for_each(|_| drop(pass(&mut limiter, 1, "a", 3 * SECOND)));
        let mut told = vec![];
        limiter.end_windows(12 * SECOND, &mut told);
        assert_eq!(told, []);
        limiter.end_windows(13 * SECOND, &mut told);
        assert_eq!((told, limiter.events.len()), (vec![of("a", 4)], 0));
    }

    #[test]
    fn a_clock_that_is_set_back_holds_no_window_open() {
        let mut limiter = limiter(1, 100);
        (0..3).for_each(|_| drop(pass(&mut limiter, 1, "a", 1_000 * SECOND)));
        assert_eq!(pass(&mut limiter, 1, "a", 5 * SECOND), (true, vec![of("a", 2)]));
    }

    #[test]
    fn many_addresses_share_the_lines_of_the_event_and_cost_a_bounded_amount() {
        let mut limiter = limiter(2, 50);
        let passed = (0..100_000).filter(|n| pass(&mut limiter, 1, &n.to_string(), SECOND).0).count();
        assert_eq!((passed, limiter.events[&1].addresses.len()), (50, ADDRESSES_MAX));
        let mut told = vec![];
        limiter.end_all(&mut told);
        assert_eq!(told.len(), TOLD_MAX + 1);
        assert_eq!(told.iter().map(|told| told.lines).sum::<u64>(), 100_000 - 50);
        assert!(matches!(told[TOLD_MAX].from, From::Others(n) if n > 400), "{:?}", told[TOLD_MAX]);
    }

    #[test]
    fn every_line_passes_or_is_told_as_suppressed_once_whatever_comes() {
        for seed in 1..200u64 {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = |below: u64| {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random % below
            };
            let (mut limiter, mut now, mut told) = (limiter(3, 20), 100 * SECOND, vec![]);
            let (mut asked, mut passed) = (0u64, 0u64);
            for _ in 0..500 {
                match next(20) {
                    0 => now += SECOND * u32::try_from(next(15)).unwrap(),
                    1 => now = now.saturating_sub(SECOND * u32::try_from(next(15)).unwrap()),
                    2 => limiter.end_windows(now, &mut told),
                    _ => {
                        asked += 1;
                        let (event, address) =
                            (u8::try_from(next(3)).unwrap(), next(1 + seed % 40).to_string());
                        passed += u64::from(limiter.pass(event, &address, now, String::new, &mut told));
                    }
                }
            }
            limiter.end_all(&mut told);
            let suppressed: u64 = told.iter().map(|told| told.lines).sum();
            assert_eq!(asked, passed + suppressed, "seed {seed}");
        }
    }

    #[test]
    fn a_peer_is_counted_by_its_host() {
        assert_eq!(address("192.0.2.7:4711"), "192.0.2.7");
        assert_eq!(address("[::ffff:192.0.2.7]:1"), "192.0.2.7");
        assert_eq!(address("[2001:db8:1:2:3:4:5:6]:1"), "2001:db8:1:2::/64");
        assert_eq!(address("::1"), "::1");
        assert_eq!(address("gate"), "gate");
        assert_eq!(address(&"\x1b".repeat(1_000)).len(), ADDRESS_BYTES_MAX + "…(984 more bytes)".len());
    }
}
