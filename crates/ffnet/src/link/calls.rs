//! The table of calls that wait for their outcome: ids in, outcomes out; no I/O and no clock.

use std::task::{Poll, Waker};

use bytes::Bytes;
use ffproto::Fault;
use slab::Slab;
use tokio::time::Instant;

/// The lower bits of a call id are the place in the table, the upper ones count its uses, so that a late
/// reply cannot end another call.
const PLACE_BITS: u32 = 20;
const PLACE_MASK: u32 = (1 << PLACE_BITS) - 1;

/// A call in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u32);

impl Ticket {
    pub(super) fn id(self) -> u32 {
        self.0
    }
    fn place(self) -> usize {
        (self.0 & PLACE_MASK) as usize
    }
}

type Outcome = Result<Bytes, Fault>;

struct Waiting {
    ticket: Ticket,
    deadline: Instant,
    /// Where its frame starts in everything that the link has ever queued.
    starts_at: u64,
    waker: Option<Waker>,
    outcome: Option<Outcome>,
}

#[derive(Default)]
pub(super) struct CallTable {
    calls: Slab<Waiting>,
    uses: u32,
    /// No waiting call has an earlier deadline. May be too early (its call has ended), never too late.
    earliest: Option<Instant>,
}

impl CallTable {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    pub(super) fn insert(&mut self, deadline: Instant, starts_at: u64) -> Ticket {
        let entry = self.calls.vacant_entry();
        self.uses = self.uses.wrapping_add(1);
        let ticket = Ticket(self.uses << PLACE_BITS | (entry.key() as u32 & PLACE_MASK));
        entry.insert(Waiting { ticket, deadline, starts_at, waker: None, outcome: None });
        self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        ticket
    }

    /// Takes the outcome if it is there; else remembers who waits.
    pub(super) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Poll<Outcome> {
        match self.get(ticket) {
            Some(Waiting { outcome: slot @ Some(_), .. }) => {
                if let Some(outcome) = slot.take() {
                    self.calls.remove(ticket.place());
                    return Poll::Ready(outcome);
                }
                Poll::Pending
            }
            Some(waiting) => {
                match &mut waiting.waker {
                    Some(known) => known.clone_from(waker),
                    none => *none = Some(waker.clone()),
                }
                Poll::Pending
            }
            None => Poll::Pending, // Only the Call that owns the ticket takes it out, and it polls once after.
        }
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        if self.get(ticket).is_some() {
            self.calls.remove(ticket.place());
        }
    }

    /// Ends a call. False when it has ended before: the outcome is late.
    pub(super) fn end(&mut self, id: u32, outcome: impl FnOnce() -> Outcome) -> bool {
        match self.get(Ticket(id)) {
            Some(waiting) if waiting.outcome.is_none() => {
                waiting.finish(outcome());
                true
            }
            _ => false,
        }
    }

    /// Ends every call whose deadline is not after `now`.
    pub(super) fn expire(&mut self, now: Instant, mut fault: impl FnMut() -> Fault) {
        self.earliest = None;
        for (_, waiting) in &mut self.calls {
            if waiting.outcome.is_some() {
                continue;
            }
            if waiting.deadline <= now {
                waiting.finish(Err(fault()));
            } else {
                self.earliest = Some(self.earliest.map_or(waiting.deadline, |e| e.min(waiting.deadline)));
            }
        }
    }

    /// Ends every call; `fault` is told whether the call's frame had begun to be written.
    pub(super) fn end_all(&mut self, written: u64, mut fault: impl FnMut(bool) -> Fault) {
        for (_, waiting) in &mut self.calls {
            if waiting.outcome.is_none() {
                let sent = waiting.starts_at < written;
                waiting.finish(Err(fault(sent)));
            }
        }
        self.earliest = None;
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut Waiting> {
        self.calls.get_mut(ticket.place()).filter(|waiting| waiting.ticket == ticket)
    }
}

impl Waiting {
    fn finish(&mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ffproto::{Code, Executed, NodeName};

    use super::*;

    fn fault(code: Code) -> Fault {
        Fault { code, at: NodeName::master(), executed: Executed::Unknown, message: String::new() }
    }

    fn poll(table: &mut CallTable, ticket: Ticket) -> Poll<Outcome> {
        table.poll(ticket, Waker::noop())
    }

    #[test]
    fn a_call_ends_once_and_a_second_outcome_is_late() {
        let mut table = CallTable::default();
        let ticket = table.insert(Instant::now(), 0);
        assert!(poll(&mut table, ticket).is_pending());
        assert!(table.end(ticket.id(), || Ok(Bytes::from_static(b"a"))));
        assert!(!table.end(ticket.id(), || Ok(Bytes::from_static(b"b"))));
        assert_eq!(poll(&mut table, ticket), Poll::Ready(Ok(Bytes::from_static(b"a"))));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn a_late_reply_cannot_end_the_call_that_took_its_place() {
        let mut table = CallTable::default();
        let first = table.insert(Instant::now(), 0);
        table.forget(first);
        let second = table.insert(Instant::now(), 0);
        assert_eq!(first.place(), second.place());
        assert!(!table.end(first.id(), || Ok(Bytes::new())));
        assert!(poll(&mut table, second).is_pending());
    }

    #[test]
    fn only_calls_past_their_deadline_expire() {
        let now = Instant::now();
        let mut table = CallTable::default();
        let (early, late) = (table.insert(now, 0), table.insert(now + Duration::from_secs(1), 0));
        assert_eq!(table.earliest_deadline(), Some(now));
        table.expire(now, || fault(Code::Timeout));
        assert!(poll(&mut table, early).is_ready());
        assert!(poll(&mut table, late).is_pending());
        assert_eq!(table.earliest_deadline(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn at_the_end_of_a_link_unsent_calls_are_told_apart() {
        let mut table = CallTable::default();
        let (sent, unsent) = (table.insert(Instant::now(), 0), table.insert(Instant::now(), 100));
        let executed = |was_sent| if was_sent { Executed::Unknown } else { Executed::No };
        table.end_all(100, |was_sent| Fault { executed: executed(was_sent), ..fault(Code::LinkLost) });
        let of = |polled: Poll<Outcome>| match polled {
            Poll::Ready(Err(fault)) => fault.executed,
            other => panic!("{other:?}"),
        };
        assert_eq!(of(poll(&mut table, sent)), Executed::Unknown);
        assert_eq!(of(poll(&mut table, unsent)), Executed::No);
    }
}
