//! The loop of the load client: when to send, what to count, when to take the servers' times.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::Outcome;
use super::client::{Answer, Client, Template};
use crate::cli::LoadArgs;
use crate::proc::{self, MachineTime};
use crate::stats::Histogram;

const READ_BYTES: usize = 256 * 1024;
const EVENTS: usize = 1024;
/// How long answers may still come after the end: longer than a call's deadline.
const DRAIN: Duration = Duration::from_secs(6);
/// A server that says nothing for so long is stuck.
const SILENCE: Duration = Duration::from_secs(10);

pub(super) struct Drive<'a> {
    args: &'a LoadArgs,
    epoll: Epoll,
    clients: Vec<Client>,
    template: Template,
    start: Instant,
    /// Times are ns since `start`.
    begin: u64,
    end: u64,
    /// Open loop: how many requests have become due, and the time of the next.
    due: u64,
    latencies: Histogram,
    outcome: Outcome,
    last_answer: u64,
}

impl<'a> Drive<'a> {
    pub(super) fn connect(args: &'a LoadArgs) -> anyhow::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut clients = Vec::with_capacity(args.conns);
        for number in 0..args.conns {
            let client = Client::connect(args.addr, number)?;
            epoll.add(&client.stream, EpollEvent::new(EpollFlags::EPOLLIN, number as u64))?;
            clients.push(client);
        }
        if args.rate.is_some() {
            // Else the kernel adds up to 50 us to every wait.
            nix::sys::prctl::set_timerslack(1)?;
        }
        let ns = |secs: f64| Duration::from_secs_f64(secs).as_nanos() as u64;
        let begin = ns(args.warm);
        Ok(Self {
            template: Template::new(args.command, args.error_command, args.body),
            args,
            epoll,
            clients,
            start: Instant::now(),
            begin,
            end: begin + ns(args.secs),
            due: 0,
            latencies: Histogram::new(),
            outcome: Outcome::default(),
            last_answer: 0,
        })
    }

    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    pub(super) fn run(mut self) -> anyhow::Result<Outcome> {
        let mut events = vec![EpollEvent::empty(); EVENTS];
        let mut buffer = vec![0; READ_BYTES];
        let (mut before, mut measured) = (None, None);
        if self.args.rate.is_none() {
            self.fill_pipes()?;
        }
        loop {
            self.send_due()?;
            let ready = self.wait(&mut events)?;
            let now = self.now();
            if before.is_none() && now >= self.begin {
                self.latencies.clear();
                self.outcome.answers = 0;
                before = Some(Mark::take(&self.args.watch, now)?);
            }
            if let Some(before) = before.as_ref().filter(|_| measured.is_none() && now >= self.end) {
                measured = Some((Mark::take(&self.args.watch, now)?.since(before), self.outcome.answers));
            }
            if now >= self.end && self.drained(now) || now > self.last_answer + SILENCE.as_nanos() as u64 {
                break;
            }
            for event in &events[..ready] {
                self.ready(event, &mut buffer)?;
            }
        }
        Ok(self.finish(measured))
    }

    /// Closed loop: the first requests.
    fn fill_pipes(&mut self) -> anyhow::Result<()> {
        let now = self.now();
        for at in 0..self.clients.len() {
            for _ in 0..self.args.pipe {
                self.clients[at].request(&self.template, now);
            }
            self.outcome.sent += self.args.pipe as u64;
            self.flush(at)?;
        }
        Ok(())
    }

    /// Open loop: sends everything that is due, one write per connection.
    fn send_due(&mut self) -> anyhow::Result<()> {
        let Some(rate) = self.args.rate else { return Ok(()) };
        let now = self.now();
        let mut touched = 0..0;
        loop {
            let due = due_at(self.due, rate);
            if due > now || due >= self.end {
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
            self.outcome.sent += 1;
            self.due += 1;
            if due >= self.begin {
                self.outcome.late_us_max = self.outcome.late_us_max.max((now - due) as f64 / 1e3);
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
            let wait = if next < self.end { next.saturating_sub(self.now()) } else { 100_000_000 };
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
        let now = self.now();
        let goes_on = self.args.rate.is_none() && now < self.end;
        let Self { clients, template, latencies, outcome, begin, end, .. } = self;
        let window = *begin..*end;
        let open_loop = self.args.rate.is_some();
        let read = clients[at].read(template, buffer, |client, answer| {
            if let Answer::Good(since) | Answer::Overtook(since) = answer {
                outcome.good += 1;
                outcome.answers += 1;
                if window.contains(if open_loop { &since } else { &now }) {
                    latencies.record(now.saturating_sub(since));
                }
            }
            match answer {
                Answer::Good(_) => {}
                Answer::Overtook(_) => outcome.misordered += 1,
                Answer::Wrong => outcome.wrong += 1,
                Answer::Error(body) => outcome.note_error(body),
            }
            if goes_on && !matches!(answer, Answer::Wrong) {
                client.request(template, now);
                outcome.sent += 1;
            }
        });
        self.last_answer = now;
        if let Err(error) = read {
            eprintln!("load: connection {at}: {error}");
            self.outcome.wrong += 1;
            self.clients[at].open = false;
        }
        if self.clients[at].open {
            self.flush(at)?;
        }
        if !self.clients[at].open {
            self.outcome.closed += 1;
            self.epoll.delete(&self.clients[at].stream)?;
        }
        Ok(())
    }

    fn drained(&self, now: u64) -> bool {
        now > self.end + DRAIN.as_nanos() as u64
            || self.clients.iter().all(|c| !c.open || c.flight.outstanding() == 0)
    }

    fn finish(self, measured: Option<(Spent, u64)>) -> Outcome {
        let missing = self.clients.iter().map(|c| c.flight.outstanding() as u64).sum();
        // Without a measured window (every connection closed, or silence) all that is known is what went wrong.
        let (spent, answers) = measured.unwrap_or_default();
        let us = |ns: u64| ns as f64 / 1e3;
        let q = |q| us(self.latencies.quantile(q));
        Outcome {
            answers,
            secs: spent.secs,
            per_sec: if spent.secs > 0.0 { answers as f64 / spent.secs } else { 0.0 },
            p50_us: q(0.5),
            p99_us: q(0.99),
            p999_us: q(0.999),
            max_us: us(self.latencies.max()),
            mean_us: self.latencies.mean() / 1e3,
            missing,
            server_cpu_s: spent.servers,
            load_cpu_s: spent.load,
            other_cores: spent.other_cores,
            steal_cores: spent.steal_cores,
            ..self.outcome
        }
    }
}

impl Outcome {
    fn note_error(&mut self, body: &[u8]) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned());
        }
    }
}

/// When the n-th request of an open loop is due.
fn due_at(n: u64, rate: f64) -> u64 {
    (n as f64 * 1e9 / rate) as u64
}

/// The clocks at one moment.
struct Mark {
    now: u64,
    servers_ns: Vec<u64>,
    load_s: f64,
    machine: MachineTime,
}

/// What was spent between two marks.
#[derive(Debug, Default)]
struct Spent {
    secs: f64,
    servers: Vec<f64>,
    load: f64,
    other_cores: f64,
    steal_cores: f64,
}

impl Mark {
    fn take(watch: &[i32], now: u64) -> anyhow::Result<Self> {
        let usage = getrusage(UsageWho::RUSAGE_SELF)?;
        let load_us = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
        Ok(Self {
            now,
            servers_ns: watch.iter().map(|&pid| proc::cpu_ns(pid)).collect(),
            load_s: load_us as f64 / 1e6,
            machine: proc::machine_time()?,
        })
    }

    fn since(&self, before: &Self) -> Spent {
        let secs = (self.now - before.now) as f64 / 1e9;
        let pairs = self.servers_ns.iter().zip(&before.servers_ns);
        let servers: Vec<f64> = pairs.map(|(now, then)| now.saturating_sub(*then) as f64 / 1e9).collect();
        let load = self.load_s - before.load_s;
        let busy = self.machine.busy - before.machine.busy;
        Spent {
            other_cores: ((busy - load - servers.iter().sum::<f64>()) / secs).max(0.0),
            steal_cores: (self.machine.steal - before.machine.steal) / secs,
            secs,
            servers,
            load,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn due_times_do_not_drift() {
        assert_eq!(due_at(0, 3.0), 0);
        assert_eq!(due_at(3_000_000, 3.0), 1_000_000_000_000_000);
    }

    #[test]
    fn what_was_spent_is_the_difference_and_the_rest_is_others() {
        let mark = |now, server, load_s, busy| Mark {
            now,
            servers_ns: vec![server, 5],
            load_s,
            machine: MachineTime { busy, steal: busy / 10.0 },
        };
        let spent = mark(3_000_000_000, 1_000_000_005, 1.5, 13.0).since(&mark(1_000_000_000, 5, 1.0, 10.0));
        assert_eq!((spent.secs, spent.servers, spent.load), (2.0, vec![1.0, 0.0], 0.5));
        assert!((spent.other_cores - 0.75).abs() < 1e-9 && (spent.steal_cores - 0.15).abs() < 1e-9);
    }
}
