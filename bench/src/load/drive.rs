//! The loop of the load client: when to send, what to count, when to take the servers' times.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::Outcome;
use super::client::{Answer, Client, Template};
use super::ledger::Ledger;
use crate::cli::LoadArgs;

const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// How long answers may still come after the end: longer than a call's deadline.
const DRAIN: Duration = Duration::from_secs(6);

pub(super) struct Drive<'a> {
    args: &'a LoadArgs,
    epoll: Epoll,
    clients: Vec<Client>,
    template: Template,
    ledger: Ledger<'a>,
    /// Open loop: how many requests have become due.
    due: u64,
}

impl<'a> Drive<'a> {
    pub(super) fn connect(args: &'a LoadArgs) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut clients = Vec::with_capacity(args.conns);
        for number in 0..args.conns {
            let client = Client::connect(args.addr, number, args.websocket)?;
            epoll.add(&client.stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
            clients.push(client);
        }
        if args.rate.is_some() {
            // Else the kernel adds up to 50 us to every wait.
            nix::sys::prctl::set_timerslack(1)?;
        }
        Ok(Self {
            template: Template::new(args.command, args.error_command, args.body),
            args,
            epoll,
            clients,
            ledger: Ledger::start(args),
            due: 0,
        })
    }

    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let mut buffer = vec![0; READ_BYTES];
        if self.args.rate.is_none() {
            self.fill_pipes()?;
        }
        loop {
            self.send_due()?;
            let ready = self.wait(&mut events)?;
            let now = self.ledger.tick()?;
            if self.ledger.is_over(now) && self.drained(now) || self.ledger.is_silent(now) {
                break;
            }
            for event in &events[..ready] {
                self.ready(event, &mut buffer)?;
            }
        }
        let missing = self.clients.iter().map(|c| c.flight.outstanding() as u64).sum();
        Ok(self.ledger.finish(missing))
    }

    /// Closed loop: the first requests.
    fn fill_pipes(&mut self) -> anyhow::Result<()> {
        let now = self.ledger.now();
        for at in 0..self.clients.len() {
            for _ in 0..self.args.pipe {
                self.clients[at].request(&self.template, now);
            }
            self.ledger.outcome.sent += self.args.pipe as u64;
            self.flush(at)?;
        }
        Ok(())
    }

    /// Open loop: sends everything that is due, one write per connection.
    fn send_due(&mut self) -> anyhow::Result<()> {
        let Some(rate) = self.args.rate else { return Ok(()) };
        let now = self.ledger.now();
        let mut touched = 0..0;
        loop {
            let due = due_at(self.due, rate);
            if due > now || due >= self.ledger.end {
                break;
            }
            let at = (self.due % self.clients.len() as u64) as usize;
            // The round has come back to a connection of this turn: write it first.
            if touched.len() == self.clients.len() {
                self.flush_round(&mut touched)?;
            }
            if touched.is_empty() {
                touched = self.due as usize..self.due as usize;
            }
            touched.end += 1;
            self.clients[at].request(&self.template, due);
            self.ledger.outcome.sent += 1;
            self.due += 1;
            if due >= self.ledger.begin {
                self.ledger.outcome.late_us_max =
                    self.ledger.outcome.late_us_max.max((now - due) as f64 / 1e3);
            }
        }
        self.flush_round(&mut touched)
    }

    fn flush_round(&mut self, touched: &mut std::ops::Range<usize>) -> anyhow::Result<()> {
        for request in std::mem::take(touched) {
            self.flush(request % self.clients.len())?;
        }
        Ok(())
    }

    /// Writes a connection's requests; asks for writability while the socket is full.
    fn flush(&mut self, at: usize) -> anyhow::Result<()> {
        let client = &mut self.clients[at];
        if client.blocked != client.flush() {
            client.blocked = !client.blocked;
            let flags = match client.blocked {
                true => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
                false => EpollFlags::EPOLLIN,
            };
            self.epoll.modify(&client.stream, &mut EpollEvent::new(flags, at as u64))?;
        }
        Ok(())
    }

    fn wait(&self, events: &mut [EpollEvent]) -> anyhow::Result<usize> {
        let mut timeout = EpollTimeout::from(100u8);
        if let Some(rate) = self.args.rate {
            // epoll counts in milliseconds; poll on the epoll itself can wait for less.
            let next = due_at(self.due, rate);
            let wait =
                if next < self.ledger.end { next.saturating_sub(self.ledger.now()) } else { 100_000_000 };
            if wait > 0 {
                let poll = PollFd::new(self.epoll.0.as_fd(), PollFlags::POLLIN);
                ppoll(&mut [poll], Some(Duration::from_nanos(wait).into()), None)?;
            }
            timeout = EpollTimeout::ZERO;
        }
        match self.epoll.wait(events, timeout) {
            Err(nix::errno::Errno::EINTR) => Ok(0),
            ready => Ok(ready?),
        }
    }

    fn ready(&mut self, event: &EpollEvent, buffer: &mut [u8]) -> anyhow::Result<()> {
        let at = event.data() as usize;
        let now = self.ledger.now();
        let goes_on = self.args.rate.is_none() && !self.ledger.is_over(now);
        let Self { clients, template, ledger, .. } = self;
        let open_loop = self.args.rate.is_some();
        let read = clients[at].read(template, buffer, |client, answer| {
            if let Answer::Good(since) | Answer::Overtook(since) = answer {
                ledger.outcome.good += 1;
                ledger.answer(if open_loop { since } else { now }, now.saturating_sub(since));
            }
            match answer {
                Answer::Good(_) => {}
                Answer::Overtook(_) => ledger.outcome.misordered += 1,
                Answer::Wrong => ledger.outcome.wrong += 1,
                Answer::Error(body) => ledger.outcome.note_error(body),
            }
            if goes_on && !matches!(answer, Answer::Wrong) {
                client.request(template, now);
                ledger.outcome.sent += 1;
            }
        });
        self.ledger.heard(now);
        if let Err(error) = read {
            eprintln!("load: connection {at}: {error}");
            self.ledger.outcome.wrong += 1;
            self.clients[at].open = false;
        }
        if self.clients[at].open {
            self.flush(at)?;
        }
        if !self.clients[at].open {
            self.ledger.outcome.closed += 1;
            self.epoll.delete(&self.clients[at].stream)?;
        }
        Ok(())
    }

    fn drained(&self, now: u64) -> bool {
        now > self.ledger.end + DRAIN.as_nanos() as u64
            || self.clients.iter().all(|c| !c.open || c.flight.outstanding() == 0)
    }
}

/// When the n-th request of an open loop is due.
fn due_at(n: u64, rate: f64) -> u64 {
    (n as f64 * 1e9 / rate) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        assert_eq!(due_at(0, 3.0), 0);
        assert_eq!(due_at(3_000_000, 3.0), 1_000_000_000_000_000);
    }
}
