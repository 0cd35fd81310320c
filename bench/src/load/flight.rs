//! Which requests of one connection are outstanding, and since when.

use std::collections::VecDeque;

/// Taken out of order.
const TAKEN: u64 = u64::MAX;

/// The outstanding requests of one connection, numbered in the order of sending.
#[derive(Default)]
pub(super) struct Flight {
    /// The number of the oldest.
    first: u32,
    /// When each was sent (or should have been), in ns.
    since: VecDeque<u64>,
    taken: u32,
}

/// What the answer with some number is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// The oldest request's, sent then.
    InOrder(u64),
    /// A later one's, sent then.
    Overtook(u64),
    /// Nobody's: never sent, or answered before.
    Unknown,
}

impl Flight {
    /// Another request; returns its number.
    #[inline]
    pub(super) fn start(&mut self, now: u64) -> u32 {
        let number = self.first.wrapping_add(self.since.len() as u32);
        self.since.push_back(now);
        number
    }

    /// The answer to `number` is here.
    #[inline]
    pub(super) fn land(&mut self, number: u32) -> Landing {
        let at = number.wrapping_sub(self.first) as usize;
        let Some(since) = self.since.get_mut(at) else { return Landing::Unknown };
        let since = std::mem::replace(since, TAKEN);
        if since == TAKEN {
            return Landing::Unknown;
        }
        self.taken += 1;
        self.forget_taken();
        if at == 0 { Landing::InOrder(since) } else { Landing::Overtook(since) }
    }

    /// An error frame does not tell its request's number: the oldest has it. False when there is none.
    pub(super) fn land_oldest(&mut self) -> bool {
        self.land(self.first) != Landing::Unknown
    }

    pub(super) fn outstanding(&self) -> usize {
        self.since.len() - self.taken as usize
    }

    #[inline]
    fn forget_taken(&mut self) {
        while self.since.front() == Some(&TAKEN) {
            self.since.pop_front();
            self.first = self.first.wrapping_add(1);
            self.taken -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flying(n: u64) -> Flight {
        let mut flight = Flight::default();
        (0..n).for_each(|at| assert_eq!(u64::from(flight.start(at * 10)), at));
        flight
    }

    #[test]
    fn answers_in_order_land_in_order() {
        let mut flight = flying(3);
        for n in 0..3 {
            assert_eq!(flight.land(n), Landing::InOrder(u64::from(n) * 10));
        }
        assert_eq!((flight.outstanding(), flight.start(99)), (0, 3));
    }

    #[test]
    fn an_overtaking_answer_is_seen_and_counted_once() {
        let mut flight = flying(3);
        assert_eq!(flight.land(1), Landing::Overtook(10));
        assert_eq!(flight.outstanding(), 2);
        assert_eq!(flight.land(1), Landing::Unknown);
        assert_eq!(flight.land(0), Landing::InOrder(0));
        assert_eq!(flight.land(2), Landing::InOrder(20));
        assert_eq!(flight.outstanding(), 0);
    }

    #[test]
    fn an_error_takes_the_oldest_place() {
        let mut flight = flying(2);
        assert!(flight.land_oldest());
        assert_eq!(flight.land(1), Landing::InOrder(10));
        assert!(!flight.land_oldest());
    }

    #[test]
    fn answers_to_nothing_are_unknown() {
        let mut flight = flying(1);
        assert_eq!(flight.land(1), Landing::Unknown);
        assert_eq!(flight.land(u32::MAX), Landing::Unknown);
    }

    #[test]
    fn numbers_wrap() {
        let mut flight = Flight { first: u32::MAX, ..Flight::default() };
        assert_eq!((flight.start(1), flight.start(2)), (u32::MAX, 0));
        assert_eq!(flight.land(u32::MAX), Landing::InOrder(1));
        assert_eq!(flight.land(0), Landing::InOrder(2));
    }
}
