//! What a load client counts, and when: the measured time lies between two marks, at which the clocks of the
//! servers and of the machine are read.

use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

use super::Outcome;
use crate::cli::LoadArgs;
use crate::proc::{self, MachineTime};
use crate::stats::Histogram;

/// A server that says nothing for so long is stuck.
const SILENCE: Duration = Duration::from_secs(10);

/// See the module. Times are ns since its start.
pub(super) struct Ledger<'a> {
    watch: &'a [i32],
    start: Instant,
    pub(super) begin: u64,
    pub(super) end: u64,
    before: Option<Mark>,
    measured: Option<(Spent, u64)>,
    latencies: Histogram,
    pub(super) outcome: Outcome,
    last_answer: u64,
}

impl<'a> Ledger<'a> {
    pub(super) fn start(args: &'a LoadArgs) -> Self {
        let ns = |secs: f64| Duration::from_secs_f64(secs).as_nanos() as u64;
        let begin = ns(args.warm);
        Self {
            watch: &args.watch,
            start: Instant::now(),
            begin,
            end: begin + ns(args.secs),
            before: None,
            measured: None,
            latencies: Histogram::new(),
            outcome: Outcome::default(),
            last_answer: 0,
        }
    }

    pub(super) fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }

    /// The time now; reads the clocks when the measured time has begun or ended.
    pub(super) fn tick(&mut self) -> anyhow::Result<u64> {
        let now = self.now();
        if self.before.is_none() && now >= self.begin {
            self.latencies.clear();
            self.outcome.answers = 0;
            self.before = Some(Mark::take(self.watch, now)?);
        }
        if let Some(before) = self.before.as_ref().filter(|_| self.measured.is_none() && now >= self.end) {
            self.measured = Some((Mark::take(self.watch, now)?.since(before), self.outcome.answers));
        }
        Ok(now)
    }

    /// Nothing new is asked for.
    pub(super) fn is_over(&self, now: u64) -> bool {
        now >= self.end
    }

    pub(super) fn heard(&mut self, now: u64) {
        self.last_answer = now;
    }

    pub(super) fn is_silent(&self, now: u64) -> bool {
        now > self.last_answer + SILENCE.as_nanos() as u64
    }

    /// Counts what is measured. It took `ns`, which are noted when `at` lies in the measured time.
    #[inline]
    pub(super) fn answer(&mut self, at: u64, ns: u64) {
        self.outcome.answers += 1;
        self.latency(at, ns);
    }

    #[inline]
    pub(super) fn latency(&mut self, at: u64, ns: u64) {
        if (self.begin..self.end).contains(&at) {
            self.latencies.record(ns);
        }
    }

    pub(super) fn finish(self, missing: u64) -> Outcome {
        // Without a measured time (every connection closed, or silence) all that is known is what went wrong.
        let (spent, answers) = self.measured.unwrap_or_default();
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
    pub(super) fn note_error(&mut self, body: &[u8]) {
        self.errors += 1;
        if self.first_error.is_none() {
            self.first_error = Some(String::from_utf8_lossy(&body[..body.len().min(300)]).into_owned());
        }
    }
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
