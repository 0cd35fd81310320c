//! The table of calls that wait for their outcome: ids in, outcomes out; no I/O and no clock.

use std::sync::Arc;
use std::task::{Poll, Waker};

use bytes::Bytes;
use ffproto::{Fault, SessionId};
use rustc_hash::FxHashMap;
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

type CallOutcome = Result<Bytes, Fault>;

/// A sink: where the outcome of a forwarded call goes, without a task and without an allocation per call.
pub trait Sink: Send + Sync {
    /// The call that was forwarded with this token has ended: with a body, with nothing to send
    /// (`Ok(None)`), or with a fault. Runs inside the link's driver, so it must not block.
    fn end(self: Arc<Self>, token: u64, outcome: Result<Option<&[u8]>, &Fault>);
}

/// A forwarded call that has ended, still to be told: outside of the table's lock, because a sink takes
/// the lock of another queue.
pub(super) struct EndedForward {
    sink: Arc<dyn Sink>,
    token: u64,
}

impl EndedForward {
    pub(super) fn tell(self, outcome: Result<Option<&[u8]>, &Fault>) {
        self.sink.end(self.token, outcome);
    }
}

enum Waiter {
    Future { waker: Option<Waker>, outcome: Option<CallOutcome> },
    Sink(EndedForward),
}

struct WaitingCall {
    ticket: Ticket,
    deadline: Instant,
    /// Where the call's frame starts in everything that the link has ever queued.
    starts_at: u64,
    /// The session whose message it is; `None` for calls of handlers.
    message_of: Option<SessionId>,
    waiter: Waiter,
}

/// The end of a call, and what is left to do.
pub(super) enum CallEnd {
    /// The call had ended before.
    Late,
    /// The call's future has the outcome.
    Done,
    /// The sink is still to be told.
    Tell(EndedForward),
}

#[derive(Default)]
pub(super) struct CallTable {
    calls: Slab<WaitingCall>,
    uses: u32,
    /// No waiting call has an earlier deadline. May be too early (its call has ended), never too late.
    earliest: Option<Instant>,
    /// The number of messages of each session that wait; counted only on a link that has been retired.
    held: Option<FxHashMap<SessionId, u32>>,
    /// The sessions of which no message waits any more, since this was asked last.
    released: Vec<SessionId>,
    /// Who waits until no call does.
    when_idle: Option<Waker>,
}

impl CallTable {
    pub(super) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Whether no call waits; else remembers the one who is to be woken then.
    pub(super) fn poll_idle(&mut self, waker: &Waker) -> Poll<()> {
        if self.calls.is_empty() {
            return Poll::Ready(());
        }
        self.when_idle = Some(waker.clone());
        Poll::Pending
    }

    /// Takes a call out. The only place that does.
    fn remove(&mut self, place: usize) -> WaitingCall {
        let waiting = self.calls.remove(place);
        if self.when_idle.is_some() && self.calls.is_empty() {
            self.when_idle.take().into_iter().for_each(Waker::wake);
        }
        waiting
    }

    /// A call whose outcome a future waits for.
    pub(super) fn insert(&mut self, deadline: Instant, starts_at: u64) -> Ticket {
        self.add(deadline, starts_at, None, Waiter::Future { waker: None, outcome: None })
    }

    /// Adds a call whose outcome goes to a sink.
    pub(super) fn forward(
        &mut self,
        deadline: Instant,
        starts_at: u64,
        message_of: Option<SessionId>,
        sink: Arc<dyn Sink>,
        token: u64,
    ) -> Ticket {
        self.add(deadline, starts_at, message_of, Waiter::Sink(EndedForward { sink, token }))
    }

    /// Counts from now on whose messages wait for their outcome, see [`CallTable::holds`].
    pub(super) fn count_messages(&mut self) {
        let mut held = FxHashMap::default();
        for session in self.calls.iter().filter_map(|(_, waiting)| waiting.message_of) {
            *held.entry(session).or_insert(0) += 1;
        }
        self.held = Some(held);
    }

    /// Whether a message of a session waits for its outcome, on a link that has been retired.
    pub(super) fn holds(&self, session: SessionId) -> bool {
        self.held.as_ref().is_some_and(|held| held.contains_key(&session))
    }

    /// Whether a message of that session waits for its outcome.
    pub(super) fn has_message_of(&self, session: SessionId) -> bool {
        self.calls.iter().any(|(_, waiting)| waiting.message_of == Some(session))
    }

    fn let_go(&mut self, session: Option<SessionId>) {
        let (Some(held), Some(session)) = (&mut self.held, session) else { return };
        if let Some(n) = held.get_mut(&session) {
            *n -= 1;
            if *n == 0 {
                held.remove(&session);
                self.released.push(session);
            }
        }
    }

    /// The sessions of which no message waits any more on this retired link; each is told once.
    pub(super) fn take_released(&mut self) -> Vec<SessionId> {
        std::mem::take(&mut self.released)
    }

    fn add(
        &mut self,
        deadline: Instant,
        starts_at: u64,
        message_of: Option<SessionId>,
        waiter: Waiter,
    ) -> Ticket {
        let entry = self.calls.vacant_entry();
        self.uses = self.uses.wrapping_add(1);
        let ticket = Ticket(self.uses << PLACE_BITS | (entry.key() as u32 & PLACE_MASK));
        entry.insert(WaitingCall { ticket, deadline, starts_at, message_of, waiter });
        self.earliest = Some(self.earliest.map_or(deadline, |e| e.min(deadline)));
        ticket
    }

    /// Takes the outcome if it is there; else remembers who waits.
    pub(super) fn poll(&mut self, ticket: Ticket, waker: &Waker) -> Poll<CallOutcome> {
        // Only the Call that owns the ticket takes it out, and it is not polled after its end.
        let Some(WaitingCall { waiter: Waiter::Future { waker: known, outcome }, .. }) = self.get(ticket)
        else {
            return Poll::Pending;
        };
        if let Some(outcome) = outcome.take() {
            self.remove(ticket.place());
            return Poll::Ready(outcome);
        }
        match known {
            Some(known) => known.clone_from(waker),
            none => *none = Some(waker.clone()),
        }
        Poll::Pending
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        if self.get(ticket).is_some() {
            self.remove(ticket.place());
        }
    }

    /// Ends a call; `outcome` is made only for a future that waits.
    pub(super) fn end(&mut self, id: u32, outcome: impl FnOnce() -> CallOutcome) -> CallEnd {
        let ticket = Ticket(id);
        match self.get(ticket).map(|waiting| &mut waiting.waiter) {
            Some(Waiter::Sink(_)) => {
                let WaitingCall { waiter, message_of, .. } = self.remove(ticket.place());
                self.let_go(message_of);
                match waiter {
                    Waiter::Sink(told) => CallEnd::Tell(told),
                    Waiter::Future { .. } => CallEnd::Late,
                }
            }
            Some(Waiter::Future { waker, outcome: slot @ None }) => {
                *slot = Some(outcome());
                if let Some(waker) = waker.take() {
                    waker.wake();
                }
                CallEnd::Done
            }
            Some(_) | None => CallEnd::Late,
        }
    }

    /// Ends every call whose deadline is not after `now`; the sinks are still to be told.
    pub(super) fn expire(&mut self, now: Instant, fault: impl Fn() -> Fault) -> Vec<EndedForward> {
        let late = in_order(self.unended().filter(|waiting| waiting.deadline <= now));
        let told = self.end_each(&late, |_| fault());
        self.earliest = self.unended().map(|waiting| waiting.deadline).min();
        told.into_iter().map(|(told, _)| told).collect()
    }

    /// Ends every call; `fault` is told whether the call's frame had begun to be written.
    pub(super) fn end_all(
        &mut self,
        written: u64,
        fault: impl Fn(bool) -> Fault,
    ) -> Vec<(EndedForward, Fault)> {
        let all = in_order(self.unended());
        self.earliest = None;
        self.end_each(&all, |starts_at| fault(starts_at < written))
    }

    fn unended(&self) -> impl Iterator<Item = &WaitingCall> {
        let ended =
            |waiting: &&WaitingCall| matches!(waiting.waiter, Waiter::Future { outcome: Some(_), .. });
        self.calls.iter().map(|(_, waiting)| waiting).filter(move |waiting| !ended(waiting))
    }

    fn end_each(&mut self, ids: &[u32], fault: impl Fn(u64) -> Fault) -> Vec<(EndedForward, Fault)> {
        let mut told = Vec::new();
        for &id in ids {
            let Some(starts_at) = self.get(Ticket(id)).map(|waiting| waiting.starts_at) else { continue };
            let fault = fault(starts_at);
            if let CallEnd::Tell(sink) = self.end(id, || Err(fault.clone())) {
                told.push((sink, fault));
            }
        }
        told
    }

    pub(super) fn earliest_deadline(&self) -> Option<Instant> {
        self.earliest
    }

    fn get(&mut self, ticket: Ticket) -> Option<&mut WaitingCall> {
        self.calls.get_mut(ticket.place()).filter(|waiting| waiting.ticket == ticket)
    }
}

/// The ids in the order in which the calls were made: clients tell the answers to one command apart by
/// their order, error frames included.
fn in_order<'a>(calls: impl Iterator<Item = &'a WaitingCall>) -> Vec<u32> {
    let mut calls: Vec<_> = calls.map(|waiting| (waiting.starts_at, waiting.ticket.id())).collect();
    calls.sort_unstable();
    calls.into_iter().map(|(_, id)| id).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ffproto::{Code, Executed, NodeName};

    use super::*;

    fn fault(code: Code) -> Fault {
        Fault { code, at: NodeName::master(), executed: Executed::Unknown, message: String::new() }
    }

    fn poll(table: &mut CallTable, ticket: Ticket) -> Poll<CallOutcome> {
        table.poll(ticket, Waker::noop())
    }

    #[test]
    fn a_call_ends_once_and_a_second_outcome_is_late() {
        let mut table = CallTable::default();
        let ticket = table.insert(Instant::now(), 0);
        assert!(poll(&mut table, ticket).is_pending());
        assert!(matches!(table.end(ticket.id(), || Ok(Bytes::from_static(b"a"))), CallEnd::Done));
        assert!(matches!(table.end(ticket.id(), || Ok(Bytes::from_static(b"b"))), CallEnd::Late));
        assert_eq!(poll(&mut table, ticket), Poll::Ready(Ok(Bytes::from_static(b"a"))));
        assert_eq!(table.len(), 0);
    }

    #[test]
    fn who_waits_until_a_link_is_idle_is_woken_by_the_last_call_however_it_ends() {
        struct Woken(std::sync::atomic::AtomicU64);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
        struct Nobody;
        impl Sink for Nobody {
            fn end(self: Arc<Self>, _: u64, _: Result<Option<&[u8]>, &Fault>) {}
        }
        let woken = Arc::new(Woken(0.into()));
        let waker: Waker = woken.clone().into();
        let mut table = CallTable::default();
        assert!(table.poll_idle(&waker).is_ready());
        let ends: [fn(&mut CallTable, Ticket); 4] = [
            |table, ticket| table.forget(ticket),
            |table, ticket| {
                table.end(ticket.id(), || Ok(Bytes::new()));
                assert!(poll(table, ticket).is_ready());
            },
            |table, ticket| drop(table.end(ticket.id(), || Ok(Bytes::new()))),
            |table, _| drop(table.end_all(0, |_| fault(Code::LinkLost))),
        ];
        for (n, end) in (1..).zip(ends) {
            let other = table.insert(Instant::now(), 0);
            let last = match n {
                1 | 2 => table.insert(Instant::now(), 0),
                _ => table.forward(Instant::now(), 0, None, Arc::new(Nobody), 0),
            };
            assert!(table.poll_idle(&waker).is_pending());
            table.forget(other);
            assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), n - 1, "one still waits");
            end(&mut table, last);
            assert_eq!(woken.0.load(std::sync::atomic::Ordering::Relaxed), n);
            assert!(table.poll_idle(&waker).is_ready());
        }
    }

    #[test]
    fn a_late_reply_cannot_end_the_call_that_took_its_place() {
        let mut table = CallTable::default();
        let first = table.insert(Instant::now(), 0);
        table.forget(first);
        let second = table.insert(Instant::now(), 0);
        assert_eq!(first.place(), second.place());
        assert!(matches!(table.end(first.id(), || Ok(Bytes::new())), CallEnd::Late));
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
    fn a_forwarded_call_is_told_to_its_sink_once() {
        struct Count(std::sync::atomic::AtomicU64);
        impl Sink for Count {
            fn end(self: Arc<Self>, token: u64, _: Result<Option<&[u8]>, &Fault>) {
                self.0.fetch_add(token, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let sink = Arc::new(Count(0.into()));
        let mut table = CallTable::default();
        let ticket = table.forward(Instant::now(), 0, None, sink.clone(), 7);
        let CallEnd::Tell(told) = table.end(ticket.id(), || unreachable!("no future waits")) else {
            panic!()
        };
        told.tell(Ok(Some(b"x")));
        assert!(matches!(table.end(ticket.id(), || unreachable!()), CallEnd::Late));
        table.forward(Instant::now(), 0, None, sink.clone(), 100);
        for told in table.expire(Instant::now(), || fault(Code::Timeout)) {
            told.tell(Ok(None));
        }
        assert_eq!((sink.0.load(std::sync::atomic::Ordering::Relaxed), table.len()), (107, 0));
    }

    #[test]
    fn calls_that_end_together_are_told_in_the_order_in_which_they_were_made() {
        struct Tokens(parking_lot::Mutex<Vec<u64>>);
        impl Sink for Tokens {
            fn end(self: Arc<Self>, token: u64, _: Result<Option<&[u8]>, &Fault>) {
                self.0.lock().push(token);
            }
        }
        let sink = Arc::new(Tokens(parking_lot::Mutex::default()));
        let mut table = CallTable::default();
        // Places are given again, the latest first, so their order is not that of the calls.
        let early: Vec<_> = (0..3).map(|n| table.insert(Instant::now(), n)).collect();
        early.into_iter().for_each(|ticket| table.forget(ticket));
        for n in 3..6 {
            table.forward(Instant::now(), n, None, sink.clone(), n);
        }
        for told in table.expire(Instant::now(), || fault(Code::Timeout)) {
            told.tell(Ok(None));
        }
        for n in 6..9 {
            table.forward(Instant::now(), n, None, sink.clone(), n);
        }
        for (told, fault) in table.end_all(9, |_| fault(Code::LinkLost)) {
            told.tell(Err(&fault));
        }
        assert_eq!(*sink.0.lock(), [3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_retired_table_knows_whose_messages_wait() {
        struct Nobody;
        impl Sink for Nobody {
            fn end(self: Arc<Self>, _: u64, _: Result<Option<&[u8]>, &Fault>) {}
        }
        let (alice, bob) = (SessionId(1), SessionId(2));
        let mut table = CallTable::default();
        let sink: Arc<dyn Sink> = Arc::new(Nobody);
        let mut message = |of| table.forward(Instant::now(), 0, Some(of), sink.clone(), 0);
        let (first, second, _) = (message(alice), message(alice), message(bob));
        table.insert(Instant::now(), 0);
        table.count_messages();
        let end = |table: &mut CallTable, ticket: Ticket| drop(table.end(ticket.id(), || Ok(Bytes::new())));
        end(&mut table, first);
        assert!(table.holds(alice) && table.holds(bob));
        end(&mut table, second);
        assert!(!table.holds(alice) && table.holds(bob), "only bob's is left");
        table.end_all(0, |_| fault(Code::LinkLost));
        assert!(!table.holds(bob));
    }

    #[test]
    fn at_the_end_of_a_link_unsent_calls_are_told_apart() {
        let mut table = CallTable::default();
        let (sent, unsent) = (table.insert(Instant::now(), 0), table.insert(Instant::now(), 100));
        let executed = |was_sent| if was_sent { Executed::Unknown } else { Executed::No };
        table.end_all(100, |was_sent| Fault { executed: executed(was_sent), ..fault(Code::LinkLost) });
        let of = |polled: Poll<CallOutcome>| match polled {
            Poll::Ready(Err(fault)) => fault.executed,
            other => panic!("{other:?}"),
        };
        assert_eq!(of(poll(&mut table, sent)), Executed::Unknown);
        assert_eq!(of(poll(&mut table, unsent)), Executed::No);
    }
}
