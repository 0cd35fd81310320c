//! Broadcasts: the first connection asks for them, every connection must get each of them once and in order. The
//! next one is asked for when the oldest that is under way has reached everybody.

use std::collections::VecDeque;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Outcome;
use super::client::{Client, Template};
use super::idle;
use super::ledger::Ledger;
use crate::cli::LoadArgs;
use crate::ours::{DELIVERED_COMMAND, JOIN_COMMAND};

const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// How long deliveries may still come after the end.
const DRAIN: Duration = Duration::from_secs(6);

/// The broadcasts that are under way, numbered in the order in which they were asked for.
struct Tally {
    members: usize,
    /// The number of the oldest.
    first: u32,
    /// When each was asked for, and how many have not got it.
    open: VecDeque<(u64, usize)>,
}

impl Tally {
    fn new(members: usize) -> Self {
        Self { members, first: 0, open: VecDeque::new() }
    }

    /// Another one; returns its number.
    fn ask(&mut self, now: u64) -> u32 {
        self.open.push_back((now, self.members));
        self.first.wrapping_add(self.open.len() as u32 - 1)
    }

    /// A member has got that one. When it was the last of them, says when the broadcast was asked for.
    #[inline]
    fn deliver(&mut self, number: u32) -> Option<u64> {
        let at = number.wrapping_sub(self.first) as usize;
        let (since, missing) = self.open.get_mut(at)?;
        let since = *since;
        *missing = missing.saturating_sub(1);
        let complete = *missing == 0;
        while self.open.front().is_some_and(|(_, missing)| *missing == 0) {
            self.open.pop_front();
            self.first = self.first.wrapping_add(1);
        }
        complete.then_some(since)
    }

    /// Deliveries that have not come.
    fn missing(&self) -> u64 {
        self.open.iter().map(|(_, missing)| *missing as u64).sum()
    }
}

struct Member {
    client: Client,
    /// The number of the broadcast that comes next.
    next: u32,
}

pub(super) struct Drive<'a> {
    epoll: Epoll,
    members: Vec<Member>,
    ask: Template,
    delivery: Template,
    tally: Tally,
    window: u32,
    ledger: Ledger<'a>,
}

impl<'a> Drive<'a> {
    /// Connects all clients; each has joined when this returns.
    pub(super) fn connect(args: &'a LoadArgs, window: u32) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let connect = |number| Client::connect(args.addr, number, false);
        let mut clients = (0..args.conns).map(connect).collect::<anyhow::Result<Vec<_>>>()?;
        let join = Template::new(JOIN_COMMAND, args.error_command, args.body);
        let mut buffer = vec![0; 64 * 1024];
        for some in clients.chunks_mut(100) {
            idle::use_once(some, &join, &mut buffer)?;
        }
        for (number, client) in clients.iter().enumerate() {
            epoll.add(&client.stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
        }
        Ok(Self {
            epoll,
            ask: Template::new(args.command, args.error_command, args.body),
            delivery: Template::new(DELIVERED_COMMAND, args.error_command, args.body),
            tally: Tally::new(clients.len()),
            members: clients.into_iter().map(|client| Member { client, next: 0 }).collect(),
            window,
            ledger: Ledger::start(args),
        })
    }

    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let mut buffer = vec![0; READ_BYTES];
        self.ask(self.window)?;
        loop {
            let ready = match self.epoll.wait(&mut events, EpollTimeout::from(100u8)) {
                Err(nix::errno::Errno::EINTR) => 0,
                ready => ready?,
            };
            let now = self.ledger.tick()?;
            let drained = self.tally.open.is_empty() || now > self.ledger.end + DRAIN.as_nanos() as u64;
            if self.ledger.is_over(now) && drained || self.ledger.is_silent(now) {
                break;
            }
            let mut complete = 0;
            for event in &events[..ready] {
                complete += self.read(event.data() as usize, now, &mut buffer)?;
            }
            if complete > 0 && !self.ledger.is_over(now) {
                self.ask(complete)?;
            }
        }
        Ok(self.ledger.finish(self.tally.missing()))
    }

    /// Asks for more broadcasts, in one write.
    fn ask(&mut self, broadcasts: u32) -> anyhow::Result<()> {
        let now = self.ledger.now();
        let asker = &mut self.members[0].client;
        for _ in 0..broadcasts {
            asker.queue(&self.ask, self.tally.ask(now));
        }
        self.ledger.outcome.sent += u64::from(broadcasts);
        anyhow::ensure!(!asker.flush(), "a socket does not take {broadcasts} requests");
        Ok(())
    }

    /// Reads what a member has got; says how many broadcasts have reached everybody with it.
    fn read(&mut self, at: usize, now: u64, buffer: &mut [u8]) -> anyhow::Result<u32> {
        let Self { members, delivery, tally, ledger, .. } = self;
        let Member { client, next } = &mut members[at];
        let mut complete = 0;
        let read = client.read_frames(buffer, |_, frame| {
            // Every body is the asker's, whose number is 0.
            match delivery.number_in(frame, 0) {
                Some(number) => {
                    ledger.outcome.misordered += u64::from(number != *next);
                    *next = number.wrapping_add(1);
                    ledger.outcome.good += 1;
                    ledger.outcome.answers += 1;
                    if let Some(since) = tally.deliver(number) {
                        ledger.latency(now, now.saturating_sub(since));
                        complete += 1;
                    }
                }
                None if delivery.is_error(frame) => ledger.outcome.note_error(frame.body),
                None => ledger.outcome.wrong += 1,
            }
        });
        ledger.heard(now);
        if let Err(error) = read {
            eprintln!("load: connection {at}: {error}");
            ledger.outcome.wrong += 1;
            client.open = false;
        }
        if !client.open {
            ledger.outcome.closed += 1;
            self.epoll.delete(&client.stream)?;
        }
        Ok(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broadcast_is_complete_when_every_member_has_it() {
        let mut tally = Tally::new(2);
        assert_eq!((tally.ask(10), tally.ask(20)), (0, 1));
        assert_eq!((tally.deliver(0), tally.deliver(1)), (None, None));
        assert_eq!((tally.missing(), tally.deliver(0)), (2, Some(10)));
        assert_eq!((tally.ask(30), tally.deliver(1)), (2, Some(20)));
        assert_eq!((tally.deliver(2), tally.deliver(2), tally.missing()), (None, Some(30), 0));
        assert!(tally.open.is_empty());
    }

    #[test]
    fn a_delivery_that_nobody_asked_for_completes_nothing() {
        let mut tally = Tally { first: u32::MAX, ..Tally::new(1) };
        assert_eq!(tally.deliver(0), None);
        assert_eq!((tally.ask(1), tally.ask(2)), (u32::MAX, 0));
        assert_eq!(
            (tally.deliver(u32::MAX), tally.deliver(u32::MAX), tally.deliver(0)),
            (Some(1), None, Some(2))
        );
    }
}
